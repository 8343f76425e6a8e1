"""In: a real Multicorn2 beside PL/Python. Out: foreign tables in every order of use, plans, joins, Cypher's tables."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.backend import await_true
from support.database import Connection, Database
from support.graph import Graph

IDS = "SELECT 'bbbbbbbb-0000-4000-8000-' || lpad(i::text, 12, '0') AS id FROM generate_series(1, {}) AS i"
TENANT = "aaaaaaaa-0000-4000-8000-000000000001"
NODES = 2000

pytestmark = pytest.mark.multicorn

FAR = "SELECT count(*) FROM neo4j.deals"
SCAN = "SELECT count(*) FROM deal_sync.scan(NULL::neo4j.deals)"
SYNC = f"SELECT deals_read FROM sync_deals('{TENANT}')"


@pytest.fixture(autouse=True)
def deals(graph: Graph, pg: Connection) -> None:
    graph.run("CREATE INDEX deal_key FOR (d:Deal) ON (d.opportunity_id)")
    graph.run(
        "UNWIND range(1, $nodes) AS i CREATE (:Deal {tenant_id: $tenant, name: 'deal ' + i, stage: 'proposal',"
        " opportunity_id: 'bbbbbbbb-0000-4000-8000-' + right('00000000000' + i, 12), amount: i * 10.0, version: i})",
        nodes=NODES,
        tenant=TENANT,
    )
    graph.run("CALL db.awaitIndexes(60)")
    pg.execute("INSERT INTO tenants VALUES (%s, 'one')", [TENANT])


def plan(pg: Connection, query: str, *how: str) -> str:
    explain = f"EXPLAIN ({', '.join(how)}) " if how else "EXPLAIN "
    return "\n".join(row[0] for row in pg.execute((explain + query).encode()))


def value(pg: Connection, query: str) -> Any:
    row = pg.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


# -- every order of use in one backend ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(FAR, SCAN), (SCAN, FAR), (SYNC, FAR), (FAR, SYNC, FAR), (SYNC, SCAN, FAR, SCAN)])
def test_foreign_table_and_pl_python_in_any_order(pg: Connection, order: tuple[str, ...]) -> None:
    assert [value(pg, statement) for statement in order] == [NODES] * len(order)


@pytest.mark.parametrize("first", [FAR, SCAN])
def test_both_in_one_statement(pg: Connection, first: str) -> None:
    assert value(pg, first) == NODES
    joined = (
        "SELECT count(*) FROM neo4j.deals AS a"
        " JOIN deal_sync.scan(NULL::neo4j.deals) AS b ON a.opportunity_id = b.opportunity_id AND a.name = b.name"
    )
    assert value(pg, joined) == NODES


def test_both_in_one_statement_that_is_the_first(pg: Connection) -> None:
    assert value(pg, f"SELECT ({FAR}) + ({SCAN})") == 2 * NODES


def test_after_discard_all(pg: Connection) -> None:
    for statement in (FAR, SCAN, FAR):
        assert value(pg, statement) == NODES
        pg.execute("DISCARD ALL")


def test_after_an_error_of_the_graph_of_python_and_of_sql(pg: Connection) -> None:
    pg.execute("CREATE FOREIGN TABLE broken (x bigint) SERVER neo4j OPTIONS (cypher 'RETURN 1 / 0 AS x')")
    for failing in (
        "SELECT * FROM broken",
        "SELECT 1 / (amount - 5000)::int FROM neo4j.deals",
        "SELECT * FROM deal_sync.scan(NULL::broken)",
        "SELECT no_such_column FROM neo4j.deals",
    ):
        with pytest.raises(psycopg.Error):
            pg.execute(failing.encode())
        assert value(pg, FAR) == value(pg, SCAN) == NODES


def test_after_an_error_in_a_subtransaction(pg: Connection) -> None:
    pg.execute(
        "DO $$ BEGIN BEGIN PERFORM 1 / (amount - 5000)::int FROM neo4j.deals; EXCEPTION WHEN division_by_zero THEN END;"
        f" IF ({FAR}) <> {NODES} THEN RAISE 'lost'; END IF; END $$".encode()
    )
    assert value(pg, FAR) == NODES


def test_under_a_parallel_plan(pg: Connection) -> None:
    pg.execute("CREATE TABLE local AS SELECT i::float8 * 10 AS amount FROM generate_series(1, 100000) AS i")
    pg.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    query = f"SELECT (SELECT count(*) FROM local) + ({FAR})"
    assert "Gather" in plan(pg, query)
    assert value(pg, query) == 100000 + NODES
    pg.execute("SET force_parallel_mode = on")
    assert value(pg, "SELECT count(*) FROM neo4j.deals JOIN local USING (amount)") == NODES


@pytest.mark.parametrize("hold", ["", "WITH HOLD"])
def test_in_a_cursor_that_is_left(pg: Connection, hold: str) -> None:
    with pg.transaction():
        pg.execute(f"DECLARE one CURSOR {hold} FOR SELECT version FROM neo4j.deals ORDER BY version".encode())
        assert [row[0] for row in pg.execute("FETCH 3 FROM one")] == [1, 2, 3]
        assert value(pg, SCAN) == NODES
        assert [row[0] for row in pg.execute("FETCH 2 FROM one")] == [4, 5]
    if hold:
        assert [row[0] for row in pg.execute("FETCH 1 FROM one")] == [6]
    assert value(pg, FAR) == NODES


def test_in_two_cursors_of_which_one_is_left(pg: Connection) -> None:
    with pg.transaction():
        pg.execute("DECLARE one CURSOR FOR SELECT version FROM neo4j.deals ORDER BY version")
        pg.execute("DECLARE other CURSOR FOR SELECT version FROM neo4j.deals ORDER BY version DESC")
        assert [row[0] for row in pg.execute("FETCH 3 FROM one")] == [1, 2, 3]
        assert [row[0] for row in pg.execute("FETCH 2 FROM other")] == [NODES, NODES - 1]
        pg.execute("CLOSE other")
        assert value(pg, SCAN) == NODES
        assert len(pg.execute("FETCH ALL FROM one").fetchall()) == NODES - 3


def test_in_a_merge_before_and_after_pl_python(pg: Connection) -> None:
    pg.execute("CREATE TABLE copy (id text PRIMARY KEY, name text)")
    merge = (
        "MERGE INTO copy AS t USING neo4j.deals AS s ON t.id = s.opportunity_id"
        " WHEN MATCHED THEN UPDATE SET name = s.name"
        " WHEN NOT MATCHED THEN INSERT VALUES (s.opportunity_id, s.name)"
    )
    assert pg.execute(merge.encode()).rowcount == NODES
    assert value(pg, SCAN) == NODES
    assert pg.execute(merge.encode()).rowcount == NODES


def test_in_a_prepared_statement_with_a_generic_plan(pg: Connection) -> None:
    pg.execute("SET plan_cache_mode = force_generic_plan")
    pg.execute("PREPARE ask (text, bigint) AS SELECT name FROM neo4j.deals WHERE opportunity_id = $1 OR version = $2")
    pg.execute("PREPARE by_key (text) AS SELECT name FROM neo4j.deals WHERE opportunity_id = $1")
    for i in (1, 7):
        key = f"bbbbbbbb-0000-4000-8000-{i:012d}"
        assert pg.execute(f"EXECUTE by_key ('{key}')".encode()).fetchall() == [(f"deal {i}",)]
        assert pg.execute(f"EXECUTE ask ('{key}', {i})".encode()).fetchall() == [(f"deal {i}",)]
    assert pg.execute("EXECUTE by_key (NULL)").fetchall() == []
    assert "IN $p0" in plan(pg, "EXECUTE by_key ('x')")


# -- plans -------------------------------------------------------------------------------------------------------------


def test_an_order_runs_in_neo4j_and_a_limit_in_postgresql(pg: Connection) -> None:
    query = "SELECT name FROM neo4j.deals ORDER BY amount DESC NULLS LAST LIMIT 2 OFFSET 1"
    shown = plan(pg, query)

    assert "Limit" in shown
    assert "LIMIT $" not in shown
    assert "Sort" not in shown
    assert pg.execute(query.encode()).fetchall() == [(f"deal {NODES - 1}",), (f"deal {NODES - 2}",)]


def test_a_limit_behind_a_where_is_postgresqls(pg: Connection) -> None:
    query = "SELECT name FROM neo4j.deals WHERE version > 5 ORDER BY version LIMIT 2"
    shown = plan(pg, query)

    assert "Limit" in shown
    assert "LIMIT $" not in shown
    assert pg.execute(query.encode()).fetchall() == [("deal 6",), ("deal 7",)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT name FROM few_deals LIMIT 10",
        "SELECT name FROM (SELECT * FROM neo4j.deals WHERE version > 1990) AS d LIMIT 10",
        "WITH d AS (SELECT * FROM neo4j.deals WHERE name <> 'deal 1') SELECT name FROM d LIMIT 10",
    ],
)
def test_a_limit_over_a_view_a_subquery_or_a_cte_with_a_where_counts_after_it(pg: Connection, query: str) -> None:
    pg.execute("CREATE VIEW few_deals AS SELECT * FROM neo4j.deals WHERE version > 1990 AND stage LIKE '%sal'")
    assert len(pg.execute(query.encode()).fetchall()) == 10


@pytest.mark.parametrize(
    ("limit", "rows"),
    [("LIMIT 0", 0), ("LIMIT NULL", NODES), ("LIMIT ALL OFFSET 5", NODES - 5), ("FETCH FIRST 3 ROWS WITH TIES", NODES)],
)
def test_limits_that_are_none(pg: Connection, limit: str, rows: int) -> None:
    query = f"SELECT name FROM neo4j.deals ORDER BY (stage IS NULL) {limit}"
    assert len(pg.execute(query.encode()).fetchall()) == rows


def test_a_limit_is_not_taken_from_above_the_scan(pg: Connection) -> None:
    for query, rows in (
        ("SELECT DISTINCT stage FROM neo4j.deals LIMIT 3", 1),
        ("SELECT stage, count(*) FROM neo4j.deals GROUP BY stage LIMIT 3", 1),
        ("SELECT count(*) FROM neo4j.deals LIMIT 3", 1),
        ("SELECT d.name FROM neo4j.deals AS d JOIN neo4j.deals AS e USING (opportunity_id) LIMIT 3", 3),
        ("SELECT name FROM neo4j.deals UNION ALL SELECT name FROM neo4j.deals LIMIT 2500", 2500),
        ("SELECT row_number() OVER (ORDER BY version DESC) FROM neo4j.deals ORDER BY 1 LIMIT 1", 1),
    ):
        assert len(pg.execute(query.encode()).fetchall()) == rows, query
    with pytest.raises(psycopg.errors.InvalidRowCountInLimitClause):
        pg.execute("SELECT name FROM neo4j.deals LIMIT -1")


@pytest.fixture
def local(pg: Connection) -> None:
    """20 ids, of which ten have the flag; the planner is pushed towards looking each up."""
    pg.execute(
        f"CREATE TABLE few AS SELECT id, right(id, 2)::int > 10 AS flag, '' AS note FROM ({IDS.format(20)}) i".encode()
    )
    pg.execute("ANALYZE few")
    pg.execute("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT d.name FROM few AS l JOIN neo4j.deals AS d ON d.opportunity_id = l.id WHERE d.version <= 10",
        "SELECT d.name FROM few AS l JOIN neo4j.deals AS d ON d.opportunity_id = l.id AND (d.version <= 10) = NOT"
        " l.flag WHERE NOT l.flag",
        "SELECT d.name FROM few AS l JOIN neo4j.deals AS d ON d.opportunity_id = l.id AND l.flag = (d.version > 30)"
        " WHERE d.amount IS NOT NULL",
    ],
)
def test_a_join_by_key_keeps_its_other_clauses(pg: Connection, local: None, query: str) -> None:
    assert len(pg.execute(query.encode()).fetchall()) == 10
    assert plan(pg, query).count("Foreign Scan") == 1


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE few AS l SET note = d.name FROM neo4j.deals AS d WHERE d.opportunity_id = l.id AND d.version > 10",
        "DELETE FROM few AS l USING neo4j.deals AS d WHERE d.opportunity_id = l.id AND l.flag AND d.version > 10",
        "MERGE INTO few AS l USING neo4j.deals AS d ON d.opportunity_id = l.id AND d.version > 10"
        " WHEN MATCHED THEN UPDATE SET note = d.name",
    ],
)
def test_what_is_written_by_a_join_keeps_its_other_clauses(pg: Connection, local: None, write: str) -> None:
    assert pg.execute(write.encode()).rowcount == 10


def test_a_thousand_ids_in_one_query(pg: Connection) -> None:
    ids = value(pg, f"SELECT string_agg(quote_literal(id), ',') FROM ({IDS.format(1000)}) AS i")
    query = f"SELECT count(name) FROM neo4j.deals WHERE opportunity_id IN ({ids})"
    read = plan(pg, query, "ANALYZE")
    assert "rows=1000 loops=1" in next(line for line in read.splitlines() if "Foreign Scan" in line)
    assert "Rows Removed" not in read, "Neo4j was asked for those alone"
    assert value(pg, query) == 1000
    arrays = "SELECT count(name) FROM neo4j.deals WHERE opportunity_id = ANY (ARRAY(SELECT id FROM ({}) AS i))"
    assert value(pg, arrays.format(IDS.format(1000))) == 1000  # EXPLAIN of it would kill the backend


@pytest.mark.parametrize(
    "write",
    ["INSERT INTO neo4j.deals (name) VALUES ('x')", "UPDATE neo4j.deals SET name = 'x'", "DELETE FROM neo4j.deals"],
)
def test_it_can_only_be_read(pg: Connection, write: str) -> None:
    with pytest.raises(psycopg.Error, match="cannot change a foreign table of the graph"):
        pg.execute(write.encode())


def test_what_multicorn_does_not_tell_is_as_the_documentation_says(pg: Connection) -> None:
    """Should a newer Multicorn2 do better, docs/limits.md shrinks."""
    whole = "to_jsonb({0}) ->> 'name' FROM {1} AS {0} LIMIT 1"
    assert value(pg, "SELECT " + whole.format("d", "neo4j.deals")) is None
    assert value(pg, "SELECT " + whole.format("x", "(SELECT * FROM neo4j.deals OFFSET 0)")) is not None
    for rejected, instead in (
        ("created_at < current_date", "created_at < (SELECT current_date)"),
        ("created_at < localtimestamp", "created_at < (SELECT localtimestamp)"),
        ("name = current_user", "name = (SELECT current_user::text)"),
        ("name = greatest(current_setting('a.b', true), 'x')", "name = (SELECT greatest('a', 'x'))"),
    ):
        with pytest.raises(psycopg.Error, match="lookup failed for type"):
            pg.execute(f"SELECT * FROM neo4j.deals WHERE {rejected}".encode())
        assert pg.execute(f"SELECT * FROM neo4j.deals WHERE {instead}".encode()).fetchall() == []
    pg.execute("CREATE FOREIGN TABLE days (d date) SERVER neo4j OPTIONS (label 'Deal')")
    with pytest.raises(psycopg.Error, match="out of range"):
        pg.execute("SELECT * FROM days WHERE d < now()")
    assert pg.execute("SELECT * FROM days WHERE d < (SELECT now())").fetchall() == []
    with pytest.raises(psycopg.Error, match="ValueError"):
        pg.execute("SELECT * FROM days WHERE d < 'infinity'")


# -- what an error or EXPLAIN leaves behind ----------------------------------------------------------------------------


MINE = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery STARTS WITH 'MATCH (n:`Deal`)' RETURN count(*) AS n"


def threads(pg: Connection) -> int:
    return len(list(Path(f"/proc/{pg.info.backend_pid}/task").iterdir()))


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize(
    "statement",
    [
        "EXPLAIN ANALYZE SELECT name FROM neo4j.deals LIMIT 1",
        "DO $$ BEGIN PERFORM 1 / (version - version) FROM neo4j.deals; EXCEPTION WHEN division_by_zero THEN END $$",
    ],
)
def test_scans_that_were_not_ended_are_few_and_none_is_left_after_the_transaction(
    pg: Connection, graph: Graph, statement: str, end: str
) -> None:
    graph.run("UNWIND range(1, 6000) AS i CREATE (:Deal {name: 'more', version: 9})")  # more than is read ahead
    value(pg, SCAN)
    before = threads(pg)
    pg.execute("BEGIN")
    for _ in range(20):
        pg.execute(statement.encode())
    if statement.startswith("EXPLAIN"):
        assert threads(pg) > before, "the case is there"
    assert await_true(lambda: threads(pg) - before <= 8)
    assert await_true(lambda: graph.run(MINE)[0]["n"] <= 8)
    pg.execute(end.encode())
    assert await_true(lambda: threads(pg) <= before)
    assert await_true(lambda: graph.run(MINE) == [{"n": 0}])
    assert value(pg, FAR) == NODES + 6000


def test_scans_in_use_do_not_count(pg: Connection) -> None:
    with pg.transaction():
        for number in range(12):
            pg.execute(f"DECLARE c{number} CURSOR FOR SELECT version FROM neo4j.deals ORDER BY version".encode())
            assert value(pg, f"FETCH 1 FROM c{number}") == 1
        for _ in range(12):
            with pytest.raises(psycopg.errors.DivisionByZero), pg.transaction():
                pg.execute("SELECT 1 / (version - 3) FROM neo4j.deals")
            pg.execute("EXPLAIN ANALYZE SELECT name FROM neo4j.deals LIMIT 1")
        for number in range(12):
            assert len(pg.execute(f"FETCH ALL FROM c{number}".encode()).fetchall()) == NODES - 1


def test_a_cursor_first_read_behind_a_savepoint_is_read_on_or_says_that_it_was_ended(pg: Connection) -> None:
    with pg.transaction():
        pg.execute("DECLARE c CURSOR FOR SELECT version FROM neo4j.deals ORDER BY version")
        pg.execute("SAVEPOINT s")
        assert value(pg, "FETCH 1 FROM c") == 1
        pg.execute("ROLLBACK TO s")
        assert value(pg, "FETCH 1 FROM c") == 2
    with pg.transaction(force_rollback=True):
        for number in range(9):
            pg.execute(f"DECLARE c{number} CURSOR FOR SELECT version FROM neo4j.deals ORDER BY version".encode())
        pg.execute("SAVEPOINT s")
        for number in range(9):
            value(pg, f"FETCH 1 FROM c{number}")
        value(pg, FAR)
        pg.execute("ROLLBACK TO s")
        errors = []
        for number in range(9):
            try:
                with pg.transaction():
                    assert len(pg.execute(f"FETCH ALL FROM c{number}".encode()).fetchall()) == NODES - 1
            except psycopg.Error as error:
                errors.append(str(error))
        assert [error[:27] for error in errors] == ["the scan of Neo4j was ended"]


def test_row_estimates_are_neo4js_counts(pg: Connection) -> None:
    assert f"rows={NODES} " in plan(pg, "SELECT name FROM neo4j.deals")
    assert "rows=1 " in plan(pg, "SELECT name FROM neo4j.deals WHERE opportunity_id = 'x'")


def test_explain_needs_no_server(database: Database, pg: Connection) -> None:
    pg.execute(
        "CREATE SERVER gone FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://127.0.0.1:1',"
        " wrapper 'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper')"
    )
    pg.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER gone OPTIONS (\"user\" 'u', password 'p')")
    pg.execute("CREATE FOREIGN TABLE absent (name text) SERVER gone OPTIONS (label 'Deal')")
    assert "rows=1000 " in plan(pg, "SELECT * FROM absent")
    with pytest.raises(psycopg.Error, match="could not connect to Neo4j server"):
        pg.execute("SELECT * FROM absent")


# -- tables defined by Cypher ------------------------------------------------------------------------------------------


@pytest.fixture
def stages(pg: Connection) -> None:
    pg.execute(
        "CREATE FOREIGN TABLE stages (name text, deals bigint, \"Largest\" float8 OPTIONS (property 'the largest'))"
        " SERVER neo4j OPTIONS (cypher 'MATCH (d:Deal) RETURN d.stage + d.version % 4 AS name, count(*) AS deals,"
        " max(d.amount) AS `the largest` // by stage')"
    )


def test_a_query_is_a_table(pg: Connection, stages: None) -> None:
    query = 'SELECT name, deals FROM stages WHERE "Largest" >= 19990 ORDER BY name'
    assert pg.execute(query.encode()).fetchall() == [("proposal0", 500), ("proposal3", 500)]
    shown = plan(pg, query)
    assert "WITH * WHERE `the largest` >= $p0" in shown
    assert len(pg.execute("SELECT * FROM stages LIMIT 3").fetchall()) == 3


def test_scan_reads_it_too(pg: Connection, stages: None) -> None:
    far = pg.execute("SELECT * FROM stages ORDER BY name").fetchall()
    assert pg.execute("SELECT * FROM deal_sync.scan(NULL::stages) ORDER BY name").fetchall() == far
    assert len(pg.execute("SELECT * FROM deal_sync.scan(NULL::stages, row_limit => 2)").fetchall()) == 2


@pytest.mark.parametrize("query", ["SELECT * FROM writes", "SELECT * FROM deal_sync.scan(NULL::writes)"])
def test_a_query_that_writes_is_rejected(pg: Connection, graph: Graph, query: str) -> None:
    pg.execute(
        "CREATE FOREIGN TABLE writes (x bigint) SERVER neo4j OPTIONS (cypher 'CREATE (n:Written) RETURN 1 AS x')"
    )
    with pytest.raises(psycopg.Error) as raised:
        pg.execute(query.encode())
    said = f"{raised.value} {raised.value.diag.message_detail}"
    assert "Neo.ClientError.Statement.AccessMode" in said
    assert graph.run("MATCH (n:Written) RETURN count(n) AS n") == [{"n": 0}]


@pytest.mark.parametrize("other", ["label 'Deal'", "kind 'deal'"])
def test_a_query_goes_with_no_label_and_no_kind(pg: Connection, other: str) -> None:
    with pytest.raises(psycopg.Error, match='option "cypher" cannot be used together with') as raised:
        pg.execute(f"CREATE FOREIGN TABLE t (x int) SERVER neo4j OPTIONS (cypher 'RETURN 1 AS x', {other})".encode())
    assert raised.value.sqlstate == "HV024"
