"""Every row carries a seal; rows that are there get theirs now."""

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"

_TABLES = {
    "agents": ("tenant", "agent_id", "domain", "name", "config", "created_us"),
    "requests": ("tenant", "request_id", "sha256", "agent_id", "domain", "name", "config", "created_us"),
    "totals": ("agents",),
    "kv_scopes": ("tenant", "domain", "name", "agent_id", "namespace", "used_bytes", "version"),
    "kv": ("tenant", "domain", "name", "agent_id", "namespace", "key", "value", "version", "expires_us"),
}


def upgrade() -> None:
    seals = context.config.attributes["seals"]
    connection = op.get_bind()
    for table, columns in _TABLES.items():
        op.add_column(table, sa.Column("seal", sa.LargeBinary, nullable=True))
        same = " AND ".join(f"{each} IS ?" for each in columns)
        for row in connection.exec_driver_sql(f"SELECT {', '.join(columns)} FROM {table}").fetchall():  # noqa: S608
            connection.exec_driver_sql(
                f"UPDATE {table} SET seal = ? WHERE {same}",  # noqa: S608 -- constants only
                (seals.seal(table, tuple(row)), *row),
            )


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "seal")
