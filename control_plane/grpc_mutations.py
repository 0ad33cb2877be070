"""Requests that change something, over gRPC: each done once for its ``request_id``, however often it is sent (ADR 19).

The answer is stored in the transaction of the effect, and every answer that has an id is read back from there: the
first time, the second, and after a SIGKILL it is the same bytes. Who asks again while the first is under way waits for
the same work. What fails is not remembered: asking again tries again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message

from control_plane.mutation import Answered, Ask, Asked, digest_of, require_request_id, require_same
from service.peer import peer_identity

M = TypeVar("M", bound=Message)
T = TypeVar("T")

Context = grpc.aio.ServicerContext[Any, Any]


class Answers(Protocol):
    """Where answers are kept; see `control_plane.sqlite_store.SqliteStore`."""

    def answer_to(self, asked: Asked) -> Answered | None: ...


@dataclass(frozen=True, slots=True)
class _Running:
    asked: Asked
    work: "asyncio.Future[bytes]"


class Mutations:
    """``await mutations.answer(request, context, …)``: what every RPC that changes something goes through.

    Leaving the context waits for what still runs: a caller that goes away does not stop the work.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._running: dict[tuple[str, str], _Running] = {}

    async def answer(
        self,
        request: Message,
        context: Context,
        answer: type[M],
        *,
        respond: Callable[[T], M],
        work: Callable[[Ask[T]], Awaitable[T]],
    ) -> M:
        """Do ``work`` once and return what ``respond`` makes of its result, or what was answered before.

        Args:
            request: with the fields ``request_id`` and ``validate_only``, and perhaps ``etag``.
            context: of the call, for its caller.
            answer: what ``respond`` makes.
            respond: makes the answer; also called inside of the transaction.
            work: must hand its ask to the transaction of its effect.

        Raises:
            RequestIdInvalidError, RequestIdReusedError
            AgentFactoryError: what ``work`` raises; nothing is remembered then.
        """
        ask = _ask(request, context, respond)
        if not ask.asked.request_id or ask.validate_only:
            return respond(await work(ask))
        key = (ask.asked.person, ask.asked.request_id)
        running = self._running.get(key)
        if running is None:
            running = _Running(ask.asked, asyncio.ensure_future(self._once(ask, work)))
            self._running[key] = running
            running.work.add_done_callback(lambda done: self._ended(key, done))
        else:
            require_same(ask.asked, running.asked)
        return answer.FromString(await asyncio.shield(running.work))

    async def answer_stream(
        self,
        header: Message,
        context: Context,
        answer: type[M],
        *,
        respond: Callable[[T], M],
        work: Callable[[Ask[T]], Awaitable[T]],
    ) -> M:
        """Do the same for a request whose bytes are still coming: nobody else waits for this caller's stream.

        ``work`` must be one that does no harm when it is done twice at once.
        """
        ask = _ask(header, context, respond)
        if not ask.asked.request_id or ask.validate_only:
            return respond(await work(ask))
        return answer.FromString(await self._once(ask, work))

    async def _once(self, ask: Ask[T], work: Callable[[Ask[T]], Awaitable[T]]) -> bytes:
        known = await asyncio.to_thread(self._answers.answer_to, ask.asked)
        if known is not None:
            return known.response
        await work(ask)
        stored = await asyncio.to_thread(self._answers.answer_to, ask.asked)
        if stored is None:
            raise RuntimeError(f"{ask.asked.method} did not store its answer with its effect")
        return stored.response

    def _ended(self, key: tuple[str, str], done: "asyncio.Future[bytes]") -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # whoever asked has it, or went away

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running:
            await asyncio.wait([each.work for each in self._running.values()])


def _ask(request: Any, context: Context, respond: Callable[[T], Message]) -> Ask[T]:
    """Read what ``request``, a message with the fields of a mutation, says of itself."""
    method = request.DESCRIPTOR.full_name
    request_id = require_request_id(request.request_id)
    content = type(request).FromString(request.SerializeToString())
    content.ClearField("request_id")
    return Ask(
        asked=Asked(
            person=peer_identity(context).name,
            method=method,
            request_id=request_id,
            sha256=digest_of(method, content.SerializeToString(deterministic=True)),
        ),
        encode=lambda result: respond(result).SerializeToString(),
        etag=request.etag if "etag" in request.DESCRIPTOR.fields_by_name else "",
        validate_only=request.validate_only,
    )
