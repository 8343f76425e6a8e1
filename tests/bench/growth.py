"""Flows in: sizes of a tenant, or a number of deals of other tenants. Flows out: how the cost of a first load, of a
full and of incremental runs grows with either; without embeddings, with versions.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise

from bench.graph import TENANT, build, change
from bench.measures import HEADS, Measure, Memory, Report, Target, exponent, memory_table, ratio, table
from bench.runs import Bench, progress, tenants

CHANGED = 10
IN_A_ROW = 20  # incremental runs without changes: one of them is shorter than the clock of CPU seconds can tell
OTHERS = 10  # tenants beside the one that is measured
FIRST_OF_OTHERS = 100_000_000  # the number of their first deal: a deal's number is its id

FIRST, UNCHANGED = "first load", "full, nothing changed"
NOTHING, SOME = "incremental, nothing changed", f"incremental, {CHANGED} changed"


class Runs:
    """The four kinds of runs of the tenant."""

    def __init__(self) -> None:
        self.kinds = {name: Measure(name) for name in (FIRST, UNCHANGED, NOTHING, SOME)}
        self.memory = Memory()

    def measure(self, bench: Bench, rounds: int, changes: int, beside: bool) -> None:
        """`changes`: how often deals have been changed before; `beside`: the rows of others stay."""
        for _ in range(rounds):
            if beside:
                bench.empty_tenant()
            else:
                bench.empty()
            self.memory = self.kinds[FIRST].add(bench.sync()).memory
        bench.vacuum()
        for _ in range(rounds):
            self.kinds[UNCHANGED].add(bench.sync())
        change(bench.driver, CHANGED, changes)
        bench.sync("incremental")  # Neo4j plans its queries, and what has no timestamp is read once more
        for _ in range(rounds):
            self.kinds[NOTHING].add(bench.sync("incremental", times=IN_A_ROW))
        for number in range(rounds):
            expected = change(bench.driver, CHANGED, changes + 1 + number)
            updated = self.kinds[SOME].add(bench.sync("incremental")).result["deals_updated"]
            if updated != expected:
                sys.exit(f"{expected} deals were changed, a run updated {updated}")


def scale(bench: Bench, sizes: Sequence[int], rounds: int) -> Report:
    """A tenant that grows from one size to the next."""
    runs: dict[int, Runs] = {}
    built, targets = 0, list[Target]()
    for place, size in enumerate(sizes):
        progress(f"building {size} deals")
        build(bench.driver, built, size, embeddings=False)
        built = size
        bench.index()
        if place == 0:
            bench.sync()  # Neo4j's plans, and the machine's caches
        progress(f"runs of {size} deals")
        runs[size] = Runs()
        runs[size].measure(bench, rounds, place * (rounds + 1), beside=False)
    rows = [HEADS]
    for size in sizes:
        rows += [[f"{size}: {name}", *part.row(size)[1:]] for name, part in runs[size].kinds.items()]
    exponents = [["exponent of", *(f"{less} to {more}: time" + " " * 4 + "CPU" for less, more in pairwise(sizes))]]
    for name in runs[sizes[0]].kinds:
        exponents.append([name, *(_exponents(runs, name, less, more) for less, more in pairwise(sizes))])
    for less, more in pairwise(sizes):
        one, other, growth = runs[less], runs[more], more / less
        times = {name: other.kinds[name].median / one.kinds[name].median for name in one.kinds}
        targets += [
            (f"first load, {more} / {less} deals", times[FIRST], "<=", round(1.1 * growth, 2)),
            (f"incremental, nothing changed, {more} / {less} deals", times[NOTHING], "<=", 1.3),
            (f"peak memory, {more} / {less} deals", other.memory.both / one.memory.both, "<=", 1.1),
        ]
    memories = [(size, runs[size].memory) for size in sizes]
    lines = [f"one tenant without embeddings, medians of {rounds}", "", *table(rows), ""]
    if len(sizes) > 1:
        lines += [*table(exponents), ""]
    return Report([*lines, *memory_table(memories)], targets)


def _exponents(runs: dict[int, Runs], name: str, less: int, more: int) -> str:
    one, other, growth = runs[less].kinds[name], runs[more].kinds[name], more / less
    of_time = exponent(one.median, other.median, growth)
    return f"{of_time}  {exponent(one.median_cpu.total, other.median_cpu.total, growth):>5}"


def beside(bench: Bench, deals: int, others: int, rounds: int) -> Report:
    """A tenant alone, and beside the deals of others."""
    progress(f"building {deals} deals")
    build(bench.driver, 0, deals, embeddings=False)
    bench.index()
    bench.sync()  # Neo4j's plans, and the machine's caches
    progress("runs alone")
    alone, among = Runs(), Runs()
    alone.measure(bench, rounds, 0, beside=False)
    progress(f"building {others} deals of others")
    names = tenants(OTHERS)
    bench.add_tenants(names)
    for number, tenant in enumerate(names):
        first = FIRST_OF_OTHERS + number * others
        build(bench.driver, first, first + others // OTHERS, tenant, embeddings=False)
        bench.sync(tenant=tenant)
    bench.vacuum()
    bench.sync(tenant=TENANT)
    progress(f"runs beside {others} deals")
    among.measure(bench, rounds, rounds + 1, beside=True)
    rows, ratios = [HEADS], [["beside / alone", "time", "CPU", "Neo4j", "backend", "reader"]]
    targets: list[Target] = []
    for name, one in alone.kinds.items():
        other = among.kinds[name]
        rows += [[f"{name}, alone", *one.row(deals)[1:]], [f"{name}, beside", *other.row(deals)[1:]]]
        cpu, more = one.median_cpu, other.median_cpu
        grown = [ratio(getattr(more, each), getattr(cpu, each)) for each in ("total", "neo4j", "backend", "reader")]
        ratios.append([name, f"{other.median / one.median:.2f}", *(f"{each:.2f}" for each in grown)])
        if name != SOME:
            targets.append((f"{name}: CPU beside {others} of others / alone", grown[0], "<=", 1.1))
    heading = f"{deals} deals without embeddings, alone and beside {others} of {OTHERS} tenants, medians of {rounds}"
    return Report([heading, "", *table(rows), "", *table(ratios)], targets)
