"""What one node says about itself: to operators, to the control plane, to load balancers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from data_plane.activation.generation import ActiveGeneration
from data_plane.audit_witness import AuditWitness
from data_plane.invoker import Invoker
from data_plane.isolation import Isolation
from data_plane.updater import Refused, Updater
from templates.trusted_set import Freshness, freshness, withdrawn_since

WARN_BEFORE: Final = timedelta(days=14)


@unique
class State(StrEnum):
    """Names of `agentfactory.node.v1.NodeState` without its prefix."""

    WAITING = "WAITING"
    SERVING = "SERVING"
    DRAINING = "DRAINING"
    DAMAGED = "DAMAGED"
    UNISOLATED = "UNISOLATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at the node. ``lease_expired`` is False while nothing is active."""

    state: State
    reason: str
    active: ActiveGeneration | None
    freshness: Freshness | None
    last_refusal: Refused | None
    warnings: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        """Whether to send traffic here."""
        return self.state is State.SERVING and self.freshness is not Freshness.STALE

    @property
    def lease_expired(self) -> bool:
        return self.freshness in {Freshness.EXPIRED, Freshness.STALE}


class NodeState:
    """Reads the updater, the invoker and how far workers are isolated; decides nothing."""

    def __init__(
        self,
        updater: Updater,
        invoker: Invoker,
        isolation: Isolation,
        clock: Callable[[], datetime],
        witness: AuditWitness,
    ) -> None:
        self.witness = witness
        self._updater = updater
        self._invoker = invoker
        self.isolation = isolation
        self._clock = clock

    def look(self) -> Snapshot:
        now = self._clock()
        active = self._updater.active
        state, reason = self._state(active)
        return Snapshot(
            state=state,
            reason=reason,
            active=active,
            freshness=None if active is None else freshness(active.accepted, now=now),
            last_refusal=self._updater.last_refusal,
            warnings=(
                *filter(None, (self.isolation.warning, self.witness.warning)),
                *(() if active is None else _warnings(active, now)),
            ),
        )

    def quarantined(self, active: ActiveGeneration | None, *, now: float) -> tuple[str, ...]:
        """Return templates that are refused for some tenant: by reference while they are active, else by digest."""
        names = {} if active is None else {each.sha256: each.ref_text for each in active.templates.values()}
        held = {each.template for each in self._invoker.quarantine.held(now=now)}
        return tuple(sorted(names.get(each, each) for each in held))

    def _state(self, active: ActiveGeneration | None) -> tuple[State, str]:
        if self._invoker.draining:
            return State.DRAINING, "new invocations are refused, running ones may finish"
        if self.isolation.refusal:
            return State.UNISOLATED, self.isolation.refusal
        if active is not None:
            return State.SERVING, ""
        if self._updater.damage:
            return State.DAMAGED, f"the store is damaged, the control plane must send it anew: {self._updater.damage}"
        return State.WAITING, "no generation was accepted yet"


def _warnings(active: ActiveGeneration, now: datetime) -> tuple[str, ...]:
    warnings = [each.message for each in (*active.accepted.withdrawn, *withdrawn_since(active.accepted, now=now))]
    for role, expires in sorted(active.accepted.expires.items()):
        if now >= expires:
            warnings.append(f"{role} has run out at {expires.isoformat()}")
        elif role not in {"timestamp", "snapshot"} and expires - now < WARN_BEFORE:
            warnings.append(f"{role} runs out at {expires.isoformat()}")
    warnings += [
        f"the approval of {each.ref_text} runs out at {each.approval_expires.isoformat()}"
        for each in active.templates.values()
        if now < each.approval_expires < now + WARN_BEFORE
    ]
    return tuple(warnings)
