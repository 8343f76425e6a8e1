"""Flows in: extra/views.sql by psql, the rows of two tenants, views of that name or none. Flows out: what the views say
to whom, and that what is there stays as it is.
"""

import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, LiteralString

import pytest
from environment.servers import Instance
from environment.state import CHECKOUT
from psycopg import errors, sql
from support.database import Connection, Database
from support.deals import insert
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, add_tenant, add_version, one, sync

ACCOUNT, SECOND = (uuid.UUID(f"acc00000-0000-4000-8000-00000000000{number}") for number in (1, 2))
VIEWS = ("account_360", "opportunity_pipeline", "rpt_account_health")
Install = Callable[..., str]


@pytest.fixture
def install(servers: Instance, database: Database) -> Install:
    """Runs the script as a person would, with variables; returns what psql prints."""

    def run(**variables: str) -> str:
        settings = [argument for name, value in variables.items() for argument in ("-v", f"{name}={value}")]
        return servers.psql(database.name, *settings, "-f", CHECKOUT / "extra/views.sql")

    return run


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    """A tenant with three deals of one account in two currencies, one of them won, and one of another account."""
    tenant = add_tenant(pg)
    deals = {"a": ("EUR", 0.2), "b": ("USD", 0.6), "c": ("EUR", 1.0)}
    for name, (currency, completeness) in deals.items():
        of_extraction = {"meddic_completeness": completeness, "version": 4, "confidence": 0.5}
        touched_by = {"source_interaction_id": "1e000000-0000-4000-8000-000000000001"}
        properties = {"name": name, "account_id": str(ACCOUNT), "currency": currency}
        add_version(graph, tenant, add_deal(graph, tenant, **properties, **of_extraction, **touched_by))
    add_deal(graph, tenant, name="d", account_id=str(SECOND))
    assert sync(pg, tenant).status == "ok"
    pg.execute(  # what the application writes: by default the sync does not
        "UPDATE opportunities AS o SET stage = own.stage, amount = own.amount, close_date = own.close_date::date"
        " FROM (VALUES ('a', 'proposal', 100, NULL), ('b', 'proposal', 30, '2027-01-31'),"
        " ('c', 'closed_won', 7, '2026-01-31'), ('d', NULL, 1, NULL)) AS own (name, stage, amount, close_date)"
        " WHERE o.opportunity_name = own.name"
    )
    return tenant


@pytest.fixture
def other(pg: Connection, graph: Graph) -> uuid.UUID:
    """Another tenant, with a deal of an account that has the same id."""
    other = add_tenant(pg)
    add_version(graph, other, add_deal(graph, other, name="theirs", account_id=str(ACCOUNT)))
    assert sync(pg, other).status == "ok"
    return other


@pytest.fixture
def reader(database: Database, pg: Connection, install: Install) -> Iterator[Connection]:
    """A role that may read the views and the tables, and bypasses no row-level security."""
    install(schema="reports")
    with role(
        pg,
        fresh("reader"),
        "USAGE ON SCHEMA reports",
        "SELECT ON ALL TABLES IN SCHEMA reports",
        "SELECT ON opportunities, deal_versions, interaction_links",
    ) as name:
        session = database.connect(name)
        yield session
        session.close()


def bind(session: Connection, tenant: uuid.UUID) -> None:
    session.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])


def read(session: Connection, query: LiteralString) -> list[tuple[Any, ...]]:
    return session.execute(query).fetchall()


# What the views say


def test_the_pipeline_has_what_is_not_closed(reader: Connection, tenant: uuid.UUID) -> None:
    bind(reader, tenant)
    columns: LiteralString = "opportunity_name, amount, currency, meddic_completeness, extraction_version"
    assert read(reader, f"SELECT {columns} FROM reports.opportunity_pipeline ORDER BY 1") == [
        ("a", 100, "EUR", Decimal("0.20"), 4),
        ("b", 30, "USD", Decimal("0.60"), 4),
        ("d", 1, "EUR", Decimal("0.00"), None),
    ]


def test_a_row_that_no_deal_became_has_no_version_of_an_extraction(
    pg: Connection, reader: Connection, tenant: uuid.UUID
) -> None:
    """The migration's column has the default 1, on every row."""
    made = insert(pg, "opportunities", tenant_id=tenant, opportunity_name="by hand")
    pg.execute("UPDATE opportunities SET extraction_version = DEFAULT WHERE id = %s", [made])
    assert one(pg, "SELECT extraction_version FROM opportunities WHERE id = %s", made) == 1
    bind(reader, tenant)
    query: LiteralString = "SELECT extraction_version FROM reports.opportunity_pipeline WHERE opportunity_id = %s"
    assert one(reader, query, made) is None


def test_the_health_of_an_account(pg: Connection, reader: Connection, tenant: uuid.UUID) -> None:
    insert(pg, "opportunities", tenant_id=tenant, opportunity_name="by hand", account_id=ACCOUNT)
    insert(pg, "opportunities", tenant_id=tenant, opportunity_name="of no account")
    bind(reader, tenant)
    columns: LiteralString = (
        "account_id, opportunities, open_opportunities, extracted_deals, avg_meddic_completeness,"
        " avg_extraction_confidence, deal_versions, latest_deal_version_at IS NOT NULL, linked_interactions"
    )
    assert read(reader, f"SELECT {columns} FROM reports.rpt_account_health ORDER BY 1") == [
        (ACCOUNT, 4, 3, 3, Decimal("0.60"), Decimal("0.50"), 3, True, 1),  # one interaction, linked to three deals
        (SECOND, 1, 1, 1, Decimal("0.00"), None, 0, False, 0),
    ]


def test_an_account_from_all_sides_without_adding_up_currencies(reader: Connection, tenant: uuid.UUID) -> None:
    bind(reader, tenant)
    columns: LiteralString = (
        "account_id, open_opportunities, won_opportunities, lost_opportunities, open_amounts,"
        " next_close_date::text, meddic_completeness, lowest_meddic_completeness"
    )
    assert read(reader, f"SELECT {columns} FROM reports.account_360 ORDER BY 1") == [
        (ACCOUNT, 2, 1, 0, {"EUR": 100, "USD": 30}, "2027-01-31", Decimal("0.40"), Decimal("0.20")),
        (SECOND, 1, 0, 0, {"EUR": 1}, None, Decimal("0.00"), Decimal("0.00")),
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_each_tenant_sees_its_own(view: str, reader: Connection, tenant: uuid.UUID, other: uuid.UUID) -> None:
    query = sql.SQL("SELECT DISTINCT tenant_id FROM {}").format(sql.Identifier("reports", view))
    for bound in (tenant, other, tenant):
        bind(reader, bound)
        assert reader.execute(query).fetchall() == [(bound,)]
    bind(reader, uuid.uuid4())
    assert reader.execute(query).fetchall() == []


def test_of_two_tenants_that_share_an_accounts_id_none_counts_the_others(
    pg: Connection, reader: Connection, tenant: uuid.UUID, other: uuid.UUID
) -> None:
    """Whoever bypasses row-level security sees both, apart."""
    query: LiteralString = (
        "SELECT tenant_id, opportunities, deal_versions, linked_interactions FROM reports.rpt_account_health"
        " WHERE account_id = 'acc00000-0000-4000-8000-000000000001'"
    )
    assert set(read(pg, query)) == {(tenant, 3, 3, 1), (other, 1, 1, 0)}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_gives_no_right_on_the_tables(
    view: str, database: Database, pg: Connection, install: Install, tenant: uuid.UUID
) -> None:
    install(schema="reports")
    with (
        role(pg, fresh("stranger"), "USAGE ON SCHEMA reports", "SELECT ON ALL TABLES IN SCHEMA reports") as stranger,
        database.connect(stranger) as session,
    ):
        bind(session, tenant)
        with pytest.raises(errors.InsufficientPrivilege, match="opportunities"):
            session.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier("reports", view)))


# What is there


def test_it_says_what_it_made_and_again_changes_nothing(pg: Connection, install: Install) -> None:
    assert install().splitlines() == [f"public.{view}: made" for view in VIEWS]
    there = read(pg, "SELECT oid, xmin::text FROM pg_class WHERE relkind = 'v' ORDER BY oid")
    assert install().splitlines() == [f"public.{view}: is there, unchanged" for view in VIEWS]
    assert read(pg, "SELECT oid, xmin::text FROM pg_class WHERE relkind = 'v' ORDER BY oid") == there


def test_a_view_of_that_name_stays_and_the_columns_to_add_are_printed(pg: Connection, install: Install) -> None:
    pg.execute(
        "CREATE VIEW opportunity_pipeline AS SELECT id, stage AS phase, meddic_completeness FROM opportunities;"
        "CREATE MATERIALIZED VIEW account_360 AS SELECT account_id FROM opportunities"
    )
    definition: LiteralString = "SELECT pg_get_viewdef(%s::regclass)"
    before = [one(pg, definition, view) for view in ("opportunity_pipeline", "account_360")]
    printed = install().splitlines()
    assert [one(pg, definition, view) for view in ("opportunity_pipeline", "account_360")] == before
    assert [line.split("|")[:3] for line in printed if "|" in line] == [
        ["public.account_360", "meddic_completeness", "numeric"],
        ["public.account_360", "lowest_meddic_completeness", "numeric"],
        ["public.opportunity_pipeline", "extraction_version", "integer"],
        ["public.opportunity_pipeline", "extraction_confidence", "numeric(3,2)"],
    ]
    assert [line for line in printed if "|" not in line] == [
        "public.account_360: is there, unchanged",
        "public.opportunity_pipeline: is there, unchanged",
        "public.rpt_account_health: made",
    ]


def test_a_definition_that_is_printed_is_what_the_view_has(pg: Connection, install: Install) -> None:
    """Those that are expressions of one table can be put into a view as they stand."""
    pg.execute("CREATE VIEW opportunity_pipeline AS SELECT id FROM opportunities")
    definitions = [line.split("|")[1::2] for line in install().splitlines() if "|" in line]
    assert [name for name, _ in definitions] == ["meddic_completeness", "extraction_version", "extraction_confidence"]
    added = ", ".join(f"{definition} AS {name}" for name, definition in definitions)
    pg.execute(f"CREATE OR REPLACE VIEW opportunity_pipeline AS SELECT id, {added} FROM opportunities".encode())
    assert not [line for line in install().splitlines() if "|" in line]


def test_schemas_with_odd_names(pg: Connection, install: Install, tenant: uuid.UUID) -> None:
    pg.execute('CREATE SCHEMA "The ""App"; ALTER TABLE opportunities SET SCHEMA "The ""App"')
    pg.execute('ALTER TABLE deal_versions SET SCHEMA "The ""App"; ALTER TABLE interaction_links SET SCHEMA "The ""App"')
    printed = install(schema='it\'s; "mine"', application='The "App')
    assert [line.rpartition(".")[2] for line in printed.splitlines()] == [f"{view}: made" for view in VIEWS]
    assert one(pg, 'SELECT count(*) FROM "it\'s; ""mine""".opportunity_pipeline') == 3


def test_what_fails_leaves_nothing_behind(pg: Connection, install: Install) -> None:
    pg.execute("ALTER TABLE interaction_links RENAME TO elsewhere")
    with pytest.raises(Exception, match="interaction_links"):
        install(schema="reports")
    assert one(pg, "SELECT to_regnamespace('reports')") is None
