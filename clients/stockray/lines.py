"""The lines of `reserve_many`, `grab_many`, `confirm_many`, `release_many` and `join_team_many`.

Each stands for the arguments of the single verb. An id left empty is made by the library, kept over
its retries and answered in the result; a caller that stores ids before sending gives its own.
"""

from __future__ import annotations

from typing import NamedTuple

from stockray.records import Attribution

__all__ = ["ConfirmLine", "GrabLine", "JoinTeamLine", "OpenTeamLine", "ReleaseLine", "ReserveLine"]


class GrabLine(NamedTuple):
    """Units of one SKU of a campaign for one buyer; name the arguments."""

    campaign_id: str
    sku_id: str
    buyer_id: str
    quantity: int = 1
    request_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    attribution: Attribution | None = None
    order_id: str = ""
    payable_minor: int | None = None
    session_id: str = ""


class ReserveLine(NamedTuple):
    """Units of one SKU for one buyer, from its base pool unless a campaign is named."""

    sku_id: str
    buyer_id: str
    quantity: int = 1
    campaign_id: str = ""
    request_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    attribution: Attribution | None = None
    order_id: str = ""
    payable_minor: int | None = None


class OpenTeamLine(NamedTuple):
    """The first seat of a team to be opened; name the arguments."""

    campaign_id: str
    sku_id: str
    buyer_id: str
    quantity: int = 1
    new_buyer: bool = False
    request_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    attribution: Attribution | None = None
    order_id: str = ""
    payable_minor: int | None = None


class JoinTeamLine(NamedTuple):
    """A seat of a team for one buyer; name the arguments."""

    team_id: str
    buyer_id: str
    quantity: int = 1
    new_buyer: bool = False
    request_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    attribution: Attribution | None = None
    order_id: str = ""
    payable_minor: int | None = None


class ConfirmLine(NamedTuple):
    """A successful payment for a reservation; `payment_id` is the id of the line."""

    reservation_id: str
    payment_id: str
    paid_minor: int
    payment_channel: str = ""


class ReleaseLine(NamedTuple):
    """A reservation to give up before it is paid; its id is the id of the line."""

    reservation_id: str
    reason: str = ""
