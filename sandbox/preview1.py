"""Virtual WASI preview 1: bytes in, bytes out, a clock, randomness, and files where they were granted; no sockets.

Nothing native is linked. Each function is a host function over the fiber scheduler: ``poll_oneoff``, ``sched_yield``
and what asks the node about files (``preview1_files``) suspend the guest, everything else answers at once. Sizes are
checked on the numbers the guest passed, before a byte is copied; a pointer outside the guest's memory is a trap.
Numbers of errors, layouts and flags: WASI snapshot-01, witx.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from sandbox.core_module import GuestMemory
from sandbox.fibers import LOG_LINE_BYTES_MAX, Invocation, Stopped
from sandbox.outcome import FailureKind
from sandbox.preview1_files import IOVECS_MAX, Preview1Files, Served

MODULE: Final = "wasi_snapshot_preview1"
SUCCESS: Final = 0
BADF: Final = 8
INVAL: Final = 28
NOTCAPABLE: Final = 76
NOTDIR: Final = 54
NOTSOCK: Final = 57
NOTSUP: Final = 58
PERM: Final = 63
SPIPE: Final = 70

STDIN, STDOUT, STDERR = 0, 1, 2
SUBSCRIPTIONS_MAX: Final = 64
RANDOM_BYTES_MAX: Final = 65_536  # per call: what fits in a slice; toolchains ask for far less, and loop
CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1
CLOCK_RESOLUTION_NS: Final = 1_000
# A guest's monotonic clock starts here when its invocation arrives: it learns nothing of the host's uptime, and
# runtimes that take zero for "no clock" are content.
MONOTONIC_ORIGIN_NS: Final = 1_000_000_000

_U32 = Struct("<I")
_U64 = Struct("<Q")
_IOVEC = Struct("<II")
_FDSTAT = Struct("<BxHxxxxQQ")
_FILESTAT_BYTES: Final = 64
_SUBSCRIPTION = Struct("<QB7xI4xQQH6x")  # userdata, tag, clock id or descriptor, timeout, precision, flags
_EVENT = Struct("<QHB5xQH6x")  # userdata, error, type, bytes, flags
_TAG_CLOCK, _TAG_READ, _TAG_WRITE = 0, 1, 2
_ABSOLUTE: Final = 1
_RIGHT_READ, _RIGHT_WRITE, _RIGHT_POLL = 1 << 1, 1 << 6, 1 << 27

_ARGUMENTS: Final = (b"agent\0",)


class Preview1:
    """What one invocation of a command sees of the outside. Methods return errno; their arguments are raw numbers."""

    __slots__ = (
        "_environment",
        "_input",
        "_invocation",
        "_line",
        "_output_left",
        "_position",
        "_stdout",
        "exit_code",
        "files",
        "memory",
        "response",
    )

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._input, self._position = invocation.input, 0
        self._stdout = bytearray()
        self._output_left = invocation.limits.output_bytes
        self._line = b""
        self._environment = (b"AGENTFACTORY_CONFIG=" + invocation.config.replace(b"\0", b"") + b"\0",)
        self.exit_code: int | None = None
        self.memory: GuestMemory  # set by the first import, when the instance exists
        self.response = b""
        self.files = Preview1Files(self) if invocation.is_granted("files") else None

    def output(self) -> bytes:
        """Return what the guest wrote to stdout."""
        return bytes(self._stdout)

    def flush_log(self) -> None:
        """Log what stderr holds without a newline at its end."""
        if self._line:
            self._invocation.log("info", self._line)
            self._line = b""

    # --- arguments and environment

    def args_sizes_get(self, count_at: int, bytes_at: int) -> int:
        return self._write_sizes(_ARGUMENTS, count_at, bytes_at)

    def args_get(self, pointers_at: int, bytes_at: int) -> int:
        return self._write_strings(_ARGUMENTS, pointers_at, bytes_at)

    def environ_sizes_get(self, count_at: int, bytes_at: int) -> int:
        return self._write_sizes(self._environment, count_at, bytes_at)

    def environ_get(self, pointers_at: int, bytes_at: int) -> int:
        return self._write_strings(self._environment, pointers_at, bytes_at)

    def _write_sizes(self, strings: tuple[bytes, ...], count_at: int, bytes_at: int) -> int:
        _U32.pack_into(self.memory.reach(count_at, 4), count_at, len(strings))
        _U32.pack_into(self.memory.reach(bytes_at, 4), bytes_at, sum(map(len, strings)))
        return SUCCESS

    def _write_strings(self, strings: tuple[bytes, ...], pointers_at: int, bytes_at: int) -> int:
        for string in strings:
            self.memory.reach(bytes_at, len(string))[bytes_at : bytes_at + len(string)] = string
            _U32.pack_into(self.memory.reach(pointers_at, 4), pointers_at, bytes_at)
            pointers_at += 4
            bytes_at += len(string)
        return SUCCESS

    # --- clock and randomness

    def clock_res_get(self, clock: int, resolution_at: int) -> int:
        if clock not in (CLOCK_REALTIME, CLOCK_MONOTONIC):
            return INVAL
        _U64.pack_into(self.memory.reach(resolution_at, 8), resolution_at, CLOCK_RESOLUTION_NS)
        return SUCCESS

    def clock_time_get(self, clock: int, _precision: int, time_at: int) -> int:
        if clock not in (CLOCK_REALTIME, CLOCK_MONOTONIC):
            return INVAL
        _U64.pack_into(self.memory.reach(time_at, 8), time_at, self._now(clock))
        return SUCCESS

    def _now(self, clock: int) -> int:
        source = self._invocation.nature
        if clock == CLOCK_REALTIME:
            now = source.wall_ns()
        else:
            now = source.monotonic_ns() - self._invocation.arrived_ns + MONOTONIC_ORIGIN_NS
        return now // CLOCK_RESOLUTION_NS * CLOCK_RESOLUTION_NS

    def random_get(self, at: int, length: int) -> int:
        if length > RANDOM_BYTES_MAX:
            return INVAL
        view = self.memory.reach(at, length)
        view[at : at + length] = self._invocation.nature.random_bytes(length)
        return SUCCESS

    # --- the three streams

    def fd_read(self, fd: int, vectors_at: int, count: int, total_at: int) -> Served:
        if fd != STDIN:
            return BADF if self.files is None else self.files.read(fd, vectors_at, count, total_at)
        if count > IOVECS_MAX:
            return INVAL
        memory = self.memory
        total = 0
        for pointer, length in self._vectors(vectors_at, count):
            view = memory.reach(pointer, length)
            piece = self._input[self._position : self._position + length]
            view[pointer : pointer + len(piece)] = piece
            self._position += len(piece)
            total += len(piece)
        _U32.pack_into(memory.reach(total_at, 4), total_at, total)
        return SUCCESS

    def fd_write(self, fd: int, vectors_at: int, count: int, total_at: int) -> Served:
        if fd not in (STDOUT, STDERR):
            return BADF if self.files is None else self.files.write(fd, vectors_at, count, total_at)
        if count > IOVECS_MAX:
            return INVAL
        memory = self.memory
        vectors = self._vectors(vectors_at, count)
        total = sum([length for _, length in vectors])
        if total >= 1 << 32:
            return INVAL
        if fd == STDOUT:
            self._output_left -= total
            if self._output_left < 0:
                limit = self._invocation.limits.output_bytes
                raise Stopped(FailureKind.OUTPUT, f"expected at most {limit} bytes of output")
            for pointer, length in vectors:
                self._stdout += memory.reach(pointer, length)[pointer : pointer + length]
        else:
            for pointer, length in vectors:
                self._write_log(memory.reach(pointer, length)[pointer : pointer + length])
        _U32.pack_into(memory.reach(total_at, 4), total_at, total)
        return SUCCESS

    def _vectors(self, at: int, count: int) -> list[tuple[int, int]]:
        view = self.memory.reach(at, 8 * count)
        if count == 1:
            return [_IOVEC.unpack_from(view, at)]
        return list(_IOVEC.iter_unpack(view[at : at + 8 * count]))

    def _write_log(self, piece: memoryview) -> None:
        invocation = self._invocation
        kept = self._line + bytes(piece[: invocation.log_left + 1])  # one more than fits, so that the cut is marked
        whole, newline, rest = kept.rpartition(b"\n")
        if newline:
            invocation.log("info", whole)
        if len(rest) > LOG_LINE_BYTES_MAX:
            invocation.log("info", rest)
            rest = b""
        self._line = rest

    def fd_fdstat_get(self, fd: int, stat_at: int) -> Served:
        if fd > STDERR:
            return BADF if self.files is None else self.files.fdstat_get(fd, stat_at)
        rights = _RIGHT_POLL | (_RIGHT_READ if fd == STDIN else _RIGHT_WRITE)
        # File type 0, unknown: a character device would be a terminal to C's stdio, which then flushes every line.
        _FDSTAT.pack_into(self.memory.reach(stat_at, _FDSTAT.size), stat_at, 0, 0, rights, 0)
        return SUCCESS

    def fd_filestat_get(self, fd: int, stat_at: int) -> Served:
        if fd > STDERR:
            return BADF if self.files is None else self.files.filestat_get(fd, stat_at)
        self.memory.reach(stat_at, _FILESTAT_BYTES)[stat_at : stat_at + _FILESTAT_BYTES] = bytes(_FILESTAT_BYTES)
        return SUCCESS

    # --- waiting

    def poll(self, subscriptions_at: int, events_at: int, count: int, total_at: int) -> "int | Sleep":
        """Return errno when something is ready now, or until when to sleep and which events to report then."""
        if not 0 < count <= SUBSCRIPTIONS_MAX:
            return INVAL
        view = self.memory.reach(subscriptions_at, _SUBSCRIPTION.size * count)
        self.memory.reach(events_at, _EVENT.size * count)
        self.memory.reach(total_at, 4)
        raw = view[subscriptions_at : subscriptions_at + _SUBSCRIPTION.size * count]
        ready: list[bytes] = []
        clocks: list[tuple[int, bytes]] = []
        for userdata, tag, subject, timeout, _, flags in _SUBSCRIPTION.iter_unpack(raw):
            if tag == _TAG_CLOCK and subject in (CLOCK_REALTIME, CLOCK_MONOTONIC):
                delay = timeout - self._now(subject) if flags & _ABSOLUTE else timeout
                clocks.append((max(delay, 0), _EVENT.pack(userdata, SUCCESS, tag, 0, 0)))
            elif tag in (_TAG_READ, _TAG_WRITE):
                fits = subject == STDIN if tag == _TAG_READ else subject in (STDOUT, STDERR)
                fits = fits or (self.files is not None and self.files.holds(subject))
                left = len(self._input) - self._position if tag == _TAG_READ else self._output_left
                ready.append(_EVENT.pack(userdata, SUCCESS if fits else BADF, tag, left if fits else 0, 0))
            else:
                ready.append(_EVENT.pack(userdata, INVAL, tag & 0xFF, 0, 0))
        ready += [event for delay, event in clocks if delay == 0]
        if ready:
            self.report(ready, events_at, total_at)
            return SUCCESS
        delay = min(delay for delay, _ in clocks)
        return Sleep(delay, [event for other, event in clocks if other == delay])

    def report(self, events: list[bytes], events_at: int, total_at: int) -> None:
        """Write the events of a poll that has ended."""
        raw = b"".join(events)
        self.memory.reach(events_at, len(raw))[events_at : events_at + len(raw)] = raw
        _U32.pack_into(self.memory.reach(total_at, 4), total_at, len(events))


class Sleep:
    """A poll that nothing can end but time."""

    __slots__ = ("delay_ns", "events")

    def __init__(self, delay_ns: int, events: list[bytes]) -> None:
        self.delay_ns, self.events = delay_ns, events


def _on_file(serve: Callable[..., Served], *, stream: int) -> Callable[..., Served]:
    """Make a function of files, which is meaningless on the three streams (errno ``stream`` there)."""

    def either(guest: Preview1, fd: int, *rest: int) -> Served:
        if fd <= STDERR:
            return stream
        return BADF if guest.files is None else serve(guest.files, fd, *rest)

    return either


def _on_stream(errno: int) -> Callable[..., int]:
    """Make a function that is meaningless on the three streams (``errno`` there) and on nothing else."""

    def refuse(_guest: Preview1, fd: int, *_rest: int) -> int:
        return errno if fd <= STDERR else BADF

    return refuse


def _no_links(guest: Preview1, *_arguments: int) -> int:
    """Links are neither made nor read: they are what reaches out of a directory."""
    return NOTDIR if guest.files is None else PERM


Method = Callable[..., Served]
# Each function's parameters (i: i32, I: i64) and what serves it. All but the three special ones return errno.
FUNCTIONS: Final[dict[str, tuple[str, Method]]] = {
    "args_get": ("ii", Preview1.args_get),
    "args_sizes_get": ("ii", Preview1.args_sizes_get),
    "environ_get": ("ii", Preview1.environ_get),
    "environ_sizes_get": ("ii", Preview1.environ_sizes_get),
    "clock_res_get": ("ii", Preview1.clock_res_get),
    "clock_time_get": ("iIi", Preview1.clock_time_get),
    "random_get": ("ii", Preview1.random_get),
    "fd_read": ("iiii", Preview1.fd_read),
    "fd_write": ("iiii", Preview1.fd_write),
    "fd_fdstat_get": ("ii", Preview1.fd_fdstat_get),
    "fd_filestat_get": ("ii", Preview1.fd_filestat_get),
    "fd_close": ("i", _on_file(Preview1Files.close, stream=SUCCESS)),
    "fd_sync": ("i", _on_file(Preview1Files.sync, stream=SUCCESS)),
    "fd_datasync": ("i", _on_file(Preview1Files.sync, stream=SUCCESS)),
    "fd_fdstat_set_flags": ("ii", _on_file(Preview1Files.fdstat_set_flags, stream=SUCCESS)),
    "fd_fdstat_set_rights": ("iII", _on_file(Preview1Files.no_change_of_rights, stream=NOTCAPABLE)),
    "fd_advise": ("iIIi", _on_file(Preview1Files.advise, stream=SPIPE)),
    "fd_allocate": ("iII", _on_file(Preview1Files.allocate, stream=SPIPE)),
    "fd_filestat_set_size": ("iI", _on_file(Preview1Files.set_size, stream=INVAL)),
    "fd_filestat_set_times": ("iIIi", _on_file(Preview1Files.set_times, stream=NOTCAPABLE)),
    "fd_pread": ("iiiIi", _on_file(Preview1Files.pread, stream=SPIPE)),
    "fd_pwrite": ("iiiIi", _on_file(Preview1Files.pwrite, stream=SPIPE)),
    "fd_prestat_get": ("ii", _on_file(Preview1Files.prestat_get, stream=BADF)),
    "fd_prestat_dir_name": ("iii", _on_file(Preview1Files.prestat_dir_name, stream=BADF)),
    "fd_readdir": ("iiiIi", _on_file(Preview1Files.readdir, stream=NOTDIR)),
    "fd_renumber": ("ii", _on_file(Preview1Files.renumber, stream=NOTSUP)),
    "fd_seek": ("iIii", _on_file(Preview1Files.seek, stream=SPIPE)),
    "fd_tell": ("ii", _on_file(Preview1Files.tell, stream=SPIPE)),
    "path_create_directory": ("iii", _on_file(Preview1Files.mkdir, stream=NOTDIR)),
    "path_filestat_get": ("iiiii", _on_file(Preview1Files.path_filestat_get, stream=NOTDIR)),
    "path_filestat_set_times": ("iiiiIIi", _on_file(Preview1Files.path_set_times, stream=NOTDIR)),
    "path_link": ("iiiiiii", _no_links),
    "path_open": ("iiiiiIIii", _on_file(Preview1Files.open, stream=NOTDIR)),
    "path_readlink": ("iiiiii", _no_links),
    "path_remove_directory": ("iii", _on_file(Preview1Files.rmdir, stream=NOTDIR)),
    "path_rename": ("iiiiii", _on_file(Preview1Files.rename, stream=NOTDIR)),
    "path_symlink": ("iiiii", _no_links),
    "path_unlink_file": ("iii", _on_file(Preview1Files.unlink, stream=NOTDIR)),
    "sock_accept": ("iii", _on_stream(NOTSOCK)),
    "sock_recv": ("iiiiii", _on_stream(NOTSOCK)),
    "sock_send": ("iiiii", _on_stream(NOTSOCK)),
    "sock_shutdown": ("ii", _on_stream(NOTSOCK)),
}
SPECIAL: Final[dict[str, str]] = {"poll_oneoff": "iiii", "sched_yield": "", "proc_exit": "i"}
