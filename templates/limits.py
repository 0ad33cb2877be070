"""The budget of one invocation, as a value that can be compared and narrowed but never widened."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every amount that one invocation may use; the unit is in the name.

    Those with a default came later. Documents that were approved before do not name them: they mean the default, and a
    document says one only where it differs, so that one template has one digest, and old ones keep theirs (ADR 15).
    """

    fuel: int
    wall_ms: int
    memory_bytes: int
    input_bytes: int
    output_bytes: int
    log_bytes: int
    host_calls: int
    sent_bytes: int = 16_777_216
    received_bytes: int = 67_108_864
    tokens: int = 100_000
    child_invocations: int = 100_000

    @classmethod
    def from_json(cls, value: Mapping[str, int], *, base: "Limits | None" = None) -> Self:
        """Build limits from a checked document; absent members are those of ``base`` (default: `DEFAULT_LIMITS`)."""
        start = base if base is not None else DEFAULT_LIMITS
        return cls(**{**asdict(start), **value})

    def to_json(self) -> dict[str, int]:
        """Return the member ``limits`` of a document, without later amounts that are the default."""
        return {name: amount for name, amount in asdict(self).items() if _LATER.get(name) != amount}

    def amounts(self) -> dict[str, int]:
        """Return every amount by its name."""
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
_LATER: dict[str, int] = {field.name: field.default for field in fields(Limits) if field.default is not MISSING}


def least(amounts: Limits, *ceilings: Mapping[str, int]) -> Limits:
    """Return the effective limits: of each amount the least that anybody says; a ceiling need not name every amount.

    An invocation runs under its template's, and the ceilings of node, tenant, agent and caller (ADR 15).
    """
    least_of = amounts.amounts()
    for ceiling in ceilings:
        for name, amount in ceiling.items():
            least_of[name] = min(least_of[name], amount)
    return Limits(**least_of)


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
    sent_bytes=1_073_741_824,
    received_bytes=1_073_741_824,
    tokens=100_000_000,
    child_invocations=100_000,
)
"""What no template may exceed, whoever approves it."""
