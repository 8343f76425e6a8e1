"""Flows in: seconds, bytes, process ids. Flows out: medians, peaks, CPU seconds, and the rows of the report."""

import math
import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Target = tuple[str, float, str, float]
"""What is to be reached: its name, what was measured, a relation, what is due."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Report:
    """What a part of the benchmark found: lines to print, and rows for the table of all targets."""

    lines: list[str]
    targets: list[Target]


# -- CPU seconds -------------------------------------------------------------------------------------------------------


@dataclass
class Cpu:
    """CPU seconds of the three processes of a run; `backend` includes its threads."""

    neo4j: float = 0.0
    backend: float = 0.0
    reader: float = 0.0

    @property
    def total(self) -> float:
        return self.neo4j + self.backend + self.reader

    @property
    def ours(self) -> float:
        return self.backend + self.reader

    def over(self, times: int) -> "Cpu":
        """That of one of so many."""
        return Cpu(self.neo4j / times, self.backend / times, self.reader / times)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """utime and stime of a process with its threads, and of the children that have ended: multiples of 0.01 s."""
    values = _stat(pid)[11:15]
    own_user, own_system, childrens_user, childrens_system = (int(value) / _TICKS for value in values)
    return own_user + own_system, childrens_user + childrens_system


def parent(pid: int) -> int:
    """The process that a process was started by: a backend's is the postmaster."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, the first of which is the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextmanager
def cpu_of(neo4j: int, backend: int) -> Iterator[Cpu]:
    """The CPU seconds that Neo4j, a backend and its readers take while the block runs. A reader ends with its run."""
    cpu = Cpu()
    graph, own, readers = cpu_seconds(neo4j)[0], *cpu_seconds(backend)
    try:
        yield cpu
    finally:
        own_after, readers_after = cpu_seconds(backend)
        cpu.neo4j = cpu_seconds(neo4j)[0] - graph
        cpu.backend, cpu.reader = own_after - own, readers_after - readers


# -- memory ------------------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """The peaks of a backend and of the processes that it starts, in kB."""

    anonymous: int = 0
    children: int = 0
    high_water: int = 0

    @property
    def both(self) -> int:
        return self.anonymous + self.children


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """Sample the memory of a backend and of its children while the block runs."""
    memory, stopped = Memory(), threading.Event()

    def sample() -> None:
        while not stopped.wait(0.01):
            backend = status(pid)
            memory.anonymous = max(memory.anonymous, backend.get("RssAnon", 0))
            memory.high_water = max(memory.high_water, backend.get("VmHWM", 0))
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            memory.children = max(memory.children, sum(status(int(child)).get("RssAnon", 0) for child in children))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stopped.set()
        thread.join()


def status(pid: int) -> dict[str, int]:
    """The sizes of a process in kB; nothing when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}


# -- what is measured several times, and the rows of the report --------------------------------------------------------


@dataclass
class Run:
    """A run of the sync: its row, what it took and what it wrote; of several, one of them on average."""

    result: dict[str, Any]
    seconds: float
    cpu: Cpu
    memory: Memory
    wal: int


HEADS = ["", "seconds", "lowest, highest", "deals/s", "CPU: Neo4j", "backend", "reader", "µs/deal", "written", "WAL MB"]


@dataclass
class Measure:
    """One thing measured, several times."""

    name: str
    seconds: list[float] = field(default_factory=list)
    wal: list[int] = field(default_factory=list)
    cpu: list[Cpu] = field(default_factory=list)
    written: int | None = None

    def add(self, run: Run) -> Run:
        self.seconds.append(run.seconds)
        self.wal.append(run.wal)
        self.cpu.append(run.cpu)
        return run

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_cpu(self) -> Cpu:
        each = ("neo4j", "backend", "reader")
        return Cpu(**{name: statistics.median(getattr(cpu, name) for cpu in self.cpu) for name in each})

    def row(self, deals: int) -> list[str]:
        """Under HEADS; `deals` is what the rates refer to."""
        spread = f"{min(self.seconds):.2f} to {max(self.seconds):.2f}" if len(self.seconds) > 1 else ""
        cpu = self.median_cpu if self.cpu else None
        processes = [f"{seconds:.2f}" for seconds in (cpu.neo4j, cpu.backend, cpu.reader)] if cpu else [""] * 3
        each = f"{cpu.total / deals * 1e6:.0f}" if cpu else ""
        wal = f"{statistics.median(self.wal) / 1e6:.1f}" if self.wal else ""
        written = "" if self.written is None else str(self.written)
        rate = f"{deals / self.median:.0f}"
        return [self.name, f"{self.median:.3f}", spread, rate, *processes, each, written, wal]


def exponent(less: float, more: float, growth: float) -> str:
    """How something grows with the number of deals, which grew to `growth` times: 1 is in proportion, 0 not at all."""
    return f"{math.log(more / less) / math.log(growth):.2f}" if less > 0 and more > 0 else ""


def ratio(value: float, basis: float) -> float:
    """Of two CPU times, of which a short one may be measured as 0."""
    return value / basis if basis else math.inf if value else 1.0


def memory_row(measured: tuple[int, Memory]) -> list[str]:
    deals, memory = measured
    sizes = (memory.anonymous, memory.children, memory.both, memory.high_water)
    return [f"{deals} deals", *(f"{size / 1024:.0f}" for size in sizes)]


def memory_table(measured: Sequence[tuple[int, Memory]]) -> list[str]:
    heads = ["peak memory, MB", "backend's own", "its reader's", "both", "VmHWM"]
    return table([heads, *map(memory_row, measured)])


def target_row(target: Target) -> list[str]:
    name, value, relation, due = target
    met = value <= due if relation == "<=" else value >= due
    return [name, f"{value:.2f}", f"{relation} {due:g}", "reached" if met else "MISSED"]


def table(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    ]
