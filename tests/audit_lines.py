"""What stands in a control plane's audit log, read from its database beside the running process."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def audit_lines(database: Path) -> list[bytes]:
    """Return the lines of the log, oldest first."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [row[0].encode() for row in connection.execute("SELECT line FROM audit_entries ORDER BY sequence")]


def audit_entries(database: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in audit_lines(database)]
