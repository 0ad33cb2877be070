"""What one invocation came to: the output or a typed failure, what it cost, and what it logged."""

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """Why an invocation has no output. Every limit ends in a kind of its own."""

    INPUT = "INPUT"
    FUEL = "FUEL"
    DEADLINE = "DEADLINE"
    MEMORY = "MEMORY"
    OUTPUT = "OUTPUT"
    HOST_CALLS = "HOST_CALLS"
    EGRESS = "EGRESS"
    TRAP = "TRAP"
    POLICY = "POLICY"
    CRASH = "CRASH"
    GUEST_ERROR = "GUEST_ERROR"
    CANCELLED = "CANCELLED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind for programs and a message for people; guest-made text inside it is printable and at most 4 KiB."""

    kind: FailureKind
    message: str


@dataclass(slots=True)  # never changed; not frozen because that triples what making one costs
class Usage:
    """What an invocation cost. ``wall_us`` counts from its arrival in the worker, ``guest_us`` only its own slices."""

    fuel: int = 0
    wall_us: int = 0
    guest_us: int = 0
    host_calls: int = 0
    wasi_calls: int = 0
    log_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line a guest wrote; control characters are escaped. ``at_us`` counts from the start of the invocation."""

    level: str
    message: str
    at_us: int


@dataclass(slots=True)  # like Usage
class Outcome:
    """Exactly one of ``output`` and ``failure`` is set."""

    output: bytes | None
    failure: Failure | None
    usage: Usage
    logs: tuple[LogLine, ...] = ()
    logs_cut: bool = False


# C0 and C1 controls, line separators, and what reorders the text around it.
_CONTROLS = {
    code: f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
    if code != ord("\t")
}


def printable(message: bytes) -> str:
    """Return guest-made text that can neither break a line nor steer a terminal."""
    text = message.decode("utf-8", "replace")
    return text if text.isprintable() else text.translate(_CONTROLS)
