"""Flows in: neo4j_deals.sync.process, a parent that terminates. Flows out: the process ends, which is not taken for a
crash.

What it reads, and how cancel and termination end it, is tested in tests/fdw/graph/test_reader.py.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

PARENT = """
import socket, time
from neo4j_deals.sync.process import _start
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
print(_start(theirs.fileno()).pid, flush=True)
time.sleep(60)
"""


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def test_a_process_whose_backend_is_gone_exits_with_a_status_that_no_postmaster_takes_for_a_crash() -> None:
    """In a container the postmaster is process 1, whose children orphans become: status 0 and 1 are no crash to it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        with subprocess.Popen(
            [sys.executable, "-c", PARENT],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        ) as backend:
            assert backend.stdout is not None
            orphan = int(backend.stdout.readline())
            while not catches_sigterm(orphan):
                time.sleep(0.05)
            time.sleep(0.2)  # prctl follows at once
            backend.kill()
        deadline = time.monotonic() + 10
        ended, status = 0, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(orphan, os.WNOHANG)
            time.sleep(0.05)
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)
    assert ended == orphan
    assert os.waitstatus_to_exitcode(status) == 1
