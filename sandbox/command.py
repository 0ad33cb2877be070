"""The ABI ``command``: a core module that reads its input from stdin and writes its output to stdout.

stderr becomes the log, the configuration stands in the environment variable ``AGENTFACTORY_CONFIG``, exit code 0 is
success. Host calls go through one optional import, ``agentfactory.call``:

    call(op_ptr, op_len, req_ptr, req_len, resp_ptr, resp_cap) -> i32

``op`` is ``interface.function`` such as ``kv.get``, ``req`` its JSON argument. The result is the whole length of the
JSON answer, of which at most ``resp_cap`` bytes were written; with an empty ``op`` the last answer is written again, so
that a guest can fetch a long one with a larger buffer without repeating the call. ``log.log``, ``context.config``,
``context.invocation_id`` and ``context.budget`` are answered here, need no grant and are no host calls.
"""

import json
from collections.abc import Callable
from ctypes import memmove, string_at
from struct import Struct
from typing import Final, Self

from sandbox.core_module import (
    VAL_BYTES,
    VAL_VALUE_OFFSET,
    CoreLinker,
    CoreModule,
    GuestMemory,
    HostFunction,
    ImportedFunction,
    Instance,
    OutOfBoundsError,
)
from sandbox.engine import Call, Engine, EngineError, Trapped, answer_at_once, raise_trap
from sandbox.fibers import LOG_LINE_BYTES_MAX, Invocation, Steps, Stopped, Turn
from sandbox.file_protocol import INTERFACE as FILES
from sandbox.file_protocol import FileRefusal
from sandbox.outcome import Failure, FailureKind
from sandbox.preview1 import FUNCTIONS, MODULE, SPECIAL, SUCCESS, Method, Preview1
from sandbox.preview1_files import FileAsk

HOST_MODULE: Final = "agentfactory"
HOST_FUNCTION: Final = "call"
_HOST_PARAMETERS: Final = "iiiiii"
_OP_BYTES_MAX: Final = 64
_TYPES: Final = {"i": "i32", "I": "i64"}
_VALUES: Final = {"i": "I", "I": "Q"}
_I32 = Struct(f"<B{VAL_VALUE_OFFSET - 1}xi")
_ERRNO: Final = tuple(_I32.pack(0, errno) for errno in range(77))
_I32_BYTES: Final = _I32.size

Body = Callable[[Invocation, Preview1, tuple[int, ...], int, int], None]
"""``(invocation, guest, arguments, results, continuation)``: serves one import and answers it."""


class CommandProgram:
    """A command, linked to virtual WASI and the host call."""

    def __init__(self, engine: Engine, module: CoreModule, turn: Turn) -> None:
        linker = CoreLinker(engine)
        defined = set()
        for item in module.imports():
            served = _body_of(item)
            if (item.module, item.name) not in defined:  # Go's linker imports some functions several times
                defined.add((item.module, item.name))
                linker.define(item, _serve(turn, *served))
        self._linked = linker.link(module)

    @classmethod
    def deserialize(cls, engine: Engine, compiled: bytes, turn: Turn) -> Self:
        """Load compiled code from trusted bytes and link it."""
        return cls(engine, CoreModule.deserialize(engine, compiled), turn)

    @classmethod
    def deserialize_file(cls, engine: Engine, path: str, turn: Turn) -> Self:
        """Load compiled code by mapping a trusted file and link it."""
        return cls(engine, CoreModule.deserialize_file(engine, path), turn)

    def run(self, invocation: Invocation) -> Steps:
        guest = invocation.guest = Preview1(invocation)
        try:
            call, instance = self._linked.instantiate(invocation.store)
            yield call
            if _ended(call, guest, None, invocation) and invocation.process:
                call = instance.start(b"_start")
                yield call
                _ended(call, guest, instance, invocation)
        finally:
            guest.flush_log()
        if not invocation.process:
            return b""
        output = guest.output()
        try:
            output.decode()
        except UnicodeDecodeError as error:
            raise Stopped(FailureKind.OUTPUT, f"expected UTF-8, got an invalid byte at {error.start}") from None
        return output


def _ended(call: Call, guest: Preview1, instance: Instance | None, invocation: Invocation) -> bool:
    """Finish a call; True when the guest goes on, False when it has exited with success.

    Raises:
        Stopped: it exited with another code, or memory ran out.
        Trapped: it trapped.
    """
    try:
        call.finish()
    except Trapped as trap:
        if guest.exit_code is None and invocation.failure is None and not trap.is_out_of_fuel:
            _refuse_exhausted(instance, invocation, str(trap))
        if guest.exit_code is None:
            raise
    if guest.exit_code:
        _refuse_exhausted(instance, invocation, f"exit code {guest.exit_code}")
        raise Stopped(FailureKind.GUEST_ERROR, f"expected exit code 0, got {guest.exit_code}")
    return guest.exit_code is None


def _refuse_exhausted(instance: Instance | None, invocation: Invocation, end: str) -> None:
    """Call an end in failure MEMORY when the guest's memory had reached its limit.

    The engine tells nobody but the guest that it refused to grow, so this is a judgement: the memory is within an
    eighth of the limit, which is as close as the allocators of C, Go and Rust come before they give up.
    """
    size = instance.memory_bytes() if instance is not None else 0
    limit = invocation.limits.memory_bytes
    if size > limit - limit // 8:
        raise Stopped(FailureKind.MEMORY, f"expected at most {limit} bytes of memory; the guest held {size} ({end})")


def _body_of(item: ImportedFunction) -> tuple[str, Body]:
    """Return parameters and body of what serves an import.

    Raises:
        EngineError: there is no such import, or its type is another.
    """
    body: Body
    results: tuple[str, ...] = ("i32",)
    if (item.module, item.name) == (HOST_MODULE, HOST_FUNCTION):
        parameters, body = _HOST_PARAMETERS, _host_call
    elif item.module == MODULE and item.name in FUNCTIONS:
        parameters, method = FUNCTIONS[item.name]
        body = _at_once(method)
    elif item.module == MODULE and item.name in SPECIAL:
        parameters, body = SPECIAL[item.name], _SPECIAL_BODIES[item.name]
        results = () if item.name == "proc_exit" else results
    else:
        raise EngineError(f"expected an import of {MODULE} or {HOST_MODULE}, got {item.module}.{item.name}")
    if (item.parameters, item.results) != (tuple(_TYPES[letter] for letter in parameters), results):
        raise EngineError(
            f"expected {item.module}.{item.name} with parameters {parameters!r}, got {', '.join(item.parameters)}"
        )
    return parameters, body


def _serve(turn: Turn, parameters: str, body: Body) -> HostFunction:
    """Wrap a body: find the invocation, read the raw arguments, and let no exception out."""
    one = VAL_BYTES - VAL_VALUE_OFFSET
    layout = "".join(f"{VAL_VALUE_OFFSET}x{_VALUES[p]}{one - (4 if p == 'i' else 8)}x" for p in parameters)
    arguments_of = Struct("=" + layout)
    size = arguments_of.size

    def serve(caller: int, args: int, results: int, trap: int, continuation: int) -> None:
        invocation = turn.invocation
        guest: Preview1 = invocation.guest
        try:
            if not hasattr(guest, "memory"):
                guest.memory = GuestMemory(caller, invocation.store)
            body(invocation, guest, arguments_of.unpack(string_at(args, size)), results, continuation)
        except Stopped as stop:
            invocation.end(stop.failure)
            _trap(trap, continuation, str(stop))
        except (OutOfBoundsError, EngineError) as error:
            _trap(trap, continuation, str(error))
        except Exception as error:  # noqa: BLE001 - the guard at this edge: an exception here would crash the worker
            invocation.end(Failure(FailureKind.CRASH, f"a host function failed ({type(error).__name__})"))
            _trap(trap, continuation, "host function")

    return serve


def _trap(trap: int, continuation: int, message: str) -> None:
    raise_trap(trap, message)
    answer_at_once(continuation)


def _at_once(method: Method) -> Body:
    def body(
        invocation: Invocation, guest: Preview1, arguments: tuple[int, ...], results: int, continuation: int
    ) -> None:
        invocation.enter_wasi()
        try:
            answer = method(guest, *arguments)
        except FileRefusal as refusal:
            answer = int(refusal.errno)
        if isinstance(answer, FileAsk):
            _ask_for_file(invocation, answer, results, continuation)
        else:
            memmove(results, _ERRNO[answer], _I32_BYTES)
            invocation.answer_now(continuation)

    return body


def _ask_for_file(invocation: Invocation, ask: FileAsk, results: int, continuation: int) -> None:
    def finish(answer: bytes) -> None:
        memmove(results, _ERRNO[ask.done(answer)], _I32_BYTES)

    invocation.call_host(FILES, ask.function, ask.argument, continuation, finish=finish, fail=_fault(invocation))


def _sched_yield(
    invocation: Invocation, _guest: Preview1, _arguments: tuple[int, ...], results: int, continuation: int
) -> None:
    invocation.enter_wasi()
    memmove(results, _ERRNO[SUCCESS], _I32_BYTES)
    invocation.yield_slice(continuation)


def _poll_oneoff(
    invocation: Invocation, guest: Preview1, arguments: tuple[int, ...], results: int, continuation: int
) -> None:
    invocation.enter_wasi()
    answer = guest.poll(*arguments)
    if isinstance(answer, int):
        memmove(results, _ERRNO[answer], _I32_BYTES)
        invocation.answer_now(continuation)
        return
    _, events_at, _, total_at = arguments

    def awake(_value: bytes) -> None:
        guest.report(answer.events, events_at, total_at)
        memmove(results, _ERRNO[SUCCESS], _I32_BYTES)

    now = invocation.turn.clock.monotonic_ns()
    until = min(now + answer.delay_ns, invocation.deadline_ns)
    invocation.sleep_until(until, continuation, finish=awake, fail=_fault(invocation))


def _proc_exit(
    invocation: Invocation, guest: Preview1, arguments: tuple[int, ...], _results: int, _continuation: int
) -> None:
    invocation.enter_wasi()
    (guest.exit_code,) = arguments
    raise EngineError("exit")  # the trap that ends the guest; its exit code tells it from others


_SPECIAL_BODIES: Final[dict[str, Body]] = {
    "sched_yield": _sched_yield,
    "poll_oneoff": _poll_oneoff,
    "proc_exit": _proc_exit,
}


def _host_call(
    invocation: Invocation, guest: Preview1, arguments: tuple[int, ...], results: int, continuation: int
) -> None:
    op_at, op_length, request_at, request_length, response_at, response_capacity = arguments
    memory = guest.memory
    memory.reach(response_at, response_capacity)

    def respond(answer: bytes) -> None:
        guest.response = answer
        written = answer[:response_capacity]
        memory.reach(response_at, len(written))[response_at : response_at + len(written)] = written
        memmove(results, _I32.pack(0, len(answer)), _I32_BYTES)

    if op_length == 0:
        invocation.enter_wasi()
        respond(guest.response)
        invocation.answer_now(continuation)
        return
    op = bytes(memory.reach(op_at, op_length)[op_at : op_at + min(op_length, _OP_BYTES_MAX + 1)])
    if op in _LOCAL:
        invocation.enter_wasi()
        view = memory.reach(request_at, request_length)
        read = bytes(view[request_at : request_at + min(request_length, LOG_LINE_BYTES_MAX)])
        respond(_LOCAL[op](invocation, read))
        invocation.answer_now(continuation)
        return
    is_small = invocation.enter_host_call(request_length)
    interface, _, function = op.decode("ascii", "replace").partition(".")
    if not is_small or len(op) > _OP_BYTES_MAX or not (interface.isidentifier() and function.isidentifier()):
        respond(_INVALID)
        invocation.answer_now(continuation)
    elif interface == FILES or not invocation.is_granted(interface):  # files are reached through WASI alone
        respond(_DENIED)
        invocation.answer_now(continuation)
    else:
        request = bytes(memory.reach(request_at, request_length)[request_at : request_at + request_length])
        invocation.call_host(interface, function, request, continuation, finish=respond, fail=_fault(invocation))


_INVALID: Final = (
    b'{"error":{"kind":"invalid","message":"expected interface.function and an argument of at most 1 MiB"}}'
)
_DENIED: Final = b'{"error":{"kind":"denied","message":"the template was not granted this interface"}}'


def _log(invocation: Invocation, request: bytes) -> bytes:
    try:
        given = json.loads(request)
        level, message = given["level"], given["message"]
        if level not in _LEVELS or not isinstance(message, str):
            return _LOG_INVALID
    except (ValueError, KeyError, TypeError, RecursionError):
        return _LOG_INVALID
    invocation.log(level, message.encode("utf-8", "replace"))
    return b'{"ok":{}}'


_LEVELS: Final = frozenset({"debug", "info", "warning", "error"})
_LOG_INVALID: Final = (
    b'{"error":{"kind":"invalid","message":"expected {\\"level\\", \\"message\\"} of at most 16384 bytes"}}'
)
_LOCAL: Final[dict[bytes, Callable[[Invocation, bytes], bytes]]] = {
    b"log.log": _log,
    b"context.config": lambda invocation, _request: b'{"ok":%s}' % invocation.config,
    b"context.invocation_id": lambda invocation, _request: b'{"ok":%s}' % json.dumps(invocation.invocation_id).encode(),
    b"context.budget": lambda invocation, _request: b'{"ok":%s}' % invocation.budget_left(),
}


def _fault(invocation: Invocation) -> Callable[[str], None]:
    """End the invocation when its answer could not be put in place: trap slots are read before a guest is suspended."""
    return lambda _message: invocation.end(Failure(FailureKind.CRASH, "a host function failed"))
