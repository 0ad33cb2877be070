"""Rates of calls: for everybody together, per principal, per address. `limits` keeps the windows; this is its store.

A rate is "so many per minute, at most so many at once": ``Rate(per_minute=100, burst=20)`` is a moving window of 20
calls in 12 seconds, which is both. The store that comes with the library keeps every key for ever and starts a thread
every few milliseconds of traffic; ours is bounded, and its clock is given.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter

from service.status import ExhaustedError
from templates.reasons import Reason

KEYS_MAX: Final = 65_536


class RateLimitedError(ExhaustedError):
    """More calls in a while than are allowed; nothing was done, and RetryInfo says when there is room again."""

    reason = Reason.RATE_LIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``per_minute`` 0 is no limit."""

    per_minute: int = 0
    burst: int = 1

    @property
    def item(self) -> RateLimitItemPerSecond | None:
        if not self.per_minute:
            return None
        return RateLimitItemPerSecond(self.burst, max(1, math.ceil(self.burst * 60 / self.per_minute)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    together: Rate = Rate()
    principal: Rate = Rate()
    address: Rate = Rate()


class BoundedWindows(Storage, MovingWindowSupport):
    """Moving windows in memory: `KEYS_MAX` keys, the longest unused forgotten first; never two threads at once."""

    STORAGE_SCHEME = ["agentfactory-memory"]  # noqa: RUF012 -- the library's class attribute

    def __init__(self, clock: Callable[[], float], *, keys_max: int = KEYS_MAX) -> None:
        super().__init__()
        self._clock = clock
        self._keys_max = keys_max
        self._windows: OrderedDict[str, deque[float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self._clock()
        window = self._windows.get(key)
        if window is None or window.maxlen != limit:
            window = self._windows[key] = deque(window or (), maxlen=limit)
            while len(self._windows) > self._keys_max:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        if amount > limit or (len(window) + amount > limit and window[len(window) + amount - limit - 1] > now - expiry):
            return False
        for _ in range(amount):
            window.append(now)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002
        now = self._clock()
        live = [each for each in self._windows.get(key, ()) if each > now - expiry]
        return (live[0], len(live)) if live else (now, 0)

    # What other strategies of the library ask of a store.

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:  # noqa: ARG002 -- the library's signature
        raise NotSupportedError(key)

    def get(self, key: str) -> int:
        return len(self._windows.get(key, ()))

    def get_expiry(self, key: str) -> float:
        raise NotSupportedError(key)

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)


class NotSupportedError(TypeError):
    """The store was given to a strategy other than the moving window."""


class RateLimits:
    """Takes a place for each call in every window, or refuses it."""

    def __init__(self, rates: Rates, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._store = BoundedWindows(clock)
        self._limiter = MovingWindowRateLimiter(self._store)
        named = (("principal", rates.principal), ("address", rates.address), ("server", rates.together))
        # The narrowest first: a flood of one caller takes no place from everybody's window.
        self._items = tuple(
            (name, item, item.get_expiry(), lru_cache(maxsize=4096)(partial(item.key_for, name)))
            for name, rate in named
            if (item := rate.item) is not None
        )

    def take(self, *, principal: str, address: str) -> None:
        """Count one call.

        Raises:
            RateLimitedError: one of its windows is full; ``retry_s`` until a place in it is free.
        """
        keys = {"principal": principal, "address": address, "server": ""}
        for name, item, window_s, key_of in self._items:
            key = keys[name]
            if not key and name == "address":
                continue
            # What `hit` of the library does, without making its key anew each time: that was half of the cost.
            if not self._store.acquire_entry(key_of(key), item.amount, window_s):
                reset = self._limiter.get_window_stats(item, name, key).reset_time
                raise RateLimitedError(
                    f"expected at most {item.amount} calls in {item.get_expiry()} s of one {name}, got more",
                    retry_s=max(0.05, reset - self._clock()),
                )
