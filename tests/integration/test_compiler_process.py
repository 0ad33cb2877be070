"""The compiler's process, for real: it holds nothing, keeps its limits, and compiles what the workers run."""

import asyncio
import contextlib
import hashlib
import os
from functools import cache
from pathlib import Path

import pytest

from sandbox.compile_cache import CompileCache
from sandbox.compiler import CompilerError, CompilerSettings, compile_module
from sandbox.engine import fingerprint, wat2wasm
from sandbox.inspection import inspect
from sandbox.supervisor import Worker, WorkerSettings
from tests.images import image_bytes
from tests.isolation.components import component, run

COMPONENT = wat2wasm(component())


async def test_a_component_compiles_for_the_workers_engine() -> None:
    code = await compile_module(COMPONENT)
    assert code.abi == "component"
    assert code.module_sha256 == hashlib.sha256(COMPONENT).hexdigest()
    assert code.engine_fingerprint == fingerprint()
    worker = await Worker.start(WorkerSettings(slots=4))
    try:
        await worker.load(component(), code)
        assert (await run(worker, component())).output == b"hello"
    finally:
        await worker.stop()


async def test_a_core_module_is_a_command() -> None:
    code = await compile_module(wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
    assert code.abi == "command"


async def test_facts_come_from_the_child() -> None:
    facts = await inspect(COMPONENT)
    assert (facts.kind, facts.imports, facts.exports) == ("component", (), ("process",))
    assert facts.sha256 == hashlib.sha256(COMPONENT).hexdigest()
    assert [memory.bytes_min for memory in facts.memories if not memory.imported] == [131_072]


@pytest.mark.parametrize(
    ("wasm", "code"),
    [
        (b"\x7fELF", "COMPILED_CODE"),
        (b"", "NOT_WASM"),
        (COMPONENT[:-1], "MODULE_INVALID"),
        (COMPONENT[:60] + b"\xff" * 20 + COMPONENT[80:], "MODULE_INVALID"),
        (wat2wasm("(component)"), "NO_ENTRY"),
    ],
)
async def test_a_refusal_has_its_code(wasm: bytes, code: str) -> None:
    with pytest.raises(CompilerError) as refused:
        await compile_module(wasm)
    assert refused.value.code == code


def leb(value: int) -> bytes:
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*pieces, value))


def section(kind: int, content: bytes) -> bytes:
    return bytes((kind,)) + leb(len(content)) + content


@cache
def heavy() -> bytes:
    """A module that keeps a compiler busy for many seconds: functions full of stores that depend on each other."""
    store = bytes.fromhex("2000a7 2001 2000a7 290300 7e 370300 2000a7 280200 ad 2101")  # store, then load the next
    body = b"\0" + store * 1_000 + b"\x0b"
    functions, code = 1_000, leb(len(body)) + body
    return (
        b"\0asm\1\0\0\0"
        + section(1, bytes.fromhex("01 60 02 7e 7e 00"))
        + section(3, leb(functions) + b"\0" * functions)
        + section(5, bytes.fromhex("01 00 01"))
        + section(7, b"\1\6_start\0\0")
        + section(10, leb(functions) + code * functions)
    )


@pytest.mark.parametrize(
    "settings",
    [
        CompilerSettings(cpu_s_max=1),
        CompilerSettings(wall_s_max=0.3),
        CompilerSettings(memory_bytes_max=120 << 20),
    ],
)
async def test_a_bomb_for_the_compiler_meets_a_limit(settings: CompilerSettings) -> None:
    with pytest.raises(CompilerError) as stopped:
        await compile_module(heavy(), settings=settings)
    assert stopped.value.code in {"COMPILER_LIMIT", "COMPILER_CRASH"}


async def test_code_beyond_its_limit_is_not_read() -> None:
    settings = CompilerSettings(code_bytes_max=-(16 << 20) + 1_000)
    with pytest.raises(CompilerError) as stopped:
        await compile_module(COMPONENT, settings=settings)
    assert stopped.value.code == "COMPILER_LIMIT"


async def test_a_module_beyond_its_limit_never_reaches_the_child() -> None:
    with pytest.raises(CompilerError) as refused:
        await compile_module(COMPONENT, settings=CompilerSettings(module_bytes_max=100))
    assert refused.value.code == "MODULE_SIZE"


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended since; what it started was handed on
            found.update(map(int, (task / "children").read_text(encoding="ascii").split()))
    return found


def has_its_limits(child: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that only started the next
        return "Max file size             0" in Path(f"/proc/{child}/limits").read_text(encoding="ascii")
    return False


async def settled_child(before: set[int]) -> int:
    """Wait for the child that a job starts, until it has set its limits: the last that it does before it reads."""
    async with asyncio.timeout(30):
        while not (found := [child for child in children() - before if has_its_limits(child)]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (child,) = found
    return child


async def test_cancelling_kills_the_child() -> None:
    before = children()
    job = asyncio.ensure_future(compile_module(heavy()))
    child = await settled_child(before)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


async def test_the_child_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFACTORY_CANARY", "canary")
    before = children()
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    job = asyncio.ensure_future(compile_module(heavy()))
    process = Path(f"/proc/{await settled_child(before)}")
    environment = (process / "environ").read_bytes()
    limits = (process / "limits").read_text(encoding="ascii")
    targets = [os.readlink(entry) for entry in (process / "fd").iterdir()]  # noqa: PTH115 - not a path
    directory = os.readlink(process / "cwd")  # noqa: PTH115
    job.cancel()
    os.close(inherited)
    assert b"canary" not in environment
    assert "Max core file size        0" in limits
    assert "Max file size             0" in limits
    assert directory == "/"
    assert len(targets) <= 4, targets
    assert all(target.startswith(("socket:", "/dev/null", "anon_inode:")) for target in targets), targets
    with pytest.raises(asyncio.CancelledError):
        await job


async def test_the_cache_compiles_once_and_a_flipped_byte_again(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "cache", key=bytes(32))
    first = await cache.compile(COMPONENT)
    assert await cache.compile(COMPONENT) == first
    (path,) = (tmp_path / "cache").glob("*.compiled")
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    assert (await cache.compile(COMPONENT)).code == first.code
    assert cache.statistics.refused == 1


@pytest.mark.toolchain
async def test_the_image_imports_what_this_sandbox_has_and_nothing_else() -> None:
    facts = await inspect(image_bytes())
    assert set(facts.exports) >= {"load", "process"}
    packages = {name.partition("/")[0] for name in facts.imports}
    assert packages == {
        "agentfactory:runtime", "wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets",
    }  # fmt: skip
    assert [name for name in facts.imports if name.startswith("agentfactory:")] == [
        "agentfactory:runtime/agents@0.1.0",
        "agentfactory:runtime/context@0.1.0",
        "agentfactory:runtime/http@0.1.0",
        "agentfactory:runtime/kv@0.1.0",
        "agentfactory:runtime/llm@0.1.0",
        "agentfactory:runtime/log@0.1.0",
    ]
    assert sum(memory.bytes_min for memory in facts.memories if not memory.imported) < 64 << 20
