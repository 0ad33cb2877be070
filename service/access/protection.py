"""What protects a server when somebody should not call: secure mode, blocked addresses. Pure; `state_file` keeps it.

secure mode   methods whose rule says WRITE are refused; reading, invoking, revoking and blocking go on
a block       every call from the network is refused, and streams from it are ended; until it is lifted or expires
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from service.access.roles import Effect, Rules
from service.status import PermissionDeniedError
from templates.reasons import AgentFactoryError, Reason

BLOCKS_MAX: Final = 128
WHY_CHARACTERS_MAX: Final = 200
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class SecureModeError(AgentFactoryError):
    """The server is in secure mode: it changes nothing until an admin ends that."""

    reason = Reason.SECURE_MODE


class AddressBlockedError(PermissionDeniedError):
    """An operator blocked the address that this call comes from."""

    reason = Reason.ADDRESS_BLOCKED


class InvalidAccessRequestError(AgentFactoryError):
    """Not an address or network that can be blocked, or too many of them."""

    reason = Reason.INVALID_REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureMode:
    """Since when, in seconds since the epoch, by whose order and why."""

    by: str
    why: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One blocked network. ``until`` is None until somebody lifts it."""

    network: Network
    by: str
    why: str
    since: float
    until: float | None = None

    def holds(self, now: float) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessState:
    """Everything that outlives a restart."""

    secure_mode: SecureMode | None = None
    blocks: tuple[Block, ...] = ()

    def with_block(self, block: Block, *, now: float) -> "AccessState":
        """Add a block, or replace the one of the same network; what has expired goes.

        Raises:
            InvalidAccessRequestError: more than `BLOCKS_MAX`.
        """
        kept = tuple(each for each in self.blocks if each.holds(now) and each.network != block.network)
        if len(kept) >= BLOCKS_MAX:
            raise InvalidAccessRequestError(f"expected at most {BLOCKS_MAX} blocked networks, got another one")
        return replace(self, blocks=(*kept, block))

    def without_block(self, network: Network, *, now: float) -> "AccessState":
        """Lift the block of exactly this network.

        Raises:
            InvalidAccessRequestError: it is not blocked; the text names the block that covers it, if there is one.
        """
        kept = tuple(each for each in self.blocks if each.holds(now) and each.network != network)
        if not any(each.network == network for each in self.blocks):
            wider = [str(each.network) for each in kept if _covers(each.network, network)]
            hint = f"; {wider[0]} covers it" if wider else ""
            raise InvalidAccessRequestError(f"expected a blocked network, got {network}{hint}")
        return replace(self, blocks=kept)

    def block_of(self, address: str, *, now: float) -> Block | None:
        """Return the block that holds for ``address``; an empty one (a Unix socket) is never blocked."""
        parsed = parse_address(address)
        if parsed is None:
            return None
        return next(
            (
                each
                for each in self.blocks
                if each.holds(now) and each.network.version == parsed.version and parsed in each.network
            ),
            None,
        )

    def refuse_writes(self, rules: Rules, method: str) -> None:
        """Raise `SecureModeError` when ``method`` changes something and this is secure mode."""
        if self.secure_mode is None:
            return
        found = rules.get(method)
        if found is not None and found.effect is Effect.WRITE:
            mode = self.secure_mode
            raise SecureModeError(
                f"expected a call that changes nothing: secure mode was set by {mode.by}"
                + (f" ({mode.why})" if mode.why else "")
            )


def parse_network(text: str) -> Network:
    """Read an address or a network in CIDR notation; an IPv4 address in IPv6 clothes is the IPv4 address.

    Raises:
        InvalidAccessRequestError: anything else, or a network that holds every address.
    """
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        raise InvalidAccessRequestError(f"expected an address or a network, got {text[:80]!r}") from error
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = IPv4Network((mapped, network.prefixlen - 96))
    if network.prefixlen == 0:
        raise InvalidAccessRequestError(f"expected a network that leaves somebody in, got {network}: use secure mode")
    return network


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Return the address, IPv4 also where it is mapped into IPv6; None for what is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def address_key(text: str) -> str:
    """Return what rates and failures are counted by: the address, or the /64 of an IPv6 one (one customer's)."""
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return text if address is None else str(address)


def shortened(why: str) -> str:
    """Return a reason on one line of at most `WHY_CHARACTERS_MAX` characters."""
    return " ".join(why.split())[:WHY_CHARACTERS_MAX]


def _covers(wide: Network, narrow: Network) -> bool:
    return wide.version == narrow.version and narrow.subnet_of(wide)  # type: ignore[arg-type]  # one family, see left


def own_lockout(network: Network, addresses: Iterable[str]) -> bool:
    """Say whether a block of ``network`` would shut out one of ``addresses``: the operator's own."""
    return any(
        (parsed := parse_address(each)) is not None and parsed.version == network.version and parsed in network
        for each in addresses
    )
