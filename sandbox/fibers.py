"""Invocations as fibers, and how an ABI plugs into the scheduler.

An ABI makes a ``Program`` from compiled code once. Every invocation is one generator made by ``Program.run``: it yields
each call it has started (instantiate, load, process), the scheduler polls that call slice by slice and resumes the
generator when the call has ended; what the generator returns is the output.

While a slice runs, ``Turn.invocation`` says whose it is: that is how a host function, which all instances of a program
share, finds its invocation. A host function does three things in this order:

1. ``invocation.enter_wasi()`` or ``invocation.enter_host_call(bytes)``: counts, and raises ``Stopped`` past a limit;
2. checks every size on the raw C value before it converts anything;
3. answers: ``invocation.answer_now(continuation)`` with the results in place, or one of ``call_host``, ``sleep_until``
   and ``yield_slice``, which suspend the guest and run ``finish`` when the answer is in.

A host function must catch everything: ``Stopped`` becomes a trap of the guest after ``invocation.end(failure)``.
"""

from collections.abc import Callable, Generator
from typing import Any, Protocol

from sandbox.engine import Call, ContinuationCallback, Store, address_of, answer_at_once, answer_when
from sandbox.frames import LINE_COST
from sandbox.limits import HOST_CALL_BYTES_MAX, SandboxLimits
from sandbox.outcome import Failure, FailureKind, LogLine, printable

IMPORTS_PER_SLICE = 256
SLICE_NS = 500_000
LOG_LINE_BYTES_MAX = 16_384

Steps = Generator[Call, None, bytes]
"""The life of one invocation: yields started calls, returns the output."""


class Clock(Protocol):
    """Time as the host chooses it, in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Return time since an arbitrary start; never goes back."""
        ...

    def wall_ns(self) -> int:
        """Return time since 1970."""
        ...


class Program(Protocol):
    """Code that a worker holds, linked, ready to be instantiated any number of times."""

    def run(self, invocation: "Invocation") -> Steps:
        """Return the life of one invocation.

        It runs to its end, or is closed early (deadline, cancellation) when the call it yielded has been cancelled.
        ``call.finish()`` is its duty after each yield; ``Trapped``, ``EngineError`` and ``Stopped`` may leave it.
        """
        ...


class Stopped(Exception):  # noqa: N818 - a decision about the guest, not an error of ours
    """The invocation ends here with this failure."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


class Turn:
    """Whose slice it is, and what is left of it. One per scheduler."""

    __slots__ = ("clock", "ends_ns", "imports_left", "invocation", "random_bytes")

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self.clock, self.random_bytes = clock, random_bytes
        self.invocation: Invocation
        self.imports_left = IMPORTS_PER_SLICE
        self.ends_ns = 0


class HostLink(Protocol):
    """What an invocation asks of its scheduler."""

    def send_host_call(self, invocation: "Invocation", interface: str, function: str, argument: bytes) -> None:
        """Carry a host call to the supervisor; the answer arrives at ``invocation.waiting``."""
        ...

    def wake_at(self, invocation: "Invocation", at_ns: int) -> None:
        """Give ``invocation.waiting`` its answer at this monotonic time."""
        ...


class Answer:
    """What a suspended import waits for. Its continuation answers once."""

    __slots__ = ("fail", "finish", "is_host_call", "ready", "value")

    def __init__(
        self, finish: Callable[[bytes], None] | None, fail: Callable[[str], None], *, is_host_call: bool, ready: bool
    ) -> None:
        self.finish, self.fail, self.is_host_call, self.ready = finish, fail, is_host_call, ready
        self.value = b""


_answers: dict[int, Answer] = {}
_last_answer = 0


def _resume(answer_id: int) -> bool:
    answer = _answers[answer_id]
    if not answer.ready:
        return False
    del _answers[answer_id]
    if answer.finish is not None:
        try:
            answer.finish(answer.value)
        except Exception as error:  # noqa: BLE001 - an exception that left this callback would suspend the guest for ever
            answer.fail(str(error))
    return True


_resume_callback = ContinuationCallback(_resume)
_RESUME = address_of(_resume_callback)


class Invocation:
    """One invocation inside the worker, from its arrival to its outcome. ``guest`` belongs to the ABI."""

    __slots__ = (
        "_answer_id",
        "_link",
        "_log_left",
        "arrived_ns",
        "call",
        "config",
        "deadline_ns",
        "failure",
        "granted",
        "guest",
        "guest_ns",
        "has_deadline_timer",
        "host_calls",
        "input",
        "invocation_id",
        "limits",
        "log_bytes",
        "logs",
        "logs_cut",
        "number",
        "on_log",
        "process",
        "source",
        "steps",
        "store",
        "trace_context",
        "turn",
        "waiting",
        "wasi_calls",
    )

    def __init__(
        self,
        number: int,
        *,
        turn: Turn,
        link: HostLink,
        limits: SandboxLimits,
        deadline_ns: int,
        input: bytes,  # noqa: A002 - the word of the design
        config: bytes = b"{}",
        source: bytes | None = None,
        granted: frozenset[str] = frozenset(),
        invocation_id: str = "",
        trace_context: str = "",
        process: bool = True,
    ) -> None:
        self.number, self.turn, self._link, self.limits, self.deadline_ns = number, turn, link, limits, deadline_ns
        self.input, self.config, self.source, self.granted, self.process = input, config, source, granted, process
        self.invocation_id, self.trace_context = invocation_id, trace_context
        self.arrived_ns = turn.clock.monotonic_ns()
        self.guest_ns = self.host_calls = self.wasi_calls = self.log_bytes = self._answer_id = 0
        self._log_left = limits.log_bytes
        self.logs: list[LogLine] = []
        self.on_log: Callable[[LogLine], None] | None = None
        self.logs_cut = self.has_deadline_timer = False
        self.failure: Failure | None = None
        self.waiting: Answer | None = None
        self.guest: Any = None
        self.store: Store
        self.steps: Steps
        self.call: Call | None = None

    @property
    def is_admitted(self) -> bool:
        """It has a store, and with it a slot."""
        return hasattr(self, "store")

    # --- limits

    def end(self, failure: Failure) -> None:
        """Remember why this invocation ends; the first reason stays."""
        if self.failure is None:
            self.failure = failure

    def enter_wasi(self) -> None:
        """Count one call of a virtual WASI function.

        Raises:
            Stopped: past the limit.
        """
        self.wasi_calls += 1
        if self.wasi_calls > self.limits.wasi_calls:
            raise Stopped(FailureKind.HOST_CALLS, f"expected at most {self.limits.wasi_calls} calls of virtual WASI")

    def enter_host_call(self, argument_bytes: int) -> bool:
        """Count one host call; False when its argument is too large to be carried (an ordinary result for the guest).

        Raises:
            Stopped: past the limit.
        """
        self.host_calls += 1
        if self.host_calls > self.limits.host_calls:
            self.host_calls = self.limits.host_calls
            raise Stopped(FailureKind.HOST_CALLS, f"expected at most {self.limits.host_calls} host calls")
        return argument_bytes <= HOST_CALL_BYTES_MAX

    def is_granted(self, interface: str) -> bool:
        """Say whether the short interface name (``kv``) is granted."""
        return f"agentfactory:runtime/{interface}@0.1.0" in self.granted

    # --- answers to imports

    def answer_now(self, continuation: int) -> None:
        """Answer the running import at once; its results are in place.

        Past the slice's share of imports or time the guest is suspended once, so that others get their turn.

        Raises:
            Stopped: the deadline has passed.
        """
        turn = self.turn
        turn.imports_left -= 1
        now = turn.clock.monotonic_ns()
        if now >= self.deadline_ns:
            raise deadline_passed(self.limits)
        if turn.imports_left > 0 and now < turn.ends_ns:
            answer_at_once(continuation)
        else:
            self.yield_slice(continuation)

    def yield_slice(self, continuation: int) -> None:
        """Suspend the guest until its next turn; its results are in place."""
        self._suspend(continuation, Answer(None, _ignore, is_host_call=False, ready=False))

    def sleep_until(
        self, at_ns: int, continuation: int, *, finish: Callable[[bytes], None], fail: Callable[[str], None]
    ) -> None:
        """Suspend the guest until a monotonic time, then run ``finish(b"")``, which puts the results in place."""
        self._suspend(continuation, Answer(finish, fail, is_host_call=False, ready=False))
        self._link.wake_at(self, at_ns)

    def call_host(
        self,
        interface: str,
        function: str,
        argument: bytes,
        continuation: int,
        *,
        finish: Callable[[bytes], None],
        fail: Callable[[str], None],
    ) -> None:
        """Carry a host call out and suspend the guest; ``finish(answer)`` puts the results in place.

        What ``finish`` raises is given to ``fail``, which must end the invocation: the engine reads an import's trap or
        error slot when the host function returns, not after the guest was suspended.
        """
        self._suspend(continuation, Answer(finish, fail, is_host_call=True, ready=False))
        self._link.send_host_call(self, interface, function, argument)

    def _suspend(self, continuation: int, answer: Answer) -> None:
        global _last_answer  # noqa: PLW0603 - numbers of answers are unique in the process, like the callback
        _last_answer += 1
        _answers[_last_answer] = answer
        self._answer_id, self.waiting = _last_answer, answer
        answer_when(continuation, _RESUME, _last_answer)

    # --- log

    def log(self, level: str, message: bytes) -> None:
        """Keep what a guest logs, one entry per line, controls escaped; past the limit it is cut and marked."""
        at_us = (self.turn.clock.monotonic_ns() - self.arrived_ns) // 1000
        for line in message.split(b"\n", self._log_left // LINE_COST + 1):
            allowed = min(self._log_left - LINE_COST, LOG_LINE_BYTES_MAX)
            if allowed < len(line):
                self.logs_cut = True
                if allowed <= 0:
                    self._log_left = 0
                    return
            kept = line[:allowed]
            self._log_left -= len(kept) + LINE_COST
            self.log_bytes += len(kept)
            kept_line = LogLine(level, printable(kept), at_us)
            self.logs.append(kept_line)
            if self.on_log is not None:
                self.on_log(kept_line)

    @property
    def log_left(self) -> int:
        """Bytes of log that are still kept."""
        return self._log_left

    # --- end

    def close(self) -> None:
        """Free the call, then the generator. The store, which nothing can reach any more, is its owner's to close."""
        if self.call is not None:
            self.call.cancel()
            self.call = None
        _answers.pop(self._answer_id, None)
        self.waiting = None
        try:
            if hasattr(self, "steps"):
                self.steps.close()
        finally:
            self.guest = None


def deadline_passed(limits: SandboxLimits) -> Stopped:
    return Stopped(FailureKind.DEADLINE, f"expected an answer within {limits.wall_ms} ms")


def _ignore(_message: str) -> None:
    """An answer without ``finish`` cannot fail."""
