"""Agents, the requests that made them, and key-value state with versions and room for expiry."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _scope() -> list[sa.Column[str]]:
    return [
        sa.Column(each, sa.Text, primary_key=True) for each in ("tenant", "domain", "name", "agent_id", "namespace")
    ]


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("agent_id", sa.Text, primary_key=True),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("created_us", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table("totals", sa.Column("agents", sa.Integer, nullable=False))
    op.execute("INSERT INTO totals VALUES (0)")
    op.create_index("agents_by_template", "agents", ["tenant", "domain", "name", "agent_id"])
    op.create_table(
        "requests",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("created_us", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("requests_by_age", "requests", ["created_us"])
    op.create_table(
        "kv_scopes",
        *_scope(),
        sa.Column("used_bytes", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "kv",
        *_scope(),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("expires_us", sa.Integer, nullable=True),
    )


def downgrade() -> None:
    for table in ("kv", "kv_scopes", "requests", "totals", "agents"):
        op.drop_table(table)
