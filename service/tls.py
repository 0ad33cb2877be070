"""Mutual TLS for servers and channels. There is no plaintext and no anonymous variant: this is the only way in.

grpc negotiates TLS 1.3 where both ends can, but accepts 1.2; `service.peer` refuses every call on such a connection.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

from templates.reasons import AgentFactoryError, Reason


class TlsFilesError(AgentFactoryError):
    """A certificate or key file is missing, unreadable, does not match, or is open to other users."""

    reason = Reason.INVALID_TLS_FILES


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one identity: its certificate (with intermediates), its private key (0600), the CAs of its peers."""

    certificate: Path
    key: Path
    authorities: Path


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that demand a client certificate signed by ``files.authorities``.

    Raises:
        TlsFilesError: with the file's path and what is wrong with it.
    """
    raise NotImplementedError


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return credentials that show ``files.certificate`` and verify the server's name against ``files.authorities``.

    Raises:
        TlsFilesError: with the file's path and what is wrong with it.
    """
    raise NotImplementedError
