"""Flows in: a number of deals. Flows out: what a load, a full and an incremental run of one tenant cost, compared with
what they cannot do without (the read, the MERGE) and with a plain external script.
"""

import operator
import sys
from functools import partial
from typing import Any

from bench import reading
from bench.floors import Floors
from bench.graph import build, change
from bench.measures import HEADS, Measure, Memory, Report, Target, memory_table, ratio, table
from bench.runs import Bench, progress, tenants


class Load:
    """The parts of the measurement, in their order."""

    def __init__(self, bench: Bench, deals: int, rounds: int) -> None:
        self.bench, self.floors, self.deals, self.rounds = bench, Floors(bench), deals, rounds
        self.read, self.merge = Measure("(a) read only"), Measure("(b) MERGE only")
        self.script = Measure("(c) external script")
        self.first, self.unchanged = Measure("sync, first load"), Measure("full, nothing changed")
        self.floor = Measure("(d) read only, without embeddings")
        self.reconcile, self.differences = Measure("reconcile"), Measure("differences")
        names = {0: "nothing", 1: "1", 100: "100", deals // 100: "1 %"}
        self.incremental = {amount: Measure(f"incremental, {name} changed") for amount, name in names.items()}
        self.memories: list[tuple[int, Memory]] = []

    def loads(self) -> None:
        """Everything that begins with empty tables, in turn."""
        bench = self.bench
        bench.sync()  # Neo4j's page cache and plans, and the machine's
        self.floors.keep_staged()
        for number in range(1, self.rounds + 1):
            progress(f"round {number} of {self.rounds}")
            seconds, cpu = self.floors.read()
            self.read.seconds.append(seconds)
            self.read.cpu.append(cpu)

            bench.empty()
            (seconds, cpu), wal = bench.wal_of(self.floors.merge)
            self.merge.seconds.append(seconds)
            self.merge.cpu.append(cpu)
            self.merge.wal.append(wal)

            bench.empty()
            seconds, wal = bench.wal_of(self.floors.script)
            self.script.seconds.append(seconds)
            self.script.wal.append(wal)
            if number == 1:
                bench.remember("by_script")

            bench.empty()
            run = self.first.add(bench.sync())
            self.memories = [(self.deals, run.memory)]
            written = ("deals_inserted", "versions_inserted", "links_inserted")
            self.first.written = sum(run.result[name] for name in written)
            if number == 1:
                bench.remember("by_sync")
                if different := bench.differences("by_script", "by_sync"):
                    sys.exit(f"the external script and the sync differ in {different} rows: the comparison is void")

    def full_runs(self) -> None:
        """Full runs and comparisons of what has been loaded."""
        bench = self.bench
        bench.vacuum()
        for _ in range(self.rounds):
            transaction = bench.next_transaction()
            self.unchanged.add(bench.sync())
            self.unchanged.written = bench.rows_written_since(transaction)
        for _ in range(self.rounds):
            self.floor.seconds.append(self.floors.read(embeddings=False)[0])
            for part, alike in ((self.reconcile, all_match), (self.differences, operator.not_)):
                transaction = bench.next_transaction()
                seconds, wal = bench.wal_of(partial(bench.compare, part.name, alike))
                part.seconds.append(seconds)
                part.wal.append(wal)
                part.written = bench.rows_written_since(transaction)

    def incremental_runs(self) -> None:
        """Incremental runs without and with changes."""
        change(self.bench.driver, 1, 0)
        self.bench.sync("incremental")  # Neo4j plans its queries, and what has no timestamp is read once more
        for amount, part in self.incremental.items():
            for number in range(self.rounds):
                expected = change(self.bench.driver, amount, number) if amount else 0
                part.written = part.add(self.bench.sync("incremental")).result["deals_updated"]
                if part.written != expected:
                    sys.exit(f"{expected} deals were changed, a run updated {part.written}")

    def at_once(self) -> list[str]:
        """First loads of several tenants side by side, as lines."""
        four, each = tenants(4), self.deals // 4
        self.bench.add_tenants(four)
        for number, tenant in enumerate(four):
            build(self.bench.driver, (number + 10) * self.deals, (number + 10) * self.deals + each, tenant)
        rows = [["tenants at once", "seconds", "deals/s"]]
        for amount in (1, 2, 4):
            progress(f"{amount} tenants at once")
            self.bench.empty()
            seconds = self.bench.side_by_side(four[:amount])
            rows.append([str(amount), f"{seconds:.2f}", f"{amount * each / seconds:.0f}"])
        return table(rows)

    def twice(self) -> Measure:
        """A first load of twice as many deals."""
        progress(f"{2 * self.deals} deals")
        build(self.bench.driver, self.deals, 2 * self.deals)
        self.bench.empty()
        part = Measure(f"sync, first load of {2 * self.deals}")
        self.memories.append((2 * self.deals, part.add(self.bench.sync()).memory))
        return part

    def parts(self) -> list[Measure]:
        several = (self.read, self.merge, self.script, self.first, self.unchanged, *self.incremental.values())
        return [*several, self.floor, self.reconcile, self.differences]

    def targets(self) -> list[Target]:
        first, cpu = self.first.median, self.first.median_cpu
        return [
            ("first load / max((a), (b))", first / max(self.read.median, self.merge.median), "<=", 1.5),
            ("first load: CPU of reader and backend / of Neo4j", ratio(cpu.ours, cpu.neo4j), "<=", 1.5),
            ("(c) / first load", self.script.median / first, ">=", 7),
            ("full, nothing changed / (a)", self.unchanged.median / self.read.median, "<=", 1.5),
            ("full, nothing changed: rows written", float(self.unchanged.written or 0), "<=", 0),
            ("full, nothing changed: WAL, MB", max(self.unchanged.wal) / 1e6, "<=", 1),
            ("incremental, 100 changed: seconds", self.incremental[100].median, "<=", 0.3),
            ("reconcile: seconds", self.reconcile.median, "<=", 1),
        ]


def measure(bench: Bench, deals: int, rounds: int, double: bool) -> Report:
    progress(f"building {deals} deals")
    build(bench.driver, 0, deals)
    bench.index()
    load = Load(bench, deals, rounds)
    load.loads()
    load.full_runs()
    load.incremental_runs()
    at_once = load.at_once()
    lines = [f"{deals} deals, two embeddings of 1536 floats each, medians of {rounds}", ""]
    targets = load.targets()
    rows = [HEADS, *(part.row(deals) for part in load.parts())]
    progress("reading by SQL")
    reading_rows = reading.measure(bench.admin, bench.driver, rounds)
    if double:
        rows.append(load.twice().row(2 * deals))
        (_, once), (_, twice) = load.memories
        targets.append((f"peak memory at {2 * deals} / at {deals}", twice.both / once.both, "<=", 1.1))
    lines += table(rows)
    lines.append(f"besides, the first call of a backend: {bench.first_call.median:.2f} s")
    lines.append(f"reconcile / (d): {load.reconcile.median / load.floor.median:.2f}")
    return Report([*lines, "", *at_once, "", *table(reading_rows), "", *memory_table(load.memories)], targets)


def all_match(counts: list[tuple[Any, ...]]) -> bool:
    """Whether reconcile() found every node and every row to match: in_graph, in_postgres and matching come first."""
    return all(in_graph == in_postgres == matching for _, in_graph, in_postgres, matching, *_ in counts)
