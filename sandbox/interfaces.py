"""Our own interfaces, ``agentfactory:runtime`` (see ``wit/runtime.wit``), as a component imports them.

``log`` and ``context`` are answered here. ``kv``, ``http``, ``llm`` and ``agents`` are host calls: JSON to the node's
broker, which enforces the grant. Whatever was not granted answers with error kind ``denied`` before anything leaves the
worker.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from sandbox import values
from sandbox.component_guest import Answer, Ask, Guest, Import, Interface
from sandbox.fibers import LOG_LINE_BYTES_MAX
from sandbox.limits import HOST_CALL_BYTES_MAX
from sandbox.values import VALUE_BYTES

PACKAGE: Final = "agentfactory:runtime"
VERSION: Final = "0.1.0"
GRANTED_ALWAYS: Final = frozenset({"log", "context", "module-loader"})

_LEVELS: Final = frozenset({b"debug", b"info", b"warning", b"error"})
_KINDS: Final = frozenset({"denied", "conflict", "quota", "not_found", "invalid", "failed", "budget"})
_U64_MAX: Final = (1 << 64) - 1

Json = dict[str, Any]


Result = Callable[[Any], bytes | None]
"""Makes the payload of ``ok`` from the node's answer; None where ``ok`` has none."""


class _BadAnswerError(Exception):
    """The node's answer has not the shape that the interface says."""


def name_of(interface: str) -> str:
    """``kv`` → ``agentfactory:runtime/kv@0.1.0``."""
    return f"{PACKAGE}/{interface}@{VERSION}"


# --- log and context


def log(guest: Guest, _context: int, args: int) -> Answer:
    level = values.read_enum(args)
    if level not in _LEVELS:
        raise values.WrongKindError("expected a level of the interface, got another")
    if (length := values.string_length(args + VALUE_BYTES)) > LOG_LINE_BYTES_MAX:
        guest.waste(length - LOG_LINE_BYTES_MAX)
    if not guest.log_is_full:
        guest.invocation.log(level.decode(), values.read_string_start(args + VALUE_BYTES, LOG_LINE_BYTES_MAX + 1))
    return None


def config(guest: Guest, _context: int, _args: int) -> Answer:
    return values.string(guest.invocation.config)


def invocation_id(guest: Guest, _context: int, _args: int) -> Answer:
    return values.string(guest.invocation.invocation_id.encode())


def budget(guest: Guest, _context: int, _args: int) -> Answer:
    return values.string(guest.invocation.budget_left())


def no_module(guest: Guest, _context: int, args: int) -> Answer:
    """There are no modules to be had while an agent runs; the length is all that is read of what was asked for."""
    if (length := values.string_length(args)) > LOG_LINE_BYTES_MAX:
        guest.waste(length)
    return values.err(values.string(b"no module can be loaded while an agent runs: there are no files"))


# --- host calls


def _error(kind: str, message: str) -> bytes:
    utf8 = message.encode("utf-8", "replace")
    return values.err(
        values.record(
            (b"kind", values.enum(kind.replace("_", "-").encode())),
            (b"message", values.string(utf8)),
        )
    )


def _ask(
    guest: Guest,
    interface: str,
    function: str,
    *,
    bytes_in: int,
    argument: Callable[[], Json],
    result: Result,
) -> Answer:
    """Count, check the grant and the size, and only then convert the arguments."""
    small_enough = guest.invocation.enter_host_call(bytes_in)
    if not small_enough:
        guest.waste(bytes_in)
    if not guest.invocation.is_granted(interface):
        return _error("denied", f"expected a grant for {interface}, got none")
    if small_enough:
        encoded = json.dumps(argument(), ensure_ascii=False, separators=(",", ":")).encode()
        if len(encoded) <= HOST_CALL_BYTES_MAX:
            return Ask(interface, function, encoded, lambda answer: _answered(answer, result))
    return _error("invalid", f"expected at most {HOST_CALL_BYTES_MAX} bytes in one call")


def _answered(answer: bytes, result: Result) -> bytes:
    """The node's JSON as the component's ``result``. An answer out of shape is the node's fault, told as ``failed``."""
    try:
        message = json.loads(answer)
        if "error" in message:
            error = message["error"]
            kind = error["kind"] if error["kind"] in _KINDS else "failed"
            return _error(kind, str(error["message"]))
        return values.ok(result(message["ok"]))
    except (ValueError, KeyError, TypeError, UnicodeError, _BadAnswerError):
        return _error("failed", "the node gave an answer that this interface does not know")


def _text(address: int) -> str:
    return values.read_string(address, HOST_CALL_BYTES_MAX).decode()


def _optional_number(address: int) -> int | None:
    inner = values.read_option(address)
    return values.read_number(inner, values.U64) if inner else None


def _string(value: object) -> bytes:
    if not isinstance(value, str):
        raise _BadAnswerError
    return values.string(value.encode())


def _version(value: object) -> bytes:
    if not isinstance(value, int) or not 0 <= value <= _U64_MAX:
        raise _BadAnswerError
    return values.u64(value)


def _entry(value: Json | None) -> bytes:
    if value is None:
        return values.option(None)
    return values.option(values.record((b"value", _string(value["value"])), (b"version", _version(value["version"]))))


def _page(value: Json) -> bytes:
    cursor = value.get("cursor")
    return values.record(
        (b"keys", values.elements([_string(key) for key in value["keys"]])),
        (b"cursor", values.option(None if cursor is None else _string(cursor))),
    )


def kv_get(guest: Guest, _context: int, args: int) -> Answer:
    return _ask(
        guest, "kv", "get",
        bytes_in=values.string_length(args), argument=lambda: {"key": _text(args)}, result=_entry,
    )  # fmt: skip


def _with_expected(argument: Json, address: int) -> Json:
    expected = _optional_number(address)
    return argument if expected is None else argument | {"expected": expected}


def kv_put(guest: Guest, _context: int, args: int) -> Answer:
    value, expected = args + VALUE_BYTES, args + 2 * VALUE_BYTES
    return _ask(
        guest, "kv", "put",
        bytes_in=values.string_length(args) + values.string_length(value),
        argument=lambda: _with_expected({"key": _text(args), "value": _text(value)}, expected),
        result=lambda answer: _version(answer["version"]),
    )  # fmt: skip


def kv_put_for(guest: Guest, _context: int, args: int) -> Answer:
    value, expected = args + VALUE_BYTES, args + 2 * VALUE_BYTES
    ttl_s = values.read_number(args + 3 * VALUE_BYTES, values.U64)
    return _ask(
        guest, "kv", "put",
        bytes_in=values.string_length(args) + values.string_length(value),
        argument=lambda: _with_expected({"key": _text(args), "value": _text(value), "ttl_s": ttl_s}, expected),
        result=lambda answer: _version(answer["version"]),
    )  # fmt: skip


def kv_delete(guest: Guest, _context: int, args: int) -> Answer:
    return _ask(
        guest, "kv", "delete",
        bytes_in=values.string_length(args),
        argument=lambda: _with_expected({"key": _text(args)}, args + VALUE_BYTES),
        result=lambda _answer: None,
    )  # fmt: skip


def kv_list(guest: Guest, _context: int, args: int) -> Answer:
    cursor = values.read_option(args + VALUE_BYTES)
    return _ask(
        guest, "kv", "list",
        bytes_in=values.string_length(args) + (values.string_length(cursor) if cursor else 0),
        argument=lambda: {
            "prefix": _text(args),
            "cursor": _text(cursor) if cursor else None,
            "limit": values.read_number(args + 2 * VALUE_BYTES, values.U32),
        },
        result=_page,
    )  # fmt: skip


def _json(value: object) -> bytes:
    """Return an answer that the guest gets as the text of JSON: text is copied, structure is not."""
    if not isinstance(value, dict):
        raise _BadAnswerError
    return values.string(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _llm_request(guest: Guest, function: str, args: int, result: Result) -> Answer:
    request = args + VALUE_BYTES
    return _ask(
        guest, "llm", function,
        bytes_in=values.string_length(args) + values.string_length(request),
        argument=lambda: {"binding": _text(args), "request": _text(request)},
        result=result,
    )  # fmt: skip


def llm_complete(guest: Guest, _context: int, args: int) -> Answer:
    return _llm_request(guest, "complete", args, _json)


def llm_open(guest: Guest, _context: int, args: int) -> Answer:
    return _llm_request(guest, "open", args, _version)


def llm_next(guest: Guest, _context: int, args: int) -> Answer:
    return _ask(
        guest, "llm", "next",
        bytes_in=0,
        argument=lambda: {"number": values.read_number(args, values.U64)},
        result=lambda piece: values.option(None if piece is None else _json(piece)),
    )  # fmt: skip


def llm_close(guest: Guest, _context: int, args: int) -> Answer:
    return _ask(
        guest, "llm", "close",
        bytes_in=0,
        argument=lambda: {"number": values.read_number(args, values.U64)},
        result=lambda _answer: None,
    )  # fmt: skip


def http_fetch(guest: Guest, _context: int, args: int) -> Answer:
    request = args + VALUE_BYTES
    return _ask(
        guest, "http", "fetch",
        bytes_in=values.string_length(args) + values.string_length(request),
        argument=lambda: {"binding": _text(args), "request": _text(request)},
        result=_json,
    )  # fmt: skip


def agents_invoke(guest: Guest, _context: int, args: int) -> Answer:
    text = args + VALUE_BYTES
    return _ask(
        guest, "agents", "invoke",
        bytes_in=values.string_length(args) + values.string_length(text),
        argument=lambda: {"template": _text(args), "input": _text(text)},
        result=lambda answer: _string(answer["output"]),
    )  # fmt: skip


INTERFACES: Final[dict[str, Interface]] = {
    name_of("log"): {"log": Import(2, False, log)},
    name_of("context"): {
        "config": Import(0, True, config),
        "invocation-id": Import(0, True, invocation_id),
        "budget": Import(0, True, budget),
    },
    name_of("module-loader"): {"resolve": Import(2, True, no_module), "load": Import(1, True, no_module)},
    name_of("kv"): {
        "get": Import(1, True, kv_get, is_host_call=True),
        "put": Import(3, True, kv_put, is_host_call=True),
        "put-for": Import(4, True, kv_put_for, is_host_call=True),
        "delete": Import(2, True, kv_delete, is_host_call=True),
        "list": Import(3, True, kv_list, is_host_call=True),
    },
    name_of("llm"): {
        "complete": Import(2, True, llm_complete, is_host_call=True),
        "open": Import(2, True, llm_open, is_host_call=True),
        "next": Import(1, True, llm_next, is_host_call=True),
        "close": Import(1, True, llm_close, is_host_call=True),
    },
    name_of("http"): {"fetch": Import(2, True, http_fetch, is_host_call=True)},
    name_of("agents"): {"invoke": Import(2, True, agents_invoke, is_host_call=True)},
}
"""By exact name: these interfaces are ours, so no other version exists."""
