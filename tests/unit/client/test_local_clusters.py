"""`stockray.testing` and the pytest plugin where nothing is started: what they refuse, and how."""

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import stockray.testing
from stockray import Status
from stockray.cluster import ClusterStatus, ReplicaStatus, ShardStatus
from stockray.enums import ReplicaRole, ReplicaState
from stockray.testing import LocalClusterError, NotBalanced, ServiceMissing, link, start_local
from stockray.testing.books import REFUSALS, books_of
from stockray.testing.processes import alive, end_all, ended, processes_in
from stockray.testing.standing import is_level, is_whole, pid_of

from server import group_sale
from server.sale import DEFINITE_REFUSALS

SLEEPER = "import time; print(flush=True); time.sleep(600)"
STARTER = """
import subprocess, sys, time
command = [sys.executable, "-P", "-c", "from server.testing_host import main; main()"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
child.stdin.write(b'{"act": "open", "with": {}}\\n')
child.stdin.flush()
print(child.pid, child.stdout.readline().decode(), flush=True)
time.sleep(600)
"""


def test_without_the_service_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "entry_points", lambda group: entry_points(group=f"{group}.nobody"))
    with pytest.raises(ServiceMissing, match="pip install stockray-server"):
        start_local().start()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"journal": "kafka"}, "journal: 'kafka' is none of sqlite, redis"),
        ({"database": "oracle"}, "database: 'oracle' is none of sqlite, mariadb"),
        ({"shards": 0}, "settings: shards"),
        ({"settings": {"shardz": 3}}, "settings: shardz"),
        ({"settings": {"data_dir": "/"}}, "settings: data_dir is the stack's own"),
    ],
)
def test_a_wrong_wish_is_refused_by_name_and_leaves_nothing(
    wish: dict[str, object], said: str
) -> None:
    cluster = start_local(**wish)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said):
        cluster.start()
    with pytest.raises(LocalClusterError, match="not running"):
        cluster.pids()
    cluster.close()


def test_what_was_not_started_says_so() -> None:
    cluster = start_local()
    assert cluster.address == ""
    with pytest.raises(LocalClusterError, match="data_dir: the local cluster was not started"):
        _ = cluster.data_dir
    with pytest.raises(LocalClusterError, match="kill: the local cluster is not running"):
        cluster.restart()
    cluster.close()


def test_the_stack_ends_with_a_test_process_that_is_killed() -> None:
    """Also its directory. The pipe that ends tells the other process."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    host, _, facts = starter.stdout.readline().partition(" ")
    directory = facts.partition('"directory": "')[2].partition('"')[0]
    assert os.path.isdir(directory)
    assert int(host) in processes_in(directory)
    starter.kill()
    starter.communicate()
    assert ended(int(host), 30)
    assert not os.path.exists(directory)


def test_processes_are_found_by_where_they_work_and_ended(tmp_path: object) -> None:
    place = str(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=place, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert processes_in(place) == {child.pid}
    assert end_all(place, but=[child.pid], timeout_s=0.1) == frozenset()
    assert alive(child.pid)
    assert end_all(place) == frozenset()
    assert not alive(child.pid)
    child.communicate()
    assert ended(child.pid, 0)


def test_what_is_a_refusal_is_the_same_for_client_and_service() -> None:
    assert DEFINITE_REFUSALS | group_sale.REFUSALS <= REFUSALS
    assert not REFUSALS & {Status.RETRY, Status.UNKNOWN, Status.ID_REUSED, Status.INTERNAL}


def test_whatever_a_seat_is_refused_with_is_a_refusal() -> None:
    """They were left out, and seats that were refused were not looked for."""
    of_teams = {status for status in Status if Status.TEAM_FULL <= status < Status.TEAM_FORMING}
    assert len(of_teams) == 7
    assert of_teams <= REFUSALS
    # That one refuses a return.
    assert Status.TEAM_FORMING not in REFUSALS


def test_books_that_do_not_balance_name_the_culprits() -> None:
    found = {"checked": 7, "violations": 0, "examples": []}
    data = {"ok": True, "live": True, "invariants": {"I1": found, "I2": found}}
    books = books_of(data)
    assert books.ok
    assert [count.checked_count for count in books.invariants] == [7, 7]
    lost = {"checked": 7, "violations": 2, "examples": ["acknowledged and lost: r-1"]}
    with pytest.raises(NotBalanced, match=r"I2: 2 of 7 .* acknowledged and lost: r-1") as caught:
        books_of(data | {"ok": False, "invariants": {"I1": found, "I2": lost}})
    assert not caught.value.books.ok
    with pytest.raises(NotBalanced, match="nothing to check"):
        books_of(data | {"ok": False})


def test_a_cluster_is_whole_with_a_pair_for_each_shard_and_level_when_all_have_caught_up() -> None:
    def standing(
        standby_seq: int, sink_seq: int, *, lag: int = 0, relay_seq: int = 5
    ) -> ClusterStatus:
        ready = ReplicaState.READY
        primary = ReplicaStatus(role=ReplicaRole.PRIMARY, state=ready, seq=5, pid=11)
        standby = ReplicaStatus(
            role=ReplicaRole.STANDBY, state=ready, seq=standby_seq, pid=12, lag_count=lag
        )
        return ClusterStatus(
            shards=(
                ShardStatus(
                    seq=5, sink_seq=sink_seq, relay_seq=relay_seq, replicas=(primary, standby)
                ),
            )
        )

    assert is_whole(standing(5, 5))
    assert not is_whole(standing(5, 5, lag=100))
    assert is_level(standing(5, 5))
    assert not is_level(standing(4, 5))
    assert not is_level(standing(5, 4))
    assert not is_level(standing(5, 5, relay_seq=4))
    assert pid_of(standing(5, 5), 0, ReplicaRole.STANDBY) == 12
    alone = ClusterStatus(shards=(ShardStatus(replicas=standing(5, 5).shards[0].replicas[:1]),))
    assert not is_whole(alone)
    assert pid_of(alone, 0, ReplicaRole.STANDBY) == 0


def test_the_plugin_costs_a_run_without_its_fixtures_no_import() -> None:
    program = (
        "import sys, pytest_stockray\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('stockray', 'grpc', 'google')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_call_without_an_answer_in_time_ends_the_cluster() -> None:
    """Asked to end, it clears up; whatever is asked afterwards is no answer to what was."""
    made = link.Link()
    directory = made.call("open", 50.0)["directory"]
    with pytest.raises(LocalClusterError, match="facts: no answer in time"):
        made.call("facts", 0.0)
    with pytest.raises(LocalClusterError, match="closed"):
        made.call("facts", 1.0)
    assert ended(made.pid, 50)
    assert not os.path.exists(directory)
    made.close()
    made.close()


def test_its_names_are_public() -> None:
    assert sorted(stockray.testing.__all__) == stockray.testing.__all__
    for name in stockray.testing.__all__:
        assert getattr(stockray.testing, name).__doc__ or name == "Part", name
