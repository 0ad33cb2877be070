"""What travels between a worker and its supervisor: frames of a 16-byte header and a payload, many to a write.

Each side reads the other's frames as hostile: a length over its cap, an unknown operation or a payload that does not
parse raises ``FrameError``, after which nothing else from that peer is read. Integers are little-endian.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module gives its exception a small letter
from typing import Final

from sandbox.limits import HOST_ANSWER_BYTES_MAX, HOST_CALL_BYTES_MAX, TRANSFER_BYTES_CEILING, SandboxLimits
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.process import LEVELS, Level
from sandbox.request import Abi, InvocationRequest

MESSAGE_BYTES_MAX: Final = 4_096
_SMALL: Final = 1 << 16


class Op(IntEnum):
    """Operations. Below 32: to the worker; the header's number names the code, source or invocation that is meant."""

    LOAD = 1
    DROP = 2
    START = 3
    ANSWER = 4
    CANCEL = 5
    SOURCE = 6
    FORGET_SOURCE = 7
    READY = 32
    LOADED = 33
    REFUSED = 34
    DONE = 35
    CALL = 36
    FAILED = 37
    LOG = 38


# A log line costs at least 16 bytes of its limit, and 14 bytes here.
_DONE_MAX: Final = 2 * TRANSFER_BYTES_CEILING + 4 * TRANSFER_BYTES_CEILING + _SMALL
TO_WORKER: Final[dict[int, int]] = {
    Op.LOAD: _SMALL,
    Op.DROP: 0,
    Op.START: 3 * TRANSFER_BYTES_CEILING,
    Op.ANSWER: HOST_ANSWER_BYTES_MAX + 8,
    Op.CANCEL: 0,
    Op.SOURCE: TRANSFER_BYTES_CEILING,
    Op.FORGET_SOURCE: 0,
}
"""Operations a worker reads, and the largest payload of each."""
TO_SUPERVISOR: Final[dict[int, int]] = {
    Op.READY: _SMALL,
    Op.LOADED: 0,
    Op.REFUSED: MESSAGE_BYTES_MAX,
    Op.FAILED: MESSAGE_BYTES_MAX,
    Op.DONE: _DONE_MAX,
    Op.CALL: HOST_CALL_BYTES_MAX + _SMALL,
    Op.LOG: 4 * _SMALL,
}
"""Operations a supervisor reads, and the largest payload of each."""

_HEADER = Struct("<IB3xQ")
HEADER_BYTES: Final = _HEADER.size


class FrameError(Exception):
    """The peer broke the protocol."""


def frame(op: Op, number: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEADER.pack(len(payload), op, number) + payload


class FrameReader:
    """Cuts a byte stream into frames ``(op, number, payload)``."""

    def __init__(self, allowed: dict[int, int]) -> None:
        self._allowed = allowed
        self._rest = bytearray()
        self._wanted = HEADER_BYTES

    def feed(self, data: bytes) -> Iterable[tuple[int, int, bytes]]:
        """Return the frames that ``data`` completes, to be gone through once, before the next data.

        Raises:
            FrameError: an unknown operation or a payload over its cap; after the frames that came before it.
        """
        if not self._rest and len(data) >= HEADER_BYTES:
            length, op, number = _HEADER.unpack_from(data)
            if len(data) == HEADER_BYTES + length and length <= self._allowed.get(op, -1):
                return ((op, number, data[HEADER_BYTES:]),)  # the usual case: one whole frame
        return self._cut(data)

    def _cut(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position, size, allowed = 0, len(data), self._allowed
        while size - position >= HEADER_BYTES:
            length, op, number = _HEADER.unpack_from(data, position)
            if length > allowed.get(op, -1):
                raise FrameError(
                    f"expected a known operation and at most its length, got operation {op}, {length} bytes"
                )
            end = position + HEADER_BYTES + length
            if end > size:
                self._wanted = HEADER_BYTES + length
                break
            yield op, number, data[position + HEADER_BYTES : end]
            position = end
        else:
            self._wanted = HEADER_BYTES
        if position < size:
            self._rest += data[position:] if position else data


# --- READY and LOAD

_ABIS: Final[tuple[Abi, ...]] = ("component", "image", "command")


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker says first: the level of isolation it reached and the fingerprint of its engine."""

    level: Level
    fingerprint: str


def pack_ready(ready: Ready) -> bytes:
    """Return the payload of READY."""
    return f"{ready.level} {ready.fingerprint}".encode()


def read_ready(payload: bytes) -> Ready:
    """Read the payload of READY.

    Raises:
        FrameError: it does not parse.
    """
    level, _, digest = payload.decode("ascii", "replace").partition(" ")
    for known in LEVELS:
        if level == known:
            return Ready(known, digest)
    raise FrameError(f"expected a level of isolation, got {level[:40]!r}")


def pack_load(number: int, abi: Abi) -> bytes:
    """Return the frame that goes with the descriptor of compiled code."""
    return frame(Op.LOAD, number, abi.encode())


def read_load(payload: bytes) -> Abi:
    """Read the payload of LOAD.

    Raises:
        FrameError: an unknown ABI.
    """
    for known in _ABIS:
        if payload == known.encode():
            return known
    raise FrameError(f"expected an ABI, got {payload[:40]!r}")


# --- START

_LIMITS = Struct("<QIQIIIIIIIII")
_START = Struct(
    "<IIQ??IIHHH"
)  # code, source, deadline, process, stream logs; lengths: input, config, granted, id, trace
_NO_SOURCE: Final = 0


@dataclass(slots=True)  # never changed; not frozen because that triples what making one costs
class Start:
    """An invocation as the worker reads it. ``source`` is the number of a source sent before, 0 for none."""

    code: int
    source: int
    deadline_ns: int
    process: bool
    limits: SandboxLimits
    input: bytes
    config: bytes
    granted: frozenset[str]
    invocation_id: str
    trace_context: str
    stream_logs: bool


_PACKED_MAX: Final = 256
_packed: dict[int, tuple[SandboxLimits, bytes]] = {}


def _pack_limits(limits: SandboxLimits) -> bytes:
    """Pack limits, remembered by the object: a template's are the same one every time, and hashing them costs more."""
    known = _packed.get(id(limits))
    if known is not None and known[0] is limits:
        return known[1]
    raw = _LIMITS.pack(
        limits.fuel,
        limits.wall_ms,
        limits.memory_bytes,
        limits.input_bytes,
        limits.output_bytes,
        limits.log_bytes,
        limits.host_calls,
        limits.wasi_calls,
        limits.memories,
        limits.tables,
        limits.table_elements,
        limits.instances,
    )
    if len(_packed) >= _PACKED_MAX:
        _packed.clear()
    _packed[id(limits)] = limits, raw  # holds the object, so that its id stays its own
    return raw


@lru_cache(maxsize=256)
def _unpack_limits(raw: bytes) -> SandboxLimits:
    fuel, wall_ms, memory, input_, output, log, host, wasi, memories, tables, elements, instances = _LIMITS.unpack(raw)
    return SandboxLimits(
        fuel=fuel,
        wall_ms=wall_ms,
        memory_bytes=memory,
        input_bytes=input_,
        output_bytes=output,
        log_bytes=log,
        host_calls=host,
        wasi_calls=wasi,
        memories=memories,
        tables=tables,
        table_elements=elements,
        instances=instances,
    )


@lru_cache(maxsize=1_024)
def _pack_granted(granted: frozenset[str]) -> bytes:
    return "\n".join(sorted(granted)).encode()


@lru_cache(maxsize=1_024)
def _unpack_granted(raw: bytes) -> frozenset[str]:
    return frozenset(raw.decode().split("\n")) if raw else frozenset()


def pack_start(number: int, code: int, source: int, deadline_ns: int, request: InvocationRequest) -> bytes:
    """Return the frame that starts an invocation.

    Raises:
        ValueError: a field of the request is longer than the frame can say.
    """
    granted, data, config = _pack_granted(request.granted), request.input, request.config
    identity, trace = request.invocation_id.encode(), request.trace_context.encode()
    lengths = len(data), len(config), len(granted), len(identity), len(trace)
    if lengths[0] > TRANSFER_BYTES_CEILING or lengths[1] > TRANSFER_BYTES_CEILING or max(lengths[2:]) >= _SMALL:
        raise ValueError(f"expected a request that fits a frame, got lengths {lengths}")
    fixed = _START.pack(code, source, deadline_ns, request.process, request.stream_logs, *lengths)
    header = _HEADER.pack(len(fixed) + _LIMITS.size + sum(lengths), Op.START, number)
    return b"".join((header, fixed, _pack_limits(request.limits), data, config, granted, identity, trace))


def read_start(payload: bytes) -> Start:
    """Read the payload of START.

    Raises:
        FrameError: it does not parse.
    """
    try:
        code, source, deadline, process, stream_logs, first, second, third, fourth, fifth = _START.unpack_from(payload)
        input_at = _START.size + _LIMITS.size
        config_at = input_at + first
        granted_at = config_at + second
        identity_at = granted_at + third
        trace_at = identity_at + fourth
        if trace_at + fifth != len(payload):
            raise FrameError(f"expected {trace_at + fifth} bytes of START, got {len(payload)}")
        return Start(
            code,
            source,
            deadline,
            process,
            _unpack_limits(payload[_START.size : input_at]),
            payload[input_at:config_at],
            payload[config_at:granted_at],
            _unpack_granted(payload[granted_at:identity_at]),
            payload[identity_at:trace_at].decode(),
            payload[trace_at:].decode(),
            stream_logs,
        )
    except (StructError, ValueError) as error:
        raise FrameError(f"expected a START, got {error}") from error


# --- CALL and ANSWER

_CALL = Struct("<QBB")  # fuel used so far; lengths of the names
_CHARGE = Struct("<Q")
_NAME_BYTES_MAX: Final = 64


def pack_call(number: int, interface: str, function: str, argument: bytes, *, fuel_used: int) -> bytes:
    """Return the frame that carries a host call out. Names are ASCII and at most 64 bytes."""
    names = interface.encode("ascii"), function.encode("ascii")
    payload = b"".join((_CALL.pack(fuel_used, len(names[0]), len(names[1])), *names, argument))
    return _HEADER.pack(len(payload), Op.CALL, number) + payload


def read_call(payload: bytes) -> tuple[int, str, str, bytes]:
    """Read the payload of CALL: fuel used so far, interface, function, argument.

    Raises:
        FrameError: it does not parse.
    """
    try:
        fuel_used, first, second = _CALL.unpack_from(payload)
        middle = _CALL.size + first
        end = middle + second
        if not 0 < first <= _NAME_BYTES_MAX or not 0 < second <= _NAME_BYTES_MAX or end > len(payload):
            raise FrameError(f"expected two names of 1 to {_NAME_BYTES_MAX} bytes, got {first} and {second}")
        interface, function = payload[_CALL.size : middle].decode("ascii"), payload[middle:end].decode("ascii")
    except (StructError, ValueError) as error:
        raise FrameError(f"expected a CALL, got {error}") from error
    if len(payload) - end > HOST_CALL_BYTES_MAX:
        raise FrameError(f"expected an argument of at most {HOST_CALL_BYTES_MAX} bytes, got {len(payload) - end}")
    return fuel_used, interface, function, payload[end:]


def pack_answer(number: int, answer: bytes, *, fuel: int) -> bytes:
    """Return the frame that answers a host call; the guest loses ``fuel``, which others burned for it."""
    return _HEADER.pack(_CHARGE.size + len(answer), Op.ANSWER, number) + _CHARGE.pack(fuel) + answer


def read_answer(payload: bytes) -> tuple[bytes, int]:
    """Read the payload of ANSWER: the answer, and the fuel to be taken.

    Raises:
        FrameError: it does not parse.
    """
    if len(payload) < _CHARGE.size:
        raise FrameError(f"expected at least {_CHARGE.size} bytes of ANSWER, got {len(payload)}")
    (fuel,) = _CHARGE.unpack_from(payload)
    return payload[_CHARGE.size :], fuel


# --- DONE

_KINDS: Final = (None, *FailureKind)
_KIND_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}
_DONE = Struct("<B?QQQIIIIII")  # kind, logs cut, fuel, wall, guest, host calls, wasi calls, log, input, body, lines
_LINE = Struct("<QBI")  # at, length of level, length of message


def pack_done(
    number: int,
    output: bytes | None,
    failure: Failure | None,
    usage: Usage,
    logs: list[LogLine],
    *,
    logs_cut: bool,
) -> bytes:
    """Return the frame that reports an end."""
    if failure is None:
        kind, body = 0, output or b""
    else:
        kind, body = _KIND_NUMBERS[failure.kind], failure.message.encode("utf-8", "replace")[:MESSAGE_BYTES_MAX]
    fixed = _DONE.pack(
        kind,
        logs_cut,
        usage.fuel,
        usage.wall_us,
        usage.guest_us,
        usage.host_calls,
        usage.wasi_calls,
        usage.log_bytes,
        usage.input_bytes,
        len(body),
        len(logs),
    )
    if not logs:
        return _HEADER.pack(len(fixed) + len(body), Op.DONE, number) + fixed + body
    parts = [fixed, body]
    for line in logs:
        level, message = line.level.encode()[:255], line.message.encode("utf-8", "replace")
        parts += (_LINE.pack(line.at_us, len(level), len(message)), level, message)
    payload = b"".join(parts)
    return _HEADER.pack(len(payload), Op.DONE, number) + payload


def read_done(payload: bytes, limits: SandboxLimits) -> Outcome:
    """Read the payload of DONE for an invocation with these limits.

    Raises:
        FrameError: it does not parse, or says more than the limits allow.
    """
    try:
        kind, logs_cut, fuel, wall, guest, host, wasi, log, input_, length, lines = _DONE.unpack_from(payload)
        end = _DONE.size + length
        body = payload[_DONE.size : end]
        if end > len(payload) or (not lines and end != len(payload)):
            raise FrameError(f"expected {end} bytes of DONE, got {len(payload)}")
        logs = _read_logs(payload, end, lines, limits) if lines else ()
        if kind == 0:
            if length > limits.output_bytes:
                raise FrameError(f"expected an output of at most {limits.output_bytes} bytes, got {length}")
            return Outcome(body, None, Usage(fuel, wall, guest, host, wasi, log, input_, length), logs, logs_cut)
        if kind >= len(_KINDS) or length > MESSAGE_BYTES_MAX:
            raise FrameError(f"expected a known failure, got {kind} with {length} bytes")
        failure = Failure(FailureKind(_KINDS[kind]), body.decode("utf-8", "replace"))
        return Outcome(None, failure, Usage(fuel, wall, guest, host, wasi, log, input_, 0), logs, logs_cut)
    except (StructError, ValueError) as error:
        raise FrameError(f"expected a DONE, got {error}") from error


def pack_log(number: int, line: LogLine) -> bytes:
    """Return the frame that tells one log line of an invocation that still runs; DONE repeats it."""
    level, message = line.level.encode()[:255], line.message.encode("utf-8", "replace")
    payload = _LINE.pack(line.at_us, len(level), len(message)) + level + message
    return _HEADER.pack(len(payload), Op.LOG, number) + payload


def read_log(payload: bytes) -> LogLine:
    """Read the payload of LOG.

    Raises:
        FrameError: it does not parse.
    """
    try:
        at_us, level, message = _LINE.unpack_from(payload)
        middle = _LINE.size + level
        if middle + message != len(payload):
            raise FrameError(f"expected {middle + message} bytes of LOG, got {len(payload)}")
        return LogLine(payload[_LINE.size : middle].decode(), payload[middle:].decode(), at_us)
    except (StructError, ValueError) as error:
        raise FrameError(f"expected a LOG, got {error}") from error


LINE_COST: Final = 16
"""Bytes of the log limit that a line costs besides its text, so that empty lines are not free."""
_ESCAPE_GROWTH: Final = 6  # one byte of a guest becomes at most six when it is escaped


def _read_logs(payload: bytes, position: int, lines: int, limits: SandboxLimits) -> tuple[LogLine, ...]:
    if lines * LINE_COST > limits.log_bytes or len(payload) - position > _ESCAPE_GROWTH * limits.log_bytes + _SMALL:
        raise FrameError(f"expected log lines within {limits.log_bytes} bytes, got {lines} lines")
    logs = []
    for _ in range(lines):
        at_us, level, message = _LINE.unpack_from(payload, position)
        middle = position + _LINE.size + level
        position = middle + message
        if position > len(payload):
            raise FrameError("expected whole log lines, got less")
        logs.append(LogLine(payload[middle - level : middle].decode(), payload[middle:position].decode(), at_us))
    if position != len(payload):
        raise FrameError(f"expected {position} bytes of DONE, got {len(payload)}")
    return tuple(logs)
