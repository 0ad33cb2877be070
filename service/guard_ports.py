"""Whom the guard of a server asks and tells (`service.interceptors.ServerGuard`): gate, people, observer of calls."""

from collections.abc import Callable
from typing import Any, Protocol

import grpc.aio

from service.peer import Peer
from templates.reasons import AgentFactoryError

Context = grpc.aio.ServicerContext[Any, Any]
Authorise = Callable[[Peer, str], None]


class Gate(Protocol):
    """What is asked of a call before it is asked whether its peer may: `service.access.gate`."""

    def admit(self, peer: Peer, method: str, context: Context, /) -> None:
        """Raise an `AgentFactoryError` to refuse."""
        ...


class People(Protocol):
    """Judges calls without a certificate: `service.access.token_door`."""

    async def identify(self, context: Context, /) -> None:
        """Have the call adopt its peer, or raise an `AgentFactoryError`."""
        ...


class CallObserver(Protocol):
    """Hears of every call but those of health and reflection, in the call's own task and before it is answered."""

    def begun(self, method: str, context: Context) -> None:
        """Hear of a call; nobody knows yet whose it is."""
        ...

    def identified(self, peer: Peer) -> None:
        """Hear who showed a certificate or a token that is good; whether they may call was not asked yet."""
        ...

    async def answered(self) -> None:
        """Hear that it went well; what this raises becomes the answer."""
        ...

    async def refused(self, failure: AgentFactoryError, request: Any, *, trace_id: str) -> None:
        """Hear of the error that is about to be sent. ``request`` is its message, its bytes, or None. Never raises."""
        ...


class NoObserver:
    """Where nobody wants to hear of calls."""

    def begun(self, method: str, context: Context) -> None:
        pass

    def identified(self, peer: Peer) -> None:
        pass

    async def answered(self) -> None:
        pass

    async def refused(self, failure: AgentFactoryError, request: Any, *, trace_id: str) -> None:
        pass
