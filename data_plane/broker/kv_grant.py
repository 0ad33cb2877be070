"""The kv grant: what a guest may ask of its key-value state, and what a write comes to.

Values are text with a version that grows with every write of the scope, so that a key which was deleted and made again
never shows an old version. The quota counts keys and values in UTF-8 bytes, over the whole scope. An entry that has
expired is not there any more, for anybody and for the quota, whenever its bytes are collected.
"""

from dataclasses import dataclass
from typing import TypeAlias

from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from templates.grants import KvGrant

KEY_BYTES_MAX = 512
LIST_KEYS_MAX = 1_000
TTL_S_MAX = 10 * 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class KvGet:
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPut:
    """``expected``: the version to replace, 0 for a key that must not exist yet, None for whatever is there.

    ``ttl_s``: how long it is there, in seconds; None for as long as nobody deletes it.
    """

    key: str
    value: str
    expected: int | None
    ttl_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KvDelete:
    key: str
    expected: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KvList:
    """Keys that start with ``prefix`` and come after ``after``, in the order of their UTF-8 bytes."""

    prefix: str
    after: str
    count_max: int


KvRequest: TypeAlias = KvGet | KvPut | KvDelete | KvList


@dataclass(frozen=True, slots=True)
class KvEntry:
    value: str
    version: int


def read_kv_request(function: str, members: Members) -> KvRequest:
    """Check one request of a guest.

    Raises:
        HostRefusal: kind ``invalid``.
    """
    match function:
        case "get":
            members.require_only("key")
            return KvGet(key=_key(members))
        case "put":
            members.require_only("key", "value", "expected", "ttl_s")
            return KvPut(
                key=_key(members),
                value=members.text("value"),
                expected=members.count_or_none("expected"),
                ttl_s=_ttl_s(members),
            )
        case "delete":
            members.require_only("key", "expected")
            return KvDelete(key=_key(members), expected=members.count_or_none("expected"))
        case "list":
            members.require_only("prefix", "cursor", "limit")
            count = members.count_or_none("limit")
            return KvList(
                prefix=members.text("prefix", default=""),
                after=members.text("cursor", default=""),
                count_max=LIST_KEYS_MAX if not count else min(count, LIST_KEYS_MAX),
            )
        case _:
            raise HostRefusal(ErrorKind.INVALID, f"expected get, put, delete or list, got {function[:40]!r}")


def require_expected(found: KvEntry | None, expected: int | None) -> None:
    """Compare before a write.

    Raises:
        HostRefusal: kind ``conflict``; ``not_found`` where a certain version was expected and there is nothing.
    """
    if expected is None:
        return
    if found is None:
        if expected != 0:
            raise HostRefusal(ErrorKind.NOT_FOUND, f"expected version {expected}, got no such key")
    elif found.version != expected:
        wanted = "no such key" if expected == 0 else f"version {expected}"
        raise HostRefusal(ErrorKind.CONFLICT, f"expected {wanted}, got version {found.version}")


def used_after_put(request: KvPut, found: KvEntry | None, *, used_bytes: int, grant: KvGrant) -> int:
    """Return the scope's use after this write.

    Raises:
        HostRefusal: kind ``quota``. A write that frees bytes is never refused for the quota.
    """
    before = 0 if found is None else entry_bytes(request.key, found.value)
    after = entry_bytes(request.key, request.value)
    total = used_bytes - before + after
    if total > grant.bytes_max and after > before:
        raise HostRefusal(ErrorKind.QUOTA, f"expected at most {grant.bytes_max} bytes of state, got {total}")
    return total


def entry_bytes(key: str, value: str) -> int:
    return len(key.encode()) + len(value.encode())


def _key(members: Members) -> str:
    key = members.text("key")
    if not key or "\0" in key or len(key.encode()) > KEY_BYTES_MAX:
        raise HostRefusal(ErrorKind.INVALID, f"expected a key of 1 to {KEY_BYTES_MAX} bytes without NUL")
    return key


def _ttl_s(members: Members) -> int | None:
    ttl_s = members.count_or_none("ttl_s")
    if ttl_s is not None and not 0 < ttl_s <= TTL_S_MAX:
        raise HostRefusal(ErrorKind.INVALID, f"expected ttl_s from 1 to {TTL_S_MAX} seconds, got {ttl_s}")
    return ttl_s
