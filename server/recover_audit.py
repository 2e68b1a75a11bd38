"""What becomes of each field of the state when it is rebuilt from SQL, decided field by field.

A test holds this table to the classes of the state, so that no field is added without a decision,
and to what a recovery makes of random histories; `docs/recovery.md` shows the same table.
"""

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """What a rebuilt state has of a field."""

    REBUILT = "rebuilt"
    """Exactly what the journal's fold had at SQL's position."""
    DERIVED = "derived"
    """Made anew from what is rebuilt, as at every start; exactly what it was."""
    NEAR = "near"
    """Rebuilt, and perhaps a little older than it was."""
    LOST = "lost"
    """Not in SQL. The text says what follows for callers."""
    PASSING = "passing"
    """Of a running process only; begins anew at every start."""


class Decision(NamedTuple):
    """A field's verdict, and from where, or what follows."""

    verdict: Verdict
    text: str


_R, _D, _N, _L, _P = Verdict.REBUILT, Verdict.DERIVED, Verdict.NEAR, Verdict.LOST, Verdict.PASSING

_SHARD = {
    "slots": (_R, "the slots of the rows"),
    "seq": (_R, "`positions.seq`"),
    "now_ms": (_N, "the youngest time in the shard's rows; time never goes back behind it"),
    "sources": (_R, "`marks`, moved to where the new journals begin if they had gone further"),
    "debtors": (_D, "pools whose `owed` is not 0"),
    "closing": (_D, "campaigns that were ended, with teams still forming; these end as ever"),
    "forgets": (_D, "whether a slot has forgotten reservations"),
    "refusal_count": (_L, "0, as there are no refusals"),
    "touched": (_P, "pools of the open entry"),
    "programmes": (_D, "the slot that has a programme"),
    "risk": (_P, "counted over the profiles when they are loaded"),
    "fuzzy": (_P, "while a snapshot is loaded"),
    "archive": (_P, "for `verify` only"),
    "archived_teams": (_P, "for `verify` only"),
    "advanced_ms": (_P, "when refusals were looked at"),
    "refusal_count_max": (_P, "a limit"),
}
_SLOT = {
    "slot": (_R, "`slot` of every row"),
    "generation": (_R, "`generation` of every row"),
    "skus": (_R, "`skus`, `pools`"),
    "campaigns": (_R, "`campaigns`, `pools`"),
    "reservations": (
        _R,
        "`reservations`; finished ones older than `recall_after_ms` stay in SQL, as ever",
    ),
    "forgotten": (
        _D,
        "made of the keys of the reservations, or of an account slot's orders and withdrawals, "
        "that stay in SQL",
    ),
    "refusals": (
        _L,
        "a request refused in the 15 s before the loss, sent again with its id, is decided anew "
        "and may be granted. A call lives 10 s, so this needs a caller that asks again on its own",
    ),
    "deadlines": (_D, "the deadlines of reservations that are held"),
    "documents": (
        _R,
        "`stock_documents`; reports of failed payments of before schema 0003 only as far as "
        "`payments` has them: such a report sent again is noted twice",
    ),
    "figures": (_R, "amounts in `stock_documents`"),
    "payments": (_R, "`payments` that were kept or fell due"),
    "refunds": (_R, "`refunds`"),
    "transfers": (_R, "`transfers`"),
    "open_transfers": (_D, "transfers in transit; they are finished as ever"),
    "arrivals": (_R, "`stock_documents` of kind 6"),
    "profiles": (_R, "`risk_profiles`"),
    "programme": (_R, "the tables of commission, by their `slot`"),
    "teams": (
        _R,
        "`teams`; those that ended before `recall_after_ms`, of campaigns that are over, stay in "
        "SQL, as ever",
    ),
    "team_deadlines": (_D, "the deadlines of teams that are forming"),
}
_SKU = {
    "pool": (_R, "`pools` with no campaign"),
    "name": (_R, "`skus`"),
    "attributes": (_R, "`skus.attributes_json`"),
    "buffer_bps": (_R, "`skus`"),
    "currency_code": (_R, "`skus`"),
    "payment_window_ms": (_R, "`skus`"),
    "created_ms": (_R, "`skus`"),
}
_CAMPAIGN = {
    "config": (_R, "`campaigns`"),
    "state": (_R, "`campaigns`"),
    "version": (_R, "`campaigns`"),
    "created_ms": (_R, "`campaigns`"),
    "updated_ms": (_R, "`campaigns`"),
    "pools": (_R, "the lines in `campaigns.config_json`, counted by `pools`"),
    "buyers": (_D, "counted over its reservations"),
    "openers": (_D, "counted over its teams that are forming"),
}
_CONFIG = {
    "name": (_R, "`campaigns.config_json`"),
    "currency_code": (_R, "`campaigns.config_json`"),
    "starts_ms": (_R, "`campaigns`"),
    "ends_ms": (_R, "`campaigns`"),
    "payment_window_ms": (_R, "`campaigns.config_json`"),
    "limit_per_buyer": (_R, "`campaigns.config_json`"),
    "required_claims": (_R, "`campaigns.config_json`"),
    "lines": (_R, "`campaigns.config_json`"),
    "group": (_R, "`campaigns.config_json`"),
    "min_score": (_R, "`campaigns.config_json`"),
}
_LINE = {
    "sku_id": (_R, "`campaigns.config_json`"),
    "allocation": (_R, "`campaigns.config_json`"),
    "list_price_minor": (_R, "`campaigns.config_json`"),
    "unit_price_minor": (_R, "`campaigns.config_json`"),
    "limit_per_buyer": (_R, "`campaigns.config_json`"),
    "tiers": (_R, "`campaigns.config_json`"),
}
_RULES = dict.fromkeys(
    (
        "window_ms",
        "new_buyer_seats",
        "teams_per_buyer",
        "leader_discount_bps",
        "nearly_full_seats",
        "virtual_completion",
    ),
    (_R, "`campaigns.config_json`"),
)
_TIER = dict.fromkeys(("people", "unit_price_minor"), (_R, "`campaigns.config_json`"))
_GROUP = {
    "tiers": (_R, "the campaign's line"),
    "rules": (_R, "the campaign's `group`"),
    "capacity": (_D, "people of the last tier"),
    "new_buyer_seats": (_D, "of the rules"),
    "opened": (_R, "rows of the line in `teams`"),
    "forming": (_D, "teams that are forming, by the seats that are free"),
}
_TEAM = {
    "key": (_R, "`teams.team_id`"),
    "campaign_id": (_R, "`teams`"),
    "sku_id": (_R, "`teams`"),
    "group": (_D, "that of its line"),
    "opener_id": (_R, "`teams`"),
    "opened_ms": (_R, "`teams`"),
    "deadline_ms": (_R, "`teams`"),
    "state": (_R, "`teams`"),
    "leader": (_R, "`teams.leader_reservation_id`"),
    "leader_id": (_R, "`teams`"),
    "members": (_R, "seats with `settled_ms`, or closed since their team failed"),
    "tier_people": (_R, "`teams`"),
    "unit_price_minor": (_R, "`teams`"),
    "virtual": (_R, "`teams.virtual_seats`"),
    "completed_by": (_R, "`teams`"),
    "ended_ms": (_R, "`teams`"),
    "seq": (_R, "`teams`"),
    "touched_ms": (_R, "`teams.updated_ms`"),
    "buyers": (_D, "its seats that are held or paid"),
    "paid": (_D, "counted over its seats"),
    "new_count": (_D, "counted over its seats; of one that formed `teams.new_members`"),
    "new_paid": (_D, "the same"),
    "place": (_D, "by the seats that are free"),
}
_SEAT = {
    "team_key": (_R, "`seats.team_id`"),
    "new_buyer": (_R, "`seats`"),
    "joined_ms": (_R, "`seats`"),
    "settled_minor": (_R, "`seats`"),
}
_POOL = {
    "campaign_id": (_R, "`pools`"),
    "sku_id": (_R, "`pools`"),
    "total": (_R, "`pools`"),
    "available": (_R, "`pools`"),
    "reserved": (_R, "`pools`"),
    "sold": (_R, "`pools`"),
    "buffer": (_R, "`pools`"),
    "scheduled": (_R, "`pools`"),
    "in_transit": (_R, "`pools`"),
    "owed": (_R, "`pools`"),
    "granted": (_R, "`pools`"),
    "list_price_minor": (_R, "`pools`"),
    "unit_price_minor": (_R, "`pools`"),
    "limit_per_buyer": (_R, "the campaign's line"),
    "forgotten_sold": (_D, "units of sold reservations that stay in SQL"),
    "buyers": (_D, "counted over its reservations"),
    "counted_in": (_D, "the tables that count its buyers"),
    "group": (_R, "tiers of the campaign's line, `teams`"),
}
_RESERVATION = {
    "key": (_R, "`reservations.reservation_id`"),
    "pool": (_R, "`reservations.campaign_id`, `sku_id`"),
    "buyer_id": (_R, "`reservations`"),
    "quantity": (_R, "`reservations`"),
    "returned": (_R, "`reservations.returned_quantity`"),
    "state": (_R, "`reservations`"),
    "stage": (_R, "`reservations.fulfilment`"),
    "fingerprint": (_R, "`reservations`"),
    "reserved_ms": (_R, "`reservations`"),
    "first_deadline_ms": (_R, "`reservations`"),
    "deadline_ms": (_R, "`reservations`"),
    "begun": (_R, "`reservations.payment_begun_ms`"),
    "list_price_minor": (_R, "`reservations`"),
    "unit_price_minor": (_R, "`reservations`"),
    "payable_minor": (_R, "`reservations`"),
    "payment": (_R, "`reservations.payment_id`, `payment_channel`, `paid_minor`"),
    "seq": (_N, "`reservations.seq`; a failed payment and a recall do not raise it"),
    "touched_ms": (
        _N,
        "`reservations.updated_ms`; the row may leave memory a little earlier than it would have",
    ),
}
_PAYMENT = {
    "payment_id": (_R, "`reservations`"),
    "channel": (_R, "`reservations.payment_channel`"),
    "amount_minor": (_R, "`reservations.paid_minor`"),
    "refunded_minor": (
        _D,
        "what a seat was settled by, and of the rest the part that was returned; all of it when "
        "revoked",
    ),
}
_REFUND = {
    "key": (_R, "`refunds.refund_id`"),
    "reservation_id": (_R, "`refunds`"),
    "buyer_id": (_R, "`refunds`"),
    "payment_id": (_R, "`refunds`"),
    "channel": (_R, "`refunds.payment_channel`"),
    "amount_minor": (_R, "`refunds`"),
    "reason": (_R, "`refunds`"),
    "compensation": (_R, "`refunds`"),
    "currency_code": (_R, "`refunds`"),
    "state": (_R, "`refunds`"),
    "attempts": (_R, "`refunds`"),
    "last_report": (
        _R,
        "`refunds`; '' for reports of before schema 0003: such a report sent again counts as "
        "another attempt, or is told that the refund is closed",
    ),
    "seq": (_R, "`refunds`"),
}
_TRANSFER = {
    "sku_id": (_R, "`transfers`"),
    "from_campaign_id": (_R, "`transfers`"),
    "to_campaign_id": (_R, "`transfers`"),
    "quantity": (_R, "`transfers`"),
    "state": (_R, "`transfers`"),
    "fingerprint": (_R, "`transfers`; made from the row's fields before schema 0003"),
}

_PROGRAMME = {
    "distributors": (_R, "`distributors`"),
    "bonds": (_R, "`bonds`"),
    "orders": (
        _R,
        "`commission_orders`; those of which all was available `recall_after_ms` ago stay in SQL, "
        "as ever",
    ),
    "withdrawals": (
        _R,
        "`withdrawals`; those that were finished `recall_after_ms` ago stay in SQL, as ever",
    ),
    "forgotten_ms": (_R, "the youngest of the `commission_orders` that stay in SQL"),
    "archived_orders": (_P, "for `verify` only"),
    "archived_withdrawals": (_P, "for `verify` only"),
    "boards": (_P, "counted over the distributors when they are loaded"),
    "rates": (_R, "`commission_rates`"),
    "entry_count": (_R, "rows of `commission_entries`"),
    "sums": (_R, "the amounts in `commission_entries`"),
    "recent": (_R, "the newest of `commission_entries`"),
    "codes": (_D, "share codes of the distributors"),
    "versions": (_D, "the rates by their numbers"),
    "starts": (_D, "when each of them began"),
    "rate_lines": (_D, "counted over the rates"),
    "maturing": (_D, "orders with a share that is frozen; it becomes available as ever"),
    "hold_ends": (_D, "distributors that are held"),
    "released": (_D, "distributors that are held no more, with shares that wait"),
    "months": (_D, "the open months of the distributors"),
}
_DISTRIBUTOR = {
    "state": (_R, "`distributors`"),
    "share_code": (_R, "`distributors`"),
    "applied_ms": (_R, "`distributors`"),
    "changed_ms": (_R, "`distributors`"),
    "held_until_ms": (_R, "`distributors`"),
    "held_as_of_ms": (_R, "`distributors`"),
    "balances": (_R, "the sums of its entries in `commission_entries`"),
    "months": (_R, "its entries of the months without a statement"),
    "closing_minor": (_R, "its newest row in `statements`"),
    "settled_through": (_R, "its newest row in `statements`"),
    "statements": (_R, "its newest rows in `statements`; all of them stay in SQL, as ever"),
    "orders": (_R, "rows of `commission_orders` that it brought"),
    "sales_minor": (_R, "what was paid for these, less what came back"),
    "invited": (_R, "rows of `bonds` that count as invitations"),
    "board": (_R, "the same by month"),
    "open_withdrawals": (_D, "its withdrawals that are requested or approved"),
    "seq": (_N, "the youngest row about it"),
    "waiting": (_D, "orders with a share that waits for it"),
}
_SUMS = {
    "available_minor": (_R, "`commission_entries`"),
    "reversed_minor": (_R, "`commission_entries`"),
    "withdrawn_minor": (_R, "`commission_entries`"),
    "restored_minor": (_R, "`commission_entries`"),
    "count": (_R, "`commission_entries`"),
}
_STATEMENT = dict.fromkeys(
    (
        "month",
        "starts_ms",
        "ends_ms",
        "opening_minor",
        "available_minor",
        "reversed_minor",
        "withdrawn_minor",
        "restored_minor",
        "closing_minor",
        "moved_minor",
        "entry_count",
        "made_ms",
    ),
    (_R, "`statements`"),
)
_BONDS = {
    "seq": (_R, "the youngest row of the buyer in `bonds`"),
    "bonds": (_R, "the buyer's rows in `bonds`"),
}
_BOND = dict.fromkeys(("from_ms", "until_ms", "distributor_id"), (_R, "`bonds`"))
_ORDER = {
    "base_minor": (_R, "`commission_orders`"),
    "quantity": (_R, "`commission_orders`"),
    "returned": (_R, "`commission_orders.returned_quantity`"),
    "referrer_id": (_R, "`commission_orders`"),
    "version": (_R, "`commission_orders`"),
    "month": (_R, "`commission_orders`"),
    "earned_ms": (_R, "`commission_orders`"),
    "matures_ms": (_R, "`commission_orders`"),
    "delivered": (_R, "`commission_orders`"),
    "earnings": (_R, "the levels in `commission_orders`"),
    "seq": (_N, "`commission_orders.seq`; a recall does not raise it"),
}
_EARNING = {
    "level": (_R, "the columns of the level in `commission_orders`"),
    "distributor_id": (_R, "`commission_orders.level1_id`, `level2_id`"),
    "rate_bps": (_R, "`commission_orders.level1_bps`, `level2_bps`"),
    "full_minor": (_R, "`commission_orders.level1_minor`, `level2_minor`"),
    "amount_minor": (_R, "the entries of the order and level, what was reversed taken off"),
    "state": (_R, "`commission_orders.level1_state`, `level2_state`"),
}
_WITHDRAWAL = dict.fromkeys(
    (
        "amount_minor",
        "changed_ms",
        "distributor_id",
        "fingerprint",
        "from_settled_minor",
        "reference",
        "requested_ms",
        "state",
    ),
    (_R, "`withdrawals`"),
)
_WITHDRAWAL["seq"] = (_N, "`withdrawals.seq`; a recall does not raise it")
_VERSION = {
    "number": (_R, "`commission_rates.version`"),
    "from_ms": (_R, "`commission_rates`"),
    "config": (_R, "`commission_rates.config_json`"),
    "seq": (_R, "`commission_rates`"),
    "campaigns": (_D, "the configuration's rates of campaigns"),
    "skus": (_D, "the configuration's rates of SKUs"),
}
_PROFILE = {
    "whole_ms": (_R, "`risk_profiles`"),
    "counts": (_L, "signals are counted from 0 again; nothing is decided by it"),
    "failures": (_R, "`risk_profiles.failures_json`"),
    "frozen_until_ms": (_R, "`risk_profiles`"),
    "frozen_as_of_ms": (_R, "`risk_profiles`"),
    "cause": (_R, "`risk_profiles`"),
    "caller": (_R, "`risk_profiles`"),
    "reason": (_R, "`risk_profiles`"),
    "told_as_of_ms": (_R, "`risk_profiles`"),
    "seq": (_R, "`risk_profiles`"),
    "due_ms": (_D, "when the freeze ends or the score is whole"),
}

_KINDS: dict[str, dict[str, tuple[Verdict, str]]] = {
    "ShardState": _SHARD,
    "SlotState": _SLOT,
    "Sku": _SKU,
    "Campaign": _CAMPAIGN,
    "CampaignConfig": _CONFIG,
    "CampaignLine": _LINE,
    "GroupRules": _RULES,
    "Tier": _TIER,
    "Group": _GROUP,
    "Team": _TEAM,
    "Pool": _POOL,
    "Reservation": _RESERVATION,
    "Seat": _SEAT,
    "Payment": _PAYMENT,
    "Refund": _REFUND,
    "Transfer": _TRANSFER,
    "Programme": _PROGRAMME,
    "Distributor": _DISTRIBUTOR,
    "Sums": _SUMS,
    "Statement": _STATEMENT,
    "Bonds": _BONDS,
    "Bond": _BOND,
    "Order": _ORDER,
    "Earning": _EARNING,
    "Withdrawal": _WITHDRAWAL,
    "Version": _VERSION,
    "Profile": _PROFILE,
    "Debt": {"slot": (_D, "the slot of the pool that owes")},
}

AUDIT: dict[tuple[str, str], Decision] = {
    (kind, name): Decision(*decision)
    for kind, fields in _KINDS.items()
    for name, decision in fields.items()
}
"""(class, field) -> what becomes of it."""
