"""The agent's own key-value state. It survives the call; nothing else does. Needs the grant ``kv``.

Every value carries a version, so that two invocations at once cannot overwrite each other unseen:

    >>> from agentfactory_sdk import kv
    >>> kv.put("visits", "41", expected=kv.MUST_NOT_EXIST)
    1
    >>> entry = kv.get("visits")
    >>> kv.put("visits", "42", expected=entry.version)
    2
    >>> kv.put("visits", "43", expected=entry.version)
    Traceback (most recent call last):
    agentfactory_sdk.errors.ConflictError: expected version 1 of visits, got 2

``update`` reads, changes and writes, again if somebody else was faster:

    >>> kv.update("visits", lambda value: str(int(value or "0") + 1))
    Entry(value='43', version=3)
    >>> [*kv.keys("v")]
    ['visits']
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import _host
from .errors import ConflictError

MUST_NOT_EXIST = 0
"""As ``expected``: write only if the key does not exist yet."""

UPDATE_ATTEMPTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value and the version that a compare-and-swap names."""

    value: str
    version: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys in order; ``cursor`` continues after them, None means that there are no more."""

    keys: tuple[str, ...]
    cursor: str | None


def get(key: str) -> Entry | None:
    """The stored entry, or None."""
    found = _host.current().kv_get(key)
    return None if found is None else Entry(*found)


def put(key: str, value: str, *, expected: int | None = None, ttl_s: int | None = None) -> int:
    """Store ``value`` and return its new version.

    Args:
        key: text, in the namespace of the grant.
        value: text; JSON for anything with structure.
        expected: the version that must be there; ``MUST_NOT_EXIST`` for none; by default whatever is there is replaced.
        ttl_s: seconds after which the entry is gone, at least 1; by default it stays.

    Raises:
        ConflictError: another version is there.
        QuotaError: the grant's ``bytes_max`` would be exceeded.
    """
    return _host.current().kv_put(key, value, expected, ttl_s)


def delete(key: str, *, expected: int | None = None) -> None:
    """Remove the entry; ``expected`` as in ``put``. A key that is not there is not an error without ``expected``."""
    _host.current().kv_delete(key, expected)


def list(prefix: str = "", *, cursor: str | None = None, limit: int = 100) -> Page:  # noqa: A001
    """One page of keys that begin with ``prefix``."""
    keys, following = _host.current().kv_list(prefix, cursor, limit)
    return Page(tuple(keys), following)


def keys(prefix: str = "") -> Iterator[str]:
    """Every key that begins with ``prefix``, page by page."""
    cursor: str | None = None
    while True:
        page = list(prefix, cursor=cursor)
        yield from page.keys
        if page.cursor is None:
            return
        cursor = page.cursor


def update(key: str, change: Callable[[str | None], str], *, ttl_s: int | None = None) -> Entry:
    """Replace the value by ``change(value)``, again if somebody else wrote meanwhile, and return what was stored.

    ``ttl_s`` as in ``put``: each write says anew how long the entry stays.

    Raises:
        ConflictError: after ``UPDATE_ATTEMPTS_MAX`` attempts.
    """
    for attempt in range(UPDATE_ATTEMPTS_MAX):
        entry = get(key)
        value = change(entry.value if entry else None)
        try:
            expected = entry.version if entry else MUST_NOT_EXIST
            return Entry(value, put(key, value, expected=expected, ttl_s=ttl_s))
        except ConflictError:
            if attempt == UPDATE_ATTEMPTS_MAX - 1:
                raise
    raise AssertionError  # the loop returns or raises
