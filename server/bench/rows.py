"""The rows of a benchmark, one after the other, and the ratios between them.

All rows are measured in turn, as often as asked for, and of each the median counts: what else a
shared machine does then meets all of them. The floor that everything is compared with is the bare
grpc.aio echo, by whichever generator drove it fastest.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import grpc.aio
from stockray import AsyncClient, ClusterStatus

from actors.core.identity import slot_of
from server.bench import clients
from server.bench.accrual import Accrual
from server.bench.generators import Generators, has_h2load, measure_h2load
from server.bench.honest import measure_honest
from server.bench.idle import idle_connections
from server.bench.kills import measure_kills
from server.bench.opening import open_reservations
from server.bench.processes import WAITED_FOR, Roles, service_roles
from server.bench.result import (
    CAMPAIGN,
    SKU,
    AckedSales,
    BenchOptions,
    BenchResult,
    CannotMeasure,
    Measured,
    Say,
)
from server.bench.teams import open_teams, prepare_teams, team_campaign
from server.demo import until_settled
from server.echo import Certificate, EchoChild
from server.load import LoadOptions

CONNECTIONS = 4
"""Of a generator with many calls in flight; more with several gateways, which share by them."""
SNAPSHOT_TIMEOUT_MS = 120_000
ONE_CALL_S = 2.0
"""The row of one call in flight needs no longer."""

Measure = Callable[[], Awaitable[Measured]]


class Row(NamedTuple):
    """One row to measure."""

    name: str
    what: str
    measure: Measure


@dataclass(slots=True, kw_only=True)
class Service:
    """The service under test."""

    listen: str
    serve_pid: int
    client: AsyncClient
    channel: grpc.aio.Channel
    directory: Path
    certificate: Certificate | None = None
    roles: dict[str, list[int]] = field(default_factory=dict)

    @property
    def ca(self) -> str:
        """For generators."""
        return self.certificate.certificate if self.certificate else ""

    async def look(self) -> ClusterStatus:
        """Find its processes; after a failover they have other roles."""
        status = await self.client.cluster_status()
        self.roles = service_roles(status, self.serve_pid)
        return status


class Rows:
    """Measures one service."""

    def __init__(
        self,
        options: BenchOptions,
        service: Service,
        result: BenchResult,
        say: Say,
        *,
        campaigns: Sequence[str],
        logs: Path,
        numbers: Iterator[int],
    ) -> None:
        """`campaigns`: one of each shard, the benchmark's own first; `logs`: the service's."""
        self.acked = AckedSales()
        self._options = options
        self._service = service
        self._result = result
        self._say = say
        self._numbers = numbers
        self._campaigns = campaigns
        self._logs = logs
        self._teams = team_campaign(options.shards)
        self._teams_ready = False
        self._generators = Generators(options.generators, self.acked)

    async def measure(self) -> None:
        """Everything that was asked for, into the result."""
        options, client = self._options, self._service.client
        # Write-behind starts last, and belongs to what is looked at.
        await until_settled(client)
        await self._service.look()
        with ExitStack() as stack:
            echoes = {
                front: stack.enter_context(EchoChild(front, self._service.certificate))
                for front in ("grpcio", "nghttp2")
            }
            rows = [
                *self._echo_rows(echoes),
                *self._grab_rows(),
                *self._client_rows(),
                *self._join_rows(),
                self._accrual_row(),
            ]
            await self._take(chosen(rows, options.rows))
        self._result.ratios = ratios(self._result, options)
        self._result.honest_refused_percent = {
            f"{crowd.risk_profile}, {crowd.buyers:,}": round(crowd.turned_away_percent, 1)
            for crowd in measure_honest()
        }
        if options.idle_connections:
            await self._measure_idle()
        if options.open_reservations:
            await self._measure_memory()
            # What is recovered from here on is a snapshot and what was sold after it.
            await client.take_snapshot(timeout_ms=SNAPSHOT_TIMEOUT_MS)
        if options.kills:
            self._result.failover_gap_ms = await measure_kills(
                client,
                kills=options.kills,
                callers=options.callers,
                numbers=self._numbers,
                logs=self._logs,
                say=self._say,
            )

    async def _take(self, rows: list[Row]) -> None:
        found: dict[str, list[Measured]] = {row.name: [] for row in rows}
        steps = len(rows) * self._options.repeats
        step = count(1)
        for _ in range(self._options.repeats):
            for row in rows:
                self._say(f"[{next(step)}/{steps}] {row.name}: {row.what}")
                found[row.name].append(await row.measure())
        for measured in found.values():
            measured.sort(key=lambda one: one.rate_per_s)
            self._result.results.append(measured[len(measured) // 2])

    def _echo_rows(self, echoes: dict[str, EchoChild]) -> list[Row]:
        rows = []
        for front, echo in echoes.items():
            roles = {"server": [echo.pid]}
            for in_flight in (self._options.callers, self._options.crowd):
                load = self._load(in_flight, target=echo.target, kind="echo")
                name = f"echo_{front}_{in_flight}"
                rows.append(self._generated(name, load, roles))
                if has_h2load():
                    rows.append(self._by_h2load(f"{name}_h2load", load, roles))
        if not has_h2load():
            self._say("h2load is not installed (package nghttp2-client): its rows are left out")
        return rows

    def _grab_rows(self) -> list[Row]:
        return [
            self._generated(f"grab_unary_{in_flight}", self._load(in_flight), self._service.roles)
            for in_flight in dict.fromkeys((1, self._options.callers, self._options.crowd))
        ]

    def _client_rows(self) -> list[Row]:
        options, service = self._options, self._service
        loops = (
            ("grab_aio", options.callers, clients.aio_grab(service.channel, self._numbers)),
            (
                "grab_many",
                clients.MANY_CALLERS,
                clients.grab_many(service.client, self._numbers, options.many_lines),
            ),
            (
                "client_gathered",
                8 * options.callers,
                clients.gathered_grab(service.client, self._numbers),
            ),
        )
        return [self._looped(name, callers, once) for name, callers, once in loops]

    def _join_rows(self) -> list[Row]:
        """Seats of teams, beside the grabs of as many calls and lines."""
        options, service = self._options, self._service
        callers = options.callers
        load = replace(self._load(callers), kind="join", campaign_id=self._teams, team_ids_file="-")

        async def unary(name: str) -> Measured:
            team_ids = await self._open_teams(load.seconds + load.warm_up_s)
            path = service.directory / "team-ids"
            path.write_text("\n".join(team_ids), encoding="ascii")
            own = replace(load, team_ids_file=str(path))
            return await self._generators.measure(name, own, service.roles)

        async def many(name: str) -> Measured:
            team_ids = await self._open_teams(options.seconds)
            once = clients.join_many(service.client, self._numbers, options.many_lines, team_ids)
            return await self._looped(name, clients.MANY_CALLERS, once).measure()

        return [
            Row(
                f"join_team_{callers}",
                _what(load, "the generator"),
                partial(unary, f"join_team_{callers}"),
            ),
            Row(
                "join_many",
                f"{clients.MANY_CALLERS} callers in one Python client, {options.seconds:g} s",
                partial(many, "join_many"),
            ),
        ]

    def _accrual_row(self) -> Row:
        orders = self._options.accrual_orders
        accrual = Accrual(
            self._service.client,
            serve_pid=self._service.serve_pid,
            numbers=self._numbers,
            orders=orders,
            acked=self.acked,
        )
        what = f"{orders:,} orders by share codes, then until the ledger and SQL have them"
        return Row("accrual", what, lambda: accrual.measure("accrual", self._service.roles))

    async def _open_teams(self, seconds: float) -> list[str]:
        """New teams for a row; the campaign for them is made before the first."""
        client = self._service.client
        if not self._teams_ready:
            await prepare_teams(client, self._teams)
            self._teams_ready = True
        return await open_teams(client, self._teams, self._numbers, seconds)

    def _looped(self, name: str, callers: int, once: clients.Once) -> Row:
        async def measure() -> Measured:
            return await clients.loop(
                name,
                once,
                callers=callers,
                seconds=self._options.seconds,
                roles=self._service.roles,
            )

        what = f"{callers} callers in one Python client, {self._options.seconds:g} s"
        return Row(name, what, measure)

    def _generated(self, name: str, load: LoadOptions, roles: Roles) -> Row:
        async def measure() -> Measured:
            return await self._generators.measure(name, load, roles)

        return Row(name, _what(load, "the generator"), measure)

    def _by_h2load(self, name: str, load: LoadOptions, roles: Roles) -> Row:
        async def measure() -> Measured:
            return await measure_h2load(name, load, roles, self._service.directory)

        return Row(name, _what(load, "h2load"), measure)

    def _load(self, in_flight: int, *, target: str = "", kind: str = "grab") -> LoadOptions:
        options = self._options
        connections = CONNECTIONS * max(options.gateways, options.generators)
        return LoadOptions(
            target=target or self._service.listen,
            kind=kind,
            campaign_id=CAMPAIGN,
            sku_id=SKU,
            in_flight=in_flight,
            connections=min(in_flight, connections),
            seconds=min(options.seconds, ONE_CALL_S) if in_flight == 1 else options.seconds,
            warm_up_s=min(0.5, options.seconds / 4),
            ca=self._service.ca,
        )

    async def _measure_idle(self) -> None:
        """Memory of idle connections, and the rate with and without them, in turn."""
        options, service = self._options, self._service
        wanted, gateways = options.idle_connections, self._service.roles["gateway"]
        load = self._load(options.callers)
        names = f"grab_unary_{options.callers}_alone", f"grab_unary_{options.callers}_beside_idle"
        found: dict[str, list[Measured]] = {name: [] for name in names}
        bytes_each, alive = 0.0, wanted
        for turn in range(options.repeats):
            self._say(f"{names[0]}: {_what(load, 'the generator')}")
            found[names[0]].append(await self._generators.measure(names[0], load, service.roles))
            self._say(f"opening {wanted:,} idle connections")
            async with idle_connections(service.listen, wanted, gateways, service.ca) as held:
                self._say(f"{names[1]}: {_what(load, 'the generator')}")
                row = await self._generators.measure(names[1], load, service.roles)
                found[names[1]].append(row)
            # Freed memory is used again, so only the first opening shows what one takes.
            bytes_each = bytes_each if turn else held.bytes_each
            alive = min(alive, held.alive_at_end)
        for measured in found.values():
            measured.sort(key=lambda one: one.rate_per_s)
            self._result.results.append(measured[len(measured) // 2])
        alone, beside = (self._result.rate(name) for name in names)
        self._result.idle = {
            "connections": wanted,
            "alive_at_end": alive,
            "gateway_bytes_each": round(bytes_each),
        }
        self._result.ratios["beside_idle_to_alone"] = _ratio(beside, alone)

    async def _measure_memory(self) -> None:
        """Resident memory of both replicas per open reservation."""
        client, wanted = self._service.client, self._options.open_reservations
        self._say(f"memory: {wanted:,} open reservations")
        await until_settled(client)
        before = _memory(await client.cluster_status())
        await open_reservations(client, self._campaigns, self._numbers, wanted)
        after = _memory(await client.cluster_status())
        self._result.memory = {
            "open_reservations": wanted,
            **{
                f"{role}_bytes_each": round((after[role] - before[role]) / wanted) for role in after
            },
        }


def chosen(rows: list[Row], beginnings: tuple[str, ...]) -> list[Row]:
    """The rows whose names begin so; all of them if none is asked for. CannotMeasure for a
    beginning that no name has."""
    names = [row.name for row in rows]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            raise CannotMeasure(f"--rows: none begins with {beginning!r}; there are {names}")
    return [row for row in rows if not beginnings or row.name.startswith(beginnings)]


def ratios(result: BenchResult, options: BenchOptions) -> dict[str, float]:
    """To the grpc.aio echo with as many in flight as the name says, else with `callers`. Those
    `_by_cpu` compare the CPU a call of the process that has most to do, client apart. Without
    those of which a row is missing."""
    few, crowd = options.callers, options.crowd

    def echo(front: str, in_flight: int) -> float:
        return result.rate(*_echo_names(front, in_flight))

    def by_cpu(name: str, in_flight: int) -> float:
        floor = [_busiest_us(result, one, 1) for one in _echo_names("grpcio", in_flight)]
        own = _busiest_us(result, name, options.gateways)
        return _ratio(min((us for us in floor if us), default=0.0), own)

    floor = echo("grpcio", few)
    grab = result.rate(f"grab_unary_{few}")
    found = {
        "grab_to_echo": _ratio(grab, floor),
        "grab_many_to_echo": _ratio(result.rate("grab_many"), floor),
        "client_to_echo": _ratio(result.rate("client_gathered"), floor),
        "grab_aio_to_echo": _ratio(result.rate("grab_aio"), floor),
        "join_to_grab": _ratio(result.rate(f"join_team_{few}"), grab),
        "join_many_to_grab_many": _ratio(result.rate("join_many"), result.rate("grab_many")),
    }
    for number in dict.fromkeys((few, crowd)):
        base = echo("grpcio", number)
        grab_name, echo_name = f"grab_unary_{number}", f"echo_nghttp2_{number}"
        found[f"grab_to_echo_{number}"] = _ratio(result.rate(grab_name), base)
        found[f"grab_to_echo_{number}_by_cpu"] = by_cpu(grab_name, number)
        found[f"echo_nghttp2_to_echo_{number}"] = _ratio(echo("nghttp2", number), base)
        found[f"echo_nghttp2_to_echo_{number}_by_cpu"] = by_cpu(echo_name, number)
    return {name: ratio for name, ratio in found.items() if ratio}


def _echo_names(front: str, in_flight: int) -> tuple[str, str]:
    """The echo's rows: by the generator and by h2load."""
    name = f"echo_{front}_{in_flight}"
    return name, f"{name}_h2load"


def _busiest_us(result: BenchResult, name: str, gateways: int) -> float:
    """CPU a call of the process on the call's way that has most to do, if gateways share alike;
    0.0 without such a row."""
    return max(
        (
            used / (gateways if role == "gateway" else 1)
            for row in result.results
            if row.name == name
            for role, used in row.cpu_us_per_line.items()
            if role in WAITED_FOR and role != "client"
        ),
        default=0.0,
    )


def _ratio(rate: float, base: float) -> float:
    return round(rate / base, 2) if base else 0.0


def _what(load: LoadOptions, tool: str) -> str:
    tls = " over TLS" if load.ca else ""
    return (
        f"{load.in_flight} in flight on {load.connections} connections{tls} by {tool}, "
        f"{load.seconds:g} s"
    )


def _memory(status: ClusterStatus) -> dict[str, int]:
    shard = status.stock_shards[slot_of(CAMPAIGN) % len(status.stock_shards)]
    return {replica.role.name.lower(): replica.memory_bytes for replica in shard.replicas}
