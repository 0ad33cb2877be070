"""The node's side of one worker process. It runs in the node's event loop and never runs guest code.

What the worker says is read as hostile: a frame that does not parse, a number that was never given out, a host call or
a log beyond the limits kills that worker, and nothing else. A worker that has not ended an invocation by its deadline
and a grace is killed too. When it dies, of whatever, every invocation in it fails with a kind and ``exited`` is set;
whether to start another one is the caller's policy.

States of a worker: starting → serving → gone. There is no way back; whatever arrives for a worker that is gone fails.
"""

import asyncio
import fcntl
import os
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from sandbox import process
from sandbox.claims import Claimed, believed, believed_line, line_cost, require_room
from sandbox.file_protocol import INTERFACE as FILES
from sandbox.frames import (
    FrameError,
    Op,
    Ready,
    frame,
    pack_answer,
    pack_load,
    pack_start,
    read_call,
    read_done,
    read_log,
    read_ready,
)
from sandbox.limits import HOST_ANSWER_BYTES_MAX, MIB, SandboxLimits
from sandbox.nature import report_bytes_max
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage, printable
from sandbox.process import Level
from sandbox.request import CompiledCode, FuelMeter, HostCalls, InvocationRequest
from sandbox.supervisor_channel import CLOSED, STALL_S, Channel
from sandbox.worker_errors import IsolationError, WorkerError

__all__ = ["CompiledCode", "HostCalls", "InvocationRequest", "Level", "Worker", "WorkerError", "WorkerSettings"]

_SOURCES_MAX: Final = 64
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CANCEL_NS_MAX: Final = 5_000_000_000
"""How long a worker may take to let go of an invocation that was cancelled, before the grace begins."""
_ENDS: Final = {FailureKind.CRASH: "the worker process ended", FailureKind.CANCELLED: "the worker was stopped"}
_ANSWER_TOO_LONG: Final = b'{"error":{"kind":"failed","message":"the answer is too long to be carried"}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker process is made.

    ``slots`` invocations are in flight at once, further ones wait in the worker; ``jail`` is the lowest level of
    isolation that is acceptable: a worker that reaches less is refused. ``grace_ms`` is what a worker gets beyond an
    invocation's deadline before it is killed. ``memory_slot_bytes`` is the most memory that any invocation in this
    worker can have, whatever its limits say; it is address space, not memory. ``stall_s`` is how long a worker may
    leave a frame unfinished, or not read what was sent to it.
    """

    slots: int = 1_000
    jail: Level = "rlimits-only"
    grace_ms: int = 1_000
    start_timeout_s: float = 20.0
    load_timeout_s: float = 60.0
    memory_slot_bytes: int = 256 * MIB
    stall_s: float = STALL_S


@dataclass(frozen=True, slots=True)
class _Call:
    interface: str
    function: str
    argument: bytes


class _Flight:
    """One invocation in the worker: what it may do, and the next message for whoever awaits it."""

    __slots__ = (
        "_waiter",
        "answered_at",
        "call_scope",
        "deadline_ns",
        "extra_ms",
        "file_calls_left",
        "host_calls",
        "host_calls_max",
        "is_abandoned",
        "limits",
        "log_left",
        "message",
        "meter",
        "on_late",
        "on_log",
        "report",
        "report_bytes_max",
    )

    def __init__(self, limits: SandboxLimits, deadline_ns: int, meter: FuelMeter) -> None:
        self.limits, self.deadline_ns, self.meter = limits, deadline_ns, meter
        self.host_calls, self.host_calls_max, self.log_left = 0, limits.host_calls, limits.log_bytes
        self.file_calls_left = limits.wasi_calls
        self.on_log: Callable[[LogLine], None] | None = None
        self.on_late: Callable[[Outcome], None] | None = None
        self.is_abandoned = False
        self.answered_at = 0  # where in the stream to the worker its latest answer ends
        self.report, self.report_bytes_max, self.extra_ms = b"", 0, 0
        self.message: _Call | Outcome | None = None
        self.call_scope: asyncio.Timeout | None = None
        self._waiter: asyncio.Future[None] | None = None

    def claimed(self, now_ns: int) -> Claimed:
        """What the supervisor itself knows, against which an outcome is read."""
        started_ns = self.deadline_ns - (self.limits.wall_ms + self.extra_ms) * 1_000_000
        return Claimed(host_calls=self.host_calls, elapsed_us=(now_ns - started_ns) // 1_000)

    @property
    def is_calling(self) -> bool:
        """A host call of it is being carried out: the worker owes nothing and may only end it."""
        return self.call_scope is not None or isinstance(self.message, _Call)

    def deliver(self, message: _Call | Outcome) -> None:
        self.message = message
        if self.is_abandoned and self.on_late is not None and isinstance(message, Outcome):
            self.on_late(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.call_scope is not None and not self.call_scope.expired():
            self.call_scope.reschedule(0)  # it ended while its host call was being carried out: stop that

    async def next(self, loop: asyncio.AbstractEventLoop) -> _Call | Outcome:
        while self.message is None:
            self._waiter = loop.create_future()
            await self._waiter
        message, self.message = self.message, None
        return message


class Worker:
    """One sandbox process and the invocations in it."""

    def __init__(self, settings: WorkerSettings, sock: socket.socket, child: process.SandboxChild) -> None:
        self.pid = child.pid
        self.level: Level = "rlimits-only"
        self.missing: tuple[str, ...] = ()
        self.exited = asyncio.Event()
        self._settings, self._child = settings, child
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(
            sock, on_frame=self._apply, on_end=self._kill, admit=self._admit, stall_s=settings.stall_s
        )
        self._gone: str | None = None
        self._fingerprint = ""
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._codes: dict[str, tuple[int, asyncio.Future[None]]] = {}
        self._loading: dict[int, asyncio.Future[None]] = {}
        self._sources: OrderedDict[bytes, int] = OrderedDict()
        self._flights: dict[int, _Flight] = {}
        self._last_number = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._was_overdue = False
        self._pidfd = os.pidfd_open(child.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    async def start(cls, settings: WorkerSettings) -> Self:
        """Start a worker: fresh interpreter, nothing inherited but one socket, rlimits.

        Raises:
            WorkerError: it did not report ready in time, or reached a lower level than demanded.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            try:
                arguments = str(settings.slots), str(settings.memory_slot_bytes)
                child = await process.start("sandbox.worker", theirs, arguments)
            except BaseException as error:
                ours.close()
                if isinstance(error, process.ProcessError):
                    raise WorkerError(f"expected a worker to start; {error}") from error
                raise
        worker = cls(settings, ours, child)
        try:
            async with asyncio.timeout(settings.start_timeout_s):
                ready = await worker._ready
        except TimeoutError:
            await worker.stop()
            raise WorkerError(f"expected a worker to be ready within {settings.start_timeout_s} s") from None
        except WorkerError:
            await worker.stop()
            raise WorkerError(f"expected a worker with {settings.slots} slots to start; {worker.reason}") from None
        except BaseException:
            await worker.stop()
            raise
        if not process.reaches(ready.level, settings.jail):
            await worker.stop()
            raise IsolationError(settings.jail, ready.level, ready.missing)
        worker.level, worker.missing, worker._fingerprint = ready.level, ready.missing, ready.fingerprint
        return worker

    @property
    def reason(self) -> str | None:
        """Why the worker is gone, for logs; None while it serves."""
        return self._gone

    @property
    def in_flight(self) -> int:
        """Invocations sent and not yet ended, cancelled ones included until the worker has let go of them."""
        return len(self._flights)

    # --- code

    async def load(self, code_id: str, compiled: CompiledCode) -> None:
        """Hand compiled code to the worker, as a sealed memfd. Loading the same ``code_id`` again does nothing.

        Raises:
            WorkerError: the worker refused the code (other engine, unknown import) or is gone.
        """
        known = self._codes.get(code_id)
        if known is None:
            self._check_serving()
            if compiled.engine_fingerprint != self._fingerprint:
                raise WorkerError(
                    f"expected code of engine {self._fingerprint[:12]}, got {compiled.engine_fingerprint[:12]}"
                )
            number = self._next_number()
            loaded: asyncio.Future[None] = self._loop.create_future()
            known = self._codes[code_id] = number, loaded
            self._loading[number] = loaded
            try:
                await self._send_code(number, compiled)
            except BaseException:
                del self._codes[code_id], self._loading[number]
                _fail(loaded, WorkerError("the code was not sent"))
                raise
        try:
            async with asyncio.timeout(self._settings.load_timeout_s):
                await asyncio.shield(known[1])
        except TimeoutError:
            self._kill("it did not load code in time")
            raise WorkerError(f"expected code to load within {self._settings.load_timeout_s} s") from None
        except WorkerError:
            self._codes.pop(code_id, None)
            raise

    async def _send_code(self, number: int, compiled: CompiledCode) -> None:
        descriptor = await asyncio.to_thread(_seal, compiled.code)
        try:
            await self._channel.send_descriptor(pack_load(number, compiled.abi), descriptor)
        finally:
            os.close(descriptor)
        self._check_serving()

    async def drop(self, code_id: str) -> None:
        """Forget loaded code; invocations in flight finish on it."""
        known = self._codes.pop(code_id, None)
        if known is not None and self._gone is None:
            self._send(frame(Op.DROP, known[0]))

    # --- invocations

    async def invoke(
        self, request: InvocationRequest, host: HostCalls, on_log: Callable[[LogLine], None] | None = None
    ) -> Outcome:
        """Run one invocation to its outcome; failures of the guest are outcomes, not exceptions.

        Cancelling the awaiting task stops the guest. ``on_log`` hears every log line while the guest runs, if the
        request says ``stream_logs``; the outcome holds them all the same.

        Raises:
            WorkerError: the code was not loaded, or the worker was gone before the invocation was sent.
        """
        self._check_serving()
        known = self._codes.get(request.code_id)
        if known is None or not known[1].done():
            raise WorkerError(f"expected loaded code, got {request.code_id!r}, which is not")
        limits = request.limits
        if len(request.input) > limits.input_bytes:
            text = f"expected at most {limits.input_bytes} bytes of input, got {len(request.input)}"
            return Outcome(None, Failure(FailureKind.INPUT, text), Usage(input_bytes=len(request.input)))
        source = 0 if request.source is None else self._source_number(request.source)
        number = self._next_number()
        deadline_ns = time.monotonic_ns() + (limits.wall_ms + request.extra_ms) * 1_000_000
        flight = self._flights[number] = _Flight(limits, deadline_ns, request.meter or FuelMeter())
        flight.on_log = on_log if request.stream_logs else None
        if request.order is not None:
            flight.report_bytes_max, flight.extra_ms = report_bytes_max(request.order), request.extra_ms
            flight.on_late = request.on_late
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._sweep_s, self._sweep_overdue)
        self._send(pack_start(number, known[0], source, deadline_ns, request))
        try:
            while True:
                message = await flight.next(self._loop)
                if isinstance(message, Outcome):
                    return message
                await self._carry_out(number, flight, message, host)
        except BaseException:
            self._abandon(number, flight)
            raise

    async def _carry_out(self, number: int, flight: _Flight, call: _Call, host: HostCalls) -> None:
        """Carry out one host call in the task of the invocation's caller, and no longer than the invocation lives."""
        until = self._loop.time() + (flight.deadline_ns - time.monotonic_ns()) / 1e9
        scope = flight.call_scope = asyncio.timeout_at(until)
        charged_before = flight.meter.charged
        try:
            async with scope:
                answer = await host.call(call.interface, call.function, call.argument)
        except TimeoutError:
            if not scope.expired():
                raise  # its own, not ours
            return  # the worker ends it, or has
        finally:
            flight.call_scope = None
        if flight.message is None and self._gone is None:
            carried = answer if len(answer) <= HOST_ANSWER_BYTES_MAX else _ANSWER_TOO_LONG
            self._send(pack_answer(number, carried, fuel=flight.meter.charged - charged_before))
            flight.answered_at = self._channel.queued

    def _abandon(self, number: int, flight: _Flight) -> None:
        """Nobody awaits it any more: stop the guest. It stays known until the worker has let go of it."""
        flight.is_abandoned = True
        flight.host_calls_max = flight.host_calls + 1  # one may be on its way already
        flight.deadline_ns = min(flight.deadline_ns, time.monotonic_ns() + _CANCEL_NS_MAX)
        if number in self._flights and self._gone is None:
            self._send(frame(Op.CANCEL, number))

    def _source_number(self, source: bytes) -> int:
        """Return the number under which the worker has this source, sending it when it is new."""
        number = self._sources.get(source)
        if number is not None:
            self._sources.move_to_end(source)
            return number
        if len(self._sources) >= _SOURCES_MAX:
            _, oldest = self._sources.popitem(last=False)
            self._send(frame(Op.FORGET_SOURCE, oldest))
        number = self._sources[source] = self._next_number()
        self._send(frame(Op.SOURCE, number, source))
        return number

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _check_serving(self) -> None:
        if self._gone is not None:
            raise WorkerError(f"the worker is gone: {self._gone}")

    def _send(self, data: bytes) -> None:
        """Send a frame: at once for a single invocation, batched when there are several."""
        self._channel.send(data, at_once=len(self._flights) <= 1)

    # --- what the worker says

    def _admit(self, op: int, number: int, length: int) -> None:
        """Refuse a long frame by its header, before it is buffered, if nothing can justify it."""
        flight = self._flights.get(number)
        if flight is None or (op == Op.CALL and flight.is_calling) or (op == Op.LOG and flight.on_log is None):
            raise FrameError(f"expected nothing, got operation {op} about {number} with {length} bytes")
        require_room(op, length, flight.limits)

    def _apply(self, op: int, number: int, payload: bytes) -> None:
        if op == Op.DONE:
            flight = self._flights.get(number)
            if flight is None:
                raise FrameError(f"expected the end of an invocation in flight, got number {number}")
            outcome = read_done(payload, flight.limits)
            outcome = believed(outcome, flight.limits, flight.claimed(time.monotonic_ns()))
            del self._flights[number]
            flight.deliver(replace(outcome, report=flight.report) if flight.report else outcome)
        elif op == Op.CALL:
            self._apply_call(number, payload)
        elif op == Op.LOG:
            self._apply_log(number, payload)
        elif op == Op.REPORT:
            self._apply_report(number, payload)
        elif op == Op.FAILED:
            self._kill(f"it failed: {printable(payload)}")
        elif op == Op.READY:
            if self._ready.done():
                raise FrameError("expected READY once, got it again")
            self._ready.set_result(read_ready(payload))
        else:  # LOADED or REFUSED: the reader lets no other through
            loaded = self._loading.pop(number, None)
            if loaded is None:
                raise FrameError(f"expected an answer about code that is loading, got number {number}")
            if op == Op.LOADED:
                loaded.set_result(None)
            else:
                _fail(loaded, WorkerError(f"the worker refused the code: {printable(payload)}"))

    def _apply_call(self, number: int, payload: bytes) -> None:
        flight = self._flights.get(number)
        if flight is None:
            raise FrameError(f"expected a call of an invocation in flight, got number {number}")
        fuel_used, interface, function, argument = read_call(payload)
        if interface == FILES:  # behind functions of WASI, which have their own limit
            flight.file_calls_left -= 1
        else:
            flight.host_calls += 1
        is_within = flight.file_calls_left >= 0 and flight.host_calls <= flight.host_calls_max
        if not is_within or flight.is_calling or flight.answered_at > self._channel.sent:
            raise FrameError("expected one host call at a time, after the answer to the last, within the limit")
        if not flight.meter.used <= fuel_used <= flight.limits.fuel:
            raise FrameError(f"expected fuel from {flight.meter.used} to {flight.limits.fuel}, got {fuel_used}")
        flight.meter.used = fuel_used
        call = _Call(interface, function, argument)
        if not flight.is_abandoned:
            flight.deliver(call)

    def _apply_report(self, number: int, payload: bytes) -> None:
        """Keep the bytes; nobody on this side makes anything of them but their length."""
        flight = self._flights.get(number)
        if flight is None or flight.report or not 0 < len(payload) <= flight.report_bytes_max:
            raise FrameError(f"expected one report of an invocation that makes one, got {len(payload)} bytes")
        flight.report = payload

    def _apply_log(self, number: int, payload: bytes) -> None:
        flight = self._flights.get(number)
        if flight is None or flight.on_log is None:
            raise FrameError(f"expected log lines of an invocation that streams them, got number {number}")
        flight.log_left -= line_cost(len(payload))
        if flight.log_left < 0:
            raise FrameError("expected log lines within the limit, got more")
        if not flight.is_abandoned:
            flight.on_log(believed_line(read_log(payload), flight.claimed(time.monotonic_ns())))

    # --- the end

    @property
    def _sweep_s(self) -> float:
        return self._settings.grace_ms / 4_000

    def _sweep_overdue(self) -> None:
        """Kill the worker when it has not ended an invocation by deadline and grace, at two looks."""
        self._sweep = None
        if not self._flights or self._gone is not None:
            self._was_overdue = False
            return
        latest = time.monotonic_ns() - self._settings.grace_ms * 1_000_000
        is_overdue = any(flight.deadline_ns < latest for flight in self._flights.values())
        if is_overdue and self._was_overdue:  # once is no proof: timers that are late come before what a worker said
            self._kill("it did not end an invocation by deadline and grace")
        else:
            self._was_overdue = is_overdue
            self._sweep = self._loop.call_later(self._sweep_s, self._sweep_overdue)

    def _on_exit(self) -> None:
        code = self._child.poll()
        if code is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._gone is None:
            self._channel.read_last()  # what it said last: an outcome that was sent counts
        reason = process.ending(code)
        self._fail_all(reason)
        if self._gone == CLOSED:
            self._gone = reason
        self.exited.set()

    def _kill(self, reason: str) -> None:
        self._fail_all(reason)
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)

    def _fail_all(self, reason: str, *, kind: FailureKind = FailureKind.CRASH) -> None:
        """Let go of the socket and end everything that waits for the worker. Does nothing the second time."""
        if self._gone is not None:
            return
        self._gone = reason
        self._channel.close()
        if self._sweep is not None:
            self._sweep.cancel()
        error = WorkerError(f"the worker is gone: {reason}")
        _fail(self._ready, error)
        for loaded in self._loading.values():
            _fail(loaded, error)
        flights, self._flights = self._flights, {}
        now = time.monotonic_ns()
        for flight in flights.values():
            if flight.deadline_ns < now and kind is FailureKind.CRASH:
                text = f"expected an answer within {flight.limits.wall_ms} ms; the worker was killed"
                failure = Failure(FailureKind.DEADLINE, text)
            else:
                failure = Failure(kind, _ENDS[kind])
            flight.deliver(Outcome(None, failure, Usage()))

    async def stop(self) -> None:
        """Stop the process; what is still in flight ends as CANCELLED. Returns when the process is gone."""
        self._fail_all("it was stopped", kind=FailureKind.CANCELLED)
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
        await self.exited.wait()


def _fail(waiter: asyncio.Future[Any], error: WorkerError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # whoever waits sees it; without a waiter it is not worth a warning


def _seal(code: bytes) -> int:
    """Return a memfd with these bytes, which nobody can change any more."""
    descriptor = os.memfd_create("compiled", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(code)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
