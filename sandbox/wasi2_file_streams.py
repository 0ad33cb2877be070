"""Streams over files, for ``wasi:io`` 0.2, and the error codes of ``wasi:filesystem``."""

from typing import Final

from sandbox import values
from sandbox.component_files import ComponentFiles, Reading, StreamError, Writing
from sandbox.component_guest import Answer, Ask, Guest
from sandbox.file_protocol import INTERFACE, Errno, FileRefusal
from sandbox.guest_files import write_record

ERROR: Final = 4  # the resource type of what went wrong with a stream
BLOCK_BYTES: Final = 16_384
"""What one call carries: every byte of a ``list<u8>`` takes 32 in the engine's memory."""
OFFSET_MAX: Final = (1 << 63) - 1

_CODES: Final[dict[Errno, bytes]] = {
    Errno.TOO_BIG: b"message-size",
    Errno.ACCES: b"access",
    Errno.AGAIN: b"would-block",
    Errno.BADF: b"bad-descriptor",
    Errno.BUSY: b"busy",
    Errno.DQUOT: b"quota",
    Errno.EXIST: b"exist",
    Errno.FBIG: b"file-too-large",
    Errno.ILSEQ: b"illegal-byte-sequence",
    Errno.INVAL: b"invalid",
    Errno.IO: b"io",
    Errno.ISDIR: b"is-directory",
    Errno.LOOP: b"loop",
    Errno.MFILE: b"quota",  # 0.2 has no name for too many open files
    Errno.NAMETOOLONG: b"name-too-long",
    Errno.NOENT: b"no-entry",
    Errno.NOSPC: b"insufficient-space",
    Errno.NOSYS: b"unsupported",
    Errno.NOTDIR: b"not-directory",
    Errno.NOTEMPTY: b"not-empty",
    Errno.NOTSUP: b"unsupported",
    Errno.OVERFLOW: b"overflow",
    Errno.PERM: b"not-permitted",
    Errno.ROFS: b"read-only",
    Errno.TXTBSY: b"text-file-busy",
    Errno.XDEV: b"cross-device",
}


def error_code(errno: Errno) -> bytes:
    """Return the value of ``wasi:filesystem``'s ``error-code``."""
    return values.enum(_CODES.get(errno, b"io"))


def refused(errno: Errno) -> bytes:
    """Return the result of a method of ``wasi:filesystem`` that failed."""
    return values.err(error_code(errno))


def files_of(guest: Guest) -> ComponentFiles:
    """Return the files of an invocation that holds a handle which it got from them.

    Raises:
        WrongKindError: it was granted none, so there is no such handle.
    """
    if guest.files is None:
        raise values.WrongKindError("expected a handle that exists, got another")
    return guest.files


def read(guest: Guest, context: int, stream: int, length: int) -> Answer:
    """Read on in a file; at its end the stream is closed."""
    files = files_of(guest)
    reading, length = files.find(stream, Reading), min(length, BLOCK_BYTES)
    offset = reading.position

    def told(data: bytes) -> bytes:
        reading.position += len(data)
        return values.ok(values.byte_list(data)) if data or not length else _closed()

    at_once = b"" if not length else files.read_at_once(reading.file, offset, length)
    if at_once is not None:
        return told(at_once)
    record = files.read_record(reading.file, offset, length)

    def answered(answer: bytes) -> bytes:
        try:
            return told(files.received(reading.file, offset, record, answer, length))
        except FileRefusal as refusal:
            return _failed(guest, context, refusal.errno)

    return Ask(INTERFACE, "read", files.request(record), answered)


def skip(guest: Guest, stream: int, length: int) -> Answer:
    """Move on without reading; whether anything is there shows at the next read."""
    reading = files_of(guest).find(stream, Reading)
    reading.position = min(reading.position + length, OFFSET_MAX)
    return values.ok(values.u64(length))


def require_reading(guest: Guest, stream: int) -> None:
    """Raise `WrongKindError` unless this input stream leads out of a file."""
    files_of(guest).find(stream, Reading)


def require_writing(guest: Guest, stream: int) -> None:
    """Raise `WrongKindError` unless this output stream leads into a file."""
    files_of(guest).find(stream, Writing)


def write(guest: Guest, context: int, stream: int, data: bytes) -> Answer:
    """Write all of ``data``; where less fits, the stream has failed."""
    files = files_of(guest)
    writing = files.find(stream, Writing)

    def answered(answer: bytes) -> bytes:
        try:
            count, writing.position = files.written(answer, len(data))
        except FileRefusal as refusal:
            return _failed(guest, context, refusal.errno)
        return values.ok() if count == len(data) else _failed(guest, context, Errno.NOSPC)

    record = write_record(writing.file, writing.position, data, append=writing.appends)
    return Ask(INTERFACE, "write", files.request(record, changes=True), answered)


def _failed(guest: Guest, context: int, errno: Errno) -> bytes:
    handle = guest.own(context, files_of(guest).keep(StreamError(errno)), ERROR)
    return values.err(values.variant(b"last-operation-failed", handle))


def _closed() -> bytes:
    return values.err(values.variant(b"closed"))
