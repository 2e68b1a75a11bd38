"""What a shard still takes when its journal is nearly full: what serves who holds something; and
when it is full: reads."""

from collections.abc import Sequence
from typing import Any

from actors.core import commands as c
from actors.core.commission_commands import HOLD_DISTRIBUTOR, REVIEW_WITHDRAWAL
from actors.core.commission_commands import READS as COMMISSION_READS
from actors.core.relay_commands import GET_MARKS, TAKE_FACTS
from actors.core.risk_commands import FREEZE, GET_PROFILE, HOLD_TOLD, PULL_RISK, UNFREEZE
from actors.core.team_commands import GET_TEAM, LEAVE_TEAM, SUGGEST_TEAMS

READS = COMMISSION_READS | {
    c.GET_RESERVATION,
    c.GET_STOCK,
    c.GET_CAMPAIGN,
    GET_TEAM,
    SUGGEST_TEAMS,
    GET_MARKS,
    GET_PROFILE,
    PULL_RISK,
}
WHAT_IS_HELD = READS | {
    c.CONFIRM,
    c.RELEASE,
    c.BEGIN_PAYMENT,
    c.REPORT_FAILED_PAYMENT,
    c.RETURN_UNITS,
    c.REPORT_REFUND,
    c.REPORT_FULFILMENT,
    LEAVE_TEAM,
    c.TRANSFER_IN,
    c.TRANSFER_DONE,
    TAKE_FACTS,
    FREEZE,
    UNFREEZE,
    HOLD_TOLD,
    HOLD_DISTRIBUTOR,
    REVIEW_WITHDRAWAL,
}
FULL_FOR_NEW_PERCENT = 90


def has_room_for(line: Sequence[Any], full_percent: int) -> bool:
    """Whether a journal that is so full takes a command of this kind."""
    if full_percent < FULL_FOR_NEW_PERCENT:
        return True
    kind = line[5][0] if line[0] == c.RECALLED else line[0]
    return kind in (READS if full_percent >= 100 else WHAT_IS_HELD)
