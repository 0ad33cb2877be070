"""Page tokens of list methods (AIP-158): opaque to callers, and nothing but a number inside."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from templates.reasons import AgentFactoryError, Reason

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 200
PAGE_BYTES_MAX = 2 * 1024 * 1024


class Message(Protocol):
    """What a protobuf message can say about itself."""

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's name
        ...


M = TypeVar("M", bound=Message)


def fitting(messages: Iterable[M]) -> list[M]:
    """Return as many of ``messages`` as fit into one answer, at least one; the rest is for the next page."""
    page: list[M] = []
    left = PAGE_BYTES_MAX
    for message in messages:
        left -= message.ByteSize()
        if page and left < 0:
            break
        page.append(message)
    return page


class PageTokenError(AgentFactoryError):
    """A page token that no list method gave."""

    reason = Reason.INVALID_REQUEST


def page_size(asked: int) -> int:
    """Return how many entries a page has: the default for 0, never more than the largest.

    Raises:
        PageTokenError: a negative number.
    """
    if asked < 0:
        raise PageTokenError(f"expected a page size from 0, got {asked}")
    return min(asked or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def token_of(position: int) -> str:
    return f"p{position}"


def position_of(token: str) -> int | None:
    """Return the position behind ``token``; None for the first page.

    Raises:
        PageTokenError: not a token.
    """
    if not token:
        return None
    digits = token[1:]
    if token[0] != "p" or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise PageTokenError("expected a page token as the page before gave it")
    return int(digits)
