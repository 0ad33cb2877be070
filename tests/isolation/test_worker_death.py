"""Workers that die or must die: only their own invocations fail, each with its kind, and nobody waits for ever."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sandbox import process
from sandbox.outcome import FailureKind, Outcome
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerError, WorkerSettings
from tests.isolation import guests
from tests.isolation.guests import LIMITS, Echoing, run

PATIENT = replace(LIMITS, fuel=10**15, wall_ms=60_000)


@pytest.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    pair = await Worker.start(WorkerSettings(slots=20)), await Worker.start(WorkerSettings(slots=20))
    yield pair
    for worker in pair:
        await worker.stop()


def kinds(outcomes: list[Outcome]) -> set[FailureKind | None]:
    return {outcome.failure.kind if outcome.failure else None for outcome in outcomes}


async def faulty(fault: str) -> Worker:
    """A worker whose native code does something fatal when it is told to cancel an invocation."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        child = await process.start("tests.isolation.faulty_worker", theirs, (fault, "20", str(64 << 20)))
    worker = Worker(WorkerSettings(slots=20), ours, child)
    worker._fingerprint = (await worker._ready).fingerprint
    return worker


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGSYS"])
async def test_a_worker_that_dies_fails_its_own_invocations_only(workers: tuple[Worker, Worker], fault: str) -> None:
    victim, (_, other) = await faulty(fault), workers
    asleep = [asyncio.ensure_future(run(each, guests.sleeper(300_000_000), limits=PATIENT)) for each in (victim, other)]
    doomed = [asyncio.ensure_future(run(victim, guests.sleeper(10**12), limits=PATIENT)) for _ in range(5)]
    doomed.append(asyncio.ensure_future(run(victim, guests.SPINNER, limits=PATIENT)))
    await guests.until_in_flight(victim, 7)
    await guests.until_in_flight(other, 1)
    if fault == "SIGKILL":
        os.kill(victim.pid, signal.SIGKILL)
    else:
        doomed.pop(0).cancel()
    assert kinds(await asyncio.gather(*doomed)) == {FailureKind.CRASH}
    await victim.exited.wait()
    assert fault in (victim.reason or "")
    assert kinds([await asleep[1]]) == {None}
    assert kinds([await asleep[0]]) == {FailureKind.CRASH}
    with pytest.raises(WorkerError, match="gone"):
        await run(victim, guests.ECHO)
    assert (await run(other, guests.ECHO, data=b"alive")).output == b"alive"


async def test_a_worker_that_does_not_end_an_invocation_is_killed_at_deadline_and_grace() -> None:
    worker = await Worker.start(WorkerSettings(slots=5, grace_ms=100))
    overdue = asyncio.ensure_future(run(worker, guests.sleeper(10**12), limits=replace(LIMITS, wall_ms=2_000)))
    beside = asyncio.ensure_future(run(worker, guests.sleeper(10**12), limits=PATIENT))
    await guests.until_in_flight(worker, 2)
    os.kill(worker.pid, signal.SIGSTOP)  # nothing inside answers any more
    assert kinds([await overdue]) == {FailureKind.DEADLINE}
    assert kinds([await beside]) == {FailureKind.CRASH}
    await worker.exited.wait()
    assert "deadline" in (worker.reason or "")


async def test_stopping_a_worker_cancels_what_is_in_flight() -> None:
    worker = await Worker.start(WorkerSettings(slots=5))
    asleep = asyncio.ensure_future(run(worker, guests.sleeper(10**12), limits=PATIENT))
    await guests.until_in_flight(worker, 1)
    await worker.stop()
    assert kinds([await asleep]) == {FailureKind.CANCELLED}
    assert worker.exited.is_set()
    await worker.stop()


async def test_a_host_call_in_progress_is_cancelled_when_the_worker_dies() -> None:
    worker = await Worker.start(WorkerSettings(slots=5))
    asked = asyncio.Event()

    class Slow:
        async def call(self, interface: str, function: str, argument: bytes) -> bytes:
            del interface, function, argument
            asked.set()
            await asyncio.Event().wait()
            return b""

    text = guests.ask(b"kv.get", b"{}")
    await worker.load(text, guests.compiled(text))
    request = InvocationRequest(code_id=text, abi="command", limits=PATIENT, granted=guests.KV)
    calling = asyncio.ensure_future(worker.invoke(request, Slow()))
    await asked.wait()
    os.kill(worker.pid, signal.SIGKILL)
    assert kinds([await calling]) == {FailureKind.CRASH}
    await worker.stop()


async def test_a_worker_holds_nothing_but_its_socket(workers: tuple[Worker, Worker]) -> None:
    worker, _ = workers
    await run(worker, guests.ECHO)
    facts = guests.facts_of(worker.pid)
    assert (facts.threads, facts.environment, facts.directory) == (1, b"", "/")
    sockets = [target for target in facts.descriptors if target.startswith("socket:")]
    assert len(sockets) == 1
    rest = {target.split(":")[0] for target in facts.descriptors} - {"socket"}
    assert rest <= {"/dev/null", "/memfd"}
    assert facts.limits["Max core file size"] == "0"
    assert facts.limits["Max file size"] == "0"
    assert facts.limits["Max processes"] == "0"
    assert facts.limits["Max open files"] == "1024"
    assert facts.limits["Max cpu time"] == "unlimited"
    assert facts.limits["Max address space"] == "unlimited"
    assert facts.status["NoNewPrivs"] == "1"


async def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(WorkerError, match="2000000 slots to start; it was ended by SIGABRT"):
        await Worker.start(WorkerSettings(slots=2_000_000))


async def test_code_that_does_not_fit_is_refused_and_the_worker_serves_on(workers: tuple[Worker, Worker]) -> None:
    worker, _ = workers
    good = guests.compiled(guests.ECHO)
    with pytest.raises(WorkerError, match="engine"):
        await worker.load("other engine", replace(good, engine_fingerprint="f" * 64))
    with pytest.raises(WorkerError, match="refused"):
        await worker.load("not code", replace(good, code=b"\x7fELF nonsense"))
    with pytest.raises(WorkerError, match="refused"):
        await worker.load("empty", replace(good, code=b""))
    stranger = '(module (import "env" "system" (func)) (func (export "_start")))'
    with pytest.raises(WorkerError, match=r"env\.system"):
        await worker.load("stranger", guests.compiled(stranger))
    skewed = '(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32))))'
    with pytest.raises(WorkerError, match="fd_close with parameters"):
        await worker.load("skewed", guests.compiled(skewed))
    with pytest.raises(WorkerError, match="loaded code"):
        await worker.invoke(InvocationRequest(code_id="never", abi="command"), Echoing())
    assert (await run(worker, guests.ECHO, data=b"on")).output == b"on"
    assert (await run(worker, guests.ECHO, data=b"on")).output == b"on"
    await worker.drop(guests.ECHO)
    with pytest.raises(WorkerError, match="loaded code"):
        await worker.invoke(InvocationRequest(code_id=guests.ECHO, abi="command"), Echoing())
