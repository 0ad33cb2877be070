"""Guests as WebAssembly text: what the files of attacks are short with."""

from typing import Final

from client.selftest.attack import Guest

_WASI: Final = {
    "args_get": "(param i32 i32) (result i32)",
    "args_sizes_get": "(param i32 i32) (result i32)",
    "clock_time_get": "(param i32 i64 i32) (result i32)",
    "environ_get": "(param i32 i32) (result i32)",
    "environ_sizes_get": "(param i32 i32) (result i32)",
    "fd_allocate": "(param i32 i64 i64) (result i32)",
    "fd_close": "(param i32) (result i32)",
    "fd_fdstat_set_rights": "(param i32 i64 i64) (result i32)",
    "fd_filestat_set_size": "(param i32 i64) (result i32)",
    "fd_prestat_get": "(param i32 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "fd_renumber": "(param i32 i32) (result i32)",
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "path_filestat_set_times": "(param i32 i32 i32 i32 i64 i64 i32) (result i32)",
    "path_link": "(param i32 i32 i32 i32 i32 i32 i32) (result i32)",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    "path_rename": "(param i32 i32 i32 i32 i32 i32) (result i32)",
    "path_symlink": "(param i32 i32 i32 i32 i32) (result i32)",
    "path_unlink_file": "(param i32 i32 i32) (result i32)",
    "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
    "proc_exit": "(param i32)",
    "random_get": "(param i32 i32) (result i32)",
    "sched_yield": "(result i32)",
    "sock_accept": "(param i32 i32 i32) (result i32)",
    "sock_recv": "(param i32 i32 i32 i32 i32 i32) (result i32)",
    "sock_send": "(param i32 i32 i32 i32 i32) (result i32)",
}
_HOST: Final = '(import "agentfactory" "call" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))'


def command(body: str, *, pages: int = 2, rest: str = "") -> str:
    """Return a module of the ABI ``command`` whose ``_start`` is ``body``; it imports what the text calls."""
    text = body + rest
    imports = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {kind}))'
        for name, kind in _WASI.items()
        if f"(call ${name} " in text or f"(call ${name})" in text
    )
    host = _HOST if "(call $call " in text else ""
    return f'(module {imports}{host}(memory (export "memory") {pages}){rest}(func (export "_start") {body}))'


def data(at: int, raw: bytes) -> str:
    """A data segment."""
    escaped = "".join(f"\\{byte:02x}" for byte in raw)
    return f'(data (i32.const {at}) "{escaped}")'


def write(fd: int, pointer: str, length: str) -> str:
    """Write memory to a descriptor; uses the bytes 0 to 16."""
    return (
        f"(i32.store (i32.const 0) {pointer}) (i32.store (i32.const 4) {length})"
        f"(drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 12)))"
    )


def say(fd: int, text: bytes, *, then: str = "") -> str:
    """A command that writes ``text`` to a descriptor and goes on with ``then``."""
    return command(write(fd, "(i32.const 256)", f"(i32.const {len(text)})") + then, rest=data(256, text))


def ask(op: bytes, request: bytes, *, then: str = "") -> str:
    """A command that makes one host call and writes the answer to stdout."""
    body = (
        f"(local $n i32) (local.set $n (call $call (i32.const 256) (i32.const {len(op)}) (i32.const 1024)"
        f" (i32.const {len(request)}) (i32.const 65536) (i32.const 32768)))"
        "(if (i32.gt_u (local.get $n) (i32.const 32768)) (then (local.set $n (i32.const 32768))))"
        + write(1, "(i32.const 65536)", "(local.get $n)")
        + then
    )
    return command(body, rest=data(256, op) + data(1024, request))


def forever(body: str) -> str:
    """A command that repeats ``body`` until it is stopped."""
    return command(f"(loop $again {body} (br $again))")


ECHO: Final = command(
    "(loop $more (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))"
    "(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))"
    "(i32.store (i32.const 4) (i32.load (i32.const 8)))"
    "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))"
    "(br_if $more (i32.load (i32.const 8))))"
)
ORDINARY: Final = Guest(wat=ECHO, document={"callers": ["attacks/*"]})
"""What the neighbours invoke."""
READ_ALL: Final = (
    "(local $n i32) (local $at i32)"
    "(loop $more (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $n)))"
    "(i32.store (i32.const 4) (i32.sub (i32.const 66560) (local.get $n)))"
    "(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))"
    "(local.set $n (i32.add (local.get $n) (i32.load (i32.const 8)))) (br_if $more (i32.load (i32.const 8))))"
)
"""Reads all of stdin to 1024 and following; leaves its length in ``$n``."""
ASK_WHAT_IT_IS_TOLD: Final = command(
    READ_ALL + "(local.set $at (call $number)) (local.set $n (call $call (i32.const 1028) (local.get $at)"
    " (i32.add (i32.const 1028) (local.get $at)) (i32.sub (i32.sub (local.get $n) (i32.const 4)) (local.get $at))"
    " (i32.const 131072) (i32.const 32768)))"
    "(if (i32.gt_u (local.get $n) (i32.const 32768)) (then (local.set $n (i32.const 32768))))"
    + write(1, "(i32.const 131072)", "(local.get $n)"),
    pages=3,
    rest="(func $digit (param i32) (result i32) (i32.sub (i32.load8_u (local.get 0)) (i32.const 48)))"
    "(func $number (result i32) (i32.add (i32.add (i32.mul (call $digit (i32.const 1024)) (i32.const 1000))"
    " (i32.mul (call $digit (i32.const 1025)) (i32.const 100)))"
    " (i32.add (i32.mul (call $digit (i32.const 1026)) (i32.const 10)) (call $digit (i32.const 1027)))))",
)
"""Makes the host call that its input names: four digits of length, the operation, the argument."""


def told(operation: str, argument: str) -> str:
    """Return the input for `ASK_WHAT_IT_IS_TOLD`."""
    return f"{len(operation.encode()):04}{operation}{argument}"


WRITE_HEXADECIMAL: Final = command(
    READ_ALL
    + "(block $done (loop $next (br_if $done (i32.ge_u (i32.shl (local.get $at) (i32.const 1)) (local.get $n)))"
    "(i32.store8 (i32.add (i32.const 131072) (local.get $at)) (i32.add"
    " (i32.shl (call $digit (i32.add (i32.const 1024) (i32.shl (local.get $at) (i32.const 1)))) (i32.const 4))"
    " (call $digit (i32.add (i32.const 1025) (i32.shl (local.get $at) (i32.const 1))))))"
    "(local.set $at (i32.add (local.get $at) (i32.const 1))) (br $next)))"
    + write(1, "(i32.const 131072)", "(local.get $at)"),
    pages=3,
    rest="(func $digit (param i32) (result i32) (i32.sub (i32.load8_u (local.get 0)) (select (i32.const 87)"
    " (i32.const 48) (i32.gt_u (i32.load8_u (local.get 0)) (i32.const 57)))))",
)
"""Writes the bytes whose hexadecimal digits are its input."""
KV: Final = {"kv": {"namespace": "state", "bytes_max": 65_536}}
SLEEP_FOR_EVER: Final = command(
    "(i64.store (i32.const 128) (i64.const 7)) (i32.store8 (i32.const 136) (i32.const 0))"
    "(i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const 1000000000000))"
    "(drop (call $poll_oneoff (i32.const 128) (i32.const 512) (i32.const 1) (i32.const 768)))"
)
