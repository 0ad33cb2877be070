"""How many invocations may be in flight at once: a limit that follows what the node can carry.

The signal is the time that an invocation waits for a processor, not the time it takes: ``delay_s`` is its wall time
less the time that its guest ran and less what it waited for in host calls of its own. While even the *shortest* delay
within an interval is above the target, work is queueing and the limit is cut; as long as it is below and the limit is
in use, the limit grows (the idea of CoDel, RFC 8289, with the cut of TCP). An idle node keeps its limit.
"""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySettings:
    """``delay_target_s`` is the queueing that is put up with; ``interval_s`` how long it must last to count."""

    limit_min: int = 16
    limit_max: int = 4096
    limit_first: int = 2048
    delay_target_s: float = 2.0
    interval_s: float = 1.0
    cut: float = 0.8
    retry_s_min: float = 0.05
    retry_s_max: float = 5.0


class ConcurrencyLimit:
    """Call `admit` before an invocation and `finish` after it, exactly once each."""

    def __init__(self, settings: ConcurrencySettings) -> None:
        self._settings = settings
        self.limit = max(settings.limit_min, min(settings.limit_first, settings.limit_max))
        self.in_flight = 0
        self._interval_end = -inf
        self._delay_min = inf
        self._in_flight_max = 0
        self._duration_s = 0.05

    def admit(self) -> float | None:
        """Count one more in flight and return None; or return after how many seconds the caller should try again."""
        if self.in_flight >= self.limit:
            return min(max(self._duration_s, self._settings.retry_s_min), self._settings.retry_s_max)
        self.in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self.in_flight)
        return None

    def finish(self, *, delay_s: float, duration_s: float, now: float) -> None:
        """Count one less in flight. ``now`` is monotonic, in seconds."""
        self.in_flight -= 1
        self._duration_s += (duration_s - self._duration_s) / 16
        self._delay_min = min(self._delay_min, delay_s)
        if now < self._interval_end:
            return
        if self._interval_end != -inf:
            self._adapt()
        self._interval_end = now + self._settings.interval_s
        self._delay_min = inf
        self._in_flight_max = self.in_flight

    def _adapt(self) -> None:
        settings = self._settings
        if self._delay_min > settings.delay_target_s:
            self.limit = max(settings.limit_min, int(min(self.limit, self._in_flight_max) * settings.cut))
        elif self._in_flight_max * 2 > self.limit:
            self.limit = min(settings.limit_max, self.limit + max(1, self.limit // 10))
