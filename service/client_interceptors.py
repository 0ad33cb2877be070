"""Client side of the guard: trace context goes out, statuses come back as `RemoteError`, safe calls are retried.

Not grpc's own interceptors: those start a task (aio) or build a chain of futures (sync) for each call. These channels
wrap what a stub asks a channel for, once per method, and add two frames to a call.
"""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import grpc
import grpc.aio

from service.status import RemoteError, from_rpc_error
from service.telemetry import trace_metadata
from templates.reasons import Reason

DEFAULT_TIMEOUT_S: Final = 30.0

_RETRIED: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which methods ("/package.Service/Method") may be sent again, how often, and how patiently.

    Retried are UNAVAILABLE, and RESOURCE_EXHAUSTED when the server says when to come back; every method after
    RATE_LIMITED, which refused it before it began. Nothing is retried past the call's deadline; the server's RetryInfo
    is honoured.

    ``turn_wait_s_max`` is how long in all a call may wait for its turn after RATE_LIMITED, as often as it takes: that
    moves its deadline, so that a person who does many things at once finishes them, only later.
    """

    idempotent_methods: frozenset[str] = frozenset()
    attempts_max: int = 4
    backoff_first_s: float = 0.05
    backoff_max_s: float = 2.0
    turn_wait_s_max: float = 0.0

    def pause_s(
        self, method: str, error: RemoteError, *, attempt: int, remaining_s: float, jitter: float
    ) -> float | None:
        """Return how long to wait before sending again, or nothing when the error stands.

        Args:
            method: what was called.
            error: what came back.
            attempt: how often it was sent, from 1.
            remaining_s: until the call's deadline.
            jitter: 0 … 1, drawn anew each time: callers that failed together come back apart.
        """
        # What is refused for its rate was not begun: sending it again repeats nothing.
        is_safe = method in self.idempotent_methods or error.reason is Reason.RATE_LIMITED
        if not is_safe or attempt >= self.attempts_max or error.code not in _RETRIED:
            return None
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_s is None:
            return None  # a message that is too large stays too large
        backoff_s = min(self.backoff_max_s, self.backoff_first_s * 2 ** (attempt - 1))
        pause_s = max(error.retry_s or 0.0, backoff_s * (0.5 + jitter / 2))
        return pause_s if pause_s < remaining_s else None


@dataclass(slots=True)
class _Sending:
    """One call on its way: how often it was sent, and until when it may be sent again."""

    retry: RetryPolicy
    method: str
    ends: float
    attempt: int = 1
    waited_s: float = 0.0

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends - time.monotonic())

    def pause_s(self, error: RemoteError) -> float | None:
        """Return how long to wait before it is sent again, or nothing when the error stands."""
        jitter = secrets.randbelow(1001) / 1000
        if error.reason is Reason.RATE_LIMITED:
            pause_s = (error.retry_s or 0.0) + self.retry.backoff_first_s * jitter
            if self.waited_s + pause_s <= self.retry.turn_wait_s_max:
                self.waited_s += pause_s
                self.ends += pause_s
                return pause_s
        remaining_s = self.ends - time.monotonic()
        found = self.retry.pause_s(self.method, error, attempt=self.attempt, remaining_s=remaining_s, jitter=jitter)
        self.attempt += 1
        return found


def intercept_channel(
    channel: grpc.Channel, retry: RetryPolicy, *, default_timeout_s: float = DEFAULT_TIMEOUT_S
) -> grpc.Channel:
    """Return ``channel`` with errors as `RemoteError`, trace context, retries, and a deadline for every unary call.

    ``future`` and ``with_call`` of a method are sent once; a future's error is grpc's own (see `from_rpc_error`).
    """
    return _Channel(channel, retry, default_timeout_s)


def intercept_aio_channel(
    channel: grpc.aio.Channel, retry: RetryPolicy, *, default_timeout_s: float = DEFAULT_TIMEOUT_S
) -> grpc.aio.Channel:
    """Do the same for an asyncio channel. Unary methods become coroutines; cancel the task that awaits them."""
    return _AioChannel(channel, retry, default_timeout_s)


@dataclass(frozen=True, slots=True)
class _Again:
    """How a call whose answers stream is sent once more."""

    sending: _Sending
    send: Callable[[], Any]


_ONCE: Final = RetryPolicy(attempts_max=1)


def _for_its_turn(retry: RetryPolicy) -> RetryPolicy:
    """Return the policy of calls that are sent again after RATE_LIMITED only."""
    return replace(retry, idempotent_methods=frozenset())


def _goes_once(messages: Any) -> bool:
    """Whether these can be sent but once: what an iterator gave it cannot give again."""
    if isinstance(messages, AsyncIterable):
        return isinstance(messages, AsyncIterator)
    return not isinstance(messages, Iterable) or isinstance(messages, Iterator)


def _end_of(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


def _metadata(given: Any) -> Any:
    added = trace_metadata()
    if not added:
        return given
    return (*given, *added) if given else added


class _Method:
    """One method of a channel, with what every kind of call needs."""

    def __init__(self, call: Any, method: str, retry: RetryPolicy, default_timeout_s: float) -> None:
        self._call = call
        self._method = method
        self._retry = retry
        self._default_timeout_s = default_timeout_s

    def _sending(self, request: Any, timeout: float | None) -> _Sending:  # noqa: ARG002 -- of those that look at it
        timeout = self._default_timeout_s if timeout is None else timeout
        return _Sending(self._retry, self._method, time.monotonic() + timeout)


class _Unary(_Method):
    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        sending = self._sending(request, timeout)
        while True:
            try:
                return self._call(
                    self._message(request), timeout=sending.left_s, metadata=_metadata(metadata), **options
                )
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                pause_s = sending.pause_s(failure)
                if pause_s is None:
                    raise failure from None
            time.sleep(pause_s)

    def _message(self, request: Any) -> Any:
        return request

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        timeout = self._default_timeout_s if timeout is None else timeout
        try:
            return self._call.with_call(request, timeout=timeout, metadata=_metadata(metadata), **options)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        timeout = self._default_timeout_s if timeout is None else timeout
        return self._call.future(request, timeout=timeout, metadata=_metadata(metadata), **options)


class _Upload(_Unary):
    """A call whose request is many messages. Those that can be iterated again are sent again after RATE_LIMITED."""

    def _sending(self, request: Any, timeout: float | None) -> _Sending:
        sending = super()._sending(request, timeout)
        sending.retry = _ONCE if _goes_once(request) else _for_its_turn(self._retry)
        return sending

    def _message(self, request: Any) -> Any:
        return iter(request)


class _Download(_Method):
    """A call whose answers are many; sent again after RATE_LIMITED, which comes before the first of them."""

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        sending = _Sending(_for_its_turn(self._retry), self._method, _end_of(timeout))

        def send() -> Any:
            left_s = None if timeout is None else sending.left_s
            return self._call(request, timeout=left_s, metadata=_metadata(metadata), **options)

        return _Stream(send(), _Again(sending, send))


class _Streaming(_Method):
    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return _Stream(self._call(request, timeout=timeout, metadata=_metadata(metadata), **options))


class _Stream(Iterator[Any]):
    """The answers of a streaming call; ``cancel`` ends it."""

    def __init__(self, call: Any, again: _Again | None = None) -> None:
        self._call = call
        self._again = again

    def __next__(self) -> Any:
        while True:
            try:
                answer = next(self._call)
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                pause_s = None if self._again is None else self._again.sending.pause_s(failure)
                if self._again is None or pause_s is None:
                    raise failure from None
                time.sleep(pause_s)
                self._call = self._again.send()
            else:
                self._again = None
                return answer

    def cancel(self) -> None:
        self._call.cancel()


class _Channel(grpc.Channel):
    def __init__(self, channel: grpc.Channel, retry: RetryPolicy, default_timeout_s: float) -> None:
        self._channel = channel
        self._made = (retry, default_timeout_s)

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Unary(self._channel.unary_unary(method, *arguments, **options), method, *self._made)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Download(self._channel.unary_stream(method, *arguments, **options), method, *self._made)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Upload(self._channel.stream_unary(method, *arguments, **options), method, *self._made)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Streaming(self._channel.stream_stream(method, *arguments, **options), method, *self._made)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002 -- grpc's signature
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> bool | None:
        self.close()
        return None


class _AioUnary(_Method):
    async def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:  # noqa: ASYNC109 -- grpc's signature
        sending = self._sending(request, timeout)
        while True:
            try:
                return await self._call(request, timeout=sending.left_s, metadata=_metadata(metadata), **options)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                pause_s = sending.pause_s(failure)
                if pause_s is None:
                    raise failure from None
            await asyncio.sleep(pause_s)


class _AioUpload(_AioUnary):
    """See `_Upload`."""

    def _sending(self, request: Any, timeout: float | None) -> _Sending:
        sending = super()._sending(request, timeout)
        sending.retry = _ONCE if _goes_once(request) else _for_its_turn(self._retry)
        return sending


class _AioDownload(_Method):
    """See `_Download`."""

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        sending = _Sending(_for_its_turn(self._retry), self._method, _end_of(timeout))

        def send() -> Any:
            left_s = None if timeout is None else sending.left_s
            return self._call(request, timeout=left_s, metadata=_metadata(metadata), **options)

        return AioStream(send(), _Again(sending, send))


class _AioStreaming(_Method):
    def __call__(self, request: Any = None, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        arguments = () if request is None else (request,)
        return AioStream(self._call(*arguments, timeout=timeout, metadata=_metadata(metadata), **options))


class AioStream(AsyncIterator[Any]):
    """The answers of a streaming call: iterate, or `read` and `write` where both sides stream."""

    def __init__(self, call: Any, again: _Again | None = None) -> None:
        self._call = call
        self._again = again
        self._answers: AsyncIterator[Any] | None = None

    async def __anext__(self) -> Any:
        while True:
            if self._answers is None:
                self._answers = aiter(self._call)
            try:
                answer = await anext(self._answers)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                pause_s = None if self._again is None else self._again.sending.pause_s(failure)
                if self._again is None or pause_s is None:
                    raise failure from None
                await asyncio.sleep(pause_s)
                self._call, self._answers = self._again.send(), None
            else:
                self._again = None
                return answer

    async def read(self) -> Any:
        """Return the next answer, or ``grpc.aio.EOF``."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def write(self, message: Any) -> None:
        """Send one message."""
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def done_writing(self) -> None:
        """Say that no more messages come."""
        await self._call.done_writing()

    def cancel(self) -> bool:
        """End the call."""
        cancelled: bool = self._call.cancel()
        return cancelled


class _AioChannel(grpc.aio.Channel):
    def __init__(self, channel: grpc.aio.Channel, retry: RetryPolicy, default_timeout_s: float) -> None:
        self._channel = channel
        self._made = (retry, default_timeout_s)

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _AioUnary(self._channel.unary_unary(method, *arguments, **options), method, *self._made)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _AioDownload(self._channel.unary_stream(method, *arguments, **options), method, *self._made)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _AioUpload(self._channel.stream_unary(method, *arguments, **options), method, *self._made)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _AioStreaming(self._channel.stream_stream(method, *arguments, **options), method, *self._made)

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 -- grpc's signature
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> bool | None:
        await self.close()
        return None
