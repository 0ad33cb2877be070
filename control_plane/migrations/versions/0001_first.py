"""The first schema: changes, inspections, generations with the newest metadata, belief, trust documents, nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("domain", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("resolved", sa.LargeBinary, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("code_sha256", sa.String),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("envelope", sa.LargeBinary),
        sa.Column("reject_reason", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("warnings", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "one_change_per_version",
        "changes",
        ["domain", "name", "version"],
        unique=True,
        sqlite_where=sa.text("state != 'REJECTED'"),
    )
    op.create_index(
        "one_change_per_request",
        "changes",
        ["author", "request_id"],
        unique=True,
        sqlite_where=sa.text("request_id != ''"),
    )
    op.create_index("changes_by_state", "changes", ["state", "number"])
    op.create_table(
        "inspections",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("report", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "generations",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("bundle_sha256", sa.String, nullable=False),
    )
    op.create_table(
        "metadata",
        sa.Column("file", sa.String, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "belief",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "trust",
        sa.Column("file", sa.String, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("seen_at", sa.Integer, nullable=False),
        sa.Column("view", sa.JSON, nullable=False),
    )
