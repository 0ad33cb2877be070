"""Keeps the newest checkpoint of the control plane's audit log that this node saw, and moves on along its chain only.

Whoever rewrites the log, with every online key in hand, does not make this node forget: what does not continue what it
saw is refused, and what it saw goes back with every report and to whoever asks the node itself (ADR 22).
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum, unique
from pathlib import Path

from data_plane.sealed_files import StoreDamagedError, read_sealed, write_sealed
from service.logs import get_logger
from service.telemetry import Field
from templates.audit_checkpoint import AuditForkedError, checkpoint_keys, follow
from templates.reasons import AgentFactoryError

_PURPOSE = "audit checkpoint"

log = get_logger("audit")


@unique
class Event(StrEnum):
    """What this module logs."""

    AUDIT_FORK_REFUSED = "audit_fork_refused"
    AUDIT_CHECKPOINT_REFUSED = "audit_checkpoint_refused"
    AUDIT_CHECKPOINT_LOST = "audit_checkpoint_lost"


class AuditWitness:
    """``held`` is the newest checkpoint, empty for none; ``warning`` says for people what is wrong, if anything is."""

    def __init__(self, path: Path, *, key: bytes, environment: str, root: Callable[[], bytes]) -> None:
        """Read what the file ``path`` holds, sealed under ``key``. ``root`` gives the root that the node trusts now."""
        self._path = path
        self._key = key
        self._environment = environment
        self._root = root
        self._writing = asyncio.Lock()
        self.warning = ""
        self.held = self._read()

    async def take(self, documents: Sequence[bytes]) -> None:
        """Take checkpoints as the control plane sent them; what cannot be taken is logged, and changes nothing."""
        async with self._writing:
            try:
                newest = follow(
                    self.held or None,
                    documents,
                    keys=checkpoint_keys(self._root()),
                    environment=self._environment,
                )
                if newest is None:
                    return
                await asyncio.to_thread(write_sealed, self._path, newest, purpose=_PURPOSE, key=self._key)
            except AuditForkedError as error:
                self.warning = f"the control plane's audit log is not the one that this node saw before: {error}"
                log.error(Event.AUDIT_FORK_REFUSED, **{Field.ERROR: error.message})  # noqa: TRY400 -- expected
                return
            except AgentFactoryError as error:  # signed by a newer key than this node knows yet, or a full disk
                facts = {Field.REASON: str(error.reason), Field.ERROR: error.message}
                log.warning(Event.AUDIT_CHECKPOINT_REFUSED, **facts)
                return
            self.held, self.warning = newest, ""

    def _read(self) -> bytes:
        if not self._path.exists():
            return b""
        try:
            return read_sealed(self._path, purpose=_PURPOSE, key=self._key)
        except StoreDamagedError as error:
            self.warning = f"the audit checkpoint that this node kept is damaged: {error.message}"
            log.error(Event.AUDIT_CHECKPOINT_LOST, **{Field.ERROR: error.message})  # noqa: TRY400 -- expected
            return b""
