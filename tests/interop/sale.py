"""The scripted sale: which clients run it, and what each step must have said.

The script itself is written once in each language (`python/sale_script.py` describes it). Here
stands what is put in before it, what the answers must be, and what must be in the books after it.
"""

import asyncio
import base64
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from google.rpc import error_details_pb2, status_pb2
from stockray import AsyncClient, Sku

from tests.interop import toolchains
from tests.interop.toolchains import ROOT

FEW, MANY, CROWD = 3, 3_990, 600
PRICE_MINOR = 500
LARGE_LINES, CROWD_CALLS = 4_000, 1_000
CLIENT_TIMEOUT_S = 120
INVALID_ARGUMENT, UNIMPLEMENTED, CANCELLED, DEADLINE_EXCEEDED = 3, 12, 1, 4


class SaleClient(NamedTuple):
    """One client library."""

    language: str
    command: Callable[[], list[str]]
    arguments_after: tuple[str, ...] = ()


CLIENTS: Mapping[str, SaleClient] = {
    "grpcio": SaleClient("python", lambda: toolchains.python_module("python.sale_sync")),
    "grpc.aio": SaleClient("python", lambda: toolchains.python_module("python.sale_aio")),
    "grpc-go": SaleClient("go", lambda: [toolchains.binary("sale")]),
    "grpc-js": SaleClient("js", lambda: toolchains.node("sale.js"), (str(ROOT / "protos"),)),
    "grpc-java": SaleClient("java", lambda: toolchains.java("io.stockray.interop.Sale")),
}


async def sell(client: AsyncClient, name: str, address: str) -> None:
    """The whole sale by one client. AssertionError where it does not go by the script."""
    run = name.replace(".", "-")
    await stock_up(client, run)
    assert_script(await asyncio.to_thread(run_client, name, address, run), run)
    await assert_books(client, run)


async def stock_up(client: AsyncClient, run: str) -> None:
    """What the script expects to find."""
    for name, units in (("few", FEW), ("many", MANY), ("crowd", CROWD)):
        sku_id = f"{run}-{name}"
        sku = Sku(sku_id=sku_id, buffer_bps=0, list_price_minor=PRICE_MINOR, currency_code="CNY")
        await client.put_sku(sku)
        await client.receive_stock(sku_id, quantity=units)


def run_client(name: str, address: str, run: str) -> list[dict[str, Any]]:
    """Run the script; answers what it reported. AssertionError if it failed."""
    client = CLIENTS[name]
    done = subprocess.run(
        [*client.command(), address, run, *client.arguments_after],
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        cwd=ROOT,
        env={**os.environ, "NODE_PATH": toolchains.NODE_PATH},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return toolchains.json_lines(done.stdout)


def assert_script(steps: list[dict[str, Any]], run: str) -> None:
    """Every step said what it must."""
    by_name = {step["step"]: step for step in steps if step["step"] != "books"}
    assert by_name["reserve"]["status"] == "LINE_STATUS_RESERVED"
    assert by_name["reserve"]["reservation_id"]
    assert by_name["reserve"]["payable_minor"] == PRICE_MINOR
    assert {**by_name["retry"], "step": "reserve"} == by_name["reserve"]
    assert by_name["sold_out"]["status"] == "LINE_STATUS_SOLD_OUT"
    assert by_name["reused"]["status"] == "LINE_STATUS_ID_REUSED"
    assert by_name["confirm"]["status"] == "LINE_STATUS_CONFIRMED"
    _assert_refusal(by_name["refused"], INVALID_ARGUMENT, "INVALID_FIELD")
    refused_fields = _details(by_name["refused"])[1]
    assert refused_fields == {"line.request_id", "line.quantity"}
    _assert_refusal(by_name["unimplemented"], UNIMPLEMENTED, "UNIMPLEMENTED")
    assert (by_name["stream"]["first"], by_name["stream"]["second"]) == (2, 1)
    assert by_name["cancel"]["code"] == CANCELLED
    assert by_name["deadline"]["code"] == DEADLINE_EXCEEDED
    assert by_name["deadline"]["messages"] >= 1
    # A cancelled call may have been answered first; its reservation is there once, either way.
    assert by_name["cancelled_reserve"]["code"] in (0, CANCELLED)
    assert by_name["cancelled_reserve"]["status"] == "LINE_STATUS_RESERVED"
    large = by_name["large"]
    assert large["request_bytes"] > 1_000_000
    assert large["response_bytes"] > 500_000
    assert large["in_order"] is True
    assert (large["reserved"], large["sold_out"]) == (MANY, LARGE_LINES - MANY)
    crowd = by_name["crowd"]
    assert (crowd["reserved"], crowd["distinct"]) == (CROWD, CROWD)
    assert crowd["sold_out"] == CROWD_CALLS - CROWD
    assert [step for step in steps if step["step"] == "books"] == _books(run)


def _books(run: str) -> list[dict[str, Any]]:
    """Nothing is left; one unit of the few is paid; every total is what was put in."""
    return [
        {
            "step": "books",
            "sku_id": f"{run}-{name}",
            "total": units,
            "available": 0,
            "reserved": units - sold,
            "sold": sold,
        }
        for name, units, sold in (("few", FEW, 1), ("many", MANY, 0), ("crowd", CROWD, 0))
    ]


async def assert_books(client: AsyncClient, run: str) -> None:
    """What the service says itself is what the script saw: nothing made, nothing lost."""
    for book in _books(run):
        answer = await client.get_stock(book["sku_id"])
        stock = answer.stock
        assert stock is not None
        seen = (
            stock.total_count,
            stock.available_count,
            stock.reserved_count,
            stock.sold_count,
        )
        assert seen == (book["total"], 0, book["reserved"], book["sold"])


def _details(step: Mapping[str, Any]) -> tuple[list[str], set[str]]:
    """Reasons and fields in the details of an error, as they came through the client."""
    reasons, fields = [], set()
    status = status_pb2.Status.FromString(base64.b64decode(step["details"]))
    assert status.code == step["code"]
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reasons.append(info.reason)
        elif detail.Unpack(bad):
            fields |= {violation.field for violation in bad.field_violations}
    return reasons, fields


def _assert_refusal(step: Mapping[str, Any], code: int, reason: str) -> None:
    assert step["code"] == code
    assert _details(step)[0] == [reason]
