"""In: a schedule as pg_cron takes it, and a time. Out: when it fires next.

Pure. cronsim reads the five fields with the rules of Debian's cron, which pg_cron's parser comes from.
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
    """The first time after `after` at which the schedule fires, by the clock of `zone`.

    None where there is none, or none that can be known: `@reboot`. Raises ValueError for what is no schedule.
    """
    text = schedule.strip().lower()
    if seconds := _SECONDS.fullmatch(text):
        return after + timedelta(seconds=int(seconds[1]))
    if text == "@reboot":
        return None
    fields = _MACROS.get(text, text).split()
    if len(fields) != 5:
        raise ValueError("a schedule has five fields, or is a number of seconds: 30 seconds")
    if fields[2] == "$":  # pg_cron's sign for a month's last day
        fields[2] = "L"
    try:
        return next(CronSim(" ".join(fields), after.astimezone(ZoneInfo(zone))), None)
    except CronSimError as error:
        raise ValueError(str(error)) from error
