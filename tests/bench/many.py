"""Flows in: many small tenants and a large one. Flows out: what sync_all() costs if none and if three of them have
changed, what a schedule costs while nothing happens, and how long a change takes from the graph to the table.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bench import ticks
from bench.floors import Floors
from bench.graph import build, change
from bench.measures import HEADS, Measure, Memory, Report, Run, cpu_of, table
from bench.runs import NOBODY, Bench, Connection, progress, tenants

CHANGED = 3
JOBS = (1, 2, 4)
IN_A_ROW = 20  # runs of a small tenant in one session


@dataclass(frozen=True)
class Sizes:
    """So many small tenants of so many deals each, and one large tenant."""

    tenants: int
    small: int
    large: int

    @property
    def deals(self) -> int:
        return self.tenants * self.small + self.large


def sync_all(bench: Bench, connection: Connection) -> Run:
    """A sync_all() in this session; of its result, how many runs there were and how many deals they updated."""
    latest = bench.one("SELECT clock_timestamp()")
    with cpu_of(bench.neo4j, connection.info.backend_pid) as cpu:
        began = time.perf_counter()
        _, wal = bench.wal_of(lambda: connection.execute(ticks.TICK))
        seconds = time.perf_counter() - began
    runs: dict[str, Any] = bench.one(
        "SELECT jsonb_build_object('runs', count(*), 'good', count(*) FILTER (WHERE r.status = 'ok'),"
        " 'updated', coalesce(sum(r.deals_updated), 0)) FROM deal_sync.runs AS r WHERE r.started_at >= $1",
        latest,
    )
    if runs["runs"] != runs["good"]:
        sys.exit(f"{runs['runs'] - runs['good']} runs of sync_all() were not ok")
    return Run(runs, seconds, cpu, Memory(), wal)


class Many:
    """What is measured of them, in its order."""

    def __init__(self, bench: Bench, sizes: Sizes, rounds: int) -> None:
        self.bench, self.sizes, self.rounds = bench, sizes, rounds
        *self.small, self.large = tenants(sizes.tenants + 1)
        self.first = Measure("sync_all, first loads")
        self.nothing = Measure("sync_all, nothing changed")
        self.three = Measure(f"sync_all, {CHANGED} tenants changed")
        self.changed = Measure("one small tenant, changed")
        self.unchanged = Measure("one small tenant, nothing changed")
        self.question = 0.0
        self._changes = 0

    def build(self, tenants: list[UUID], deals: int) -> None:
        """Adds tenants with so many deals each."""
        self.bench.add_tenants(tenants)
        for tenant in tenants:
            start = (tenant.int - NOBODY.int) * 1_000_000
            build(self.bench.driver, start, start + deals, tenant, embeddings=False)

    def runs(self) -> None:
        """sync_all() and runs of one small tenant, in a session that has been used."""
        bench = self.bench
        bench.empty()
        with bench.connected() as connection:
            connection.execute("SET deal_sync.overlap = '0s'")
            bench.timed(connection, NOBODY, "full")
            self._forget_nobody()
            progress("first loads")
            self.first.written = self.first.add(sync_all(bench, connection)).result["runs"]
            bench.vacuum()
            self._change(self.small[:1])
            sync_all(bench, connection)  # Neo4j plans its queries, and what has no timestamp is read once more
            progress("sync_all")
            for _ in range(self.rounds):
                self.nothing.written = self.nothing.add(sync_all(bench, connection)).result["runs"]
            for _ in range(self.rounds):
                self._change(self.small[:CHANGED])
                run = self.three.add(sync_all(bench, connection))
                self.three.written = run.result["runs"]
                if run.result["updated"] != min(CHANGED, len(self.small)):
                    sys.exit(f"{CHANGED} deals of {CHANGED} tenants were changed, sync_all() updated {run.result}")
            for _ in range(CHANGED * self.rounds):
                self._change(self.small[:1])
                result, seconds = bench.timed(connection, self.small[0], "incremental")
                self.changed.seconds.append(seconds)
                if result["deals_updated"] != 1:
                    sys.exit(f"1 deal was changed, a run updated {result}")
        self.unchanged.add(bench.sync("incremental", self.small[0], IN_A_ROW))
        self._forget_nobody()
        self.question = Floors(bench).question(self.small[0])

    def jobs(self) -> list[str]:
        """First loads of all tenants by several sessions that share them, as the jobs of a schedule, as lines."""
        bench, rows = self.bench, [["jobs", "seconds", "tenants/s"]]
        for amount in JOBS:
            progress(f"{amount} jobs")
            bench.empty()
            with ExitStack() as stack, ThreadPoolExecutor(amount) as pool:
                sessions = [stack.enter_context(bench.connected()) for _ in range(amount)]
                began = time.perf_counter()
                list(pool.map(lambda session: session.execute(ticks.SHARED), sessions))
                seconds = time.perf_counter() - began
            found = bench.admin.execute("SELECT status, count(*) FROM deal_sync.runs GROUP BY status").fetchall()
            if found != [("ok", self.sizes.tenants + 1)]:
                sys.exit(f"{amount} jobs left these runs: {found}")
            rows.append([str(amount), f"{seconds:.1f}", f"{(self.sizes.tenants + 1) / seconds:.1f}"])
        return table(rows)

    def _forget_nobody(self) -> None:
        """Or sync_all() would sync it, too, since it has been synced before."""
        self.bench.one("SELECT deal_sync.forget($1)", NOBODY)

    def _change(self, tenants: list[UUID]) -> None:
        """Changes a deal of each, the next one at each call."""
        deals = self.sizes.small * 9 // 10  # the others have no version, and are never changed
        for tenant in tenants:
            change(self.bench.driver, 1, self._changes % deals, tenant)
        self._changes += 1

    def rows(self) -> list[list[str]]:
        """What HEADS calls written is the number of runs here, and deals/s are tenants/s."""
        heads = [{"deals/s": "tenants/s", "µs/deal": "µs/tenant", "written": "runs"}.get(name, name) for name in HEADS]
        several = (self.first, self.nothing, self.three)
        alone = (self.changed, self.unchanged)
        return [heads, *(part.row(self.sizes.tenants + 1) for part in several), *(part.row(1) for part in alone)]


def measure(bench: Bench, sizes: Sizes, rounds: int, minutes: float, every: float) -> Report:
    many = Many(bench, sizes, rounds)
    progress("one tenant")
    many.build(many.small[:1], sizes.small)
    bench.index()
    idle = [ticks.HEADS, *ticks.idle(bench, "1 tenant")]
    progress(f"building {sizes.tenants} small tenants and a large one, {sizes.deals} deals")
    many.build(many.small[1:], sizes.small)
    many.build([many.large], sizes.large)
    many.runs()
    together = many.jobs()
    progress("ticks without changes")
    idle += ticks.idle(bench, f"{sizes.tenants + 1} tenants")
    progress(f"latency, for {minutes:g} minutes")
    latency = ticks.latency(bench, minutes, every)
    runs = many.three.median / (CHANGED * many.changed.median)
    session = many.unchanged.median / many.question
    heading = f"{sizes.tenants} tenants of {sizes.small} deals and one of {sizes.large}, without embeddings"
    lines = [
        *(f"{heading}, medians of {rounds}", "", *table(many.rows())),
        f"what a run asks if nothing has changed, by the driver alone: {many.question * 1000:.1f} ms",
        *("", *together, "", *table(idle), "", *latency),
    ]
    return Report(
        lines,
        [
            (f"tenant of {sizes.small}, nothing changed, in one session / its question alone", session, "<=", 3),
            (f"sync_all, {CHANGED} of {sizes.tenants + 1} tenants changed / {CHANGED} runs", runs, "<=", 2),
        ],
    )
