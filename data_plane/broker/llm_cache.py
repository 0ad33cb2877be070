"""Answers that were given before, kept in memory: by tenant first, then by the content of the request.

Each tenant has a cache of its own with bounds of its own, so that nobody sees, times or drives out another's. Least
recently used goes first; of tenants as well.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from data_plane.broker.llm_answer import LlmAnswer

ENTRY_BYTES: Final = 400
"""What an entry costs besides its text."""
TENANTS_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheBounds:
    """``entries_max`` and ``bytes_max`` are each tenant's."""

    ttl_s: float
    entries_max: int
    bytes_max: int


@dataclass(slots=True)
class _Shelf:
    entries: "OrderedDict[str, tuple[float, LlmAnswer]]" = field(default_factory=OrderedDict)
    bytes: int = 0

    def drop(self, key: str) -> None:
        _, answer = self.entries.pop(key)
        self.bytes -= size_of(answer)


class AnswerCache:
    """``monotonic`` gives seconds."""

    def __init__(self, bounds: CacheBounds, monotonic: Callable[[], float]) -> None:
        self._bounds = bounds
        self._monotonic = monotonic
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()

    def get(self, tenant: str, key: str) -> LlmAnswer | None:
        shelf = self._shelves.get(tenant)
        if shelf is None or key not in shelf.entries:
            return None
        kept_at, answer = shelf.entries[key]
        if self._monotonic() - kept_at >= self._bounds.ttl_s:
            shelf.drop(key)
            return None
        shelf.entries.move_to_end(key)
        self._shelves.move_to_end(tenant)
        return answer

    def put(self, tenant: str, key: str, answer: LlmAnswer) -> None:
        """Keep what ended of itself; an answer that was cut depends on a budget, and is not kept."""
        if answer.finish_reason != "stop" or size_of(answer) > self._bounds.bytes_max:
            return
        shelf = self._shelves.setdefault(tenant, _Shelf())
        self._shelves.move_to_end(tenant)
        if key in shelf.entries:
            shelf.drop(key)
        shelf.entries[key] = (self._monotonic(), answer)
        shelf.bytes += size_of(answer)
        while shelf.bytes > self._bounds.bytes_max or len(shelf.entries) > self._bounds.entries_max:
            shelf.drop(next(iter(shelf.entries)))
        while len(self._shelves) > TENANTS_MAX:
            self._shelves.popitem(last=False)

    def forget(self) -> None:
        """Drop everything."""
        self._shelves.clear()


def size_of(answer: LlmAnswer) -> int:
    return len(answer.text.encode()) + ENTRY_BYTES
