"""Campaigns: a put to its configuration, a view of the core to a message, and the phase."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stockray_proto.v1 import common_pb2, seckill_service_pb2

from actors.core import commands as c
from actors.core.campaign_config import (
    CampaignConfig,
    CampaignLine,
    GroupRules,
    campaign_config,
)
from actors.core.outcomes import Outcome
from actors.core.risk_state import LOW_SCORE
from actors.core.state import CAMPAIGN_ENDED, CAMPAIGN_PAUSED
from server.handlers import CallContext
from server.translate.reserve import ONLY_SESSION
from server.translate.scalars import SLOT_OF_KEY, duration, stamp, stamp_or_none
from server.translate.stock import PAYMENT_WINDOW_DEFAULT_MS, stock_message
from server.validate import (
    CLAIMS_MAX,
    DOCUMENT_UNITS_MAX,
    LINE_UNITS_MAX,
    PAYMENT_WINDOW_MAX_MS,
    TITLE_LENGTH_MAX,
    Violations,
)

CAMPAIGN_LINES_MAX = 1_000

_ALLOWED_POLICIES = (
    seckill_service_pb2.FREED_UNIT_POLICY_UNSPECIFIED,
    seckill_service_pb2.FREED_UNIT_POLICY_AVAILABLE,
)


class CampaignView(NamedTuple):
    """`core.campaigns.campaign_view`, with its configuration restored from how it travels."""

    campaign_id: str
    state: int
    config: CampaignConfig
    pools: Sequence[Sequence[Any]]
    """Views of the lines' pools, in the order of the lines."""
    version: int
    created_ms: int
    updated_ms: int


class LineAllocation(NamedTuple):
    """How the allocation of one line ended."""

    status: int
    message: str = ""


def campaign_view(view: Sequence[Any] | None) -> CampaignView | None:
    """The view in an answer; None when there is none."""
    if view is None:
        return None
    campaign_id, state, config, *rest = view
    return CampaignView(campaign_id, state, campaign_config(config), *rest)


def put_campaign_command(
    request: seckill_service_pb2.PutCampaignRequest, context: CallContext
) -> c.PutCampaign:
    """PutCampaign of a flash sale; see `read_put`."""
    return read_put(request, context, read_line=read_plain_line, read_rules=_no_rules)


ReadLine = Callable[[Any, str, Violations], CampaignLine]
"""A line of a put, its path, and where to say what is wrong with it -> the line."""
ReadRules = Callable[[Any, Sequence[CampaignLine], Violations], GroupRules | None]
"""A campaign of a put, its lines, and where to say what is wrong -> its rules for teams."""


def read_put(
    request: Any, context: CallContext, *, read_line: ReadLine, read_rules: ReadRules
) -> c.PutCampaign:
    """PutCampaign of a PutCampaignRequest or a PutGroupCampaignRequest, with defaults filled in.
    Raises CallError with all violations at once.

    Lines and claims are sorted: their order means nothing, and the shard compares the whole."""
    campaign, wrong = request.campaign, Violations("campaign.")
    wrong.id("campaign_id", campaign.campaign_id)
    wrong.text("title", campaign.title, TITLE_LENGTH_MAX)
    lines = _lines(campaign, wrong, read_line)
    prices = [(line.list_price_minor, line.unit_price_minor) for line in lines]
    prices += [(tier.unit_price_minor, 0) for line in lines for tier in line.tiers]
    priced = any(list_price or unit_price for list_price, unit_price in prices)
    wrong.currency("currency_code", campaign.currency_code, required=priced)
    starts_ms, ends_ms = _window(campaign, wrong)
    payment_ms = PAYMENT_WINDOW_DEFAULT_MS
    if campaign.HasField("payment_window"):
        payment_ms = wrong.duration(
            "payment_window", campaign.payment_window, 1_000, PAYMENT_WINDOW_MAX_MS
        )
    wrong.number("limit_per_buyer", campaign.limit_per_buyer, 0, LINE_UNITS_MAX)
    wrong.ids("required_claims", campaign.required_claims, count_max=CLAIMS_MAX)
    wrong.number("min_score", campaign.min_score, 0, LOW_SCORE)
    if campaign.freed_unit_policy not in _ALLOWED_POLICIES:
        wrong.add("freed_unit_policy", "unset or AVAILABLE: this release has no return waves")
    rules = read_rules(campaign, lines, wrong)
    wrong.prefix = ""
    wrong.reason(request.reason)
    wrong.refuse()
    return c.PutCampaign(
        c.PUT_CAMPAIGN,
        SLOT_OF_KEY[campaign.campaign_id],
        context.deadline_ms,
        context.caller,
        campaign.campaign_id,
        CampaignConfig(
            name=campaign.title,
            currency_code=campaign.currency_code,
            starts_ms=starts_ms,
            ends_ms=ends_ms,
            payment_window_ms=payment_ms,
            limit_per_buyer=campaign.limit_per_buyer,
            required_claims=tuple(sorted(set(campaign.required_claims))),
            lines=tuple(sorted(lines)),
            group=rules,
            min_score=campaign.min_score,
        ),
        request.reason,
    )


def _no_rules(campaign: Any, lines: Sequence[CampaignLine], wrong: Violations) -> None:
    """A flash sale has no teams."""


def _lines(campaign: Any, wrong: Violations, read_line: ReadLine) -> list[CampaignLine]:
    if not 1 <= len(campaign.lines) <= CAMPAIGN_LINES_MAX:
        wrong.add("lines", f"1 to {CAMPAIGN_LINES_MAX} of them")
    seen: set[str] = set()
    lines: list[CampaignLine] = []
    for index, line in enumerate(campaign.lines[:CAMPAIGN_LINES_MAX]):
        path = f"lines[{index}]"
        wrong.id(f"{path}.sku_id", line.sku_id)
        if line.sku_id in seen:
            wrong.add(f"{path}.sku_id", "once in a campaign")
        seen.add(line.sku_id)
        lines.append(read_line(line, path, wrong))
    return lines


def read_plain_line(line: Any, path: str, wrong: Violations) -> CampaignLine:
    """What every line of a put has."""
    wrong.number(f"{path}.allocation_count", line.allocation_count, 1, DOCUMENT_UNITS_MAX)
    wrong.money(f"{path}.list_price_minor", line.list_price_minor)
    wrong.money(f"{path}.unit_price_minor", line.unit_price_minor)
    wrong.number(f"{path}.limit_per_buyer", line.limit_per_buyer, 0, LINE_UNITS_MAX)
    return CampaignLine(
        line.sku_id,
        line.allocation_count,
        line.list_price_minor or line.unit_price_minor,
        line.unit_price_minor,
        line.limit_per_buyer,
    )


def _window(campaign: Any, wrong: Violations) -> tuple[int, int]:
    """The one window in which it sells: from the session, or from the campaign's own times."""
    if len(campaign.sessions) > 1:
        wrong.add("sessions", "at most one: this release has no more")
    if not campaign.sessions:
        return _span(campaign, wrong, "")
    session = campaign.sessions[0]
    if session.session_id != ONLY_SESSION:
        wrong.add("sessions[0].session_id", f"'{ONLY_SESSION}': this release has no other")
    starts_ms, ends_ms = _span(session, wrong, "sessions[0].")
    for field in ("start_time", "end_time"):
        if campaign.HasField(field) and getattr(campaign, field) != getattr(session, field):
            wrong.add(field, "unset, or the session's")
    return starts_ms, ends_ms


def _span(message: Any, wrong: Violations, path: str) -> tuple[int, int]:
    for field in ("start_time", "end_time"):
        if not message.HasField(field):
            wrong.add(path + field, "required")
    starts_ms = wrong.instant(f"{path}start_time", message.start_time)
    ends_ms = wrong.instant(f"{path}end_time", message.end_time)
    if message.HasField("start_time") and message.HasField("end_time") and ends_ms <= starts_ms:
        wrong.add(f"{path}end_time", "after start_time")
    return starts_ms, ends_ms


def campaign_id_violations(campaign_id: str, reason: str = "") -> Violations:
    """What breaks a rule in a call that names one campaign."""
    wrong = Violations()
    wrong.id("campaign_id", campaign_id)
    wrong.reason(reason)
    return wrong


def get_campaign_command(campaign_id: str, deadline_ms: int, caller: str) -> c.GetCampaign:
    """GetCampaign of an id that is known to be fine."""
    return c.GetCampaign(c.GET_CAMPAIGN, SLOT_OF_KEY[campaign_id], deadline_ms, caller, campaign_id)


def set_state_command(
    campaign_id: str, state: int, reason: str, context: CallContext
) -> c.SetCampaignState:
    """Pause, resume or end. Raises CallError."""
    campaign_id_violations(campaign_id, reason).refuse()
    return c.SetCampaignState(
        c.SET_CAMPAIGN_STATE,
        SLOT_OF_KEY[campaign_id],
        context.deadline_ms,
        context.caller,
        campaign_id,
        state,
        reason,
    )


def phase_of(
    state: int, starts_ms: int, ends_ms: int, now_ms: int
) -> tuple[seckill_service_pb2.CampaignPhase.ValueType, int]:
    """Where a campaign stands, and when that changes by time; 0 when it does not."""
    if state == CAMPAIGN_ENDED or now_ms >= ends_ms:
        return seckill_service_pb2.CAMPAIGN_PHASE_ENDED, 0
    if state == CAMPAIGN_PAUSED:
        return seckill_service_pb2.CAMPAIGN_PHASE_PAUSED, ends_ms
    if now_ms < starts_ms:
        return seckill_service_pb2.CAMPAIGN_PHASE_ANNOUNCED, starts_ms
    return seckill_service_pb2.CAMPAIGN_PHASE_OPEN, ends_ms


def campaign_message(
    view: CampaignView,
    *,
    as_of_ms: int,
    now_ms: int,
    allocations: Mapping[str, LineAllocation] | None = None,
    source: common_pb2.DataSource.ValueType = common_pb2.DATA_SOURCE_SHARD,
) -> seckill_service_pb2.Campaign:
    """A campaign with its pools, as at `as_of_ms`, which also decides its phase."""
    config = view.config
    phase, next_ms = phase_of(view.state, config.starts_ms, config.ends_ms, as_of_ms)
    message = seckill_service_pb2.Campaign(
        campaign_id=view.campaign_id,
        title=config.name,
        currency_code=config.currency_code,
        start_time=stamp(config.starts_ms),
        end_time=stamp(config.ends_ms),
        payment_window=duration(config.payment_window_ms),
        limit_per_buyer=config.limit_per_buyer,
        required_claims=config.required_claims,
        min_score=config.min_score,
        freed_unit_policy=seckill_service_pb2.FREED_UNIT_POLICY_AVAILABLE,
        phase=phase,
        next_phase_time=stamp_or_none(next_ms),
        version=view.version,
        create_time=stamp(view.created_ms),
        update_time=stamp(view.updated_ms),
    )
    message.sessions.add(
        session_id=ONLY_SESSION, start_time=message.start_time, end_time=message.end_time
    )
    pools = {pool[3]: pool for pool in view.pools}
    for line in config.lines:
        pool = pools.get(line.sku_id)
        granted = 0 if pool is None else pool[14]
        ended = (allocations or {}).get(line.sku_id) or default_allocation(line, granted)
        message.lines.add(
            sku_id=line.sku_id,
            allocation_count=line.allocation,
            list_price_minor=line.list_price_minor,
            unit_price_minor=line.unit_price_minor,
            limit_per_buyer=line.limit_per_buyer,
            allocated_count=granted,
            allocation_status=ended.status,
            allocation_message=ended.message,
            stock=stock_message(pool, as_of_ms=as_of_ms, now_ms=now_ms, source=source),
        )
    return message


def default_allocation(line: CampaignLine, granted: int) -> LineAllocation:
    """What a read can say of a line's allocation, without having tried."""
    if granted >= line.allocation:
        return LineAllocation(Outcome.APPLIED)
    missing = line.allocation - granted
    return LineAllocation(
        Outcome.RETRY, f"{missing} units are missing; putting the campaign again fetches them"
    )
