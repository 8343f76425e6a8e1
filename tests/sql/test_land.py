"""Flows in: sql/functions/12_land.sql, on tables that reject rows, and beside a service that writes them too. Flows
out: the error of a row affects that row only.
"""

import secrets
import uuid
from typing import Any, LiteralString

import pytest
from psycopg import sql
from support.application import ACCOUNT, WORDS, names, trigger
from support.backend import in_background, waits_for_lock
from support.database import Connection, Database
from support.graph import Graph
from support.sync import add_deal, add_version, one, rejects, sync

# -- Row errors are isolated -------------------------------------------------------------------------------------------


IF_BAD: LiteralString = "IF new.opportunity_name = 'Bad' THEN {} END IF;"


#: What rejects the deal "Bad": statements, the properties that make it so, SQLSTATE, and what the message names.
CAUSES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "a trigger that raises": (trigger(IF_BAD.format(f"RAISE EXCEPTION '{WORDS}';")), {}, "P0001", "trigger"),
    "a trigger with a SQLSTATE of its own": (
        trigger(IF_BAD.format("RAISE EXCEPTION 'no' USING ERRCODE = 'CRM01';"), "AFTER INSERT"),
        {},
        "CRM01",
        "trigger",
    ),
    "a trigger whose subquery finds two rows": (
        trigger(IF_BAD.format("new.forecast_count := (SELECT n FROM generate_series(1, 2) AS s (n));")),
        {},
        "21000",
        "trigger",
    ),
    "a trigger in PL/Python": (
        "CREATE FUNCTION application_trigger() RETURNS trigger LANGUAGE plpython3u AS"
        " $$ if TD['new']['opportunity_name'] == 'Bad': raise ValueError('no') $$;"
        "CREATE TRIGGER application BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION application_trigger()",
        {},
        "38000",
        "trigger",
    ),
    "a trigger that asserts": (trigger(IF_BAD.format("ASSERT false, 'no';")), {}, "P0004", "trigger"),
    "a trigger that finds no row": (
        trigger(IF_BAD.format("SELECT 1 INTO STRICT new.forecast_count WHERE false;")),
        {},
        "P0002",
        "trigger",
    ),
    "a trigger that divides by zero": (trigger(IF_BAD.format("PERFORM 1 / 0;")), {}, "22012", "data exception"),
    "a trigger that suppresses the row": (trigger(IF_BAD.format("RETURN NULL;")), {}, "09000", "returned NULL"),
    "a trigger that empties a column": (trigger(IF_BAD.format("new.updated_at := NULL;")), {}, "23502", "updated_at"),
    "a trigger that meets a view's check": (
        "CREATE TABLE jobs (name text); GRANT INSERT, SELECT ON jobs TO PUBLIC;"
        "CREATE VIEW good_jobs AS SELECT * FROM jobs WHERE name <> 'Bad' WITH CHECK OPTION;"
        "GRANT INSERT ON good_jobs TO PUBLIC;" + trigger("INSERT INTO good_jobs VALUES (new.opportunity_name);"),
        {},
        "44000",
        "view",
    ),
    "a CHECK": (
        "ALTER TABLE opportunities ADD CONSTRAINT good_name CHECK (opportunity_name <> 'Bad')",
        {},
        "23514",
        "good_name",
    ),
    "a row-level security policy": (
        "CREATE POLICY good_name ON opportunities AS RESTRICTIVE USING (true) WITH CHECK (opportunity_name <> 'Bad')",
        {},
        "42501",
        "row-level security policy",
    ),
    "a foreign key": (
        "CREATE TABLE accounts (id uuid PRIMARY KEY); GRANT SELECT ON accounts TO PUBLIC;"
        "ALTER TABLE opportunities ADD CONSTRAINT its_account FOREIGN KEY (account_id) REFERENCES accounts",
        {"account_id": ACCOUNT},
        "23503",
        "its_account",
    ),
    "a deferred foreign key": (
        "CREATE TABLE accounts (id uuid PRIMARY KEY); GRANT SELECT ON accounts TO PUBLIC;"
        "ALTER TABLE opportunities ADD CONSTRAINT its_account FOREIGN KEY (account_id) REFERENCES accounts"
        " DEFERRABLE INITIALLY DEFERRED",
        {"account_id": ACCOUNT},
        "23503",
        "its_account",
    ),
    "a deferred constraint trigger": (
        trigger(IF_BAD.format(f"RAISE EXCEPTION '{WORDS}';"), "AFTER INSERT").replace(
            "CREATE TRIGGER application AFTER INSERT ON opportunities",
            "CREATE CONSTRAINT TRIGGER application AFTER INSERT ON opportunities DEFERRABLE INITIALLY DEFERRED",
        ),
        {},
        "P0001",
        "trigger",
    ),
    "an index whose entry is too long": (
        "CREATE INDEX by_summary ON opportunities (latest_ai_summary)",
        {"opportunity_summary": secrets.token_hex(20_000)},
        "54000",
        "index",
    ),
    "a unique index of the application": (
        "CREATE UNIQUE INDEX one_reference ON opportunities (deal_ref);"
        "INSERT INTO opportunities (id, tenant_id, deal_ref, updated_at)"
        " SELECT gen_random_uuid(), id, 'taken', now() FROM tenants",
        {"deal_ref": "taken"},
        "23505",
        "one_reference",
    ),
    "an exclusion constraint": (
        "ALTER TABLE opportunities ADD CONSTRAINT no_second EXCLUDE USING btree (deal_ref WITH =);"
        "INSERT INTO opportunities (id, tenant_id, deal_ref, updated_at)"
        " SELECT gen_random_uuid(), id, 'taken', now() FROM tenants",
        {"deal_ref": "taken"},
        "23P01",
        "no_second",
    ),
}


@pytest.mark.german
@pytest.mark.parametrize("cause", CAUSES)
def test_a_new_row_that_the_table_rejects_is_alone_in_it(
    cause: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    statements, properties, sqlstate, named = CAUSES[cause]
    pg.execute(statements)
    add_deal(graph, tenant, name="Good")
    bad = add_deal(graph, tenant, name="Bad", **properties)
    add_deal(graph, tenant, name="Good")

    run = sync(writer, tenant)

    assert one(pg, "SELECT count(*) FROM opportunities WHERE opportunity_name = 'Good'") == 2
    assert one(pg, "SELECT count(*) FROM opportunities WHERE opportunity_name = 'Bad'") == 0
    assert (run.status, run.deals_read, run.deals_inserted, run.rows_rejected, run.values_rejected) == (
        *("partial", 3, 2, 1, 0),
    )
    [reject] = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.graph_id, reject.column_name) == ("deal", "row", str(bad), "")
    assert reject.sqlstate == sqlstate
    assert named in reject.message
    assert WORDS not in reject.message, "only server_text may hold people's data"
    if WORDS in statements:
        assert WORDS in str(reject.server_text)


UPDATES: dict[str, tuple[Any, str]] = {
    "a trigger that raises": (trigger("RAISE EXCEPTION 'no';", "BEFORE UPDATE"), "P0001"),
    "a trigger that suppresses the row": (trigger("RETURN NULL;", "BEFORE UPDATE"), "09000"),
    "a trigger that raises afterwards": (trigger("RAISE EXCEPTION 'no';", "AFTER UPDATE"), "P0001"),
    "a trigger that updates its own row": (
        trigger(
            "IF pg_trigger_depth() = 1 THEN UPDATE opportunities SET deal_ref = 'x' WHERE id = new.id; END IF;",
            "BEFORE UPDATE",
        ),
        "27000",
    ),
    "a CHECK": ("ALTER TABLE opportunities ADD CHECK (deal_ref <> 'new') NOT VALID", "23514"),
}


@pytest.mark.parametrize("cause", UPDATES)
def test_a_change_that_the_table_rejects_leaves_the_row_and_lands_by_itself_later(
    cause: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    statements, sqlstate = UPDATES[cause]
    deal = add_deal(graph, tenant, deal_ref="old")
    assert sync(writer, tenant).status == "ok"
    pg.execute(statements)
    graph.run("MATCH (d:Deal) SET d.deal_ref = 'new', d.last_updated_at = datetime()")
    add_deal(graph, tenant, name="Good")

    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.deals_updated, run.deals_unchanged, run.rows_rejected) == (
        *("partial", 1, 0, 0, 1),
    )
    assert [(r.level, r.graph_id, r.sqlstate) for r in rejects(pg, tenant)] == [("row", str(deal), sqlstate)]
    assert one(pg, "SELECT deal_ref FROM opportunities WHERE graph_opportunity_id = %s", deal) == "old"

    assert sync(writer, tenant).rows_rejected == 1
    assert [r.times_seen for r in rejects(pg, tenant)] == [2]

    pg.execute(
        "DROP TRIGGER IF EXISTS application ON opportunities;"
        "ALTER TABLE opportunities DROP CONSTRAINT IF EXISTS opportunities_deal_ref_check"
    )
    healed = sync(writer, tenant)
    assert (healed.status, healed.deals_updated, healed.deals_unchanged) == ("ok", 1, 1)
    assert rejects(pg, tenant) == []


def test_a_value_that_a_domain_rejects_is_lost_alone(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE DOMAIN reference AS text CONSTRAINT no_blanks CHECK (value !~ ' ');"
        "ALTER TABLE opportunities ALTER COLUMN deal_ref TYPE reference"
    )
    add_deal(graph, tenant, name="Good", deal_ref="fine")
    bad = add_deal(graph, tenant, name="Lands", deal_ref="has blanks")
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.rows_rejected, run.values_rejected) == ("partial", 2, 0, 1)
    [reject] = rejects(pg, tenant)
    assert (reject.level, reject.graph_id, reject.column_name) == ("value", str(bad), "deal_ref")
    assert (reject.sqlstate, reject.value) == ("23514", "has blanks")
    assert "no_blanks" in reject.message
    assert "has blanks" not in reject.message
    landed = pg.execute("SELECT opportunity_name, deal_ref FROM opportunities ORDER BY 1").fetchall()
    assert landed == [("Good", "fine"), ("Lands", None)]
    assert sync(writer, tenant).deals_unchanged == 2


@pytest.mark.german
def test_a_domain_that_raises_harms_its_value_alone(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE FUNCTION only_fine(text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN IF $1 <> 'fine' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'CRM02'; END IF; RETURN true; END $$;"
        "CREATE DOMAIN reference AS text CHECK (only_fine(value));"
        "ALTER TABLE opportunities ALTER COLUMN deal_ref TYPE reference"
    )
    add_deal(graph, tenant, name="Good", deal_ref="fine")
    add_deal(graph, tenant, name="Lands", deal_ref="other")
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.values_rejected) == ("partial", 2, 1)
    assert [(r.level, r.column_name, r.sqlstate) for r in rejects(pg, tenant)] == [("value", "deal_ref", "CRM02")]


@pytest.mark.german
def test_a_version_that_the_table_rejects_is_alone_in_it(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(trigger("IF new.version_number = 2 THEN RAISE EXCEPTION 'no'; END IF;", table="deal_versions"))
    deal = add_deal(graph, tenant)
    bad = [add_version(graph, tenant, deal, version=number) for number in (1, 2, 3)][1]
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.versions_inserted, run.rows_rejected) == ("partial", 1, 2, 1)
    assert [(r.kind, r.level, r.graph_id, r.sqlstate) for r in rejects(pg, tenant)] == [
        ("version", "row", str(bad), "P0001")
    ]


def test_a_version_that_a_trigger_suppresses_is_a_reject(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(trigger("IF new.version_number = 2 THEN RETURN NULL; END IF;", table="deal_versions"))
    deal = add_deal(graph, tenant)
    for number in (1, 2):
        add_version(graph, tenant, deal, version=number)
    run = sync(writer, tenant)
    assert (run.versions_inserted, run.rows_rejected) == (1, 1)
    assert [(r.kind, r.level, r.sqlstate) for r in rejects(pg, tenant)] == [("version", "row", "09000")]


@pytest.mark.german
def test_a_link_that_the_table_rejects_harms_neither_its_deal_nor_other_links(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        trigger(f"IF new.interaction_id = '{ACCOUNT}' THEN RAISE EXCEPTION 'no'; END IF;", table="interaction_links")
    )
    bad = add_deal(graph, tenant, source_interaction_id=ACCOUNT)
    add_deal(graph, tenant, source_interaction_id=str(uuid.uuid4()))
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.links_inserted, run.rows_rejected) == ("partial", 2, 1, 1)
    assert [(r.kind, r.level, r.graph_id, r.sqlstate) for r in rejects(pg, tenant)] == [
        ("link", "row", str(bad), "P0001")
    ]


def test_one_bad_row_among_many_costs_few_statements(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "ALTER TABLE opportunities ADD CONSTRAINT good_name CHECK (opportunity_name <> 'Bad');"
        "CREATE SEQUENCE statements; GRANT USAGE ON statements TO PUBLIC;"
        "CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('public.statements'); RETURN NULL; END $$;"
        "CREATE TRIGGER count BEFORE INSERT ON opportunities EXECUTE FUNCTION count_statement()"
    )
    graph.run(
        "UNWIND range(1, 512) AS i CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), stage: 'proposal',"
        " name: CASE i WHEN 300 THEN 'Bad' ELSE 'Good' END})",
        tenant=str(tenant),
    )
    run = sync(writer, tenant)
    assert (run.deals_inserted, run.rows_rejected) == (511, 1)
    assert one(pg, "SELECT last_value FROM statements") <= 1 + 8 + 8 + 8, "512 in eighths, three times"


def test_which_errors_are_a_rows(pg: Connection) -> None:
    rows = ("22000", "22003", "22012", "22P02", "23502", "23503", "23505", "23514", "23P01", "44000", "20000", "54000")
    triggers = ("P0001", "P0002", "P0003", "P0004", "21000", "38000", "CRM01", "U0001", "99999")
    runs = ("08006", "0A000", "25006", "28000", "2D000", "40001", "40P01", "42501", "42P01", "42703")
    servers = ("53100", "53200", "54001", "55000", "55P03", "57014", "57P01", "58030", "F0000", "HV000", "XX000")
    judged = {code: one(pg, "SELECT _deal_sync.is_row_error(%s)", code) for code in rows + triggers + runs + servers}
    assert [code for code, is_row_error in judged.items() if is_row_error] == [*rows, *triggers]


# -- The old service inserts beside us ---------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [0, 2])
def test_a_row_that_somebody_inserts_beside_us_is_found_at_the_second_try(
    others: int, database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for _ in range(others):
        add_deal(graph, tenant, name="Good")
    deal = add_deal(graph, tenant, name="Ours", deal_ref="ours")
    service, own_id = database.connect(autocommit=False), uuid.uuid4()
    service.execute(
        "INSERT INTO opportunities (id, tenant_id, graph_opportunity_id, opportunity_name, updated_at)"
        " VALUES (%s, %s, %s, 'Theirs', now())",
        [own_id, tenant, deal],
    )
    with in_background(lambda: sync(writer, tenant)) as run:
        waits_for_lock(pg, writer.info.backend_pid)
        service.commit()
    assert run.result().status == "ok"
    assert run.result().deals_inserted + run.result().deals_updated == others + 1
    landed = pg.execute(
        "SELECT id, opportunity_name, deal_ref FROM opportunities WHERE graph_opportunity_id = %s", [deal]
    ).fetchall()
    assert landed == [(own_id, "Theirs", "ours")]
    assert sync(writer, tenant).deals_unchanged == others + 1


def test_a_deal_that_was_updated_after_all_counts_as_updated(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, deal_ref="ours")
    service = database.connect(autocommit=False)
    service.execute(
        "INSERT INTO opportunities (id, tenant_id, graph_opportunity_id, updated_at)"
        " VALUES (gen_random_uuid(), %s, %s, now())",
        [tenant, deal],
    )
    with in_background(lambda: sync(writer, tenant)) as run:
        waits_for_lock(pg, writer.info.backend_pid)
        service.commit()
    assert (run.result().deals_inserted, run.result().deals_updated) == (0, 1)


def test_a_version_whose_number_somebody_takes_beside_us_is_a_duplicate(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant)
    assert sync(writer, tenant).status == "ok"
    version = add_version(graph, tenant, deal, version=7)
    service = database.connect(autocommit=False)
    service.execute(
        "INSERT INTO deal_versions (tenant_id, opportunity_id, version_number, name, stage)"
        " VALUES (%s, %s, 7, 'Theirs', 'proposal')",
        [tenant, deal],
    )
    with in_background(lambda: sync(writer, tenant)) as run:
        waits_for_lock(pg, writer.info.backend_pid)
        service.commit()
    assert (run.result().status, run.result().versions_inserted) == ("partial", 0)
    [reject] = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.graph_id, reject.sqlstate) == ("version", "row", str(version), "23505")
    assert one(pg, "SELECT name FROM deal_versions") == "Theirs"


# -- Links: nothing is suppressed silently, and no link prevents a deal ------------------------------------------------


@pytest.mark.parametrize("how", ["a trigger that returns NULL", "a unique key of the table's own"])
def test_a_link_that_is_suppressed_is_rejected_and_its_deal_lands(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID, how: str
) -> None:
    interaction = str(uuid.uuid4())
    for _ in range(2):
        add_deal(graph, tenant, source_interaction_id=interaction)
    if how == "a trigger that returns NULL":
        pg.execute(trigger("RETURN NULL;", table="interaction_links"))
    else:
        pg.execute("CREATE UNIQUE INDEX ON interaction_links (tenant_id, interaction_id)")

    run = sync(writer, tenant)

    links = 0 if how == "a trigger that returns NULL" else 1
    assert (run.status, run.deals_inserted, run.links_inserted, run.rows_rejected) == ("partial", 2, links, 2 - links)
    assert {(reject.kind, reject.level, reject.sqlstate) for reject in rejects(pg, tenant)} == {
        ("link", "row", "09000")
    }


def test_links_that_nobody_can_take_yet_cost_no_deal_however_many_they_are(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("CREATE TABLE interactions (id uuid PRIMARY KEY)")
    pg.execute("ALTER TABLE interaction_links ADD FOREIGN KEY (interaction_id) REFERENCES interactions (id)")
    for _ in range(6):
        add_deal(graph, tenant, source_interaction_id=str(uuid.uuid4()))
    writer.execute("SET deal_sync.max_rejects = 2")

    run = sync(writer, tenant)

    assert (run.status, run.deals_inserted, run.links_inserted, run.rows_rejected) == ("partial", 6, 0, 6)
    assert {reject.kind for reject in rejects(pg, tenant)} == {"link"}
    pg.execute("ALTER TABLE interaction_links DROP CONSTRAINT interaction_links_interaction_id_fkey")
    healed = sync(writer, tenant)
    assert (healed.status, healed.links_inserted) == ("ok", 6)


def test_a_case_in_a_trigger_that_one_row_breaks_costs_that_row(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, name="Good")
    add_deal(graph, tenant, name="Bad")
    pg.execute(trigger("CASE new.opportunity_name WHEN 'Good' THEN NULL; END CASE;"))

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, names(pg, tenant)) == ("partial", 1, ["Good"])
    assert [reject.sqlstate for reject in rejects(pg, tenant)] == ["20000"]


def test_the_application_may_name_its_columns_as_it_likes(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    for table in ("opportunities", "deal_versions"):
        for name in ("place", "part", "k", "t", "s", "by_key", "row_number", "state", "landed"):
            pg.execute(sql.SQL("ALTER TABLE {} ADD {} text").format(sql.Identifier(table), sql.Identifier(name)))
    add_version(graph, tenant, add_deal(graph, tenant))
    assert sync(pg, tenant).versions_inserted == 1
    graph.run("MATCH (d:Deal) SET d.opportunity_summary = 'new'")
    assert sync(pg, tenant).deals_updated == 1
    pg.execute("SELECT deal_sync.replay(%s)", [tenant])
    assert pg.execute("SELECT * FROM deal_sync.differences(%s)", [tenant]).fetchall() == []
