"""The supervisor's end of a worker's socket: frames out in batches, frames in as hostile input, never blocking.

A worker that floods gets its turn of the event loop and no more: ``_FRAMES_PER_TURN`` frames or one read at a time. One
that leaves a frame unfinished, or does not read what it was sent, is given ``STALL_S`` and then ended.
"""

import array
import asyncio
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from sandbox.frames import TO_SUPERVISOR, FrameError, FrameReader

CLOSED: Final = "it closed its socket"
STALL_S: Final = 30.0
"""How long a worker may neither finish a frame that it began nor read on; a machine that starves it takes less."""
_READ_BYTES: Final = 1 << 18
_RETRY_S: Final = 0.001
_FRAMES_PER_TURN: Final = 256


class Channel:
    """One socket in the event loop. ``on_end`` is called once, with the reason, unless ``close`` was called before.

    ``on_frame`` gets every frame ``(op, number, payload)``, ``admit`` the header of a long one before its payload is
    kept; a ``FrameError`` that one of them raises ends the channel. ``queued`` and ``sent`` count the bytes that were
    queued for the worker, and those that it has room for: what lies between has not been read.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_frame: Callable[[int, int, bytes], None],
        on_end: Callable[[str], None],
        admit: Callable[[int, int, int], None] | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self.queued = self.sent = 0
        self._socket, self._on_frame, self._on_end = sock, on_frame, on_end
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(TO_SUPERVISOR, admit)
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._out: list[bytes] = []
        self._flush_due = self._is_blocked = self._is_closed = False
        self._unread: Iterator[tuple[int, int, bytes]] | None = None
        self._stall_s = stall_s
        self._stalled_since: dict[str, float] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self.read)

    def send(self, data: bytes, *, at_once: bool) -> None:
        """Queue a frame: written at once, or together with others in the next turn of the loop."""
        self._out.append(data)
        self.queued += len(data)
        if self._is_blocked or self._flush_due:
            return
        if at_once:
            self._flush()
        else:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    async def send_descriptor(self, data: bytes, descriptor: int) -> None:
        """Send a frame with a descriptor, after everything that was queued before."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        while not self._is_closed:
            self._flush()
            if not self._out:
                try:
                    sent = self._socket.sendmsg([data], rights)
                except BlockingIOError:
                    pass
                except OSError as error:
                    self._end(f"its socket failed ({error.strerror})")
                else:
                    self.queued += sent
                    self.sent += sent
                    if sent < len(data):
                        self.send(data[sent:], at_once=True)
                    return
            await asyncio.sleep(_RETRY_S)

    def _flush(self) -> None:
        self._flush_due = False
        if not self._out or self._is_closed:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(f"its socket failed ({error.strerror})")
            return
        self.sent += sent
        if sent < len(data):
            self._out.append(data[sent:])
            if sent or "read" not in self._stalled_since:
                self._note_stall("read")
        else:
            self._stalled_since.pop("read", None)
        if bool(self._out) != self._is_blocked:
            self._is_blocked = bool(self._out)
            if self._is_blocked:
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)

    def read(self) -> None:
        """Read once and hand on what came."""
        if self._is_closed or self._unread is not None:
            return
        try:
            count = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"its socket failed ({error.strerror})")
            return
        if not count:
            self._end(CLOSED)
            return
        self._unread = iter(self._reader.feed(bytes(self._view[:count])))
        self._hand_on()

    def read_last(self) -> None:
        """Hand on at once what has come: the worker has ended, and an outcome that was sent counts."""
        for _ in range(2):
            while self._unread is not None and not self._is_closed:
                self._hand_on()
            self.read()
        while self._unread is not None and not self._is_closed:
            self._hand_on()

    def _hand_on(self) -> None:
        """Hand on some of the frames that were read; the rest waits until others have had their turn."""
        if self._is_closed or self._unread is None:
            return
        handed = 0
        try:
            for op, number, payload in islice(self._unread, _FRAMES_PER_TURN):
                self._on_frame(op, number, payload)
                handed += 1
        except FrameError as error:
            self._end(f"it broke the protocol: {error}")
            return
        if handed == _FRAMES_PER_TURN:
            self._loop.remove_reader(self._socket)
            self._loop.call_soon(self._resume)
            return
        self._unread = None
        if not self._reader.is_within:
            self._stalled_since.pop("finish a frame", None)
        elif handed or "finish a frame" not in self._stalled_since:
            self._note_stall("finish a frame")

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._socket, self.read)
            self._hand_on()

    def _note_stall(self, what: str) -> None:
        """Begin to count the time in which the worker does not do this."""
        self._stalled_since[what] = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(self._stall_s, self._end_if_stalled)

    def _end_if_stalled(self) -> None:
        self._watch = None
        if not self._stalled_since or self._is_closed:
            return
        what, since = min(self._stalled_since.items(), key=lambda entry: entry[1])
        if self._loop.time() >= since + self._stall_s:
            self._end(f"it did not {what} for {self._stall_s:g} s")
        else:
            self._watch = self._loop.call_at(since + self._stall_s, self._end_if_stalled)

    def _end(self, reason: str) -> None:
        if not self._is_closed:
            self.close()
            self._on_end(reason)

    def close(self) -> None:
        """Close the socket; nothing is sent or handed on any more."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._out.clear()
            if self._watch is not None:
                self._watch.cancel()
