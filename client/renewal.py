"""Certificates of a local installation, issued again before they end: the authority lies in the same directory."""

import ipaddress
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from client.profile import Profile
from service.identity import identity_of_certificate
from service.local_ca import LocalCa

RENEW_BEFORE: Final = timedelta(days=14)


def renew_certificates(profile: Profile, *, now: datetime, tell: Callable[[str], None]) -> None:
    """Issue every certificate again that ends within `RENEW_BEFORE`, for the same identity and the same names.

    Does nothing where ``ca/`` was moved away: then its keeper renews them.

    Raises:
        LocalCaError: the authority itself is damaged, or ends.
    """
    if not (profile.directory / "ca").exists():
        return
    due = [name for name, place in sorted(profile.identities.items()) if ends(place) - now < RENEW_BEFORE]
    if not due:
        return
    tell(f"certificates that run out, issued again: {', '.join(due)}")
    authority = LocalCa.load(profile.directory / "ca")
    for name in due:
        old = _certificate(profile.identities[name])
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = names.get_values_for_type(x509.IPAddress)
        issued = authority.issue(
            identity_of_certificate(old),
            now=now,
            dns_names=names.get_values_for_type(x509.DNSName),
            addresses=[one for one in addresses if isinstance(one, ipaddress.IPv4Address | ipaddress.IPv6Address)],
        )
        issued.write(profile.identities[name])


def ends(directory: Path) -> datetime:
    """Return when the certificate of the identity in ``directory`` ends.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    return _certificate(directory).not_valid_after_utc


def _certificate(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "cert.pem").read_bytes())
