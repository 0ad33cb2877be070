"""What calls to language models may use: reserved before a call, settled by what the endpoint counted.

Several bounds hold at once: the invocation's (its grant and its limits), its agent's for today and its tenant's for
today (the node's settings). A call reserves its estimated input and the output it may have, cut to what the least of
them leaves; afterwards the reservation is replaced by what the endpoint reports. Where the endpoint was reached and
reports nothing, the reservation stands: it may have worked, and been paid, all the same.

The estimate of the input may be short. A call may therefore overdraw by as much as its own input was underestimated;
then nothing is left for the next one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from data_plane.broker.answers import ErrorKind, HostRefusal
from templates.grants import LlmGrant

MILLION: Final = 1_000_000
_UNBOUNDED: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a million tokens each, in millionths of a US dollar."""

    input_microusd: int
    output_microusd: int

    def cost_microusd(self, input_tokens: int, output_tokens: int) -> int:
        """Return the cost, rounded up."""
        return -(-(input_tokens * self.input_microusd + output_tokens * self.output_microusd) // MILLION)

    def output_tokens_within(self, cost_microusd: int, input_tokens: int) -> int:
        """Return how many tokens of output fit beside this input; negative when the input alone does not."""
        spare = cost_microusd * MILLION - input_tokens * self.input_microusd
        if spare < 0:
            return -1
        return spare // self.output_microusd if self.output_microusd else _UNBOUNDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Input and output tokens together, and what they cost (0 without a price)."""

    tokens: int = 0
    cost_microusd: int = 0

    @classmethod
    def of(cls, price: Price | None, input_tokens: int, output_tokens: int) -> Self:
        cost = 0 if price is None else price.cost_microusd(input_tokens, output_tokens)
        return cls(tokens=input_tokens + output_tokens, cost_microusd=cost)

    def less(self, other: "Charge") -> "Charge":
        return Charge(tokens=self.tokens - other.tokens, cost_microusd=self.cost_microusd - other.cost_microusd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What one bound leaves; None: it does not bound this. ``kind`` and ``whose`` word the refusal."""

    tokens: int | None
    cost_microusd: int | None
    kind: ErrorKind
    whose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """``output_tokens`` is what the endpoint is told as its most."""

    output_tokens: int
    amount: Charge


@dataclass(slots=True, eq=False, kw_only=True)
class Allowance:
    """What is left of one bound of one invocation; a cost of None is not bounded."""

    tokens: int
    cost_microusd: int | None = None

    def left(self) -> Left:
        return Left(
            tokens=self.tokens, cost_microusd=self.cost_microusd, kind=ErrorKind.BUDGET, whose="this invocation"
        )

    def take(self, amount: Charge) -> None:
        """Take; a negative amount gives back."""
        self.tokens -= amount.tokens
        if self.cost_microusd is not None:
            self.cost_microusd -= amount.cost_microusd


class LlmAllowances:
    """What one invocation may use of each binding, by its grants; `data_plane.broker.amounts` bounds all together.

    An invocation that another one asked for draws from its own and from its caller's, and so up to the first: from what
    the caller may use of the same binding, if the caller was granted it.
    """

    def __init__(self, grants: Iterable[LlmGrant], above: "LlmAllowances | None" = None) -> None:
        self._by_binding = {
            grant.binding: Allowance(tokens=grant.tokens_max, cost_microusd=grant.cost_max_microusd) for grant in grants
        }
        self._above = above

    def of(self, binding: str) -> tuple[Allowance, ...]:
        """Return everything that a call on this binding draws from."""
        own = self._by_binding.get(binding)
        mine = () if own is None else (own,)
        return mine if self._above is None else (*mine, *self._above.of(binding))


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCeilings:
    """Of one binding, for each agent and for each tenant, from midnight to midnight UTC; None: no ceiling."""

    agent_tokens: int | None = None
    agent_cost_microusd: int | None = None
    tenant_tokens: int | None = None
    tenant_cost_microusd: int | None = None

    @property
    def are_set(self) -> bool:
        return self != DayCeilings()

    def left(self, *, agent: Charge, tenant: Charge) -> Sequence[Left]:
        """Return what today leaves, where so much was used."""
        return (
            Left(
                tokens=_minus(self.agent_tokens, agent.tokens),
                cost_microusd=_minus(self.agent_cost_microusd, agent.cost_microusd),
                kind=ErrorKind.QUOTA,
                whose="this agent today",
            ),
            Left(
                tokens=_minus(self.tenant_tokens, tenant.tokens),
                cost_microusd=_minus(self.tenant_cost_microusd, tenant.cost_microusd),
                kind=ErrorKind.QUOTA,
                whose="this tenant today",
            ),
        )


def reserve(lefts: Sequence[Left], *, price: Price | None, input_tokens: int, output_tokens: int) -> Reservation:
    """Return what a call takes beforehand: its input as estimated, and of the output as much as everything leaves.

    Raises:
        HostRefusal: the kind of the bound that leaves no room; ``denied`` where a bound on cost meets no price.
    """
    for left in lefts:
        room = output_tokens
        if left.tokens is not None:
            room = min(room, left.tokens - input_tokens)
        if left.cost_microusd is not None:
            if price is None:
                raise HostRefusal(ErrorKind.DENIED, "cost is bounded, and this node knows no price of the model")
            room = min(room, price.output_tokens_within(left.cost_microusd, input_tokens))
        if room < 1:
            raise HostRefusal(left.kind, _too_little(left, input_tokens))
        output_tokens = room
    return Reservation(output_tokens=output_tokens, amount=Charge.of(price, input_tokens, output_tokens))


def _too_little(left: Left, input_tokens: int) -> str:
    amounts = [
        f"{max(0, amount)} {unit}"
        for amount, unit in ((left.tokens, "tokens"), (left.cost_microusd, "millionths of a dollar"))
        if amount is not None
    ]
    return f"expected a call within {' and '.join(amounts)} (left for {left.whose}), got about {input_tokens} of input"


def _minus(ceiling: int | None, used: int) -> int | None:
    return None if ceiling is None else ceiling - used
