"""Keys of recordings in the node's private store: one file for each tenant, made when it is first needed.

Deleting a tenant's file makes its recordings unreadable for good, wherever copies of them lie.
"""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from data_plane.recording_envelope import NONCE_BYTES, RecordingDamagedError, WrappedKey
from data_plane.sealed_files import load_or_make_key

_PURPOSE: Final = b"agentfactory recording key\0"


class LocalRecordingKeys:
    """`RecordingKeys` of a directory that only the node can read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys: dict[str, bytes] = {}

    async def wrap(self, tenant: str, data_key: bytes) -> WrappedKey:
        key, nonce = await self._key(tenant), os.urandom(NONCE_BYTES)
        return WrappedKey(_key_id(key), nonce + AESGCM(key).encrypt(nonce, data_key, _PURPOSE + tenant.encode()))

    async def unwrap(self, tenant: str, wrapped: WrappedKey) -> bytes:
        key = await self._key(tenant)
        if wrapped.key_id != _key_id(key):
            raise RecordingDamagedError(f"expected a recording under key {_key_id(key)}, got {wrapped.key_id[:40]!r}")
        nonce, sealed = wrapped.wrapped[:NONCE_BYTES], wrapped.wrapped[NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, sealed, _PURPOSE + tenant.encode())
        except (InvalidTag, ValueError) as error:
            raise RecordingDamagedError("expected a key that was wrapped for this tenant, got another") from error

    async def _key(self, tenant: str) -> bytes:
        key = self._keys.get(tenant)
        if key is None:
            key = self._keys[tenant] = await asyncio.to_thread(self._load, tenant)
        return key

    def _load(self, tenant: str) -> bytes:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return load_or_make_key(self._directory / f"{hashlib.sha256(tenant.encode()).hexdigest()[:32]}.key")


def _key_id(key: bytes) -> str:
    """Name a key without telling anything about it."""
    return "local:" + hashlib.sha256(_PURPOSE + key).hexdigest()[:16]
