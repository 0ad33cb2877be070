"""A small HTTP/1.1 responder on loopback: /healthz, /readyz, /metrics. No dependency, every read bounded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether to send traffic here, and the facts behind that, shown by /readyz as JSON."""

    ready: bool
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


class ObservationServer:
    """``async with ObservationServer(...) as observed``: listens until left. /healthz answers as long as the loop turns."""

    def __init__(
        self, *, host: str, port: int, readiness: Callable[[], Readiness], metrics: Callable[[], bytes]
    ) -> None:
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The bound port: what port 0 became."""
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
