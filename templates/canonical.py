"""RFC 8785 (JCS): the one form of a JSON value that is hashed, signed and compared, byte for byte."""

import hashlib
from typing import TypeAlias

import rfc8785

from templates.reasons import AgentFactoryError, Reason

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
JsonObject: TypeAlias = dict[str, JsonValue]

INTEGER_MAX = 2**53 - 1  # RFC 8785 serialises numbers as IEEE 754 doubles: beyond this, two integers share one form


class NotCanonicalError(AgentFactoryError):
    """A value has no RFC 8785 form, or bytes that travelled are not theirs."""

    reason = Reason.NOT_CANONICAL


def canonical_bytes(value: JsonValue) -> bytes:
    """Return the RFC 8785 bytes of ``value``.

    Raises:
        NotCanonicalError: the value has no such form: NaN, an integer beyond ±(2^53-1), a lone surrogate.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise NotCanonicalError(
            f"expected a value that has an RFC 8785 form, got one that has none: {error}"
        ) from error


def sha256_hex(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256, the form of every digest in documents."""
    return hashlib.sha256(data).hexdigest()
