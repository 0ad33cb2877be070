"""Who waits for a place, and whose turn it is: first come, first served within a tenant, turns between tenants.

The queue is short. When it is full, the tenant that has most in it gives way, with its newest: a tenant that floods
the queue is told to come back, and one that sends a little still finds room (the drop rule of FQ-CoDel, RFC 8290).
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items are compared by identity."""

    def __init__(self, *, length_max: int) -> None:
        self._length_max = length_max
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def lengths(self) -> dict[str, int]:
        """Return how many of each tenant wait."""
        return {tenant: len(line) for tenant, line in self._waiting.items()}

    def push(self, tenant: str, item: T) -> T | None:
        """Add ``item`` at the end of its tenant's line; return who must go for it, which may be ``item``."""
        if self._length_max < 1:
            return item
        refused: T | None = None
        if self._length >= self._length_max:
            longest = max(self._waiting, key=lambda each: len(self._waiting[each]))
            if len(self._waiting[longest]) <= len(self._waiting.get(tenant, ())) + 1:
                return item
            refused = self._waiting[longest].pop()
            self._length -= 1
        self._waiting.setdefault(tenant, deque()).append(item)
        self._length += 1
        return refused

    def pop(self) -> T | None:
        """Return whose turn it is, None when nobody waits; the tenant's next turn comes after everybody else's."""
        if not self._waiting:
            return None
        tenant, line = next(iter(self._waiting.items()))
        item = line.popleft()
        self._length -= 1
        if line:
            self._waiting.move_to_end(tenant)
        else:
            del self._waiting[tenant]
        return item

    def remove(self, tenant: str, item: T) -> bool:
        """Take somebody out who waits no longer; say whether they were there."""
        line = self._waiting.get(tenant, deque())
        for index, each in enumerate(line):
            if each is item:
                del line[index]
                self._length -= 1
                if not line:
                    del self._waiting[tenant]
                return True
        return False
