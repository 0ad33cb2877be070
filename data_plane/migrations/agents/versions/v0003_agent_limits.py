"""An agent's own ceilings, as a JSON object of amounts; the requests that made agents keep them too."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for table in ("agents", "requests"):
        op.add_column(table, sa.Column("limits", sa.Text, nullable=False, server_default="{}"))


def downgrade() -> None:
    for table in ("requests", "agents"):
        op.drop_column(table, "limits")
