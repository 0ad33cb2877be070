"""Rows under a MAC: a value that changed on the disk, or was moved to another place, is noticed when it is read.

SQLite finds a broken page, not a flipped byte inside a value. The MAC (HMAC-SHA-256, 16 bytes kept) covers the table
and every column of a row. It does not notice a row that is missing, or an older one of the same place: that takes
whoever writes the file as this node, and they could also read the key.
"""

import hmac
import json
from collections.abc import Sequence
from typing import Final

from templates.reasons import AgentFactoryError, Reason

SEAL_BYTES: Final = 16

_encode: Final = json.JSONEncoder(separators=(",", ":"), default=bytes.hex, check_circular=False).encode

Column = str | bytes | int | None


class RowDamagedError(AgentFactoryError):
    """A row of a database is not what this node wrote; deleting or replacing what it holds mends it."""

    reason = Reason.STORE_DAMAGED

    def __init__(self, table: str, name: str) -> None:
        super().__init__(
            f"{table}: expected the row that was written, got a changed one: {name}",
            metadata={"table": table, "row": name},
        )


class RowSeals:
    """Seals rows and checks them, with a key of the node's own."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, table: str, columns: Sequence[Column]) -> bytes:
        """Return what is stored beside a row whose other columns are these, in this order."""
        return self.seal_text(_encode((table, *columns))[1:-1])

    def seal_text(self, text: str) -> bytes:
        """Return what `seal` does, for whoever has table and columns as the members of a JSON array already."""
        return hmac.digest(self._key, f"[{text}]".encode(), "sha256")[:SEAL_BYTES]

    def require(self, table: str, columns: Sequence[Column], seal: object, *, name: str) -> None:
        """Raise `RowDamagedError` unless ``seal`` was made of these columns; ``name`` says which row it is."""
        try:
            expected = self.seal(table, columns)
        except TypeError:  # a column of a type that nobody writes
            raise RowDamagedError(table, name) from None
        if not isinstance(seal, bytes) or not hmac.compare_digest(expected, seal):
            raise RowDamagedError(table, name)
