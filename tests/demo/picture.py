"""Flows in: the dashboard's own queries, on a database with demo data. Flows out: extra/grafana/deal_sync.png.

Grafana is not needed: each panel is drawn at its place with matplotlib, in the manner of its type.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import matplotlib

matplotlib.use("Agg")

from environment import database as environment_database
from environment.servers import claimed
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from support import dashboard
from support.database import Database

NAME = "picture"
PICTURE = dashboard.FILE.with_suffix(".png")
GREEN, ORANGE, RED = "#73bf69", "#ff9830", "#f2495c"
COLOURS = ["#5794f2", GREEN, ORANGE, "#b877d9", "#8ab8ff"]
OF_STATUS = {"ok": GREEN, "partial": ORANGE, "failed": RED}
STEP = dashboard.STEP / timedelta(hours=1)

Rows = list[dict[str, Any]]


def shown(value: Any) -> str:
    """A value as a panel shows it."""
    match value:
        case None:
            return ""
        case datetime():
            return f"{value.astimezone(UTC):%m-%d %H:%M}"
        case float() | int() | Decimal():
            return f"{value:,.0f}"
        case _:
            return str(value) if len(str(value)) < 30 else f"{str(value)[:8]}…{str(value)[-4:]}"


def seconds(value: float) -> str:
    return f"{value / 3600:.1f} h" if value >= 3600 else f"{value / 60:.0f} min"


def stat(axes: Axes, rows: Rows, panel: dict[str, Any]) -> None:
    (value,) = rows[0].values()
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults.get("thresholds", {"steps": [{"color": "green", "value": None}]})["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    text = seconds(value) if defaults.get("unit") == "s" else shown(value)
    named = {"green": GREEN, "orange": ORANGE, "red": RED}
    axes.text(0.5, 0.42, text, ha="center", va="center", fontsize=22, color=named[colour])
    axes.axis("off")


def table(axes: Axes, rows: Rows, panel: dict[str, Any]) -> None:
    axes.axis("off")
    row_height = 0.9 / panel["gridPos"]["h"] * 1.3
    size = row_height * (len(rows) + 1)
    cells = [[shown(value) for value in row.values()] for row in rows]
    drawn = axes.table(cells, colLabels=list(rows[0]), bbox=Bbox.from_bounds(0, 1 - size, 1, size), cellLoc="left")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(6.5)
    drawn.auto_set_column_width(list(range(len(rows[0]))))
    for cell in drawn.get_celld().values():
        cell.set_edgecolor("#dddddd")


def bars(axes: Axes, rows: Rows, panel: dict[str, Any]) -> None:
    name, value = list(rows[0])
    axes.barh([shown(row[name]) for row in rows], [row[value] for row in rows], color=COLOURS[0])
    axes.invert_yaxis()
    in_seconds = panel["fieldConfig"]["defaults"].get("unit") == "s"
    for place, row in enumerate(rows):
        text = seconds(row[value]) if in_seconds else shown(row[value])
        axes.text(row[value], place, f" {text}", va="center", fontsize=6.5)
    axes.set_xlim(0, max(row[value] for row in rows) * 1.2)
    axes.set_xticks([])


def series(rows: Rows) -> dict[str, dict[float, float]]:
    """The series of a query by name, from the column metric or a column each: hours since 1970, and values."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        values = {row["metric"]: row["value"]} if "metric" in row else {key: row[key] for key in row if key != "time"}
        for name, value in values.items():
            found.setdefault(name, {})[row["time"].timestamp() / 3600] = value
    return found


def timeseries(axes: Axes, rows: Rows, panel: dict[str, Any]) -> None:
    base: dict[float, float] = {}
    for place, (name, points) in enumerate(series(rows).items()):
        colour = OF_STATUS.get(name, COLOURS[place])
        if panel["fieldConfig"]["defaults"]["custom"]["drawStyle"] == "bars":
            bottom = [base.get(time, 0.0) for time in points]
            axes.bar(list(points), list(points.values()), STEP * 0.85, bottom, align="edge", color=colour, label=name)
            base |= {time: base.get(time, 0.0) + value for time, value in points.items()}
        else:
            axes.plot(list(points), list(points.values()), "o", markersize=2.5, color=colour, label=name)
    first, *_, last = sorted({hour for points in series(rows).values() for hour in points})
    hours = range(-(-int(first) // 3) * 3 + 3, int(last) + 1, 3)
    axes.set_xticks(hours, [f"{hour % 24:02}:00" for hour in hours])
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    if panel["fieldConfig"]["defaults"].get("unit") == "s":
        axes.yaxis.set_major_formatter("{x:g} s")
    axes.legend(fontsize=6, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, -0.32), borderaxespad=0)


DRAW: dict[str, Callable[[Axes, Rows, dict[str, Any]], None]] = {
    "stat": stat,
    "table": table,
    "bargauge": bars,
    "barchart": bars,
    "timeseries": timeseries,
}


def draw(rows_of: dict[str, Rows]) -> None:
    pyplot.rcParams.update({"font.size": 6.5, "axes.spines.top": False, "axes.spines.right": False})
    panels = dashboard.dashboard()["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = pyplot.figure(figsize=(10, height * 0.27), dpi=100)
    for panel in panels:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        left = {"barchart": 3.2, "bargauge": 2.2, "timeseries": 0.9}.get(panel["type"], 0.3)
        below = 1.7 if panel["type"] == "timeseries" else 0.3
        place = ((x + left) / 24, 1 - (y + h - below) / height, (w - left - 0.4) / 24, (h - below - 1.2) / height)
        axes = figure.add_axes(place)
        figure.text((x + 0.3) / 24, 1 - (y + 0.8) / height, panel["title"], fontsize=8, fontweight="bold")
        DRAW[panel["type"]](axes, rows_of[panel["title"]], panel)
    figure.savefig(PICTURE, metadata={"Software": None})


def main() -> None:
    end = datetime.now(UTC)
    with claimed("test", neo4j=False) as instance:
        environment_database.create(instance, NAME)
        database = Database(instance, NAME)
        try:
            pg = database.connect(options="-c timezone=UTC")
            busy = database.connect(application_name=dashboard.under_way(dashboard.TENANTS[0]))
            busy.pgconn.send_query(b"SELECT pg_sleep(60)")
            time.sleep(0.5)  # which the panel shows as a rate
            dashboard.add_history(pg, end)
            rows_of = {
                title: dashboard.rows(pg, query, dashboard.TENANTS, end) for title, query in dashboard.queries().items()
            }
            busy.close()
        finally:
            database.close()
    draw(rows_of)


main()
