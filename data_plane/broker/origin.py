"""An origin: scheme, host and port (RFC 6454), in the one spelling that is accepted.

Every other spelling of a host is where allow-lists are fooled: user-info, upper case, Unicode and full-width letters,
trailing dots, and the numbers that `inet_aton` takes for an IPv4 address (``127.1``, ``0x7f000001``, ``017700000001``).
So there is no parser of URLs here, and nothing is normalised: a text either is an origin as this module writes it, or
it is refused.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Self

HOST_CHARACTERS_MAX: Final = 253
IpAddress = IPv4Address | IPv6Address

_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class InvalidOriginError(ValueError):
    """A text is no origin in its only spelling."""

    def __init__(self, text: str) -> None:
        self.message = (
            "expected https:// (or http://) and a lower-case ASCII host name or an address, with a port unless it is "
            f"the scheme's own; got {text[:100]!r}"
        )
        super().__init__(self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """``host`` is a DNS name in ASCII (IDNA as ``xn--``), or the canonical text of ``address``."""

    scheme: str
    host: str
    port: int
    address: IpAddress | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``https://host[:port]``.

        Raises:
            InvalidOriginError: anything else, a port that is the scheme's own included.
        """
        found = _ORIGIN.fullmatch(text)
        if found is None:
            raise InvalidOriginError(text)
        scheme, host = found["scheme"], found["host"].strip("[]")
        port = int(found["port"] or _DEFAULT_PORTS[scheme])
        address = _address(host, bracketed=found["host"].startswith("["))
        if address is None and not _is_name(host):
            raise InvalidOriginError(text)
        origin = cls(scheme=scheme, host=host, port=port, address=address)
        if port > 65_535 or str(origin) != text:
            raise InvalidOriginError(text)
        return origin

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def _address(host: str, *, bracketed: bool) -> IpAddress | None:
    """Return the address that ``host`` is in its canonical text, None for everything else."""
    try:
        address: IpAddress = IPv6Address(host) if bracketed else IPv4Address(host)
    except AddressValueError:
        return None
    return address if str(address) == host else None


def _is_name(host: str) -> bool:
    """Whether ``host`` is a DNS name that no resolver could take for a number (WHATWG URL, "ends in a number")."""
    labels = host.split(".")
    return (
        len(host) <= HOST_CHARACTERS_MAX
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )
