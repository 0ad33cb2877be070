"""The supervisor's end of a worker's socket: frames out in batches, frames in as hostile input, never blocking."""

import array
import asyncio
import socket
from collections.abc import Callable
from typing import Final

from sandbox.frames import TO_SUPERVISOR, FrameError, FrameReader

CLOSED: Final = "it closed its socket"
_READ_BYTES: Final = 1 << 18
_RETRY_S: Final = 0.001


class Channel:
    """One socket in the event loop. ``on_end`` is called once, with the reason, unless ``close`` was called before.

    ``on_frame`` gets every frame ``(op, number, payload)``; a ``FrameError`` that it raises ends the channel.
    """

    def __init__(
        self, sock: socket.socket, *, on_frame: Callable[[int, int, bytes], None], on_end: Callable[[str], None]
    ) -> None:
        self._socket, self._on_frame, self._on_end = sock, on_frame, on_end
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(TO_SUPERVISOR)
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._out: list[bytes] = []
        self._flush_due = self._is_blocked = self._is_closed = False
        self._loop.add_reader(sock, self.read)

    def send(self, data: bytes, *, at_once: bool) -> None:
        """Queue a frame: written at once, or together with others in the next turn of the loop."""
        self._out.append(data)
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
        if sent < len(data):
            self._out.append(data[sent:])
        if bool(self._out) != self._is_blocked:
            self._is_blocked = bool(self._out)
            if self._is_blocked:
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)

    def read(self) -> None:
        """Read once and hand on what came."""
        if self._is_closed:
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
        try:
            for op, number, payload in self._reader.feed(bytes(self._view[:count])):
                self._on_frame(op, number, payload)
        except FrameError as error:
            self._end(f"it broke the protocol: {error}")

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
