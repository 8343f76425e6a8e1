"""In: a real Multicorn2 beside PL/Python in one backend. Out: the foreign tables answer as scan() and the sync do.

The first cut of the wrapper: columns pruned, equality on tenant and key pushed down, MERGE by hand.
"""

import psycopg
import pytest
from support.backend import await_true
from support.database import Connection, Database
from support.graph import Graph

TENANT = "aaaaaaaa-0000-4000-8000-000000000001"
DEAL = "bbbbbbbb-0000-4000-8000-{:012d}"
VERSION = "cccccccc-0000-4000-8000-{:012d}"

pytestmark = pytest.mark.multicorn


@pytest.fixture(autouse=True)
def deals(graph: Graph, pg: Connection) -> None:
    """Three deals with awkward values that land, each with a version; the tenant is known to the application."""
    graph.run(
        """
        UNWIND [
            {i: 1, name: 'Acme', amount: 1500, confidence: 0.145, at: datetime('2026-01-02T03:04:05.123456789+02:00')},
            {i: 2, name: '', amount: 2.5, confidence: 12.5, at: '2026-01-02T03:04:05'},
            {i: 3, name: 'A "quoted" name', confidence: 'high', at: '2026-02-30'}
        ] AS r
        CREATE (d:Deal {
            tenant_id: CASE r.i WHEN 3 THEN toUpper($tenant) ELSE $tenant END,
            opportunity_id: 'bbbbbbbb-0000-4000-8000-00000000000' + r.i, name: r.name, stage: 'proposal',
            amount: r.amount, confidence: r.confidence, account_id: 'account ' + r.i, closed_at: r.at,
            dim_responsiveness: r.i, dim_of_tomorrow: 1, last_updated_at: r.at,
            embedding: [x IN range(1, CASE r.i WHEN 2 THEN 7 ELSE 1536 END) | x / 7.0]
        })
        CREATE (d)-[:HAS_VERSION]->(v:DealVersion)
        SET v = properties(d), v.version_id = 'cccccccc-0000-4000-8000-00000000000' + r.i, v.version = 1,
            v.deal_opportunity_id = d.opportunity_id, v.changed_fields = ['stage', 'amount'], v.created_at = datetime(),
            v.embedding = null
        """,
        tenant=TENANT,
    )
    pg.execute("INSERT INTO tenants VALUES (%s, 'one')", [TENANT])


@pytest.mark.parametrize("table", ["neo4j.deals", "neo4j.deal_versions"])
@pytest.mark.parametrize("first", ["the foreign table", "scan"])
def test_a_select_gives_the_rows_of_scan_whichever_comes_first(pg: Connection, table: str, first: str) -> None:
    statements = [
        f"SELECT * FROM {table} ORDER BY element_id",
        f"SELECT * FROM deal_sync.scan(NULL::{table}) ORDER BY element_id",
    ]
    if first == "scan":
        statements.reverse()
    one, other = [pg.execute(statement).fetchall() for statement in statements]

    assert one == other
    assert len(one) == 3


def test_columns_not_asked_for_are_not_read(pg: Connection) -> None:
    plan = "\n".join(row[0] for row in pg.execute("EXPLAIN SELECT name FROM neo4j.deals"))

    assert "n.`name`" in plan
    assert "embedding" not in plan


def test_equality_on_tenant_and_key_is_pushed_down(pg: Connection) -> None:
    query = "SELECT name FROM neo4j.deals WHERE tenant_id = %s AND opportunity_id = %s"
    plan = "\n".join(row[0] for row in pg.execute("EXPLAIN (VERBOSE) " + query, [TENANT, DEAL.format(1)]))

    assert "WHERE n.`tenant_id` IN $p0 AND n.`opportunity_id` IN $p1" in plan
    assert TENANT not in plan.split("Multicorn:")[-1], "values travel as parameters"
    assert pg.execute(query, [TENANT, DEAL.format(1)]).fetchall() == [("Acme",)]
    assert pg.execute(query, [TENANT, DEAL.format(9)]).fetchall() == []


def test_a_key_that_the_graph_holds_as_a_number_is_found_by_its_text(pg: Connection, graph: Graph) -> None:
    graph.run("CREATE (:Deal {tenant_id: 'odd', opportunity_id: 17, name: 'a number for a key'})")

    found = pg.execute("SELECT name FROM neo4j.deals WHERE opportunity_id = '17'").fetchall()

    assert found == [("a number for a key",)]


def test_the_merge_by_hand_lands_what_the_sync_lands(database: Database, pg: Connection) -> None:
    tables = {
        "opportunities": "SELECT to_jsonb(t) - 'created_at' - 'updated_at' FROM opportunities t ORDER BY id",
        "deal_versions": "SELECT to_jsonb(t) FROM deal_versions t ORDER BY id",
    }
    result = pg.execute(
        "SELECT status, deals_inserted, versions_inserted FROM sync_deals(%s, mode => 'full')", [TENANT]
    ).fetchone()
    assert result == ("partial", 3, 3)
    synced = {table: pg.execute(query).fetchall() for table, query in tables.items()}

    pg.execute("TRUNCATE opportunities, deal_versions CASCADE")
    pg.execute("SELECT set_config('app.tenant_id', %s, false)", [TENANT])
    for table in ("neo4j.deals", "neo4j.deal_versions"):
        row = pg.execute("SELECT deal_sync.merge_statement(%s)", [table]).fetchone()
        assert row is not None
        pg.execute(row[0])

    assert {table: pg.execute(query).fetchall() for table, query in tables.items()} == synced
    again = pg.execute("SELECT deals_unchanged, deals_updated FROM sync_deals(%s, mode => 'full')", [TENANT]).fetchone()
    assert again == (3, 0), "the sync finds nothing to change"


@pytest.mark.parametrize("type_name", ["uuid", "numeric", "numeric[]"])
def test_a_type_whose_explain_kills_the_backend_is_rejected(pg: Connection, type_name: str) -> None:
    pg.execute(f"CREATE FOREIGN TABLE odd (name {type_name}) SERVER neo4j OPTIONS (label 'Deal')")

    with pytest.raises(psycopg.Error, match="which is not supported with Multicorn2") as raised:
        pg.execute("SELECT * FROM odd")

    assert "Make it text" in (raised.value.diag.message_hint or "")


def test_detach_takes_the_handler_and_leaves_scan(pg: Connection) -> None:
    pg.execute("SELECT deal_sync.detach()")

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no handler"):
        pg.execute("SELECT * FROM neo4j.deals")
    assert len(pg.execute("SELECT * FROM deal_sync.scan(NULL::neo4j.deals)").fetchall()) == 3
    assert pg.execute("SELECT deal_sync.attach()").fetchone() == ("Multicorn2 answers SELECTs on the tables",)
    assert len(pg.execute("SELECT * FROM neo4j.deals").fetchall()) == 3


def test_a_scan_that_a_limit_ends_gives_its_connection_back(pg: Connection, graph: Graph) -> None:
    graph.run(
        "UNWIND range(1, 4000) AS i CREATE (:Deal {tenant_id: 'many', opportunity_id: toString(i), stage: 'open'})"
    )

    for _ in range(8):  # twice as many as the driver's pool has connections
        assert pg.execute("SELECT stage FROM neo4j.deals WHERE stage = 'open' LIMIT 1").fetchall() == [("open",)]
    mine = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery STARTS WITH $scan RETURN count(*) AS n"
    assert await_true(lambda: graph.run(mine, scan="MATCH (n:`Deal`)") == [{"n": 0}])
