"""In: a DATETIME as Bolt sends it. Out: a value that is cheaper than the driver's own; and time zones by their names.

Pure. A module of its own, because `graph` creates moments and `rows` reads them, and neither imports the other.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo


class Moment:
    """A DATETIME as Bolt sends it: seconds since 1970, nanoseconds, the offset in seconds (None for a LOCAL DATETIME),
    and the name of its zone, if it has one.

    The driver's DateTime takes ten times as long to create, and most rows need the moment only.
    """

    __slots__ = ("nanoseconds", "offset", "seconds", "zone")

    def __init__(self, seconds: int, nanoseconds: int, offset: int | None, zone: str | None = None) -> None:
        self.seconds, self.nanoseconds, self.offset, self.zone = seconds, nanoseconds, offset, zone

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moment) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"Moment{self._parts()}"

    def _parts(self) -> tuple[int, int, int | None, str | None]:
        return self.seconds, self.nanoseconds, self.offset, self.zone


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """A time zone of the pinned package: a server may have no data of its own, or other. Raises KeyError."""
    data = resources.files("tzdata")
    if name not in _zones():
        raise KeyError(name)
    with data.joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())
