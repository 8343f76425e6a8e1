"""Flows in: neo4j_deals.doctor.application, on unsuitable tables, policies and roles. Flows out: what it names, with a
hint that works.
"""

import re
import uuid

import pytest
from environment.servers import Instance
from environment.state import CHECKOUT
from psycopg import errors, sql
from support.database import Connection, Database, execute
from support.doctor import doctor
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, one, sync


def test_a_target_table_that_is_missing_is_named(pg: Connection, servers: Instance, database: Database) -> None:
    pg.execute("DROP TABLE deal_versions")
    checks = doctor(pg)
    assert "public.deal_versions" in checks["target tables"].detail
    assert "Run the migration" in str(checks["target tables"].hint)
    assert checks["target columns"].detail == checks["policies"].detail == "not checked: target tables"
    servers.psql(
        database.name, "-c", "SET client_min_messages = warning", "-f", CHECKOUT / "sql/migration/deal_sync.sql"
    )
    assert doctor(pg)["target tables"].ok


def test_a_target_column_that_is_missing_is_named(pg: Connection) -> None:
    pg.execute("ALTER TABLE opportunities DROP COLUMN deal_ref")
    checks = doctor(pg)
    assert 'column "deal_ref"' in checks["target columns"].detail
    (statement,) = re.findall(r"ALTER FOREIGN TABLE .*?;", str(checks["target columns"].hint))
    execute(pg, statement)
    assert doctor(pg)["target columns"].ok


def test_a_target_of_another_type_is_named(pg: Connection) -> None:
    pg.execute("ALTER TABLE opportunities DROP COLUMN extraction_embedding, ADD COLUMN extraction_embedding vector(3)")
    check = doctor(pg)["target types"]
    assert check.ok is False
    assert check.detail.endswith('but its target "extraction_embedding" requires public.vector(3)')
    execute(pg, check.hint)
    assert doctor(pg)["target types"].ok


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("opportunities_graph_opportunity_id_key", "of public.opportunities by graph_opportunity_id"),
        ("deal_versions_tenant_id_opportunity_id_version_number_key", "by opportunity_id and version_number"),
        ("interaction_links_tenant_id_interaction_id_idx", "of public.interaction_links by interaction_id"),
    ],
)
def test_a_look_up_without_an_index_is_named(pg: Connection, index: str, said: str) -> None:
    assert doctor(pg)["target indexes"].ok
    pg.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
    check = doctor(pg)["target indexes"]
    assert check.ok is False
    assert said in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["target indexes"].ok


def test_a_partial_index_serves_no_look_up(pg: Connection) -> None:
    pg.execute("DROP INDEX interaction_links_tenant_id_interaction_id_idx")
    pg.execute("CREATE INDEX ON interaction_links (interaction_id) WHERE entity_type = 'opportunity'")
    pg.execute("CREATE INDEX ON interaction_links (entity_id, interaction_id)")
    assert doctor(pg)["target indexes"].ok is False
    pg.execute("CREATE INDEX ON interaction_links (interaction_id, entity_id)")
    assert doctor(pg)["target indexes"].ok


def test_a_policy_that_was_fixed_no_longer_raises_and_still_separates_tenants(
    pg: Connection, writer: Connection, tenant: uuid.UUID, graph: Graph
) -> None:
    add_deal(graph, tenant)
    assert sync(writer, tenant).status == "ok"
    writer.execute("SET app.tenant_id = ''")
    with pytest.raises(errors.InvalidTextRepresentation):
        writer.execute("SELECT FROM opportunities")
    execute(pg, doctor(pg)["policies"].hint)
    assert one(writer, "SELECT count(*) FROM opportunities") == 0
    writer.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
    assert one(writer, "SELECT count(*) FROM opportunities") == 1


def test_a_role_that_bypasses_row_level_security_is_named(pg: Connection, role: str) -> None:
    pg.execute("ALTER ROLE doctors_patient BYPASSRLS")
    check = doctor(pg, role)["role"]
    assert check.ok is False
    execute(pg, check.hint)
    assert doctor(pg, role)["role"].ok


def test_a_superuser_is_referred_to_the_role_that_runs_the_sync(pg: Connection) -> None:
    check = doctor(pg)["role"]
    assert check.ok is None
    assert "deal_sync.doctor('app_writer')" in str(check.hint)


def test_a_role_that_has_nothing_yet_gets_everything_by_the_hints(
    pg: Connection, database: Database, graph: Graph, role: str
) -> None:
    checks = doctor(pg, role)
    assert checks["rights on tables"].ok is checks["rights on sync"].ok is False
    execute(pg, checks["rights on tables"].hint)
    execute(pg, checks["rights on sync"].hint)
    checks = doctor(database.connect(role))
    assert checks["rights on tables"].ok
    assert checks["rights on sync"].ok


def test_a_role_is_quoted_once(pg: Connection) -> None:
    with role(pg, f'R "x" {fresh("odd")}') as name:
        checks = doctor(pg, sql.Identifier(name).as_string())
        assert checks["role"].detail == f'row-level security applies to "{name}"'
        assert checks["rights on sync"].detail.startswith(f'"{name}" may not run')
        assert checks["rights on tables"].detail.startswith(f'"{name}" lacks ')
        assert f'by role "{name}"' in checks["row security"].detail or checks["row security"].ok
        execute(pg, checks["rights on sync"].hint)
