"""The worker process: one socket, one thread, one engine, and the scheduler between them.

``main`` is what the supervisor starts. In this order: confine the process, make the engine and its pool, assert that
there is one thread, report READY, serve. Between slices it reads what has come, and it writes what it has to say in one
system call a round. It ends when the socket does. An error that is not an invocation's ends the process: the supervisor
sees the socket close, and only this worker's invocations fail.
"""

import array
import gc
import mmap
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Final

from sandbox import process
from sandbox.command import CommandProgram
from sandbox.component import ComponentProgram
from sandbox.engine import Engine, EngineError, EngineSettings, fingerprint
from sandbox.fibers import Invocation, Program, Turn
from sandbox.frames import (
    MESSAGE_BYTES_MAX,
    TO_WORKER,
    FrameError,
    FrameReader,
    Op,
    Ready,
    frame,
    pack_call,
    pack_done,
    pack_log,
    pack_ready,
    read_answer,
    read_load,
    read_start,
)
from sandbox.outcome import Usage
from sandbox.request import Abi
from sandbox.scheduler import Scheduler

_READ_BYTES: Final = 1 << 18
_ROUND_NS: Final = 1_000_000
_DESCRIPTOR = array.array("i", [0])
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_DESCRIPTOR.itemsize)
_CODE_BYTES_MAX: Final = 1 << 30
_COLLECT_EVERY: Final = 50_000


class HostClock:
    """The host's clocks."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)


class Server:
    """Serves one socket until it closes. It is the scheduler's outbox."""

    def __init__(self, sock: socket.socket, engine: Engine, *, slots: int) -> None:
        self._socket, self._engine = sock, engine
        self._turn = Turn(HostClock(), os.urandom)
        self._scheduler = Scheduler(engine, slots=slots, turn=self._turn, outbox=self)
        self._reader = FrameReader(TO_WORKER)
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._out: list[bytes] = []
        self._descriptors: list[int] = []
        self._programs: dict[int, Program] = {}
        self._sources: dict[int, bytes] = {}
        self._arrivals = select.poll()
        self._arrivals.register(sock, select.POLLIN)

    def serve(self) -> None:
        """Go round until the socket closes.

        Raises:
            FrameError: the supervisor broke the protocol.
        """
        while self.go_round():
            pass

    def go_round(self) -> bool:
        """Read what has come, run a round of turns, write what there is to say. False when the socket has closed."""
        if not self._read():
            return False
        self._scheduler.run(self._turn.clock.monotonic_ns() + _ROUND_NS)
        out = self._out
        if out:
            self._socket.sendall(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
        self._scheduler.discard_ended()
        return True

    # --- reading

    def _read(self) -> bool:
        """Take in what has come; when nobody has a turn, wait for it or for a timer. False when the socket closed."""
        flags = socket.MSG_CMSG_CLOEXEC
        if not self._scheduler.is_idle:
            flags |= socket.MSG_DONTWAIT
        elif (timer_ns := self._scheduler.next_timer_ns) is not None:
            wait_ms = max(0, -(-(timer_ns - self._turn.clock.monotonic_ns()) // 1_000_000))
            if not self._arrivals.poll(wait_ms):
                return True
        try:
            count, ancillary, _, _ = self._socket.recvmsg_into((self._buffer,), _ANCILLARY_BYTES, flags)
        except BlockingIOError:
            return True
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors.extend(array.array("i", data))
        if not count:
            return False
        for op, number, payload in self._reader.feed(bytes(self._view[:count])):
            self._apply(op, number, payload)
        return True

    def _apply(self, op: int, number: int, payload: bytes) -> None:
        if op == Op.START:
            self._start(number, payload)
        elif op == Op.ANSWER:
            answer, fuel = read_answer(payload)
            self._scheduler.answer(number, answer, fuel=fuel)
        elif op == Op.CANCEL:
            self._scheduler.cancel(number)
        elif op == Op.LOAD:
            self._load(number, read_load(payload))
        elif op == Op.DROP:
            self._programs.pop(number, None)
        elif op == Op.SOURCE:
            self._sources[number] = payload
        else:  # Op.FORGET_SOURCE: the reader lets no other through
            self._sources.pop(number, None)

    def _start(self, number: int, payload: bytes) -> None:
        start = read_start(payload)
        program = self._programs.get(start.code)
        source = self._sources.get(start.source)
        if program is None or (start.source and source is None):
            raise FrameError(f"expected a START of loaded code and source, got {start.code} and {start.source}")
        invocation = Invocation(
            number,
            turn=self._turn,
            link=self._scheduler,
            limits=start.limits,
            deadline_ns=start.deadline_ns,
            input=start.input,
            config=start.config,
            source=source,
            granted=start.granted,
            invocation_id=start.invocation_id,
            trace_context=start.trace_context,
            process=start.process,
        )
        if start.stream_logs:
            invocation.on_log = lambda line: self._out.append(pack_log(number, line))
        self._scheduler.start(invocation, program)

    def _load(self, number: int, abi: Abi) -> None:
        if not self._descriptors:
            raise FrameError("expected a descriptor with LOAD, got none")
        descriptor = self._descriptors.pop(0)
        try:
            self._programs[number] = load_program(self._engine, descriptor, abi, self._turn)
            self._out.append(frame(Op.LOADED, number))
        except EngineError as error:
            self._out.append(frame(Op.REFUSED, number, str(error).encode()[:MESSAGE_BYTES_MAX]))
        finally:
            os.close(descriptor)

    # --- what the scheduler says (Outbox)

    def finished(self, invocation: Invocation, output: bytes | None, usage: Usage) -> None:
        self._out.append(
            pack_done(
                invocation.number, output, invocation.failure, usage, invocation.logs, logs_cut=invocation.logs_cut
            )
        )

    def host_call(self, invocation: Invocation, interface: str, function: str, argument: bytes) -> None:
        fuel_used = invocation.store.fuel_used()
        self._out.append(pack_call(invocation.number, interface, function, argument, fuel_used=fuel_used))


def load_program(engine: Engine, descriptor: int, abi: Abi, turn: Turn, *, can_open_files: bool = True) -> Program:
    """Load compiled code from a sealed memfd: mapped if this process may open files, else copied.

    Raises:
        EngineError: it is not compiled code of this engine, or imports what does not exist here.
    """
    if can_open_files:
        path = f"/proc/self/fd/{descriptor}"
        if abi == "command":
            return CommandProgram.deserialize_file(engine, path, turn)
        return ComponentProgram.deserialize_file(engine, path, turn, abi=abi)
    code = b""
    if size := os.fstat(descriptor).st_size:
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as mapped:
            code = bytes(mapped)
    if abi == "command":
        return CommandProgram.deserialize(engine, code, turn)
    return ComponentProgram.deserialize(engine, code, turn, abi=abi)


def main(descriptor: int, arguments: Sequence[str]) -> None:
    """Be a worker on this socket. ``arguments``: slots, bytes of a memory slot, the supervisor's pid."""
    with socket.socket(fileno=descriptor) as sock:
        sock.setblocking(True)
        try:
            _be_worker(sock, *map(int, arguments))
        except Exception as error:
            text = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
            sock.sendall(frame(Op.FAILED, 0, text[:MESSAGE_BYTES_MAX]))
            raise


def _be_worker(sock: socket.socket, slots: int, memory_slot_bytes: int, parent: int) -> None:
    process.prefer_as_victim()
    level = process.confine(process.ProcessLimits(), parent=parent)
    engine = Engine(EngineSettings(slots=slots, memory_slot_bytes=memory_slot_bytes))
    if (threads := process.thread_count()) != 1:
        raise process.ProcessError(f"expected one thread, got {threads}")
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
    server = Server(sock, engine, slots=slots)
    sock.sendall(frame(Op.READY, 0, pack_ready(Ready(level, fingerprint()))))
    server.serve()
