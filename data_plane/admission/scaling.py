"""How many workers a tenant should have: more while those it has are busy, fewer once fewer would do.

Load is the processor time that its workers used within an interval. Growth and shrinking look at different marks, and
each must be seen for several intervals in a row, so that a burst neither makes nor ends a process:

======  ==================================================================  =======================================
grow    all were busy for ``busy_share``, or hold ``in_flight_busy`` each,   there is work for one more
        in ``grow_after`` intervals
shrink  one worker fewer would have been busy for at most ``calm_share``,      one too many, for longer than a lull
        in ``shrink_after`` intervals
stay    anything else
======  ==================================================================  =======================================
"""

from dataclasses import dataclass
from enum import Enum, unique


@unique
class Step(Enum):
    SHRINK = -1
    STAY = 0
    GROW = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """Shares are of one processor; intervals are those in which `WorkerScaling.step` is called."""

    busy_share: float = 0.85
    calm_share: float = 0.5
    in_flight_busy: int = 800
    grow_after: int = 3
    shrink_after: int = 30


class WorkerScaling:
    """One tenant."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._busy = 0
        self._calm = 0

    def step(self, *, workers: int, least: int, most: int, in_flight: int, cpu_s: float, interval_s: float) -> Step:
        """Judge one interval.

        Args:
            workers: that there are.
            least: that there should be.
            most: that there may be.
            in_flight: invocations now; a single one cannot use a second worker.
            cpu_s: processor time that all of them used within the interval.
            interval_s: its length.
        """
        settings = self._settings
        load = cpu_s / interval_s
        is_busy = load >= settings.busy_share * workers and in_flight > workers
        is_full = in_flight >= settings.in_flight_busy * workers
        is_calm = load <= settings.calm_share * (workers - 1) and not is_full
        self._busy = self._busy + 1 if is_busy or is_full else 0
        self._calm = self._calm + 1 if is_calm else 0
        if workers > most or (workers > least and self._calm >= settings.shrink_after):
            self._busy = self._calm = 0
            return Step.SHRINK
        if workers < min(least, most) or (workers < most and self._busy >= settings.grow_after):
            self._busy = self._calm = 0
            return Step.GROW
        return Step.STAY
