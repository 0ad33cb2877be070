"""Which stored generation a node may begin with, from what its store gives it (design section 5, rule 6).

A stored generation is never trusted because it is stored: it is verified again, lease and snapshot alone may have
expired. An older generation is a fallback only while the high-water mark allows it, which is so after a crash between
two writes; after damage it is not, because what was revoked since would run again. Then nothing is served until the
control plane sends the whole state (ADR 7).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from templates.bundle import Bundle
from templates.reasons import AgentFactoryError
from templates.trusted_set import Accepted, Belief, Installation, accept_from_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """``accepted`` is None when nothing may be served; ``damage`` then says why, or is empty for a fresh store."""

    accepted: Accepted | None
    belief: Belief
    damage: str
    generation_min: int
    """No generation below this one is taken, even where the high-water mark is lost."""


def choose(
    *,
    pinned_root: bytes,
    belief: Belief | AgentFactoryError | None,
    stored: Sequence[tuple[int, Callable[[], Bundle]]],
    installation: Installation,
    now: datetime,
) -> Boot:
    """Return what to begin with.

    Args:
        pinned_root: of the installation; where belief starts.
        belief: as stored; None for a fresh store, the error when it is damaged.
        stored: numbers and loaders of the stored generations, highest first; a loader raises when there is damage.
        installation: of this node.
        now: aware, UTC.
    """
    highest = max((number for number, _ in stored), default=0)
    if isinstance(belief, AgentFactoryError):
        return Boot(accepted=None, belief=Belief(root=pinned_root), damage=belief.message, generation_min=highest)
    if belief is None:
        return Boot(accepted=None, belief=Belief(root=pinned_root), damage="", generation_min=0)
    floor = belief.mark.generation if belief.mark is not None else 0
    problems = []
    for number, load in stored:
        if number < floor:
            problems.append(f"generation {number} is below the high-water mark {floor}")
            continue
        try:
            accepted = accept_from_disk(load(), belief=belief, installation=installation, now=now)
        except AgentFactoryError as error:
            problems.append(f"generation {number}: {error.message}")
        else:
            return Boot(accepted=accepted, belief=accepted.belief, damage="", generation_min=0)
    if belief.mark is not None and not stored:
        problems.append(f"generation {floor} was accepted and is not there")
    return Boot(accepted=None, belief=belief, damage="; ".join(problems), generation_min=0)
