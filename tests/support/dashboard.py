"""Flows in: extra/grafana/deal_sync.json. Flows out: its queries as Grafana would send them, and demo data for them."""

import json
import random
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from environment.state import CHECKOUT

from support.database import Connection

FILE = CHECKOUT / "extra/grafana/deal_sync.json"
TENANTS = [uuid.UUID(int=number, version=4) for number in range(1, 5)]
STEP = timedelta(minutes=15)
HOURS = 24

_ADD_RUN: LiteralString = (
    "INSERT INTO deal_sync.runs (run_id, tenant_id, mode, status, started_at, seconds, deals_read, deals_inserted,"
    " deals_updated, deals_unchanged, deals_adopted, versions_inserted, links_inserted, rows_rejected, values_rejected,"
    " message, server_text) VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s, %s, 0, 0, %s, %s, 0, 0, %s, %s)"
)
_ADD_REJECT: LiteralString = (
    "INSERT INTO deal_sync.rejects (tenant_id, kind, level, element_id, column_name, sqlstate, message, value, run_id,"
    " first_seen) VALUES (%s, %s, %s, %s, %s, '22P02', 'a reason', 'an offending value', gen_random_uuid(), %s)"
)


def dashboard() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def queries() -> dict[str, str]:
    """The panels' queries by title, and those of the variables by name."""
    of_panels = {panel["title"]: target["rawSql"] for panel in dashboard()["panels"] for target in panel["targets"]}
    variables = dashboard()["templating"]["list"]
    return of_panels | {each["name"]: each["query"] for each in variables if each["type"] == "query"}


def as_sent(query: str, tenants: Sequence[uuid.UUID], end: datetime) -> bytes:
    """With Grafana's variables and macros replaced as Grafana replaces them."""
    start = end - timedelta(hours=HOURS)
    query = query.replace("${tenant:sqlstring}", ",".join(f"'{tenant}'" for tenant in tenants))
    query = query.replace("$__interval_ms", str(STEP // timedelta(milliseconds=1)))
    between = f"BETWEEN '{start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}' AND '{end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"
    query = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 {between}", query)
    assert "$" not in query, f"a macro or a variable that is not known here: {query}"
    return query.encode()


def rows(connection: Connection, query: str, tenants: Sequence[uuid.UUID], end: datetime) -> list[dict[str, Any]]:
    """What a query gives, by column."""
    cursor = connection.execute(as_sent(query, tenants, end))
    return [dict(zip([column.name for column in cursor.description or []], row, strict=True)) for row in cursor]


def under_way(tenant: uuid.UUID) -> str:
    """The application_name of a session with a run under way."""
    return f"deal_sync {tenant.hex} d 4000/20000"


def add_history(pg: Connection, end: datetime) -> None:
    """A day of four tenants: one up to date, one with rejects, one that fails, one that is late."""
    chance = random.Random(6)
    for number, tenant in enumerate(TENANTS):
        pg.execute("INSERT INTO _deal_sync.graph_tenants VALUES (%s, %s, true)", [tenant, 20000 >> number])
        pg.execute(
            "SELECT _deal_sync.record_reconciliation(%s, %s)",
            [tenant, json.dumps([{"missing": 0, "differing": number}])],
        )
        for ago in range(5, HOURS * 60, 15):
            if number == 3 and ago < 90:
                continue
            status = "failed" if number == 2 and ago < 40 else "partial" if number == 1 else "ok"
            full = ago % (12 * 60) < 15
            busy = 1 + 9 * (abs(ago - 600) < 240)
            written = [0, 0, 0, 0] if status == "failed" else [chance.randrange(most * busy) for most in (4, 20, 6, 12)]
            seconds = chance.uniform(4, 6) / (number + 1) if full else chance.uniform(0.1, 0.3) + 0.001 * sum(written)
            pg.execute(
                _ADD_RUN,
                [
                    *(tenant, "full" if full else "incremental", status, end - timedelta(minutes=ago), seconds),
                    *(20000 >> number if full else sum(written), *written),
                    *(("the graph is unreachable", "the server's words") if status == "failed" else (None, None)),
                ],
            )
    rejected = [("amount", 14), ("expected_close_date", 9), ("stage", 5), ("", 3)]
    for column, count in rejected:
        for each in range(count):
            level = "value" if column else "row"
            seen = end - timedelta(hours=5 * (each + 1))
            pg.execute(_ADD_REJECT, [TENANTS[1], "deal", level, f"{column}:{each}", column, seen])
    pg.execute(_ADD_REJECT, [TENANTS[0], "version", "value", "v", "valid_until", end - timedelta(days=3)])
