"""The words of the scripted sale that both Python clients share: its requests and its report.

Every client, in each language, takes the same arguments (`<host:port> <run>`), asks the same
questions in the same order, and prints one JSON object a line for each step; what the answers must
be stands in `tests/interop/sale.py`. Where the answer is to ask again, it asks again with the same
ids. Before it runs, `<run>-few` has 3 units at 500, `<run>-many` 3,990 and `<run>-crowd` 600.
"""

import base64
import json
from collections.abc import Iterable
from typing import Any

import grpc
from stockray_proto.v1 import common_pb2, inventory_service_pb2, reservation_pb2

DETAILS = "grpc-status-details-bin"
TIMEOUT_S = 10
CROWD = 1_000
LARGE_LINES = 4_000
RESENDS_MAX = 5
TRY_AGAIN = (common_pb2.LINE_STATUS_RETRY, common_pb2.LINE_STATUS_UNKNOWN)
EXPECTED = {"LINE_STATUS_RESERVED", "LINE_STATUS_SOLD_OUT"}
NOWHERE = "/stockray.v1.InventoryService/Nothing"


def say(step: str, **facts: Any) -> None:
    """One step's report."""
    print(json.dumps({"step": step, **facts}), flush=True)


def wish(sku_id: str, request_id: str, quantity: int = 1) -> inventory_service_pb2.ReserveRequest:
    """One line, for `Reserve`."""
    return inventory_service_pb2.ReserveRequest(line=wish_line(sku_id, request_id, quantity))


def wish_line(sku_id: str, request_id: str, quantity: int = 1) -> reservation_pb2.ReserveLine:
    """One wish for units."""
    line = reservation_pb2.ReserveLine(request_id=request_id, sku_id=sku_id, quantity=quantity)
    line.buyer.buyer_id = "u-7"
    return line


def large_wish(run: str) -> inventory_service_pb2.ReserveManyRequest:
    """About 1 MB: ids and claims as long as they may be."""
    request = inventory_service_pb2.ReserveManyRequest()
    for number in range(LARGE_LINES):
        line = wish_line(f"{run}-many", f"{run}-large-{number}-".ljust(128, "x"))
        line.buyer.claims.append("c" * 100)
        request.lines.append(line)
    return request


def payment(run: str, reservation_id: str, paid_minor: int) -> inventory_service_pb2.ConfirmRequest:
    """A payment of what is due."""
    line = reservation_pb2.ConfirmLine(
        reservation_id=reservation_id, payment_id=f"{run}-pay", paid_minor=paid_minor
    )
    return inventory_service_pb2.ConfirmRequest(line=line)


def watch(sku_id: str) -> inventory_service_pb2.WatchStockRequest:
    """One pool, as often as allowed."""
    request = inventory_service_pb2.WatchStockRequest()
    request.pools.add(sku_id=sku_id)
    request.interval.FromMilliseconds(100)
    return request


def pool(sku_id: str) -> inventory_service_pb2.GetStockRequest:
    """One base pool."""
    return inventory_service_pb2.GetStockRequest(sku_id=sku_id)


def status_name(status: int) -> str:
    """As the .proto names it."""
    return common_pb2.LineStatus.Name(status)  # type: ignore[arg-type]


def say_reserved(step: str, result: reservation_pb2.ReserveResult) -> None:
    """What an answer must repeat."""
    say(
        step,
        status=status_name(result.status),
        reservation_id=result.reservation_id,
        payable_minor=result.payable_minor,
        deadline_s=result.deadline_time.seconds,
    )


def say_refused(
    step: str, code: grpc.StatusCode, trailers: Iterable[tuple[str, str | bytes]]
) -> None:
    """An RPC error with its details as they came."""
    details = dict(trailers).get(DETAILS, b"")
    assert isinstance(details, bytes)
    say(step, code=code.value[0], details=base64.b64encode(details).decode())


def is_final(answer: inventory_service_pb2.ReserveManyResponse) -> bool:
    """Whether no line says that it is to be asked for again."""
    return not any(result.status in TRY_AGAIN for result in answer.results)


def say_large(
    request: inventory_service_pb2.ReserveManyRequest,
    answer: inventory_service_pb2.ReserveManyResponse,
) -> None:
    """Sizes, order and outcomes of the large call."""
    asked = [line.request_id for line in request.lines]
    statuses = [result.status for result in answer.results]
    say(
        "large",
        request_bytes=request.ByteSize(),
        response_bytes=answer.ByteSize(),
        in_order=asked == [result.request_id for result in answer.results],
        reserved=statuses.count(common_pb2.LINE_STATUS_RESERVED),
        sold_out=statuses.count(common_pb2.LINE_STATUS_SOLD_OUT),
        others=sorted({status_name(status) for status in statuses} - EXPECTED),
    )


def say_crowd(results: list[reservation_pb2.ReserveResult]) -> None:
    """Outcomes of the concurrent calls."""
    statuses = [result.status for result in results]
    say(
        "crowd",
        reserved=statuses.count(common_pb2.LINE_STATUS_RESERVED),
        sold_out=statuses.count(common_pb2.LINE_STATUS_SOLD_OUT),
        distinct=len({result.reservation_id for result in results if result.reservation_id}),
    )


def say_books(answers: list[inventory_service_pb2.GetStockResponse]) -> None:
    """The pools as the client sees them at the end."""
    for answer in answers:
        stock = answer.stock
        say(
            "books",
            sku_id=stock.sku_id,
            total=stock.total_count,
            available=stock.available_count,
            reserved=stock.reserved_count,
            sold=stock.sold_count,
        )
