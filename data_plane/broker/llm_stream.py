"""Server-sent events as a pure parser: bytes in, the data of events out, each of its limits kept.

The format is that of the HTML standard, section 9.2.6: lines end in LF, CR or CRLF, a blank line ends an event, a colon
begins a comment. Of the fields only ``data`` is used; however the bytes are cut into pieces, the events are the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from data_plane.broker.answers import ErrorKind, HostRefusal

_LINE_ENDS: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Of one stream. ``line_bytes_max`` bounds a line and the data of an event; an event has at least two lines."""

    line_bytes_max: int = 1_048_576
    bytes_max: int = 16_777_216
    lines_max: int = 500_000


class EventParser:
    """Feed it what arrives. After an error nothing else may be fed."""

    __slots__ = ("_after_cr", "_bytes_left", "_data", "_data_bytes", "_is_first", "_limits", "_line", "_lines_left")

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._is_first = True
        self._bytes_left = limits.bytes_max
        self._lines_left = limits.lines_max

    def feed(self, piece: bytes) -> Sequence[str]:
        """Return the data of the events that ``piece`` completes.

        Raises:
            HostRefusal: kind ``failed``: beyond a limit, or not UTF-8.
        """
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise _failed(f"expected a stream of at most {self._limits.bytes_max} bytes")
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if not piece:
            return ()
        self._after_cr = piece.endswith(b"\r")
        *lines, rest = _LINE_ENDS.split(piece)
        self._lines_left -= len(lines)
        if self._lines_left < 0:
            raise _failed(f"expected a stream of at most {self._limits.lines_max} lines")
        events: list[str] = []
        for line in lines:
            self._append(line)
            whole = bytes(self._line)
            self._line.clear()
            if self._is_first:
                whole, self._is_first = whole.removeprefix(_BYTE_ORDER_MARK), False
            self._take(whole, events)
        self._append(rest)
        return events

    def _append(self, part: bytes) -> None:
        if len(self._line) + len(part) > self._limits.line_bytes_max:
            raise _failed(f"expected lines of at most {self._limits.line_bytes_max} bytes in the stream")
        self._line += part

    def _take(self, line: bytes, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append(self._dispatch())
            return
        name, _, value = line.partition(b":")
        if name != b"data":
            return
        value = value.removeprefix(b" ")
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._limits.line_bytes_max + 1:
            raise _failed(f"expected events of at most {self._limits.line_bytes_max} bytes in the stream")
        self._data.append(value)

    def _dispatch(self) -> str:
        data = b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _failed("expected UTF-8 in the stream") from None


def _failed(message: str) -> HostRefusal:
    return HostRefusal(ErrorKind.FAILED, message)
