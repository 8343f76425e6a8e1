"""Flows in: PostgreSQL's log of the whole run. Flows out: the lines that tell of a crash."""

import re
from pathlib import Path

FREED = "generator already executing"  # Python freed a generator while it ran: now and then, that is a crash
CRASH = re.compile(rf"was terminated by signal (?P<signal>\d+)|PANIC: |{FREED}")
KILLS = ("9", "15")


class ServerLog:
    """The log from now on. A crashed backend takes all others with it, and the test that caused it may still pass."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kills_announced = False
        self._start = path.stat().st_size

    def crashes(self) -> list[str]:
        with self.path.open("rb") as log:
            log.seek(self._start)
            lines = log.read().decode(errors="replace").splitlines()
        found = [(line, match) for line in lines if (match := CRASH.search(line))]
        return [line for line, match in found if not (self.kills_announced and match["signal"] in KILLS)]
