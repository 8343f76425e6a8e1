"""Flows in: a number of deals. Flows out: a table of what a sync costs, compared with what it cannot do without (the
read, the MERGE) and with a plain external script; everything that it created is removed again.
"""

import argparse
import json
import operator
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import psycopg
from bench import reading
from bench.graph import TENANT, build, change, clear
from bench.measures import Measure, Memory, memory_row, table, target_row, watched
from environment import database
from environment.servers import Instance, claimed
from neo4j import Driver, GraphDatabase
from neo4j_deals import catalog
from neo4j_deals.graph.cypher import Query
from neo4j_deals.mapping.model import Table
from neo4j_deals.sync.feed import Feed, Limits
from neo4j_deals.sync.selection import Selection
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

HERE = Path(__file__).resolve().parent
NAME = "deal_sync_bench"
TABLES = ("opportunities", "deal_versions", "interaction_links")
KINDS = ("deal", "version")
NOBODY = UUID("be7c4000-0000-4000-8000-000000000002")  # a tenant without deals
STAGING = {"deal": "deal_sync_deals", "version": "deal_sync_versions"}

Connection = psycopg.Connection[Any]


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


# -- the benchmark -----------------------------------------------------------------------------------------------------


class Bench:
    """A database, a graph of `deals` deals, and what is measured on them."""

    def __init__(self, instance: Instance, driver: Driver, deals: int) -> None:
        self.instance, self.driver, self.deals = instance, driver, deals
        self.first_call = Measure("the first call of a backend")
        self.admin: Connection = psycopg.connect(instance.dsn(NAME), autocommit=True)
        self.admin.execute("INSERT INTO tenants VALUES (%s, 'bench'), (%s, 'no deals')", [TENANT, NOBODY])
        self._task = {
            "uri": instance.facts["neo4j_uri"],
            "auth": [instance.facts["neo4j_user"], instance.facts["neo4j_password"]],
            "tenant": str(TENANT),
            "dsn": instance.dsn(NAME, "app_writer"),
        }

    # the parts

    def read(self, embeddings: bool = True) -> float:
        """(a) The run's own queries, read by the driver and thrown away, in a process of its own; (d) a comparison's,
        which are without embeddings."""
        plpy, outlet = PlpyOverPsycopg(self.admin), QueriesOnly()
        for kind in KINDS:
            without = [] if embeddings else self._one("SELECT _deal_sync.embedding_columns($1)", kind)
            wanted = Selection(without=frozenset(without))
            Feed(self._table(plpy, kind), str(TENANT), Limits(1, 1, 1, 1), wanted).produce(outlet.ask, outlet)
        relation = self._mapped("deal")
        fetch_size = catalog.server_options(plpy, relation).fetch_size
        return self._script("read_only.py", queries=outlet.queries, fetch_size=fetch_size)

    def keep_staged(self) -> None:
        """For (b): what a run stages, batch by batch, in tables that stay."""
        fill = "SELECT _deal_sync.fill_staging($1, $2, current_user::regrole, NULL)"
        for kind in KINDS:
            with self.admin.transaction(), psycopg.RawCursor(self.admin) as cursor:
                cursor.execute(f"DECLARE filling NO SCROLL CURSOR FOR {fill}", [kind, TENANT])
                batch = 0
                while cursor.execute("FETCH filling").fetchone():
                    source = f"SELECT {batch} AS batch, * FROM pg_temp.{STAGING[kind]}"
                    into = f"CREATE UNLOGGED TABLE kept_{kind} AS " if batch == 0 else f"INSERT INTO kept_{kind} "
                    cursor.execute(into + source)
                    cursor.execute(f"TRUNCATE pg_temp.{STAGING[kind]}")
                    batch += 1
            self.admin.execute(f"GRANT SELECT ON kept_{kind} TO app_writer")

    def merge(self) -> float:
        """(b) The MERGE alone, over the batches of a run, as the writer and with a run's settings."""
        seconds = 0.0
        with self.connected("app_writer") as connection, connection.transaction():
            self._as_in_a_run(connection)
            with psycopg.RawCursor(connection) as cursor:
                for kind in KINDS:
                    merge = self._one("SELECT (_deal_sync.statements_of($1, $2)).merge", kind, TENANT)
                    columns = self._one(
                        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
                        " WHERE attrelid = $1::regclass AND attnum > 0 AND attname <> 'batch'",
                        f"public.kept_{kind}",
                    )
                    batches = self._one(f"SELECT max(batch) + 1 FROM kept_{kind}")
                    source = f"SELECT {columns} FROM public.kept_{kind} WHERE batch = "
                    cursor.execute(f"CREATE TEMP TABLE {STAGING[kind]} ON COMMIT DROP AS {source} -1")
                    for batch in range(batches):
                        cursor.execute(f"TRUNCATE pg_temp.{STAGING[kind]}")
                        cursor.execute(f"INSERT INTO pg_temp.{STAGING[kind]} {source} {batch}")
                        numbers = cursor.execute(f"SELECT array_agg(row_number) FROM {STAGING[kind]}").fetchone()
                        began = time.perf_counter()
                        cursor.execute(merge, numbers)
                        seconds += time.perf_counter() - began
            began = time.perf_counter()
        return seconds + time.perf_counter() - began  # the commit

    def script(self) -> float:
        """(c) The external script."""
        return self._script("external_script.py")

    def sync(self, mode: str = "full") -> tuple[dict[str, Any], float, Memory]:
        """A run in a backend of its own: its row, its seconds, its memory.

        The graph was filled just before, so with an overlap an incremental run would read all of it again.

        Like (a) and (b), it is measured in a session that has been used: what the first call of a backend takes in
        addition (Python, the driver, a login) is measured separately, with a tenant without deals.
        """
        with self.connected("app_writer") as connection, watched(connection.info.backend_pid) as memory:
            connection.execute("SET deal_sync.overlap = '0s'")
            self.first_call.seconds.append(self._timed(connection, NOBODY, mode)[1])
            result, seconds = self._timed(connection, TENANT, mode)
        if result["status"] != "ok":
            sys.exit(f"the sync was {result['status']}: {result['message']}")
        return result, seconds, memory

    def compare(self, function: str, alike: Callable[[list[tuple[Any, ...]]], bool]) -> float:
        """A comparison of graph and tables, which are `alike`, in a session that has been used."""
        call = f"SELECT * FROM deal_sync.{function}(%s)".encode()
        with self.connected("app_writer") as connection:
            connection.execute(call, [NOBODY])
            began = time.perf_counter()
            rows = connection.execute(call, [TENANT]).fetchall()
            seconds = time.perf_counter() - began
        if not alike(rows):
            sys.exit(f"{function}() of what was synced found {rows[:3]}")
        return seconds

    def side_by_side(self, tenants: Sequence[UUID]) -> float:
        """First loads of these tenants, each by a backend of its own, all at once: the seconds of the whole."""
        with ExitStack() as stack, ThreadPoolExecutor(len(tenants)) as pool:
            connections = [stack.enter_context(self.connected("app_writer")) for _ in tenants]
            for connection in connections:
                self._timed(connection, NOBODY, "full")
            began = time.perf_counter()
            runs = list(pool.map(self._timed, connections, tenants, repeat("full")))
            seconds = time.perf_counter() - began
        if any(result["status"] != "ok" for result, _ in runs):
            sys.exit(f"a sync was not ok: {runs}")
        return seconds

    @staticmethod
    def _timed(connection: Connection, tenant: UUID, mode: str) -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        with connection.cursor(row_factory=dict_row) as cursor:
            result = cursor.execute("SELECT * FROM sync_deals(%s, %s)", [tenant, mode]).fetchone()
        assert result is not None
        return result, time.perf_counter() - began

    # what surrounds them

    def empty(self) -> None:
        """Empties the application's tables; nothing from before is left to be written."""
        self.admin.execute(f"TRUNCATE {', '.join(TABLES)}, deal_sync.runs, deal_sync.rejects CASCADE")
        self.admin.execute("CHECKPOINT")

    def vacuum(self) -> None:
        """Does what autovacuum would do after a load, whose WAL would be counted for a sync at the same time."""
        for name in TABLES:
            self.admin.execute(f"VACUUM ANALYZE {name}")
        self.admin.execute("CHECKPOINT")

    def wal_of(self, work: Callable[[], Any]) -> tuple[Any, int]:
        """What a piece of work returns, and the bytes of WAL that it wrote."""
        before = self._one("SELECT pg_current_wal_insert_lsn()")
        outcome = work()
        return outcome, int(self._one("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn)", before))

    def rows_written_since(self, transaction: int) -> int:
        """Rows of the application's tables that this transaction or a later one has written."""
        counts = [f"(SELECT count(*) FROM {table} WHERE xmin::text::bigint >= {transaction})" for table in TABLES]
        return int(self._one(f"SELECT {' + '.join(counts)}"))

    def next_transaction(self) -> int:
        return int(self._one("SELECT pg_current_xact_id()::text::bigint % (1::bigint << 32)")) + 1

    def remember(self, name: str) -> None:
        """What the tables hold now, except what differs between two loads of a graph: times and a link's own id."""
        self.admin.execute(f"DROP TABLE IF EXISTS {name}")
        parts = [
            "SELECT 'deal' AS kind, id, to_jsonb(o) - '{created_at,updated_at,extraction_embedding,"
            "extraction_embedding_current}'::text[] AS content, extraction_embedding AS one,"
            " extraction_embedding_current AS two FROM opportunities AS o",
            "SELECT 'version', id, to_jsonb(v), NULL, NULL FROM deal_versions AS v",
            "SELECT 'link', interaction_id, to_jsonb(l) - '{id,created_at}'::text[], NULL, NULL"
            " FROM interaction_links AS l",
        ]
        self.admin.execute(f"CREATE UNLOGGED TABLE {name} AS {' UNION ALL '.join(parts)}")

    def differences(self, one: str, other: str) -> int:
        """Rows that two remembered states do not share."""
        return int(
            self._one(
                f"SELECT count(*) FROM {one} AS a FULL JOIN {other} AS b USING (kind, id) WHERE a.content IS NULL OR"
                " b.content IS NULL OR a.content <> b.content OR a.one IS DISTINCT FROM b.one"
                " OR a.two IS DISTINCT FROM b.two"
            )
        )

    @contextmanager
    def connected(self, user: str) -> Iterator[Connection]:
        with psycopg.connect(self.instance.dsn(NAME, user), autocommit=True) as connection:
            yield connection

    def close(self) -> None:
        self.admin.close()

    def _script(self, name: str, **more: Any) -> float:
        task = json.dumps(self._task | more)
        ran = subprocess.run([sys.executable, HERE / name], input=task, stdout=subprocess.PIPE, text=True, check=True)
        return float(json.loads(ran.stdout)["seconds"])

    def _as_in_a_run(self, connection: Connection) -> None:
        """The settings with which sync_tenant() runs, from the catalog."""
        settings = self._one("SELECT proconfig FROM pg_proc WHERE oid = '_deal_sync.sync_tenant'::regproc")
        for setting in settings:
            name, _, value = setting.partition("=")
            value = str(TENANT) if name == "app.tenant_id" else value.strip('"')
            if name != "search_path":
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])

    def _one(self, query: Any, *parameters: Any) -> Any:
        with psycopg.RawCursor(self.admin) as cursor:
            row = cursor.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def _mapped(self, kind: str) -> str:
        return str(self._one("SELECT _deal_sync.mapped($1)::text", kind))

    def _table(self, plpy: PlpyOverPsycopg, kind: str) -> Table:
        return catalog.table(plpy, self._mapped(kind))


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(bench: Bench, rounds: int, double: bool) -> list[str]:
    """Everything, as the lines of a report."""
    deals = bench.deals
    read, merge, script = Measure("(a) read only"), Measure("(b) MERGE only"), Measure("(c) external script")
    first, unchanged = Measure("sync, first load"), Measure("full, nothing changed")
    incremental = {0: Measure("incremental, nothing changed")} | {
        number: Measure(f"incremental, {name} changed")
        for number, name in ((1, "1"), (100, "100"), (deals // 100, "1 %"))
    }

    floor = Measure("(d) read only, without embeddings")
    reconcile, differences = Measure("reconcile"), Measure("differences")

    bench.sync()  # Neo4j's page cache and plans, and the machine's
    bench.keep_staged()
    for number in range(1, rounds + 1):
        progress(f"round {number} of {rounds}")
        read.seconds.append(bench.read())

        bench.empty()
        seconds, wal = bench.wal_of(bench.merge)
        merge.seconds.append(seconds)
        merge.wal.append(wal)

        bench.empty()
        seconds, wal = bench.wal_of(bench.script)
        script.seconds.append(seconds)
        script.wal.append(wal)
        if number == 1:
            bench.remember("by_script")

        bench.empty()
        (result, seconds, memory), wal = bench.wal_of(bench.sync)
        first.seconds.append(seconds)
        first.wal.append(wal)
        first.written = result["deals_inserted"] + result["versions_inserted"] + result["links_inserted"]
        if number == 1:
            bench.remember("by_sync")
            if different := bench.differences("by_script", "by_sync"):
                sys.exit(f"the external script and the sync differ in {different} rows: the comparison is void")

    bench.vacuum()
    for _ in range(rounds):
        transaction = bench.next_transaction()
        (_, seconds, _), wal = bench.wal_of(bench.sync)
        unchanged.seconds.append(seconds)
        unchanged.wal.append(wal)
        unchanged.written = bench.rows_written_since(transaction)

    for _ in range(rounds):
        floor.seconds.append(bench.read(embeddings=False))
        for part, alike in ((reconcile, all_match), (differences, operator.not_)):
            transaction = bench.next_transaction()
            seconds, wal = bench.wal_of(partial(bench.compare, part.name, alike))
            part.seconds.append(seconds)
            part.wal.append(wal)
            part.written = bench.rows_written_since(transaction)

    bench.sync("incremental")  # the first one after a full run reads what has no timestamp once more
    for amount, part in incremental.items():
        for number in range(rounds):
            expected = change(bench.driver, amount, number) if amount else 0
            (result, seconds, _), wal = bench.wal_of(lambda: bench.sync("incremental"))
            part.seconds.append(seconds)
            part.wal.append(wal)
            part.written = result["deals_updated"]
            if (result["mode"], result["deals_updated"]) != ("incremental", expected):
                sys.exit(f"{expected} deals were changed, a run that was {result['mode']} updated {part.written}")
    tenants = [UUID(int=NOBODY.int + number) for number in range(1, 5)]
    for number, tenant in enumerate(tenants):
        bench.admin.execute("INSERT INTO tenants VALUES (%s, 'one of four')", [tenant])
        build(bench.driver, (number + 10) * deals, (number + 10) * deals + deals // 4, tenant)
    at_once = [["tenants at once", "seconds", "deals/s"]]
    for amount in (1, 2, 4):
        progress(f"{amount} tenants at once")
        bench.empty()
        seconds = bench.side_by_side(tenants[:amount])
        at_once.append([str(amount), f"{seconds:.2f}", f"{amount * (deals // 4) / seconds:.0f}"])

    heads = ["", "seconds", "lowest, highest", "deals/s", "written", "WAL MB"]
    parts = (read, merge, script, first, unchanged, *incremental.values(), floor, reconcile, differences)
    lines = table([heads, *(part.row(deals) for part in parts)])
    lines.append(f"besides, the first call of a backend: {bench.first_call.median:.2f} s")
    lines.append(f"reconcile / (d): {reconcile.median / floor.median:.2f}")
    targets = [
        ("first load / ((a) + (b))", first.median / (read.median + merge.median), "<=", 1.3),
        ("(c) / first load", script.median / first.median, ">=", 1.8),
        ("full, nothing changed: rows written", float(unchanged.written or 0), "<=", 0.0),
        ("full, nothing changed: WAL, MB", max(unchanged.wal) / 1e6, "<=", 1.0),
        ("incremental, nothing changed: seconds", incremental[0].median, "<=", 0.1),
        ("incremental, 100 changed: seconds", incremental[100].median, "<=", 0.3),
        ("reconcile: seconds", reconcile.median, "<=", 1.0),
    ]
    progress("reading by SQL")
    reading_rows = reading.measure(bench.admin, bench.driver, rounds)
    memories = [(deals, memory)]
    if double:
        progress(f"{2 * deals} deals")
        build(bench.driver, deals, 2 * deals)
        bench.empty()
        _, seconds, twice = bench.sync()
        memories.append((2 * deals, twice))
        lines.append(f"sync, first load of {2 * deals}: {seconds:.2f} s, {2 * deals / seconds:.0f} deals/s")
        targets.append((f"peak memory at {2 * deals} / at {deals}", twice.both / memory.both, "<=", 1.1))
    lines += ["", *table(at_once), "", *table(reading_rows)]
    lines += [
        "",
        *table([["peak memory, MB", "backend's own", "its reader's", "both", "VmHWM"], *map(memory_row, memories)]),
    ]
    return [*lines, "", *table([["target", "measured", "due", ""], *map(target_row, targets)])]


def all_match(counts: list[tuple[Any, ...]]) -> bool:
    """Whether reconcile() found every node and every row to match: in_graph, in_postgres and matching come first."""
    return all(in_graph == in_postgres == matching for _, in_graph, in_postgres, matching, *_ in counts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--deals", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="each figure is the median of so many")
    parser.add_argument("--no-double", action="store_true", help="leave out the load of twice as many deals")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with claimed("bench") as instance:
        facts = instance.facts
        auth = (facts["neo4j_user"], facts["neo4j_password"])
        with GraphDatabase.driver(facts["neo4j_uri"], auth=auth, notifications_min_severity="OFF") as driver:
            bench = None
            try:
                progress(f"building {arguments.deals} deals")
                clear(driver)
                build(driver, 0, arguments.deals)
                database.create(instance, NAME)
                bench = Bench(instance, driver, arguments.deals)
                lines = measure(bench, arguments.rounds, not arguments.no_double)
            finally:
                if bench is not None:
                    bench.close()
                instance.psql("postgres", "-c", f'DROP DATABASE IF EXISTS "{NAME}" WITH (FORCE)')
                clear(driver)
    print(f"{arguments.deals} deals, two embeddings of 1536 floats each, medians of {arguments.rounds}\n")
    print("\n".join(lines))
    print(f"\nthe whole took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
