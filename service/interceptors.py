"""One thin guard in front of every server method: TLS version, identity, authorisation, deadline, errors, telemetry.

It answers for four traps of grpc.aio (each has a test): an unhandled exception's text goes to the client; AbortError is
an Exception, so a broad except swallows an intended abort; messages are parsed before a handler could look at the peer,
and what the parser says goes to the client too; TLS 1.2 is accepted.

What a method does with each outcome:

    answer                      → OK
    AgentFactoryError           → its status (`service.status`)
    AbortError                  → what the method itself sent
    our own time limit          → DEADLINE_EXCEEDED
    cancellation by the caller  → nothing is sent; the line in the log says CANCELLED or DEADLINE_EXCEEDED
    any other exception         → INTERNAL without its text; the text is in the log
"""

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import grpc
import grpc.aio

from service.guard_ports import Authorise, CallObserver, Context, Gate, NoObserver, People
from service.identity import Identity
from service.logs import AT_NS, FrequentEvent, gathered_lines, get_logger
from service.peer import Peer, UnauthenticatedError, peer_of
from service.status import ExhaustedError, UnavailableError, to_status, trailing_metadata
from service.telemetry import (
    RPC_SERVER_CALLS,
    RPC_SERVER_IN_FLIGHT,
    RPC_SERVER_SECONDS,
    TRACEPARENT_KEY,
    Attribute,
    Field,
    SpanName,
    Telemetry,
    current_trace_id,
    outside_of_traces,
    received_trace_context,
)
from templates.reasons import AgentFactoryError, Reason

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its stubs only

# Open to every authenticated peer, logged at DEBUG, and ended when the server drains.
_HEALTH: Final = "/grpc.health.v1.Health/"
_OPEN: Final = (_HEALTH, "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/")

RETRY_S: Final = 1.0
NO_PEER: Final = Peer(Identity.person("nobody", "nobody"), 0.0)
"""Stands where nobody was let in yet."""
_COMPONENT: Final = "rpc"
_OK: Final = "OK"
SETTLE_S: Final = 0.02
"""Longest that an ended call waits to be counted and logged."""


@unique
class Event(StrEnum):
    """What this module logs."""

    RPC_ANSWERED = "rpc_answered"
    RPC_FAILED = "rpc_failed"


class MalformedMessageError(AgentFactoryError):
    """The bytes of a request are not the message that the method takes."""

    reason = Reason.MALFORMED_MESSAGE


class DeadlineExceededError(AgentFactoryError):
    """The call took longer than this server lets any call take."""

    reason = Reason.DEADLINE_EXCEEDED


class DrainingError(UnavailableError):
    """The server is stopping; another one, or this one in a moment, will answer."""

    reason = Reason.SERVER_DRAINING


class IdentityRevokedError(UnauthenticatedError):
    """The identity, or this certificate of it, was revoked."""

    reason = Reason.IDENTITY_REVOKED


class StreamTooSlowError(AgentFactoryError):
    """The stream's receiver took nothing for too long, or the stream as a whole took too long."""

    reason = Reason.STREAM_TOO_SLOW


class InternalError(AgentFactoryError):
    """We erred. The peer learns that, and nothing else."""

    reason = Reason.INTERNAL


@dataclass(slots=True)
class _Call:
    """What is known of one call when its line is written."""

    method: str
    started: float
    peer: str = ""
    trace_id: str = ""
    code: str = _OK
    reason: str = ""
    error: BaseException | None = None
    took_s: float = 0.0
    ended_ns: int = 0


@dataclass(slots=True)
class LiveStream:
    """A stream in progress; ``stalled_since``: when its receiver began not to take what is written, 0 for now."""

    method: str
    peer: Peer
    context: Context
    started: float
    endless: bool
    stalled_since: float = 0.0
    ended_for: AgentFactoryError | None = None
    answers: Any = None
    """The generator behind it, where it is one."""
    ending: asyncio.Task[None] | None = None


class ServerGuard(grpc.aio.ServerInterceptor):
    """The only interceptor of a server.

    Args:
        trust_domain: the only one whose identities are let in.
        authorise: ``authorise(peer, method)`` raises `PermissionDeniedError` (or any AgentFactoryError) to refuse;
            ``method`` is "/package.Service/Method". Health and reflection are open to every authenticated peer.
        telemetry: of this process.
        unary_deadline_s: unary calls without a deadline, or with a longer one, end after this.
        calls_max, streams_max: how many unary calls, and streams, may be in progress.
        ended_by_drain: streaming methods that `begin_drain` ends instead of waiting for them.
        gate: asked of every call before ``authorise``; None: nothing is.
        people: judges calls that show no certificate; None: there are none.
        clock: seconds since the epoch, for certificates that run out while their connection lives.
        observer: of calls and what becomes of them.
    """

    def __init__(
        self,
        *,
        trust_domain: str,
        authorise: Authorise,
        telemetry: Telemetry,
        unary_deadline_s: float = 120.0,
        calls_max: int = 4096,
        streams_max: int = 16_384,
        ended_by_drain: Collection[str] = (),
        gate: Gate | None = None,
        people: People | None = None,
        clock: Callable[[], float] = time.time,  # noqa: TID251 -- the default of an edge; tests pass their own
        observer: CallObserver | None = None,
    ) -> None:
        self._observer = observer or NoObserver()
        self._trust_domain = trust_domain
        self._authorise = authorise
        self._telemetry = telemetry
        self._unary_deadline_s = unary_deadline_s
        self._calls_max = calls_max
        self._streams_max = streams_max
        self._ended_by_drain = frozenset(ended_by_drain)
        self._gate = gate
        self._people = people
        self._clock = clock
        self._revoked: frozenset[str] = frozenset()
        self._live: dict[asyncio.Task[Any], LiveStream] = {}
        self._calls = 0
        self._streams = 0
        self._draining = False
        self._endless: set[asyncio.Task[Any]] = set()
        self._ended: list[_Call] = []
        self._settling: asyncio.TimerHandle | None = None
        self._guarded: dict[str, Handler] = {}
        self._log = get_logger(_COMPONENT)
        self._answered = FrequentEvent(_COMPONENT, Event.RPC_ANSWERED)
        telemetry.measure(RPC_SERVER_IN_FLIGHT, lambda: self._calls + self._streams)

    @property
    def in_flight(self) -> int:
        """Calls and streams in progress."""
        return self._calls + self._streams

    def begin_drain(self) -> None:
        """Refuse new calls, health excepted, and end the streams that would never end by themselves. Idempotent."""
        self._draining = True
        for task in self._endless:
            task.cancel()

    def revoke(self, revoked: frozenset[str]) -> None:
        """Refuse these identities (URIs) and certificates (``serial:…``) from now on, and end their streams.

        Calls in progress that answer once are let finish; ``unary_deadline_s`` is the longest that they may.
        """
        if revoked == self._revoked:
            return
        self._revoked = revoked
        self.end_streams(
            lambda stream: IdentityRevokedError("the identity was revoked") if self._is_revoked(stream.peer) else None
        )

    def end_streams(self, judge: Callable[[LiveStream], AgentFactoryError | None]) -> int:
        """End every stream for which ``judge`` has a reason, with that as its status; return how many."""
        count = 0
        for task, stream in self._live.items():
            if stream.ended_for is None and (error := judge(stream)) is not None:
                stream.ended_for = error
                stream.ending = asyncio.get_running_loop().create_task(self._end(task, stream))
                count += 1
        return count

    async def _end(self, task: asyncio.Task[Any], stream: LiveStream) -> None:
        """Stop what a stream is doing, now.

        grpc takes no status behind a message that is still under way: cancelled in there, a stream would never end for
        its receiver. What makes the answers is closed instead, and the status follows when the receiver has taken the
        message, or with the connection; until then the stream counts among `in_flight`, and holds one message.
        """
        if stream.answers is None or not stream.stalled_since:
            task.cancel()
            return
        try:
            await stream.answers.aclose()
        except Exception as error:  # noqa: BLE001 -- the edge: what a servicer does while it is closed ends here
            self._log.error(Event.RPC_FAILED, **{Field.METHOD: stream.method}, exc_info=error)

    def _is_revoked(self, peer: Peer) -> bool:
        return peer.uri in self._revoked or peer.serial in self._revoked

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the guarded handler, made once per method: only methods that exist are remembered."""
        method = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # grpc answers UNIMPLEMENTED
            guarded = self._guarded[method] = self._guard(method, handler)
        return guarded

    def _guard(self, method: str, handler: Any) -> "Handler":
        parse = _parser(handler.request_deserializer)
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                # Neither parsed nor serialised by grpc, which would do the first before the peer is checked, and send
                # the texts of exceptions in both.
                behaviour = self._unary(method, handler.unary_unary, parse, handler.response_serializer)
                return grpc.unary_unary_rpc_method_handler(behaviour)
            case True, False:
                behaviour = self._unary(method, handler.stream_unary, None, handler.response_serializer)
                return grpc.stream_unary_rpc_method_handler(behaviour, request_deserializer=parse)
            case False, True:
                behaviour = self._stream(method, handler.unary_stream, parse)
                return grpc.unary_stream_rpc_method_handler(behaviour, response_serializer=handler.response_serializer)
            case _:
                behaviour = self._stream(method, handler.stream_stream, None)
                return grpc.stream_stream_rpc_method_handler(
                    behaviour, request_deserializer=parse, response_serializer=handler.response_serializer
                )

    def _unary(
        self,
        method: str,
        behaviour: Callable[[Any, Context], Awaitable[Any]],
        parse: Callable[[bytes], Any] | None,
        serialise: Callable[[Any], bytes] | None,
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        if not inspect.iscoroutinefunction(behaviour):
            raise TypeError(f"expected a coroutine function behind {method}, got {behaviour!r}")
        attributes: dict[str, Attribute] = {Field.METHOD: method}
        observer = self._observer_of(method)

        async def guarded(request: Any, context: Context) -> Any:
            call = _Call(method, time.perf_counter())
            self._calls += 1
            observer.begun(method, context)
            try:
                with self._telemetry.span(SpanName.RPC_SERVER, attributes, parent=_trace_parent(context)) as span:
                    call.trace_id = current_trace_id()
                    if self._people is not None:
                        await self._people.identify(context)
                    self._admit(call, context, observer, full=self._calls > self._calls_max)
                    span.set(Field.PEER, call.peer)
                    if parse is not None:
                        request = parse(request)
                    remaining = cast("float | None", context.time_remaining())  # None: no deadline
                    if remaining is not None and remaining <= self._unary_deadline_s:
                        answer = await behaviour(request, context)  # grpc itself cancels us when the time is up
                    else:
                        answer = await self._within_limit(behaviour(request, context))
                    await observer.answered()
                    return answer if serialise is None else serialise(answer)
            except BaseException as error:
                judged = _judge(error, call, context)
                if judged is None:
                    raise
                failure = judged
                await observer.refused(failure, request, trace_id=call.trace_id)
            finally:
                self._calls -= 1
                self._finish(call)
            return await _abort(call, context, failure)

        return guarded

    def _stream(
        self,
        method: str,
        behaviour: Callable[[Any, Context], Awaitable[None] | AsyncIterator[Any]],
        parse: Callable[[bytes], Any] | None,
    ) -> Callable[[Any, Context], Awaitable[None]]:
        generates = inspect.isasyncgenfunction(behaviour)
        if not generates and not inspect.iscoroutinefunction(behaviour):
            raise TypeError(
                f"expected a coroutine function or asynchronous generator behind {method}, got {behaviour!r}"
            )
        attributes: dict[str, Attribute] = {Field.METHOD: method}
        endless = method.startswith(_OPEN) or method in self._ended_by_drain
        observer = self._observer_of(method)

        async def guarded(request: Any, context: Context) -> None:
            call = _Call(method, time.perf_counter())
            task = asyncio.current_task()
            stream = LiveStream(method, NO_PEER, context, call.started, endless)
            self._streams += 1
            observer.begun(method, context)
            try:
                with self._telemetry.span(SpanName.RPC_SERVER, attributes, parent=_trace_parent(context)) as span:
                    call.trace_id = current_trace_id()
                    if self._people is not None:
                        await self._people.identify(context)
                    stream.peer = self._admit(call, context, observer, full=self._streams > self._streams_max)
                    if task is not None:
                        self._live[task] = stream
                    span.set(Field.PEER, call.peer)
                    if parse is not None:
                        request = parse(request)
                    if endless and task is not None:
                        self._endless.add(task)
                    result: Any = behaviour(request, context)
                    if generates:
                        # Written here, not by grpc, so that an answer that cannot be serialised is caught here too.
                        stream.answers = result
                        async with aclosing(result):
                            async for answer in result:
                                stream.stalled_since = time.perf_counter()
                                await context.write(answer)
                                stream.stalled_since = 0.0
                        _go_on(stream)
                    else:
                        await result
                    await observer.answered()
                    return
            except BaseException as error:
                judged = self._judge_stream(error, task, call, stream)
                if judged is None:
                    raise
                failure = judged
                await observer.refused(failure, request, trace_id=call.trace_id)
            finally:
                self._streams -= 1
                if task is not None:
                    self._endless.discard(task)
                    self._live.pop(task, None)
                self._finish(call)
            await _abort(call, context, failure)

        return guarded

    def _observer_of(self, method: str) -> CallObserver:
        return NoObserver() if method.startswith(_OPEN) else self._observer

    def _admit(self, call: _Call, context: Context, observer: CallObserver, *, full: bool) -> Peer:
        """Refuse who may not call, before a byte of the request is looked at."""
        peer = peer_of(context)
        call.peer = peer.uri
        observer.identified(peer)
        if peer.identity.trust_domain != self._trust_domain:
            raise UnauthenticatedError(f"expected an identity of {self._trust_domain}, got {peer.identity}")
        if peer.valid_until <= self._clock():
            raise UnauthenticatedError(
                f"expected a certificate that is still valid, got an expired one of {peer.identity}"
            )
        if self._revoked and self._is_revoked(peer):
            raise IdentityRevokedError(f"expected an identity that is not revoked, got {peer.uri}")
        if full:
            raise ExhaustedError("too many calls in progress", retry_s=RETRY_S)
        if self._gate is not None:
            self._gate.admit(peer, call.method, context)
        if not call.method.startswith(_OPEN):
            if self._draining:
                raise DrainingError("the server is stopping", retry_s=RETRY_S)
            self._authorise(peer, call.method)
        return peer

    async def _within_limit(self, work: Awaitable[Any]) -> Any:
        limit = asyncio.timeout(self._unary_deadline_s)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceededError(f"expected an end within {self._unary_deadline_s:g} s") from None
            raise

    def _judge_stream(
        self, error: BaseException, task: asyncio.Task[Any] | None, call: _Call, stream: LiveStream
    ) -> AgentFactoryError | None:
        context = stream.context
        if isinstance(error, asyncio.CancelledError) and stream.ended_for is not None and task is not None:
            task.uncancel()
            return stream.ended_for
        ours = self._draining and task in self._endless and not context.cancelled()
        if isinstance(error, asyncio.CancelledError) and ours and task is not None:
            task.uncancel()
            return DrainingError("the server is stopping", retry_s=RETRY_S)
        return _judge(error, call, context)

    def _finish(self, call: _Call) -> None:
        """Have it counted and logged a little later, together with others: nobody waits for that, and it is cheaper."""
        call.took_s, call.ended_ns = time.perf_counter() - call.started, time.time_ns()
        self._ended.append(call)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self.settle, context=outside_of_traces())

    def settle(self) -> None:
        """Count and log the calls that have ended; called by itself, and before the process ends."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        ended, self._ended = self._ended, []
        for (method, code), calls in Counter([(call.method, call.code) for call in ended]).items():
            self._telemetry.count(RPC_SERVER_CALLS, method, code, amount=calls)
        with gathered_lines():
            for call in ended:
                self._telemetry.observe(RPC_SERVER_SECONDS, call.took_s, call.method)
                self._tell(call)

    def _tell(self, call: _Call) -> None:
        took_s = round(call.took_s, 6)
        if call.code == _OK and not call.trace_id and not call.method.startswith(_OPEN):
            self._answered.log(
                (Field.METHOD, call.method),
                (Field.PEER, call.peer),
                (Field.CODE, call.code),
                amount=(Field.TOOK_S, took_s),
                at_ns=call.ended_ns,
            )
            return
        facts: dict[str, Any] = {
            Field.METHOD: call.method,
            Field.PEER: call.peer,
            Field.CODE: call.code,
            Field.TOOK_S: took_s,
            AT_NS: call.ended_ns,
        }
        if call.reason:
            facts[Field.REASON] = call.reason
        if call.trace_id:
            facts[Field.TRACE_ID] = call.trace_id
        if call.error is not None:
            self._log.error(Event.RPC_FAILED, **facts, exc_info=call.error)
        elif call.method.startswith(_OPEN):
            self._log.debug(Event.RPC_ANSWERED, **facts)
        else:
            self._log.info(Event.RPC_ANSWERED, **facts)


def _parser(deserialise: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        if deserialise is None:
            return data
        try:
            return deserialise(data)
        except Exception as error:  # protobuf's DecodeError, or whatever another parser raises
            raise MalformedMessageError("expected a message of this method's type, got other bytes") from error

    return parse


def _trace_parent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == TRACEPARENT_KEY:
            return received_trace_context(value)
    return ""


def _go_on(stream: LiveStream) -> None:
    """Raise why ``stream`` was ended while its last message was under way, if it was."""
    if stream.ended_for is not None:
        raise stream.ended_for


def _code_name(context: Context) -> str:
    return context.code().name


def _judge(error: BaseException, call: _Call, context: Context) -> AgentFactoryError | None:
    """Return what to send, or nothing when the exception must go on: see the table at the top."""
    match error:
        case AgentFactoryError():
            return error
        case grpc.aio.AbortError():
            call.code = _code_name(context)
        case asyncio.CancelledError():
            _note_cancellation(call, context)
        case Exception():
            call.error = error
            return InternalError("internal error; the server's log has the details")
        case _:
            call.code = type(error).__name__  # the process is being ended
    return None


def _note_cancellation(call: _Call, context: Context) -> None:
    late = context.time_remaining() == 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    call.code = code.name
    call.reason = str(Reason.DEADLINE_EXCEEDED if late else Reason.CANCELLED)


async def _abort(call: _Call, context: Context, failure: AgentFactoryError) -> NoReturn:
    status = to_status(failure)
    code = _CODES[status.code]
    call.code = code.name
    call.reason = str(failure.reason)
    await context.abort(code, status.message, trailing_metadata(status))
    raise AssertionError  # abort never returns


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
