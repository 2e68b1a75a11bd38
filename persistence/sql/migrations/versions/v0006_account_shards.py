"""What account shards have. Never edit: add a revision. A cut-off upgrade is fit to run again."""

from alembic import op
from sqlalchemy import MetaData, Table

from persistence.sql.columns import OPTIONS, big, identifier, origin, small_key

revision = "0006"
down_revision: str | None = "0005"

_marks = Table(
    "marks",
    MetaData(),
    small_key("shard"),
    small_key("source"),
    *origin(),
    identifier("incarnation"),
    big("source_seq"),
    big("source_index"),
    big("updated_ms"),
    **OPTIONS,
)


def upgrade() -> None:
    """One table."""
    _marks.create(op.get_bind(), checkfirst=True)
