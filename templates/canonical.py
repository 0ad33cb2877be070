"""RFC 8785 (JCS): the one form of a JSON value that is hashed, signed and compared, byte for byte."""

from typing import TypeAlias

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
JsonObject: TypeAlias = dict[str, JsonValue]


def canonical_bytes(value: JsonValue) -> bytes:
    """Return the RFC 8785 bytes of ``value``.

    Raises:
        NotCanonicalError: the value has no such form: NaN, an integer beyond ±(2^53-1), a lone surrogate.
    """
    raise NotImplementedError


def read_canonical(data: bytes, *, bytes_max: int, depth_max: int = 64) -> JsonValue:
    """Parse ``data`` strictly and refuse bytes that are not their own canonical form: what is verified is what travelled.

    Raises:
        InvalidDocumentError: not strict JSON.
        NotCanonicalError: valid JSON, but other bytes than RFC 8785 gives for it.
    """
    raise NotImplementedError


def sha256_hex(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256, the form of every digest in documents."""
    raise NotImplementedError
