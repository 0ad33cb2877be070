"""An answer that arrives in pieces: bytes of the endpoint in, text that a guest may see out.

A secret that an endpoint echoes may be spread over pieces: as many characters as the longest spelling of the secret has
are held back until what follows them is known.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_answer import (
    END_OF_STREAM,
    EndpointBrokeOffError,
    LlmAnswer,
    TokenUsage,
    printable,
    read_chunk,
)
from data_plane.broker.llm_stream import EventParser, StreamLimits

LIMITS: Final = StreamLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbing:
    """``scrub`` replaces a secret in a text; ``reach`` is how many characters it needs to see together.

    ``scrub_long`` does the same in steps, so that a long text holds nobody up.
    """

    scrub: Callable[[str], str]
    scrub_long: Callable[[str], Awaitable[str]]
    reach: int


async def _unchanged(text: str) -> str:
    return text


NOTHING_TO_SCRUB: Final = Scrubbing(scrub=str, scrub_long=_unchanged, reach=0)


class AnswerStream:
    """Feed it until ``is_done`` or until nothing more comes; then `end` it."""

    def __init__(self, *, model: str, scrubbing: Scrubbing = NOTHING_TO_SCRUB, limits: StreamLimits = LIMITS) -> None:
        self._parser = EventParser(limits)
        self._scrubbing = scrubbing
        self._held = ""
        self._model = model
        self._finish_reason = ""
        self._refusal: HostRefusal | None = None
        self.usage: TokenUsage | None = None
        self.is_done = False

    def feed(self, piece: bytes) -> str:
        """Return the text that may be given now; "" for none.

        Raises:
            HostRefusal: kind ``failed``: beyond a limit of the stream.
        """
        texts = []
        for data in self._parser.feed(piece):
            if data == END_OF_STREAM:
                self.is_done = True
                break
            try:
                texts.append(self._take(data))
            except HostRefusal as refusal:  # what came before it is given first
                self._refusal, self.is_done = refusal, True
                break
        return self._safe("".join(texts))

    def end(self) -> str:
        """Return what was held back.

        Raises:
            HostRefusal: kind ``failed``: the stream ended before its answer did, held what is no event of an answer,
                or told of an error.
        """
        if self._refusal is not None:
            raise self._refusal
        if not self.is_done and not self._finish_reason:
            raise HostRefusal(ErrorKind.FAILED, "the endpoint ended its stream before its answer")
        rest, self._held = self._scrubbing.scrub(self._held), ""
        return rest

    def answer(self, text: str) -> LlmAnswer:
        """Return the whole answer, whose text was kept elsewhere. Names can hold a secret as well as text can."""
        scrub = self._scrubbing.scrub
        return LlmAnswer(
            text=text,
            model=scrub(self._model),
            finish_reason=scrub(self._finish_reason) or "stop",
            usage=self.usage,
        )

    def _take(self, data: str) -> str:
        try:
            chunk = read_chunk(data)
        except EndpointBrokeOffError as error:
            said = printable(self._scrubbing.scrub(error.said))
            raise HostRefusal(ErrorKind.FAILED, f"the endpoint broke off: {said}") from None
        self._model = chunk.model or self._model
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self.usage = chunk.usage or self.usage
        return chunk.delta

    def _safe(self, text: str) -> str:
        reach = self._scrubbing.reach
        if not reach:
            return text
        whole = self._scrubbing.scrub(self._held + text)
        cut = max(0, len(whole) - reach)
        self._held = whole[cut:]
        return whole[:cut]
