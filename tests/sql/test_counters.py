"""Flows in: tenants alone and beside others, and statistics in each state that a load meets.
Flows out: that a run reads as many rows: docs/internals/run.md, "Plans that must not depend on luck".
"""

import uuid
from collections.abc import Callable

import pytest
from support.counters import change, graph_of, rows_of, rows_read
from support.database import Connection
from support.graph import Graph
from support.sync import add_tenant, sync

DEALS, CHANGED = 300, 10
OTHERS = {"alone": 10, "beside others": 10 * DEALS}

TABLES = ("opportunities", "deal_versions", "interaction_links")
#: A VACUUM while the rows are not committed.
NO_ROWS = (
    "UPDATE pg_class SET reltuples = 0, relpages = greatest(relpages, 10) WHERE oid IN"
    " (SELECT unnest(%(tables)s::regclass[]) UNION"
    " SELECT indexrelid FROM pg_index WHERE indrelid = ANY (%(tables)s::regclass[]))"
)


def nothing(pg: Connection, writer: Connection, graph: Graph) -> None:
    pass


def analysed(pg: Connection, writer: Connection, graph: Graph) -> None:
    pg.execute("VACUUM ANALYZE")


def reltuples_0(pg: Connection, writer: Connection, graph: Graph) -> None:
    pg.execute(NO_ROWS, {"tables": list(TABLES)})


def synced_before(pg: Connection, writer: Connection, graph: Graph) -> None:
    """The session has plans of its own, and of foreign keys, which were made while the tables were empty."""
    tenant = add_tenant(pg)
    graph_of(graph, tenant, 1)
    writer.execute("SET plan_cache_mode = force_generic_plan")
    for mode in ("full", "incremental", "full"):
        sync(writer, tenant, mode=mode)


Step = Callable[[Connection, Connection, Graph], None]
#: By name, what happens before the rows of others are there, and after it.
STATES: dict[str, tuple[Step, Step]] = {
    "never analysed": (nothing, nothing),
    "analysed while empty": (analysed, nothing),
    "reltuples 0": (nothing, reltuples_0),
    "unknown tenant": (nothing, analysed),
    "stale plans": (synced_before, nothing),
}

#: Rows read by each kind of run: for a deal that was staged, or altogether.
READ = {"first load": 11, "unchanged": 8, "nothing changed": 4, "changed": 11.5}


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("state", STATES)
def test_a_run_reads_as_many_rows_a_deal_whoever_else_is_there_and_whatever_the_statistics_say(
    state: str, others: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("CREATE INDEX ON opportunities (tenant_id)")
    pg.execute("CREATE INDEX ON interaction_links (tenant_id)")
    for table in TABLES:
        pg.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
    before, after = STATES[state]
    before(pg, writer, graph)
    rows_of(pg, add_tenant(pg), OTHERS[others])
    after(pg, writer, graph)
    graph_of(graph, tenant, DEALS)
    writer.execute(f"SET deal_sync.batch_rows = {DEALS // 3}".encode())

    found = {}
    for kind, mode in (
        ("first load", "full"), ("unchanged", "full"), ("nothing changed", "incremental"), ("changed", "incremental")
    ):  # fmt: skip
        if kind == "changed":
            change(graph, tenant, CHANGED)
        read = rows_read(pg, writer)
        run = sync(writer, tenant, mode=mode)
        found[kind] = (rows_read(pg, writer) - read) / max(1, run.deals_read)
        assert run.deals_read == {"nothing changed": 0, "changed": CHANGED}.get(kind, DEALS)
    assert found == pytest.approx(READ, rel=0.04)
