"""People who show a token instead of a certificate: ``authorization: Bearer …`` on a connection without one.

A verified token is remembered by its digest until it ends or the issuer's keys change, so that a call costs a lookup.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from service.access.backoff import FailureBackoff
from service.access.issuer_keys import KeyKeeper
from service.access.protection import address_key
from service.access.tokens import TokenRefusedError, TokenRules, key_id_of, verify
from service.peer import AddressedContext, Peer, UnauthenticatedError, address_of, adopt, shows_certificate

TOKENS_REMEMBERED_MAX: Final = 4096
AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "bearer "


class TokenContext(AddressedContext, Protocol):
    """A context whose call has metadata."""

    def invocation_metadata(self) -> object: ...


class TokenDoor:
    """`identify` before `service.peer.peer_of` is asked."""

    def __init__(
        self,
        rules: TokenRules,
        keys: KeyKeeper,
        *,
        backoff: FailureBackoff,
        clock: Callable[[], float],
        check_address: Callable[[str], None] = lambda _address: None,
    ) -> None:
        """``check_address`` raises for an address that is."""
        self._rules = rules
        self._keys = keys
        self._backoff = backoff
        self._clock = clock
        self._check_address = check_address
        self._verified: OrderedDict[bytes, tuple[int, Peer]] = OrderedDict()

    async def identify(self, context: TokenContext) -> None:
        """Have the call adopt the person whose token it shows. A call with a certificate is left alone.

        Raises:
            TokenRefusedError: the token proves nothing; counted against the address.
            BackedOffError: too many of those; the token was not looked at.
            IssuerUnavailableError: whether it is good cannot be told now.
            TlsVersionError, UnauthenticatedError: not TLS 1.3; neither certificate nor token.
        """
        if shows_certificate(context):
            return
        address = address_of(context)
        self._check_address(address)
        place, now = address_key(address), self._clock()
        self._backoff.check(place, now=now)
        try:
            peer = await self._peer(_token(context), now)
        except TokenRefusedError:
            self._backoff.failed(place, now=now)
            raise
        self._backoff.succeeded(place)
        adopt(context, peer)

    async def _peer(self, token: str, now: float) -> Peer:
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._verified.get(digest)
        if known is not None and known[0] == self._keys.generation and self._keys.usable:
            if now < known[1].valid_until:
                self._verified.move_to_end(digest)
                return known[1]
            del self._verified[digest]
        key = await self._keys.find(key_id_of(token, self._rules))
        peer = verify(token, key, self._rules, now=now)
        self._verified[digest] = (self._keys.generation, peer)
        while len(self._verified) > TOKENS_REMEMBERED_MAX:
            self._verified.popitem(last=False)
        return peer


def _token(context: TokenContext) -> str:
    metadata: object = context.invocation_metadata() or ()
    found = [value for key, value in metadata if key == AUTHORIZATION]  # type: ignore[attr-defined]  # grpc's stubs
    if len(found) != 1 or not isinstance(found[0], str) or found[0][: len(_SCHEME)].lower() != _SCHEME:
        if found:
            raise TokenRefusedError("expected one authorization: Bearer <token>")
        raise UnauthenticatedError("expected a client certificate or a token, got neither")
    return found[0][len(_SCHEME) :].strip()
