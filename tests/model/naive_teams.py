"""The rules of group-buys, as dumb as those of `naive.py`: who is in a team is looked up each time.

`Naive.apply` decides what is asked. What a shard decides by itself, or what follows from a decision
(a leader, a team's end, its members' money), is told by its record, and judged: an AssertionError
if the rules have it otherwise. `after_entry` says what must hold once an entry is whole.
"""

from collections.abc import Callable
from typing import Any

from actors.core import team_commands as t
from actors.core import team_records as tr
from actors.core.campaign_config import Tier
from actors.core.identity import public_id, request_key
from actors.core.refunds import RefundReason
from tests.model.naive import LIVE, RULES, Naive
from tests.model.naive_stock import ENDED, Row

FAILED, CANCELLED = 3, 4


class NaiveTeams(Naive):
    """One shop with teams."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.teams: dict[str, Row] = {}
        self.gone: set[str] = set()
        """Teams that left memory."""
        self.touched: set[str] = set()
        """Teams that this entry changed."""
        self.early: set[str] = set()
        """Those of them that lost a seat before its time."""
        self.sometimes: Callable[[str], object] = lambda _: None
        self._opened: tr.TeamOpened | None = None

    def apply(self, command: Any) -> tuple[Any, ...]:
        rule = TEAM_RULES.get(command.kind) or RULES[command.kind]
        answer: tuple[Any, ...] = rule(self, command)
        row = self.held.get(getattr(command, "reservation_id", ""))
        if row is not None and "team" in row:
            self.touched.add(row["team"])
        return answer

    # Who is in a team

    def seats(self, team: Row) -> list[Row]:
        """Seats that are held, in the order of joining."""
        live = [row for row in team["seats"] if row["team"] == team["id"] and row["state"] in LIVE]
        return sorted(live, key=lambda row: (row["joined"], row["key"]))

    def paid(self, team: Row) -> list[Row]:
        """Those of them that are paid."""
        return [row for row in self.seats(team) if row["state"] == "CONFIRMED"]

    def free(self, team: Row) -> int:
        """Seats that nobody holds."""
        people: int = team["tiers"][-1].people
        return people - len(self.seats(team))

    def _only_new(self, team: Row) -> bool:
        new = sum(row["new"] for row in self.seats(team))
        return bool(self.free(team) <= team["rules"].new_buyer_seats - new)

    def _has_room(self, team: Row, row: Row) -> bool:
        return (
            team["state"] == "FORMING"
            and row["buyer"] not in [seat["buyer"] for seat in self.seats(team)]
            and self.free(team) > 0
            and (row["new"] or not self._only_new(team))
        )

    def _leaders_price(self, team_rules: Any, unit: int) -> int:
        return int(unit - unit * team_rules.leader_discount_bps // 10_000)

    def _is_of_a_forming_team(self, row: Row) -> bool:
        return "team" in row and self.teams[row["team"]]["state"] == "FORMING"

    def _at_most(self, row: Row, deadline_ms: int) -> int:
        if "team" not in row:
            return deadline_ms
        return int(min(deadline_ms, self.teams[row["team"]]["deadline"]))

    # What is asked

    def _told_before(self, q: Any, args: Any) -> tuple[Any, ...] | None:
        key = request_key(q.caller, q.request_id)
        row = self.held.get(public_id(q.slot, key))
        if row:
            return tuple(row["answer"]) if row["args"] == args else ("ID_REUSED",)
        before = self._before({}, q, key, args)
        return (before,) if before else None

    def open_team(self, q: t.OpenTeam) -> tuple[Any, ...]:
        args = ("open", q.campaign_id, q.sku_id, *q[7:11], q.new_buyer)
        told = self._told_before(q, args)
        if told:
            return told
        key = request_key(q.caller, q.request_id)
        pool = self.pools.get((q.campaign_id, q.sku_id))
        line = self.sales[q.campaign_id]["lines"][q.sku_id] if pool and q.campaign_id else None
        if pool is None or line is None or not line.tiers:
            return self._remember(q, key, args, "NOT_FOUND")
        config = self.sales[q.campaign_id]["config"]
        rules, broken = config.group, self._not_now(q.campaign_id, q.claims)
        mine = [
            team
            for team in self.teams.values()
            if (team["opener"], team["sale"], team["state"])
            == (q.buyer_id, q.campaign_id, "FORMING")
        ]
        if not broken and not q.new_buyer and rules.new_buyer_seats >= line.tiers[-1].people:
            broken = "NEW_BUYERS_ONLY"
        if not broken and len(mine) >= rules.teams_per_buyer:
            broken = "TOO_MANY_TEAMS"
        unit = self._leaders_price(rules, line.tiers[0].unit_price_minor)
        broken = broken or self._not_to_be_had(q, pool, unit)
        if broken:
            return self._remember(q, key, args, broken)
        team_key = request_key("team", key.hex())
        until = min(self.now_ms + rules.window_ms, config.ends_ms)
        team = self.teams[public_id(q.slot, team_key)] = {
            "id": public_id(q.slot, team_key),
            "key": team_key,
            "slot": q.slot,
            "sale": q.campaign_id,
            "sku": q.sku_id,
            "opener": q.buyer_id,
            "deadline": until,
            "tiers": line.tiers,
            "rules": rules,
            "state": "FORMING",
            "leader": b"",
            "seats": [],
            "closing": [],
            "unsettled": {},
            "completed": [],
            "by_hand": False,
        }
        return self._sit_down(q, args, team, pool, unit)

    def join_team(self, q: t.JoinTeam) -> tuple[Any, ...]:
        args = ("join", q.team_key, *q[6:10], q.new_buyer)
        told = self._told_before(q, args)
        if told:
            return told
        key = request_key(q.caller, q.request_id)
        team = self.teams.get(public_id(q.slot, q.team_key))
        if team is None or team["id"] in self.gone:
            return self._remember(q, key, args, "NOT_FOUND")
        pool = self.pools[team["sale"], team["sku"]]
        unit = team["tiers"][0].unit_price_minor
        broken = (
            self._not_now(team["sale"], q.claims)
            or self._not_into(team, q)
            or self._not_to_be_had(q, pool, unit)
        )
        if broken:
            if broken == "TEAM_FULL" and team["tiers"][-1].people > len(self.paid(team)):
                self.sometimes("a last seat was refused while it was not paid")
            return self._remember(q, key, args, broken)
        return self._sit_down(q, args, team, pool, unit)

    def _not_into(self, team: Row, q: t.JoinTeam) -> str:
        if team["state"] != "FORMING" or self.now_ms >= team["deadline"]:
            return "TEAM_CLOSED"
        if q.buyer_id in [row["buyer"] for row in self.seats(team)]:
            return "ALREADY_IN_TEAM"
        if not team["leader"]:
            return "TEAM_NOT_OPEN"
        if self.free(team) <= 0:
            return "TEAM_FULL"
        return "NEW_BUYERS_ONLY" if self._only_new(team) and not q.new_buyer else ""

    def _sit_down(self, q: Any, args: Any, team: Row, pool: Row, unit: int) -> tuple[Any, ...]:
        until = min(self.now_ms + self._terms(pool)[1], team["deadline"])
        row = self._take(q, args, pool, unit, until)
        row |= {"team": team["id"], "new": q.new_buyer, "joined": self.now_ms, "left": False}
        team["seats"].append(row)
        self.touched.add(team["id"])
        return tuple(row["answer"])

    def leave_team(self, q: t.LeaveTeam) -> tuple[Any, ...]:
        row = self.held.get(q.reservation_id)
        if row is None or "team" not in row:
            return ("NOT_FOUND",)
        if row["state"] == "RELEASED" or row["left"]:
            return ("LEFT",)
        if row["state"] not in LIVE or not self._is_of_a_forming_team(row):
            told: str = {"EXPIRED": "EXPIRED", "REVOKED": "REVOKED"}.get(row["state"], "")
            return (told or "TEAM_CLOSED",)
        if row["state"] == "RESERVED":
            self._gone(row, "RELEASED")
        else:
            row["left"] = True
            self._pay_all_back(row, "LEFT_TEAM")
        return ("LEFT",)

    def complete_team(self, q: t.CompleteTeam) -> tuple[Any, ...]:
        """What follows is told by the team's record."""
        team = self.teams.get(public_id(q.slot, q.team_key))
        if team is None or team["id"] in self.gone:
            return ("NOT_FOUND",)
        if team["state"] != "FORMING":
            done = team["by_hand"]
            return ("APPLIED" if done and q.people in (0, team["people"]) else "TEAM_CLOSED",)
        if not team["rules"].virtual_completion:
            return ("NOT_ELIGIBLE",)
        paid = len(self.paid(team))
        if not paid:
            return ("TEAM_NOT_OPEN",)
        wanted = [x.people for x in team["tiers"] if x.people >= paid and q.people in (0, x.people)]
        if wanted:
            team["completed"].append(wanted[0])
        return ("APPLIED" if wanted else "INVALID",)

    # Money

    def _why_back(self, row: Row | None, paid: int) -> str:
        why = super()._why_back(row, paid)
        if why or row is None or "team" not in row or row["state"] != "EXPIRED":
            return why
        if not self._has_room(self.teams[row["team"]], row):
            assert not self._with_room(row), "a late payer is not moved to a team with room"
            return "LATE_PAYMENT"
        return ""

    def _with_room(self, row: Row) -> list[Row]:
        """Teams of the line that a late payer could be moved to."""
        name = row["pool"]
        return [
            team
            for team in self.teams.values()
            if (team["sale"], team["sku"]) == name
            and team["leader"]
            and team["id"] not in self.gone
            and self._has_room(team, row)
        ]

    def _pay_all_back(self, row: Row, reason: str) -> None:
        name = public_id(row["slot"], request_key("seat", row["key"].hex()))
        amount, failed = self._kept(row), reason == "TEAM_FAILED"
        self._refund(name, row["slot"], row["payment"], amount, reason, compensation=failed)
        row["state"], row["returned"] = "RETURNED", row["quantity"]
        pool = self.pools[row["pool"]]
        pool["sold"] -= row["quantity"]
        self._free(pool, row["quantity"])

    # What records say

    def expired(self, reservation: str) -> None:
        row = self.held[reservation]
        if "team" not in row:
            super().expired(reservation)
            return
        assert row["state"] == "RESERVED"
        self.touched.add(row["team"])
        if row["deadline"] > self.now_ms:
            self.early.add(row["team"])
        self._gone(row, "EXPIRED")

    def revoked(self, reservation: str) -> None:
        super().revoked(reservation)
        self.touched.add(self.held[reservation].get("team", ""))

    def told(self, record: Any) -> None:
        """A record of a team: AssertionError if it should not be, or should say something else."""
        team = None
        if record[0] != tr.TEAM_OPENED:
            team = self.teams.get(public_id(record.slot, record.team_key))
            assert team is not None, "a record of no team"
            self.touched.add(team["id"])
        TOLD[record[0]](self, team, record)

    def opened(self, _: None, record: tr.TeamOpened) -> None:
        self._opened = record

    def taken(self, record: tr.SeatTaken) -> None:
        """After its command was applied."""
        row = self.held.get(public_id(record.slot, record.key))
        assert row is not None, "a seat is taken that the rules refuse"
        team = self.teams[row["team"]]
        assert record.team_key == team["key"], "a seat of another team"
        assert record.new_buyer == row["new"]
        if len(team["seats"]) == 1 and team["seats"][0] is row:
            record_of = self._opened
            assert record_of is not None, "a seat of a team that nobody opened"
            assert record_of[2:] == (
                team["key"],
                team["sale"],
                team["sku"],
                team["opener"],
                team["deadline"],
            ), "a team is opened otherwise"
            self._opened = None

    def led(self, team: Row, record: tr.TeamLed) -> None:
        assert team["state"] == "FORMING"
        paid = self.paid(team)
        assert team["leader"] not in [row["key"] for row in paid], "a leader is replaced"
        heir = paid[0]["key"] if paid else b""
        assert record.leader_key == heir, "not the earliest paid member leads"
        if team["leader"] and heir:
            self.sometimes("a leader left and another followed")
        team["leader"] = heir

    def moved(self, team: Row, record: tr.SeatMoved) -> None:
        row = self.held[public_id(record.slot, record.key)]
        own = self.teams[row["team"]]
        assert record.from_team_key == own["key"]
        assert row["state"] == "EXPIRED", "a seat is moved that is not late"
        assert not self._has_room(own, row), "a late payer is moved though there is room"
        could = self._with_room(row)
        assert team in could, "a late payer is moved to a team without room"
        assert self.free(team) == min(map(self.free, could)), "not the nearest to full"
        row["team"], row["joined"] = team["id"], self.now_ms
        team["seats"].append(row)
        self.sometimes("a late payer was relocated")

    def seat_closed(self, team: Row, record: tr.SeatClosed) -> None:
        """A member of a team that fails; of who leaves, `leave_team` was applied."""
        row = self.held[public_id(record.slot, record.key)]
        if record.why == RefundReason.TEAM_FAILED:
            assert row in self.paid(team), "a seat is closed that is not paid"
            assert team["state"] == "FORMING", "the team ended before its refunds exist"
            self._pay_all_back(row, "TEAM_FAILED")
            team["closing"].append(row)
            self.sometimes("a failed team owed a refund")
        name = public_id(row["slot"], record.refund_key)
        assert name in self.refunds, "a refund by another key than the seat's own"
        refund = self.refunds[name]
        assert record.payment_id == refund["payment"] == row["payment"]
        assert record.refund_minor == refund["amount"], "a member gets back another amount"

    def _may_end(self, team: Row) -> bool:
        over = self.sales[team["sale"]]["state"] == ENDED
        return bool(over) or bool(self.now_ms >= team["deadline"])

    def _succeeds(self, team: Row, paid: list[Row]) -> Tier | None:
        """The tier that the paid seats reach at the deadline; None if the team fails."""
        reached = [tier for tier in team["tiers"] if len(paid) >= tier.people]
        new = sum(row["new"] for row in paid) >= team["rules"].new_buyer_seats
        return reached[-1] if reached and new else None

    def formed(self, team: Row, record: tr.TeamFormed) -> None:
        assert team["state"] == "FORMING", "a team ends twice"
        paid = self.paid(team)
        assert self.seats(team) == paid, "an unpaid seat outlives its team"
        assert _by_joining(record.members, paid), "others are its members"
        assert record.leader_key == team["leader"], "another leads it"
        if record.caller:
            assert record.tier_people in team["completed"], "nobody completed it"
            assert record.virtual == record.tier_people - len(paid)
            self.sometimes("an operator completed a team")
        elif len(paid) < team["tiers"][-1].people:
            assert self._may_end(team), "it is not full, and its deadline has not come"
            assert self._succeeds(team, paid) is not None, "it reaches no tier"
            assert record.virtual == 0
            self.sometimes("a team formed at its deadline")
        else:
            assert record.virtual == 0
            self.sometimes("a team formed when its last seat was paid")
        people = len(paid) + record.virtual
        tier = [tier for tier in team["tiers"] if people >= tier.people][-1]
        assert (record.tier_people, record.unit_price_minor) == tuple(tier), "at another tier"
        assert record.new_members == sum(row["new"] for row in paid)
        team |= {"state": "FORMED", "by_hand": record.caller != "", "people": tier.people}
        team["price"] = tier.unit_price_minor
        team["unsettled"] = {row["key"]: row for row in paid}

    def settled(self, team: Row, record: tr.SeatSettled) -> None:
        assert record.key in team["unsettled"], "settled twice, or no member"
        row = team["unsettled"].pop(record.key)
        unit = team["price"]
        if record.key == team["leader"]:
            unit = self._leaders_price(team["rules"], unit)
        final = min(row["paid"], unit * row["quantity"])
        back = row["paid"] - final
        assert record.final_minor == final, "a member pays another price than the tier's"
        assert record.refund_minor == back, "another amount is due than was paid above the price"
        row["settled"] = back
        if back:
            key = request_key("settle", row["key"].hex())
            assert record.refund_key == key, "a refund by another key than the seat's own"
            name = public_id(row["slot"], key)
            fields = (name, row["slot"], row["payment"], back, "TEAM_PRICE")
            self._refund(*fields, compensation=False)
            self.sometimes("a ladder paid a difference back")

    def closed(self, team: Row, record: tr.TeamClosed) -> None:
        assert team["state"] == "FORMING", "a team ends twice"
        assert not self.seats(team), "a team ends before its seats"
        closing = team["closing"]
        assert _by_joining(record.members, closing), "others were its members"
        if record.state == CANCELLED:
            assert not closing, "a team with paid members is cancelled"
        else:
            assert record.state == FAILED
            assert self._may_end(team), "it fails before its deadline"
            assert self._succeeds(team, closing) is None, "it fails though it reaches a tier"
        team["state"] = "CLOSED"

    def forgotten_teams(self, record: tr.TeamsForgotten) -> None:
        for key in record.keys:
            team = self.teams[public_id(record.slot, key)]
            assert team["state"] != "FORMING", "a forming team is forgotten"
            assert self._over(self.sales[team["sale"]])
            self.gone.add(team["id"])

    def nearly_full(self, team: Row, record: tr.TeamNearlyFull) -> None:
        missing = team["tiers"][-1].people - len(self.paid(team))
        assert record.missing == missing == team["rules"].nearly_full_seats

    def after_entry(self) -> None:
        """An entry is whole: what must hold of every team that it changed."""
        for name in self.early:
            assert self.teams[name]["state"] != "FORMING", "a seat expires early"
        for name in self.touched - {""}:
            team = self.teams[name]
            seats, paid = self.seats(team), self.paid(team)
            people = team["tiers"][-1].people
            assert not team["unsettled"], "a member is not settled"
            if team["state"] == "FORMING":
                assert not team["closing"], "a team goes on that has failed"
                assert len(seats) <= people, "more seats than the last tier has people"
                assert len(paid) < people, "a full team of payers has not formed"
                assert seats, "an empty team goes on"
                leads = team["leader"] in [row["key"] for row in paid]
                assert leads or not (paid or team["leader"]), "who leads has not paid"
                assert len({row["buyer"] for row in seats}) == len(seats), "twice in a team"
            elif team["state"] == "CLOSED":
                assert not seats, "a seat outlives a team that failed"
            else:
                assert paid == seats, "an unpaid seat outlives its team"
        self.touched.clear()
        self.early.clear()


def _by_joining(keys: tuple[bytes, ...], rows: list[Row]) -> bool:
    """Whether these are the keys of the rows, in the order of joining; of one moment, in any."""
    joined = {row["key"]: row["joined"] for row in rows}
    in_order = sorted(keys, key=lambda key: joined.get(key, 0)) == list(keys)
    return len(keys) == len(rows) and set(keys) == set(joined) and in_order


TEAM_RULES: dict[int, Callable[[NaiveTeams, Any], tuple[Any, ...]]] = {
    t.OPEN_TEAM: NaiveTeams.open_team,
    t.JOIN_TEAM: NaiveTeams.join_team,
    t.LEAVE_TEAM: NaiveTeams.leave_team,
    t.COMPLETE_TEAM: NaiveTeams.complete_team,
}
TOLD: dict[int, Callable[[NaiveTeams, Any, Any], None]] = {
    tr.TEAM_OPENED: NaiveTeams.opened,
    tr.TEAM_LED: NaiveTeams.led,
    tr.SEAT_MOVED: NaiveTeams.moved,
    tr.SEAT_CLOSED: NaiveTeams.seat_closed,
    tr.TEAM_FORMED: NaiveTeams.formed,
    tr.SEAT_SETTLED: NaiveTeams.settled,
    tr.TEAM_CLOSED: NaiveTeams.closed,
    tr.TEAM_NEARLY_FULL: NaiveTeams.nearly_full,
}
