"""Calls that make no task: answered once, counted once, whatever happens to them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core import commands as c
from actors.core.outcomes import Outcome
from server.errors import CallError, Code
from server.handlers import CALLER_KEY, HandlerTable, Invocation, Method
from server.services.table import Services
from tests.helpers.core_lines import CoreLines, FakeClock
from tests.unit.server.conftest import line

INVENTORY = "/stockray.v1.InventoryService/"
Answer = tuple[Any, ...]


class HeldLines:
    """`Lines` that keep what is put until a test answers."""

    def __init__(self) -> None:
        self.put_lines: list[tuple[Any, Callable[[Answer], object]]] = []

    def put(self, command: Any, on_answer: Callable[[Answer], object]) -> None:
        self.put_lines.append((command, on_answer))

    def answer(self, *answer: Any) -> None:
        """To the line that was put first."""
        _, on_answer = self.put_lines.pop(0)
        on_answer(answer)

    async def submit(self, commands: Any) -> Any:
        raise NotImplementedError

    def shard_of(self, slot: int) -> int:
        return 0


class Desk:
    """A table over held lines, and what its calls were told."""

    def __init__(self, lines: Any) -> None:
        self.lines = lines
        self.services = Services(lines)
        self.services.admission.open()
        self.told: list[bytes | CallError] = []

    @property
    def table(self) -> HandlerTable:
        return self.services.table

    def begin(
        self, name: str, message: Any, metadata: dict[str, str | bytes] | None = None
    ) -> Callable[[], None] | None:
        method = self.table.methods[INVENTORY + name]
        data = message if isinstance(message, bytes) else message.SerializeToString()
        return self.table.begin(
            method, data, Invocation("", metadata or {}, None), self.told.append
        )

    def reserve(self, request_id: str = "r-1") -> Callable[[], None] | None:
        return self.begin("Reserve", inv.ReserveRequest(line=line(request_id)))

    @property
    def held(self) -> tuple[int, int, int]:
        """Calls, lines and bytes in flight."""
        admission = self.services.admission
        return admission.calls, admission.lines, admission.bytes

    def reasons(self) -> list[str]:
        return [told.status.reason_name for told in self.told if isinstance(told, CallError)]


@pytest.fixture
async def desk() -> Desk:
    return Desk(HeldLines())


async def test_an_answer_ends_the_call_with_no_task_in_between(desk: Desk) -> None:
    tasks = len(asyncio.all_tasks())
    assert desk.reserve() is not None
    assert len(asyncio.all_tasks()) == tasks
    calls, lines, size_bytes = desk.held
    assert (calls, lines) == (1, 1)
    assert size_bytes > 0
    assert desk.told == []
    desk.lines.answer(Outcome.SOLD_OUT, 0, ())
    (told,) = desk.told
    assert isinstance(told, bytes)
    result = inv.ReserveResponse.FromString(told).result
    assert (result.status, result.request_id) == (com.LINE_STATUS_SOLD_OUT, "r-1")
    assert desk.held == (0, 0, 0)
    counters = desk.table.counters
    assert (counters.started, counters.succeeded, counters.failed) == (1, 1, 0)


async def test_a_cancelled_call_is_told_nothing_and_gives_back_what_it_held(desk: Desk) -> None:
    cancel = desk.reserve()
    assert cancel is not None
    cancel()
    assert desk.held == (0, 0, 0)
    desk.lines.answer(Outcome.SOLD_OUT, 0, ())
    cancel()
    assert desk.told == []
    assert desk.held == (0, 0, 0)
    assert desk.table.counters.failed == 1


async def test_a_call_is_answered_once_even_if_its_line_is_answered_twice(desk: Desk) -> None:
    desk.reserve()
    _, on_answer = desk.lines.put_lines[0]
    on_answer((Outcome.SOLD_OUT, 0, ()))
    on_answer((Outcome.SOLD_OUT, 0, ()))
    assert len(desk.told) == 1
    assert desk.held == (0, 0, 0)


async def test_a_bad_answer_is_internal_and_leaks_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.reserve()
    desk.lines.answer(Outcome.RESERVED)
    assert desk.reasons() == ["INTERNAL"]
    assert desk.held == (0, 0, 0)
    out = capsys.readouterr()
    assert "call_failed" in out.out + out.err


@pytest.mark.parametrize(
    ("name", "message", "metadata", "reason"),
    [
        ("Reserve", b"\xff\xff", {}, "MALFORMED_MESSAGE"),
        ("Reserve", bytes(4 * 1024 * 1024 + 1), {}, "MESSAGE_TOO_LARGE"),
        ("Reserve", inv.ReserveRequest(), {}, "INVALID_FIELD"),
        ("Reserve", inv.ReserveRequest(line=line("r 1")), {}, "INVALID_FIELD"),
        ("Confirm", inv.ConfirmRequest(), {}, "INVALID_FIELD"),
        ("Release", inv.ReleaseRequest(), {}, "INVALID_FIELD"),
        ("BeginPayment", inv.BeginPaymentRequest(), {}, "INVALID_FIELD"),
        ("Reserve", inv.ReserveRequest(line=line("r")), {CALLER_KEY: "stockray"}, "INVALID_FIELD"),
    ],
)
async def test_what_is_refused_is_told_at_once_and_puts_no_line(
    desk: Desk, name: str, message: Any, metadata: dict[str, str | bytes], reason: str
) -> None:
    assert desk.begin(name, message, metadata) is None
    assert desk.reasons() == [reason]
    assert desk.lines.put_lines == []
    assert desk.held == (0, 0, 0)
    assert desk.table.counters.failed == 1


async def test_lines_in_flight_are_limited_for_quick_calls_too(desk: Desk) -> None:
    desk.services.admission.lines = desk.services.admission.limits.lines_max
    assert desk.reserve() is None
    assert desk.reasons() == ["OVERLOADED"]
    assert desk.services.admission.calls == desk.services.admission.bytes == 0


async def test_an_id_of_nobody_is_answered_at_once(desk: Desk) -> None:
    request = inv.BeginPaymentRequest(reservation_id="nonsense", payment_id="p")
    assert desk.begin("BeginPayment", request) is None
    (told,) = desk.told
    assert isinstance(told, bytes)
    assert inv.BeginPaymentResponse.FromString(told).status == com.LINE_STATUS_NOT_FOUND


async def test_calls_of_several_lines_run_in_a_task_and_can_be_cancelled() -> None:
    lines = CoreLines(FakeClock())
    desk = Desk(lines)
    held = lines.hold(c.RESERVE)
    request = inv.ReserveManyRequest(lines=[line("r-1"), line("r-2")])
    async with lines.running():
        cancel = desk.begin("ReserveMany", request)
        assert cancel is not None
        await lines.waiting.wait()
        assert desk.held[:2] == (1, 2)
        cancel()
        second = asyncio.get_running_loop().create_future()
        method = desk.table.methods[INVENTORY + "ReserveMany"]
        data = request.SerializeToString()
        desk.table.begin(method, data, Invocation("", {}, None), second.set_result)
        held.set()
        told = await second
        assert desk.told == []
        results = inv.ReserveManyResponse.FromString(told).results
        assert [result.status for result in results] == [com.LINE_STATUS_NOT_FOUND] * 2
        assert desk.held == (0, 0, 0)
        failed = asyncio.get_running_loop().create_future()
        desk.table.begin(method, b"\xff", Invocation("", {}, None), failed.set_result)
        error = await failed
        assert isinstance(error, CallError)
        assert error.status.code is Code.INVALID_ARGUMENT


def test_a_quick_method_is_one_line() -> None:
    def quick(*_: Any) -> None: ...

    for wrong in ({"lines_field": "lines"}, {"always": True}):
        with pytest.raises(ValueError, match="quick"):
            Method(path="/t.T/T", request=sec.GrabRequest, quick=quick, **wrong)  # type: ignore[arg-type]
