"""The pytest plugin: a local cluster for tests, and clients of it.

Registered by the entry point `pytest11`, so it is read in every run of pytest where the client is
installed: it stands outside `stockray` and imports nothing of it until a fixture is used.

Rules
* `stockray_cluster` is one cluster for the whole run, or for each module, class, package or test
  as `stockray_scope` says; a marker gives the tests that it stands on one of another kind.
* Each test finds the cluster whole: what a test before did is healed after it.
* A failed test's report has the ends of the cluster's logs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from stockray import AsyncClient, Client
    from stockray.testing import AsyncLocalCluster, LocalCluster

SCOPES = ("session", "package", "module", "class", "function")
CHOICES = ("journal", "database", "shards", "gateways", "settings")
MARKER = (
    "stockray(scope=, journal=, database=, shards=, gateways=, settings=): the kind of cluster "
    "that the fixture stockray_cluster gives this test"
)
FIXTURE = "stockray_cluster"
_CLUSTER = pytest.StashKey["LocalCluster"]()
_KINDS = pytest.StashKey[dict[tuple[str, str], dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings of the plugin, all with a default."""
    scope = "how long a cluster lives: session (default), package, module, class or function"
    parser.addini("stockray_scope", scope, default="session")
    parser.addini("stockray_journal", "sqlite (default) or redis", default="sqlite")
    parser.addini("stockray_database", "sqlite (default) or mariadb", default="sqlite")
    parser.addini("stockray_shards", "shards of the cluster (default 2)", default="2")
    parser.addini("stockray_gateways", "gateway processes (default 1)", default="1")
    parser.addini("stockray_settings", "settings of the service, `name = value`", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if config.pluginmanager.hasplugin("asyncio"):
        # A fixture of a loop is its plugin's kind; without that plugin it is not there.
        config.pluginmanager.import_plugin("pytest_stockray.on_loops")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A marked test gets a cluster of its kind: the one that runs if it is of that kind and its
    scope reaches here, else a new one in its place."""
    marks = list(metafunc.definition.iter_markers("stockray"))
    if not marks or FIXTURE not in metafunc.fixturenames:
        return
    kind: dict[str, Any] = {}
    for mark in reversed(marks):  # The closest comes first, and has the last word.
        _check(mark)
        kind |= mark.kwargs
    scope = kind.pop("scope", None) or _scope(FIXTURE, metafunc.config)
    name = "-".join(str(value) for key, value in kind.items() if key != "settings")
    # pytest compares parameters by identity: what shall be one cluster must be one object.
    place = (repr(sorted(kind.items())), _place(metafunc.definition, scope))
    kind = metafunc.config.stash.setdefault(_KINDS, {}).setdefault(place, kind)
    metafunc.parametrize(FIXTURE, [kind], indirect=True, scope=scope, ids=[name or "own"])


def _place(item: pytest.Item, scope: str) -> str:
    """The node within which tests of one kind share a cluster."""
    kinds: dict[str, type[pytest.Item] | type[pytest.Collector]] = {
        "package": pytest.Package,
        "module": pytest.Module,
        "class": pytest.Class,
    }
    if scope == "function":
        return item.nodeid
    node = item.getparent(kinds[scope]) if scope in kinds else None
    return node.nodeid if node is not None else ""


def _check(mark: pytest.Mark) -> None:
    wrong = [name for name in mark.kwargs if name not in (*CHOICES, "scope")]
    if mark.args or wrong:
        raise pytest.UsageError(f"marker stockray: {(*mark.args, *wrong)!r}; it is {MARKER}")


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    scope = str(config.getini("stockray_scope"))
    if scope not in SCOPES:
        raise pytest.UsageError(f"stockray_scope: {scope!r} is none of {', '.join(SCOPES)}")
    return scope


def _number(config: pytest.Config, name: str) -> int:
    text = str(config.getini(name))
    if not text.isdigit():
        raise pytest.UsageError(f"{name}: {text!r} is no number")
    return int(text)


def _settings(config: pytest.Config) -> Mapping[str, str]:
    found = {}
    for line in cast("list[str]", config.getini("stockray_settings")):
        name, equals, value = line.partition("=")
        if not equals:
            raise pytest.UsageError(f"stockray_settings: {line!r} is not `name = value`")
        found[name.strip()] = value.strip()
    return found


@pytest.fixture(scope=_scope)
def stockray_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A running local cluster, whole at the start of each test: `stockray.testing.LocalCluster`."""
    from stockray.testing import start_local  # noqa: PLC0415 - most runs never need it

    config = request.config
    kind: dict[str, Any] = {
        "journal": config.getini("stockray_journal"),
        "database": config.getini("stockray_database"),
        "shards": _number(config, "stockray_shards"),
        "gateways": _number(config, "stockray_gateways"),
        "settings": _settings(config),
    }
    kind |= getattr(request, "param", {})
    with start_local(**kind) as cluster:
        cluster.wait_ready()
        config.stash[_CLUSTER] = cluster
        try:
            yield cluster
        finally:
            del config.stash[_CLUSTER]


@pytest.fixture
def stockray_client(stockray_cluster: LocalCluster) -> Iterator[Client]:
    """A client for threads of the local cluster, closed after the test."""
    with stockray_cluster.client() as client:
        yield client


@pytest.fixture
def stockray_async_cluster(stockray_cluster: LocalCluster) -> AsyncLocalCluster:
    """The local cluster with its methods awaited: `stockray.testing.AsyncLocalCluster`."""
    return stockray_cluster.aio


@pytest.fixture
def stockray_async_client(stockray_cluster: LocalCluster) -> AsyncClient:
    """A client for event loops of the local cluster; closed after the test by pytest-asyncio, which
    it needs. With another plugin: `async with stockray_cluster.async_client() as client`."""
    pytest.fail(
        "stockray_async_client needs pytest-asyncio; with another plugin write "
        "`async with stockray_cluster.async_client() as client`",
        pytrace=False,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The ends of the cluster's logs, with a failed test."""
    report = yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and cluster is not None and FIXTURE in getattr(item, "fixturenames", ()):
        report.sections += [(f"log of {name}", text) for name, text in cluster.logs()]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """Heal the cluster for the test that comes next."""
    yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if (
        cluster is not None
        and nextitem is not None
        and FIXTURE in getattr(item, "fixturenames", ())
    ):
        cluster.heal()
