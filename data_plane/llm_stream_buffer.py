"""What stands between an endpoint that streams and a guest that asks for the next piece, now and then.

A task of the node fills it, and waits while it is full; the guest takes whatever has come, in one piece, at most twenty
times a second: a host call for every token would use up a guest's calls.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_answer import TEXT_BYTES_MAX
from templates.canonical import JsonObject

BUFFER_CHARACTERS_MAX: Final = 65_536
PIECE_S_MIN: Final = 0.05


class LlmStream:
    """Filled with `feed` until `finish` or `fail`; emptied with `next` until it gives None."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._pieces: list[str] = []
        self._characters = 0
        self._bytes_left = TEXT_BYTES_MAX
        self._last: JsonObject | None = None
        self._refusal: HostRefusal | None = None
        self._is_ended = False
        self._given_at = 0.0
        self._opened = asyncio.Event()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.abandon: Callable[[], None] | None = None
        """Set by whoever fills it: what to do when the guest wants no more."""

    # The filling side

    def open(self) -> None:
        """The endpoint has begun to answer."""
        self._opened.set()

    def feed(self, text: str) -> None:
        """Add text.

        Raises:
            HostRefusal: kind ``failed``: more than one answer may have.
        """
        if not text:
            return
        self._bytes_left -= len(text.encode())
        if self._bytes_left < 0:
            raise HostRefusal(ErrorKind.FAILED, f"expected an answer of at most {TEXT_BYTES_MAX} bytes")
        self._pieces.append(text)
        self._characters += len(text)
        if self._characters >= BUFFER_CHARACTERS_MAX:
            self._room.clear()
        self._news.set()

    async def room(self) -> None:
        """Wait while the guest has not taken what is there."""
        await self._room.wait()

    def finish(self, last: JsonObject) -> None:
        """The answer is complete; ``last`` is the piece that says so."""
        self._last = last
        self._end()

    def fail(self, refusal: HostRefusal) -> None:
        """There will be no more, and this is why; nothing after `finish`."""
        if not self._is_ended:
            self._refusal = refusal
            self._end()

    def _end(self) -> None:
        self._is_ended = True
        self._opened.set()
        self._news.set()

    # The guest's side

    async def opened(self) -> None:
        """Wait for the answer to begin.

        Raises:
            HostRefusal: there is none.
        """
        await self._opened.wait()
        if self._refusal is not None and not self._pieces:
            raise self._refusal

    async def next(self) -> JsonObject | None:
        """Return the next piece, None after the last.

        Raises:
            HostRefusal: the answer broke off; whatever came before it has been given.
        """
        while not self._pieces and not self._is_ended:
            self._news.clear()
            await self._news.wait()
        if not self._is_ended:
            early_s = self._given_at + PIECE_S_MIN - self._monotonic()
            if early_s > 0:
                await asyncio.sleep(early_s)
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            self._characters = 0
            self._given_at = self._monotonic()
            self._room.set()
            return {"delta": text}
        if self._refusal is not None:
            raise self._refusal
        last, self._last = self._last, None
        return last

    def close(self) -> None:
        """The guest wants no more."""
        if self.abandon is not None:
            self.abandon()
            self.abandon = None
