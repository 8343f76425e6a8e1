"""Flows in: seconds, bytes, the process id of a backend. Flows out: medians, peaks, and the rows of the report."""

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Measure:
    """One thing measured, several times."""

    name: str
    seconds: list[float] = field(default_factory=list)
    wal: list[int] = field(default_factory=list)
    written: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self, deals: int) -> list[str]:
        spread = f"{min(self.seconds):.2f} to {max(self.seconds):.2f}" if len(self.seconds) > 1 else ""
        wal = f"{statistics.median(self.wal) / 1e6:.1f}" if self.wal else ""
        written = "" if self.written is None else str(self.written)
        return [self.name, f"{self.median:.2f}", spread, f"{deals / self.median:.0f}", written, wal]


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


def memory_row(measured: tuple[int, Memory]) -> list[str]:
    deals, memory = measured
    sizes = (memory.anonymous, memory.children, memory.both, memory.high_water)
    return [f"{deals} deals", *(f"{size / 1024:.0f}" for size in sizes)]


def target_row(target: tuple[str, float, str, float]) -> list[str]:
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
