"""Run by alembic inside `control_plane.sqlite_store.SqliteStore`, on the connection that it hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,  # SQLite has it; alembic assumes otherwise because the old Python driver did not
)
with context.begin_transaction():
    context.run_migrations()
