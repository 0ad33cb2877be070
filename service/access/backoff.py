"""Waiting longer and longer after failed authentication from one address. Pure: the clock is an argument.

    failures 1 … free      nothing happens: somebody mistyped, a token ran out
    every further one      the address waits first_s, 2 first_s, 4 first_s … at most most_s
    success                forgets the failures
    most_s without any     forgets them as well

Only attempts with tokens wait: whoever proves a certificate's key guesses nothing, and must not be shut out by a
neighbour behind the same address.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.status import ExhaustedError
from templates.reasons import Reason

ADDRESSES_MAX: Final = 65_536


class BackedOffError(ExhaustedError):
    """Authentication failed from this address again and again; it has to wait."""

    reason = Reason.AUTHENTICATION_BACKED_OFF


@dataclass(slots=True)
class Failures:
    """Of one address; ``until`` and ``last`` by the caller's clock."""

    count: int = 0
    until: float = 0.0
    last: float = 0.0


class FailureBackoff:
    """Counts by key (`address_key`), the longest quiet one forgotten first beyond `ADDRESSES_MAX`."""

    def __init__(self, *, free: int = 5, first_s: float = 1.0, most_s: float = 900.0) -> None:
        self._free = free
        self._first_s = first_s
        self._most_s = most_s
        self._failures: OrderedDict[str, Failures] = OrderedDict()

    def check(self, key: str, *, now: float) -> None:
        """Raise `BackedOffError`, with how long, while ``key`` has to wait."""
        found = self._failures.get(key)
        if found is not None and now < found.until:
            raise BackedOffError("too many failed attempts to authenticate", retry_s=found.until - now)

    def failed(self, key: str, *, now: float) -> None:
        """Count one failure."""
        found = self._failures.setdefault(key, Failures())
        if now - found.last > self._most_s:
            found.count = 0
        found.count += 1
        found.last = now
        if found.count > self._free:
            doublings = min(found.count - self._free - 1, 32)
            found.until = now + min(self._most_s, self._first_s * float(2**doublings))
        self._failures.move_to_end(key)
        while len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        self._failures.pop(key, None)

    def waiting(self, *, now: float) -> Iterator[tuple[str, int, float]]:
        """Yield every key that has to wait, with its failures and for how many seconds more."""
        for key, found in self._failures.items():
            if now < found.until:
                yield key, found.count, found.until - now
