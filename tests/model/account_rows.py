"""Rows of commission as the projector writes them, for what left memory to come back from."""

from typing import Any

from actors.core import commands as c
from actors.core import relay_commands as y
from actors.core.commission_state import reservation_of
from actors.core.forgetting import recall_key
from actors.core.identity import public_id
from actors.rows import RowBatch
from persistence.ports import Rows
from server.recall import recalled_order, recalled_withdrawal

KEYS = {"commission_orders": "reservation_id", "withdrawals": "withdrawal_id"}
"""Tables, and what names a row of each."""


class AccountRows:
    """Orders and withdrawals in SQL, by id."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def take(self, batch: RowBatch) -> None:
        """Write what a batch has of them."""
        for rows in batch.tables():
            if rows.table in KEYS:
                self._write(rows)

    def _write(self, rows: Rows) -> None:
        for values in rows.values:
            row = dict(zip(rows.columns, values, strict=True))
            known: dict[str, Any] = {"returned_quantity": 0, "delivered": 0, "reference": ""}
            self.rows.setdefault(row[KEYS[rows.table]], known).update(row)

    def with_row(self, command: Any) -> c.Recalled:
        """A command that was answered RECALL, with what SQL has of its row."""
        key, slot = recall_key(command) or b"", command.slot
        of_order = command.kind == y.TAKE_FACTS
        row = self.rows.get(reservation_of(key) if of_order else public_id(slot, key))
        made = recalled_order if of_order else recalled_withdrawal
        head = (c.RECALLED, slot, 0, command.caller)
        return c.Recalled(*head, () if row is None else made(row), command)
