"""The event feed beyond the journal. Never edit: add a revision.

A database of before has no facts of what it has applied: the feed begins at its position. A cut-off
upgrade is fit to run again.
"""

from alembic import op
from sqlalchemy import MetaData, Table, inspect

from persistence.sql.columns import OPTIONS, big, big_key, blob, small_key

revision = "0005"
down_revision: str | None = "0004"

_facts = Table(
    "facts",
    MetaData(),
    small_key("shard"),
    big_key("seq"),
    big("at_ms"),
    blob("data"),
    **OPTIONS,
)


def upgrade() -> None:
    """One table and one column."""
    _facts.create(op.get_bind(), checkfirst=True)
    known = {found["name"] for found in inspect(op.get_bind()).get_columns("positions")}
    if "facts_after_seq" not in known:
        op.add_column("positions", big("facts_after_seq"))
    op.execute("UPDATE positions SET facts_after_seq = seq")
