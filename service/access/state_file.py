"""Secure mode and blocks in one private JSON file, fsynced and replaced by one rename: `cat` shows it.

A file and not the database: it must hold when the database is what is in trouble, and nodes keep the same one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.access.protection import AccessState, Block, SecureMode, parse_network
from service.secret_files import read_secret, replace_secret
from templates.canonical import JsonObject, canonical_bytes
from templates.reasons import AgentFactoryError, Reason
from templates.strict_json import loads

BYTES_MAX: Final = 262_144
SCHEMA: Final = 1


class AccessStateError(AgentFactoryError):
    """The file is there and cannot be read. The process does not start: a block must not vanish by a damaged byte."""

    reason = Reason.STATE_INVALID


@dataclass(frozen=True, slots=True)
class AccessStateFile:
    path: Path

    def read(self) -> AccessState:
        """Return what is kept; nothing when there is no file.

        Raises:
            AccessStateError: damaged, or readable by others.
        """
        try:
            value: Any = loads(read_secret(self.path), bytes_max=BYTES_MAX, depth_max=8)
            if value["schema"] != SCHEMA:
                raise AccessStateError(f"expected schema {SCHEMA}, got {value['schema']!r}: {self.path}")
            mode = value["secure_mode"]
            return AccessState(
                secure_mode=None if mode is None else SecureMode(**mode),
                blocks=tuple(Block(**{**each, "network": parse_network(each["network"])}) for each in value["blocks"]),
            )
        except FileNotFoundError:
            return AccessState()
        except (OSError, KeyError, TypeError, AgentFactoryError) as error:
            raise AccessStateError(f"expected the state of access, got {error}: {self.path}") from error

    def write(self, state: AccessState) -> None:
        """Replace what is kept; on return it is durable."""
        replace_secret(self.path, state_bytes(state))


def state_bytes(state: AccessState) -> bytes:
    """Return the content of the file that keeps ``state``."""
    mode = state.secure_mode
    value: JsonObject = {
        "schema": SCHEMA,
        "secure_mode": None if mode is None else {"by": mode.by, "why": mode.why, "since": mode.since},
        "blocks": [
            {"network": str(each.network), "by": each.by, "why": each.why, "since": each.since, "until": each.until}
            for each in state.blocks
        ],
    }
    return canonical_bytes(value)
