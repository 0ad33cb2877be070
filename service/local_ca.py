"""A certificate authority in a directory, for `agentctl up` and for tests: ECDSA P-256, path length 0.

Persons and services get client certificates; nodes and control planes may also serve, and carry DNS names and
addresses. A client therefore never mistakes a service that holds a valid certificate for a server.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service.identity import Identity, IdentityKind
from service.secret_files import (
    ExposedFileError,
    make_private_directory,
    read_secret,
    replace_secret,
    write_public,
    write_secret,
)
from service.tls import TlsFiles
from templates.reasons import AgentFactoryError, Reason

CA_VALID: Final = timedelta(days=3650)
LEAF_VALID: Final = timedelta(days=90)
CLOCK_SKEW: Final = timedelta(minutes=5)

_CERTIFICATE_NAME: Final = "ca.pem"
_KEY_NAME: Final = "ca.key"
_SERVING: Final = frozenset({IdentityKind.NODE, IdentityKind.CONTROL_PLANE})


class LocalCaError(AgentFactoryError):
    """The directory holds no usable authority, or one is already there, or it was asked for what it does not sign."""

    reason = Reason.INVALID_LOCAL_CA


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedIdentity:
    """PEM bytes of one new identity; the private key exists here and nowhere else yet."""

    identity: Identity
    certificate: bytes
    key: bytes
    authorities: bytes

    def write(self, directory: Path) -> TlsFiles:
        """Write ``cert.pem``, ``key.pem`` (0600) and ``ca.pem`` into ``directory`` (made 0700), each by one rename.

        An earlier identity there is replaced, key first: a process that starts in between is told that they differ.
        """
        make_private_directory(directory)
        files = TlsFiles(
            certificate=directory / "cert.pem", key=directory / "key.pem", authorities=directory / "ca.pem"
        )
        replace_secret(files.key, self.key)
        write_public(files.certificate, self.certificate)
        write_public(files.authorities, self.authorities)
        return files


class LocalCa:
    """Signs identities of one trust domain. Holds its private key in memory; the file ``ca.key`` is 0600."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(names) != 1 or certificate.public_key() != key.public_key():
            raise LocalCaError("expected an authority's certificate and its own key, got two that do not match")
        self._certificate = certificate
        self._key = key
        self._trust_domain = str(names[0].value)

    @classmethod
    def create(cls, directory: Path, *, trust_domain: str, now: datetime) -> Self:
        """Make a new authority and write ``ca.pem`` and ``ca.key``.

        Raises:
            LocalCaError: there is one already; nothing is overwritten.
            InvalidIdentityError: ``trust_domain`` is none.
        """
        Identity.control_plane(trust_domain, "authority")  # says what is wrong with the trust domain
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, trust_domain)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + CA_VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, SHA256())
        )
        make_private_directory(directory)
        try:
            write_secret(directory / _KEY_NAME, _key_pem(key))
        except FileExistsError as error:
            raise LocalCaError(f"expected no authority yet, got an existing one: {directory}") from error
        write_public(directory / _CERTIFICATE_NAME, certificate.public_bytes(Encoding.PEM))
        return cls(certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``ca.pem`` and ``ca.key`` back.

        Raises:
            LocalCaError: missing or damaged.
            ExposedFileError: the key is readable by others.
        """
        try:
            certificate = x509.load_pem_x509_certificate((directory / _CERTIFICATE_NAME).read_bytes())
            key = load_pem_private_key(read_secret(directory / _KEY_NAME), None)
        except ExposedFileError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise LocalCaError(f"expected ca.pem and ca.key, got {type(error).__name__}: {directory}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise LocalCaError(f"expected an ECDSA key, got {type(key).__name__}: {directory / _KEY_NAME}")
        return cls(certificate, key)

    @property
    def trust_domain(self) -> str:
        return self._trust_domain

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM: what peers put into ``TlsFiles.authorities``."""
        return self._certificate.public_bytes(Encoding.PEM)

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
            LocalCaError: a foreign trust domain, no validity, or server names for a person or service.
        """
        serves = identity.kind in _SERVING
        if identity.trust_domain != self._trust_domain:
            raise LocalCaError(f"expected an identity of {self._trust_domain}, got {identity}")
        if (dns_names or addresses) and not serves:
            raise LocalCaError(f"expected server names for a node or control plane only, got them for {identity}")
        end = min(now + valid, self._certificate.not_valid_after_utc)
        if end <= now:
            raise LocalCaError(f"expected an end after {now:%Y-%m-%d %H:%M}, got {end:%Y-%m-%d %H:%M}")
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
        names += [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(address) for address in addresses]
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if serves else [])]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, SHA256())
        )
        return IssuedIdentity(
            identity=identity,
            certificate=certificate.public_bytes(Encoding.PEM),
            key=_key_pem(key),
            authorities=self.certificate,
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
