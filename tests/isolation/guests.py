"""Small hostile and ordinary guests of the ABI ``command``, as text, and a worker to run them in."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandbox.core_module import CoreModule
from sandbox.engine import Engine, fingerprint, wat2wasm
from sandbox.limits import SandboxLimits
from sandbox.outcome import Outcome
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls, Worker

_IMPORTS = {
    "args_get": "(param i32 i32) (result i32)",
    "environ_sizes_get": "(param i32 i32) (result i32)",
    "environ_get": "(param i32 i32) (result i32)",
    "clock_time_get": "(param i32 i64 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    "proc_exit": "(param i32)",
    "random_get": "(param i32 i32) (result i32)",
    "sched_yield": "(result i32)",
    "sock_send": "(param i32 i32 i32 i32 i32) (result i32)",
}
_HOST = '(import "agentfactory" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))'


def command(body: str, *, pages: int = 2, rest: str = "") -> str:
    """Return a module whose ``_start`` is ``body``; it imports what the text calls."""
    text = body + rest
    imports = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {kind}))'
        for name, kind in _IMPORTS.items()
        if f"${name}" in text
    )
    host = _HOST if "(call $call" in text else ""
    return f'(module {imports}{host}(memory (export "memory") {pages}){rest}(func (export "_start") {body}))'


def _write(fd: int, pointer: str, length: str) -> str:
    return (
        f"(i32.store (i32.const 0) {pointer}) (i32.store (i32.const 4) {length})"
        f" (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 12)))"
    )


def _data(at: int, raw: bytes) -> str:
    escaped = "".join(f"\\{byte:02x}" for byte in raw)
    return f'(data (i32.const {at}) "{escaped}")'


def say(fd: int, text: bytes, then: str = "") -> str:
    """A guest that writes ``text`` to a descriptor and goes on with ``then``."""
    return command(_write(fd, "(i32.const 256)", f"(i32.const {len(text)})") + then, rest=_data(256, text))


def ask(op: bytes, request: bytes, *, capacity: int = 32_768, then: str = "") -> str:
    """A guest that makes one host call and writes what was put into its buffer to stdout."""
    data = _data(256, op) + _data(1024, request)
    body = (
        f"(local $n i32) (local.set $n (call $call (i32.const 256) (i32.const {len(op)}) (i32.const 1024)"
        f" (i32.const {len(request)}) (i32.const 65536) (i32.const {capacity})))"
        f"(if (i32.gt_u (local.get $n) (i32.const {capacity})) (then (local.set $n (i32.const {capacity}))))"
        + _write(1, "(i32.const 65536)", "(local.get $n)")
        + then
    )
    return command(body, rest=data)


_SUBSCRIPTION_TAIL = "(i64.store (i32.const 128) (i64.const 7)) (i32.store8 (i32.const 136) (i32.const 0))"


def sleeper(delay_ns: int) -> str:
    """A guest that sleeps by ``poll_oneoff`` and then writes the event's userdata byte."""
    return command(
        _SUBSCRIPTION_TAIL
        + f"(i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const {delay_ns}))"
        "(drop (call $poll_oneoff (i32.const 128) (i32.const 512) (i32.const 1) (i32.const 768)))"
        "(i32.store8 (i32.const 512) (i32.add (i32.const 48) (i32.load8_u (i32.const 512))))"
        + _write(1, "(i32.const 512)", "(i32.load (i32.const 768))")
    )


ECHO = command(
    "(loop $more (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))"
    "(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))"
    "(i32.store (i32.const 4) (i32.load (i32.const 8)))"
    "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))"
    "(br_if $more (i32.load (i32.const 8))))"
)
SPINNER = command("(loop $again (br $again))")
START_SPINNER = '(module (memory (export "memory") 1) (func $s (loop $x (br $x))) (start $s) (func (export "_start")))'
RECURSION = '(module (memory (export "memory") 1) (func $r (call $r)) (func (export "_start") (call $r)))'
HOG = command(
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
)
GREEDY = '(module (memory (export "memory") 4096) (func (export "_start")))'
TOUCHING_HOG = command(
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
    "(memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))"
    "(call $proc_exit (i32.const 1))"
)
FLOODER = command("(loop $more " + _write(1, "(i32.const 0)", "(i32.const 4096)") + "(br $more))")
LOG_FLOODER = command(
    "(local $n i32)"
    "(loop $more "
    + _write(2, "(i32.const 0)", "(i32.const 65536)")
    + "(local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $more (i32.lt_u (local.get $n) (i32.const 100))))"
)
EMPTY_WRITES = command("(loop $more " + _write(1, "(i32.const 0)", "(i32.const 0)") + "(br $more))")
WASI_HAMMERER = command(
    "(loop $more (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 8))) (br $more))"
)
YIELDER = command("(loop $more (drop (call $sched_yield)) (br $more))")
HOST_HAMMERER = command(
    "(loop $more (drop (call $call (i32.const 256) (i32.const 6) (i32.const 1024) (i32.const 2) (i32.const 2048)"
    " (i32.const 512))) (br $more))",
    rest='(data (i32.const 256) "kv.get") (data (i32.const 1024) "{}")',
)
RANDOM_GLUTTON = command("(drop (call $random_get (i32.const 0) (i32.const 131072))) (call $proc_exit (i32.const 3))")
HUGE_VECTORS = command(
    "(if (i32.ne (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0x7fffffff) (i32.const 12)) (i32.const 28))"
    " (then unreachable)) (call $proc_exit (i32.const 5))"
)
SUM_OF_VECTORS = command(  # two vectors of 3 GiB each: the sum does not fit 32 bits
    "(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 0xc0000000))"
    "(i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 0xc0000000))"
    "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 32))) (call $proc_exit (i32.const 6))"
)
EXIT_0 = command("(call $proc_exit (i32.const 0)) unreachable")
EXIT_7 = command("(call $proc_exit (i32.const 7)) unreachable")
UNREACHABLE = command("unreachable")
PIGGYBACK = command("(memory.fill (i32.const 0) (i32.const 170) (i32.const 131072))")
PEEKER = command(  # exits with 1 when it finds a byte in memory that it did not write
    "(local $at i32) (loop $more (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (call $proc_exit"
    " (i32.const 1)))) (local.set $at (i32.add (local.get $at) (i32.const 8)))"
    "(br_if $more (i32.lt_u (local.get $at) (i32.const 131072))))"
)
CONFIGURED = command(
    "(drop (call $environ_sizes_get (i32.const 8) (i32.const 12)))"
    "(drop (call $environ_get (i32.const 64) (i32.const 1024)))"
    + _write(1, "(i32.load (i32.const 64))", "(i32.sub (i32.load (i32.const 12)) (i32.const 1))")
)


@cache
def _compiler() -> Engine:
    return Engine()


@cache
def compiled(text: str) -> CompiledCode:
    """Return compiled code of a guest given as text."""
    module = CoreModule.compile(_compiler(), wat2wasm(text))
    return CompiledCode(
        code=module.serialize(), abi="command", module_sha256="0" * 64, engine_fingerprint=fingerprint()
    )


LIMITS = SandboxLimits(
    fuel=50_000_000, wall_ms=5_000, memory_bytes=16 << 20, input_bytes=65_536, output_bytes=65_536, log_bytes=4_096,
    host_calls=10, wasi_calls=10_000,
)  # fmt: skip
KV = frozenset({"agentfactory:runtime/kv@0.1.0"})


class Echoing:
    """Answers every host call with its argument; keeps what it was asked."""

    def __init__(self, answer: Callable[[bytes], bytes] = lambda argument: b'{"ok":' + argument + b"}") -> None:
        self.calls: list[tuple[str, str, bytes]] = []
        self._answer = answer

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        self.calls.append((interface, function, argument))
        return self._answer(argument)


async def run(
    worker: Worker,
    text: str,
    *,
    data: bytes = b"",
    limits: SandboxLimits = LIMITS,
    host: HostCalls | None = None,
    config: bytes = b"{}",
    granted: frozenset[str] = KV,
    process: bool = True,
) -> Outcome:
    """Load a guest given as text and run it once."""
    await worker.load(text, compiled(text))
    request = InvocationRequest(
        code_id=text, abi="command", input=data, limits=limits, config=config, granted=granted, process=process
    )
    return await worker.invoke(request, host or Echoing())


async def until_in_flight(worker: Worker, least: int) -> None:
    """Wait until so many invocations have been sent to a worker."""
    while worker.in_flight < least:  # noqa: ASYNC110 - a test has no event to wait for
        await asyncio.sleep(0.005)


async def until_empty(worker: Worker) -> None:
    """Wait until the worker has let go of every invocation, cancelled ones included."""
    while worker.in_flight:  # noqa: ASYNC110 - a test has no event to wait for
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class ProcessFacts:
    """What the kernel says about a process."""

    threads: int
    environment: bytes
    directory: str
    descriptors: tuple[str, ...]
    limits: dict[str, str]
    status: dict[str, str]


def facts_of(pid: int) -> ProcessFacts:
    """Read a process's facts from /proc."""
    root = Path(f"/proc/{pid}")
    limits = {line[:26].strip(): line[26:47].strip() for line in (root / "limits").read_text().splitlines()}
    status = dict(line.split(":\t", 1) for line in (root / "status").read_text().splitlines() if ":\t" in line)
    return ProcessFacts(
        threads=len(list((root / "task").iterdir())),
        environment=(root / "environ").read_bytes(),
        directory=str((root / "cwd").readlink()),
        descriptors=tuple(str(entry.readlink()) for entry in (root / "fd").iterdir()),
        limits=limits,
        status=status,
    )
