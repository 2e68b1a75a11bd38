"""Entries to bytes and back, for ever."""

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from actors.core import records as r
from actors.core import state as s
from actors.core.codec import UnreadableEntry, pack_entry, unpack_entry
from actors.core.identity import public_id
from actors.core.snapshot import digest
from tests.model.shop import replay

FIXTURES = Path(__file__).parents[2] / "fixtures"
JOURNALS = (
    "journal_v1.json",
    "journal_v1_teams.json",
    "journal_v1_commission.json",
    "journal_v1_risk.json",
    "journal_v1_relay.json",
    "journal_v1_commission_memory.json",
)
"""The second has what came with group-buys, the third with commission, the fourth with risk, the
fifth with the relay, the sixth when orders and withdrawals of commission began to leave memory."""


def entries_of(stored: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(entry) for entry in stored["entries"]]


@pytest.mark.parametrize("name", JOURNALS)
def test_a_journal_of_the_first_format_folds_to_the_same_state_for_ever(name: str) -> None:
    """Never written anew: a release that cannot read it, or reads it otherwise, is broken."""
    stored = json.loads((FIXTURES / name).read_text())
    journal = entries_of(stored)
    state = s.ShardState()
    replay(state, journal, 0)
    assert f"{digest(state):016x}" == stored["digest"]
    told = {
        f"{pool.campaign_id}/{pool.sku_id}": list(pool.balance(number, 1)[4:])
        for number, slot in state.slots.items()
        for pool in slot.pools()
    }
    assert told == stored["pools"]
    teams = {
        public_id(number, team.key): [team.state, team.leader_id, *_seats(slot, team.members)]
        for number, slot in state.slots.items()
        for team in slot.teams.values()
    }
    assert teams == stored.get("teams", {})


def _seats(slot: s.SlotState, members: tuple[bytes, ...]) -> list[list[Any]]:
    """(buyer, settled) of members in memory."""
    held = [slot.reservations.get(key) for key in members]
    return [[seat.buyer_id, seat.settled_minor] for seat in held if type(seat) is s.Seat]


def test_every_kind_of_record_is_in_a_fixture() -> None:
    kinds = {
        record.kind
        for name in JOURNALS
        for entry in entries_of(json.loads((FIXTURES / name).read_text()))
        for record in unpack_entry(entry).records
    }
    assert kinds == set(r.RECORDS)


def test_a_kinds_number_never_changes() -> None:
    names = {
        1: "SkuPut StockChanged TransferredOut TransferredIn TransferEnded CampaignPut",
        7: "CampaignStateSet",
        10: "StockReserved RequestRefused ReservationConfirmed ReservationReleased",
        14: "ReservationExpired PaymentBegun PaymentFailed RefundFellDue UnitsReturned",
        19: "FulfilmentReported RefundReported ReservationRevoked ReservationsForgotten",
        23: "ReservationRecalled",
        30: "TeamOpened SeatTaken TeamLed SeatMoved SeatClosed TeamFormed SeatSettled TeamClosed",
        38: "TeamsForgotten TeamNearlyFull",
        70: "DistributorSet BuyerBound RatesPut OrderAccrued OrderReversed OrderMatured",
        76: "MaturityMoved DistributorHeld StatementMade WithdrawalRequested WithdrawalReviewed",
        81: "OrdersForgotten OrderRecalled WithdrawalsForgotten WithdrawalRecalled",
        90: "SignalNoted BuyerFrozen BuyerUnfrozen ProfilesRested HoldNoted",
        100: "FactTaken",
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
