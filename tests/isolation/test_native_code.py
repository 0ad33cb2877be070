"""The attack suite's native code on hosts that permit less: prevented, or not tried where it would succeed."""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from client.selftest import native_program
from client.selftest.attack import BreachError
from client.selftest.native_code import REFUSALS, prevented

SOME = (*REFUSALS, "make a TCP socket", "fork", "mount", "enter new namespaces", "kill the victim", "unlink")
ON_A_HOST = """
import asyncio, sys
from pathlib import Path
from tests.isolation.restricted_host import restrict
from client.selftest.attack import BreachError
from client.selftest.native_code import prevented

restrictions, directory, *names = sys.argv[1:]
restrict(restrictions.split(","))
try:
    asyncio.run(prevented(Path(directory), names))
    print("held")
except BreachError as breach:
    print(breach)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="plays other users")


async def on_a_host(restrictions: str, directory: Path, names: Sequence[str]) -> str:
    playing = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ON_A_HOST, restrictions, str(directory), *names, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(90):
        answer, _ = await playing.communicate()
    return answer.decode().strip()


@needs_root
async def test_without_namespaces_the_rest_of_the_jail_prevents_the_same(tmp_path: Path) -> None:
    assert await on_a_host("ordinary-user,no-user-namespaces", tmp_path, SOME) == "held"


@needs_root
@pytest.mark.parametrize("missing", ["no-landlock", "no-seccomp"])
async def test_where_it_would_succeed_nothing_is_tried_and_the_level_is_named(tmp_path: Path, missing: str) -> None:
    said = await on_a_host(missing, tmp_path, ["kill the victim"])
    assert said == "needs the level landlock+seccomp, this host reaches rlimits-only: see docs/isolation.md"


async def test_what_is_not_prevented_is_found(tmp_path: Path) -> None:
    with pytest.raises(BreachError, match="expected 'nothing' to be prevented, got 'done' and status 0"):
        await prevented(tmp_path, ["nothing"])
    with pytest.raises(BreachError, match="to be prevented"):
        await prevented(tmp_path, ["an attempt that is unknown"])


def test_every_refusal_is_of_an_attempt() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        names = native_program.attempts(ours, 0, b"").keys()
    assert set(REFUSALS) < set(names)
    assert set(SOME) < set(names)
