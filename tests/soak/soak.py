"""Flows in: some minutes. Flows out: a report of syncs by pg_cron, every minute, while writers change the graph and
servers fail and come back; and exit status 1 if the tables are not what the graph is at the end.
"""

import argparse
import os
import signal
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, LiteralString

import psycopg
from bench.graph import build, clear, index
from bench.measures import table
from environment import database
from environment.servers import Instance, claimed
from neo4j import GraphDatabase
from soak.writers import SLOWEST, Writers
from support.graph import Graph

HOME = "deal_sync"  # cron.database_name of every instance
WRITER = "app_writer"
WIDTH = 120
AWAY = 75  # seconds without Neo4j: one tick at least falls into them
TICK = timedelta(minutes=1)
PATIENCE = 240  # seconds for what the next ticks bring

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Fault:
    """Something that was broken: when, and from when on nothing of it was left but what it had broken."""

    name: str
    at: datetime
    over: datetime


class Soak:
    """A database that pg_cron syncs, a graph with some tenants, and what is done to both."""

    def __init__(self, instance: Instance, graph: Graph, tenants: Sequence[uuid.UUID], random: Random) -> None:
        self.instance, self.graph, self.tenants, self.random = instance, graph, tenants, random
        self.began = now()
        self.faults: list[Fault] = []

    def set_up(self, deals: int, overlap: int) -> None:
        """The README's steps, a graph, and a job that runs every minute as the application's own role."""
        progress(f"{len(self.tenants)} tenants with {deals} deals each")
        clear(self.graph.driver)
        for number, tenant in enumerate(self.tenants):
            build(self.graph.driver, number * deals, (number + 1) * deals, tenant)
        database.empty(self.instance, HOME)
        database.set_up(self.instance, HOME)
        with psycopg.connect(self.instance.dsn(HOME), autocommit=True) as connection:
            index(self.graph.driver, connection)
        self.ask("TRUNCATE cron.job_run_details")
        self.ask(f"GRANT USAGE ON SCHEMA cron TO {WRITER}")
        self.ask(f"ALTER DATABASE {HOME} SET deal_sync.overlap = '{overlap}s'")
        for tenant in self.tenants:
            self.ask("INSERT INTO tenants (id, name) VALUES (%s, 'of the soak')", tenant)
        self.ask("SELECT deal_sync.schedule('* * * * *', nightly => NULL)", user=WRITER)
        self.began = now()

    def ask(self, query: str, *arguments: Any, user: str = "postgres") -> Rows:
        """One statement in a session of its own: none survives what is done to the servers."""
        with psycopg.connect(self.instance.dsn(HOME, user), autocommit=True) as connection:
            cursor = connection.execute(query.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    # What is done to the servers

    def terminate_backend(self) -> datetime:
        pid, at = self.run_under_way()
        self.ask("SELECT pg_terminate_backend(%s, %s)", pid, PATIENCE * 1000)  # waits until it has ended
        return at

    def kill_backend(self) -> datetime:
        """PostgreSQL cannot know what such a backend left in shared memory: it ends all others, and recovers."""
        pid, at = self.run_under_way()
        os.kill(pid, signal.SIGKILL)
        self.await_postgresql()
        return at

    def restart_postgresql(self) -> datetime:
        _, at = self.run_under_way()
        self.instance.restart_postgresql()
        return at

    def stop_neo4j(self) -> datetime:
        at = now()
        self.instance.stop_neo4j()
        time.sleep(AWAY)
        self.instance.start_neo4j_again()
        return at

    def run_under_way(self) -> tuple[int, datetime]:
        """Wait for a run that is reading or landing nodes, and be somewhere in it, or in the next tenant's; return its
        backend's process id, and when that was."""
        query: LiteralString = "SELECT pid FROM deal_sync.progress WHERE phase <> 'set-up'"
        deadline = time.monotonic() + PATIENCE
        with psycopg.connect(self.instance.dsn(HOME), autocommit=True) as connection:
            while time.monotonic() < deadline:
                if connection.execute(query).fetchone():
                    time.sleep(self.random.uniform(0, 0.5))
                    if found := connection.execute(query).fetchone():
                        return int(found[0]), now()
                time.sleep(0.01)
        raise SystemExit("no run was met")

    def await_postgresql(self) -> None:
        deadline = time.monotonic() + PATIENCE
        time.sleep(0.5)  # until the postmaster has taken note
        while True:
            try:
                self.ask("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def do(self, name: str, what: Callable[[], datetime]) -> None:
        """Break something: `what` returns the moment when it did, and returns when it is over."""
        progress(f"{self.clock(now())} next: {name}")
        at = what()
        self.faults.append(Fault(name, at, now()))
        progress(f"{self.clock(at)} {name}, over at {self.clock(now())}")

    def live(self, seconds: float) -> None:
        """So long; in it each fault once, or twice if there is time."""
        faults: list[tuple[str, Callable[[], datetime]]] = [
            ("backend terminated in mid-run", self.terminate_backend),
            ("backend killed (SIGKILL) in mid-run", self.kill_backend),
            (f"Neo4j stopped for {AWAY} s", self.stop_neo4j),
            ("PostgreSQL restarted (fast) in mid-run", self.restart_postgresql),
        ]
        due = faults * (2 if seconds >= 12 * 60 else 1)
        begin = time.monotonic()
        for number, (name, what) in enumerate(due):
            time.sleep(max(0.0, begin + (number + 0.5) * seconds / len(due) - time.monotonic()))
            self.do(name, what)
        time.sleep(max(0.0, begin + seconds - time.monotonic()))

    def await_ticks(self, since: datetime, ticks: int) -> None:
        """Until pg_cron has brought each tenant so many good runs that began since then."""
        query = (
            "SELECT count(*) FROM (SELECT FROM deal_sync.runs WHERE started_at > %s AND status IN ('ok', 'partial')"
            " GROUP BY tenant_id HAVING count(*) >= %s) AS done"
        )
        deadline = time.monotonic() + PATIENCE
        while self.ask(query, since, ticks)[0][0] < len(self.tenants) and time.monotonic() < deadline:
            time.sleep(1)
        self.ask("SELECT deal_sync.unschedule()", user=WRITER)

    # What came of it

    def clock(self, at: datetime) -> str:
        seconds = int((at - self.began).total_seconds())
        return f"{seconds // 60:02}:{seconds % 60:02}"

    def ticks(self) -> list[str]:
        """What pg_cron did, and what the runs did."""
        query = "SELECT status, count(*) FROM cron.job_run_details GROUP BY status ORDER BY status"
        jobs: dict[str, int] = dict(self.ask(query))
        minutes = (now() - self.began) / TICK
        lines = [f"pg_cron: {sum(jobs.values())} ticks in {minutes:.1f} minutes: {counts(jobs)}", ""]
        runs = self.ask(
            "SELECT mode, status, count(*), sum(deals_read), sum(deals_inserted), sum(deals_updated),"
            " sum(versions_inserted), sum(links_inserted) FROM deal_sync.runs GROUP BY mode, status ORDER BY 1, 2"
        )
        heads = ["runs", "status", "number", "deals read", "inserted", "updated", "versions", "links"]
        return [*lines, *table([heads, *([str(cell) for cell in row] for row in runs)])]

    def broken(self, fault: Fault) -> tuple[Rows, Rows]:
        """The ticks and the runs that failed by a fault: those that began in the minute before it, or while it was, and
        after the fault before it."""
        before = [other.over for other in self.faults if other.over < fault.at]
        between = (max([fault.at - TICK, *before]), fault.over)
        jobs = self.ask(
            "SELECT start_time, status, return_message FROM cron.job_run_details"
            " WHERE status <> 'succeeded' AND start_time BETWEEN %s AND %s ORDER BY start_time",
            *between,
        )
        runs = self.ask(
            "SELECT tenant_id, message FROM deal_sync.runs"
            " WHERE status = 'failed' AND started_at BETWEEN %s AND %s ORDER BY started_at",
            *between,
        )
        return jobs, runs

    def healed(self, fault: Fault) -> Rows:
        """Each tenant's first good run that began when the fault was over: its mode, beginning and end."""
        return self.ask(
            "SELECT DISTINCT ON (tenant_id) mode, started_at, started_at + seconds * interval '1 second'"
            " FROM deal_sync.runs WHERE status IN ('ok', 'partial') AND started_at > %s ORDER BY tenant_id, started_at",
            fault.over,
        )

    def healing(self, wrong: list[str]) -> list[str]:
        """A row for each fault, and below it what was reported."""
        heads = ["fault", "at", "over at", "ticks failed", "runs failed", "each tenant healthy again at", "by its"]
        rows, words = [heads], []
        for fault in self.faults:
            jobs, runs = self.broken(fault)
            healed = self.healed(fault)
            if not jobs and not runs:
                wrong.append(f"nothing failed by: {fault.name}")
            if len(healed) < len(self.tenants):
                wrong.append(f"not every tenant was healthy again after: {fault.name}")
            ends = ", ".join(self.clock(end) for _, _, end in healed)
            # pg_cron's ticks are the minutes; the one in which the fault was over has begun before.
            by = {f"{minute(start) - minute(fault.over)}. tick, {mode}" for mode, start, _ in healed}
            cells = [str(len(jobs)), str(len(runs)), ends, "; ".join(sorted(by))]
            rows.append([fault.name, self.clock(fault.at), self.clock(fault.over), *cells])
            words += [f"{self.clock(fault.at)} {fault.name}"]
            words += [f"  pg_cron, {self.clock(start)}: {status}: {shortened(said)}" for start, status, said in jobs]
            words += [f"  runs, {times} times: {said}" for said, times in Counter(said for _, said in runs).items()]
        wrapped = [line for word in words for line in textwrap.wrap(word, WIDTH, subsequent_indent="      ")]
        return [*table(rows), "", *wrapped]

    def compared(self, wrong: list[str]) -> list[str]:
        """What reconcile says of each tenant, what differences() does with the embeddings, and a full run on trial."""
        heads = ["tenant, kind", "in graph", "in tables", "matching", "differing", "missing", "extra", "rejected"]
        rows, lines = [heads], []
        for number, tenant in enumerate(self.tenants, start=1):
            query = (
                "SELECT kind, in_graph, in_postgres, matching, differing, missing, extra, rejected"
                " FROM deal_sync.reconcile(%s)"
            )
            for kind, *figures in self.ask(query, tenant, user=WRITER):
                rows.append([f"{number} {kind}", *map(str, figures)])
                if figures[3] or figures[4]:
                    wrong.append(f"tenant {number}: {figures[3]} {kind} differ, {figures[4]} are missing")
            query = (
                "SELECT kind, graph_id, column_name, graph_value, table_value FROM deal_sync.differences(%s, true)"
                " WHERE column_name <> '' OR table_value IS NULL"
            )
            found = self.ask(query, tenant, user=WRITER)
            lines += [f"tenant {number}, differs: {one_line(str(row))}"[:WIDTH] for row in found[:20]]
            if found:
                wrong.append(f"tenant {number}: {len(found)} values differ, embeddings included")
            query = (
                "SELECT status, deals_inserted + deals_updated + deals_adopted + versions_inserted + links_inserted"
                " FROM sync_deals(%s, mode => 'full', dry_run => true)"
            )
            [(status, written)] = self.ask(query, tenant, user=WRITER)
            lines.append(f"tenant {number}: a full run would be {status} and write {written} rows")
            if status not in ("ok", "partial") or written:
                wrong.append(f"tenant {number}: a full run would still write {written} rows ({status})")
            [(state,)] = self.ask("SELECT state FROM deal_sync.tenant_status WHERE tenant_id = %s", tenant)
            if state != "up to date":
                wrong.append(f"tenant {number} is {state}")
        return [*table(rows), "", *lines]


def minute(at: datetime) -> int:
    return int(at.timestamp()) // 60


def now() -> datetime:
    return datetime.now(UTC)


def counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in Counter(numbers).most_common()) or "none"


def shortened(said: str | None) -> str:
    """What the server said of a job, without the functions in which it was."""
    return one_line(said).partition(" CONTEXT: ")[0]


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def progress(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


def soak(instance: Instance, arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The lines of the report, and what is wrong."""
    auth = (instance.facts["neo4j_user"], instance.facts["neo4j_password"])
    with GraphDatabase.driver(instance.facts["neo4j_uri"], auth=auth, notifications_min_severity="OFF") as driver:
        graph = Graph(driver)
        tenants = [uuid.UUID(int=0x50AC << 112 | 4 << 76 | 8 << 60 | n + 1) for n in range(arguments.tenants)]
        run = Soak(instance, graph, tenants, Random(arguments.seed))
        run.set_up(arguments.deals, arguments.overlap)
        writers = Writers(graph, tenants, arguments.writers, arguments.rate, arguments.seed)
        writers.start()
        run.live(arguments.minutes * 60)
        ended = writers.stop()
        stopped = now()
        progress(f"{run.clock(stopped)} the writers have stopped, two more ticks")
        run.await_ticks(stopped, 2)
        wrong = [f"{ended} writers ended by themselves"] if ended else []
        wrote = [
            f"writers: {len(tenants) * arguments.writers}, {writers.done.total()} changes: {counts(writers.done)}",
            f"errors of Neo4j that they met and outlived: {counts(writers.failed)}",
        ]
        lines = [line for text in wrote for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
        return [*lines, *run.ticks(), "", *run.healing(wrong), "", *run.compared(wrong)], wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="from 12 on each fault comes twice")
    parser.add_argument("--tenants", type=int, default=3)
    parser.add_argument("--deals", type=int, default=2000, help="of each tenant at the beginning")
    parser.add_argument("--writers", type=int, default=2, help="threads for each tenant")
    parser.add_argument("--rate", type=float, default=3, help="changes a second of each writer, about")
    parser.add_argument(
        "--overlap", type=int, default=120, help=f"seconds; a moment may lie {SLOWEST:.0f} before its commit"
    )
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    if arguments.overlap < SLOWEST + 10:
        parser.error(f"--overlap must be {SLOWEST + 10:.0f} at least: the writers' clocks and commits are that late")
    with claimed("soak") as instance:
        lines, wrong = soak(instance, arguments)
    print("\n".join(lines))
    print("\n".join(f"WRONG: {what}" for what in wrong) or "nothing is missing, nothing differs, all are up to date")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
