"""Rounds on a connection of their own: order, backpressure, death, and what happens without it."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from actors import road_link
from actors.certificates import SERVER_NAME, NoCertificate, make_certificate
from actors.core.outcomes import Outcome
from actors.lifeline import lifeline_path
from actors.links import LinkClosed
from actors.road import HELLO, Road, socket_path
from actors.road_link import RoadLink
from actors.rounds import Answers, RoundStatus, unpack_answers
from actors.specs import RoadSpec, Rounds
from tests.helpers.roads import OpenRoad, crossing, on_road, unix_spec
from tests.helpers.shells import Pair, limits
from tests.helpers.virtual_time import until
from wire.client import WireClient, WireError

OK = Answers(RoundStatus.OK, 1, "t", "t", (), ())


@pytest.fixture(params=["unix", "tcp"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> RoadSpec:
    if request.param == "unix":
        return unix_spec(tmp_path)
    return RoadSpec(rounds=Rounds.TCP, certificate=made_certificate())


def made_certificate() -> str:
    try:
        return make_certificate()
    except NoCertificate as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"no TLS on this machine: {error}")


async def statuses(*rounds: Any) -> list[RoundStatus]:
    return [unpack_answers(answer).status for answer in await asyncio.gather(*rounds)]


# Rounds


async def test_a_round_is_sold_and_answered_on_the_road(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, ray = await there.greeted("a")
        answer = unpack_answers(await link.round(there.pair.payload(there.pair.reserve("r"))))
        assert [line[0] for line in answer.answers] == [Outcome.RESERVED]
        assert answer.token == link.token == there.pair["a"].shard.token
        assert not ray.sent, "nothing of it went as a Ray call"
        assert link.round_bytes > ray.round_bytes


async def test_a_replica_that_is_not_primary_says_so_on_the_road(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("b")
        await there.pair.caught_up("b")
        payload = there.pair.payload(there.pair.reserve("r"))
        assert await statuses(link.round(payload)) == [RoundStatus.NOT_PRIMARY]


async def test_garbage_is_answered_malformed_and_the_road_stays(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")
        assert await statuses(link.round(b"garbage")) == [RoundStatus.MALFORMED]
        assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]


async def test_rounds_of_one_connection_begin_in_the_order_in_which_they_came(
    spec: RoadSpec,
) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")
        begun: list[bytes] = []

        def note(payload: bytes, done: Any) -> None:
            begun.append(payload)
            done(OK)

        there.roads["a"].road._take_round = note
        sent = [str(number).encode() * (1 + number * 997 % 5_000) for number in range(60)]
        await asyncio.gather(*(link.round(payload) for payload in sent))
        assert begun == sent


async def test_rounds_of_two_gateways_that_wait_together_share_one_entry(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        first, _ = await there.greeted("a")
        second, _ = await there.greeted("a")
        pair = there.pair
        let_go = pair["a"].journal.hold("append")
        entries = len(pair.entries())
        flying = asyncio.ensure_future(first.round(pair.payload(pair.reserve("r0"))))
        await until(lambda: not flying.done() and pair["a"].shard.status()["reservations"] == 1)
        waiting = [
            asyncio.ensure_future(link.round(pair.payload(pair.reserve(f"r{number}"))))
            for number, link in enumerate((first, second), 1)
        ]
        await until(lambda: pair["a"].shard.status()["queue_rounds"] == 2)
        let_go()
        assert await statuses(flying, *waiting) == [RoundStatus.OK] * 3
        assert len(pair.entries()) == entries + 2


async def test_a_full_shard_says_busy_on_the_road(spec: RoadSpec) -> None:
    pair = Pair(limits(queue_rounds=1, append_patience_ms=60_000))
    async with crossing(spec, pair) as there:
        link, _ = await there.greeted("a")
        let_go = pair["a"].journal.hold("append")
        flying = asyncio.ensure_future(link.round(pair.payload(pair.reserve("r0"))))
        await until(lambda: pair["a"].shard.status()["reservations"] == 1)
        waiting = asyncio.ensure_future(link.round(pair.payload(pair.reserve("r1"))))
        await until(lambda: pair["a"].shard.status()["queue_rounds"] == 1)
        assert await statuses(link.round(pair.payload(pair.reserve("r2")))) == [RoundStatus.BUSY]
        let_go()
        assert await statuses(flying, waiting) == [RoundStatus.OK] * 2


async def test_what_a_caller_gave_up_waiting_for_is_done_all_the_same(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")
        pair = there.pair
        let_go = pair["a"].journal.hold("append")
        impatient = asyncio.ensure_future(link.round(pair.payload(pair.reserve("r"))))
        await until(lambda: pair["a"].shard.status()["reservations"] == 1)
        impatient.cancel()
        await asyncio.wait({impatient})
        let_go()
        again = unpack_answers(await link.round(pair.payload(pair.reserve("r"))))
        assert again.answers[0][0] == Outcome.RESERVED
        assert pair["a"].shard.status()["reservations"] == 1, "the same id, the same reservation"


async def test_an_answer_that_cannot_be_packed_ends_its_round_alone(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")
        honest = there.roads["a"].road._take_round
        unpackable = OK._replace(answers=((2**80,),))
        there.roads["a"].road._take_round = lambda _, done: done(unpackable)
        with pytest.raises(LinkClosed, match="cannot be packed"):
            await link.round(b"")
        there.roads["a"].road._take_round = honest
        assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]


async def test_a_round_of_a_megabyte_crosses_and_so_does_its_answer(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")

        def give_back(payload: bytes, done: Any) -> None:
            done(OK._replace(answers=((payload,),)))

        there.roads["a"].road._take_round = give_back
        payload = os.urandom(1_000_000)
        assert unpack_answers(await link.round(payload)).answers == ((payload,),)


# Death


async def test_a_lifeline_that_ends_is_a_death_though_the_connection_still_stands(
    tmp_path: Path,
) -> None:
    async with crossing(unix_spec(tmp_path)) as there:
        path = there.roads["a"].addresses[0].removeprefix("unix:")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(lifeline_path(path))
            listener.listen()
            link, _ = await there.greeted("a")
            closed = asyncio.Event()
            link.on_closed = closed.set
            held, _ = listener.accept()
            assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
            held.close()
            async with asyncio.timeout(5):
                await closed.wait()
        with pytest.raises(LinkClosed):
            await link.round(there.pair.payload())


async def test_a_closed_connection_fails_what_flies_and_what_follows_until_a_hello(
    spec: RoadSpec,
) -> None:
    async with crossing(spec) as there:
        link, ray = await there.greeted("a")
        there.pair["a"].journal.hold("append")
        closed: list[str] = []
        link.on_closed = lambda: closed.append("closed")
        payload = there.pair.payload(there.pair.reserve("r"))
        flying = [asyncio.ensure_future(link.round(payload)) for _ in range(2)]
        await until(lambda: there.pair["a"].shard.status()["reservations"] == 1)
        await there.die("a")
        for future in flying:
            with pytest.raises(LinkClosed):
                await future
        assert closed == ["closed"]
        assert ray.on_closed is not None
        ray.on_closed()
        assert closed == ["closed"], "the process's end is no news after the connection's"
        with pytest.raises(LinkClosed):
            await link.round(payload)
        there.pair.start("a")
        await there.open("a")
        link.forget()
        assert link.token == ""
        await link.hello()
        await on_road(link)
        assert await statuses(link.round(payload)) == [RoundStatus.NOT_PRIMARY]


async def test_a_restarted_instance_is_met_at_its_new_address(spec: RoadSpec) -> None:
    """Without a `forget` between: the old connection may still look alive."""
    async with crossing(spec) as there:
        link, _ = await there.greeted("b")
        old = there.roads.pop("b")
        there.pair.start("b")
        await there.open("b")
        await link.hello()
        await on_road(link)
        answer = unpack_answers(await link.round(there.pair.payload()))
        assert answer.token == link.token == there.pair["b"].shard.token
        await until(lambda: not connections(old))
        await old.road.close()


PROCESS = """
import asyncio, sys
from actors.road import Road
from actors.specs import RoadSpec, Rounds
async def main():
    road = Road(
        RoadSpec(rounds=Rounds.ROAD, directory=sys.argv[1]),
        name="other", token="other-1", take_round=lambda payload, done: None,
    )
    print(*await road.open(""), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Elsewhere:
    """What Ray would say of a replica in another process."""

    def __init__(self, address: str) -> None:
        self.on_closed: Any = None
        self.token = ""
        self.round_bytes = 1_000
        self.addresses = (address,)

    async def hello(self) -> str:
        self.token = "other-1"
        return self.token

    def forget(self) -> None:
        self.token = ""


async def test_a_killed_process_is_known_to_be_dead_without_any_waiting(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, str(tmp_path / "road"), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        address = (await child.stdout.readline()).decode().strip()
        link = RoadLink(Elsewhere(address), unix_spec(tmp_path), name="x")  # type: ignore[arg-type]
        await link.hello()
        await on_road(link)
        unanswered = asyncio.ensure_future(link.round(b"x"))
        await asyncio.sleep(0)
        child.kill()
        with pytest.raises(LinkClosed):
            await unanswered
    finally:
        await child.wait()


# Without a road


async def test_without_an_address_rounds_go_as_ray_calls(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        there.roads["a"].addresses = ()
        link, ray = there.link("a")
        await link.hello()
        assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
        assert len(ray.sent) == 1
        assert link.round_bytes == ray.round_bytes


async def test_a_blocked_road_is_said_once_and_taken_when_it_opens(
    spec: RoadSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(road_link, "RETRY_S", 0.01)
    async with crossing(spec) as there:
        way = there.roads["a"].addresses
        there.roads["a"].addresses = ("unix:/nowhere", "tcp:127.0.0.1:1")
        link, ray = there.link("a")
        unblocked = asyncio.Event()
        connect = link._connect

        async def try_again(addresses: Any, token: str) -> Any:
            return await connect(way if unblocked.is_set() else addresses, token)

        monkeypatch.setattr(link, "_connect", try_again)
        with structlog.testing.capture_logs() as logs:
            await link.hello()
            assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
            assert len(ray.sent) == 1
            unblocked.set()
            await on_road(link)
        assert [line["event"] for line in logs] == ["road_unreachable", "road_taken"]
        assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
        assert len(ray.sent) == 1, "the next one went by the road"


async def test_a_port_that_swallows_everything_keeps_no_hello_waiting(tmp_path: Path) -> None:
    async with crossing(unix_spec(tmp_path)) as there:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            there.roads["a"].addresses = (f"tcp:127.0.0.1:{port}",)
            spec = replace(there.spec, certificate=made_certificate())
            link, ray = there.link("a", spec)
            async with asyncio.timeout(road_link.CONNECT_TIMEOUT_S / 2):
                await link.hello()
                assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
            assert len(ray.sent) == 1


async def test_an_address_that_became_another_instances_is_not_taken(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        there.roads["a"].addresses = there.roads["b"].addresses
        link, ray = there.link("a")
        with structlog.testing.capture_logs() as logs:
            await link.hello()
            assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
        assert len(ray.sent) == 1
        assert "another instance answers there" in logs[0]["error"]
        await until(lambda: not connections(there.roads["b"]))


async def test_a_forgotten_link_holds_no_connection_and_seeks_none(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")
        link.forget()
        await until(lambda: not connections(there.roads["a"]))
        there.roads["a"].addresses = ("unix:/nowhere",)
        await link.hello()
        seeking = link._seeking
        assert seeking is not None
        assert not seeking.done()
        link.forget()
        await asyncio.wait({seeking})
        assert seeking.cancelled()


async def test_many_hellos_leave_one_connection(spec: RoadSpec) -> None:
    async with crossing(spec) as there:
        link, _ = await there.greeted("a")
        for _ in range(5):
            await link.hello()
        assert len(connections(there.roads["a"])) == 1


# Who gets in


@pytest.mark.parametrize("stranger", ["another certificate", "none"])
async def test_who_has_not_the_clusters_certificate_is_refused(stranger: str) -> None:
    spec = RoadSpec(rounds=Rounds.TCP, certificate=made_certificate())
    theirs = made_certificate() if stranger == "another certificate" else ""
    async with crossing(spec) as there:
        link, ray = there.link("a", replace(spec, certificate=theirs))
        await link.hello()
        assert not link.on_road
        assert await statuses(link.round(there.pair.payload())) == [RoundStatus.OK]
        assert len(ray.sent) == 1
        assert there.roads["a"].road._far is not None
        assert there.roads["a"].road._far.counters.calls.started == 0


async def test_a_caller_that_shows_no_certificate_is_refused_by_the_listener() -> None:
    """It trusts the cluster's certificate and has the key of none."""
    certificate = made_certificate()
    async with crossing(RoadSpec(rounds=Rounds.TCP, certificate=certificate)) as there:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=certificate)
        context.set_alpn_protocols(["h2"])
        port = int(there.roads["a"].addresses[0].rpartition(":")[2])
        # TLS 1.3 tells the caller only after it has begun to speak.
        client = await WireClient.connect_tcp(
            "127.0.0.1", port, tls=context, server_name=SERVER_NAME
        )
        with pytest.raises(WireError):
            await client.call(HELLO, b"")


async def test_sockets_stand_in_a_directory_of_this_user_alone(tmp_path: Path) -> None:
    async with crossing(unix_spec(tmp_path)):
        directory = tmp_path / "road"
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_directory_that_others_may_enter_is_not_used(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    with pytest.raises(OSError, match="no directory of user"):
        socket_path(str(shared), "shard-0000-a")
    (tmp_path / "link").symlink_to(shared)
    with pytest.raises(OSError, match="no directory of user"):
        socket_path(str(tmp_path / "link"), "shard-0000-a")


def test_what_dead_processes_of_a_replica_left_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "road"
    directory.mkdir(mode=0o700)
    for name in ("shard-0000-a-7.sock", "shard-0000-b-7.sock"):
        (directory / name).touch()
    path = socket_path(str(directory), "shard-0000-a")
    assert path == f"{directory}/shard-0000-a-{os.getpid()}.sock"
    assert [left.name for left in directory.iterdir()] == ["shard-0000-b-7.sock"]


async def test_a_path_that_is_too_long_leaves_the_replica_without_a_socket(tmp_path: Path) -> None:
    spec = RoadSpec(rounds=Rounds.ROAD, directory=str(tmp_path / ("d" * 100)))
    road = Road(spec, name="shard-0000-a", token="t", take_round=lambda *_: None)
    with structlog.testing.capture_logs() as logs:
        assert await road.open("") == ()
    assert logs[0]["event"] == "road_not_opened"
    assert "set TMPDIR" in logs[0]["error"]


def test_a_missing_openssl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoCertificate, match="install openssl"):
        make_certificate()


def test_the_certificate_is_in_no_representation_of_the_spec() -> None:
    assert "secret" not in repr(RoadSpec(certificate="secret"))


def connections(opened: OpenRoad) -> list[Any]:
    """What the listener has open."""
    far = opened.road._far
    return [*opened.road._near.connections, *(far.connections if far is not None else ())]
