"""In: a temporal structure of Bolt. Out: a Moment instead of the driver's own DateTime, if a query asks for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from neo4j._codec.hydration.bolt.v2.temporal import hydrate_datetime
from neo4j.time import DateTime

from neo4j_deals.moment import Moment, zone_named

#: The driver's own function: from seconds, nanoseconds and perhaps an offset or the name of a zone.
driver_datetime: Callable[..., DateTime] = hydrate_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds since 1970 of the years 2 to 9998, which Python can represent with any offset.
_SURE = tuple(int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) for year in (2, 9999))


def moment(seconds: int, nanoseconds: int, zone: int | str | None = None) -> Any:
    """Instead of the driver's own function: a Moment, except for unknown zones and the edges of the calendar."""
    if not _SURE[0] <= seconds < _SURE[1]:
        return driver_datetime(seconds, nanoseconds, zone)
    if isinstance(zone, str):  # the driver's time zone data end in 2037: later its offset is wrong in summer
        try:
            shift = datetime.fromtimestamp(seconds, zone_named(zone)).utcoffset()
        except KeyError:
            return driver_datetime(seconds, nanoseconds, zone)
        assert shift is not None
        return Moment(seconds, nanoseconds, int(shift.total_seconds()), zone)
    return Moment(seconds, nanoseconds, zone)


#: By the tag of a structure in Bolt: a ZONED DATETIME with an offset or in a zone, and a LOCAL DATETIME.
HYDRATION = {b"I": moment, b"i": moment, b"d": moment}
