"""``wasi:io`` 0.2: waiting is a suspended fiber, output is the invocation's log, standard input is empty.

Other streams lead into and out of files (``wasi2_file_streams``).
"""

from typing import Final

from sandbox import values, wasi2_file_streams
from sandbox.component_guest import HANDLES_MAX, STDERR, STDOUT, Answer, Guest, Import, Interface, Sleep
from sandbox.values import WrongKindError
from sandbox.wasi2_file_streams import BLOCK_BYTES, ERROR

POLLABLE, INPUT_STREAM, OUTPUT_STREAM = 1, 2, 3
STDIN: Final = 0
WRITE_BYTES_MAX: Final = 16_384
ALWAYS_READY: Final = 0

_DONE: Final = values.ok()
_STREAMS: Final = frozenset({STDOUT, STDERR})


def _closed() -> bytes:
    return values.err(values.variant(b"closed"))


def _ready(deadlines: list[int], now_ns: int) -> list[bytes]:
    return [values.u32(index) for index, deadline in enumerate(deadlines) if deadline <= now_ns]


def _pollable(guest: Guest, context: int, address: int) -> int:
    """The host's monotonic time at which a borrowed pollable is ready."""
    return guest.pollables[values.read_handle(address, context, POLLABLE)]


def poll(guest: Guest, context: int, args: int) -> Answer:
    """The indices of what is ready; suspends until the first is."""
    deadlines = [_pollable(guest, context, address) for address in values.read_elements(args, HANDLES_MAX)]
    if not deadlines:
        raise WrongKindError("expected at least one pollable, got none")
    if ready := _ready(deadlines, guest.host_now_ns()):
        return values.elements(ready)
    first = min(deadlines)
    return Sleep(first, lambda: values.elements(_ready(deadlines, max(first, guest.host_now_ns()))))


def block(guest: Guest, context: int, args: int) -> Answer:
    deadline = _pollable(guest, context, args)
    return None if deadline <= guest.host_now_ns() else Sleep(deadline, lambda: None)


def is_ready(guest: Guest, context: int, args: int) -> Answer:
    return values.boolean(_pollable(guest, context, args) <= guest.host_now_ns())


def read(guest: Guest, context: int, args: int) -> Answer:
    stream = values.read_handle(args, context, INPUT_STREAM)
    length = values.read_number(args + values.VALUE_BYTES, values.U64)
    return _closed() if stream == STDIN else wasi2_file_streams.read(guest, context, stream, length)


def skip(guest: Guest, context: int, args: int) -> Answer:
    stream = values.read_handle(args, context, INPUT_STREAM)
    length = values.read_number(args + values.VALUE_BYTES, values.U64)
    return _closed() if stream == STDIN else wasi2_file_streams.skip(guest, stream, length)


def subscribe_input(guest: Guest, context: int, args: int) -> Answer:
    stream = values.read_handle(args, context, INPUT_STREAM)
    if stream != STDIN:
        wasi2_file_streams.require_reading(guest, stream)
    return guest.own(context, ALWAYS_READY, POLLABLE)


def _output(guest: Guest, context: int, args: int) -> int:
    stream = values.read_handle(args, context, OUTPUT_STREAM)
    if stream not in _STREAMS:
        wasi2_file_streams.require_writing(guest, stream)
    return stream


def subscribe_output(guest: Guest, context: int, args: int) -> Answer:
    _output(guest, context, args)
    return guest.own(context, ALWAYS_READY, POLLABLE)


def check_write(guest: Guest, context: int, args: int) -> Answer:
    return values.ok(values.u64(WRITE_BYTES_MAX if _output(guest, context, args) in _STREAMS else BLOCK_BYTES))


def write(guest: Guest, context: int, args: int) -> Answer:
    stream = _output(guest, context, args)
    contents = args + values.VALUE_BYTES
    if stream not in _STREAMS:
        return wasi2_file_streams.write(guest, context, stream, values.read_bytes(contents, BLOCK_BYTES))
    if guest.log_is_full:  # a flood costs nothing more once nothing is kept
        values.require_list(contents, WRITE_BYTES_MAX)
    else:
        guest.write(stream, values.read_bytes(contents, WRITE_BYTES_MAX))
    return _DONE


def write_zeroes(guest: Guest, context: int, args: int) -> Answer:
    stream = _output(guest, context, args)
    length = values.read_number(args + values.VALUE_BYTES, values.U64)
    if length > WRITE_BYTES_MAX:
        raise values.TooLargeError("zeroes", WRITE_BYTES_MAX, length)
    if stream not in _STREAMS:
        return wasi2_file_streams.write(guest, context, stream, bytes(length))
    if not guest.log_is_full:
        guest.write(stream, bytes(length))
    return _DONE


def flush(guest: Guest, context: int, args: int) -> Answer:
    _output(guest, context, args)
    return _DONE


RESOURCES: Final = {"pollable": POLLABLE, "input-stream": INPUT_STREAM, "output-stream": OUTPUT_STREAM, "error": ERROR}

INTERFACES: Final[dict[str, Interface]] = {
    "wasi:io/error": {},
    "wasi:io/poll": {
        "poll": Import(1, True, poll),
        "[method]pollable.block": Import(1, False, block),
        "[method]pollable.ready": Import(1, True, is_ready),
    },
    "wasi:io/streams": {
        "[method]input-stream.read": Import(2, True, read),
        "[method]input-stream.blocking-read": Import(2, True, read),
        "[method]input-stream.skip": Import(2, True, skip),
        "[method]input-stream.blocking-skip": Import(2, True, skip),
        "[method]input-stream.subscribe": Import(1, True, subscribe_input),
        "[method]output-stream.subscribe": Import(1, True, subscribe_output),
        "[method]output-stream.check-write": Import(1, True, check_write),
        "[method]output-stream.write": Import(2, True, write),
        "[method]output-stream.blocking-write-and-flush": Import(2, True, write),
        "[method]output-stream.write-zeroes": Import(2, True, write_zeroes),
        "[method]output-stream.blocking-write-zeroes-and-flush": Import(2, True, write_zeroes),
        "[method]output-stream.flush": Import(1, True, flush),
        "[method]output-stream.blocking-flush": Import(1, True, flush),
    },
}
