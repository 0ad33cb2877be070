"""What one invocation and everything below it may still send, receive, ask of models, and call.

Children draw from their own amounts and from those of everybody above them at the same time, so that what a caller has
left is right at every moment, children that still run included.
"""

from enum import StrEnum, unique
from typing import Final

from data_plane.agents.invocations import GrantUsage
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_budget import LlmAllowances
from sandbox.limits import SandboxLimits


@unique
class Amount(StrEnum):
    """Named as in limits and receipts."""

    SENT_BYTES = "sent_bytes"
    RECEIVED_BYTES = "received_bytes"
    TOKENS = "tokens"
    CHILD_INVOCATIONS = "child_invocations"


class Amounts:
    """Made with an invocation. ``take`` before the effect; ``give_back`` what turned out not to be needed."""

    __slots__ = ("above", "grants", "http_requests", "llm", "remaining", "used")

    def __init__(self, limits: SandboxLimits, above: "Amounts | None" = None) -> None:
        """``above`` is the caller's, for a child."""
        self.remaining = [limits.sent_bytes, limits.received_bytes, limits.tokens, limits.child_invocations]
        self.above = above
        self.used = [0, 0, 0, 0]
        """By this invocation itself, in the order of `Amount`; what children use is in theirs."""
        self.llm: LlmAllowances | None = None
        """Of each binding of language models, once this invocation or a child of it may ask for one."""
        self.grants: GrantUsage | None = None
        """What else this invocation itself used, for its receipt; made by the first who uses any."""
        self.http_requests = 0
        """Made by this invocation and everything below it."""

    def left(self, amount: Amount) -> int:
        """Return how much may still be taken: the least of its own and everybody's above."""
        index = _INDEX[amount]
        least, above = self.remaining[index], self.above
        while above is not None:
            least = min(least, above.remaining[index])
            above = above.above
        return max(0, least)

    def used_by_grants(self) -> GrantUsage:
        """Return what `grants` is to be, to be added to."""
        if self.grants is None:
            self.grants = GrantUsage()
        return self.grants

    def take_http_request(self, most: int) -> None:
        """Count one request, here and above; agents that invoke agents do not multiply what the first may make.

        Raises:
            HostRefusal: kind ``budget``: the first of the invocations above has made ``most`` with all below it.
        """
        line = [self]
        while line[-1].above is not None:
            line.append(line[-1].above)
        if line[-1].http_requests >= most:
            raise HostRefusal(ErrorKind.BUDGET, f"expected at most {most} requests in one invocation")
        for each in line:
            each.http_requests += 1

    def take(self, amount: Amount, count: int) -> None:
        """Use ``count`` more, or nothing.

        Raises:
            HostRefusal: kind ``budget``: less than that is left.
        """
        left = self.left(amount)
        if count > left:
            raise HostRefusal(ErrorKind.BUDGET, f"expected at most {left} more {_WORDS[amount]}, got {count}")
        self._add(amount, count)

    def note(self, amount: Amount, count: int) -> None:
        """Count what was used already, beyond what was left if need be: the next `take` is refused then."""
        self._add(amount, count)

    def give_back(self, amount: Amount, count: int) -> None:
        """Undo a part of an earlier `take`."""
        self._add(amount, -count)

    def settle(self, amount: Amount, difference: int) -> None:
        """Count what turned out to be used beyond (or, negative, below) what was taken; it is not refused any more."""
        self._add(amount, difference)

    def _add(self, amount: Amount, count: int) -> None:
        index = _INDEX[amount]
        self.used[index] += count
        level: Amounts | None = self
        while level is not None:
            level.remaining[index] -= count
            level = level.above


_INDEX: Final = {amount: index for index, amount in enumerate(Amount)}
_WORDS: Final = {
    Amount.SENT_BYTES: "bytes to be sent",
    Amount.RECEIVED_BYTES: "bytes to be received",
    Amount.TOKENS: "tokens",
    Amount.CHILD_INVOCATIONS: "invocations below this one",
}
