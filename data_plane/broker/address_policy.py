"""Which addresses the broker may connect to: globally routable ones, and what the operator allowed by name.

An IPv6 address can carry an IPv4 address that a translator or tunnel on the way will use instead; it is judged by both.
The lists are the IANA special-purpose registries (RFC 6890 and its updates) and not `ipaddress.is_global` alone, whose
answers differ between versions of Python; tests compare the two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Self

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.origin import IpAddress, Origin

IpNetwork = IPv4Network | IPv6Network

_V4_REFUSED: Final[tuple[tuple[IPv4Network, str], ...]] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local (metadata services)"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
    )
)
_V4_PLATFORM: Final = frozenset({IPv4Address("168.63.129.16")})
"""Globally routable by its registration, but inside Azure it is the host's own wire server."""

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_V6_REFUSED: Final[tuple[tuple[IPv6Network, str], ...]] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "protocol assignments (Teredo, ORCHID …)"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


def refusal_of(address: IpAddress) -> str | None:
    """Return why the broker does not connect to ``address``, None for one that is globally routable.

    A NAT64 address (RFC 6052, the well-known prefix) is as good as the IPv4 address in it. Every other form that
    carries one (mapped, compatible, 6to4, Teredo, the local-use NAT64 prefix of RFC 8215) lies outside of what is
    routed globally, and is refused whatever it carries.
    """
    if isinstance(address, IPv4Address):
        if address in _V4_PLATFORM:
            return "a platform's own service"
        return next((what for network, what in _V4_REFUSED if address in network), None)
    if address.scope_id is not None:
        return "an address with a zone"
    if address in _NAT64:
        inner = refusal_of(IPv4Address(int(address) & 0xFFFF_FFFF))
        return None if inner is None else f"NAT64 of {inner}"
    if address not in _GLOBAL_UNICAST:
        return "not global unicast"
    return next((what for network, what in _V6_REFUSED if address in network), None)


def unwrapped(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that the kernel connects to when it is given an IPv4-mapped IPv6 address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """Where connections may go. ``private``: the operator's own list, exact origins to networks."""

    private: Mapping[Origin, Sequence[IpNetwork]] = field(default_factory=dict)

    @classmethod
    def parse(cls, private: Mapping[str, Iterable[str]]) -> Self:
        """Read the operator's setting.

        Raises:
            ValueError: an origin or a network is not in its canonical spelling, or an origin has no network.
        """
        read: dict[Origin, Sequence[IpNetwork]] = {}
        for text, networks in private.items():
            read[Origin.parse(text)] = found = tuple(ip_network(network) for network in networks)
            if not found:
                raise ValueError(f"expected at least one network for {text}, got none")
        return cls(private=read)

    def pinned(self, origin: Origin) -> tuple[IpAddress, ...] | None:
        """Return the addresses of ``origin`` where no name is to be resolved, None where one is.

        That is an origin which is an address, or whose networks on the operator's list are single addresses.
        """
        if origin.address is not None:
            return (origin.address,)
        networks = self.private.get(origin, ())
        if networks and all(network.num_addresses == 1 for network in networks):
            return tuple(network.network_address for network in networks)
        return None

    def require_origin(self, origin: Origin) -> None:
        """Refuse plain http, but to what the operator listed.

        Raises:
            HostRefusal: kind ``denied``.
        """
        if not origin.is_tls and origin not in self.private:
            raise HostRefusal(
                ErrorKind.DENIED, f"expected https, or an origin that this node's operator lists: {origin}"
            )

    def require(self, origin: Origin, addresses: Sequence[IpAddress]) -> None:
        """Judge every address that a name has.

        One that is refused refuses the name, so that no order of answers and no fallback can reach it.

        Raises:
            HostRefusal: kind ``denied``. It names no address: what a name resolves to inside the node's network is
                not the guest's business.
        """
        self.require_origin(origin)
        networks = self.private.get(origin)
        for address in addresses:
            if networks is not None:
                if not any(unwrapped(address) in network for network in networks):
                    raise HostRefusal(
                        ErrorKind.DENIED, f"{origin} is not in the networks that the operator allowed for it"
                    )
            elif (why := refusal_of(address)) is not None:
                raise HostRefusal(ErrorKind.DENIED, f"{origin} is not globally routable ({why})")
