"""Virtual WASI 0.2: every interface that exists for a component besides our own. Nothing native is linked.

Clocks and randomness are values that the host chooses; standard output and error are the invocation's log; arguments,
environment, sockets and, without a grant, files are empty. Every call is counted (``SandboxLimits.wasi_calls``).
"""

import re
from typing import Final

from sandbox import values, wasi2_files, wasi2_io, wasi2_refusals
from sandbox.component_guest import CLOCK_RESOLUTION_NS, STDERR, STDOUT, Answer, Guest, Import, Interface
from sandbox.fibers import Stopped
from sandbox.outcome import FailureKind
from sandbox.wasi2_io import INPUT_STREAM, OUTPUT_STREAM, POLLABLE

TERMINAL_INPUT, TERMINAL_OUTPUT = 10, 11
VERSION: Final = re.compile(r"0\.2\.(?:0|[1-9][0-9]?)")

_NANOSECONDS: Final = 1_000_000_000


def monotonic_now(guest: Guest, _context: int, _args: int) -> Answer:
    return values.u64(guest.now_ns())


def monotonic_resolution(_guest: Guest, _context: int, _args: int) -> Answer:
    return values.u64(CLOCK_RESOLUTION_NS)


def subscribe_duration(guest: Guest, context: int, args: int) -> Answer:
    due = guest.host_now_ns() + values.read_number(args, values.U64)
    return guest.own(context, guest.pollable_at(due), POLLABLE)


def subscribe_instant(guest: Guest, context: int, args: int) -> Answer:
    due = guest.host_instant_ns(values.read_number(args, values.U64))
    return guest.own(context, guest.pollable_at(due), POLLABLE)


def _moment(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return values.record((b"seconds", values.u64(seconds)), (b"nanoseconds", values.u32(rest)))


def wall_now(guest: Guest, _context: int, _args: int) -> Answer:
    return _moment(guest.wall_ns())


def wall_resolution(_guest: Guest, _context: int, _args: int) -> Answer:
    return _moment(CLOCK_RESOLUTION_NS)


def random_bytes(guest: Guest, _context: int, args: int) -> Answer:
    length = values.read_number(args, values.U64)
    return values.byte_list(guest.random(length))


def random_u64(guest: Guest, _context: int, _args: int) -> Answer:
    return values.u64(int.from_bytes(guest.random(8), "big"))


def insecure_seed(guest: Guest, _context: int, _args: int) -> Answer:
    return values.pair(*(values.u64(int.from_bytes(guest.random(8), "big")) for _ in range(2)))


def nothing(_guest: Guest, _context: int, _args: int) -> Answer:
    return values.elements([])


def none(_guest: Guest, _context: int, _args: int) -> Answer:
    return values.option(None)


def exit_(_guest: Guest, _context: int, args: int) -> Answer:
    is_ok, _ = values.read_result(args)
    raise Stopped(FailureKind.GUEST_ERROR, f"the agent exited {'early' if is_ok else 'with a failure'}")


def exit_with_code(_guest: Guest, _context: int, args: int) -> Answer:
    code = values.read_number(args, values.U8)
    raise Stopped(FailureKind.GUEST_ERROR, f"the agent exited with status {code}")


def stdin(guest: Guest, context: int, _args: int) -> Answer:
    return guest.own(context, 0, INPUT_STREAM)


def stdout(guest: Guest, context: int, _args: int) -> Answer:
    return guest.own(context, STDOUT, OUTPUT_STREAM)


def stderr(guest: Guest, context: int, _args: int) -> Answer:
    return guest.own(context, STDERR, OUTPUT_STREAM)


RESOURCES: Final[dict[str, int]] = {
    **wasi2_io.RESOURCES,
    **wasi2_files.RESOURCES,
    **wasi2_refusals.RESOURCES,
    "terminal-input": TERMINAL_INPUT,
    "terminal-output": TERMINAL_OUTPUT,
}
"""By name, with the number of their type: a name means the same resource in every interface that uses it."""

INTERFACES: Final[dict[str, Interface]] = {
    **wasi2_io.INTERFACES,
    **wasi2_files.INTERFACES,
    **wasi2_refusals.INTERFACES,
    "wasi:clocks/monotonic-clock": {
        "now": Import(0, True, monotonic_now),
        "resolution": Import(0, True, monotonic_resolution),
        "subscribe-instant": Import(1, True, subscribe_instant),
        "subscribe-duration": Import(1, True, subscribe_duration),
    },
    "wasi:clocks/wall-clock": {
        "now": Import(0, True, wall_now),
        "resolution": Import(0, True, wall_resolution),
    },
    "wasi:random/random": {
        "get-random-bytes": Import(1, True, random_bytes),
        "get-random-u64": Import(0, True, random_u64),
    },
    "wasi:random/insecure": {
        "get-insecure-random-bytes": Import(1, True, random_bytes),
        "get-insecure-random-u64": Import(0, True, random_u64),
    },
    "wasi:random/insecure-seed": {"insecure-seed": Import(0, True, insecure_seed)},
    "wasi:cli/environment": {
        "get-environment": Import(0, True, nothing),
        "get-arguments": Import(0, True, nothing),
        "initial-cwd": Import(0, True, none),
    },
    "wasi:cli/exit": {"exit": Import(1, False, exit_), "exit-with-code": Import(1, False, exit_with_code)},
    "wasi:cli/stdin": {"get-stdin": Import(0, True, stdin)},
    "wasi:cli/stdout": {"get-stdout": Import(0, True, stdout)},
    "wasi:cli/stderr": {"get-stderr": Import(0, True, stderr)},
    "wasi:cli/terminal-input": {},
    "wasi:cli/terminal-output": {},
    "wasi:cli/terminal-stdin": {"get-terminal-stdin": Import(0, True, none)},
    "wasi:cli/terminal-stdout": {"get-terminal-stdout": Import(0, True, none)},
    "wasi:cli/terminal-stderr": {"get-terminal-stderr": Import(0, True, none)},
}
"""Functions by interface, without version: any ``0.2.x`` is served."""
