"""Flows in: a database and a graph. Flows out: what a sync cannot do without, measured alone: reading its queries, the
MERGE of its batches, the question that a run asks if nothing has changed; and a plain external script.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import psycopg
from bench.graph import TENANT
from bench.measures import Cpu, cpu_of, cpu_seconds
from bench.runs import NAME, WRITER, Bench, Connection
from neo4j import READ_ACCESS
from neo4j_deals import catalog
from neo4j_deals.graph import cypher
from neo4j_deals.graph.cypher import Query
from neo4j_deals.mapping.model import Table
from neo4j_deals.sync import selection
from neo4j_deals.sync.feed import Feed, Limits
from neo4j_deals.sync.names import staging
from neo4j_deals.sync.selection import Selection, TenantsNodes
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

HERE = Path(__file__).resolve().parent
KINDS = ("deal", "version")
ROUND_TRIPS = 50


# -- the mapping's own queries, without a server function --------------------------------------------------------------


class PlpyOverPsycopg:
    """What neo4j_deals.catalog uses of plpy, over a connection: so the benchmark reads what the sync reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def prepare(self, query: str, types: Sequence[str]) -> str:
        for number, type_ in enumerate(types, start=1):
            query = query.replace(f"${number}", f"${number}::{type_}")
        return query

    def execute(self, query: Any, arguments: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
        with psycopg.RawCursor(self._connection, row_factory=dict_row) as cursor:
            set_json_loads(lambda text: text if isinstance(text, str) else bytes(text).decode(), cursor)  # as plpy does
            return cursor.execute(query, arguments).fetchall()

    def error(self, message: str, **fields: str | None) -> NoReturn:
        raise RuntimeError(message, fields)

    def quote_ident(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'


class QueriesOnly:
    """A feed's outlet and its `ask`: notes the queries, and answers as a graph without nodes does."""

    def __init__(self) -> None:
        self.queries: list[dict[str, Any]] = []

    def ask(self, query: Query) -> Iterator[tuple[Any, ...]]:
        self.queries.append({"text": query.text, "parameters": dict(query.parameters)})
        if query.text.endswith("RETURN count(n)"):
            return iter([(0,)])
        if query.text.startswith("CALL {"):  # rows that were asked for as one record
            return iter([([],)])
        return iter(() if "RETURN elementId(n) AS c0" in query.text else [(False,)])

    def spool(self) -> NoReturn:
        raise AssertionError("nothing was answered")

    def put(self, *batch: Any) -> NoReturn:
        raise AssertionError(batch)


# -- what is measured --------------------------------------------------------------------------------------------------


class Floors:
    """The parts of a sync, and the script that stands for none of it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._plpy = PlpyOverPsycopg(bench.admin)
        facts = bench.instance.facts
        self._task = {
            "uri": facts["neo4j_uri"],
            "auth": [facts["neo4j_user"], facts["neo4j_password"]],
            "tenant": str(TENANT),
            "dsn": bench.instance.dsn(NAME, WRITER),
        }

    def read(self, embeddings: bool = True) -> tuple[float, Cpu]:
        """(a) The run's own queries, read by the driver and thrown away, in a process of its own; (d) a comparison's,
        which are without embeddings."""
        outlet = QueriesOnly()
        for kind in KINDS:
            without = [] if embeddings else self._bench.one("SELECT _deal_sync.embedding_columns($1)", kind)
            wanted = Selection(without=frozenset(without))
            Feed(self._table(kind), str(TENANT), Limits(1, 1, 1, 1), wanted).produce(outlet.ask, outlet)
        fetch_size = catalog.server_options(self._plpy, self._mapped("deal")).fetch_size
        return self._script("read_only.py", queries=outlet.queries, fetch_size=fetch_size)

    def keep_staged(self) -> None:
        """For (b): what a run stages, batch by batch, in tables that stay."""
        fill = "SELECT _deal_sync.fill_staging($1, $2, current_user::regrole, NULL)"
        for kind in KINDS:
            with self._bench.admin.transaction(), psycopg.RawCursor(self._bench.admin) as cursor:
                cursor.execute(f"DECLARE filling NO SCROLL CURSOR FOR {fill}", [kind, TENANT])
                batch = 0
                while cursor.execute("FETCH filling").fetchone():
                    source = f"SELECT {batch} AS batch, * FROM {staging(kind)}"
                    into = f"CREATE UNLOGGED TABLE kept_{kind} AS " if batch == 0 else f"INSERT INTO kept_{kind} "
                    cursor.execute(into + source)
                    cursor.execute(f"TRUNCATE {staging(kind)}")
                    batch += 1

    def merge(self) -> tuple[float, Cpu]:
        """(b) The MERGE alone, over the batches of a run: in the staging tables that a run makes, as the writer, and
        with a run's settings."""
        seconds, cpu = 0.0, Cpu()
        with self._bench.connected("postgres") as connection, connection.transaction():
            self._as_in_a_run(connection)
            with psycopg.RawCursor(connection) as cursor:
                for kind in KINDS:
                    for took, used in self._merged(cursor, kind):
                        seconds, cpu.backend = seconds + took, cpu.backend + used
            began = time.perf_counter()
        return seconds + time.perf_counter() - began, cpu  # with the commit

    def _merged(self, cursor: psycopg.RawCursor[Any], kind: str) -> Iterator[tuple[float, float]]:
        """Seconds and CPU seconds of the MERGE of each batch."""
        one = self._bench.one
        merge = one("SELECT (_deal_sync.statements_of($1, $2)).merge", kind, TENANT)
        columns = one(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = $1::regclass AND attnum > 0 AND attname <> 'batch'",
            f"public.kept_{kind}",
        )
        cursor.execute(
            "DECLARE filling NO SCROLL CURSOR FOR"
            f" SELECT _deal_sync.fill_staging('{kind}', '{TENANT}', '{WRITER}'::regrole, NULL)"
        )
        cursor.execute("FETCH filling")  # the run's own tables, with their indexes
        cursor.execute("CLOSE filling")
        backend = cursor.connection.info.backend_pid
        for batch in range(one(f"SELECT max(batch) + 1 FROM kept_{kind}")):
            cursor.execute(f"TRUNCATE {staging(kind)}")
            cursor.execute(
                f"INSERT INTO {staging(kind)} ({columns}) SELECT {columns} FROM public.kept_{kind}"
                f" WHERE batch = {batch} ORDER BY row_number"
            )
            numbers = cursor.execute(f"SELECT array_agg(row_number) FROM {staging(kind)}").fetchone()
            assert numbers is not None
            cursor.execute(f"SET LOCAL ROLE {WRITER}")
            before, began = cpu_seconds(backend)[0], time.perf_counter()
            cursor.execute("SELECT _deal_sync.execute_for($1, $2, '{}')", [merge, numbers[0]])
            yield time.perf_counter() - began, cpu_seconds(backend)[0] - before
            cursor.execute("RESET ROLE")

    def script(self) -> float:
        """(c) The external script."""
        return self._script("external_script.py")[0]

    def question(self, tenant: UUID) -> float:
        """What a run asks if nothing has changed, by the driver alone: one transaction, over a connection that is
        open. The median of many."""
        tables = [self._table(kind) for kind in KINDS]
        now = datetime.now(UTC)
        queries = [cypher.state([(table.label, table.tenant.property, str(tenant)) for table in tables])]
        for table in tables:
            nodes = TenantsNodes(table.label, table.tenant.property, str(tenant))
            queries.append(selection.changed(nodes, table.changed_by, table.key.property, now).counted())
        seconds = []
        with self._bench.driver.session(default_access_mode=READ_ACCESS) as session:
            for _ in range(ROUND_TRIPS):
                began = time.perf_counter()
                with session.begin_transaction() as transaction:
                    for query in queries:
                        text: Any = query.text
                        transaction.run(text, dict(query.parameters)).consume()
                seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    def _script(self, name: str, **more: Any) -> tuple[float, Cpu]:
        """The seconds that a script says, and the CPU seconds of Neo4j and of its whole process (as the reader's)."""
        task = json.dumps(self._task | more)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with cpu_of(self._bench.neo4j, self._bench.admin.info.backend_pid) as cpu:
            command = [sys.executable, str(HERE / name)]
            ran = subprocess.run(command, input=task, stdout=subprocess.PIPE, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.reader = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return float(json.loads(ran.stdout)["seconds"]), cpu

    def _as_in_a_run(self, connection: Connection) -> None:
        """The settings with which sync_tenant() runs, from the catalog."""
        settings = self._bench.one("SELECT proconfig FROM pg_proc WHERE oid = '_deal_sync.sync_tenant'::regproc")
        for setting in settings:
            name, _, value = setting.partition("=")
            value = str(TENANT) if name == "app.tenant_id" else value.strip('"')
            if name != "search_path":
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])

    def _mapped(self, kind: str) -> str:
        return str(self._bench.one("SELECT _deal_sync.mapped($1)::text", kind))

    def _table(self, kind: str) -> Table:
        return catalog.table(self._plpy, self._mapped(kind))
