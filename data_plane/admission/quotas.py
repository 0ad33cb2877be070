"""What one tenant may have of a node at once: invocations in flight, the memory they may use, worker processes.

Memory is the sum of the memory limits of what is in flight, not what workers occupy at the moment: it is a promise that
holds at every instant, whatever guests do between two measurements (ADR 15). Invocations that others ask for are
admitted with their root, so they count for memory only: a caller at its quota could otherwise never finish.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class Resource(StrEnum):
    IN_FLIGHT = "in_flight"
    MEMORY_BYTES = "memory_bytes"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """``workers`` is the most processes; ``memory_bytes`` None is no quota."""

    in_flight: int
    workers: int
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which quota stands in the way, and how much it allows."""

    resource: Resource
    most: int


@dataclass(slots=True)
class Use:
    """What a tenant has now; ``in_flight`` includes what waits for its turn."""

    in_flight: int = 0
    memory_bytes: int = 0


class TenantQuotas:
    """Call `enter` before an invocation and, if it let it in, `leave` after it; the same for children."""

    def __init__(self, default: Quota, overrides: Mapping[str, Quota]) -> None:
        self._default = default
        self._overrides = overrides
        self._used: dict[str, Use] = {}

    def of(self, tenant: str) -> Quota:
        return self._overrides.get(tenant, self._default)

    def used(self) -> Mapping[str, Use]:
        """Return what every tenant has that has anything."""
        return self._used

    def enter(self, tenant: str, memory_bytes: int, *, is_child: bool = False) -> Exceeded | None:
        """Count an invocation and return None, or say what it would exceed and count nothing."""
        quota = self._overrides.get(tenant, self._default)
        use = self._used.get(tenant)
        if use is None:
            use = Use()
        if not is_child and use.in_flight >= quota.in_flight:
            return Exceeded(Resource.IN_FLIGHT, quota.in_flight)
        if quota.memory_bytes is not None and use.memory_bytes + memory_bytes > quota.memory_bytes:
            return Exceeded(Resource.MEMORY_BYTES, quota.memory_bytes)
        if quota.workers < 1:
            return Exceeded(Resource.WORKERS, quota.workers)
        use.in_flight += not is_child
        use.memory_bytes += memory_bytes
        self._used[tenant] = use
        return None

    def leave(self, tenant: str, memory_bytes: int, *, is_child: bool = False) -> None:
        use = self._used[tenant]
        use.in_flight -= not is_child
        use.memory_bytes -= memory_bytes
        if not use.in_flight and not use.memory_bytes:
            del self._used[tenant]
