"""What virtual WASI and our interfaces keep for one invocation of a component, and how an import of theirs answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sandbox import values
from sandbox.component_files import ComponentFiles
from sandbox.fibers import LOG_LINE_BYTES_MAX, Invocation, Stopped
from sandbox.nature import Clock
from sandbox.outcome import FailureKind

HANDLES_MAX: Final = 1_024
RANDOM_BYTES_PER_CALL_MAX: Final = 65_536
RANDOM_BYTES_MAX: Final = 16 << 20
WASTE_BYTES_MAX: Final = 16 << 20
"""Text that the engine may copy out of one invocation for nothing: it does so, at 100 MB in a third of a second, before
anybody can look at the size, and charges no fuel."""
CLOCK_RESOLUTION_NS: Final = 1_000
"""Coarse on purpose: nothing that agents do needs more, and finer clocks make better side channels."""

STDOUT, STDERR = 1, 2
_LEVELS: Final = {STDOUT: "info", STDERR: "warning"}
_ALWAYS_READY: Final = 0
_MONOTONIC_START_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Sleep:
    """Suspend the guest until a monotonic time of the host, then answer with ``result()``; None: no result."""

    until_ns: int
    result: Callable[[], bytes | None]


@dataclass(slots=True)
class Ask:
    """Carry a host call to the node and answer with ``result(answer)``."""

    interface: str
    function: str
    argument: bytes
    result: Callable[[bytes], bytes]


Answer = bytes | Sleep | Ask | None
"""A value of ``sandbox.values``, None for an import without result, or what to wait for."""


@dataclass(frozen=True, slots=True)
class Import:
    """One function that we serve: ``function(guest, context, args)``, the latter two addresses in C.

    It may raise ``Stopped``; ``WrongKindError`` and ``TooLargeError`` become traps of the guest.
    """

    arity: int
    has_result: bool
    function: "Callable[[Guest, int, int], Answer]"
    is_host_call: bool = False


Interface = dict[str, Import]
"""An interface's functions by name."""


class Guest:
    """The virtual machine's few belongings: pollables, unfinished lines of output, what it may still take."""

    __slots__ = (
        "_clock", "_lines", "_random_left", "_waste_left", "files", "handles", "invocation", "last_pollable",
        "pollables",
    )  # fmt: skip

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self._clock: Clock = invocation.nature
        self._lines = {STDOUT: b"", STDERR: b""}
        self._random_left = RANDOM_BYTES_MAX
        self._waste_left = WASTE_BYTES_MAX
        self.files = ComponentFiles() if invocation.is_granted("files") else None
        self.handles = 0
        self.pollables = {_ALWAYS_READY: 0}
        self.last_pollable = _ALWAYS_READY

    # --- handles

    def own(self, context: int, representation: int, resource: int) -> bytes:
        """Give the component a handle.

        Raises:
            Stopped: it holds too many.
        """
        self.handles += 1
        if self.handles > HANDLES_MAX:
            raise Stopped(FailureKind.HOST_CALLS, f"expected at most {HANDLES_MAX} open handles")
        return values.own(context, representation, resource)

    def dropped(self, representation: int, *, is_pollable: bool) -> None:
        """Take note that the component dropped a handle that it owned."""
        self.handles -= 1
        if not is_pollable and self.files is not None:
            self.files.dropped(representation)
        if is_pollable and representation != _ALWAYS_READY:
            self.pollables.pop(representation, None)

    # --- time

    def host_now_ns(self) -> int:
        return self._clock.monotonic_ns()

    def now_ns(self) -> int:
        """The guest's monotonic time: it starts with the invocation and says nothing of the host's uptime."""
        elapsed = self._clock.monotonic_ns() - self.invocation.arrived_ns + _MONOTONIC_START_NS
        return elapsed - elapsed % CLOCK_RESOLUTION_NS

    def wall_ns(self) -> int:
        now = self._clock.wall_ns()
        return now - now % CLOCK_RESOLUTION_NS

    def host_instant_ns(self, guest_instant_ns: int) -> int:
        """The host's monotonic time of a guest's."""
        return guest_instant_ns - _MONOTONIC_START_NS + self.invocation.arrived_ns

    def pollable_at(self, host_ns: int) -> int:
        """A new pollable that is ready at a monotonic time of the host."""
        self.last_pollable += 1
        self.pollables[self.last_pollable] = host_ns
        return self.last_pollable

    # --- randomness

    def random(self, length: int) -> bytes:
        """Randomness as the host chooses it.

        Raises:
            Stopped: more than one call or one invocation may have.
        """
        self._random_left -= length
        if length > RANDOM_BYTES_PER_CALL_MAX or self._random_left < 0:
            raise Stopped(
                FailureKind.HOST_CALLS,
                f"expected at most {RANDOM_BYTES_PER_CALL_MAX} random bytes at once, {RANDOM_BYTES_MAX} in all",
            )
        return self.invocation.nature.random_bytes(length)

    # --- what is passed for nothing

    def waste(self, length: int) -> None:
        """Take note of text that was too long to be used, or that nobody keeps.

        Raises:
            Stopped: more of it than one invocation may pass.
        """
        self._waste_left -= length
        if self._waste_left < 0:
            raise Stopped(
                FailureKind.HOST_CALLS, f"expected at most {WASTE_BYTES_MAX} bytes of text too long to be used"
            )

    # --- output

    @property
    def log_is_full(self) -> bool:
        """Nothing that is written now would be kept; the log is marked as cut."""
        if self.invocation.log_left > 0:
            return False
        self.invocation.logs_cut = True
        return True

    def write(self, stream: int, data: bytes) -> None:
        """Turn what the guest prints into log lines; a line without an end waits for it, up to its limit."""
        *lines, rest = (self._lines[stream] + data).split(b"\n")
        for line in lines:
            self.invocation.log(_LEVELS[stream], line)
        if len(rest) > LOG_LINE_BYTES_MAX:
            self.invocation.log(_LEVELS[stream], rest)
            rest = b""
        self._lines[stream] = rest

    def flush(self) -> None:
        """The invocation ends: unfinished lines are lines."""
        for stream, rest in self._lines.items():
            if rest:
                self.invocation.log(_LEVELS[stream], rest)
                self._lines[stream] = b""
