"""One request that changes something: who asks for what, under which id, on which etag, or only to see (ADR 19).

`Ask` travels from the RPC to the transaction of the effect, which stores the answer beside it: whoever asks again under
the same id gets that answer, also from another process after a SIGKILL. Pure.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from templates.reasons import AgentFactoryError, Reason

ANSWERS_KEPT: Final = timedelta(days=7)
"""How long the answer to a request id is remembered."""

# RFC 9562, version 4, in either case (AIP-155).
_UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)

T_contra = TypeVar("T_contra", contravariant=True)


class RequestIdInvalidError(AgentFactoryError):
    """A request id that is no UUID4: short ones collide, and a collision gives somebody another one's answer."""

    reason = Reason.INVALID_REQUEST

    def __init__(self, request_id: str) -> None:
        super().__init__(f"expected a request_id that is a UUID4, or none, got {request_id[:80]!r}")


class RequestIdReusedError(AgentFactoryError):
    """The request id belongs to an earlier, different request of this person."""

    reason = Reason.REQUEST_ID_REUSED

    def __init__(self, request_id: str, *, method: str) -> None:
        super().__init__(
            f"expected a new request id, got {request_id}, under which this person asked for another {method}",
            metadata={"request_id": request_id},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What makes two requests the same: ``sha256`` is of everything that was asked but the id.

    ``request_id`` may be empty: such a request is never the same as another.
    """

    person: str
    method: str
    request_id: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the transaction of an effect stores beside it; ``response`` is the message as it was sent."""

    asked: Asked
    response: bytes
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Generic[T_contra]):
    """A mutation on its way. ``encode`` turns its result into the answer's bytes; it must be quick, and not fail."""

    asked: Asked
    encode: Callable[[T_contra], bytes]
    etag: str = ""
    validate_only: bool = False

    @property
    def person(self) -> str:
        return self.asked.person

    def answered(self, result: T_contra, at: datetime) -> Answered:
        return Answered(asked=self.asked, response=self.encode(result), at=at)


def unasked(person: str = "") -> Ask[object]:
    """Return the ask of what nobody asked for by an RPC: nothing is remembered of it."""
    return Ask(asked=Asked(person=person, method=""), encode=lambda _: b"")


def require_request_id(text: str) -> str:
    """Return ``text`` in lower case; raise `RequestIdInvalidError` unless it is empty or a UUID4."""
    if text and not _UUID4.fullmatch(text):
        raise RequestIdInvalidError(text)
    return text.lower()


def require_same(asked: Asked, earlier: Asked) -> None:
    """Raise `RequestIdReusedError` unless both are the same request."""
    if (asked.method, asked.sha256) != (earlier.method, earlier.sha256):
        raise RequestIdReusedError(asked.request_id, method=earlier.method.rpartition(".")[2] or "thing")


def digest_of(method: str, content: bytes) -> str:
    """Return the digest that stands for a request."""
    return hashlib.sha256(method.encode() + b"\0" + content).hexdigest()
