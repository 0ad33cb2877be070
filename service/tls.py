"""Mutual TLS for servers and channels. There is no plaintext and no anonymous variant: this is the only way in.

grpc negotiates TLS 1.3 where both ends can, but accepts 1.2; `service.peer` refuses every call on such a connection.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service.secret_files import read_secret
from templates.reasons import AgentFactoryError, Reason


class TlsFilesError(AgentFactoryError):
    """A certificate or key file is missing, unreadable, damaged, or does not match the other."""

    reason = Reason.INVALID_TLS_FILES


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one identity: its certificate (with intermediates), its private key (0600), the CAs of its peers."""

    certificate: Path
    key: Path
    authorities: Path


class _Pem(NamedTuple):
    certificate: bytes
    key: bytes
    authorities: bytes


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that demand a client certificate signed by ``files.authorities``.

    Raises:
        TlsFilesError: with the file's path and what is wrong with it.
        ExposedFileError: the private key is readable by others.
    """
    pem = _read(files)
    return grpc.ssl_server_credentials(
        [(pem.key, pem.certificate)], root_certificates=pem.authorities, require_client_auth=True
    )


class ReloadingCredentials:
    """Credentials of a server that take newer files for connections made from then on.

    grpc asks for them before every handshake, in a thread of its own, of ``grpc.aio`` as well (grpcio 1.85.1, tried):
    `refresh` reads and judges the files beforehand, so that a handshake never waits for a disk or meets half a file.
    Only what is new may be answered, and once: for every configuration that it gets, also for the same one, gRPC frees
    what handshakes of other threads may be about to use, and the process ends (``Check failed: prior > 0``).

    Args:
        files: read again by `refresh`.
        require_client_auth: False for the port of people who show tokens: no certificate is asked for there.
    """

    def __init__(self, files: TlsFiles, *, require_client_auth: bool = True) -> None:
        """Raise TlsFilesError, ExposedFileError: see `server_credentials`."""
        self._files = files
        self._demands = require_client_auth
        self._pem = _read(files)
        self._newer: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._taken,  # type: ignore[arg-type]  # the stub does not know that None means "no change"
            require_client_authentication=require_client_auth,
        )

    def refresh(self) -> bool:
        """Take the files as they are now; return whether something had changed.

        Raises:
            TlsFilesError, ExposedFileError: they cannot be used; what was there before is used on.
        """
        pem = _read(self._files)
        if pem == self._pem:
            return False
        self._pem = pem
        self._newer.append(self._configuration())
        return True

    def _taken(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the newer configuration to whoever asks first, None (no change) to everybody else; any thread."""
        try:
            return self._newer.pop()
        except IndexError:
            return None

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self._pem.key, self._pem.certificate)],
            root_certificates=self._pem.authorities if self._demands else None,
        )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return credentials that show ``files.certificate`` and verify the server's name against ``files.authorities``.

    Raises:
        TlsFilesError: with the file's path and what is wrong with it.
        ExposedFileError: the private key is readable by others.
    """
    pem = _read(files)
    return grpc.ssl_channel_credentials(
        root_certificates=pem.authorities, private_key=pem.key, certificate_chain=pem.certificate
    )


def certificate_of(files: TlsFiles) -> x509.Certificate:
    """Return the certificate that these files show, for its identity and its last day.

    Raises:
        TlsFilesError: missing or damaged.
    """
    return _certificates(files.certificate, _public(files.certificate))[0]


def _read(files: TlsFiles) -> _Pem:
    certificate, authorities = _public(files.certificate), _public(files.authorities)
    try:
        key = read_secret(files.key)
    except OSError as error:
        raise TlsFilesError(f"expected a readable private key, got {error.strerror}: {files.key}") from error
    leaf = _certificates(files.certificate, certificate)[0]
    _certificates(files.authorities, authorities)
    try:
        private_key = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TlsFilesError(f"expected an unencrypted private key in PEM, got something else: {files.key}") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private_key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsFilesError(f"expected the key of {files.certificate}, got another one: {files.key}")
    return _Pem(certificate, key, authorities)


def _public(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(f"expected a readable certificate, got {error.strerror}: {path}") from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    # grpc answers a damaged file with connections that fail without a reason: look first.
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsFilesError(f"expected certificates in PEM, got something else: {path}") from error
