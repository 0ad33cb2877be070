"""The budget of one invocation, as a value that can be compared and narrowed but never widened."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every amount that one invocation may use; the unit is in the name."""

    fuel: int
    wall_ms: int
    memory_bytes: int
    input_bytes: int
    output_bytes: int
    log_bytes: int
    host_calls: int

    @classmethod
    def from_json(cls, value: Mapping[str, int], *, base: "Limits | None" = None) -> Self:
        """Build limits from a checked document; absent members are those of ``base`` (default: `DEFAULT_LIMITS`)."""
        start = base if base is not None else DEFAULT_LIMITS
        return cls(**{**asdict(start), **value})

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def narrowed_by(self, other: "Limits") -> "Limits":
        """Return the elementwise minimum: what is allowed by both."""
        return Limits(**{name: min(getattr(self, name), getattr(other, name)) for name in LIMIT_NAMES})

    def is_within(self, other: "Limits") -> bool:
        return not self.beyond(other)

    def beyond(self, other: "Limits") -> tuple[str, ...]:
        """Return the names of the limits that exceed those of ``other``, in the order of the fields."""
        return tuple(name for name in LIMIT_NAMES if getattr(self, name) > getattr(other, name))


LIMIT_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Limits))

DEFAULT_LIMITS = Limits(
    fuel=2_000_000_000,
    wall_ms=10_000,
    memory_bytes=134_217_728,
    input_bytes=1_048_576,
    output_bytes=1_048_576,
    log_bytes=262_144,
    host_calls=1_000,
)
"""What a template without a parent gets for the limits that it does not state."""

LIMIT_CEILINGS = Limits(
    fuel=1_000_000_000_000,
    wall_ms=600_000,
    memory_bytes=1_073_741_824,
    input_bytes=16_777_216,
    output_bytes=16_777_216,
    log_bytes=4_194_304,
    host_calls=100_000,
)
"""What no template may exceed, whoever approves it."""
