"""Broken glasses: who put the admission policies aside, for what, and what went through."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "break_glass",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("template", sa.String, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("minutes", sa.Integer, nullable=False),
        sa.Column("opened_by", sa.String, nullable=False),
        sa.Column("opened_at", sa.Integer, nullable=False),
        sa.Column("confirmed_by", sa.String, nullable=False),
        sa.Column("confirmed_at", sa.Integer),
        sa.Column("closed_by", sa.String, nullable=False),
        sa.Column("closed_at", sa.Integer),
        sa.Column("uses", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("break_glass_by_template", "break_glass", ["template", "number"])
