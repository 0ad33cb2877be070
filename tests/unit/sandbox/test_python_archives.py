"""Zips of sources in the CPython image, what is left of a budget, and hints for what the image lacks."""

import io
import json
import zipfile
from textwrap import dedent

import pytest

from sandbox.component import ComponentProgram
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from templates import source_archive
from tests.images import compiled_image
from tests.unit.sandbox.in_process import Ended, World

pytestmark = pytest.mark.toolchain

AGENT = """
import pkgutil
import top
from pkg import sub

def process(text):
    if text == "boom":
        return sub.boom()
    return [sub.twice(text), top.X, pkgutil.get_data("pkg", "data.txt").decode()]
"""
FILES = {
    "agent.py": AGENT,
    "top.py": "X = 1\n",
    "pkg/__init__.py": "from . import sub\n",
    "pkg/sub.py": "def twice(text):\n    return text * 2\n\ndef boom():\n    return {}['x']\n",
    "pkg/data.txt": "héllo",
    "pkg/broken.py": "x = 1\ndef (\n",
    "space/inner.py": "Y = 2\n",
}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def image(world: World) -> ComponentProgram:
    return world.program(compiled_image(), abi="image")


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def run(world: World, image: ComponentProgram, source: bytes | str, text: bytes = b"x", **limits: int) -> Ended:
    data = dedent(source).encode() if isinstance(source, str) else source
    return world.run(image, text, source=data, limits=SandboxLimits(**limits))


def test_packages_modules_and_data_are_imported_from_the_zip(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, packed(FILES), b"ab")
    assert ended.failure is None
    assert json.loads(ended.output or b"") == ["abab", 1, "héllo"]
    again = run(world, image, packed(FILES), b"ab")
    assert again.usage.fuel == ended.usage.fuel


def test_a_traceback_names_the_files_inside_the_zip(world: World, image: ComponentProgram) -> None:
    ended = run(world, image, packed(FILES), b"boom")
    said = [message for _, message in ended.said]
    assert ended.failure is not None
    assert ended.failure.message == "KeyError: 'x' (line 8)"
    assert [line for line in said if line.startswith("  File")] == [
        '  File "agent.py", line 8, in process',
        '  File "pkg/sub.py", line 5, in boom',
    ]
    assert "    return {}['x']" in said


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("import pkg.broken\n", "pkg/broken.py"),
        ("def (\n", "SyntaxError: invalid syntax (line 1)"),
        ("import pkg.absent\n", "No module named 'pkg.absent'"),
    ],
)
def test_a_broken_file_says_so_when_it_is_imported(
    world: World, image: ComponentProgram, agent: str, message: str
) -> None:
    ended = run(world, image, packed({**FILES, "agent.py": agent}))
    assert ended.failure is not None
    assert message in ended.failure.message


def test_folders_without_init_are_packages_too(world: World, image: ComponentProgram) -> None:
    agent = "from space.inner import Y\ndef process(text):\n    return str(Y)\n"
    assert run(world, image, packed({**FILES, "agent.py": agent})).output == b"2"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (packed({"other.py": ""}), "expected agent.py at the top of agent.zip"),
        (b"PK\x03\x04garbage", "a damaged one"),
        (packed({"agent.py": "", "bomb": "\0" * (source_archive.UNPACKED_BYTES_MAX + 1)}), "to unpack to at most"),
        (
            packed({"agent.py": "", **{f"f{n}": "" for n in range(source_archive.ENTRIES_MAX)}}),
            "expected at most 1000 files",
        ),
    ],
)
def test_what_validation_refuses_the_image_refuses_too(
    world: World, image: ComponentProgram, source: bytes, message: str
) -> None:
    ended = run(world, image, source)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.GUEST_ERROR
    assert message in ended.failure.message


def test_the_budget_shrinks_as_it_is_used(world: World, image: ComponentProgram) -> None:
    ended = run(
        world,
        image,
        """
        from agentfactory_sdk import budget, log
        def process(text):
            before = budget()
            log.info("x" * 100)
            sum(range(10_000))
            after = budget()
            return [before.fuel - after.fuel, before.log_bytes - after.log_bytes, after.memory_bytes, after.host_calls]
        """,
        memory_bytes=64 << 20,
        host_calls=3,
    )
    fuel, log_bytes, memory, calls = json.loads(ended.output or b"")
    assert fuel > 10_000
    assert 100 < log_bytes < 1_000  # the line, and what keeping one costs
    assert (memory, calls) == (64 << 20, 3)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("import ssl\n", "the node carries TLS out"),
        ("import asyncio\n", "there is no event loop"),
        ("import subprocess\n", "there are no processes"),
        ("import requests\n", "use agentfactory_sdk.http"),
        ("import numpy\n", "native code, which does not run here"),
        ("import some_package\n", "can be vendored into agent.zip"),
        ("import threading\nthreading.Thread(target=print).start()\n", "the sandbox has one thread"),
        ("import socket\nsocket.create_connection(('198.51.100.1', 80))\n", "there are no sockets"),
        ("import socket\nsocket.gethostbyname('host.example')\n", "there are no sockets"),
        ("import urllib.request\nurllib.request.urlopen('http://host.example')\n", "use agentfactory_sdk.http"),
        ("import urllib.request\nurllib.request.urlopen('https://host.example')\n", "use agentfactory_sdk.http"),
        ("import http.client\nhttp.client.HTTPSConnection('host.example')\n", "the node carries TLS out"),
        ("async def process(text):\n    return text\n", "write process(text) without async"),
    ],
)
def test_what_the_image_lacks_is_named_with_what_to_use_instead(
    world: World, image: ComponentProgram, source: str, hint: str
) -> None:
    ended = run(world, image, source)
    assert ended.failure is not None
    assert hint in ended.failure.message
