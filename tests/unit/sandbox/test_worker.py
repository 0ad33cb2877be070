"""The worker's server over a socket in this process: it says what it must, and a broken protocol ends it."""

import array
import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator

import pytest

from sandbox.core_module import CoreModule
from sandbox.engine import EngineError, fingerprint
from sandbox.fibers import Turn
from sandbox.frames import (
    TO_SUPERVISOR,
    FrameError,
    FrameReader,
    Op,
    frame,
    pack_answer,
    pack_load,
    pack_start,
    read_call,
    read_done,
)
from sandbox.outcome import FailureKind, Outcome
from sandbox.request import InvocationRequest
from sandbox.supervisor import _seal
from sandbox.worker import HostClock, Server, load_program
from tests.isolation import guests
from tests.isolation.guests import KV, LIMITS, compiled
from tests.unit.sandbox.fiber_world import engine


class Peer:
    """The supervisor's end: everything is written before the server runs, everything is read after."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.server = Server(self.theirs, engine(), slots=5)
        self.heard: list[tuple[int, int, bytes]] = []
        self._reader = FrameReader(TO_SUPERVISOR)

    def load(self, number: int, text: str) -> None:
        descriptor = _seal(compiled(text).code)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self.ours.sendmsg([pack_load(number, "command")], rights)
        os.close(descriptor)

    def start(self, number: int, code: int, *, source: int = 0, wall_ms: int = 5_000, data: bytes = b"") -> None:
        request = InvocationRequest(code_id="", abi="command", input=data, limits=LIMITS, granted=KV)
        deadline_ns = time.monotonic_ns() + wall_ms * 1_000_000
        self.ours.sendall(pack_start(number, code, source, deadline_ns, request))

    def say(self, data: bytes) -> None:
        self.ours.sendall(data)

    def go_round_until(self, op: Op, count: int = 1) -> None:
        """Let the server go round until it has said ``op`` so many times."""
        self.ours.setblocking(False)
        while sum(said == op for said, _, _ in self.heard) < count:
            assert self.server.go_round()
            with contextlib.suppress(BlockingIOError):
                self.heard += self._reader.feed(self.ours.recv(1 << 20))
        self.ours.setblocking(True)

    def serve(self) -> list[tuple[int, int, bytes]]:
        """Let the server run until it has read everything; return all that it said."""
        while select.select([self.theirs], [], [], 0)[0] or not self.server._scheduler.is_idle:
            assert self.server.go_round()  # a round may end before a turn does, on a machine that is busy
        self.ours.shutdown(socket.SHUT_WR)
        self.server.serve()
        self.theirs.close()
        while piece := self.ours.recv(1 << 20):
            self.heard += self._reader.feed(piece)
        return self.heard


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.ours.close()
    made.theirs.close()


def end_of(frames: list[tuple[int, int, bytes]], number: int) -> Outcome:
    ((_, _, payload),) = [entry for entry in frames if entry[:2] == (Op.DONE, number)]
    return read_done(payload, LIMITS)


def test_loading_starting_and_ending_are_reported_in_order(peer: Peer) -> None:
    peer.load(1, guests.ECHO)
    peer.start(2, 1, data=b"hello")
    frames = peer.serve()
    assert [entry[:2] for entry in frames] == [(Op.LOADED, 1), (Op.DONE, 2)]
    assert end_of(frames, 2).output == b"hello"


def test_code_that_cannot_be_linked_is_refused_with_the_reason(peer: Peer) -> None:
    peer.load(1, '(module (import "env" "system" (func)) (func (export "_start")))')
    ((op, number, payload),) = peer.serve()
    assert (op, number) == (Op.REFUSED, 1)
    assert b"env.system" in payload


def test_a_host_call_goes_out_and_its_answer_comes_back(peer: Peer) -> None:
    peer.load(1, guests.ask(b"kv.get", b'{"key":"a"}'))
    peer.start(2, 1)
    peer.start(3, 1)
    peer.go_round_until(Op.CALL, 2)
    peer.say(pack_answer(2, b"answered", fuel=0))
    peer.go_round_until(Op.DONE)
    peer.say(frame(Op.CANCEL, 3))
    frames = peer.serve()
    calls = [read_call(payload) for op, _, payload in frames if op == Op.CALL]
    assert [call[1:] for call in calls] == [("kv", "get", b'{"key":"a"}')] * 2
    assert all(0 < fuel_used < LIMITS.fuel for fuel_used, *_ in calls)
    assert end_of(frames, 2).output == b"answered"
    cancelled = end_of(frames, 3).failure
    assert cancelled is not None
    assert cancelled.kind is FailureKind.CANCELLED


def test_a_sleeper_is_woken_by_a_timer_while_nothing_arrives(peer: Peer) -> None:
    peer.load(1, guests.sleeper(20_000_000))
    peer.start(2, 1)
    peer.go_round_until(Op.DONE)
    assert end_of(peer.serve(), 2).output == b"7"


@pytest.mark.parametrize(
    "data",
    [
        frame(Op.START, 1, b""),
        frame(Op.LOAD, 1, b"command"),
        frame(Op.DONE, 1, b""),
        pack_start(1, 77, 0, 0, InvocationRequest(code_id="", abi="command")),
    ],
    ids=["no START", "no descriptor", "the other side's", "code that was never loaded"],
)
def test_a_broken_protocol_ends_the_worker(peer: Peer, data: bytes) -> None:
    peer.say(data)
    with pytest.raises(FrameError):
        peer.serve()


def test_code_and_sources_that_were_dropped_are_gone(peer: Peer) -> None:
    peer.load(1, guests.ECHO)
    peer.say(frame(Op.SOURCE, 5, b"source") + frame(Op.FORGET_SOURCE, 5))
    peer.start(2, 1, source=5)
    with pytest.raises(FrameError, match="1 and 5"):
        peer.serve()


def test_invocations_in_flight_finish_on_code_that_is_dropped(peer: Peer) -> None:
    peer.load(1, guests.ECHO)
    peer.start(2, 1, data=b"still")
    peer.say(frame(Op.DROP, 1))
    assert end_of(peer.serve(), 2).output == b"still"


def test_code_is_loaded_from_bytes_where_no_file_can_be_opened() -> None:
    module = CoreModule.deserialize(engine(), compiled(guests.ECHO).code)
    assert [item.name for item in module.imports()] == ["fd_read", "fd_write"]
    descriptor = _seal(compiled(guests.ECHO).code)
    turn = Turn(HostClock(), os.urandom)
    for where in ("/proc/self/fd", None):
        assert load_program(engine(), descriptor, "command", turn, descriptors=where) is not None
    os.close(descriptor)


def test_a_sealed_descriptor_cannot_be_changed() -> None:
    descriptor = _seal(b"code")
    with pytest.raises(PermissionError):
        os.write(descriptor, b"more")
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 1)
    os.close(descriptor)


def test_an_empty_descriptor_is_no_code() -> None:
    descriptor = _seal(b"")
    for where in ("/proc/self/fd", None):
        with pytest.raises(EngineError):
            load_program(engine(), descriptor, "command", Turn(HostClock(), os.urandom), descriptors=where)
    os.close(descriptor)


def test_the_fingerprint_is_stable_and_says_nothing_readable() -> None:
    assert fingerprint() == fingerprint()
    assert len(bytes.fromhex(fingerprint())) == 32
