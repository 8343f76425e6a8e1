"""Flows in: messages of Bolt with lists of all kinds, in chunks of any size.
Flows out: what the driver itself unpacks, with long lists of FLOATs as `Floats` where they are asked for.
"""

import struct
import subprocess
import sys
from collections.abc import Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neo4j._codec.hydration.bolt.v2 import HydrationHandler
from neo4j._codec.packstream import v1, v2
from neo4j._sync.io._bolt import Bolt
from neo4j._sync.io._bolt._common import Inbox
from neo4j_deals.floats import Floats
from neo4j_deals.graph import unpacking
from neo4j_deals.graph.unpacking import ask_for_floats, with_floats
from support.properties import floats, integers, sendable, texts

DRIVERS = [v1.Unpacker, v2.Unpacker]
RECORD = b"\xb1\x71"


def lists(element: st.SearchStrategy[Any], longest: int = 64) -> st.SearchStrategy[list[Any]]:
    return st.lists(element, max_size=longest)


@st.composite
def long_lists(draw: st.DrawFn) -> list[float]:
    """Of up to 4,096 numbers, of which a few are drawn."""
    some = draw(st.lists(floats(), min_size=1, max_size=8))
    size = draw(st.one_of(st.sampled_from([15, 16, 31, 32, 255, 256, 1536, 4096]), st.integers(0, 4096)))
    return (some * (size // len(some) + 1))[:size]


@st.composite
def nearly_floats(draw: st.DrawFn) -> list[Any]:
    """A long list with something else in it, whose bytes may look like a FLOAT's."""
    numbers: list[Any] = draw(long_lists()) or [0.5]
    numbers[draw(st.integers(0, len(numbers) - 1))] = draw(
        st.one_of(integers(), st.none(), st.booleans(), st.just("ÁÁÁÁ"), st.just([0.5] * 40), st.just({"a": 0.5}))
    )
    return numbers


def values() -> st.SearchStrategy[Any]:
    return st.one_of(
        long_lists(),
        nearly_floats(),
        lists(floats()),
        lists(integers()),
        texts().map(sendable),
        integers(),
        floats(),
        st.none(),
    )


def packed(value: Any) -> bytes:
    packer: Any = v1.Packer
    buffer = packer.new_packable_buffer()
    packer(buffer).pack(value)
    return bytes(buffer.data)


def hooks(places: Sequence[int] = ()) -> dict[Any, Any]:
    """As the driver's result has them, once it was asked."""
    result: Any = SimpleNamespace(_hydration_scope=HydrationHandler().new_hydration_scope())
    ask_for_floats(result, places)
    return dict(result._hydration_scope.hydration_hooks)


def received(driver: Any, messages: Sequence[bytes], sizes: Sequence[int], places: Sequence[int] = ()) -> list[Any]:
    """The records of messages that come over a socket in chunks of these sizes, again and again, and empty ones."""
    sent = bytearray()
    for message in messages:
        sent += b"\0\0"  # an empty chunk between messages is a sign of life; within one it would end it
        at, sizes_left = 0, cycle(sizes)
        while at < len(message):
            part = message[at : at + next(sizes_left)]
            sent += struct.pack(">H", len(part)) + part
            at += len(part)
        sent += b"\0\0"
    theirs: Any = Inbox
    inbox, found = theirs(Sent(bytes(sent)), lambda error: None, driver), []
    for _ in messages:
        tag, fields = inbox.pop(hooks(places))
        assert tag == b"\x71"
        found += fields
    return found


class Sent:
    """A socket from which all of this comes."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def getsockname(self) -> tuple[str, int]:
        return "", 0

    def recv_into(self, buffer: memoryview, size: int = 0) -> int:
        taken = min(size or len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


def thawed(record: Sequence[Any]) -> list[Any]:
    return [value.as_list() if type(value) is Floats else value for value in record]


def exact(record: Any) -> bytes:
    """Values with their types; also NaN equals itself."""
    return packed(record)


@pytest.mark.parametrize("driver", DRIVERS)
@given(
    records=st.lists(st.lists(values(), max_size=6), min_size=1, max_size=3),
    sizes=st.lists(st.sampled_from([1, 2, 7, 1000, 8192, 0xFFFF]), min_size=1, max_size=3),
    places=st.sets(st.integers(0, 7)).map(sorted),
)
@settings(deadline=None)
def test_a_message_is_what_the_driver_itself_makes_of_it(
    driver: Any, records: list[list[Any]], sizes: list[int], places: list[int]
) -> None:
    messages = [RECORD + packed(record) for record in records]
    if max(map(len, messages)) > 5000:
        sizes = [size for size in sizes if size > 7] or [1000]
    ours, theirs = received(with_floats(driver), messages, sizes, places), received(driver, messages, sizes)
    for record, unpacked, own in zip(records, ours, theirs, strict=True):
        assert exact(thawed(unpacked)) == exact(own)
        for at, value in enumerate(record):
            are_floats = isinstance(value, list) and len(value) >= 32 and all(type(it) is float for it in value)
            assert (type(unpacked[at]) is Floats) == (at in places and are_floats)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_driver_cannot_read_stays_in_its_place(driver: Any) -> None:
    """A DATE after the end of Python's calendar, in the part that is unpacked at once and before."""
    broken = b"\xb1\x44\xcb" + b"\x7f" * 8
    numbers = packed([0.5] * 40)
    message = RECORD + b"\x95" + broken + numbers + broken + b"\x91" + broken + packed("end")
    (ours,) = received(with_floats(driver), [message], [100], [1])
    (own,) = received(driver, [message], [100])
    assert [type(value) for value in ours] == [type(own[0]), Floats, type(own[2]), list, str]
    assert ours[2].raw_data == own[2].raw_data
    assert ours[3][0].raw_data == own[3][0].raw_data


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("cut", [1, 5, 100, 356, 358])
def test_a_message_that_ends_early_is_an_error(driver: Any, cut: int) -> None:
    """The buffer has room, and bytes of earlier messages, behind the end."""
    message = (RECORD + packed(["before", [0.5] * 40]))[:-cut]
    with pytest.raises((ValueError, IndexError)):
        received(with_floats(exact_buffer(driver)), [message], [0xFFFF], [1])


def exact_buffer(driver: Any) -> Any:
    """A driver that has nothing behind a message: it shows what reads past the end."""

    class Exact(driver):  # type: ignore[misc]
        def unpack_structure_header(self) -> Any:
            del self.unpackable.data[self.unpackable.used :]
            return super().unpack_structure_header()

    return Exact


def test_each_class_of_the_driver_unpacks_our_way() -> None:
    assert unpacking.WHY_NOT is None
    for bolt in Bolt.protocol_handlers.values():
        own = bolt.UNPACKER_CLS.__mro__[1]
        assert own in DRIVERS
        assert bolt.UNPACKER_CLS.__name__ == own.__name__


def test_nothing_changes_unless_it_is_asked_for() -> None:
    (record,) = received(with_floats(v1.Unpacker), [RECORD + packed([[0.5] * 40])], [100])
    assert record == [[0.5] * 40]


@pytest.mark.parametrize(
    "change",
    [
        "from neo4j._sync.io._bolt import Bolt; del Bolt.UNPACKER_CLS",
        "from neo4j._sync.io._bolt import Bolt; Bolt.protocol_handlers = None",
        "from neo4j._codec.packstream.v1 import Unpacker; Unpacker.unpack = lambda self, hooks=None: [1]",
        "from neo4j._codec.packstream.v1 import Unpacker; Unpacker.new_unpackable_buffer = lambda: None",
    ],
)
def test_a_driver_that_unpacks_otherwise_is_left_alone(change: str) -> None:
    script = (
        f"{change}\n"
        "from types import SimpleNamespace\n"
        "from neo4j_deals.graph.unpacking import WHY_NOT, ask_for_floats\n"
        "assert WHY_NOT\n"
        "ask_for_floats(None, [1])\n"
        "from neo4j._sync.io._bolt import Bolt\n"
        "handlers = (Bolt.protocol_handlers or {}).values()\n"
        "assert all(getattr(it, 'UNPACKER_CLS', it).__module__.startswith('neo4j._') for it in handlers)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
