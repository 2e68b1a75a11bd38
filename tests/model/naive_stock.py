"""The stock half of the naive model: documents, transfers, campaigns. See `naive.py`."""

from typing import Any

from actors.core import commands as c
from actors.core.identity import request_key
from actors.core.stock import transfer_key

ENDED = 3
PARTS = ("available", "reserved", "sold", "buffer", "scheduled", "in_transit")
Row = dict[str, Any]


class NaiveStock:
    """Pools of all slots together, and all that is remembered."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.skus: dict[str, Row] = {}
        self.sales: dict[str, Row] = {}
        self.pools: dict[tuple[str, str], Row] = {}
        self.held: dict[str, Row] = {}
        self.documents: dict[tuple[int, bytes], tuple[Any, ...]] = {}
        self.failures: set[tuple[str, str]] = set()
        self.figures: dict[tuple[int, bytes], tuple[int, ...]] = {}
        self.refused: dict[tuple[int, bytes], tuple[Any, str, int]] = {}
        self.payments: dict[tuple[int, str], tuple[str, int, str]] = {}
        self.refunds: dict[str, Row] = {}
        self.transfers: dict[bytes, Row] = {}
        self.arrived: dict[bytes, bool] = {}
        self.units: dict[str, int] = {}

    def _new_pool(self, sale: str, sku: str) -> Row:
        parts = dict.fromkeys((*PARTS, "owed", "granted"), 0)
        return {"sale": sale, "sku": sku, "price": 0, "list": 0, "limit": 0, **parts}

    def total(self, pool: Row) -> int:
        """The conservation law, read from right to left."""
        return sum(pool[part] for part in PARTS)

    def _free(self, pool: Row, units: int, into: str = "available") -> None:
        for _ in range(units):
            if pool["owed"]:
                pool["owed"] -= 1
                self.units[pool["sku"]] -= 1
            else:
                pool[into] += 1

    def _remember(self, q: Any, key: bytes, args: Any, outcome: str) -> tuple[Any, ...]:
        self.refused[q.slot, key] = (args, outcome, self.now_ms)
        return (outcome,)

    def _before(self, table: Any, q: Any, key: bytes, args: Any) -> str:
        """'' for a new request, else what it was answered."""
        if (q.slot, key) in table:
            return "" if table[q.slot, key] == args else "ID_REUSED"
        if (q.slot, key) in self.refused:
            first, outcome, _ = self.refused[q.slot, key]
            return outcome if first == args else "ID_REUSED"
        return ""

    def put_sku(self, q: c.PutSku) -> tuple[Any, ...]:
        pool = self.pools.get(("", q.sku_id))
        if pool is None:
            pool = self.pools["", q.sku_id] = self._new_pool("", q.sku_id)
            self.units[q.sku_id] = 0
        elif self.skus[q.sku_id]["currency"] != q.currency_code and self.total(pool):
            return ("CAMPAIGN_CONFLICT",)
        self.skus[q.sku_id] = {
            "bps": q.buffer_bps,
            "currency": q.currency_code,
            "window": q.payment_window_ms,
        }
        pool["price"] = pool["list"] = q.price_minor
        return ("APPLIED",)

    def _document(self, q: Any, *args: Any) -> tuple[bytes, Any, tuple[Any, ...] | None]:
        key = request_key(q.caller, q.request_id)
        before = self._before(self.documents, q, key, args)
        if before or (q.slot, key) in self.documents:
            return key, args, (before or "APPLIED",)
        return key, args, None

    def receive(self, q: c.ReceiveStock) -> tuple[Any, ...]:
        key, args, answer = self._document(q, "receive", q.sku_id, q.quantity)
        if answer:
            return (*answer, self._figures(q, key, answer, (0, 0)))
        pool = self.pools.get(("", q.sku_id))
        if pool is None:
            return (*self._remember(q, key, args, "NOT_FOUND"), (0, 0))
        self.documents[q.slot, key] = args
        self.units[q.sku_id] += q.quantity
        rest = q.quantity - min(pool["owed"], q.quantity)
        self._free(pool, q.quantity)
        kept = rest * self.skus[q.sku_id]["bps"] // 10_000
        pool["available"] -= kept
        pool["buffer"] += kept
        self.figures[q.slot, key] = (kept, q.quantity - rest)
        return ("APPLIED", (kept, q.quantity - rest))

    def _figures(
        self, q: Any, key: bytes, answer: tuple[Any, ...], nothing: tuple[int, ...]
    ) -> tuple[int, ...]:
        """What a resend is answered beside the pool."""
        return self.figures[q.slot, key] if answer == ("APPLIED",) else nothing

    def adjust(self, q: c.AdjustStock) -> tuple[Any, ...]:
        key, args, answer = self._document(q, "adjust", q.campaign_id, q.sku_id, q.delta)
        if answer:
            return answer
        pool = self.pools.get((q.campaign_id, q.sku_id))
        if pool is None:
            return self._remember(q, key, args, "NOT_FOUND")
        if pool["available"] + q.delta < 0:
            return self._remember(q, key, args, "EXCEEDS_AVAILABLE")
        self.documents[q.slot, key] = args
        self.units[q.sku_id] += q.delta
        if q.delta > 0:
            self._free(pool, q.delta)
        else:
            pool["available"] += q.delta
        return ("APPLIED",)

    def set_buffer(self, q: c.SetBuffer) -> tuple[Any, ...]:
        key, args, answer = self._document(q, "buffer", q.sku_id, q.buffer)
        if answer:
            return answer
        pool = self.pools[("", q.sku_id)]
        if q.buffer - pool["buffer"] > pool["available"]:
            return self._remember(q, key, args, "EXCEEDS_AVAILABLE")
        self.documents[q.slot, key] = args
        pool["available"] -= q.buffer - pool["buffer"]
        pool["buffer"] = q.buffer
        return ("APPLIED",)

    def short(self, q: c.DeclareShortage) -> tuple[Any, ...]:
        key, args, answer = self._document(q, "short", q.campaign_id, q.sku_id, q.quantity)
        nothing = (0, 0, 0, 0, 0)
        if answer and not q.dry_run:
            return (*answer, self._figures(q, key, answer, nothing))
        pool = self.pools[q.campaign_id, q.sku_id]
        if q.quantity > self.total(pool) - pool["in_transit"] - pool["owed"]:
            if not q.dry_run:
                self._remember(q, key, args, "EXCEEDS_TOTAL")
            return ("EXCEEDS_TOTAL", nothing)
        missing, taken = q.quantity, {}
        for part in ("available", "scheduled", "buffer"):
            taken[part] = min(missing, pool[part])
            missing -= taken[part]
        unclaimed = max(0, pool["reserved"] - pool["owed"])
        told = (*taken.values(), min(missing, unclaimed), max(0, missing - unclaimed))
        if q.dry_run:
            return ("FOUND", told)
        self.documents[q.slot, key] = args
        for part, units in taken.items():
            pool[part] -= units
            self.units[q.sku_id] -= units
        pool["owed"] += missing
        self.figures[q.slot, key] = told
        return ("APPLIED", told)

    # Transfers

    def leave(self, q: c.TransferOut) -> tuple[Any, ...]:
        key = transfer_key(q.slot, q.caller, q.request_id)
        args = (q.sku_id, q.from_campaign_id, q.to_campaign_id, q.quantity)
        if key in self.transfers:
            return ("APPLIED" if self.transfers[key]["args"] == args else "ID_REUSED",)
        before = self._before({}, q, key, args)
        if before:
            return (before,)
        pool = self.pools.get((q.from_campaign_id, q.sku_id))
        if pool is None:
            return self._remember(q, key, args, "NOT_FOUND")
        if q.quantity > pool["available"]:
            return self._remember(q, key, args, "EXCEEDS_AVAILABLE")
        pool["available"] -= q.quantity
        pool["in_transit"] += q.quantity
        pool["granted"] -= q.quantity if q.from_campaign_id else 0
        self.transfers[key] = {"args": args, "units": q.quantity, "from": pool, "ended": False}
        return ("APPLIED",)

    def arrive(self, q: c.TransferIn) -> tuple[Any, ...]:
        if q.transfer_id not in self.arrived:
            pool = self.pools.get((q.to_campaign_id, q.sku_id))
            takes = pool is not None
            if pool is not None and q.to_campaign_id:
                sale = self.sales[q.to_campaign_id]
                allocation = sale["lines"][q.sku_id].allocation
                takes = not self._over(sale) and pool["granted"] + q.quantity <= allocation
            self.arrived[q.transfer_id] = takes
            if pool is not None and takes:
                pool["granted"] += q.quantity if q.to_campaign_id else 0
                self._free(pool, q.quantity)
        return ("APPLIED", self.arrived[q.transfer_id])

    def settle(self, q: c.TransferDone) -> tuple[Any, ...]:
        transfer = self.transfers.get(q.transfer_id)
        if transfer is None:
            return ("NOT_FOUND",)
        if not transfer["ended"]:
            transfer["ended"] = True
            pool = transfer["from"]
            pool["in_transit"] -= transfer["units"]
            if not q.arrived:
                pool["granted"] += transfer["units"] if pool["sale"] else 0
                self._free(pool, transfer["units"])
        return ("APPLIED",)

    # Campaigns

    def _over(self, sale: Row) -> bool:
        return bool(sale["state"] == ENDED) or bool(self.now_ms >= sale["config"].ends_ms)

    def put_campaign(self, q: c.PutCampaign) -> tuple[Any, ...]:
        sale = self.sales.get(q.campaign_id)
        lines = {line.sku_id: line for line in q.config.lines}
        if sale is None:
            sale = {"state": 1, "version": 0, "created": self.now_ms}
            self.sales[q.campaign_id] = sale
        elif sale["config"] == q.config:
            return ("APPLIED",)
        elif self._over(sale) or sale["config"].currency_code != q.config.currency_code:
            return ("CAMPAIGN_CONFLICT",)
        else:
            for sku in sale["lines"]:
                granted = self.pools[q.campaign_id, sku]["granted"]
                if sku not in lines or lines[sku].allocation < granted:
                    return ("CAMPAIGN_CONFLICT",)
        sale["config"], sale["lines"] = q.config, lines
        sale["version"] += 1
        sale["updated"] = self.now_ms
        for sku, line in lines.items():
            pool = self.pools.setdefault((q.campaign_id, sku), self._new_pool(q.campaign_id, sku))
            pool["price"], pool["list"] = line.unit_price_minor, line.list_price_minor
            pool["limit"] = line.limit_per_buyer
        return ("APPLIED",)

    def turn(self, q: c.SetCampaignState) -> tuple[Any, ...]:
        sale = self.sales.get(q.campaign_id)
        if sale is None:
            return ("NOT_FOUND",)
        if sale["state"] == ENDED and q.state != ENDED:
            return ("CAMPAIGN_CONFLICT",)
        if sale["state"] != q.state:
            sale["updated"] = self.now_ms
        sale["state"] = q.state
        return ("APPLIED",)
