"""A certificate authority in a directory, for `agentctl up` and for tests: ECDSA P-256, path length 0.

Persons and services get client certificates; nodes and control planes may also serve and carry DNS names and addresses.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from service.identity import Identity
from service.tls import TlsFiles
from templates.reasons import AgentFactoryError, Reason

CA_VALID: Final = timedelta(days=3650)
LEAF_VALID: Final = timedelta(days=90)


class LocalCaError(AgentFactoryError):
    """The directory holds no usable authority, or one is already there."""

    reason = Reason.INVALID_LOCAL_CA


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedIdentity:
    """PEM bytes of one new identity; the private key exists here and nowhere else yet."""

    identity: Identity
    certificate: bytes
    key: bytes
    authorities: bytes

    def write(self, directory: Path) -> TlsFiles:
        """Write ``cert.pem``, ``key.pem`` (0600) and ``ca.pem`` into ``directory`` (made 0700), each by one rename."""
        raise NotImplementedError


class LocalCa:
    """Signs identities of one trust domain. Holds its private key in memory; the file ``ca.key`` is 0600."""

    @classmethod
    def create(cls, directory: Path, *, trust_domain: str, now: datetime) -> Self:
        """Make a new authority and write ``ca.pem`` and ``ca.key``.

        Raises:
            LocalCaError: there is one already; nothing is overwritten.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``ca.pem`` and ``ca.key`` back.

        Raises:
            LocalCaError: missing, damaged, or the key is readable by others.
        """
        raise NotImplementedError

    @property
    def trust_domain(self) -> str:
        raise NotImplementedError

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM: what peers put into ``TlsFiles.authorities``."""
        raise NotImplementedError

    def issue(
        self,
        identity: Identity,
        *,
        now: datetime,
        valid: timedelta = LEAF_VALID,
        dns_names: Sequence[str] = (),
        addresses: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address] = (),
    ) -> IssuedIdentity:
        """Sign a fresh key for ``identity``.

        Raises:
            LocalCaError: a foreign trust domain, or server names for a person or service.
        """
        raise NotImplementedError
