"""Flows in: random changes of a graph, of an application's rows and of the mapping, with syncs between them.
Flows out: that after every sync the tables, the rejects and the counts are those of the model in support/model.py.

DEAL_SYNC_SEQUENCES says how many sequences are tried. A failing one is printed as the calls that it consists of.
"""

import copy
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from psycopg import sql
from psycopg.types.json import Jsonb
from support.database import Connection, Database
from support.graph import Graph
from support.model import Counts, Gate, Node, Reject, Sync, Tables, same
from support.model_changes import (
    DEAL_CHANGES,
    DEALS,
    EDITS,
    FOREIGN_SPELLINGS,
    FORMS,
    GATES,
    POINT,
    POLICY_COLUMNS,
    SESSIONS,
    TENANT_SPELLINGS,
    TENANTS,
    VERSION_CHANGES,
    VERSION_FORMS,
    VERSIONS,
    A,
    B,
    Change,
    spellings,
)
from support.model_columns import OPPORTUNITY_COLUMNS, VERSION_COLUMNS, Column, Row, Vector, deal_columns

SEQUENCES = int(os.environ.get("DEAL_SYNC_SEQUENCES", "20"))
STEPS = 30


@dataclass
class World:
    """The servers of the test run: one database and one graph for all sequences."""

    pg: Connection
    callers: Mapping[str, Connection]
    graph: Graph
    nodes: list[Node] = field(default_factory=list)
    tables: Tables = field(default_factory=Tables)
    columns: dict[str, Column] = field(default_factory=deal_columns)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)

    def reset(self) -> None:
        """Back to an empty graph, empty tables, the default mapping and an application without gates."""
        self.graph.run("MATCH (n) DETACH DELETE n")
        for name in list(self.gates):
            self.close_gate(name)
        self.pg.execute("TRUNCATE opportunities, deal_versions, interaction_links, forecast_jobs CASCADE")
        self.pg.execute("DELETE FROM deal_sync.rejects")
        self.pg.execute("DELETE FROM deal_sync.runs")
        for name, changed in self.options.items():
            for option, value in changed.items():
                self._alter(name, option, value)
        self.nodes, self.tables, self.columns, self.options = [], Tables(), deal_columns(), {}

    # The graph

    def write(self, node: Node, properties: dict[str, Any]) -> None:
        """Write all properties of a node; one without an element id is created."""
        node.properties = {name: value for name, value in properties.items() if value is not None}
        written = {name: v.property() if isinstance(v, Vector) else v for name, v in node.properties.items()}
        if node.element_id:
            self.graph.run("MATCH (n) WHERE elementId(n) = $id SET n = $written", id=node.element_id, written=written)
        else:
            (row,) = self.graph.run(
                f"CREATE (n:{node.label}) SET n = $written RETURN elementId(n) AS id", written=written
            )
            node.element_id = row["id"]
            self.nodes.append(node)
        node.properties = {name: v.property() if isinstance(v, Vector) else v for name, v in node.properties.items()}

    def delete(self, node: Node) -> None:
        self.graph.run("MATCH (n) WHERE elementId(n) = $id DETACH DELETE n", id=node.element_id)
        self.nodes.remove(node)

    # The mapping

    def alter(self, name: str, option: str, value: str) -> None:
        before = self._alter(name, option, value)
        self.options.setdefault(name, {}).setdefault(option, before)
        setattr(self.columns[name], option, value)

    def _alter(self, name: str, option: str, value: str) -> str:
        """Set an option of a foreign column, '' drops it; gives what it was before."""
        row = self.pg.execute(
            "SELECT (SELECT option_value FROM pg_options_to_table(attfdwoptions) WHERE option_name = %s)"
            " FROM pg_attribute WHERE attrelid = 'neo4j.deals'::regclass AND attname = %s",
            [option, name],
        ).fetchone()
        assert row is not None
        before = str(row[0] or "")
        if before or value:
            verb = "DROP" if not value else "SET" if before else "ADD"
            said = sql.SQL("{} {} {}").format(
                sql.SQL(verb), sql.Identifier(option), sql.Literal(value) if value else sql.SQL("")
            )
            alter = sql.SQL("ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN {} OPTIONS ({})")
            self.pg.execute(alter.format(sql.Identifier(name), said))
        return before

    # The application

    def open_gate(self, name: str) -> None:
        self.pg.execute(GATES[name].create.encode())
        self.gates[name] = GATES[name]

    def close_gate(self, name: str) -> None:
        self.pg.execute(self.gates.pop(name).drop.encode())

    def insert(self, table: str, row: Row) -> None:
        self.pg.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(sql.Placeholder() for _ in row),
            ),
            [adapted(value) for value in row.values()],
        )

    # What is there

    def actual(self) -> Tables:
        opportunities = self._rows("opportunities", OPPORTUNITY_COLUMNS)
        versions = self._rows("deal_versions", VERSION_COLUMNS)
        links = self.pg.execute(
            "SELECT tenant_id, interaction_id, entity_id FROM interaction_links WHERE entity_type = 'opportunity'"
        )
        rejects = self.pg.execute(
            "SELECT tenant_id, kind, level, element_id, graph_id, column_name, left(sqlstate, 2) FROM deal_sync.rejects"
        )
        return Tables(
            {row["id"]: row for row in opportunities},
            {row["id"]: row for row in versions},
            [(row[0], row[1], row[2]) for row in links],
            [Reject(row[0], row[1], row[2], row[3], row[4], frozenset([(row[5], row[6])])) for row in rejects],
        )

    def _rows(self, table: str, columns: tuple[str, ...]) -> list[Row]:
        expressions = [
            sql.SQL("md5(vector_send({}))" if "embedding" in column else "{}").format(sql.Identifier(column))
            for column in columns
        ]
        query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(expressions), sql.Identifier(table))
        return [dict(zip(columns, row, strict=True)) for row in self.pg.execute(query)]


def adapted(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict | list) else value


def differences(expected: Tables, actual: Tables) -> list[str]:
    """What is not as the model has it, in words."""
    found = []
    for table in ("opportunities", "versions"):
        should, is_ = getattr(expected, table), getattr(actual, table)
        for key in sorted(should.keys() | is_.keys()):
            if key not in is_ or key not in should:
                found.append(f"{table} {key}: {'missing' if key in should else 'unexpected'}")
                continue
            for column, value in is_[key].items():
                if not same(should[key][column], value):
                    found.append(f"{table} {key}: {column} is {value!r}, should be {should[key][column]!r}")
    found += [f"link {link}: missing" for link in sorted(set(expected.links) - set(actual.links))]
    found += [f"link {link}: unexpected" for link in sorted(set(actual.links) - set(expected.links))]
    if len(actual.links) != len(set(actual.links)):
        found.append("a link is there twice")
    unexplained = list(actual.rejects)
    for reject in expected.rejects:
        match = next((other for other in unexplained if reject.explains(other)), None)
        if match:
            unexplained.remove(match)
        else:
            found.append(f"{reject}: missing")
    found += [f"{reject}: unexpected" for reject in unexplained]
    return found


DEAL_FORM = st.sampled_from(sorted(FORMS, reverse=True))
VERSION_FORM = st.sampled_from(sorted(VERSION_FORMS, reverse=True))
TENANT = st.sampled_from([A, A, A, B])
NUMBER = st.sampled_from([1, 2, 2.0])


class Machine(RuleBasedStateMachine):
    """A sequence. Rules take plain values only, so that a failing sequence is printed as it can be run again."""

    world: ClassVar[World]

    @initialize(
        deals=st.lists(st.tuples(TENANT, st.sampled_from(DEALS), DEAL_FORM), min_size=2, max_size=5),
        versions=st.lists(
            st.tuples(TENANT, st.sampled_from(VERSIONS), st.sampled_from(DEALS), NUMBER), min_size=1, max_size=5
        ),
    )
    def start(
        self, deals: list[tuple[uuid.UUID, uuid.UUID, str]], versions: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID, int]]
    ) -> None:
        self.world.reset()
        for tenant, deal, form in deals:
            self.create_deal(str(tenant), deal, form, [])
        for tenant, version, deal, number in versions:
            self.create_version(str(tenant), version, deal, number, "snapshot", [])
        self.sync_plainly(A)

    @property
    def nodes(self) -> list[Node]:
        return self.world.nodes

    def labelled(self, label: str) -> list[Node]:
        return [node for node in self.nodes if node.label == label]

    @property
    def rows(self) -> list[Row]:
        return list(self.world.tables.opportunities.values())

    # The graph

    @rule(
        tenant=st.sampled_from(TENANT_SPELLINGS),
        deal=st.sampled_from(DEALS),
        form=DEAL_FORM,
        changes=st.lists(DEAL_CHANGES, max_size=8),
    )
    def create_deal(self, tenant: str, deal: uuid.UUID, form: str, changes: list[Change]) -> None:
        keys = {"tenant_id": tenant, "opportunity_id": str(deal)}
        self.world.write(Node("", "Deal", {}), FORMS[form] | keys | dict(changes))

    @rule(
        tenant=st.sampled_from(TENANT_SPELLINGS + FOREIGN_SPELLINGS),
        key=st.sampled_from([*spellings(DEALS[0]), "no uuid", "", 42, None, [str(DEALS[0])], POINT]),
        form=DEAL_FORM,
    )
    def create_deal_with_a_strange_key(self, tenant: Any, key: Any, form: str) -> None:
        self.world.write(Node("", "Deal", {}), FORMS[form] | {"tenant_id": tenant, "opportunity_id": key})

    @rule(
        tenant=st.sampled_from(TENANT_SPELLINGS),
        version=st.sampled_from(VERSIONS),
        deal=st.sampled_from(DEALS),
        number=NUMBER,
        form=VERSION_FORM,
        changes=st.lists(VERSION_CHANGES, max_size=6),
    )
    def create_version(
        self, tenant: str, version: uuid.UUID, deal: uuid.UUID, number: Any, form: str, changes: list[Change]
    ) -> None:
        # Two nodes of one key are not in the graph's description; the second is left out.
        if any(
            node.properties.get("version_id") == str(version) and node.properties["tenant_id"].lower() == tenant.lower()
            for node in self.nodes
        ):
            return
        keys = {"tenant_id": tenant, "version_id": str(version), "deal_opportunity_id": str(deal)}
        numbered = {} if form == "skeleton" else {"version": number}
        self.world.write(Node("", "DealVersion", {}), VERSION_FORMS[form] | keys | numbered | dict(changes))

    @rule(
        tenant=st.sampled_from(TENANT_SPELLINGS + FOREIGN_SPELLINGS),
        key=st.sampled_from(["no uuid", "", 42, None, [str(VERSIONS[0])], str(uuid.UUID(int=99)).upper()]),
        deal=st.sampled_from([*spellings(DEALS[0]), "no uuid", 42, None, [str(DEALS[0])]]),
    )
    def create_version_with_strange_keys(self, tenant: Any, key: Any, deal: Any) -> None:
        if key is not None and any(node.properties.get("version_id") == key for node in self.nodes):
            return
        keys = {"tenant_id": tenant, "version_id": key, "deal_opportunity_id": deal}
        self.world.write(Node("", "DealVersion", {}), VERSION_FORMS["snapshot"] | keys)

    @precondition(lambda self: self.labelled("Deal"))
    @rule(index=st.integers(0, 11), deal=st.lists(DEAL_CHANGES, min_size=1, max_size=5))
    def change_deal(self, index: int, deal: list[Change]) -> None:
        deals = self.labelled("Deal")
        node = deals[index % len(deals)]
        self.world.write(node, node.properties | dict(deal))

    @precondition(lambda self: self.labelled("DealVersion"))
    @rule(index=st.integers(0, 11), version=st.lists(VERSION_CHANGES, min_size=1, max_size=3))
    def change_version(self, index: int, version: list[Change]) -> None:
        versions = self.labelled("DealVersion")
        node = versions[index % len(versions)]
        self.world.write(node, node.properties | dict(version))

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 11))
    def delete_node(self, index: int) -> None:
        self.world.delete(self.nodes[index % len(self.nodes)])

    # The application. What the servers made decides nothing that is drawn: element ids differ from run to run.

    @rule(
        tenant=TENANT,
        key=st.sampled_from([*DEALS, uuid.UUID(int=7)]),
        graph_key=st.sampled_from([None, None, *DEALS]),
        edits=st.lists(st.sampled_from(EDITS), max_size=3),
    )
    def insert_opportunity(
        self, tenant: uuid.UUID, key: uuid.UUID, graph_key: uuid.UUID | None, edits: list[tuple[str, Any]]
    ) -> None:
        rows = self.world.tables.opportunities
        if key in rows:
            return
        if graph_key is not None and any(row["graph_opportunity_id"] == graph_key for row in rows.values()):
            return
        row: Row = dict.fromkeys(OPPORTUNITY_COLUMNS) | {"extraction_version": 1} | dict(edits)
        row |= {"id": key, "tenant_id": tenant, "graph_opportunity_id": graph_key}
        row |= {"updated_at": datetime(2020, 1, 1, tzinfo=UTC)}
        if any(gate.rejects("opportunities", row) for gate in self.world.gates.values()):
            return
        self.world.insert("opportunities", row)
        rows[key] = row

    @rule(index=st.integers(0, 11), edit=st.sampled_from(EDITS))
    def edit_opportunity(self, index: int, edit: tuple[str, Any]) -> None:
        if not self.rows:
            return
        row = self.rows[index % len(self.rows)]
        changed = row | dict([edit])
        if any(gate.rejects("opportunities", changed) for gate in self.world.gates.values()):
            return
        self.world.pg.execute(
            sql.SQL("UPDATE opportunities SET {} = %s WHERE id = %s").format(sql.Identifier(edit[0])),
            [adapted(edit[1]), row["id"]],
        )
        row.update(changed)

    @rule(index=st.integers(0, 11))
    def delete_opportunity(self, index: int) -> None:
        if not self.rows:
            return
        row = self.rows[index % len(self.rows)]
        self.world.pg.execute("DELETE FROM opportunities WHERE id = %s", [row["id"]])
        del self.world.tables.opportunities[row["id"]]
        versions = self.world.tables.versions
        for key in [key for key, version in versions.items() if version["opportunity_id"] == row["id"]]:
            del versions[key]

    @rule(index=st.integers(0, 11), version=st.sampled_from(VERSIONS), number=st.sampled_from([1, 2]))
    def insert_version(self, index: int, version: uuid.UUID, number: int) -> None:
        """As the old service wrote them: without valid_until and ontology."""
        if not self.rows:
            return
        opportunity = self.rows[index % len(self.rows)]
        versions = self.world.tables.versions
        if version in versions:
            return
        if any(v["opportunity_id"] == opportunity["id"] and v["version_number"] == number for v in versions.values()):
            return
        row: Row = dict.fromkeys(VERSION_COLUMNS) | {"id": version, "tenant_id": opportunity["tenant_id"]}
        row |= {"opportunity_id": opportunity["id"], "version_number": number, "name": "old", "stage": "old"}
        row |= {"created_at": datetime(2025, 1, 1, tzinfo=UTC), "valid_from": datetime(2025, 1, 1, tzinfo=UTC)}
        self.world.insert("deal_versions", row)
        versions[version] = row

    @rule(index=st.integers(0, 11))
    def delete_version(self, index: int) -> None:
        versions = self.world.tables.versions
        if not versions:
            return
        key = list(versions)[index % len(versions)]
        self.world.pg.execute("DELETE FROM deal_versions WHERE id = %s", [key])
        del versions[key]

    @rule(index=st.integers(0, 11))
    def delete_link(self, index: int) -> None:
        links = self.world.tables.links
        if not links:
            return
        link = links.pop(index % len(links))
        self.world.pg.execute(
            "DELETE FROM interaction_links WHERE tenant_id = %s AND interaction_id = %s AND entity_id = %s", link
        )

    @rule(name=st.sampled_from(sorted(GATES)))
    def switch_gate(self, name: str) -> None:
        if name in self.world.gates:
            self.world.close_gate(name)
        else:
            self.world.open_gate(name)

    # The mapping

    @rule(column=st.sampled_from(POLICY_COLUMNS), write=st.sampled_from(["never", "insert", "fill", "always"]))
    def alter_write(self, column: str, write: str) -> None:
        self.world.alter(column, "write", write)

    @rule(column=st.sampled_from(POLICY_COLUMNS), on_misfit=st.sampled_from(["null", "keep", "reject"]))
    def alter_on_misfit(self, column: str, on_misfit: str) -> None:
        self.world.alter(column, "on_misfit", on_misfit)

    # The syncs

    @rule(
        tenant=TENANT,
        how=st.sampled_from(["plain", "plain", "dry", "strict"]),
        caller=st.sampled_from(["app_writer", "app_writer", "postgres"]),
        session=st.sampled_from(SESSIONS),
        batch_rows=st.sampled_from([2000, 1, 2]),
    )
    def sync(self, tenant: uuid.UUID, how: str, caller: str, session: dict[str, str], batch_rows: int) -> None:
        # In full: nodes change here without a word about when. tests/sql/test_incremental.py has the incremental runs.
        arguments = {"dry": {"dry_run": True}, "strict": {"strict": True}}.get(how, {}) | {"mode": "full"}
        settings = session | {"deal_sync.batch_rows": str(batch_rows)}
        before = copy.deepcopy(self.world.tables)
        expected = self._model(tenant, datetime.now(UTC), before).run()
        if how == "strict" and expected.status == "partial":
            with pytest.raises(psycopg.Error):
                self._run(tenant, caller, settings, arguments)
            self._compare(None, None)
            return
        now, counts = self._run(tenant, caller, settings, arguments)
        tables = copy.deepcopy(self.world.tables) if how == "dry" else self.world.tables
        self._compare(self._model(tenant, now, tables).run(), counts)

    @rule(tenant=TENANT)
    def sync_plainly(self, tenant: uuid.UUID) -> None:
        self.sync(tenant, "plain", "app_writer", {}, 2000)

    def teardown(self) -> None:
        """Whatever has happened, the sequence ends in a sync of both tenants."""
        for tenant in TENANTS:
            self.sync_plainly(tenant)

    def _model(self, tenant: uuid.UUID, now: datetime, tables: Tables) -> Sync:
        world = self.world
        return Sync(tenant, now, world.nodes, world.columns, list(world.gates.values()), tables)

    def _run(
        self, tenant: uuid.UUID, caller: str, session: Mapping[str, str], arguments: dict[str, Any]
    ) -> tuple[datetime, Counts]:
        connection = self.world.callers[caller]
        named = "".join(f", {name} => %({name})s" for name in arguments)
        columns = ", ".join(f"r.{count.name}" for count in fields(Counts))
        query: Any = (
            f"SELECT (extract(epoch FROM now()) * 1000000)::bigint, r.message, {columns}"
            f" FROM sync_deals(%(tenant)s{named}) AS r"
        )
        try:
            for name, value in session.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
            row = connection.execute(query, {"tenant": tenant, **arguments}).fetchone()
        finally:
            connection.execute("RESET ALL")
        assert row is not None
        note(f"message: {row[1]}")
        if row[2] == "failed":
            runs = "SELECT sqlstate, server_text FROM deal_sync.runs ORDER BY started_at DESC LIMIT 1"
            note(f"failed: {self.world.pg.execute(runs).fetchone()}")
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row[0]), Counts(*row[2:])

    def _compare(self, expected: Counts | None, counts: Counts | None) -> None:
        found = differences(self.world.tables, self.world.actual())
        if expected and counts:
            found += [
                f"{name} is {value}, should be {asdict(expected)[name]}"
                for name, value in asdict(counts).items()
                if value != asdict(expected)[name]
            ]
        assert not found, "\n".join(["the sync differs from the model:", *found])


@pytest.mark.timeout(0)
def test_the_tables_are_the_models_after_every_sync(
    database: Database, pg: Connection, writer: Connection, graph: Graph
) -> None:
    for tenant in TENANTS:
        pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'a tenant')", [tenant])
    Machine.world = World(pg, {"postgres": database.connect(), "app_writer": writer}, graph)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
