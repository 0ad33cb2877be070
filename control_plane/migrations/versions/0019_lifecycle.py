"""Lifecycle: revisions and history of changes, drafts that reserve nothing, answers to request ids (ADR 19).

What was accepted stays: every change keeps its number, state and signatures, and its history begins with its
submission, the one step whose person and time the first schema kept.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("changes", sa.Column("revision", sa.Integer, nullable=False, server_default="1"))
    op.add_column("changes", sa.Column("updated_at", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE changes SET updated_at = created_at")
    op.execute("ALTER TABLE changes RENAME COLUMN reject_reason TO state_reason")
    op.drop_index("one_change_per_version", "changes")
    op.create_index(
        "one_change_per_version",
        "changes",
        ["domain", "name", "version"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('DRAFT', 'REJECTED', 'WITHDRAWN')"),
    )
    op.create_index(
        "one_draft_per_author",
        "changes",
        ["author", "domain", "name", "version"],
        unique=True,
        sqlite_where=sa.text("state = 'DRAFT'"),
    )
    op.create_table(
        "change_events",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("change", sa.Integer, sa.ForeignKey("changes.number"), nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("person", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("before", sa.String),
        sa.Column("after", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_change", "change_events", ["change", "number"])
    op.execute(
        "INSERT INTO change_events (change, at, person, action, before, after, text)"
        " SELECT number, created_at, author, 'SUBMIT', NULL, 'IN_REVIEW', sha256 FROM changes ORDER BY number"
    )
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER change_events_no_{verb.lower()} BEFORE {verb} ON change_events"
            " BEGIN SELECT RAISE(ABORT, 'the history of changes is only added to'); END"
        )
    op.create_table(
        "answers",
        sa.Column("person", sa.String, primary_key=True),
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("answered_at", sa.Integer, nullable=False),
    )
    op.create_index("answers_by_time", "answers", ["answered_at"])
