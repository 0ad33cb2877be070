"""What persons do to changes without publishing anything: reject, withdraw, comment, deprecate, restore.

Approving publishes, and is `control_plane.publisher`'s. Each of these takes a turn, decides purely
(`control_plane.review`), and is durable on return, its answer with it.
"""

import asyncio
from enum import StrEnum, unique

from control_plane import plan as planning
from control_plane import review
from control_plane.library import Approved
from control_plane.lifecycle import Action, ChangeState
from control_plane.mutation import Ask, unasked
from control_plane.publisher import Publisher, Reviewed
from control_plane.review import NO_TALLY, Change, Step
from control_plane.sqlite_store import SqliteStore
from control_plane.turns import Turns
from service.logs import get_logger
from service.telemetry import CHANGES, Telemetry

log = get_logger("change_desk")


@unique
class Event(StrEnum):
    CHANGE_MOVED = "change_moved"


class ChangeDesk:
    """Shares its turns with the publisher: one change of state at a time in the whole control plane."""

    def __init__(self, *, store: SqliteStore, publisher: Publisher, telemetry: Telemetry, turns: Turns) -> None:
        self._store = store
        self._publisher = publisher
        self._telemetry = telemetry
        self._turns = turns

    async def close(
        self, number: int, action: Action, *, by: str, why: str, ask: Ask[Reviewed] | None = None
    ) -> Reviewed:
        """Reject, withdraw, deprecate or restore a change, as ``by`` may.

        Raises:
            AgentFactoryError: not in this state, not by this person, without the reason that it takes, or on another
                etag; nothing is stored.
        """
        return await self._turns.take(lambda: self._close(number, action, by, why, ask or unasked(by)))

    async def comment(self, number: int, *, by: str, text: str, ask: Ask[Reviewed] | None = None) -> Reviewed:
        """Add a comment to the history of a change.

        Raises:
            AgentFactoryError: there is no such change, or it has too many comments.
        """
        return await self._turns.take(lambda: self._comment(number, by, text, ask or unasked(by)))

    async def _close(self, number: int, action: Action, by: str, why: str, ask: Ask[Reviewed]) -> Reviewed:
        change, present = await self._change(number, ask), self._publisher.present
        step = review.close(
            change,
            action,
            by=by,
            why=why,
            charter=present.charter,
            revocations=present.revocations,
            at=self._publisher.now(),
        )
        approved = present.material.library.get(change.ref)
        if action is Action.RESTORE and approved is not None:
            step = step.entered(change.generation, self._placed(approved))
        reviewed = await self._save(step, ask)
        if not ask.validate_only:
            if approved is not None and action in {Action.DEPRECATE, Action.RESTORE}:
                self._publisher.mark(change.ref, step.change.state)
            if action in {Action.REJECT, Action.WITHDRAW}:
                self._telemetry.count(CHANGES, str(step.change.state))
        return reviewed

    async def _comment(self, number: int, by: str, text: str, ask: Ask[Reviewed]) -> Reviewed:
        change = await self._change(number, ask)
        return await self._save(review.comment(change, text, by=by, at=self._publisher.now()), ask)

    async def _save(self, step: Step, ask: Ask[Reviewed]) -> Reviewed:
        present = self._publisher.present
        known = step.change.ref.domain in present.charter.domains
        tally = step.change.tally(present.charter, present.revocations) if known else NO_TALLY
        reviewed = Reviewed(change=step.change, tally=tally)
        if not ask.validate_only:
            await asyncio.to_thread(self._store.save_step, step, answered=ask.answered(reviewed, step.at))
            log.info(Event.CHANGE_MOVED, change=step.change.name, action=str(step.action), state=str(step.change.state))
        return reviewed

    def _placed(self, approved: Approved) -> ChangeState:
        present = self._publisher.present
        return planning.state_of(approved, present.material.plan, present.revocations)

    async def _change(self, number: int, ask: Ask[Reviewed]) -> Change:
        change = await asyncio.to_thread(self._store.change, number)
        if change is None:
            raise review.ChangeUnknownError(f"changes/{number}")
        review.require_etag(change, ask.etag)
        return change
