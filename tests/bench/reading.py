"""Flows in: the graph and the database of a benchmark. Flows out: what a SELECT on the foreign table takes, compared
with the driver alone: full scans, a look-up, a join, an ordered LIMIT. With Multicorn2; the two full scans by scan() as
well.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, LiteralString

import psycopg
from bench.graph import TENANT
from neo4j import READ_ACCESS, Driver

Connection = psycopg.Connection[Any]

LOOK_UPS = 200
IDS = 1000

_KEY = "n.tenant_id IN [$tenant] AND n.opportunity_id"
_LOOK_UP = f"MATCH (n:Deal) WHERE {_KEY} IN [$id] RETURN n.opportunity_id, n.name, n.stage"
_JOIN = f"MATCH (n:Deal) WHERE {_KEY} IN $ids RETURN n.opportunity_id, n.name, n.stage"
_FIRST_TEN = "MATCH (n:Deal) RETURN n.opportunity_id, n.name, n.stage ORDER BY n.last_updated_at LIMIT 10"


def measure(admin: Connection, driver: Driver, rounds: int) -> list[list[str]]:
    """Rows of a table: what was asked, seconds through PostgreSQL and through the driver alone, and their ratio."""
    reading = _Reading(admin, driver, rounds)
    rows = [["", "SQL", "driver alone", "ratio"]]
    for name, vectors in (("full scan without vectors", False), ("full scan with vectors", True)):
        columns = reading.columns(vectors)
        counts = ", ".join(f"count({column})" for column in columns)
        alone = reading.driver_seconds(
            "MATCH (n:Deal) RETURN " + ", ".join(f"n.{c}" for c in reading.properties(vectors))
        )
        if reading.has_multicorn:
            rows.append(_row(name, reading.sql_seconds(f"SELECT {counts} FROM neo4j.deals"), alone))
        scanned = reading.sql_seconds(
            f"SELECT {counts} FROM deal_sync.scan(NULL::neo4j.deals, columns => %(columns)s)", {"columns": columns}
        )
        rows.append(_row(f"{name}, by scan()", scanned, alone))
    if not reading.has_multicorn:
        return [*rows, ["the rest needs Multicorn2", "", "", ""]]

    ids = reading.ids()
    found = "SELECT opportunity_id, name, stage FROM neo4j.deals"
    each = iter(ids * 2)
    by_sql = reading.median(
        LOOK_UPS,
        lambda: reading.run(f"{found} WHERE tenant_id = %(tenant)s AND opportunity_id = %(id)s", id=next(each)),
    )
    alone = reading.median(LOOK_UPS, lambda: reading.ask(_LOOK_UP, id=next(each)))
    rows.append(_row("point look-up", by_sql, alone))

    admin.execute("CREATE TEMPORARY TABLE ids (id text)")
    with admin.cursor() as cursor, cursor.copy("COPY ids FROM STDIN") as copy:
        for one in ids:
            copy.write_row([one])
    admin.execute("ANALYZE ids")
    joined = reading.sql_seconds(
        "SELECT d.opportunity_id, d.name, d.stage FROM ids JOIN neo4j.deals AS d ON d.opportunity_id = ids.id"
        " WHERE d.tenant_id = %(tenant)s"
    )
    rows.append(_row(f"join with {IDS} ids", joined, reading.driver_seconds(_JOIN, ids=ids)))
    ordered = reading.sql_seconds(f"{found} ORDER BY last_updated_at LIMIT 10")
    rows.append(_row("ORDER BY, LIMIT 10", ordered, reading.driver_seconds(_FIRST_TEN)))
    return rows


class _Reading:
    def __init__(self, admin: Connection, driver: Driver, rounds: int) -> None:
        self.admin, self.driver, self.rounds = admin, driver, rounds
        self.has_multicorn = bool(
            self._value("SELECT fdwhandler <> 0 FROM pg_foreign_data_wrapper WHERE fdwname = 'neo4j'")
        )

    def _value(self, query: LiteralString) -> Any:
        row = self.admin.execute(query).fetchone()
        assert row is not None
        return row[0]

    def columns(self, vectors: bool) -> list[str]:
        """The foreign table's columns that are properties, as they are."""
        found = self.admin.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'neo4j.deals'::regclass AND attnum > 0"
            " AND NOT attisdropped AND NOT coalesce(_deal_sync.options_of(attfdwoptions) ?| ARRAY['derive'], false)"
            " AND (%s OR NOT format_type(atttypid, atttypmod) ~ 'vector') ORDER BY attnum",
            [vectors],
        )
        return [name for (name,) in found]

    def properties(self, vectors: bool) -> list[str]:
        """The properties behind them."""
        found = self.admin.execute(
            "SELECT coalesce(_deal_sync.options_of(attfdwoptions) ->> 'property', attname::text) FROM pg_attribute"
            " WHERE attrelid = 'neo4j.deals'::regclass AND attname = ANY (%s) ORDER BY attnum",
            [self.columns(vectors)],
        )
        return [name for (name,) in found]

    def ids(self) -> list[str]:
        with self.driver.session() as session:
            return [
                str(r[0]) for r in session.run("MATCH (n:Deal) RETURN n.opportunity_id ORDER BY rand() LIMIT $n", n=IDS)
            ]

    def run(self, query: str, **parameters: Any) -> None:
        self.admin.execute(query, {"tenant": str(TENANT), **parameters}).fetchall()

    def ask(self, query: str, **parameters: Any) -> None:
        with (
            self.driver.session(default_access_mode=READ_ACCESS, fetch_size=100) as session,
            session.begin_transaction() as transaction,
        ):
            for _ in transaction.run(query, tenant=str(TENANT), **parameters):
                pass

    def sql_seconds(self, query: str, parameters: Mapping[str, Any] | None = None) -> float:
        return self.median(self.rounds, lambda: self.run(query, **(parameters or {})))

    def driver_seconds(self, query: str, **parameters: Any) -> float:
        return self.median(self.rounds, lambda: self.ask(query, **parameters))

    @staticmethod
    def median(times: int, work: Callable[[], None]) -> float:
        """The first is not counted: plans, caches and the connection are made there."""
        seconds = []
        for _ in range(times + 1):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds[1:])


def _row(name: str, by_sql: float, alone: float) -> list[str]:
    return [name, f"{by_sql * 1000:.1f} ms", f"{alone * 1000:.1f} ms", f"{by_sql / alone:.2f}"]
