"""What is reached on hosts that permit less: the level says so, and workers and compilers still work there.

A host is played by a process that takes the permission away from itself and everything it starts.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from sandbox.jail_probe import remedy
from sandbox.supervisor import Worker, WorkerSettings
from sandbox.worker_errors import IsolationError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="plays other users")


async def on_a_host(restrictions: Sequence[str]) -> dict[str, Any]:
    playing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.isolation.restricted_host", *restrictions, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        answer, _ = await playing.communicate()
    assert playing.returncode == 0
    told = json.loads(answer)
    assert told["output"] == "works"
    assert told["code"] > 1_000
    assert told["probed"] == told["compiler"] == told["level"]
    assert isinstance(told, dict)
    return told


@needs_root
async def test_an_ordinary_user_reaches_everything_through_a_user_namespace() -> None:
    told = await on_a_host(["ordinary-user"])
    assert (told["level"], told["missing"]) == ("full", [])


@needs_root
async def test_without_user_namespaces_an_ordinary_user_keeps_landlock_and_seccomp() -> None:
    told = await on_a_host(["ordinary-user", "no-user-namespaces"])
    assert told["level"] == "landlock+seccomp"
    assert any(text.startswith("namespaces (user)") for text in told["missing"])
    assert any("mount" in text and "pid" in text for text in told["missing"])


@needs_root
async def test_a_user_namespace_that_cannot_be_mapped_is_none() -> None:
    """As where AppArmor or a read-only /proc keeps the map from being written, after the namespace was entered."""
    told = await on_a_host(["ordinary-user", "read-only-proc"])
    assert told["level"] == "landlock+seccomp"
    assert "namespaces (user): Read-only file system" in told["missing"]


@needs_root
@pytest.mark.parametrize("user", [[], ["ordinary-user"]], ids=["as root", "as an ordinary user"])
async def test_a_container_without_namespaces_keeps_landlock_and_seccomp(user: list[str]) -> None:
    told = await on_a_host([*user, "container"])
    assert (told["level"], told["descriptors"]) == ("landlock+seccomp", "/proc/self/fd")
    assert "user namespaces" in remedy(told["missing"])


@needs_root
async def test_without_landlock_nothing_is_promised_though_the_root_is_empty() -> None:
    told = await on_a_host(["no-landlock"])
    assert (told["level"], told["descriptors"]) == ("rlimits-only", "/fd")
    assert told["missing"] == ["Landlock: Function not implemented"]
    assert "lsm=" in remedy(told["missing"])


async def test_with_neither_landlock_nor_an_empty_root_nothing_is_opened_and_code_is_copied() -> None:
    told = await on_a_host(["container", "no-landlock"])
    assert (told["level"], told["descriptors"]) == ("rlimits-only", None)
    if told["mapped"] is not None:
        assert not told["mapped"]


async def test_without_clone_parent_the_launcher_goes_on_as_the_process_itself() -> None:
    told = await on_a_host(["no-clone-parent"])
    assert (told["level"], told["descriptors"]) == ("landlock+seccomp", "/fd")
    assert told["missing"] == ["namespaces (pid): Invalid argument"]


async def test_without_seccomp_nothing_is_promised() -> None:
    told = await on_a_host(["no-seccomp"])
    assert told["level"] == "rlimits-only"
    assert told["missing"] == ["seccomp: Invalid argument"]


async def test_a_level_that_is_not_reached_is_refused_and_says_what_is_missing() -> None:
    code = (
        "import asyncio\n"
        "from tests.isolation.restricted_host import as_a_container\n"
        "from sandbox.supervisor import Worker, WorkerSettings\n"
        "from sandbox.worker_errors import IsolationError\n"
        "as_a_container()\n"
        "try:\n"
        "    asyncio.run(Worker.start(WorkerSettings(slots=5, jail='full')))\n"
        "except IsolationError as error:\n"
        "    print(error)\n"
    )
    playing = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    answer, _ = await playing.communicate()
    assert b"isolation level full, got landlock+seccomp (namespaces (" in answer
    assert b"Operation not permitted" in answer


async def test_a_level_that_is_reached_is_served() -> None:
    worker = await Worker.start(WorkerSettings(slots=5, jail="full"))
    assert (worker.level, worker.missing) == ("full", ())
    await worker.stop()


def test_what_is_missing_is_named_once() -> None:
    error = IsolationError("full", "rlimits-only", ("Landlock: no", "seccomp: no"))
    assert str(error) == "expected a worker at isolation level full, got rlimits-only (Landlock: no; seccomp: no)"
    assert remedy(("Landlock: no", "Landlock: again")).count("lsm=") == 1
    assert remedy(()) == ""


async def test_a_compiler_below_the_demanded_level_reads_nothing() -> None:
    code = (
        "import asyncio\n"
        "from tests.isolation.restricted_host import as_a_container\n"
        "from sandbox.compiler import CompilerError, CompilerSettings, compile_module\n"
        "as_a_container()\n"
        "try:\n"
        "    asyncio.run(compile_module(b'\\0asm\\1\\0\\0\\0', settings=CompilerSettings(jail='full')))\n"
        "except CompilerError as error:\n"
        "    print(error.code, error.message)\n"
    )
    playing = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    answer, _ = await playing.communicate()
    assert b"ISOLATION_TOO_WEAK expected a compiler at isolation level full, got landlock+seccomp (" in answer


async def test_doctor_says_what_a_host_permits_and_how_to_mend_it() -> None:
    code = (
        "from client.diagnosis import _isolation\n"
        "print(_isolation().to_json())\n"
        "from tests.isolation.restricted_host import as_a_container\n"
        "as_a_container()\n"
        "print(_isolation().to_json())\n"
    )
    playing = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    answer, _ = await playing.communicate()
    here, contained = answer.decode().splitlines()
    assert "'ok'" in here
    assert "level full" in here
    assert "'warning'" in contained
    assert "level landlock+seccomp, without namespaces (" in contained
    assert "user.max_user_namespaces" in contained
