"""Recent invocations; ``facts`` is what no query asks for, as JSON. One index: they are written more than read."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "invocations",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("invocation_id", sa.Text, primary_key=True),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("template", sa.Text, nullable=False),
        sa.Column("started_us", sa.Integer, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("logs", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("invocations")
