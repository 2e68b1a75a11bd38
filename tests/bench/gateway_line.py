"""CPU time of the gateway for each line of ReserveMany: parse, validate, command, result, bytes.

Run it as `python -m tests.bench.gateway_line`; it prints microseconds per line, the best of several
runs of one full call. The budget is 4 us a line on the build machine.
"""

import time

from stockray_proto.v1 import common_pb2, inventory_service_pb2, reservation_pb2

from actors.core.outcomes import Outcome
from server.translate.reserve import add_results, reserve_commands

LINES, RUNS = 4_096, 15


def request_bytes(**buyer: object) -> bytes:
    """One full call."""
    return inventory_service_pb2.ReserveManyRequest(
        lines=[
            reservation_pb2.ReserveLine(
                request_id=f"0190c0de-aaaa-bbbb-cccc-{index:012d}",
                sku_id="sku-1001",
                campaign_id="double-11",
                quantity=1,
                buyer=common_pb2.BuyerContext(buyer_id=f"u-{index}", **buyer),  # type: ignore[arg-type]
            )
            for index in range(LINES)
        ]
    ).SerializeToString()


def measure(data: bytes, answer: tuple[object, ...]) -> tuple[float, float]:
    """Microseconds per line: up to the commands, and from the answers to bytes."""
    best_in = best_out = float("inf")
    for _ in range(RUNS):
        began = time.process_time()
        request = inventory_service_pb2.ReserveManyRequest.FromString(data)
        commands, refused = reserve_commands(
            request.lines, caller="default", deadline_ms=1, grab=False
        )
        half = time.process_time()
        answers = [answer] * LINES
        ready = time.process_time()
        response = inventory_service_pb2.ReserveManyResponse()
        add_results(response.results, request.lines, commands, refused, answers)
        response.SerializeToString()
        best_in = min(best_in, half - began)
        best_out = min(best_out, time.process_time() - ready)
    return best_in / LINES * 1e6, best_out / LINES * 1e6


def main() -> None:
    """Print one line for each shape of request and answer."""
    won = (Outcome.RESERVED, b"0123456789abcdef", 1_000, 900, 900, "CNY", 1_700_000_000_123, 5)
    lost = (Outcome.SOLD_OUT, 0, ())
    full = {"device_id": "d-12345", "ip": "10.0.0.1", "claims": ["new_user"]}
    for name, data, answer in (
        ("bare line, reserved", request_bytes(), won),
        ("bare line, sold out", request_bytes(), lost),
        ("device, ip and claim, reserved", request_bytes(**full), won),
    ):
        taken, given = measure(data, answer)
        print(f"{name}: {taken:.2f} in + {given:.2f} out = {taken + given:.2f} us a line")


if __name__ == "__main__":
    main()
