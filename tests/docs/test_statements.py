"""In: the SQL blocks of README.md and docs/, as they stand. Out: proof that they run, in order, on real servers.

Also, that the names that the pages list are those of the extension.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from environment import database as environment_database
from environment.servers import Instance
from environment.state import CHECKOUT
from psycopg import errors
from support.database import Connection, Database, new_database
from support.documents import PAGES, README, blocks, names_in_table, section
from support.graph import Graph

(SETUP,) = blocks(README)
*BEFORE_THE_LAST, REMOVAL = blocks(PAGES["how-to/remove.md"])
_OTHERS = [block for name, page in PAGES.items() if name != "how-to/remove.md" for block in blocks(page)]
BLOCKS = [SETUP, *(block for block in _OTHERS if block != SETUP), *BEFORE_THE_LAST]
SOURCE = "\n".join(
    path.read_text()
    for folder in ("sql", "fdw")
    for path in sorted((CHECKOUT / folder).rglob("*"))
    if path.suffix in (".py", ".sql")
)


@pytest.fixture
def bare(servers: Instance) -> Iterator[Database]:
    """A team's own database: the application's tables with the demo's rows, nothing of deal_sync."""
    with new_database(servers) as bare:
        for file in ("application.sql", "demo/application.sql"):
            servers.psql(bare.name, "-f", CHECKOUT / "tests" / file)
        yield bare


@pytest.fixture
def password_file(servers: Instance) -> Iterator[Path]:
    """Neo4j's password in a file that the server can read."""
    path = servers.data / "password"
    path.write_text(servers.facts["neo4j_password"] + "\n")
    path.chmod(0o644)
    yield path
    path.unlink()


def as_on_this_machine(sql: str, servers: Instance, password_file: Path) -> str:
    """Replaces the placeholders by what is here."""
    for placeholder, here in {
        "'bolt://graph.example.com:7687'": environment_database.literal(servers.facts["neo4j_uri"]),
        "'/etc/deal_sync/password'": environment_database.literal(str(password_file)),
        r"\i ": rf"\i {CHECKOUT}/",
    }.items():
        assert placeholder in SETUP
        sql = sql.replace(placeholder, here)
    return sql


def test_every_sql_block_runs_in_order_as_it_is(
    bare: Database, servers: Instance, graph: Graph, password_file: Path, tmp_path: Path
) -> None:
    environment_database.run_cypher(servers, environment_database.DEMO / "graph.cypher")
    everything_but_the_end = "\n".join([*BLOCKS, "SELECT sync_deals(id) FROM tenants;"])
    script = tmp_path / "documents.sql"
    script.write_text(as_on_this_machine(everything_but_the_end, servers, password_file))
    servers.psql(bare.name, "-v", "client_min_messages=warning", "-f", script)
    pg = bare.connect()

    def deal(number: str) -> tuple[object, ...] | None:
        return pg.execute(
            "SELECT stage, amount::float8, deal_status, executive_sponsorship FROM opportunities"
            " WHERE graph_opportunity_id = %s",
            [f"a1000000-0000-4000-8000-0000000000{number}"],
        ).fetchone()

    # The first pages landed the deals; the altered mapping then wrote stage and amount, and the new column, but
    # deal_status on no row that was there.
    assert deal("01") == ("negotiation", 150000.0, None, None)
    assert deal("09") == ("qualification", 134500.0, None, 2)
    graph.run(
        "CREATE (:Deal {tenant_id: 'aaaaaaaa-0000-4000-8000-000000000001', name: 'Late',"
        " opportunity_id: 'a1000000-0000-4000-8000-000000000050', stage: 'prospecting', amount: 1})"
    )
    pg.execute("SELECT sync_deals('aaaaaaaa-0000-4000-8000-000000000001')")
    assert deal("50") == ("prospecting", 1.0, "open", None)

    pg.execute(REMOVAL)
    assert deal("50") == ("prospecting", 1.0, "open", None)


def test_the_set_up_has_six_statements_and_the_page_on_it_has_the_same() -> None:
    assert len([line for line in SETUP.splitlines() if line.endswith(";") or line.startswith("\\i")]) == 6
    assert SETUP in blocks(PAGES["install.md"])


def test_the_readme_is_short_and_names_every_page() -> None:
    assert len(README.splitlines()) <= 150
    assert set(PAGES) == set(re.findall(r"\]\(docs/([\w/-]+\.md)\)", README))


def test_each_page_is_of_the_site() -> None:
    assert {str(path.relative_to(CHECKOUT / "docs")) for path in (CHECKOUT / "docs").rglob("*.md")} == set(PAGES)


@pytest.mark.parametrize(
    ("place", "statement"),
    [
        ("server", "CREATE SERVER other FOREIGN DATA WRAPPER neo4j OPTIONS (nonsense '')"),
        ("user mapping", "CREATE USER MAPPING FOR PUBLIC SERVER neo4j OPTIONS (nonsense '')"),
        ("foreign table", "ALTER FOREIGN TABLE neo4j.deals OPTIONS (ADD nonsense '')"),
        ("column", "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN name OPTIONS (ADD nonsense '')"),
    ],
)
def test_the_options_listed_are_those_that_the_validator_takes(pg: Connection, place: str, statement: str) -> None:
    with pytest.raises(errors.FdwInvalidOptionName) as raised:
        pg.execute(statement)
    listed = set()
    where = ""
    for line in PAGES["reference/options.md"].splitlines():
        if line.startswith("| "):
            first, names, *_ = line.strip("|").split("|")
            where = first.strip() or where
            listed |= set(re.findall(r"`(\w+)`", names)) if where == place else set()
    hint = raised.value.diag.message_hint or ""
    assert listed == set(hint.removeprefix("Valid options in this context are: ").split(", "))


def test_the_settings_listed_are_those_that_there_are_with_their_defaults(pg: Connection) -> None:
    listed = dict(re.findall(r"^\| `deal_sync\.(\w+)` \| `(\w+)`", PAGES["reference/settings.md"], re.M))
    there = {name for (name,) in pg.execute("SELECT name FROM deal_sync.settings()")}
    assert listed == {
        name: default for name in there for (default,) in pg.execute("SELECT _deal_sync.setting(%s)", [name]).fetchall()
    }


def test_the_security_definer_functions_listed_are_all_there_are(pg: Connection) -> None:
    there = pg.execute(
        "SELECT p.proname FROM pg_proc AS p JOIN pg_depend AS d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass"
        " JOIN pg_extension AS e ON e.oid = d.refobjid WHERE e.extname = 'deal_sync' AND p.prosecdef"
    ).fetchall()
    table = section(PAGES["security.md"], "Functions with the owner's rights")
    assert names_in_table(table) - {"deal_sync.runs", "deal_sync.rejects"} == {name for (name,) in there}


def test_the_columns_of_a_run_are_explained(pg: Connection) -> None:
    columns = pg.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'deal_sync.run_result'::regclass"
        " AND attname NOT IN ('run_id', 'tenant_id', 'mode', 'seconds')"
    ).fetchall()
    assert {name for (name,) in columns} <= names_in_table(section(PAGES["reference/functions.md"], "sync_deals"))


def test_the_columns_that_people_own_are_those_of_the_mapping(pg: Connection) -> None:
    owned = section(PAGES["explanation/policies.md"], "Policies: who owns a column")
    for policy in ("never", "insert", "fill"):
        (row,) = re.findall(rf"^\| `{policy}` \|.*\| (.*) \|$", owned, re.M)
        columns = pg.execute(
            "SELECT target FROM _deal_sync.mapping_columns('neo4j.deals') WHERE target IS NOT NULL AND write = %s",
            [policy],
        ).fetchall()
        assert set(re.findall(r"`(\w+)`", row)) == {name for (name,) in columns}


def test_the_checks_listed_are_those_of_doctor(pg: Connection, graph: Graph) -> None:
    listed = names_in_table(PAGES["reference/doctor.md"])
    assert listed == {name for (name,) in pg.execute("SELECT name FROM deal_sync.doctor()")}


def test_each_code_that_is_raised_is_explained() -> None:
    conditions = set(re.findall(r"ERRCODE = '([a-z_]+)'", SOURCE)) - {"internal_error"}
    raised = {getattr(errors, "".join(part.capitalize() for part in name.split("_"))).sqlstate for name in conditions}
    raised |= set(re.findall(r"DealSyncError\(\s*\"(\w{5})\"", SOURCE)) - {"XX000", "57014"}
    raised |= set(re.findall(r"'(DS\d{3})'", SOURCE))
    raised |= set(re.findall(r"(?:Misfit|_reject)\(\s*\"(\w{5})\"", SOURCE))
    for template in (CHECKOUT / "fdw/neo4j_deals/sync/sql").glob("*.sql"):
        raised |= set(re.findall(r"'(\d\w{4})'", template.read_text()))
    assert len(raised) > 30
    assert raised <= set(re.findall(r"\b[0-9A-Z]{5}\b", PAGES["reference/errors.md"]))


@pytest.mark.parametrize(
    "message",
    sorted(
        names_in_table(section(PAGES["reference/errors.md"], "Errors of a run"), 1) - {"sync_all()"}
        | names_in_table(section(PAGES["security.md"], "TLS"))
    ),
)
def test_a_message_that_is_quoted_is_one_of_the_code(message: str) -> None:
    for part in re.split(r'Neo4j server "…"|[^\w ]*…[^\w ]*', message):
        assert part.strip(", ") in SOURCE


def test_the_states_listed_are_those_of_the_status(pg: Connection) -> None:
    listed = names_in_table(section(PAGES["how-to/schedule.md"], "See how it goes"))
    assert listed == {
        state for (state,) in pg.execute("SELECT unnest(enum_range(NULL::_deal_sync.tenant_state))::text")
    }


def test_a_statement_that_the_header_of_the_migration_gives_for_a_busy_table_runs(bare: Database) -> None:
    """Its text is there, so that the file can be used without the documentation."""
    header = (CHECKOUT / "sql/migration/deal_sync.sql").read_text().partition("\nDO ")[0]
    lines = [line.removeprefix("--").strip() for line in header.splitlines() if line.startswith("--     ")]
    statements = " ".join(line for line in lines if not line.startswith(("psql", "Prisma", "then"))).split(";")
    with psycopg.connect(bare.dsn(), autocommit=True) as connection:
        for statement in statements:
            if statement.strip():
                connection.execute(statement.encode())
        made = connection.execute(
            "SELECT count(*) FROM pg_index AS i WHERE i.indrelid = 'opportunities'::regclass AND i.indisvalid"
            " AND i.indexrelid::regclass::text ~ 'graph_opportunity_id|source_interaction_id'"
        ).fetchone()
    assert made == (2,)


PUSH_DOWN = PAGES["reference/push-down.md"]
PUSHED = re.findall(r"^\| `((?:WHERE|ORDER BY) .*?)` \| (exact|superset|not) \| (.*) \|$", PUSH_DOWN, re.M)


@pytest.mark.multicorn
@pytest.mark.parametrize(("clause", "how", "why"), PUSHED)
def test_what_runs_in_neo4j_is_what_the_table_says(pg: Connection, clause: str, how: str, why: str) -> None:
    plan = "\n".join(row[0] for row in pg.execute(f"EXPLAIN SELECT name FROM neo4j.deals {clause}".encode()))
    asked = "\n".join(line for line in plan.splitlines() if "Multicorn:" in line)
    nodes = plan.replace(asked, "")
    if clause.startswith("ORDER BY") or "LIMIT" in clause:
        local = ("Limit" if "LIMIT" in clause else "Sort") in nodes
        assert (how == "not") == local, plan
        assert ("LIMIT $limit" in asked or "WITH n ORDER BY" in asked) == (how == "exact"), plan
    else:
        assert ("Multicorn: WHERE" in asked) == (how != "not"), plan
        assert ("Pushed as a superset" in asked) == (how == "superset"), plan
        assert "Not pushed" not in asked or how == "not", plan


def test_the_table_of_what_runs_in_neo4j_is_read_whole() -> None:
    assert len(PUSHED) == len(re.findall(r"^\| `(?:WHERE|ORDER)", PUSH_DOWN, re.M)) > 20
