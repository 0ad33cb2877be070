"""Bring a SQLite database up to date with alembic, which is not even loaded when there is nothing to do."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Final

from data_plane.sealed_rows import RowSeals

NEWEST: Final = MappingProxyType({"agents": "0004", "invocations": "0002", "llm_use": "0001"})
"""The last migration of each schema; a test compares this with the files."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(path: Path, schema: str, *, seals: RowSeals) -> None:
    """Create or upgrade the database ``path``; safe to interrupt at any point and to repeat.

    ``seals`` seal the rows of a database that had none.
    """
    if _revision(path) == NEWEST[schema]:
        return
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS / schema))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        config.attributes["connection"] = connection
        config.attributes["seals"] = seals
        command.upgrade(config, "head")
    engine.dispose()


def _revision(path: Path) -> str:
    if not path.exists():
        return ""
    with closing(sqlite3.connect(path)) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return "" if found is None else str(found[0])
