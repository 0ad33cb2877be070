"""``wasi:filesystem`` 0.2: the directories that were granted, over the handles of the node.

Without a grant there is no directory, and so no descriptor whose methods could be called. Lengths are checked on the
raw values before anything is converted, and every method is one host call at most.
"""

from collections.abc import Callable
from typing import Final

from sandbox import values
from sandbox.component_files import Listing, OpenDescriptor, Reading, StreamError, Writing
from sandbox.component_guest import Answer, Ask, Guest, Import, Interface
from sandbox.file_protocol import (
    AT,
    INTERFACE,
    LIST,
    OPEN,
    PATH_BYTES_MAX,
    RENAME,
    RESIZE,
    TIME_KEEP,
    TIME_NOW,
    TIME_SET,
    TIMES,
    Errno,
    FileRefusal,
    Kind,
    Open,
    Stat,
)
from sandbox.guest_files import File, done, write_record
from sandbox.values import VALUE_BYTES
from sandbox.wasi2_file_streams import BLOCK_BYTES, ERROR, OFFSET_MAX, error_code, files_of, refused
from sandbox.wasi2_io import INPUT_STREAM, OUTPUT_STREAM

DESCRIPTOR, DIRECTORY_STREAM = 26, 27
_NANOSECONDS: Final = 1_000_000_000
_FLAGS_MAX: Final = 8
_KINDS: Final = {
    Kind.UNKNOWN: b"unknown",
    Kind.DIRECTORY: b"directory",
    Kind.FILE: b"regular-file",
    Kind.LINK: b"symbolic-link",
}
_OPEN_FLAGS: Final = {
    b"create": Open.CREATE,
    b"directory": Open.DIRECTORY,
    b"exclusive": Open.EXCLUSIVE,
    b"truncate": Open.TRUNCATE,
}
_ok = values.ok


def _descriptor(guest: Guest, context: int, address: int) -> File:
    representation = values.read_handle(address, context, DESCRIPTOR)
    return files_of(guest).find(representation, OpenDescriptor).file


def _ask(
    guest: Guest, function: str, record: bytes, result: Callable[[bytes], bytes], *, changes: bool = False
) -> Answer:
    def answered(answer: bytes) -> bytes:
        try:
            return result(answer)
        except FileRefusal as refusal:
            return refused(refusal.errno)

    return Ask(INTERFACE, function, files_of(guest).request(record, changes=changes), answered)


def _do(guest: Guest, function: str, record: bytes, *, changes: bool = False) -> Answer:
    """Ask for something that has no result."""

    def result(answer: bytes) -> bytes:
        done(answer)
        return _ok()

    return _ask(guest, function, record, result, changes=changes)


def _path(guest: Guest, address: int) -> bytes:
    """A path that is not empty, which to the node would mean the handle itself.

    Raises:
        FileRefusal: it is empty or too long.
    """
    length = values.string_length(address)
    if length > PATH_BYTES_MAX:
        guest.waste(length)
        raise FileRefusal(Errno.NAMETOOLONG)
    if not length:
        raise FileRefusal(Errno.NOENT)
    return values.read_string(address, PATH_BYTES_MAX)


def _guarded(function: Callable[[Guest, int, int], Answer]) -> Callable[[Guest, int, int], Answer]:
    """Make a refusal before anything is asked the method's result."""

    def guarded(guest: Guest, context: int, args: int) -> Answer:
        try:
            return function(guest, context, args)
        except FileRefusal as refusal:
            return refused(refusal.errno)

    return guarded


# --- directories that are open from the start


def directories(guest: Guest, context: int, _args: int) -> Answer:
    files = guest.files
    if files is None:
        return values.elements([])

    def listed(mounts: tuple[File, ...]) -> bytes:
        return values.elements(
            [
                values.pair(
                    guest.own(context, files.keep_another(OpenDescriptor(file), file), DESCRIPTOR),
                    values.string(file.mount or b""),
                )
                for file in mounts
            ]
        )

    if files.mounts is not None:
        return listed(files.mounts)

    def mounted(answer: bytes) -> bytes:
        try:
            return listed(files.mounted(answer))
        except FileRefusal:
            return values.elements([])

    return Ask(INTERFACE, "mounts", files.request(b""), mounted)


# --- streams


def read_via_stream(guest: Guest, context: int, args: int) -> Answer:
    file, offset = _descriptor(guest, context, args), values.read_number(args + VALUE_BYTES, values.U64)
    if file.kind is not Kind.FILE:
        return refused(Errno.ISDIR)
    if not file.readable:
        return refused(Errno.BADF)
    return _ok(guest.own(context, files_of(guest).keep_another(Reading(file, offset), file), INPUT_STREAM))


def write_via_stream(guest: Guest, context: int, args: int) -> Answer:
    file, offset = _descriptor(guest, context, args), values.read_number(args + VALUE_BYTES, values.U64)
    return _writing(guest, context, Writing(file, offset, appends=False))


def append_via_stream(guest: Guest, context: int, args: int) -> Answer:
    return _writing(guest, context, Writing(_descriptor(guest, context, args), 0, appends=True))


def _writing(guest: Guest, context: int, stream: Writing) -> bytes:
    file = stream.file
    if file.kind is not Kind.FILE:
        return refused(Errno.ISDIR)
    if not file.writable:
        return refused(Errno.BADF)
    return _ok(guest.own(context, files_of(guest).keep_another(stream, file), OUTPUT_STREAM))


def error_of_stream(guest: Guest, context: int, args: int) -> Answer:
    representation, files = values.read_handle(args, context, ERROR), guest.files
    if files is None or not files.has(representation):
        return values.option(None)
    return values.option(error_code(files.find(representation, StreamError).errno))


# --- reading and writing


def read(guest: Guest, context: int, args: int) -> Answer:
    file, files = _descriptor(guest, context, args), files_of(guest)
    length = min(values.read_number(args + VALUE_BYTES, values.U64), BLOCK_BYTES)
    offset = values.read_number(args + 2 * VALUE_BYTES, values.U64)
    if file.kind is not Kind.FILE:
        return refused(Errno.ISDIR)
    if not file.readable:
        return refused(Errno.BADF)

    def told(data: bytes) -> bytes:
        return _ok(values.pair(values.byte_list(data), values.boolean(not data and length > 0)))

    at_once = b"" if not length else files.read_at_once(file, offset, length)
    if at_once is not None:
        return told(at_once)
    record = files.read_record(file, offset, length)
    return _ask(guest, "read", record, lambda answer: told(files.received(file, offset, record, answer, length)))


def write(guest: Guest, context: int, args: int) -> Answer:
    file = _descriptor(guest, context, args)
    data = values.read_bytes(args + VALUE_BYTES, BLOCK_BYTES)
    offset = values.read_number(args + 2 * VALUE_BYTES, values.U64)
    if file.kind is not Kind.FILE:
        return refused(Errno.ISDIR)
    if not file.writable:
        return refused(Errno.BADF)
    return _ask(
        guest,
        "write",
        write_record(file, offset, data, append=False),
        lambda answer: _ok(values.u64(files_of(guest).written(answer, len(data))[0])),
        changes=True,
    )


def advise(guest: Guest, context: int, args: int) -> Answer:
    _descriptor(guest, context, args)
    return _ok()


def sync(guest: Guest, context: int, args: int) -> Answer:
    file = _descriptor(guest, context, args)
    return _do(guest, "sync", AT.pack(file.handle, 0)) if file.writable and file.kind is Kind.FILE else _ok()


def set_size(guest: Guest, context: int, args: int) -> Answer:
    file, size = _descriptor(guest, context, args), values.read_number(args + VALUE_BYTES, values.U64)
    return _do(guest, "resize", RESIZE.pack(file.handle, size), changes=True)


# --- what something is


def get_flags(guest: Guest, context: int, args: int) -> Answer:
    file = _descriptor(guest, context, args)
    names = [b"read"] if file.readable else []
    if file.writable:
        names.append(b"mutate-directory" if file.kind is Kind.DIRECTORY else b"write")
    return _ok(values.flags(*names))


def get_type(guest: Guest, context: int, args: int) -> Answer:
    return _ok(values.enum(_KINDS[_descriptor(guest, context, args).kind]))


def stat(guest: Guest, context: int, args: int) -> Answer:
    return _described(guest, _descriptor(guest, context, args), b"", follow=False, told=_stat)


def stat_at(guest: Guest, context: int, args: int) -> Answer:
    return _described_at(guest, context, args, _stat)


def metadata_hash(guest: Guest, context: int, args: int) -> Answer:
    return _described(guest, _descriptor(guest, context, args), b"", follow=False, told=_identity)


def metadata_hash_at(guest: Guest, context: int, args: int) -> Answer:
    return _described_at(guest, context, args, _identity)


def _described_at(guest: Guest, context: int, args: int, told: Callable[[Stat], bytes]) -> Answer:
    file, follow = _descriptor(guest, context, args), _follows(args + VALUE_BYTES)
    return _described(guest, file, _path(guest, args + 2 * VALUE_BYTES), follow=follow, told=told)


def _described(guest: Guest, file: File, path: bytes, *, follow: bool, told: Callable[[Stat], bytes]) -> Answer:
    files = files_of(guest)
    if (seen := files.seen(file.handle, path, follow)) is not None:
        return _ok(told(seen))
    record = AT.pack(file.handle, follow) + path
    return _ask(guest, "stat", record, lambda answer: _ok(told(files.described(file.handle, path, follow, answer))))


def _follows(address: int) -> bool:
    return b"symlink-follow" in values.read_flags(address, _FLAGS_MAX)


def _stat(found: Stat) -> bytes:
    return values.record(
        (b"type", values.enum(_KINDS[found.kind])),
        (b"link-count", values.u64(1)),
        (b"size", values.u64(found.size)),
        (b"data-access-timestamp", values.option(_moment(found.accessed_ns))),
        (b"data-modification-timestamp", values.option(_moment(found.modified_ns))),
        (b"status-change-timestamp", values.option(_moment(found.changed_ns))),
    )


def _moment(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return values.record((b"seconds", values.u64(seconds)), (b"nanoseconds", values.u32(rest)))


def _identity(found: Stat) -> bytes:
    return values.record((b"lower", values.u64(found.inode)), (b"upper", values.u64(found.device)))


def is_same_object(guest: Guest, context: int, args: int) -> Answer:
    first, second = _descriptor(guest, context, args), _descriptor(guest, context, args + VALUE_BYTES)
    return values.boolean(first is second)


def set_times(guest: Guest, context: int, args: int) -> Answer:
    file = _descriptor(guest, context, args)
    times = _new_time(args + VALUE_BYTES), _new_time(args + 2 * VALUE_BYTES)
    return _do(guest, "times", TIMES.pack(file.handle, *times[0], *times[1]))


def set_times_at(guest: Guest, context: int, args: int) -> Answer:
    file, path = _descriptor(guest, context, args), _path(guest, args + 2 * VALUE_BYTES)
    times = _new_time(args + 3 * VALUE_BYTES), _new_time(args + 4 * VALUE_BYTES)
    return _do(guest, "times", TIMES.pack(file.handle, *times[0], *times[1]) + path)


def _new_time(address: int) -> tuple[int, int]:
    case, payload = values.read_variant(address)
    if case == b"now":
        return TIME_NOW, 0
    if case != b"timestamp" or not payload:
        return TIME_KEEP, 0
    seconds = values.read_number(values.read_field(payload, 0, b"seconds"), values.U64)
    nanoseconds = values.read_number(values.read_field(payload, 1, b"nanoseconds"), values.U32)
    moment = seconds * _NANOSECONDS + nanoseconds
    if moment > OFFSET_MAX:
        raise FileRefusal(Errno.INVAL)
    return TIME_SET, moment


# --- names


def open_at(guest: Guest, context: int, args: int) -> Answer:
    directory, path = _descriptor(guest, context, args), _path(guest, args + 2 * VALUE_BYTES)
    wanted = values.read_flags(args + 3 * VALUE_BYTES, _FLAGS_MAX)
    access = values.read_flags(args + 4 * VALUE_BYTES, _FLAGS_MAX)
    flags, files = Open(0), files_of(guest)
    for name in wanted:
        flags |= _OPEN_FLAGS[name]
    if b"read" in access:
        flags |= Open.READ
    if b"write" in access and not flags & Open.DIRECTORY:
        flags |= Open.WRITE

    def opened(answer: bytes) -> bytes:
        readable, writable = bool(flags & Open.READ), bool(flags & Open.WRITE)
        file = files.opened(answer, readable=readable, writable=writable)
        if file.kind is Kind.DIRECTORY:
            file.writable = directory.writable
        return _ok(guest.own(context, files.keep(OpenDescriptor(file)), DESCRIPTOR))

    record = OPEN.pack(directory.handle, flags) + path
    return _ask(guest, "open", record, opened, changes=bool(flags & Open.TRUNCATE))


def mkdir(guest: Guest, context: int, args: int) -> Answer:
    return _name(guest, "mkdir", context, args)


def rmdir(guest: Guest, context: int, args: int) -> Answer:
    return _name(guest, "rmdir", context, args)


def unlink(guest: Guest, context: int, args: int) -> Answer:
    return _name(guest, "unlink", context, args)


def _name(guest: Guest, function: str, context: int, args: int) -> Answer:
    file, path = _descriptor(guest, context, args), _path(guest, args + VALUE_BYTES)
    return _do(guest, function, AT.pack(file.handle, 0) + path)


def rename(guest: Guest, context: int, args: int) -> Answer:
    source, target = _descriptor(guest, context, args), _descriptor(guest, context, args + 2 * VALUE_BYTES)
    old, new = _path(guest, args + VALUE_BYTES), _path(guest, args + 3 * VALUE_BYTES)
    return _do(guest, "rename", RENAME.pack(source.handle, target.handle, len(old)) + old + new)


def no_link(guest: Guest, context: int, args: int) -> Answer:
    """Links are neither made nor read: they are what reaches out of a directory."""
    _descriptor(guest, context, args)
    return refused(Errno.PERM)


def no_hard_link(guest: Guest, context: int, args: int) -> Answer:
    _descriptor(guest, context, args)
    _descriptor(guest, context, args + 3 * VALUE_BYTES)  # a borrow that is not given back traps the call
    return refused(Errno.PERM)


# --- listings


def read_directory(guest: Guest, context: int, args: int) -> Answer:
    file = _descriptor(guest, context, args)
    if file.kind is not Kind.DIRECTORY:
        return refused(Errno.NOTDIR)
    return _ok(guest.own(context, files_of(guest).keep_another(Listing(file), file), DIRECTORY_STREAM))


def read_entry(guest: Guest, context: int, args: int) -> Answer:
    files = files_of(guest)
    listing = files.find(values.read_handle(args, context, DIRECTORY_STREAM), Listing)

    def told() -> bytes:
        if not listing.entries:
            return _ok(values.option(None))
        entry = listing.entries.pop()
        listing.cookie += 1
        name = (b"name", values.string(entry.name))
        return _ok(values.option(values.record((b"type", values.enum(_KINDS[entry.kind])), name)))

    if listing.entries:
        return told()

    def listed(answer: bytes) -> bytes:
        entries = files.listed(listing.file, listing.cookie, answer)
        listing.entries = [entry for entry in reversed(entries) if _is_text(entry.name)]
        return told()

    return _ask(guest, "list", LIST.pack(listing.file.handle, listing.cookie), listed)


def _is_text(name: bytes) -> bool:
    """The engine aborts on text that is not UTF-8; the node sends none, but the worker does not stake itself on it."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


_METHODS: Final[dict[str, tuple[int, Callable[[Guest, int, int], Answer]]]] = {
    "read-via-stream": (2, read_via_stream),
    "write-via-stream": (2, write_via_stream),
    "append-via-stream": (1, append_via_stream),
    "advise": (4, advise),
    "sync-data": (1, sync),
    "get-flags": (1, get_flags),
    "get-type": (1, get_type),
    "set-size": (2, set_size),
    "set-times": (3, set_times),
    "read": (3, read),
    "write": (3, write),
    "read-directory": (1, read_directory),
    "sync": (1, sync),
    "create-directory-at": (2, mkdir),
    "stat": (1, stat),
    "stat-at": (3, stat_at),
    "set-times-at": (5, set_times_at),
    "link-at": (5, no_hard_link),
    "open-at": (5, open_at),
    "readlink-at": (2, no_link),
    "remove-directory-at": (2, rmdir),
    "rename-at": (4, rename),
    "symlink-at": (3, no_link),
    "unlink-file-at": (2, unlink),
    "is-same-object": (2, is_same_object),
    "metadata-hash": (1, metadata_hash),
    "metadata-hash-at": (3, metadata_hash_at),
}

RESOURCES: Final = {"descriptor": DESCRIPTOR, "directory-entry-stream": DIRECTORY_STREAM}

INTERFACES: Final[dict[str, Interface]] = {
    "wasi:filesystem/types": {
        "filesystem-error-code": Import(1, True, error_of_stream),
        "[method]directory-entry-stream.read-directory-entry": Import(1, True, _guarded(read_entry)),
    }
    | {
        f"[method]descriptor.{name}": Import(arity, True, _guarded(method))
        for name, (arity, method) in _METHODS.items()
    },
    "wasi:filesystem/preopens": {"get-directories": Import(0, True, directories)},
}
