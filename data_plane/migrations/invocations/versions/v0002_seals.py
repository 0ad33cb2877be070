"""Every row carries a seal; rows that are there get theirs now. ``facts`` ends with a digest of the logs."""

import hashlib
import json

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    seals = context.config.attributes["seals"]
    connection = op.get_bind()
    op.add_column("invocations", sa.Column("seal", sa.Text, nullable=True))
    rows = connection.exec_driver_sql(
        "SELECT tenant, invocation_id, agent_id, template, started_us, facts, logs FROM invocations"
    )
    for *columns, facts_text, logs in rows.fetchall():
        digest = hashlib.sha256(logs.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        facts = json.dumps([*json.loads(facts_text), digest], ensure_ascii=False, separators=(",", ":"))
        connection.exec_driver_sql(
            "UPDATE invocations SET facts = ?, seal = ? WHERE tenant = ? AND invocation_id = ?",
            (facts, seals.seal("invocations", (*columns, facts)).hex(), columns[0], columns[1]),
        )


def downgrade() -> None:
    op.drop_column("invocations", "seal")
