"""What Alembic runs to migrate. The caller hands over an open connection; nothing is read here."""

from alembic import context

from persistence.sql.tables import metadata


def _migrate() -> None:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


_migrate()
