"""How many invocations may be in flight at once: a limit that follows what the node can carry.

The signal is the time for which invocations wait although they could run. ``delay_s`` is an invocation's wall time
less the time that its guest ran and less what it waited for in host calls. Each invocation so brings its own measure
of what it would take on an idle node, which limiters that see only durations must estimate over time (the long window
of Gradient2 in Netflix's concurrency-limits, the base round trip of TCP Vegas); and guests that sleep, or wait for
somebody else, cost nothing. While even the *shortest* delay within an interval is above the target (the minimum filter
of CoDel, RFC 8289), and a processor was busy, work is queueing in workers instead of before them. A delay while
nothing was busy is a guest that sleeps.

The law is AIMD (Chiu and Jain, 1989): queueing cuts the limit by a factor; without it, a limit in use grows by its
square root (the headroom that Gradient2 allows), and by one more root for each good interval in a row, so that a node
whose load became light is not held back for minutes. An idle node keeps its limit. How long callers should stay away
follows from Little's law: as many are ahead as wait and run, and they leave at ``limit / duration``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isqrt


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySettings:
    """``delay_target_s`` is the queueing that is put up with; ``interval_s`` how long it must last to count.

    ``busy_share`` is the part of an interval in which guests, or this process, must have been running for it to count.
    """

    limit_min: int = 32
    limit_max: int = 4096
    limit_first: int = 1024
    delay_target_s: float = 0.25
    interval_s: float = 0.5
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
        self._least = min(settings.limit_min, settings.limit_max)
        self.limit = max(self._least, min(settings.limit_first, settings.limit_max))
        self.in_flight = 0
        self._began = -inf
        self._began_cpu_s = 0.0
        self._guest_s = 0.0
        self._delay_min = inf
        self._in_flight_max = 0
        self._duration_s = 0.05
        self._good = 0

    def admit(self) -> bool:
        """Count one more in flight, if there is room."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self.in_flight)
        return True

    def retry_s(self, *, queued: int) -> float:
        """Return after how many seconds there is likely room for another one behind ``queued`` that wait."""
        settings = self._settings
        expected_s = (queued + 1) * self._duration_s / max(1, self.in_flight)
        return min(max(expected_s, settings.retry_s_min), settings.retry_s_max)

    def give_back(self) -> None:
        """Count one less in flight that was admitted and never ran."""
        self.in_flight -= 1

    def finish(self, *, delay_s: float, guest_s: float, duration_s: float, now: float) -> None:
        """Count one less in flight.

        Args:
            delay_s: for which it waited although it could run.
            guest_s: for which its guest ran.
            duration_s: from its admission to its answer.
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
        is_busy = busy_s >= settings.busy_share * length_s
        if is_busy and self._delay_min > settings.delay_target_s:
            self._good = 0
            self.limit = max(self._least, int(min(self.limit, self._in_flight_max) * settings.cut))
        elif self._in_flight_max * 2 > self.limit:
            self._good += 1
            self.limit = min(settings.limit_max, self.limit + self._good * max(1, isqrt(self.limit)))
        else:
            self._good = 0
