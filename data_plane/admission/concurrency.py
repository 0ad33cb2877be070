"""How many invocations may be in flight at once: a limit that follows what the node can carry.

The signal is the time for which invocations wait although they could run. ``delay_s`` is an invocation's wall time
less the time that its guest ran and less what it waited for in host calls; while even the *shortest* delay within an
interval is above the target, and a processor was busy, work is queueing and the limit is cut; while it is below and
the limit is in use, the limit grows (the idea of CoDel, RFC 8289, with the cut of TCP). A delay while nothing was busy
is a guest that sleeps, which costs nothing. An idle node keeps its limit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySettings:
    """``delay_target_s`` is the queueing that is put up with; ``interval_s`` how long it must last to count.

    ``busy_share`` is the part of an interval in which guests, or this process, must have been running for it to count.
    """

    limit_min: int = 16
    limit_max: int = 4096
    limit_first: int = 2048
    delay_target_s: float = 2.0
    interval_s: float = 1.0
    busy_share: float = 0.7
    cut: float = 0.8
    retry_s_min: float = 0.05
    retry_s_max: float = 5.0


class ConcurrencyLimit:
    """Call `admit` before an invocation and `finish` after it, exactly once each."""

    def __init__(self, settings: ConcurrencySettings, *, process_time: Callable[[], float]) -> None:
        """``process_time`` gives the processor time of this process so far, in seconds."""
        self._settings = settings
        self._process_time = process_time
        self.limit = max(settings.limit_min, min(settings.limit_first, settings.limit_max))
        self.in_flight = 0
        self._began = -inf
        self._began_cpu_s = 0.0
        self._guest_s = 0.0
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

    def finish(self, *, delay_s: float, guest_s: float, duration_s: float, now: float) -> None:
        """Count one less in flight.

        Args:
            delay_s: for which it waited although it could run.
            guest_s: for which its guest ran.
            duration_s: from arrival to answer.
            now: monotonic seconds.
        """
        self.in_flight -= 1
        self._duration_s += (duration_s - self._duration_s) / 16
        self._delay_min = min(self._delay_min, delay_s)
        self._guest_s += guest_s
        length_s = now - self._began
        if length_s < self._settings.interval_s:
            return
        cpu_s = self._process_time()
        if length_s < 2 * self._settings.interval_s:
            self._adapt(busy_s=max(self._guest_s, cpu_s - self._began_cpu_s), length_s=length_s)
        self._began, self._began_cpu_s = now, cpu_s
        self._guest_s = 0.0
        self._delay_min = inf
        self._in_flight_max = self.in_flight

    def _adapt(self, *, busy_s: float, length_s: float) -> None:
        settings = self._settings
        if self._delay_min > settings.delay_target_s:
            if busy_s >= settings.busy_share * length_s:
                self.limit = max(settings.limit_min, int(min(self.limit, self._in_flight_max) * settings.cut))
        elif self._in_flight_max * 2 > self.limit:
            self.limit = min(settings.limit_max, self.limit + max(1, self.limit // 10))
