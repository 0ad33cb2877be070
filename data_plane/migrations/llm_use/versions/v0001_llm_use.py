"""Tokens and cost of each day, by agent and by tenant."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    keys = ("tenant", "domain", "name", "agent_id", "binding")
    op.create_table(
        "llm_use",
        sa.Column("day", sa.Integer, primary_key=True),
        *[sa.Column(each, sa.Text, primary_key=True) for each in keys],
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("cost_microusd", sa.Integer, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("llm_use")
