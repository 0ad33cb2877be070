"""Carries out what `control_plane.break_glass` decides: durable first, then told to whoever watches, then answered.

Every step is an alert: one log line of level WARNING with all its facts and one count of the metric, so that nobody
breaks the glass unseen. It is stored before it is told, and a use before the action that it lets through.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum, unique
from typing import Protocol

from control_plane import break_glass
from control_plane.break_glass import BreakGlass, BreakGlassUnknownError
from control_plane.mutation import Ask
from control_plane.publication import Published
from control_plane.sqlite_break_glass import SqliteBreakGlass
from service.logs import get_logger
from service.telemetry import BREAK_GLASS, Telemetry
from templates.charter import Charter
from templates.names import TemplateRef
from templates.revocations import Revocations

log = get_logger("break_glass")


@unique
class Event(StrEnum):
    OPENED = "break_glass_opened"
    CONFIRMED = "break_glass_confirmed"
    CLOSED = "break_glass_closed"
    USED = "break_glass_used"


class _Step(Protocol):
    def __call__(
        self, glass: BreakGlass, *, by: str, charter: Charter, revocations: Revocations, now: datetime
    ) -> BreakGlass: ...


class Glasses:
    """One writer at a time; safe to call from anywhere on the event loop."""

    def __init__(self, *, store: SqliteBreakGlass, telemetry: Telemetry, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._writing = asyncio.Lock()

    async def open(
        self, ref: TemplateRef, *, why: str, minutes: int, present: Published, ask: Ask[BreakGlass]
    ) -> BreakGlass:
        """Ask for it, as ``ask.person``.

        Raises:
            BreakGlassRefusedError: see `control_plane.break_glass`; nothing is stored.
        """
        async with self._writing:
            now = self._clock()
            asked = break_glass.open_glass(
                ref,
                by=ask.person,
                why=why,
                minutes=minutes,
                charter=present.charter,
                revocations=present.revocations,
                now=now,
            )
            if ask.validate_only:
                return asked
            glass = await asyncio.to_thread(self._store.add, asked, answer=lambda stored: ask.answered(stored, now))
            self._alert(Event.OPENED, glass, person=ask.person)
            return glass

    async def confirm(self, name: str, *, present: Published, ask: Ask[BreakGlass]) -> BreakGlass:
        """Let it begin.

        Raises:
            BreakGlassUnknownError, BreakGlassRefusedError
        """
        return await self._changed(break_glass.confirm, Event.CONFIRMED, name, present, ask)

    async def close(self, name: str, *, present: Published, ask: Ask[BreakGlass]) -> BreakGlass:
        """End it.

        Raises:
            BreakGlassUnknownError, BreakGlassRefusedError
        """
        return await self._changed(break_glass.close, Event.CLOSED, name, present, ask)

    async def _changed(
        self, step: _Step, event: Event, name: str, present: Published, ask: Ask[BreakGlass]
    ) -> BreakGlass:
        async with self._writing:
            now, glass = self._clock(), await self._get(name)
            changed = step(glass, by=ask.person, charter=present.charter, revocations=present.revocations, now=now)
            if not ask.validate_only:
                await asyncio.to_thread(self._store.save, changed, answered=ask.answered(changed, now))
                if changed != glass:
                    self._alert(event, changed, person=ask.person)
            return changed

    async def usable(self, ref: TemplateRef, *, present: Published) -> BreakGlass | None:
        """Return what is open for ``ref`` now."""
        found = await asyncio.to_thread(self._store.not_closed, ref)
        return break_glass.usable(
            found, ref, charter=present.charter, revocations=present.revocations, now=self._clock()
        )

    async def use(
        self, ref: TemplateRef, *, action: str, person: str, policies: Sequence[str], present: Published
    ) -> BreakGlass | None:
        """Note that it lets ``action`` through, and tell; None when none is open any more: then it does not."""
        async with self._writing:
            glass = await self.usable(ref, present=present)
            if glass is None:
                return None
            noted = break_glass.used(glass, action=action, person=person, policies=policies, now=self._clock())
            await asyncio.to_thread(self._store.save, noted)
            self._alert(Event.USED, noted, person=person, action=action, policies=list(policies))
            return noted

    async def page(self, *, before: int | None, limit: int) -> list[BreakGlass]:
        """Return stored ones, newest first, with numbers below ``before``."""
        return await asyncio.to_thread(lambda: self._store.all(before=before, limit=limit))

    async def _get(self, name: str) -> BreakGlass:
        glass = await asyncio.to_thread(self._store.get, break_glass.glass_number(name))
        if glass is None:
            raise BreakGlassUnknownError(name)
        return glass

    def _alert(self, event: Event, glass: BreakGlass, *, person: str, **facts: object) -> None:
        self._telemetry.count(BREAK_GLASS, event.removeprefix("break_glass_"))
        log.warning(
            event,
            break_glass=glass.name,
            template=str(glass.ref),
            person=person,
            why=glass.why,
            minutes=glass.minutes,
            opened_by=glass.opened_by,
            confirmed_by=glass.confirmed_by,
            **facts,
        )
