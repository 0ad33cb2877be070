"""Find key-value entries that have expired, of one namespace and of all, without looking at those that never do."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_EXPIRING = sa.text("expires_us IS NOT NULL")


def upgrade() -> None:
    scope = ["tenant", "domain", "name", "agent_id", "namespace"]
    op.create_index("kv_expiring", "kv", [*scope, "expires_us"], sqlite_where=_EXPIRING)
    op.create_index("kv_by_expiry", "kv", ["expires_us"], sqlite_where=_EXPIRING)


def downgrade() -> None:
    op.drop_index("kv_by_expiry", "kv")
    op.drop_index("kv_expiring", "kv")
