"""Secrets as private files of one directory: each file is one secret, its name the secret's.

A file is read again when it has changed, at most once within `TTL_S`: a rotated secret is used without a restart. What
projected volumes of Kubernetes do (a file that is a link into a directory that is exchanged) works: the mode and owner
are those of the opened file.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_plane.broker.secret_binding import Secret, SecretUnusableError, require_name
from service.secret_files import ExposedFileError, read_secret

TTL_S: Final = 5.0
"""How long a value is used after it was replaced on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    secret: Secret
    read_at: float


class SecretDirectory:
    """`data_plane.broker.secret_binding.SecretKeeper` of an operator's directory; without one there are no secrets."""

    def __init__(self, directory: Path | None, *, monotonic: Callable[[], float]) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}

    async def secret(self, name: str) -> Secret:
        """Return a secret; a failure is not remembered, so that a file which was just put there is found."""
        require_name(name)
        known = self._known.get(name)
        if known is not None and self._monotonic() - known.read_at < TTL_S:
            return known.secret
        self._known.pop(name, None)
        secret = Secret.parse(name, await asyncio.to_thread(self._read, name))
        self._known[name] = _Known(secret=secret, read_at=self._monotonic())
        return secret

    def _read(self, name: str) -> bytes:
        if self._directory is None:
            raise SecretUnusableError("expected a node that keeps secrets, got one without a secrets directory")
        try:
            return read_secret(self._directory / name)
        except ExposedFileError as error:
            raise SecretUnusableError(error.message) from None
        except OSError as error:
            raise SecretUnusableError(f"expected the secret {name} in the node's directory: {error.strerror}") from None
