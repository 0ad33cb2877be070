"""The keys of the issuer of tokens: fetched, kept fresh, and asked for anew for an unknown id, but not at any price.

fresh_s    how often they are fetched in the background
stale_s    without a fetch that worked for this long they are used no longer: the issuer may have withdrawn one
pause_s    least time between two fetches, whoever asks: tokens with invented key ids are no way to hammer the issuer
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from service.access.tokens import IssuerKeys, Key, UnknownKeyError, read_keys
from service.logs import get_logger
from service.status import UnavailableError
from service.telemetry import Field
from templates.reasons import Reason

log = get_logger("access")

NO_KEYS: Final[IssuerKeys] = MappingProxyType({})


@unique
class Event(StrEnum):
    """What this module logs."""

    KEYS_CHANGED = "issuer_keys_changed"
    KEYS_UNAVAILABLE = "issuer_keys_unavailable"


class IssuerUnavailableError(UnavailableError):
    """The issuer's keys could not be fetched: whether the token is good cannot be told now."""

    reason = Reason.ISSUER_UNAVAILABLE


class IssuerFetchError(Exception):
    """An answer of the issuer that cannot be used; the text is for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTimes:
    fresh_s: float = 300.0
    stale_s: float = 86_400.0
    pause_s: float = 10.0


class KeyKeeper:
    """Keeps them. ``generation`` grows whenever they change: what was verified with older ones is verified again."""

    def __init__(
        self, fetch: Callable[[], Awaitable[bytes]], *, times: KeyTimes, monotonic: Callable[[], float]
    ) -> None:
        self._fetch = fetch
        self._times = times
        self._monotonic = monotonic
        self._keys = NO_KEYS
        self._raw = b""
        self._fetched: float | None = None
        self._tried: float | None = None
        self._turn = asyncio.Lock()
        self.generation = 0

    @property
    def usable(self) -> bool:
        """Whether there are keys, fetched not too long ago."""
        return self._fetched is not None and self._monotonic() - self._fetched < self._times.stale_s

    async def find(self, kid: str) -> Key:
        """Return the key of this id.

        Raises:
            UnknownKeyError: there is none, also not a moment ago.
            IssuerUnavailableError: there are no keys that could be used; retry later.
        """
        if not self.usable or kid not in self._keys:
            await self._refresh()
        if not self.usable:
            raise IssuerUnavailableError("the issuer's keys are not available", retry_s=self._times.pause_s)
        found = self._keys.get(kid)
        if found is None:
            raise UnknownKeyError("expected a token signed with a key that the issuer publishes")
        return found

    async def run(self) -> None:
        """Keep them fresh; never ends by itself."""
        while True:
            await self._refresh()
            fresh = self._fetched is not None and self._fetched == self._tried
            await asyncio.sleep(self._times.fresh_s if fresh else self._times.pause_s)

    async def _refresh(self) -> None:
        async with self._turn:
            now = self._monotonic()
            if self._tried is not None and now - self._tried < self._times.pause_s:
                return
            self._tried = now
            try:
                raw = await self._fetch()
                keys = read_keys(raw)
            except (IssuerFetchError, ValueError, RecursionError) as error:
                log.warning(Event.KEYS_UNAVAILABLE, **{Field.ERROR: str(error)[:300]})
                return
            self._fetched = now
            if raw != self._raw:
                self._raw, self._keys = raw, keys
                self.generation += 1
                log.info(Event.KEYS_CHANGED, keys=sorted(keys))
