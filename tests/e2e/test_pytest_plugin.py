"""The pytest plugin as its users have it: pytest runs of their own, with the example of the README.

One run starts one cluster, on which tests of all sorts follow each other.
"""

import re
from pathlib import Path

import pytest
from stockray.testing.processes import alive

README = Path(__file__).resolve().parents[2] / "clients" / "README.md"
ASYNC_TESTS = """
import pytest
from stockray import Sku

@pytest.mark.asyncio
async def test_a_paused_primary_keeps_nobody_waiting(stockray_async_cluster, stockray_async_client):
    client = stockray_async_client
    await client.put_sku(Sku(sku_id="tea", currency_code="CNY", list_price_minor=100, buffer_bps=0))
    await client.receive_stock("tea", quantity=1)
    async with stockray_async_cluster.pause("primary", "tea"):
        sold = await client.reserve("tea", buyer_id="u-1")
    assert sold.ok
    books = await stockray_async_cluster.verify([("tea", sold)])
    assert books.live

def test_what_was_left_hurt_is_whole_in_the_next_test(stockray_cluster):
    stockray_cluster.pause("standby", "tea")
    stockray_cluster.kill_gateway()

def test_the_next_one(stockray_cluster, request):
    stockray_cluster.wait_ready(timeout_s=1)

def test_that_fails(stockray_cluster):
    pids = " ".join(str(pid) for pid in stockray_cluster.pids())
    with open("pids", "w") as file:
        print(stockray_cluster.directory, pids, file=file)
    assert not stockray_cluster.running
"""
WITHOUT_THE_SERVICE = """
from stockray.testing import link
link.entry_points = lambda group: []
"""
ASKS = "def test_it(stockray_cluster): pass"


def example() -> str:
    """The test that the README shows."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "stockray_cluster" in block]
    return str(found)


@pytest.mark.timeout(600)
def test_the_readmes_example_kills_and_passes_and_nothing_is_left(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_readme=example(), test_zz=ASYNC_TESTS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=550)
    done.assert_outcomes(passed=4, failed=1)
    done.stdout.fnmatch_lines(["*log of gateway-00*", "FAILED *::test_that_fails*"])
    directory, *pids = (pytester.path / "pids").read_text().split()
    assert len(pids) > 5
    assert [pid for pid in pids if alive(int(pid))] == []
    assert not Path(directory).exists()


def test_without_the_service_a_fixture_says_what_to_install(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WITHOUT_THE_SERVICE)
    pytester.makepyfile(ASKS)
    done = pytester.runpytest_subprocess(timeout=100)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*ServiceMissing: *pip install stockray-server*"])


@pytest.mark.parametrize(
    ("ini", "said"),
    [
        ("stockray_scope = week", "stockray_scope: 'week' is none of session, *"),
        ("stockray_shards = many", "*stockray_shards: 'many' is no number*"),
        ("stockray_journal = kafka", "*journal: 'kafka' is none of sqlite, redis*"),
        ("stockray_settings = shards", "*stockray_settings: 'shards' is not `name = value`*"),
        ("stockray_settings = shardz = 3", "*settings: shardz*"),
    ],
)
def test_a_wrong_option_is_told_by_its_name(pytester: pytest.Pytester, ini: str, said: str) -> None:
    pytester.makeini(f"[pytest]\n{ini}")
    pytester.makepyfile(ASKS)
    done = pytester.runpytest_subprocess(timeout=100)
    assert done.ret != 0
    assert any(re.search(re.escape(said).replace(r"\*", ".*"), line) for line in done.outlines)


@pytest.mark.extended
def test_a_marker_gives_tests_a_cluster_of_another_kind(pytester: pytest.Pytester) -> None:
    """Which tests share one is told by pytest's plan; nothing is started."""
    pytester.makepyfile(
        "import pytest\n"
        "def test_usual(stockray_cluster): pass\n"
        "@pytest.mark.stockray(journal='redis', shards=4)\n"
        "class TestMarked:\n"
        "    def test_one(self, stockray_client): pass\n"
        "    def test_two(self, stockray_cluster): pass\n"
        "    @pytest.mark.stockray(scope='function', shards=8)\n"
        "    def test_own(self, stockray_cluster): pass\n"
        "    def test_without(self): pass\n"
    )
    done = pytester.runpytest_subprocess("--setup-plan", "--strict-markers", timeout=100)
    plan = done.stdout.str()
    started = [line for line in plan.splitlines() if "SETUP    S stockray_cluster" in line]
    assert [line.partition("stockray_cluster")[2] for line in started] == [
        "",
        "[{'journal': 'redis', 'shards': 4}]",
        "[{'journal': 'redis', 'shards': 8}]",
    ]
    assert "TestMarked::test_one[redis-4]" in plan
    assert "TestMarked::test_without (fixtures" in plan
    pytester.makepyfile("import pytest\n@pytest.mark.stockray(jornal=1)\n" + ASKS)
    wrong = pytester.runpytest_subprocess(timeout=100)
    assert "'jornal'" in wrong.stdout.str() + wrong.stderr.str()


def test_without_pytest_asyncio_the_loops_fixture_says_what_to_do(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef stockray_cluster(): return None\n")
    pytester.makepyfile("def test_it(stockray_async_client): pass")
    done = pytester.runpytest_subprocess("-p", "no:asyncio", timeout=100)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*needs pytest-asyncio*"])
