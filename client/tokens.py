"""A person's token, where servers take one instead of a certificate: from a variable or a file, never an argument.

AGENTFACTORY_TOKEN_FILE names a private file, which is read for every connection, so that whatever renews it is
followed; AGENTFACTORY_TOKEN holds the token itself. Command lines are seen by every user of a machine, and kept in
histories.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from templates.reasons import AgentFactoryError, Reason

if TYPE_CHECKING:
    import grpc

VARIABLE: Final = "AGENTFACTORY_TOKEN"
FILE_VARIABLE: Final = "AGENTFACTORY_TOKEN_FILE"


class TokenFileError(AgentFactoryError):
    """The token cannot be read, or is none."""

    reason = Reason.INVALID_PROFILE


def read_token(environment: Mapping[str, str]) -> str | None:
    """Return the token that the environment gives; None: there is none, show a certificate.

    Raises:
        TokenFileError: both variables are set, or the file is missing, empty, or no line of text.
        ExposedFileError: others can read the file.
    """
    from service.secret_files import read_secret

    token, file = environment.get(VARIABLE), environment.get(FILE_VARIABLE)
    if token and file:
        raise TokenFileError(f"expected {VARIABLE} or {FILE_VARIABLE}, got both")
    if file:
        try:
            token = read_secret(Path(file)).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokenFileError(f"expected a readable token, got {error}: {file}") from error
    if token is None or token == "":
        if file:
            raise TokenFileError(f"expected a token, got an empty file: {file}")
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise TokenFileError(f"expected one token of printable characters in {file or VARIABLE}")
    return token


def token_credentials(token: str, authorities: Path) -> "grpc.ChannelCredentials":
    """Return credentials that verify the server against ``authorities`` and send ``token`` with every call."""
    import grpc

    try:
        roots = authorities.read_bytes()
    except OSError as error:
        raise TokenFileError(f"expected readable authorities, got {error.strerror}: {authorities}") from error
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(root_certificates=roots), grpc.access_token_call_credentials(token)
    )
