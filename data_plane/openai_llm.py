"""One endpoint that speaks OpenAI's ``/chat/completions``: a request out, an answer or a stream of events back.

Statuses 429 and 503 are tried again after the time that the endpoint names, as long as that is short; nothing else is.
Prompts, answers and keys are not logged here or anywhere.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_answer import LlmAnswer, error_text, printable, read_answer
from data_plane.broker.llm_answer_stream import NOTHING_TO_SCRUB, Scrubbing
from data_plane.broker.origin import Origin
from data_plane.http_egress import EgressLimits, HttpEgress, Response, Traffic
from templates.canonical import JsonObject

ATTEMPTS_MAX: Final = 3
RETRY_S_MAX: Final = 10.0
RETRY_S_FIRST: Final = 0.5
RETRY_AFTER_DIGITS_MAX: Final = 9
ANSWER_BYTES_MAX: Final = 4_194_304
ERROR_BODY_BYTES_MAX: Final = 65_536
_OK: Final = 200
_TRY_AGAIN: Final = frozenset({429, 503})
_SERVER_ERRORS: Final = 500
_BUSY: Final = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What goes into ``Authorization``, and how to take it out of texts again."""

    authorization: str = field(repr=False)
    scrubbing: Scrubbing


KeySource = Callable[[], Awaitable[Key]]
"""Looks the secret up for each call, so that one that was replaced is used at once; raises `HostRefusal` (failed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A response with status 200, whose body has not been read."""

    response: Response
    scrubbing: Scrubbing


@dataclass(slots=True, kw_only=True)
class Progress:
    """What became of one call so far, whoever asks: also when it was cancelled or failed.

    ``sent_bytes_max`` and ``received_bytes_max`` are what the invocation has left. ``is_blamed``: a failure is the
    endpoint's, and not that of what it was asked.
    """

    sent_bytes_max: int
    received_bytes_max: int
    sent_bytes: int = 0
    received_bytes: int = 0
    is_blamed: bool = True
    _attempt: Traffic | None = field(default=None, repr=False)

    @property
    def may_have_cost(self) -> bool:
        """The endpoint was sent a request and has not said that it refuses it."""
        return self._attempt is not None and self._attempt.sent > 0

    def begin(self) -> Traffic:
        self._attempt = Traffic()
        self.is_blamed = True
        return self._attempt

    def end(self, traffic: Traffic) -> None:
        self.sent_bytes += traffic.sent
        self.received_bytes += traffic.received

    def refused(self, status: int) -> None:
        self._attempt = None
        self.is_blamed = status >= _SERVER_ERRORS or status == _BUSY


class OpenAiEndpoint:
    """Safe to share: it holds nothing of one request."""

    def __init__(
        self,
        http: HttpEgress,
        *,
        origin: Origin,
        target: str,
        key: KeySource | None,
        limits: EgressLimits,
        monotonic: Callable[[], float],
    ) -> None:
        self._http = http
        self._origin = origin
        self._target = target
        self._key = key
        self._limits = limits
        self._monotonic = monotonic

    async def complete(self, body: JsonObject, *, model: str, deadline: float, progress: Progress) -> LlmAnswer:
        """Return the whole answer.

        Raises:
            HostRefusal: ``failed``, ``budget`` (out of time), ``denied`` (its address), ``quota`` (too long).
        """
        async with self.exchange(body, deadline=deadline, progress=progress, bytes_max=ANSWER_BYTES_MAX) as exchange:
            answer = read_answer(await exchange.response.read(), model=model)
            scrubbing = exchange.scrubbing
            return replace(
                answer,
                text=await scrubbing.scrub_long(answer.text),
                model=scrubbing.scrub(answer.model),
                finish_reason=scrubbing.scrub(answer.finish_reason),
            )

    @asynccontextmanager
    async def exchange(
        self, body: JsonObject, *, deadline: float, progress: Progress, bytes_max: int
    ) -> AsyncIterator[Exchange]:
        """Send one request and give the response once it has status 200, of a body that has at most ``bytes_max``.

        ``deadline`` is monotonic, in seconds.

        Raises:
            HostRefusal: see `complete`.
        """
        headers = [("Content-Type", "application/json"), ("User-Agent", "agentfactory-node")]
        scrubbing = NOTHING_TO_SCRUB
        if self._key is not None:
            key = await self._key()
            headers.append(("Authorization", key.authorization))
            scrubbing = key.scrubbing
        encoded = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        if len(encoded) > progress.sent_bytes_max:
            raise HostRefusal(ErrorKind.BUDGET, f"expected at most {progress.sent_bytes_max} more bytes to be sent")
        limits = self._limits.with_body(min(bytes_max, progress.received_bytes_max))
        attempt = 0
        while True:
            attempt += 1
            traffic = progress.begin()
            try:
                async with self._http.request(
                    self._origin, "POST", self._target, headers, encoded,
                    limits=limits, deadline=deadline, traffic=traffic,
                ) as response:  # fmt: skip
                    if response.status == _OK:
                        yield Exchange(response=response, scrubbing=scrubbing)
                        return
                    progress.refused(response.status)
                    refusal = await _refusal(response, scrubbing)
                    retry_s = _retry_s(response, attempt)
            finally:
                progress.end(traffic)
            if retry_s is None or attempt == ATTEMPTS_MAX or self._monotonic() + retry_s >= deadline:
                raise refusal
            await asyncio.sleep(retry_s)


async def _refusal(response: Response, scrubbing: Scrubbing) -> HostRefusal:
    """Return what the guest is told; the endpoint's own words are scrubbed before they are cut."""
    body = b""
    async for piece in response.pieces():
        body += piece
        if len(body) > ERROR_BODY_BYTES_MAX:
            break
    try:
        said = error_text(json.loads(body))
    except (ValueError, RecursionError):
        said = "no reason given"
    said = printable(scrubbing.scrub(said))
    asked_s = _retry_after_s(response)
    wait = "" if asked_s is None else f" and asks to wait {asked_s} s"
    return HostRefusal(ErrorKind.FAILED, f"the endpoint answered {response.status}{wait}: {said}")


def _retry_after_s(response: Response) -> int | None:
    """Return the seconds of Retry-After; a date there counts as nothing said."""
    said = next((value.strip() for name, value in response.headers if name == "retry-after"), "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= RETRY_AFTER_DIGITS_MAX else None


def _retry_s(response: Response, attempt: int) -> float | None:
    """Return how long to wait before the next attempt, None where none is made."""
    if response.status not in _TRY_AGAIN:
        return None
    asked_s = _retry_after_s(response)
    if asked_s is None:
        return float(RETRY_S_FIRST * 2 ** (attempt - 1))
    return float(asked_s) if asked_s <= RETRY_S_MAX else None
