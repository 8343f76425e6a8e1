"""Flows in: deals that must not come back, a tenant who left. Flows out: no record of them; application rows stay."""

import uuid
from typing import LiteralString

import psycopg
import pytest
from support.database import Connection
from support.graph import Graph
from support.sync import add_deal, add_tenant, add_version, one, rejects, sync

DEALS: LiteralString = "SELECT count(*) FROM opportunities WHERE tenant_id = %s"
VERSIONS: LiteralString = "SELECT count(*) FROM deal_versions WHERE tenant_id = %s"
LINKS: LiteralString = "SELECT count(*) FROM interaction_links WHERE tenant_id = %s"
FORGET: LiteralString = "SELECT deal_sync.forget(%s, %s)"


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    return add_tenant(pg)


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_a_barred_deal_does_not_come_back_nor_its_versions_and_links(
    pg: Connection, graph: Graph, tenant: uuid.UUID, mode: str
) -> None:
    kept, gone = (add_deal(graph, tenant, source_interaction_id=str(uuid.uuid4())) for _ in range(2))
    add_version(graph, tenant, kept), add_version(graph, tenant, gone)
    sync(pg, tenant)
    pg.execute(FORGET, [tenant, gone])
    assert [one(pg, query, tenant) for query in (DEALS, VERSIONS)] == [2, 2]  # the application's rows stay
    pg.execute("DELETE FROM deal_versions WHERE opportunity_id = %s", [gone])
    pg.execute("DELETE FROM interaction_links WHERE entity_id = %s", [gone])
    pg.execute("DELETE FROM opportunities WHERE id = %s", [gone])
    links = one(pg, LINKS, tenant)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime(), d.opportunity_id = toUpper(d.opportunity_id)")
    assert sync(pg, tenant, mode=mode).status == "ok"
    assert [one(pg, query, tenant) for query in (DEALS, VERSIONS, LINKS)] == [1, 1, links]
    assert pg.execute("SELECT tenant_id, graph_id FROM deal_sync.barred").fetchall() == [(tenant, gone)]


def test_the_rejects_of_a_barred_deal_and_its_versions_go_those_of_others_stay(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deals = [add_deal(graph, tenant, closed_at="soon") for _ in range(2)]
    for deal in deals:
        add_version(graph, tenant, deal)
        add_version(graph, tenant, deal)  # the number is taken
    add_version(graph, tenant, deals[0], version_id=str(uuid.uuid4()), version=None)
    sync(pg, tenant)
    before = rejects(pg, tenant)
    pg.execute(FORGET, [tenant, deals[0]])
    after = rejects(pg, tenant)
    assert {reject.kind for reject in after} == {"deal", "version"}
    assert len(before) == 2 * len(after) + 1  # the note on the version without a number went, too
    sync(pg, tenant)
    assert [reject.graph_id for reject in rejects(pg, tenant)] == [reject.graph_id for reject in after]


def test_a_backfill_that_has_passed_the_deal_by_starts_over_when_the_bar_is_lifted(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    first, *_ = sorted(add_deal(graph, tenant) for _ in range(3))
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime() - duration('P2D')")
    pg.execute(FORGET, [tenant, first])
    for _ in range(2):  # as one that was killed then
        pg.execute(
            "SELECT _deal_sync.sync_tenant(%s, ROW('deal_sync.backfill', 'backfill', false, false, NULL, 1, NULL)"
            "::_deal_sync.request, _deal_sync.caller())",
            [tenant],
        )
    assert one(pg, DEALS, tenant) == 1
    assert one(pg, "SELECT deal_sync.unbar(%s, %s)", tenant, first)
    pg.execute("CALL deal_sync.backfill(%s, 1)", [tenant])
    assert one(pg, DEALS, tenant) == 3


def test_where_the_graph_is_away_the_deal_is_barred_all_the_same(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, closed_at="soon")
    sync(pg, tenant)
    server = one(pg, "SELECT srvname FROM pg_foreign_server")
    uri = one(
        pg, "SELECT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE option_name = 'uri'"
    )
    pg.execute(f"ALTER SERVER {server} OPTIONS (SET uri 'bolt://127.0.0.1:1')".encode())
    said: list[str | None] = []
    pg.add_notice_handler(lambda notice: said.append(notice.message_primary))
    pg.execute(FORGET, [tenant, deal])
    assert said == [f"could not read the versions of deal {deal} from the graph"]
    assert rejects(pg, tenant) == []
    pg.execute(f"ALTER SERVER {server} OPTIONS (SET uri '{uri}')".encode())
    pg.execute("DELETE FROM opportunities WHERE id = %s", [deal])
    sync(pg, tenant)
    assert one(pg, DEALS, tenant) == 0


def test_a_bar_is_of_one_tenant_and_can_be_lifted(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    deal, other = add_deal(graph, tenant), add_tenant(pg)
    pg.execute(FORGET, [other, deal])
    pg.execute(FORGET, [tenant, deal])
    pg.execute(FORGET, [tenant, deal])  # once more: nothing changes
    sync(pg, tenant)
    assert one(pg, DEALS, tenant) == 0
    assert one(pg, "SELECT deal_sync.unbar(%s, %s)", tenant, deal)
    assert not one(pg, "SELECT deal_sync.unbar(%s, %s)", tenant, deal)
    assert sync(pg, tenant, mode="incremental").mode == "full"  # an incremental one would not see it
    assert one(pg, DEALS, tenant) == 1
    assert one(pg, "SELECT count(*) FROM deal_sync.barred WHERE tenant_id = %s", other) == 1


def test_of_a_tenant_who_left_no_record_stays_but_its_bars(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    other, records = add_tenant(pg), ("runs", "rejects", "watermarks")
    for owner in (tenant, other):
        add_deal(graph, owner, closed_at="soon")
        sync(pg, owner)
    barred = add_deal(graph, tenant)
    pg.execute(FORGET, [tenant, barred])
    pg.execute("SELECT deal_sync.forget(%s)", [tenant])
    for table in records:
        owners = pg.execute(f"SELECT DISTINCT tenant_id FROM deal_sync.{table}".encode()).fetchall()
        assert owners == [(other,)], table
    assert one(pg, DEALS, tenant) == 1
    assert one(pg, "SELECT graph_id FROM deal_sync.barred") == barred


def test_a_graph_id_that_is_null_costs_nothing(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    sync(pg, tenant)
    nobody = uuid.UUID(int=0)
    for function, named in (("forget", tenant), ("unbar", tenant), ("forget", None), ("unbar", None)):
        with pytest.raises(psycopg.errors.NullValueNotAllowed, match="a tenant and the graph id of a deal") as raised:
            pg.execute(f"SELECT deal_sync.{function}(%s, %s)".encode(), [named, None])
        hint = str(raised.value.diag.message_hint)
        assert hint == f"SELECT deal_sync.{function}('{named or nobody}', '{nobody}');"
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 1


def test_forget_waits_for_a_run_no_longer_than_the_lock_timeout(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant)
    with writer.transaction():
        sync(writer, tenant)
        pg.execute("SET deal_sync.lock_timeout = '50ms'")
        with pytest.raises(
            psycopg.errors.LockNotAvailable, match=f"tenant {tenant} is being synced by another session"
        ) as raised:
            pg.execute(FORGET, [tenant, deal])
        assert "Try again when that run has ended" in str(raised.value.diag.message_hint)
    pg.execute(FORGET, [tenant, deal])
    assert one(pg, "SELECT graph_id FROM deal_sync.barred") == deal


@pytest.mark.parametrize(
    "call",
    [
        "deal_sync.forget(gen_random_uuid())",
        "deal_sync.unbar(gen_random_uuid(), gen_random_uuid())",
        "_deal_sync.remove_tenant(gen_random_uuid())",
        "_deal_sync.bar(gen_random_uuid(), gen_random_uuid(), '{}')",
        "_deal_sync.remove_bar(gen_random_uuid(), gen_random_uuid())",
    ],
)
def test_the_sync_s_role_may_not(writer: Connection, call: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(f"SELECT {call}".encode())
    assert one(writer, "SELECT count(*) FROM deal_sync.barred") == 0


def test_app_tenant_id_must_name_the_tenant(pg: Connection, tenant: uuid.UUID) -> None:
    pg.execute("SELECT set_config('app.tenant_id', %s, false)", [str(uuid.uuid4())])
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="a tenant other than"):
        pg.execute("SELECT deal_sync.forget(%s)", [tenant])
