"""In: a schedule in pg_cron's syntax, and a time. Out: when it fires next.

Pure. cronsim reads the five fields by the rules of Debian's cron, from which pg_cron's parser is derived.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_SECONDS = re.compile(r"([1-9]|[1-5][0-9]) seconds?")


def next_run(schedule: str, after: datetime, zone: str) -> datetime | None:
    """The first time after `after` at which the schedule fires, in the time zone `zone`.

    None if there is none, or if it cannot be known (`@reboot`). Raises ValueError for an invalid schedule.
    """
    text = schedule.strip().lower()
    if seconds := _SECONDS.fullmatch(text):
        return after + timedelta(seconds=int(seconds[1]))
    if text == "@reboot":
        return None
    fields = _MACROS.get(text, text).split()
    if len(fields) != 5:
        raise ValueError("A schedule has five fields, or is a number of seconds, such as '30 seconds'")
    if fields[2] == "$":  # pg_cron's symbol for the last day of the month
        fields[2] = "L"
    try:
        return next(CronSim(" ".join(fields), after.astimezone(ZoneInfo(zone))), None)
    except CronSimError as error:
        raise ValueError(str(error)) from error
