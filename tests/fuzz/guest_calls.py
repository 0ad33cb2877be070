"""A guest in WebAssembly that calls what its input says, with the arguments that its input says, in the real engine.

The input is a program: a byte that chooses the import, then each argument, little-endian. It lies at address 0 of the
guest's memory, so small pointers lead into it, and results overwrite what is still to be read: programs change
themselves. Host calls, files among them, are answered with pieces of the same input.
"""

from functools import cache

from sandbox.command import HOST_FUNCTION, HOST_MODULE
from sandbox.fibers import Invocation, Program
from sandbox.limits import SandboxLimits
from sandbox.nature import LiveNature
from sandbox.outcome import FailureKind, Usage
from sandbox.preview1 import FUNCTIONS, MODULE, SPECIAL
from tests.unit.sandbox.fiber_world import World

IMPORTS: tuple[tuple[str, str, str], ...] = (
    (HOST_MODULE, HOST_FUNCTION, "iiiiii"),
    *((MODULE, name, parameters) for name, (parameters, _) in sorted(FUNCTIONS.items())),
    *((MODULE, name, parameters) for name, parameters in sorted(SPECIAL.items())),
)
GRANTED = frozenset(f"agentfactory:runtime/{name}@0.1.0" for name in ("kv", "files", "http"))
_LIMITS = SandboxLimits(
    fuel=5_000_000, wall_ms=1_000, memory_bytes=1 << 20, output_bytes=4_096, log_bytes=1_024, host_calls=20,
    wasi_calls=2_000,
)  # fmt: skip
_SIZES = {"i": 4, "I": 8}
_TYPES = {"i": "i32", "I": "i64"}
_VECTOR = 131_000
_ANSWERS_MAX = 100
_ALLOWED = frozenset({"TRAP", "FUEL", "DEADLINE", "MEMORY", "OUTPUT", "HOST_CALLS", "GUEST_ERROR"})


def program(name: str, *arguments: int) -> bytes:
    """Return the input that makes one call."""
    number = next(at for at, (_, each, _) in enumerate(IMPORTS) if each == name)
    kinds = IMPORTS[number][2]
    packed = (value.to_bytes(_SIZES[kind], "little") for kind, value in zip(kinds, arguments, strict=True))
    return bytes([number]) + b"".join(packed)


def _text() -> str:
    imports, cases = [], []
    for number, (module, name, parameters) in enumerate(IMPORTS):
        kinds = "".join(f" {_TYPES[each]}" for each in parameters)
        result = "" if name == "proc_exit" else " (result i32)"
        imports.append(f'(import "{module}" "{name}" (func $f{number} (param{kinds}){result}))')
        loads, offset = [], 0
        for each in parameters:
            loads.append(f"({_TYPES[each]}.load offset={offset} (local.get $at))")
            offset += _SIZES[each]
        call = f"(call $f{number} {' '.join(loads)})"
        cases.append(
            f"(if (i32.eq (local.get $op) (i32.const {number})) (then"
            f" {call if name == 'proc_exit' else f'(drop {call})'}"
            f" (local.set $at (i32.add (local.get $at) (i32.const {offset}))) (br $next)))"
        )
    read = next(at for at, (_, name, _) in enumerate(IMPORTS) if name == "fd_read")
    return f"""(module {"".join(imports)} (memory (export "memory") 2)
      (func (export "_start") (local $at i32) (local $op i32) (local $n i32)
        (i32.store (i32.const {_VECTOR}) (i32.const 0)) (i32.store (i32.const {_VECTOR + 4}) (i32.const 65536))
        (drop (call $f{read} (i32.const 0) (i32.const {_VECTOR}) (i32.const 1) (i32.const {_VECTOR + 8})))
        (local.set $n (i32.load (i32.const {_VECTOR + 8})))
        (block $end (loop $next
          (br_if $end (i32.ge_u (local.get $at) (local.get $n)))
          (local.set $op (i32.rem_u (i32.load8_u (local.get $at)) (i32.const {len(IMPORTS)})))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          {"".join(cases)}))))"""


class _World(World):
    """A scheduler whose outbox keeps what it has to answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.turn.live = LiveNature(self.clock, bytes)  # as many as are asked for
        self.asked: list[Invocation] = []

    def host_call(self, invocation: Invocation, interface: str, function: str, argument: bytes) -> None:
        super().host_call(invocation, interface, function, argument)
        self.asked.append(invocation)


@cache
def _guest() -> tuple[_World, Program]:
    world = _World()
    return world, world.program(_text())


def guest_calls(data: bytes) -> None:
    """Imports of preview 1 and the host call, with any arguments: the guest's own failure, never the worker's."""
    world, program_ = _guest()
    number = world.start(program_, data, limits=_LIMITS, granted=GRANTED)
    answers = 0
    world.settle()
    while number not in world.ends:
        if world.asked and answers < _ANSWERS_MAX:
            answers += 1
            piece = data[answers % max(1, len(data)) :]
            world.asked.pop()
            world.scheduler.answer(number, (b"\0\0" + piece) if answers % 2 else piece)
        else:
            world.clock.now_ns += _LIMITS.wall_ms * 1_000_000  # a sleep, which ends at the deadline
        world.settle()
    world.asked.clear()
    world.calls.clear()
    world.order.clear()
    end = world.ends.pop(number)
    _check(end.kind, end.message, end.output, end.usage)


def _check(kind: str | None, message: str, output: bytes | None, usage: Usage) -> None:
    assert kind is None or kind in _ALLOWED, f"{kind}: {message}"
    assert kind != FailureKind.CRASH
    assert len(output or b"") <= _LIMITS.output_bytes
    assert usage.fuel <= _LIMITS.fuel
