"""What becomes of an offered generation: the state machine of an update on a node.

Facts go in, effects come out; nothing here awaits or reads a clock. At most one update is under way; ``next`` is a
slot for the one that arrives while the present one is being persisted, which is too short to be worth interrupting.

State     Fact                                       Next      Effects
IDLE      Offered, not older than the active one     RECEIVED  Verify
IDLE      Offered, older than the active one         IDLE      SendNack(GENERATION_ROLLBACK)
RECEIVED  Offered, newer                             RECEIVED  Abandon, Verify the newer one
VERIFIED  Offered, newer                             RECEIVED  Abandon, Verify the newer one
STAGED    Offered, newer                             STAGED    - (remembered in ``next``, the newest wins)
RECEIVED  Verified                                   VERIFIED  SendAck(VERIFIED), Stage
VERIFIED  Staged                                     STAGED    SendAck(STAGED), Activate
STAGED    Activated, ``next`` empty                  IDLE      SendAck(ACTIVE)
STAGED    Activated, ``next`` holds a newer one      RECEIVED  SendAck(ACTIVE), Verify the next
any busy  Failed, ``next`` empty                     IDLE      SendNack
STAGED    Failed, ``next`` holds a newer one         RECEIVED  SendNack, Verify the next

Everything else changes nothing and has no effect: an offer that is not newer than the one under way, and every result
whose ticket is not that of the work under way (it was abandoned). An equal generation is verified anew because it
carries a newer lease, or because the store was damaged; whether it is the same is decided by signatures, not here.
"""

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TypeAlias, assert_never

from templates.reasons import Reason


@unique
class State(StrEnum):
    IDLE = "IDLE"
    RECEIVED = "RECEIVED"
    VERIFIED = "VERIFIED"
    STAGED = "STAGED"


@unique
class Phase(StrEnum):
    """Where an update was refused."""

    VERIFY = "verify"
    STAGE = "stage"
    ACTIVATE = "activate"


@unique
class Stage(StrEnum):
    """How far an update got; each includes the ones before it."""

    VERIFIED = "VERIFIED"
    STAGED = "STAGED"
    ACTIVE = "ACTIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a generation was refused. ``template`` is empty where no single template is at fault."""

    generation: int
    phase: Phase
    reason: Reason
    message: str
    template: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """The control plane sent a whole generation."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Signatures, approvals and rules hold."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Its code is here, compiled, does what was approved, and was dry-run."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """It is on disk, and new invocations run it."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The work under way was refused."""

    ticket: int
    refusal: Refusal


Fact: TypeAlias = Offered | Verified | Staged | Activated | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Verify the newest bundle that was offered for ``generation``; report with ``ticket``."""

    generation: int
    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCode:
    generation: int
    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """Persist, then swap."""

    generation: int
    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """Stop the work with this ticket; its results do not count any more."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendAck:
    generation: int
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SendNack:
    refusal: Refusal


Effect: TypeAlias = Verify | StageCode | Activate | Abandon | SendAck | SendNack


class Update:
    """Call `receive` with each fact in the order in which it happened; carry out the effects in theirs."""

    def __init__(self, *, active: int = 0) -> None:
        """Begin with the generation that was activated from disk; 0 for none."""
        self.state = State.IDLE
        self.active = active
        self.generation = 0
        self.next = 0
        self._ticket = 0

    def receive(self, fact: Fact) -> list[Effect]:
        match fact:
            case Offered(generation=generation):
                return self._offered(generation)
            case Verified(ticket=ticket):
                return self._verified() if self._is_current(ticket, State.RECEIVED) else []
            case Staged(ticket=ticket):
                return self._staged() if self._is_current(ticket, State.VERIFIED) else []
            case Activated(ticket=ticket):
                return self._activated() if self._is_current(ticket, State.STAGED) else []
            case Failed(ticket=ticket, refusal=refusal):
                if ticket != self._ticket or self.state is State.IDLE:
                    return []
                return [SendNack(refusal=refusal), *self._proceed()]
            case _ as never:
                assert_never(never)

    def _is_current(self, ticket: int, state: State) -> bool:
        return ticket == self._ticket and self.state is state

    def _offered(self, generation: int) -> list[Effect]:
        if self.state is State.IDLE:
            if generation < self.active:
                return [SendNack(refusal=_rollback(generation, self.active))]
            return self._begin(generation)
        if generation <= self.generation:
            return []
        if self.state is State.STAGED:
            self.next = max(self.next, generation)
            return []
        return [Abandon(ticket=self._ticket), *self._begin(generation)]

    def _begin(self, generation: int) -> list[Effect]:
        self.state = State.RECEIVED
        self.generation = generation
        self._ticket += 1
        return [Verify(generation=generation, ticket=self._ticket)]

    def _verified(self) -> list[Effect]:
        self.state = State.VERIFIED
        return [
            SendAck(generation=self.generation, stage=Stage.VERIFIED),
            StageCode(generation=self.generation, ticket=self._ticket),
        ]

    def _staged(self) -> list[Effect]:
        self.state = State.STAGED
        return [
            SendAck(generation=self.generation, stage=Stage.STAGED),
            Activate(generation=self.generation, ticket=self._ticket),
        ]

    def _activated(self) -> list[Effect]:
        self.active = self.generation
        return [SendAck(generation=self.generation, stage=Stage.ACTIVE), *self._proceed()]

    def _proceed(self) -> list[Effect]:
        """Leave the finished work, for the next offer if one waits."""
        waiting, self.next = self.next, 0
        self.state = State.IDLE
        self.generation = 0
        return self._begin(waiting) if waiting else []


def _rollback(offered: int, active: int) -> Refusal:
    return Refusal(
        generation=offered,
        phase=Phase.VERIFY,
        reason=Reason.GENERATION_ROLLBACK,
        message=f"expected a generation ≥ {active}, which is active, got {offered}",
    )
