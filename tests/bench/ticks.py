"""Flows in: tenants that are synced. Flows out: what the ticks of a schedule cost while nothing changes, and how long a
change takes from the commit in Neo4j to the row in PostgreSQL; each tick in a session of its own, as pg_cron's.
"""

import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import LiteralString

from bench.measures import cpu_of, cpu_seconds, parent, table
from bench.runs import NAME, Bench
from neo4j import Driver

TICK: LiteralString = "CALL deal_sync.sync_all(quiet => true)"
SHARED: LiteralString = "CALL deal_sync.sync_all(quiet => true, shared => true)"
TICKS = 20
EACH = 5  # seconds from tick to tick, for the cost of an hour
PAUSE = 0.02  # seconds between two looks for what has arrived
PATIENCE = 120  # seconds for the last changes to arrive

HEADS = ["a tick, nothing changed, ms", "session", "start-up", "question", "together", f"an hour, each {EACH} s"]
CHANGE: LiteralString = (
    "MATCH (d:Deal {tenant_id: $tenant, opportunity_id: $deal})"
    " SET d.opportunity_summary = $text, d.last_updated_at = toString(datetime())"
)


# -- what a tick costs -------------------------------------------------------------------------------------------------


def idle(bench: Bench, name: str) -> list[list[str]]:
    """Rows under HEADS: seconds, and CPU seconds of PostgreSQL and of Neo4j.

    The session is what a tick costs that asks nothing; the question, one more tick in a session that has been used;
    start-up, what is left of a tick in a new session: Python, the package, a login in Neo4j. Without an overlap, or
    what was changed in the last minutes would be read again.
    """
    bench.admin.execute(f"ALTER DATABASE {NAME} SET deal_sync.overlap = '0s'")
    for _ in range(2):  # whatever is still to be done: afterwards nothing has changed
        _new_sessions(bench, TICK, 1)
    session, together = _new_sessions(bench, "SELECT 1", TICKS), _new_sessions(bench, TICK, TICKS)
    question = _one_session(bench)
    bench.admin.execute(f"ALTER DATABASE {NAME} RESET deal_sync.overlap")
    rows = []
    names = ("time", "CPU of PostgreSQL", "CPU of Neo4j")
    for what, alone, again, whole in zip(names, session, question, together, strict=True):
        start = max(0.0, whole - alone - again)
        milliseconds = [f"{seconds * 1000:.1f}" for seconds in (alone, start, again, whole)]
        hour = f"{whole * 3600 / EACH:.1f} s" if what != "time" else ""
        rows.append([f"{name}, {what}", *milliseconds, hour])
    return rows


def _new_sessions(bench: Bench, statement: LiteralString, times: int) -> tuple[float, float, float]:
    """Seconds and CPU seconds of PostgreSQL and Neo4j for a session with one statement, on average.

    The postmaster knows what its children have taken when they have ended, and adds up more exactly than it tells.
    """
    postmaster = parent(bench.admin.info.backend_pid)
    postgresql, neo4j, began = sum(cpu_seconds(postmaster)), cpu_seconds(bench.neo4j)[0], time.perf_counter()
    for _ in range(times):
        with bench.connected() as connection:
            backend = connection.info.backend_pid
            connection.execute(statement)
        while Path(f"/proc/{backend}").exists():
            time.sleep(0.001)
    seconds = time.perf_counter() - began
    spent = sum(cpu_seconds(postmaster)) - postgresql
    return seconds / times, spent / times, (cpu_seconds(bench.neo4j)[0] - neo4j) / times


def _one_session(bench: Bench) -> tuple[float, float, float]:
    """The same for a tick in a session that has been used."""
    with bench.connected() as connection:
        connection.execute(TICK)
        with cpu_of(bench.neo4j, connection.info.backend_pid) as cpu:
            began = time.perf_counter()
            for _ in range(TICKS):
                connection.execute(TICK)
            seconds = time.perf_counter() - began
    return seconds / TICKS, cpu.ours / TICKS, cpu.neo4j / TICKS


# -- how long a change takes -------------------------------------------------------------------------------------------


def latency(bench: Bench, minutes: float, every: float) -> list[str]:
    """A tick each `every` seconds, and about once a second a change of one deal of any tenant, as lines; with the
    overlap that users have, in which a tenant that has changed is read again.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ticking = pool.submit(_tick, bench, every, stop)
        try:
            arrived = _changes(bench, time.monotonic() + minutes * 60)
        finally:
            stop.set()
        took = ticking.result()
    rows = [
        ["from the commit in Neo4j to the row, s", "p50", "p95", "most", "changes"],
        [f"a tick each {every:g} s", *_quantiles(arrived), str(len(arrived))],
        ["a tick", *_quantiles(took), str(len(took))],
    ]
    return table(rows)


def _tick(bench: Bench, every: float, stop: threading.Event) -> list[float]:
    """Ticks until it is stopped; the seconds of each. One that is due while another lasts comes after it."""
    took = []
    while not stop.is_set():
        began = time.monotonic()
        with bench.connected() as connection:
            connection.execute(TICK)
        took.append(time.monotonic() - began)
        stop.wait(max(0.0, every - took[-1]))
    return took


def _changes(bench: Bench, end: float) -> list[float]:
    """Changes deals until `end`; the seconds from each commit to the row."""
    dice = random.Random(2026)
    deals: dict[str, list[str]] = {}
    for tenant, deal in bench.admin.execute(
        "SELECT tenant_id::text, graph_opportunity_id::text FROM opportunities WHERE extraction_version IS NOT NULL"
    ):
        deals.setdefault(tenant, []).append(deal)
    names, arrived, number = sorted(deals), list[float](), 0
    waiting: dict[str, tuple[str, float]] = {}  # by the text that is written: deal, and when it was committed
    due = time.monotonic()
    while time.monotonic() < end or waiting:
        if time.monotonic() > end + PATIENCE:
            sys.exit(f"{len(waiting)} changes have not arrived in {PATIENCE} s")
        if due <= time.monotonic() < end:
            tenant = dice.choice(names)
            deal = dice.choice(deals[tenant])
            if deal not in {deal for deal, _ in waiting.values()}:
                number += 1
                text = f"Change {number} of the benchmark."
                _change(bench.driver, tenant, deal, text)
                waiting[text] = deal, time.monotonic()
            due += dice.uniform(0.5, 1.5)
        found = bench.admin.execute(
            "SELECT latest_ai_summary FROM opportunities"
            " WHERE graph_opportunity_id = ANY (%s::uuid[]) AND latest_ai_summary = ANY (%s)",
            [[deal for deal, _ in waiting.values()], list(waiting)],
        )
        for (text,) in found.fetchall():
            with suppress(KeyError):
                arrived.append(time.monotonic() - waiting.pop(text)[1])
        time.sleep(PAUSE)
    return arrived


def _change(driver: Driver, tenant: str, deal: str, text: str) -> None:
    with driver.session() as session:
        session.run(CHANGE, tenant=tenant, deal=deal, text=text).consume()


def _quantiles(seconds: list[float]) -> list[str]:
    if len(seconds) < 2:
        return ["", "", ""]
    parts = statistics.quantiles(seconds, n=20, method="inclusive")
    return [f"{value:.2f}" for value in (parts[9], parts[18], max(seconds))]
