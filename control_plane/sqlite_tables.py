"""What every table of the control plane's SQLite database belongs to; the migrations make them."""

from typing import Final

import sqlalchemy as sa

SCHEMA: Final = sa.MetaData()
