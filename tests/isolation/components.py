"""Small components as text: an author's module of the ABI ``component``, ordinary or hostile."""

from functools import cache

from wasmtime import component as wit

from sandbox.engine import Engine, fingerprint
from sandbox.limits import SandboxLimits
from sandbox.outcome import Outcome
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls, Worker

LIMITS = SandboxLimits(
    fuel=200_000_000, wall_ms=10_000, memory_bytes=16 << 20, input_bytes=65_536, output_bytes=65_536, log_bytes=4_096,
    host_calls=10, wasi_calls=50_000,
)  # fmt: skip

POLL = """
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))
    (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "pollable" (type $q (eq $pollable)))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))
"""
STREAMS = """
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $o (sub resource)))
    (export "error" (type $e (eq $error-type)))
    (type $se' (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $se (eq $se')))
    (export "[method]output-stream.write"
      (func (param "self" (borrow $o)) (param "contents" (list u8)) (result (result (error $se)))))
  ))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout (export "output-stream" (type $q (eq $output-stream)))
    (export "get-stdout" (func (result (own $q))))))
"""
LOG = """
  (import "agentfactory:runtime/log@0.1.0" (instance $log
    (type $level' (enum "debug" "info" "warning" "error")) (export "level" (type $level (eq $level')))
    (export "log" (func (param "level" $level) (param "message" string)))))
"""


def component(
    body: str = "(call $answer (local.get 0) (local.get 1))",
    *,
    imports: str = "",
    lowers: str = "",
    core_imports: str = "",
    pages: int = 2,
    functions: str = "",
) -> str:
    """A component whose ``process`` is ``body``: parameters 0 and 1 are the input; ``$answer`` makes it the result.

    ``lowers`` declares core functions from ``imports``; ``core_imports`` imports them into the core module from "h".
    """
    exported = " ".join(f'(export "{name}" (func ${name}))' for name in _names(lowers))
    return f"""(component {imports}
      (core module $memory-module (memory (export "m") {pages}) (global $next (mut i32) (i32.const 32768))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
          (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
          (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 3)))))
      (core instance $memory (instantiate $memory-module))
      {lowers}
      (core module $main-module (import "memory" "m" (memory 1)) {core_imports}
        (func $answer (param i32 i32) (result i32)
          (i32.store8 (i32.const 16) (i32.const 0))
          (i32.store (i32.const 20) (local.get 0)) (i32.store (i32.const 24) (local.get 1)) (i32.const 16))
        {functions}
        (func (export "process") (param i32 i32) (result i32) (local $n i32) {body}))
      (core instance $main (instantiate $main-module
        (with "memory" (instance $memory)) (with "h" (instance {exported}))))
      (func (export "process") (param "input" string) (result (result string (error string)))
        (canon lift (core func $main "process")
          (memory (core memory $memory "m")) (realloc (core func $memory "realloc")))))"""


def lower(name: str, instance: str, function: str) -> str:
    """Declare the core function ``$name`` for a function of an imported instance."""
    options = '(memory (core memory $memory "m")) (realloc (core func $memory "realloc"))'
    return f'(core func ${name} (canon lower (func ${instance} "{function}") {options}))\n'


def _names(lowers: str) -> list[str]:
    return [line.split("$")[1].split()[0] for line in lowers.splitlines() if "(core func $" in line]


@cache
def _compiler() -> Engine:
    return Engine()


@cache
def compiled(text: str) -> CompiledCode:
    raw = wit.Component(_compiler().raw, text)
    return CompiledCode(
        code=bytes(raw.serialize()), abi="component", module_sha256="0" * 64, engine_fingerprint=fingerprint()
    )


class NoHost:
    """Nothing is granted, so nobody asks."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        raise AssertionError(f"expected no host call, got {interface}.{function} {argument!r}")


async def run(
    worker: Worker,
    text: str,
    data: bytes = b"hello",
    *,
    limits: SandboxLimits = LIMITS,
    granted: frozenset[str] = frozenset(),
    host: HostCalls | None = None,
) -> Outcome:
    """Load a component given as text and run it once."""
    await worker.load(text, compiled(text))
    request = InvocationRequest(code_id=text, abi="component", input=data, limits=limits, granted=granted)
    return await worker.invoke(request, host or NoHost())
