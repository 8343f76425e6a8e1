"""Flows in: the checkout's path and the user. Flows out: where everything is, and commands run as the right user."""

import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

# Outside the checkout, because user postgres must read it and a home directory is often closed to others.
STATE = Path(
    os.environ.get("DEAL_SYNC_STATE")
    or f"/var/tmp/deal_sync-{os.getuid()}-{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]}"
)
VENV = STATE / "venv"  # what the server's Python imports: the package and what it needs, nothing else
DEV = STATE / "dev"  # tests and linters
NEO4J = STATE / "neo4j"
INSTANCES = STATE / "instances"
LOCALES = STATE / "locales"

# initdb and postgres refuse to run as root; Neo4j need not run as root either.
SERVER_USER = "postgres" if os.geteuid() == 0 else None
SERVER_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "LOCPATH": str(LOCALES),
    "PATH": f"{VENV}/bin:/usr/bin:/bin",
    "DEAL_SYNC_FLOATS": os.environ.get("DEAL_SYNC_FLOATS", ""),
}


class SetupError(Exception):
    """What a person has to do, in words; shown without a traceback."""


def say(message: str) -> None:
    print(f"deal_sync: {message}", file=sys.stderr, flush=True)


def make_state() -> None:
    """Create the state directory; /var/tmp is everybody's, so reject one that another user put there."""
    STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = STATE.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SetupError(f"{STATE} is not a directory of yours; set DEAL_SYNC_STATE to another one")
    for directory in (NEO4J, INSTANCES):
        directory.mkdir(exist_ok=True)


@contextmanager
def locked() -> Iterator[None]:
    """One set-up, start or stop at a time in this state directory."""
    make_state()
    with (STATE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], **options: object) -> str:
    """Run a command, return its standard output; on failure say what it wrote."""
    result = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if result.returncode != 0:
        raise SetupError(f"failed: {' '.join(map(str, command))}\n{result.stdout[-5000:]}")
    return str(result.stdout)


def as_server(**options: object) -> dict[str, object]:
    """The options of subprocess that make a command run as the servers' user, with nothing of our environment."""
    groups: list[int] | None = [] if SERVER_USER else None
    return {
        "user": SERVER_USER,
        "group": SERVER_USER,
        "extra_groups": groups,
        "cwd": "/",
        "env": SERVER_ENVIRONMENT,
        **options,
    }


def is_current(stamp: Path, content: str) -> bool:
    """Whether the step that wrote this stamp was done for the same input."""
    return stamp.exists() and stamp.read_text() == content


def fingerprint(*paths: Path) -> str:
    """A hash of the names and contents of all files below the paths."""
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()
