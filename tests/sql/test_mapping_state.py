"""Flows in: a session that has synced, and changes of what the mapping is read from. Flows out: that its next run has
the new mapping, and that a session in which nothing changed does not read the mapping again.
"""

import uuid
from typing import LiteralString

import pytest
from support.database import Connection, execute
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, one, sync

DEALS = "ALTER FOREIGN TABLE neo4j.deals "
OPPORTUNITIES = "ALTER TABLE opportunities "

#: By name, what changes, and what it takes before.
CHANGES: dict[str, tuple[list[LiteralString], LiteralString]] = {
    "an option of a column": ([], DEALS + "ALTER deal_ref OPTIONS (ADD write 'never')"),
    "an option of the foreign table": ([], DEALS + "OPTIONS (ADD stamps 'created_at')"),
    "a foreign column": ([], DEALS + "ADD COLUMN more text OPTIONS (target 'deal_ref')"),
    "the type of a target": ([], OPPORTUNITIES + "ALTER deal_ref TYPE varchar(20)"),
    "a target": ([], OPPORTUNITIES + "DROP COLUMN deal_ref"),
    "the name of a target": ([], OPPORTUNITIES + "RENAME deal_ref TO reference"),
    "a default": ([], OPPORTUNITIES + "ALTER deal_ref SET DEFAULT 'none'"),
    "the name of a default's function": (
        [
            "CREATE FUNCTION first_reference() RETURNS text RETURN 'none'",
            OPPORTUNITIES + "ALTER deal_ref SET DEFAULT first_reference()",
        ],
        "ALTER FUNCTION first_reference() RENAME TO reference_of_old",
    ),
    "NOT NULL": ([], OPPORTUNITIES + "ALTER deal_ref SET NOT NULL"),
    "the name of the table": ([], OPPORTUNITIES + "RENAME TO chances"),
    "the schema of the table": (["CREATE SCHEMA other"], OPPORTUNITIES + "SET SCHEMA other"),
    "the name of a schema": (
        ["CREATE SCHEMA a", OPPORTUNITIES + "SET SCHEMA a", DEALS + "OPTIONS (SET target 'a.opportunities')"],
        "ALTER SCHEMA a RENAME TO b",
    ),
    "a rule": ([], "CREATE RULE no AS ON INSERT TO opportunities DO INSTEAD NOTHING"),
    "an index of the links": ([], "CREATE INDEX ON interaction_links (interaction_id)"),
    "a constraint of a domain": (
        ["CREATE DOMAIN reference AS text", OPPORTUNITIES + "ALTER deal_ref TYPE reference"],
        "ALTER DOMAIN reference ADD CONSTRAINT short CHECK (length(value) < 9)",
    ),
    "a constraint of a domain's domain": (
        [
            "CREATE DOMAIN inner_reference AS text",
            "CREATE DOMAIN reference AS inner_reference",
            OPPORTUNITIES + "ALTER deal_ref TYPE reference",
        ],
        "ALTER DOMAIN inner_reference ADD CONSTRAINT short CHECK (length(value) < 9)",
    ),
    "a label of an enum": (
        ["CREATE TYPE reference AS ENUM ('b')", OPPORTUNITIES + "ALTER deal_ref TYPE reference USING NULL"],
        "ALTER TYPE reference ADD VALUE 'a' BEFORE 'b'",
    ),
    "the schema of a type": (
        [
            "CREATE SCHEMA other",
            "CREATE TYPE reference AS ENUM ('b')",
            OPPORTUNITIES + "ALTER deal_ref TYPE reference USING NULL",
        ],
        "ALTER TYPE reference SET SCHEMA other",
    ),
    "the owner of the foreign table": ([], DEALS + "OWNER TO pg_read_all_data"),
    "a privilege on a target": ([], "GRANT UPDATE ON opportunities TO PUBLIC"),
    "the kind": ([], DEALS + "OPTIONS (DROP kind)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_state_of_the_mapping_changes_with(pg: Connection, change: str) -> None:
    before, statement = CHANGES[change]
    for each in before:
        pg.execute(each)
    state = one(pg, "SELECT _deal_sync.mapping_state()")
    assert one(pg, "SELECT _deal_sync.mapping_state()") == state
    pg.execute(statement)
    assert one(pg, "SELECT _deal_sync.mapping_state()") != state


def test_what_has_nothing_to_do_with_the_mapping_leaves_its_state(pg: Connection) -> None:
    state = one(pg, "SELECT _deal_sync.mapping_state()")
    for statement in (
        "CREATE TABLE unrelated (id int PRIMARY KEY, reference text DEFAULT 'x')",
        "CREATE TYPE of_its_own AS ENUM ('a')",
        "ANALYZE opportunities",
        "CREATE INDEX ON opportunities (deal_ref)",
        "CREATE TEMP TABLE opportunities (id int)",
    ):
        pg.execute(statement)
        assert one(pg, "SELECT _deal_sync.mapping_state()") == state, statement


def test_an_owner_who_is_no_longer_a_superuser_changes_it(pg: Connection) -> None:
    with role(pg, fresh("owner")) as owner:
        execute(pg, f"ALTER ROLE {owner} SUPERUSER")
        execute(pg, DEALS + f"OWNER TO {owner}")
        state = one(pg, "SELECT _deal_sync.mapping_state()")
        execute(pg, f"ALTER ROLE {owner} NOSUPERUSER")
        assert one(pg, "SELECT _deal_sync.mapping_state()") != state
        execute(pg, DEALS + "OWNER TO postgres")


def reads(pg: Connection) -> int:
    """How often this session has read the columns of a foreign table so far."""
    return int(one(pg, "SELECT coalesce(pg_stat_get_xact_function_calls($$_deal_sync.mapping_columns$$::regproc), 0)"))


def test_a_session_reads_the_mapping_once(pg: Connection, tenant: uuid.UUID, graph: Graph) -> None:
    add_deal(graph, tenant, opportunity_name="first")
    sync(pg, tenant)
    with pg.transaction():  # calls are counted by transaction
        pg.execute("SET LOCAL track_functions = 'all'")
        for number in range(3):
            graph.run("MATCH (n:Deal) SET n.opportunity_name = $name", name=f"name {number}")
            before = reads(pg)
            sync(pg, tenant)
            assert reads(pg) - before <= 2, "the fingerprint alone, of both tables"


def test_each_run_of_a_statement_has_the_mapping_of_its_beginning(
    pg: Connection, tenant: uuid.UUID, graph: Graph
) -> None:
    add_deal(graph, tenant, opportunity_name="a deal", deal_ref="a reference")
    sync(pg, tenant)
    pg.execute(
        """
        DO $$
        DECLARE
            tenant CONSTANT uuid := (SELECT o.tenant_id FROM opportunities AS o);
        BEGIN
            UPDATE opportunities SET deal_ref = NULL;
            ALTER FOREIGN TABLE neo4j.deals ALTER deal_ref OPTIONS (ADD write 'never');
            PERFORM sync_deals(tenant, 'full');
            ASSERT (SELECT o.deal_ref IS NULL FROM opportunities AS o);
            ALTER FOREIGN TABLE neo4j.deals ALTER deal_ref OPTIONS (DROP write);
            PERFORM sync_deals(tenant, 'full');
            ASSERT (SELECT o.deal_ref = 'a reference' FROM opportunities AS o);
        END
        $$
        """
    )


def test_a_mapping_that_was_rolled_back_is_forgotten(pg: Connection, tenant: uuid.UUID, graph: Graph) -> None:
    add_deal(graph, tenant, opportunity_name="a deal", deal_ref="a reference")
    sync(pg, tenant)
    with pg.transaction(force_rollback=True):
        pg.execute(DEALS + "ALTER deal_ref OPTIONS (ADD write 'never')")
        pg.execute("UPDATE opportunities SET deal_ref = NULL")
        sync(pg, tenant, mode="full")
        assert one(pg, "SELECT deal_ref FROM opportunities") is None
    pg.execute("UPDATE opportunities SET deal_ref = NULL")
    sync(pg, tenant, mode="full")
    assert one(pg, "SELECT deal_ref FROM opportunities") == "a reference"


def test_a_foreign_table_of_others_stops_no_sync(pg: Connection, tenant: uuid.UUID, graph: Graph) -> None:
    add_deal(graph, tenant)
    with role(pg, fresh("reader"), "USAGE ON FOREIGN SERVER neo4j") as reader:
        execute(pg, f"CREATE SCHEMA of_reader AUTHORIZATION {reader}")
        execute(pg, f"SET ROLE {reader}")
        for number, name in enumerate(("a.b.c", "a.b.c.d", "a b", "")):
            execute(
                pg,
                f"CREATE FOREIGN TABLE of_reader.t{number} (a text) SERVER neo4j"
                f" OPTIONS (label 'X', kind 'deal', target '{name or '.'}')",
            )
        pg.execute("RESET ROLE")
        assert sync(pg, tenant).deals_inserted == 1
        assert one(pg, "SELECT missing FROM deal_sync.reconcile(%s) WHERE kind = 'deals'", tenant) == 0


def test_what_is_not_a_run_looks_at_the_mapping_by_itself(pg: Connection, tenant: uuid.UUID, graph: Graph) -> None:
    add_deal(graph, tenant)
    pg.execute(
        """
        DO $$
        BEGIN
            ASSERT deal_sync.merge_statement('neo4j.deals') LIKE '%deal_ref%';
            ALTER FOREIGN TABLE neo4j.deals ALTER deal_ref OPTIONS (SET target 'lost_reason');
            ASSERT deal_sync.merge_statement('neo4j.deals') LIKE '%lost_reason%';
        END
        $$
        """
    )
