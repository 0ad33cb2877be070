"""The gate: what is asked of every call once it is known who calls, before it is asked whether they may.

(1) the address is not blocked, (2) there is room in the rates, (3) secure mode lets the method through. What needs
nothing kept costs nothing: a server without blocks, rates and secure mode passes in three comparisons.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from service.access.protection import (
    AccessState,
    AddressBlockedError,
    Block,
    InvalidAccessRequestError,
    Network,
    SecureMode,
    address_key,
    own_lockout,
)
from service.access.rates import RateLimits
from service.access.roles import Rules
from service.access.state_file import AccessStateFile
from service.identity import IdentityKind
from service.peer import AddressedContext, Peer, address_of
from templates.reasons import AgentFactoryError

ADDRESSES_REMEMBERED_MAX: Final = 4096
_UNLIMITED: Final = frozenset({IdentityKind.NODE, IdentityKind.CONTROL_PLANE})


class Gate:
    """Holds the state of `service.access.protection`, durable before it takes effect."""

    def __init__(
        self,
        rules: Rules,
        file: AccessStateFile,
        *,
        rates: RateLimits | None,
        clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``changed`` is called when there may be streams to end.

        Raises:
            AccessStateError: what is kept cannot be read.
        """
        self._rules = rules
        self._file = file
        self._rates = rates
        self._clock = clock
        self._judged: dict[str, Block | None] = {}
        self.changed = changed
        self.state: AccessState = file.read()
        self.refusals: Counter[str] = Counter()

    def admit(self, peer: Peer, method: str, context: AddressedContext) -> None:
        """Let a call through, or raise AddressBlockedError, RateLimitedError or SecureModeError."""
        state = self.state
        try:
            if state.blocks:
                self.check_address(address_of(context))
            if self._rates is not None and peer.identity.kind not in _UNLIMITED and method in self._rules:
                self._rates.take(principal=peer.uri, address=address_key(address_of(context)))
            if state.secure_mode is not None:
                state.refuse_writes(self._rules, method)
        except AgentFactoryError as error:
            self.refusals[str(error.reason)] += 1
            raise

    def check_address(self, address: str) -> None:
        """Raise `AddressBlockedError` when ``address`` is blocked now."""
        if self.is_blocked(address):
            raise AddressBlockedError("expected a call from an address that no operator has blocked")

    def is_blocked(self, address: str) -> bool:
        if not self.state.blocks:
            return False
        now = self._clock()
        if address in self._judged:
            block = self._judged[address]
            if block is None:
                return False
            if block.holds(now):
                return True
        if len(self._judged) >= ADDRESSES_REMEMBERED_MAX:
            self._judged.clear()
        found = self._judged[address] = self.state.block_of(address, now=now)
        return found is not None

    def set_secure_mode(self, mode: SecureMode | None) -> None:
        """Begin or end secure mode. Setting what is set keeps who set it first."""
        if (mode is None) is not (self.state.secure_mode is None):
            self._keep(replace(self.state, secure_mode=mode))

    def block(self, block: Block, *, caller: str) -> None:
        """Block a network, unless ``caller``, the address that asks, is in it.

        Raises:
            InvalidAccessRequestError: it is, or there are too many blocks.
        """
        if own_lockout(block.network, [caller]):
            raise InvalidAccessRequestError(f"expected a network without your own address {caller}")
        self._keep(self.state.with_block(block, now=self._clock()))

    def unblock(self, network: Network) -> None:
        """Lift a block; raise `InvalidAccessRequestError` when there is none."""
        self._keep(self.state.without_block(network, now=self._clock()))

    def _keep(self, state: AccessState) -> None:
        self._file.write(state)
        self.state = state
        self._judged.clear()
        self.changed()
