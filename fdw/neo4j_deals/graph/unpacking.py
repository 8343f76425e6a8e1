"""In: records as Bolt sends them. Out: the same, with `Floats` where a query asks for them.

The only module that knows how the driver unpacks messages: by `UNPACKER_CLS` of its Bolt classes, which is private. If
what stands here does not unpack as the driver itself does, the driver is left alone, and doctor() says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neo4j_deals.floats import FORCED, MARKER, SIZE, Floats

_FEWEST = 1 if FORCED == "all" else 32  # a shorter list is no dearer in the driver's own way
_WIDTHS = {0xD4: 1, 0xD5: 2, 0xD6: 4}  # bytes of a list's length, by its marker; a list below 16 has a single byte
_HEADER = 5  # bytes of a list's longest header

Hooks = Mapping[Any, Any]


def ask_for_floats(result: Any, places: Sequence[int]) -> None:
    """Long lists of FLOATs in these places, in ascending order, of a result's records will come as `Floats`."""
    if places and WHY_NOT is None and FORCED != "none":
        result._hydration_scope.hydration_hooks[Floats] = places


def with_floats(driver: Any) -> Any:
    """A class of the driver that unpacks a message, with places of `Floats` among the hooks that it is given."""

    class Unpacker(driver):  # type: ignore[misc]
        def unpack(self, hydration_hooks: Hooks | None = None) -> Any:
            places: Sequence[int] = hydration_hooks.get(Floats, ()) if hydration_hooks else ()
            size, width = _list_at(self.unpackable) if places else (-1, 0)
            if size < 0:
                return super().unpack(hydration_hooks)
            buffer, unpack = self.unpackable, super().unpack
            buffer.p += width
            values: list[Any] = []
            while len(values) < size:
                at = len(values)
                if at > places[-1] and buffer.p >= _HEADER:
                    # The rest at once, as a list of its own, whose header overwrites what has been read.
                    buffer.p -= _HEADER
                    buffer.data[buffer.p : buffer.p + _HEADER] = b"\xd6" + (size - at).to_bytes(4)
                    return values + unpack(hydration_hooks)
                floats = _floats_at(buffer) if at in places else None
                values.append(unpack(hydration_hooks) if floats is None else floats)
            return values

    return Unpacker


def _list_at(buffer: Any) -> tuple[int, int]:
    """The length of the list that comes next, and of its header in bytes; -1 if there is no list."""
    data, p = buffer.data, buffer.p
    marker = data[p] if p < buffer.used else 0
    if marker & 0xF0 == 0x90:
        return marker & 0x0F, 1
    width = _WIDTHS.get(marker)
    if width is None or p + 1 + width > buffer.used:
        return -1, 0
    return int.from_bytes(data[p + 1 : p + 1 + width]), 1 + width


def _floats_at(buffer: Any) -> Floats | None:
    """The list that comes next, if all of it are FLOATs and there are enough of them."""
    size, width = _list_at(buffer)
    if size < _FEWEST:
        return None
    start = buffer.p + width
    end = start + size * SIZE
    # One FLOAT after the other: if each of them has its marker, there is nothing else.
    if end > buffer.used or buffer.data[start:end:SIZE].count(MARKER) != size:
        return None
    buffer.p = end
    return Floats(bytes(buffer.data[start:end]))


def unpacked(driver: Any, message: bytes, hooks: Hooks | None = None) -> Any:
    """The value that a message holds, by a class that unpacks."""
    buffer = driver.new_unpackable_buffer()
    buffer.data[: len(message)], buffer.used = message, len(message)
    return driver(buffer).unpack(hooks)


def _install() -> str | None:
    """Replaces the class that unpacks in each of the driver's Bolt classes. Returns why that is not possible."""
    try:
        from neo4j._codec.packstream.v1 import Packer
        from neo4j._sync.io._bolt import Bolt

        packer: Any = Packer
        buffer = packer.new_packable_buffer()
        packer(buffer).pack(_SAMPLE)
        message = bytes(buffer.data)
        theirs = {bolt: bolt.UNPACKER_CLS for bolt in Bolt.protocol_handlers.values()}
        ours = {driver: with_floats(driver) for driver in theirs.values()}
        for driver, one in ours.items():
            first, floats, *others = unpacked(one, message, {Floats: (1, 2)})
            if not [first, floats.as_list(), *others] == unpacked(driver, message) == _SAMPLE:
                return "the driver unpacks a list otherwise"
        for bolt, driver in theirs.items():
            bolt.UNPACKER_CLS = ours[driver]
    except Exception as error:  # whatever a driver that is made otherwise raises
        return f"{type(error).__name__}: {error}"
    return None


_SAMPLE = ["before", [(-1.5) ** number for number in range(40)], [0.5] * 39 + [1], "after", None]

#: Why all lists are the driver's own; None if `Floats` are possible.
WHY_NOT = _install()
