"""The audit log: entries, checkpoints and removals that SQLite itself refuses to change (ADR 22)."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0019"
branch_labels = None
depends_on = None

# The searched columns are computed from the very text that is hashed: they cannot say anything else.
_COMPUTED = {
    "at": "$.time",
    "principal": "$.principal",
    "action": "$.action",
    "resource": "$.resource",
    "outcome": "$.outcome",
    "code": "$.code",
}

_TRIGGERS = (
    # INSERT OR REPLACE would delete without any DELETE trigger: numbers that were used are refused before that.
    """CREATE TRIGGER audit_entries_follow BEFORE INSERT ON audit_entries
       WHEN NEW.sequence <> (SELECT COALESCE(MAX(sequence), 0) + 1 FROM audit_entries)
       BEGIN SELECT RAISE(ABORT, 'audit entries follow one another'); END""",
    """CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries
       BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END""",
    """CREATE TRIGGER audit_entries_remain BEFORE DELETE ON audit_entries
       WHEN OLD.sequence > (SELECT COALESCE(MAX(sequence), 0) FROM audit_removals)
       BEGIN SELECT RAISE(ABORT, 'audit entries are removed by retention only'); END""",
    """CREATE TRIGGER audit_checkpoints_follow BEFORE INSERT ON audit_checkpoints
       WHEN NEW.sequence <= (SELECT COALESCE(MAX(sequence), 0) FROM audit_checkpoints)
       BEGIN SELECT RAISE(ABORT, 'checkpoints follow one another'); END""",
    """CREATE TRIGGER audit_checkpoints_stay BEFORE UPDATE ON audit_checkpoints
       BEGIN SELECT RAISE(ABORT, 'checkpoints are never changed'); END""",
    """CREATE TRIGGER audit_checkpoints_remain BEFORE DELETE ON audit_checkpoints
       BEGIN SELECT RAISE(ABORT, 'checkpoints are never removed'); END""",
    """CREATE TRIGGER audit_removals_follow BEFORE INSERT ON audit_removals
       WHEN NEW.sequence <= (SELECT COALESCE(MAX(sequence), 0) FROM audit_removals)
         OR NOT EXISTS (SELECT 1 FROM audit_checkpoints WHERE sequence = NEW.sequence)
       BEGIN SELECT RAISE(ABORT, 'removals end at a checkpoint'); END""",
    """CREATE TRIGGER audit_removals_stay BEFORE UPDATE ON audit_removals
       BEGIN SELECT RAISE(ABORT, 'removals are never changed'); END""",
    """CREATE TRIGGER audit_removals_remain BEFORE DELETE ON audit_removals
       BEGIN SELECT RAISE(ABORT, 'removals are never undone'); END""",
)


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        *(
            sa.Column(name, sa.String, sa.Computed(f"json_extract(line, '{path}')", persisted=False))
            for name, path in _COMPUTED.items()
        ),
    )
    for name in _COMPUTED:
        op.create_index(f"audit_entries_by_{name}", "audit_entries", [name, "sequence"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.String, nullable=False, unique=True),
        sa.Column("signed_at", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table("audit_removals", sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False))
    for trigger in _TRIGGERS:
        op.execute(trigger)
