"""Flows in: a script. Flows out: a server that speaks Bolt as Neo4j does, until a step at which the script takes over.

It answers every query with the same few rows, the count of nodes with their number.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ROWS = 3
COLUMN = re.compile(rb" AS c\d+")
LEAST = 2  # columns
REQUESTS = {
    0x01: "HELLO",
    0x02: "GOODBYE",
    0x0F: "RESET",
    0x10: "RUN",
    0x11: "BEGIN",
    0x12: "COMMIT",
    0x13: "ROLLBACK",
    0x2F: "DISCARD",
    0x3F: "PULL",
    0x54: "TELEMETRY",
    0x6A: "LOGON",
}
SUCCESS, RECORD, IGNORED, FAILURE, GOODBYE, UNKNOWN = 0x70, 0x71, 0x7E, 0x7F, 0x02, 0x55


def packed(value: Any) -> bytes:
    """A value in PackStream."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return b"\xcb" + struct.pack(">q", value)
    if isinstance(value, str):
        text = value.encode()
        return b"\xd2" + struct.pack(">I", len(text)) + text
    if isinstance(value, list | tuple):
        return b"\xd6" + struct.pack(">I", len(value)) + b"".join(map(packed, value))
    assert isinstance(value, dict)
    pairs = (packed(part) for pair in value.items() for part in pair)
    return b"\xda" + struct.pack(">I", len(value)) + b"".join(pairs)


def chunked(message: bytes) -> bytes:
    """A message as it travels: in chunks, with an end."""
    parts = [message[at : at + 0xFFFF] for at in range(0, len(message), 0xFFFF)]
    return b"".join(struct.pack(">H", len(part)) + part for part in parts) + b"\0\0"


def message(tag: int, *fields: Any) -> bytes:
    return chunked(bytes([0xB0 + len(fields), tag]) + b"".join(map(packed, fields)))


def success(**metadata: Any) -> bytes:
    return message(SUCCESS, metadata)


def failure(text: str = "it went wrong", code: str = "Neo.ClientError.Statement.SyntaxError") -> bytes:
    return message(FAILURE, {"code": code, "message": text})


def nodes(columns: int) -> list[list[Any]]:
    """Rows with a name; a node's have an element id, too, and lists of nothing."""
    lists: list[Any] = [[]] * (columns - LEAST)
    return [[f"4:x:{number}" if lists else None, f"name {number}", *lists] for number in range(ROWS)]


@dataclass(eq=False)
class Talk:
    """One connection, as a script sees it."""

    socket: socket.socket
    ended: threading.Event
    spared: bool = False
    failed: bool = False  # then everything is IGNORED until a RESET
    columns: int = 0
    rows: bytes = b""  # those that answer the last RUN

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def slowly(self, data: bytes, pause: float = 0.2) -> None:
        """Byte by byte."""
        for byte in data:
            if self.ended.wait(pause):
                return
            self.send(bytes([byte]))

    def fail(self, data: bytes) -> None:
        self.failed = True
        self.send(data)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)


Script = Callable[[Talk], None]
"""What comes in place of the answer."""


class BoltServer:
    """At `step`, the name of a request or HANDSHAKE, `script` answers; `open` says how many connections there are.

    On the first connections, `spared` in number, it answers as Neo4j does; everywhere while there is no step. With a
    `record` that is its answer to every query.
    """

    def __init__(
        self,
        step: str,
        script: Script,
        agent: str = "Neo4j/5.26.0",
        version: tuple[int, int] = (5, 4),
        spared: int = 0,
        record: list[Any] | None = None,
    ):
        self.step = step
        self._script, self._agent, self._version, self._spared = script, agent, version, spared
        self._record = record
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"bolt://127.0.0.1:{self._listener.getsockname()[1]}"
        self._talks: set[Talk] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def open(self) -> int:
        return len(self._talks)

    def __enter__(self) -> "BoltServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer, self._spared > 0), daemon=True).start()
                self._spared -= 1

    def _serve(self, peer: socket.socket, spared: bool) -> None:
        talk = Talk(peer, self._ended, spared)
        self._talks.add(talk)
        try:
            with peer, contextlib.suppress(OSError):
                self._converse(talk, peer.makefile("rb"))
                while not self._ended.is_set() and peer.recv(4096):  # until the driver hangs up
                    pass
        finally:
            self._talks.discard(talk)

    def _converse(self, talk: Talk, requests: Any) -> None:
        requests.read(20)
        if self.step == "HANDSHAKE" and not talk.spared:
            return self._script(talk)
        talk.send(bytes([0, 0, self._version[1], self._version[0]]))
        for request in _messages(requests):
            name = REQUESTS[request[1]]
            if name == "RESET":
                talk.failed = False
            if name == "RUN":
                self._asked(talk, request)
            if talk.failed:
                talk.send(message(IGNORED))
            elif name == self.step and not talk.spared:
                self._script(talk)
            elif name == "GOODBYE":
                return None
            else:
                talk.send(self._answer(name, talk))
        return None

    def _answer(self, name: str, talk: Talk) -> bytes:
        if name == "HELLO":
            return success(server=self._agent, connection_id="bolt-1", hints={})
        if name == "RUN":
            return success(fields=[f"c{at}" for at in range(talk.columns)], t_first=0, qid=0)
        if name == "PULL":
            return talk.rows + success(t_last=0, type="r", db="neo4j")
        return success()

    def _asked(self, talk: Talk, query: bytes) -> None:
        """Finds the rows that answer a query."""
        rows = nodes(max(LEAST, len(COLUMN.findall(query))))
        if self._record is not None:
            rows = [self._record]
        elif b"RETURN count(n)" in query:
            rows = [[ROWS]]
        elif b"RETURN count(n." in query:  # whether nodes may share a key
            rows = [[False]]
        talk.columns, talk.rows = len(rows[0]), b"".join(message(RECORD, row) for row in rows)


def _messages(requests: Any) -> Iterator[bytes]:
    message = b""
    while header := requests.read(2):
        size = struct.unpack(">H", header)[0]
        if size:
            message += requests.read(size)
        elif message:
            yield message
            message = b""
