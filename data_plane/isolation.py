"""How far workers on this host are locked away, against what the node's settings demand."""

from dataclasses import dataclass
from typing import Final

from data_plane.settings import IsolationLevel, Mode, NodeSettings
from sandbox.process import LEVELS, Confinement, Level, reaches

_LEVEL_OF: Final = dict(zip(IsolationLevel, LEVELS, strict=True))


def demanded_level(settings: NodeSettings) -> Level:
    """Return the level below which the node does not serve: what was set, else what its mode needs."""
    if settings.isolation_min is not None:
        return _LEVEL_OF[settings.isolation_min]
    return "landlock+seccomp" if settings.mode is Mode.PRODUCTION else "rlimits-only"


@dataclass(slots=True)
class Isolation:
    """What the latest worker reached; ``level`` is None until there was one."""

    demanded: Level
    level: Level | None = None
    missing: tuple[str, ...] = ()

    def observe(self, reached: Confinement) -> None:
        """Remember what a worker reached, whether or not it was enough."""
        self.level, self.missing = reached.level, reached.missing

    @property
    def refusal(self) -> str:
        """Why the node must not serve; empty when it may. What is not known yet counts as the least."""
        if reaches(self.level or LEVELS[0], self.demanded):
            return ""
        if self.level is None:
            return f"no worker has shown yet that this host isolates at level {self.demanded}"
        return f"workers must be isolated at level {self.demanded}, and reach {self._reached}"

    @property
    def warning(self) -> str:
        """What operators should know of a level that is permitted and weak; empty when there is nothing."""
        if self.level is None or self.level == LEVELS[-1] or self.refusal:
            return ""
        return f"workers are isolated at level {self._reached}; see docs/isolation.md"

    @property
    def rank(self) -> int:
        """Position of the level, 1 for the weakest; 0 while it is unknown."""
        return 0 if self.level is None else LEVELS.index(self.level) + 1

    @property
    def _reached(self) -> str:
        return f"{self.level} ({'; '.join(self.missing)})" if self.missing else str(self.level)
