"""Flows in: the driver's connections, and which results are to end early. Flows out: SUCCESS after a part of a result.

It speaks Bolt as far as that needs: chunks, the type of a message, which answer is whose.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from support.proxy import Proxy, _Link

_CHUNK = 65536
_MANIFEST = b"\x00\x00\x01\xff"  # a handshake of several messages, which the driver can do without
_RUN, _PULL, _SUCCESS, _RECORD = 0x10, 0x3F, 0x70, 0x71
_SUMMARIES = (0x70, 0x7E, 0x7F)
_HAS_MORE = b"\x88has_more\xc3"
_PULL_ALL = b"\x00\x06\xb1\x3f\xa1\x81n\xff\x00\x00"


@dataclass
class _Talk:
    """Of a connection: the requests that wait for their answer, and how the result of the last RUN is lied about."""

    waiting: deque[tuple[int, bool]] = field(default_factory=deque)
    keep: int | None = None
    passed: int = 0
    dropped: bool = False


class Liar(Proxy):
    """Ends results early and calls them complete; `lies` counts those that it did."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.at, self.keep, self.lies, self.times = b"", 0, 0, 0
        self._talks: dict[int, _Talk] = {}

    def lie(self, at: bytes, keep: int, times: int = 10**9) -> None:
        """From now on, so many times: of a query whose text has `at`, only `keep` records come."""
        self.at, self.keep, self.times, self.lies = at, keep, times, 0

    def _talk(self, link: _Link) -> _Talk:
        with self._lock:
            return self._talks.setdefault(id(link), _Talk())

    def _requests(self, link: _Link) -> None:
        talk = self._talk(link)
        hello = b""
        while len(hello) < 20:
            hello += link.client.recv(20 - len(hello)) or _gone()
        link.server.sendall(hello.replace(_MANIFEST, bytes(4)))
        for raw, message in _messages(link.client):
            if len(message) > 1:
                tag = message[1]
                if tag == _RUN:
                    talk.keep = self.keep if self.times > 0 and self.at and self.at in message else None
                    talk.passed, talk.dropped = 0, False
                talk.waiting.append((tag, False))
            link.server.sendall(raw)

    def _answers(self, link: _Link) -> None:
        talk = self._talk(link)
        link.client.sendall(link.server.recv(4) or _gone())
        for raw, message in _messages(link.server):
            if len(message) < 2:
                link.client.sendall(raw)
                continue
            tag, (request, ours) = message[1], talk.waiting[0]
            lied_about = request == _PULL and talk.keep is not None
            if tag == _RECORD and lied_about:
                assert talk.keep is not None
                if talk.passed >= talk.keep:
                    talk.dropped = True
                    continue
                talk.passed += 1
            if tag in _SUMMARIES:
                talk.waiting.popleft()
                cut = lied_about and talk.passed == talk.keep and tag == _SUCCESS
                if cut and _HAS_MORE in message:  # the server gives the rest to us
                    talk.dropped = True
                    talk.waiting.appendleft((_PULL, True))
                    link.server.sendall(_PULL_ALL)
                    continue
                if cut and (talk.dropped or ours):
                    self.lies += 1
                    self.times -= 1
                    talk.keep = None
            link.client.sendall(raw)


def _messages(source: object) -> Iterator[tuple[bytes, bytes]]:
    """Each message as it travels, in chunks, and what it is."""
    buffer, raw, message = b"", b"", b""
    while data := source.recv(_CHUNK):  # type: ignore[attr-defined]
        buffer += data
        while len(buffer) >= 2 and len(buffer) >= 2 + (size := struct.unpack(">H", buffer[:2])[0]):
            raw += buffer[: 2 + size]
            message += buffer[2 : 2 + size]
            buffer = buffer[2 + size :]
            if not size:
                yield raw, message
                raw, message = b"", b""


def _gone() -> bytes:
    raise ConnectionAbortedError
