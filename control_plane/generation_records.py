"""What a publication stands on, what is stored beside it, who hears of it, and the way back to an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from control_plane.audit import Decision
from control_plane.mutation import Answered
from control_plane.publication import Published, Update
from control_plane.review import Step
from control_plane.sqlite_store import GenerationRecord, SignedState, SqliteStore
from control_plane.trust_directory import trust_files
from templates.reasons import AgentFactoryError, Reason
from templates.trusted_set import Belief

REASON_CHARACTERS_MAX = 500


class GenerationUnknownError(AgentFactoryError):
    """There is no generation of this number."""

    reason = Reason.GENERATION_UNKNOWN

    def __init__(self, number: int) -> None:
        super().__init__(f"expected the number of a published generation, got {number}")


class Audience(Protocol):
    """Who hears of what was published; both return at once."""

    def published(self, published: Published, update: Update, *, urgent: bool) -> None: ...

    def lease_renewed(self, published: Published, update: Update) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is stored in the transaction of a generation: what persons did to changes, and what they are answered.

    ``decision`` is what the audit log says of it; by default that there is a new generation.
    """

    steps: tuple[Step, ...] = ()
    answered: Answered | None = None
    decision: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the next generation stands on; ``metadata`` is None before the first one."""

    metadata: Mapping[str, bytes] | None
    belief: Belief


def earlier_generation(store: SqliteStore, present: Published, number: int) -> GenerationRecord:
    """Return the generation to go back to; ``number`` 0: the newest one whose versions are not the present ones.

    Raises:
        GenerationUnknownError: there is none.
    """
    if number:
        found = store.generation(number)
        if found is None or found.number > present.number:
            raise GenerationUnknownError(number)
        return found
    before: int | None = present.number
    while page := store.generations(before=before):
        for each in page:
            if set(each.plan.entries) != set(present.material.plan.entries):
                return each
        before = page[-1].number
    raise GenerationUnknownError(number)


def signed_state(record: GenerationRecord, published: Published) -> SignedState:
    return SignedState(
        generation=record,
        metadata=published.metadata,
        belief=published.accepted.belief.to_bytes(),
        trust=trust_files(published.material.trust),
    )


def cause_of(what: str, why: str) -> str:
    text = " ".join(why.split())[:REASON_CHARACTERS_MAX]
    return f"{what}: {text}" if text else what
