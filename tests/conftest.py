"""Flows in: the servers of tests/environment. Flows out: a fresh database and an empty graph for each test."""

import sys
import uuid
from collections.abc import Callable, Iterator

import pytest
from environment import database as environment_database
from environment.machine import LIB
from environment.servers import PORT, Instance, claimed
from neo4j import GraphDatabase
from support.database import Connection, Database, execute, new_database
from support.deals import AddNode, deal_node, version_node
from support.graph import Graph
from support.measures import Measures
from support.server_log import ServerLog
from support.sync import add_tenant

MEASURE = "measure"
ENGLISH = "C"  # the cluster's own lc_messages
SERVER_LOG = pytest.StashKey[ServerLog]()

# From Python 3.12 on, Multicorn2 and PL/Python cannot be used in one backend; the venv's Python is PostgreSQL's.
if sys.version_info >= (3, 12):
    MULTICORN_ABSENT = "Multicorn2 crashes the server beside PL/Python from Python 3.12 on"
elif not (LIB / "multicorn.so").exists():
    MULTICORN_ABSENT = f"MULTICORN2 IS NOT INSTALLED in {LIB}"
else:
    MULTICORN_ABSENT = ""


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """The running test instance: `.dsn(database, user)`, `.facts`, `.log`; another run at the same time has its own.

    Fails at its end if PostgreSQL has crashed, since the test that caused it may have passed.
    """
    with claimed("test") as instance:
        # What the fixture postgresql_noproc connects to, once it is asked for.
        request.config.option.postgresql_host = str(instance.socket_directory)
        request.config.option.postgresql_port = PORT
        log = request.config.stash[SERVER_LOG] = ServerLog(instance.log)
        yield instance
        if lines := log.crashes():
            pytest.fail("\n".join(["PostgreSQL crashed during the run:", *lines]), pytrace=False)


@pytest.fixture(scope="session")
def template(servers: Instance, request: pytest.FixtureRequest) -> str:
    """The name of a completely set-up database, to be cloned."""
    template = str(request.getfixturevalue("postgresql_noproc").template_dbname)
    environment_database.set_up(servers, template)
    return template


@pytest.fixture
def language(request: pytest.FixtureRequest) -> str:
    """The lc_messages of the test's database: a test marked `german` runs once more with German messages."""
    return str(getattr(request, "param", ENGLISH))


@pytest.fixture
def database(servers: Instance, template: str, language: str) -> Iterator[Database]:
    """A fresh database: `.connect(user)`, `.dsn(user)`."""
    with new_database(servers, template) as database:
        if language != ENGLISH:
            with database.connect() as connection:
                execute(connection, f"ALTER DATABASE {database.name} SET lc_messages = '{language}'")
        yield database


@pytest.fixture(scope="session")
def oracle(servers: Instance, template: str) -> Iterator[Connection]:
    """PostgreSQL as the reference for values: a superuser's connection, in UTC, to a database that no test changes."""
    with new_database(servers, template) as database:
        yield database.connect(options="-c timezone=UTC")


@pytest.fixture
def pg(database: Database) -> Connection:
    """The superuser's connection."""
    return database.connect()


@pytest.fixture
def writer(database: Database) -> Connection:
    """The connection of app_writer, who bypasses no row-level security."""
    return database.connect("app_writer")


@pytest.fixture(scope="session")
def all_graph(servers: Instance) -> Iterator[Graph]:
    facts = servers.facts
    auth = (facts["neo4j_user"], facts["neo4j_password"])
    with GraphDatabase.driver(facts["neo4j_uri"], auth=auth, notifications_min_severity="OFF") as driver:
        yield Graph(driver)


@pytest.fixture
def graph(all_graph: Graph) -> Graph:
    """An empty graph: `.run(cypher, **parameters)` gives a list of dicts."""
    all_graph.clear()
    return all_graph


@pytest.fixture
def tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def other_tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def deal(graph: Graph, tenant: uuid.UUID) -> AddNode:
    """Adds a Deal node of the tenant."""
    return lambda **properties: deal_node(graph, tenant, **properties)


@pytest.fixture
def version(graph: Graph, tenant: uuid.UUID) -> AddNode:
    """Adds a DealVersion node of a deal of the tenant."""
    return lambda of, **properties: version_node(graph, tenant, of, **properties)


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[str, str, str, float], None]:
    """To be called with title, row, column and value: a table of them is printed at the end of the run."""
    return lambda *measured: request.node.user_properties.append((MEASURE, measured))


@pytest.fixture
def expects_kill(servers: Instance, request: pytest.FixtureRequest) -> None:
    """Announces that the test kills a backend by signal 9 or 15, which the log check then forgives."""
    request.config.stash[SERVER_LOG].kills_announced = True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if any(metafunc.definition.iter_markers("german")):
        metafunc.parametrize("language", [ENGLISH, "de_DE.UTF-8"], ids=["English", "German"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with a time limit of its own takes long, and starts first: at the end no worker waits for it."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if MULTICORN_ABSENT and item.get_closest_marker("multicorn"):
        pytest.skip(MULTICORN_ABSENT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    called = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
    ]
    measures = Measures()
    for report in called:
        for name, measured in report.user_properties:
            if name == MEASURE:
                measures.add(*measured)
    for line in measures.lines():
        terminalreporter.line(line)
    ran = sum("multicorn" in report.keywords for report in called)
    terminalreporter.line(MULTICORN_ABSENT or f"{ran} tests ran with Multicorn2")
