"""Entries to bytes and back, for ever."""

import json
from pathlib import Path

import msgpack
import pytest

from actors.core import records as r
from actors.core import state as s
from actors.core.codec import UnreadableEntry, pack_entry, unpack_entry
from actors.core.snapshot import digest
from tests.model.shop import replay

FIXTURE = Path(__file__).parents[2] / "fixtures" / "journal_v1.json"


def test_a_journal_of_the_first_format_folds_to_the_same_state_for_ever() -> None:
    """Never written anew: a release that cannot read it, or reads it otherwise, is broken."""
    stored = json.loads(FIXTURE.read_text())
    journal = [bytes.fromhex(entry) for entry in stored["entries"]]
    kinds = {record.kind for entry in journal for record in unpack_entry(entry).records}
    assert kinds == set(r.RECORDS), "a record kind is missing from the fixture"
    state = s.ShardState()
    replay(state, journal, 0)
    assert f"{digest(state):016x}" == stored["digest"]
    told = {
        f"{pool.campaign_id}/{pool.sku_id}": list(pool.balance(number, 1)[4:])
        for number, slot in state.slots.items()
        for pool in slot.pools()
    }
    assert told == stored["pools"]


def test_a_kinds_number_never_changes() -> None:
    names = {
        1: "SkuPut StockChanged TransferredOut TransferredIn TransferEnded CampaignPut",
        7: "CampaignStateSet",
        10: "StockReserved RequestRefused ReservationConfirmed ReservationReleased",
        14: "ReservationExpired PaymentBegun PaymentFailed RefundFellDue UnitsReturned",
        19: "FulfilmentReported RefundReported ReservationRevoked ReservationsForgotten",
        23: "ReservationRecalled",
    }
    told = {
        first + number: name
        for first, group in names.items()
        for number, name in enumerate(group.split())
    }
    assert {kind: record.__name__ for kind, record in r.RECORDS.items()} == told


def test_a_field_added_later_has_its_default_in_an_old_journal() -> None:
    old = (r.STOCK_RESERVED, 1, b"k" * 16, "w", "r", 1, "", "tea", 1, "ann", 1, 1, 1, "CNY", 5)
    (record,) = unpack_entry(msgpack.packb((1, 1, 2, [old], []))).records
    assert (record.deadline_ms, record.order_id, record.claims) == (5, "", ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x05",
        msgpack.packb("text"),
        msgpack.packb((1, 2, 3)),
        msgpack.packb((2, 1, 1, [], [])),
        msgpack.packb((1, 1, 1, [(99, 1)], [])),
        msgpack.packb((1, 1, 1, [()], [])),
        msgpack.packb((1, 1, 1, [5], [])),
        msgpack.packb((1, 1, 1, [(12, 1)], [])),
        msgpack.packb((1, 1, 1, 5, [])),
        msgpack.packb((1, 1, 1, [], [(1, 2)])),
        msgpack.packb((1, 1, 1, [], [])) + b"x",
    ],
)
def test_anything_else_is_unreadable_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(UnreadableEntry):
        unpack_entry(data)


def test_an_entry_without_records_is_an_entry() -> None:
    """Time may go on with nothing decided."""
    assert unpack_entry(pack_entry(epoch=3, now_ms=7, records=[], balances=[])) == (3, 7, [], [])
