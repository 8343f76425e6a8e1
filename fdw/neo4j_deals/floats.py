"""In: a list of FLOATs as Bolt sends it. Out: the same as PostgreSQL's 4-byte floats, or as a list of Python's.

Pure. A module of its own, because `graph` creates such lists and `rows` reads them, and neither imports the other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import cache, lru_cache

MARKER = b"\xc1"  # of a FLOAT; eight bytes follow, the first has the sign
SIZE = 9  # bytes of a FLOAT with its marker

#: For tests: "none" leaves all lists to the driver, "all" leaves no list of FLOATs to it, however short.
FORCED = os.environ.get("DEAL_SYNC_FLOATS")


class Floats:
    """A list of FLOATs as it came, markers included. Most lists are embeddings, which nobody looks at: without a Python
    object for each number they take an eighth of the time.
    """

    __slots__ = ("packed",)
    __hash__ = None  # type: ignore[assignment]  # like a list's

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed) // SIZE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Floats) and self.packed == other.packed

    def as_list(self) -> list[float]:
        """What the driver makes of it."""
        return list(_layout(len(self)).unpack(self.packed))

    def as_float4(self) -> bytes:
        """As 4-byte floats in network byte order, rounded as `struct` does. Raises OverflowError for a number that is
        out of range, or returns an infinity for it."""
        return _narrowing()(self.packed)


@cache
def _narrowing() -> Callable[[bytes], bytes]:
    return by_numpy() or by_struct


@lru_cache(maxsize=8)
def _layout(size: int) -> struct.Struct:
    return struct.Struct(">" + "xd" * size)


def by_struct(packed: bytes) -> bytes:
    """See `Floats.as_float4`."""
    size = len(packed) // SIZE
    return struct.pack(f">{size}f", *_layout(size).unpack(packed))


def by_numpy() -> Callable[[bytes], bytes] | None:
    """The same in a tenth of the time; None if there is no numpy, or if it rounds otherwise."""
    try:
        import numpy

        element = numpy.dtype([("marker", "u1"), ("value", ">f8")])

        @numpy.errstate(all="ignore")  # or it would warn of what becomes an infinity or zero
        def narrowed(packed: bytes) -> bytes:
            return numpy.frombuffer(packed, element)["value"].astype(">f4").tobytes()

        return narrowed if narrowed(_SAMPLE) == by_struct(_SAMPLE) else None
    except Exception:  # whatever an installation that is broken raises
        return None


_SAMPLE = b"".join(MARKER + struct.pack(">d", value) for value in (0.1, -1 / 3, 1e-40, 3.4028234e38, 16777217.0, -0.0))
