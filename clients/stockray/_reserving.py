"""The verbs that travel in batches: reserve, grab, confirm and release, alone and many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stockray._many import ManyCalls
from stockray._verbs import encode_confirm, encode_grab, encode_release, encode_reserve
from stockray.lines import ConfirmLine, GrabLine, ReleaseLine, ReserveLine
from stockray.records import Attribution
from stockray.results import ConfirmResult, ReleaseResult, ReserveResult


class ReservingCalls(ManyCalls):
    """Single calls share RPCs with whatever else waits; each is answered by its own result.

    A result is a value whatever its status, also RETRY (not applied) and UNKNOWN (ask again with
    the same id) when `timeout_ms` was not enough. Ids are made when they are not given. All raise
    InvalidRequest, Unauthenticated, PermissionDenied, Overloaded, ServerError and ClientClosed.
    """

    async def reserve(
        self,
        sku_id: str,
        *,
        buyer_id: str,
        quantity: int = 1,
        campaign_id: str = "",
        request_id: str = "",
        device_id: str = "",
        ip: str = "",
        claims: Sequence[str] = (),
        attribution: Attribution | None = None,
        order_id: str = "",
        payable_minor: int | None = None,
        timeout_ms: int | None = None,
    ) -> ReserveResult:
        """Holds 1-1,000,000 units of a SKU for a buyer until the payment deadline.

        They come from the SKU's base pool, or from a campaign's pool of it.
        """
        opened = self._ready()
        line = ReserveLine(
            sku_id,
            buyer_id,
            quantity,
            campaign_id,
            request_id or self._make_id(),
            device_id,
            ip,
            tuple(claims),
            attribution,
            order_id,
            payable_minor,
        )
        return await opened.reserve.submit(
            (line.request_id,),
            encode_reserve(line, line.request_id),
            self._deadline(opened, timeout_ms),
        )

    async def grab(
        self,
        campaign_id: str,
        sku_id: str,
        *,
        buyer_id: str,
        quantity: int = 1,
        request_id: str = "",
        device_id: str = "",
        ip: str = "",
        claims: Sequence[str] = (),
        attribution: Attribution | None = None,
        order_id: str = "",
        payable_minor: int | None = None,
        session_id: str = "",
        timeout_ms: int | None = None,
    ) -> ReserveResult:
        """Grabs 1-1,000,000 units of one line of a campaign until the payment deadline."""
        opened = self._ready()
        line = GrabLine(
            campaign_id,
            sku_id,
            buyer_id,
            quantity,
            request_id or self._make_id(),
            device_id,
            ip,
            tuple(claims),
            attribution,
            order_id,
            payable_minor,
            session_id,
        )
        return await opened.grab.submit(
            (line.request_id,),
            encode_grab(line, line.request_id),
            self._deadline(opened, timeout_ms),
        )

    async def confirm(
        self,
        reservation_id: str,
        *,
        payment_id: str,
        paid_minor: int,
        payment_channel: str = "",
        timeout_ms: int | None = None,
    ) -> ConfirmResult:
        """Records a successful payment of `paid_minor` minor units; the first one confirms.

        REFUND_DUE is an answer that is not `ok`: the money is on record and goes back.
        """
        opened = self._ready()
        line = ConfirmLine(reservation_id, payment_id, paid_minor, payment_channel)
        return await opened.confirm.submit(
            (reservation_id, payment_id), encode_confirm(line), self._deadline(opened, timeout_ms)
        )

    async def release(
        self, reservation_id: str, *, reason: str = "", timeout_ms: int | None = None
    ) -> ReleaseResult:
        """Gives up an unpaid reservation; again is the same."""
        opened = self._ready()
        frame = encode_release(ReleaseLine(reservation_id, reason))
        return await opened.release.submit(
            (reservation_id,), frame, self._deadline(opened, timeout_ms)
        )

    async def reserve_many(
        self, lines: Iterable[ReserveLine], *, timeout_ms: int | None = None
    ) -> list[ReserveResult]:
        """Reserves line by line; result i answers line i, each decided by itself.

        Cut into calls of at most 4,096 lines. Raises an error with the ids of all lines, in order,
        when a whole call was refused; lines of other calls may then have been applied.
        """
        async with self._counted() as opened:
            deadline = self._deadline(opened, timeout_ms)
            encoded = []
            for line in lines:
                request_id = line.request_id or self._make_id()
                encoded.append(((request_id,), encode_reserve(line, request_id)))
            return await self._many(opened.reserve, opened, encoded, deadline)

    async def grab_many(
        self, lines: Iterable[GrabLine], *, timeout_ms: int | None = None
    ) -> list[ReserveResult]:
        """Grabs line by line, as `reserve_many`."""
        async with self._counted() as opened:
            deadline = self._deadline(opened, timeout_ms)
            encoded = []
            for line in lines:
                request_id = line.request_id or self._make_id()
                encoded.append(((request_id,), encode_grab(line, request_id)))
            return await self._many(opened.grab, opened, encoded, deadline)

    async def confirm_many(
        self, lines: Iterable[ConfirmLine], *, timeout_ms: int | None = None
    ) -> list[ConfirmResult]:
        """Confirms line by line, as `reserve_many`; the ids in an error are payment ids."""
        async with self._counted() as opened:
            deadline = self._deadline(opened, timeout_ms)
            encoded = [
                ((line.reservation_id, line.payment_id), encode_confirm(line)) for line in lines
            ]
            return await self._many(opened.confirm, opened, encoded, deadline)

    async def release_many(
        self, lines: Iterable[ReleaseLine], *, timeout_ms: int | None = None
    ) -> list[ReleaseResult]:
        """Releases line by line, as `reserve_many`; the ids in an error are reservation ids."""
        async with self._counted() as opened:
            deadline = self._deadline(opened, timeout_ms)
            encoded = [((line.reservation_id,), encode_release(line)) for line in lines]
            return await self._many(opened.release, opened, encoded, deadline)
