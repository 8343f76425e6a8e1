"""In: tables that an old service still fills. Out: the steps of how-to/roll-out.md beside it, and the way back."""

import re
import uuid
from typing import Any, LiteralString

from support.database import Connection
from support.documents import PAGES
from support.graph import Graph
from support.sync import add_deal, add_tenant, add_version, one, sync

TAKING_OVER = PAGES["how-to/take-over-rows.md"]
ROWS: LiteralString = "SELECT t::text FROM opportunities AS t ORDER BY id"


def way_back() -> bytes:
    """The statement of the page, as it stands."""
    (statement,) = re.findall(r"^UPDATE opportunities SET deal_status .*;$", TAKING_OVER, re.M)
    return str(statement).encode()


def missing_and_differing(pg: Connection, tenant: uuid.UUID) -> tuple[Any, ...]:
    query: LiteralString = "SELECT sum(missing)::int, sum(differing)::int FROM deal_sync.reconcile(%s)"
    [counts] = pg.execute(query, [tenant]).fetchall()
    return counts


def test_the_roll_out_beside_a_dual_write_and_the_way_back(pg: Connection, graph: Graph) -> None:
    first, second = add_tenant(pg), add_tenant(pg)
    deals = [add_deal(graph, first, opportunity_summary=f"summary {number}") for number in range(3)]
    add_version(graph, first, deals[0])
    add_deal(graph, second)
    pg.execute(
        "INSERT INTO opportunities (id, tenant_id, graph_opportunity_id, updated_at) VALUES (%s, %s, %s, now())",
        [deals[0], first, deals[0]],
    )

    # 2. a dry run and the differences write nothing
    before = pg.execute(ROWS).fetchall()
    dry = sync(pg, first, dry_run=True)
    assert (dry.deals_inserted, dry.deals_updated, dry.versions_inserted) == (2, 1, 1)
    assert one(pg, "SELECT count(*) FROM deal_sync.differences(%s)", first) > 3
    assert pg.execute(ROWS).fetchall() == before

    # 3. one tenant, 4. all of them
    sync(pg, first, mode="incremental")
    assert one(pg, "SELECT count(*) FROM opportunities WHERE tenant_id = %s", second) == 0
    pg.execute("CALL deal_sync.sync_all()")
    assert one(pg, "SELECT count(*) FROM opportunities WHERE tenant_id = %s", second) == 1

    # 5. until it stops, the old service writes beside it, and not all it should; 6. replay
    pg.execute("UPDATE opportunities SET latest_ai_summary = 'of the old service' WHERE id = %s", [deals[1]])
    pg.execute("DELETE FROM opportunities WHERE id = %s", [deals[2]])
    assert missing_and_differing(pg, first) == (1, 1)
    run = pg.execute("SELECT status, deals_inserted, deals_updated FROM deal_sync.replay(%s)", [first]).fetchone()
    assert run == ("ok", 1, 1)
    assert missing_and_differing(pg, first) == (0, 0)

    # and back: no row needs undoing, and one statement gives those that the sync inserted the service's status
    inserted: LiteralString = "SELECT count(*) FROM opportunities WHERE deal_status IS NULL"
    assert one(pg, inserted) > 0
    pg.execute(way_back())
    assert one(pg, inserted) == 0
    rows = pg.execute(ROWS).fetchall()
    mapping = one(pg, "SELECT deal_sync.mapping_ddl()")
    pg.execute("DROP EXTENSION deal_sync CASCADE")
    assert pg.execute(ROWS).fetchall() == rows
    assert "CREATE FOREIGN TABLE neo4j.deals" in mapping
    assert one(pg, "SELECT count(*) FROM deal_versions") == 1
