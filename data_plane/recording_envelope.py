"""Encrypt a recording for its tenant: a data key of its own, wrapped by the tenant's key, both AES-256-GCM.

Whoever keeps the tenants' keys is behind `RecordingKeys`: a private directory of this node now
(`data_plane.recording_keys`), a key server as well, because wrapping is all that is asked of it. The header names the
key. Tenant and invocation are associated data: an envelope that is given another name or tenant does not open.

    magic (8) | length of header (2, big-endian) | header: JSON of key_id, wrapped_key, nonce | ciphertext and tag
"""

import asyncio
import base64
import binascii
import json
import os
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from templates.reasons import AgentFactoryError, Reason

DATA_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

_MAGIC: Final = b"AFRECE1\n"
_LENGTH_BYTES: Final = 2


class RecordingDamagedError(AgentFactoryError):
    """A recording cannot be opened: changed bytes, another tenant's or invocation's envelope, or a key that is gone."""

    reason = Reason.RECORDING_DAMAGED


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key that only ``key_id``, or a newer version of it, opens."""

    key_id: str
    wrapped: bytes


class RecordingKeys(Protocol):
    """Keeps one key for each tenant, and wraps data keys with it."""

    async def wrap(self, tenant: str, data_key: bytes) -> WrappedKey: ...

    async def unwrap(self, tenant: str, wrapped: WrappedKey) -> bytes:
        """Return the data key.

        Raises:
            RecordingDamagedError: no key of this tenant opens it.
        """
        ...


async def seal(content: bytes, *, tenant: str, invocation_id: str, keys: RecordingKeys) -> bytes:
    """Return the envelope of ``content``."""
    data_key, nonce = AESGCM.generate_key(bit_length=8 * DATA_KEY_BYTES), os.urandom(NONCE_BYTES)
    wrapped = await keys.wrap(tenant, data_key)
    header = json.dumps(
        {
            "key_id": wrapped.key_id,
            "wrapped_key": base64.b64encode(wrapped.wrapped).decode(),
            "nonce": base64.b64encode(nonce).decode(),
        }
    ).encode()
    head = _MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header
    bound = _bound(head, tenant, invocation_id)
    return head + await asyncio.to_thread(AESGCM(data_key).encrypt, nonce, content, bound)


async def open_envelope(envelope: bytes, *, tenant: str, invocation_id: str, keys: RecordingKeys) -> bytes:
    """Return what was sealed for this tenant and invocation.

    Raises:
        RecordingDamagedError: it was not, or a bit of it has changed.
    """
    start = len(_MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(envelope[len(_MAGIC) : start], "big")
    if not envelope.startswith(_MAGIC) or end > len(envelope):
        raise RecordingDamagedError("expected a sealed recording, got other bytes")
    try:
        header = json.loads(envelope[start:end])
        wrapped = WrappedKey(str(header["key_id"]), base64.b64decode(header["wrapped_key"], validate=True))
        nonce = base64.b64decode(header["nonce"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise RecordingDamagedError("expected the header of a sealed recording, got other bytes") from error
    data_key = await keys.unwrap(tenant, wrapped)
    bound = _bound(envelope[:end], tenant, invocation_id)
    try:
        return await asyncio.to_thread(AESGCM(data_key).decrypt, nonce, envelope[end:], bound)
    except (InvalidTag, ValueError) as error:
        raise RecordingDamagedError("expected the bytes that were sealed, got changed ones") from error


def _bound(head: bytes, tenant: str, invocation_id: str) -> bytes:
    return b"\0".join((head, tenant.encode(), invocation_id.encode()))
