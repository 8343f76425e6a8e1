"""Flows in: the driver's connections and a fault. Flows out: the same bytes to Neo4j and back, until it begins."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

_CHUNK = 65536
_LOOK = 0.01  # seconds between two looks whether a silence has ended


@dataclass(eq=False)
class Fault:
    """What becomes of the answers from a moment of the conversation on.

    It begins when a request held `at` (b'': with the connection) and `after` more bytes of answers have passed.

    `times` is how many connections it strikes; None: every one. `rate` is in bytes a second.
    """

    kind: Literal["none", "silent", "slow", "cut"]
    at: bytes = b""
    after: int = 0
    times: int | None = None
    rate: int = 0
    struck: threading.Event = field(default_factory=threading.Event)
    strikes: int = 0
    passed: int = 0  # bytes of answers since `at`, all connections together


@dataclass(eq=False)
class _Link:
    """A connection and its other half; where it stands in the fault that rules."""

    client: socket.socket
    server: socket.socket
    fault: Fault
    reached: bool
    tail: bytes = b""
    passed: int = 0
    closed: bool = False
    deaf: bool = False

    def close(self) -> None:
        self.closed = True
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Listens on `uri` and forwards to the target, one fault at a time; `connections` counts those that came."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._target = (address.hostname, address.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"bolt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.fault = Fault("none")
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.repaired()
        self.cut_all()

    def silent(self, at: bytes = b"", after: int = 0) -> Fault:
        """From then on no answer gets through; requests do."""
        return self._set(Fault("silent", at, after))

    def slow(self, rate: int, at: bytes = b"", after: int = 0) -> Fault:
        """From then on the answers trickle at `rate` bytes a second."""
        return self._set(Fault("slow", at, after, rate=rate))

    def cut(self, at: bytes = b"", after: int = 0, times: int | None = None) -> Fault:
        """Then the connection breaks, on both sides."""
        return self._set(Fault("cut", at, after, times))

    def repaired(self, at: bytes = b"") -> Fault:
        """Everything flows, what was held back first; `passed` counts the answers from `at` on."""
        return self._set(Fault("none", at))

    def cut_all(self) -> None:
        """Breaks every connection, at once, also those that nobody uses at the moment."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close()

    def deaf(self) -> None:
        """The connections that there are get no answer any more, not even that they are closed; new ones do."""
        with self._lock:
            for link in self._links:
                link.deaf = True

    def _set(self, fault: Fault) -> Fault:
        with self._lock:
            self.fault = fault
        return fault

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.connections += 1
                link = _Link(client, server, self.fault, self.fault.at == b"")
                self._links.append(link)
            for pump in (self._requests, self._answers):
                threading.Thread(target=self._pump, args=(pump, link), daemon=True).start()

    def _pump(self, pump: Callable[[_Link], None], link: _Link) -> None:
        with contextlib.suppress(OSError):
            pump(link)
        link.close()

    def _current(self, link: _Link) -> Fault:
        """The fault that rules now; a link that it finds anew starts counting."""
        if link.fault is not self.fault:
            link.fault, link.reached, link.tail, link.passed = self.fault, self.fault.at == b"", b"", 0
        return link.fault

    def _requests(self, link: _Link) -> None:
        while data := link.client.recv(_CHUNK):
            with self._lock:
                fault = self._current(link)
                text = link.tail + data
                link.reached = link.reached or fault.at in text
                link.tail = text[-max(len(fault.at) - 1, 0) or len(text) :]
            link.server.sendall(data)

    def _answers(self, link: _Link) -> None:
        while data := link.server.recv(_CHUNK):
            while data and not link.closed:
                passing, pause = self._passing(link, data)
                if passing < 0:
                    return
                link.client.sendall(data[:passing])
                data = data[passing:]
                time.sleep(pause)

    def _passing(self, link: _Link, data: bytes) -> tuple[int, float]:
        """How many bytes may pass now, and how long to wait then; -1: the connection breaks."""
        with self._lock:
            if link.deaf:
                return 0, _LOOK
            fault = self._current(link)
            if not link.reached:
                return len(data), 0.0
            whole = min(len(data), fault.after - link.passed) if fault.kind != "none" else len(data)
            if whole > 0:
                link.passed += whole
                fault.passed += whole
                return whole, 0.0
            if fault.kind == "cut" and fault.times is not None and fault.strikes >= fault.times:
                fault.passed += len(data)
                return len(data), 0.0
            if fault.kind == "cut":
                fault.strikes += 1
            fault.struck.set()
            if fault.kind == "cut":
                return -1, 0.0
            if fault.kind == "silent":
                return 0, _LOOK
            slowly = max(1, fault.rate // 100)
            fault.passed += min(len(data), slowly)
            return min(len(data), slowly), slowly / fault.rate


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """The uri of a port that swallows every attempt to connect: its backlog is full, nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"bolt://127.0.0.1:{listener.getsockname()[1]}"


def closed_port() -> str:
    """The uri of a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"bolt://127.0.0.1:{probe.getsockname()[1]}"
