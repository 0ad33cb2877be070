"""Native code as a worker, in the jail that workers are in: what it tries is refused or ends it, nothing else.

Every attack runs in a process that `sandbox.process` started and that has confined itself as a worker does.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox import process
from sandbox.jail_probe import probe
from tests.isolation.jail_attacks import ATTACKS, X86

KILLED = -signal.SIGSYS

# What is not killed: the answer that must come instead. Everything else in ATTACKS must end with SIGSYS.
REFUSED: dict[str, set[str]] = {
    "open a file": {"ENOENT", "EACCES"},
    "open the root": {"EACCES"},
    "open the device behind a descriptor": {"EACCES"},
    "open the environment of process 1": {"ENOENT", "EACCES"},
    "open the memory of process 1": {"ENOENT", "EACCES"},
    "look at a file": {"ENOENT"},
    "read a link": {"EACCES"},
    "write into a memfd": {"EFBIG"},
    "type into a terminal": {"ENOTTY"},
}
HARMLESS = {"nothing", "wait a while"}
ENDS = {"crash": -signal.SIGSEGV, "abort": -signal.SIGABRT}


async def attempt(attack: str) -> tuple[str, int]:
    """Run one attack; return what it said, and how its process ended."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            child = await process.start("tests.isolation.jail_attacks", theirs, (attack, str(os.getpid())))
        async with asyncio.timeout(20):
            said = b""
            while piece := await asyncio.get_running_loop().sock_recv(ours, 4_096):
                said += piece
            return said.decode(), await child.wait()


async def test_this_host_locks_workers_away_in_full() -> None:
    """The cases below are proven at this level; what lesser hosts reach is `test_jail_levels`'s."""
    for role in ("worker", "compiler"):
        reached = await probe(role)
        assert (reached.level, reached.missing) == ("full", ()), role


@pytest.mark.parametrize("attack", sorted(ATTACKS.keys() - REFUSED.keys() - HARMLESS - ENDS.keys()))
async def test_an_attack_ends_the_process(attack: str) -> None:
    assert await attempt(attack) == ("", KILLED)


@pytest.mark.parametrize("attack", sorted(REFUSED))
async def test_an_attack_is_refused(attack: str) -> None:
    said, status = await attempt(attack)
    assert status == 0
    assert said in REFUSED[attack]


@pytest.mark.parametrize("attack", sorted(HARMLESS))
async def test_what_a_worker_needs_works(attack: str) -> None:
    assert await attempt(attack) == ("done", 0)


@pytest.mark.parametrize("attack", sorted(ENDS))
async def test_its_own_death_shows_as_what_it_was(attack: str) -> None:
    assert await attempt(attack) == ("", ENDS[attack])


@asynccontextmanager
async def serving() -> AsyncIterator[process.Child]:
    """A real worker that has said READY, whatever it says after."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = await process.start("sandbox.worker", theirs, ("5", str(64 << 20)))
        ours.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(ours, 4_096)
        yield child
        child.send_signal(signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL


def status_of(child: process.Child) -> dict[str, str]:
    lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mounts_of(child: process.Child) -> list[tuple[str, set[str]]]:
    """Where each mount is, and its options."""
    lines = Path(f"/proc/{child.pid}/mountinfo").read_text(encoding="ascii").splitlines()
    return [(line.split()[4], set(line.split()[5].split(","))) for line in lines]


def namespace_of(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")  # noqa: PTH115 - not a path


async def test_a_worker_sees_nothing_and_is_nobody() -> None:
    async with serving() as child:
        status = status_of(child)
        mounts = mounts_of(child)
        apart = {name: namespace_of(child.pid, name) for name in ("user", "net", "mnt", "ipc", "pid", "uts", "cgroup")}
    assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh")] == ["0" * 16] * 5
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
    assert status["NSpid"].split()[-1] == "1"
    assert [target for target, _ in mounts] == ["/", "/fd"]
    assert all({"ro", "nosuid", "nodev", "noexec"} <= options for _, options in mounts)
    assert [name for name, which in apart.items() if which == namespace_of("self", name)] == []


async def test_two_workers_are_strangers() -> None:
    """Each has namespaces of its own, and a uid of its own when the supervisor is root."""
    async with serving() as one, serving() as other:
        for name in ("user", "net", "mnt", "ipc", "pid"):
            assert namespace_of(one.pid, name) != namespace_of(other.pid, name)
        uids = {status_of(one)["Uid"], status_of(other)["Uid"], status_of(process.Child(os.getpid()))["Uid"]}
    assert len(uids) == (3 if os.getuid() == 0 else 1)


async def test_a_child_dies_with_the_process_that_started_it() -> None:
    """Its socket ends, and the kernel sends it the signal of death."""
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import asyncio, os, socket\n"
        "from sandbox import process\n"
        "async def main():\n"
        "    ours, theirs = socket.socketpair()\n"
        "    child = await process.start('sandbox.worker', theirs, ('5', str(1 << 26)))\n"
        "    theirs.close(); ours.recv(4096)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    descriptor = os.pidfd_open(pid)
    starter.kill()
    await starter.wait()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    async with asyncio.timeout(10):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


def test_attacks_of_this_architecture_are_known() -> None:
    assert len(ATTACKS) > 60
    assert ("a call of 32-bit x86" in ATTACKS) is X86
