from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker.address_policy import Destinations, refusal_of, unwrapped
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.origin import InvalidOriginError, Origin

REFUSED = {
    "this network": ("0.0.0.0", "0.1.2.3"),
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254"),
    "loopback": ("127.0.0.1", "127.255.255.254", "::1"),
    "unspecified": ("::",),
    "metadata services": ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    "link-local": ("169.254.0.1", "fe80::1", "febf::1"),
    "site-local": ("fec0::1",),
    "CGNAT": ("100.64.0.1", "100.127.255.255"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
    "benchmarking": ("198.18.0.1", "198.19.255.255", "2001:2::1"),
    "multicast": ("224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"),
    "reserved": ("240.0.0.1", "255.255.255.255", "192.88.99.1", "192.31.196.1", "192.52.193.1", "192.175.48.1"),
    "mapped": ("::ffff:127.0.0.1", "::ffff:8.8.8.8"),
    "compatible": ("::127.0.0.1", "::8.8.8.8"),
    "translated": ("::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"),
    "6to4": ("2002:7f00:1::", "2002:808:808::"),
    "Teredo": ("2001::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    "ORCHID": ("2001:10::1", "2001:20::1", "2001:30::1"),
    "AS112": ("2620:4f:8000::1",),
    "NAT64 of what is refused": ("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1"),
    "local-use NAT64": ("64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "64:ff9b:1:ffff::1"),
    "discard": ("100::1",),
    "segment routing": ("5f00::1",),
    "unallocated": ("4000::1", "8000::1", "e000::1"),
    "a zone": ("2606:4700::1111%eth0", "fe80::1%1"),
}
ALLOWED = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "172.32.0.1")


@pytest.mark.parametrize("text", [text for texts in REFUSED.values() for text in texts])
def test_an_address_that_is_not_globally_routable_is_refused(text: str) -> None:
    assert refusal_of(ip_address(text))


@pytest.mark.parametrize("text", ALLOWED)
def test_an_address_that_is_globally_routable_is_not(text: str) -> None:
    assert refusal_of(ip_address(text)) is None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_whatever_the_model_does_not_call_global_is_refused(address: IPv4Address) -> None:
    """`ipaddress` is the model. Ours refuses more: anycast relays, multicast and a platform's own service."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert refusal_of(address)


_NEAR = st.sampled_from([
    "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
    "3fff::/20", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2620:4f:8000::/48", "2600::/12",
]).map(ip_network)  # fmt: skip


@given(_NEAR, st.integers(0, 2**128 - 1))
def test_the_model_agrees_for_addresses_of_every_special_kind(network: object, bits: int) -> None:
    within = ip_network(str(network))
    address = IPv6Address(int(within.network_address) | (bits & int(within.hostmask)))
    if refusal_of(address) is None:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF) if address in ip_network("64:ff9b::/96") else None
        assert address.is_global
        assert not address.is_multicast
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None
        assert inner is None or refusal_of(inner) is None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_behind_nat64_is_judged_as_itself(address: IPv4Address) -> None:
    behind = IPv6Address(int(IPv6Address("64:ff9b::")) | int(address))
    assert (refusal_of(behind) is None) == (refusal_of(address) is None)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_every_form_that_carries_an_address_is_refused_or_unwrapped(address: IPv4Address) -> None:
    number = int(address)
    assert unwrapped(IPv6Address((0xFFFF << 32) | number)) == address
    for form in (number, (0xFFFF << 32) | number, (0xFFFF << 48) | number, (0x2002 << 112) | (number << 80)):
        assert refusal_of(IPv6Address(form))


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_nothing_outside_global_unicast_is_reached(address: IPv6Address) -> None:
    if refusal_of(address) is None:
        assert address in ip_network("2000::/3") or address in ip_network("64:ff9b::/96")


# --- origins


NO_ORIGINS = [
    "", "https://", "api.example.com", "//api.example.com", "ftp://api.example.com", "HTTPS://api.example.com",
    "https:api.example.com", "https:/api.example.com", "https:///api.example.com", "https://api.example.com/",
    "https://api.example.com/x", "https://api.example.com?x", "https://api.example.com#x", "https://api.example.com:",
    "https://api.example.com:443", "http://api.example.com:80", "https://api.example.com:0", "https://api.example.com:08443",
    "https://api.example.com:65536", "https://api.example.com:+8443", "https://api.example.com: 8443",
    "https://api.example.com:８443", "https://API.example.com", "https://api.example.com.", "https://.example.com",
    "https://api..example.com", "https://-api.example.com", "https://api-.example.com", "https://api_x.example.com",
    "https://user@api.example.com", "https://user:pw@api.example.com", "https://@api.example.com",
    "https://api.example.com@evil.example", "https://api.example.com\\@evil.example", "https://api.example.com\\.evil.example",
    "https://api.example.com%2eevil.example", "https://api.example.com%00.evil.example", "https://api%2eexample.com",
    "https://ａpi.example.com", "https://api。example.com", "https://api．example.com", "https://api.exampleⅽom",
    "https://аpi.example.com", "https://api.ex\u00adample.com", "https://api.example.com\n", " https://api.example.com",
    "https://api.example.com\t", "https://api.example.com\x00", "https://*.example.com", "https://a b.example.com",
    "https://127.1", "https://127.0.1", "https://2130706433", "https://0x7f.0.0.1", "https://0x7f000001", "https://0177.0.0.1",
    "https://017700000001", "https://127.0.0.01", "https://127.0.0.1.", "https://0x7f.1", "https://1.2.3.4.5",
    "https://256.256.256.256", "https://example.0x1", "https://example.1", "https://example.0x", "https://１２７.0.0.1",
    "https://[::1%25lo]", "https://[::1%lo]", "https://[0:0:0:0:0:0:0:1]", "https://[::FFFF:127.0.0.1]", "https://[::1",
    "https://::1", "https://[127.0.0.1]", "https://[v1.x]", "https://" + "a." * 127 + "com",
    "https://" + "a" * 64 + ".com",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_an_origin_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidOriginError):
        Origin.parse(text)


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("https://api.example.com", "api.example.com", 443, "api.example.com"),
        ("https://api.example.com:8443", "api.example.com", 8443, "api.example.com:8443"),
        ("http://ollama:11434", "ollama", 11434, "ollama:11434"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example", 443, "xn--bcher-kva.example"),
        ("https://127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1:80"),
        ("http://[::1]:8080", "::1", 8080, "[::1]:8080"),
        ("https://1e100.net", "1e100.net", 443, "1e100.net"),
    ],
)
def test_an_origin_reads_back_as_it_was_written(text: str, host: str, port: int, authority: str) -> None:
    origin = Origin.parse(text)
    assert (origin.host, origin.port, origin.authority, str(origin)) == (host, port, authority, text)


# --- the operator's list

INSIDE = Destinations.parse(
    {
        "http://billing.example:8080": ["10.1.0.0/16", "fd00:1::/64"],
        "https://pinned.example": ["192.168.7.7/32"],
    }
)


def _refusal(origin: str, *addresses: str) -> HostRefusal | None:
    try:
        INSIDE.require(Origin.parse(origin), [ip_address(address) for address in addresses])
    except HostRefusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("origin", "addresses", "allowed"),
    [
        ("http://billing.example:8080", ["10.1.2.3"], True),
        ("http://billing.example:8080", ["10.1.2.3", "fd00:1::9"], True),
        ("http://billing.example:8080", ["::ffff:10.1.2.3"], True),
        ("http://billing.example:8080", ["10.2.0.1"], False),
        ("http://billing.example:8080", ["10.1.2.3", "10.2.0.1"], False),
        ("http://billing.example:8080", ["8.8.8.8"], False),
        ("https://billing.example:8080", ["10.1.2.3"], False),
        ("http://billing.example", ["10.1.2.3"], False),
        ("https://other.example", ["10.1.2.3"], False),
        ("https://other.example", ["8.8.8.8"], True),
        ("https://other.example", ["8.8.8.8", "10.1.2.3"], False),
        ("http://other.example", ["8.8.8.8"], False),
        ("https://8.8.8.8", ["8.8.8.8"], True),
        ("https://127.0.0.1", ["127.0.0.1"], False),
    ],
)
def test_only_what_is_routable_or_listed_is_reached(origin: str, addresses: list[str], *, allowed: bool) -> None:
    refusal = _refusal(origin, *addresses)
    assert (refusal is None) is allowed
    assert refusal is None or refusal.kind is ErrorKind.DENIED


def test_a_refusal_does_not_tell_what_a_name_resolves_to() -> None:
    refusal = _refusal("https://other.example", "10.11.12.13")
    assert refusal is not None
    assert "10.11" not in refusal.message


def test_a_name_whose_networks_are_single_addresses_is_not_resolved() -> None:
    assert INSIDE.pinned(Origin.parse("https://pinned.example")) == (ip_address("192.168.7.7"),)
    assert INSIDE.pinned(Origin.parse("http://billing.example:8080")) is None
    assert INSIDE.pinned(Origin.parse("https://[2606:4700::1111]")) == (ip_address("2606:4700::1111"),)


@pytest.mark.parametrize(
    "private",
    [{"https://a.example/": ["10.0.0.0/8"]}, {"https://a.example": ["10.0.0.1/8"]}, {"https://a.example": []},
     {"https://a.example": ["all"]}, {"*": ["10.0.0.0/8"]}],
)  # fmt: skip
def test_a_list_that_is_not_canonical_is_refused(private: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"expected|does not appear|has host bits"):
        Destinations.parse(private)
