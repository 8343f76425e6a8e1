"""Flows in: the files of extra/ for monitoring. Flows out: proof that their queries run and their names are there.

The queries run as the role that how-to/monitor.md makes for a monitor.
"""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import yaml
from environment.state import CHECKOUT
from psycopg import errors
from support import dashboard
from support.database import Connection, Database
from support.documents import PAGES, blocks

EXPORTER = yaml.safe_load((CHECKOUT / "extra/sql_exporter.yml").read_text())
ALERTS = yaml.safe_load((CHECKOUT / "extra/alerts.yml").read_text())
(COLLECTOR,) = EXPORTER["collectors"]
(GROUP,) = ALERTS["groups"]
(RIGHTS,) = blocks(PAGES["how-to/monitor.md"], "postgresql")


@pytest.fixture
def monitor(database: Database, pg: Connection) -> Iterator[Connection]:
    """A day of four tenants, and the role of that page, whose session looks as if a run was under way in it."""
    dashboard.add_history(pg, datetime.now(UTC))
    name = f"monitor_{uuid.uuid4().hex[:8]}"
    pg.execute(re.sub(r"\bmonitor\b", name, RIGHTS).encode())
    try:
        session = database.connect(name, application_name=dashboard.under_way(dashboard.TENANTS[0]))
        yield session
        session.close()
    finally:
        pg.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def ask(connection: Connection, query: str) -> list[dict[str, Any]]:
    """A query of the dashboard, as Grafana sends it: its rows by column."""
    return dashboard.rows(connection, query, dashboard.TENANTS, datetime.now(UTC))


def in_metrics(connection: Connection, columns: str) -> set[tuple[Any, ...]]:
    return set(connection.execute(f"SELECT {columns} FROM deal_sync.metrics".encode()).fetchall())


# The dashboard


@pytest.mark.parametrize("title", dashboard.queries())
def test_each_query_of_the_dashboard_shows_something_to_a_monitor(monitor: Connection, title: str) -> None:
    rows = ask(monitor, dashboard.queries()[title])
    assert rows
    assert any(value is not None for value in rows[-1].values())
    assert "words" not in str(rows)
    assert "offending" not in str(rows)


@pytest.mark.parametrize("title", dashboard.queries())
def test_each_query_of_the_dashboard_runs_without_a_tenant(pg: Connection, title: str) -> None:
    rows = pg.execute(dashboard.as_sent(dashboard.queries()[title], [], datetime.now(UTC))).fetchall()
    assert all(value in (None, 0) for row in rows for value in row)


def test_the_dashboard_shows_the_states_of_the_tenants(monitor: Connection) -> None:
    shown = {row["tenant"]: row["state"] for row in ask(monitor, dashboard.queries()["Tenants"])}
    states = ["up to date", "up to date", "failing", "late"]
    assert shown == {str(tenant): state for tenant, state in zip(dashboard.TENANTS, states, strict=True)}
    assert ask(monitor, dashboard.queries()["Tenants up to date"]) == [{"up to date": 2}]
    assert ask(monitor, dashboard.queries()["Rejects by column"])[0] == {"column": "deal amount", "rejects": 14}


@pytest.mark.parametrize("panel", dashboard.dashboard()["panels"], ids=lambda panel: panel["title"])
def test_a_time_series_has_a_time_and_numbers(monitor: Connection, panel: dict[str, Any]) -> None:
    (target,) = panel["targets"]
    rows = ask(monitor, target["rawSql"])
    assert (target["format"] == "time_series") == ("time" in rows[0]) == (panel["type"] == "timeseries")
    if panel["type"] == "timeseries":
        numbers = [value for key, value in rows[0].items() if key not in ("time", "metric")]
        assert isinstance(rows[0]["time"], datetime)
        assert numbers
        assert all(isinstance(value, float) for value in numbers)


def test_the_panels_ask_the_data_source_that_is_chosen_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert {each["datasource"]["uid"] for each in [panel, *panel["targets"]]} == {"${datasource}"}
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert {each["name"] for each in dashboard.dashboard()["templating"]["list"]} == {"datasource", "tenant"}


# Prometheus


def test_the_documentation_has_each_metric_by_its_name_type_and_help(monitor: Connection) -> None:
    listed = re.findall(r"^\| `(\w+)` \| (gauge|counter) \| (.*) \|$", PAGES["how-to/monitor.md"], re.M)
    assert set(listed) == in_metrics(monitor, "name, type, help")


def test_the_exporter_has_each_metric_by_its_name_type_and_help(monitor: Connection) -> None:
    configured = {(each["metric_name"], each["type"], each["help"]) for each in COLLECTOR["metrics"]}
    assert configured == in_metrics(monitor, "name, type, help")
    assert EXPORTER["target"]["collectors"] == [COLLECTOR["collector_name"]]


def test_the_exporter_gives_the_values_of_the_view(monitor: Connection) -> None:
    found: set[tuple[Any, ...]] = set()
    rows_of = {}
    for query in COLLECTOR["queries"]:
        cursor = monitor.execute(query["query"].encode())
        names = [column.name for column in cursor.description or []]
        rows_of[query["query_name"]] = [dict(zip(names, row, strict=True)) for row in cursor]
    for metric in COLLECTOR["metrics"]:
        (column,) = metric["values"]
        for row in rows_of[metric["query_ref"]]:
            assert all(isinstance(row[label], str) for label in metric["key_labels"])
            if row[column] is not None:
                series = (metric["metric_name"], row["tenant_id"], row.get("status"), row.get("state"))
                found.add(series)
                if "lag" not in column:
                    assert (*series, row[column]) in in_metrics(monitor, "name, tenant_id::text, status, state, value")
        assert set(metric["key_labels"]) == {"tenant_id", "status", "state"} & set(rows_of[metric["query_ref"]][0])
    assert found == in_metrics(monitor, "name, tenant_id::text, status, state")


def test_the_alerts_name_metrics_that_there_are(monitor: Connection) -> None:
    named = {name for rule in GROUP["rules"] for name in re.findall(r"\bdeal_sync_\w+", rule["expr"])}
    assert {(name,) for name in named} <= in_metrics(monitor, "name")
    assert named >= {
        "deal_sync_up_to_date",
        "deal_sync_tenant_state",
        "deal_sync_consecutive_failures",
        "deal_sync_rejects_new",
        "deal_sync_reconcile_missing",
        "deal_sync_reconcile_differing",
    }


def test_the_alerts_tell_the_states_apart(monitor: Connection) -> None:
    states = {
        state
        for rule in GROUP["rules"]
        for name, label, state in re.findall(r'\b(deal_sync_\w+){(\w+)="([^"]*)"}', rule["expr"])
        if (name, label) == ("deal_sync_tenant_state", "state")
    }
    assert states == {"late", "never synced", "unknown"}
    assert {("deal_sync_tenant_state", state) for state in states} <= in_metrics(monitor, "name, state")


def test_a_tenant_that_is_gone_is_unknown_and_nothing_else() -> None:
    """Its failures and its last reconcile stay in the metrics until retention or forget() takes them."""
    clause = ' unless ignoring (state) deal_sync_tenant_state{state="unknown"} == 1'
    lasting = re.compile("deal_sync_(consecutive_failures|reconcile_|last_reconcile_)")
    found = {rule["alert"]: rule["expr"].endswith(clause) for rule in GROUP["rules"] if lasting.search(rule["expr"])}
    assert found == dict.fromkeys(
        ("DealSyncFailing", "DealSyncBackingOff", "DealSyncReconcileDiffers", "DealSyncReconcileOld"), True
    )


def test_each_alert_says_what_it_is_and_where_to_look(pg: Connection) -> None:
    assert len({rule["alert"] for rule in GROUP["rules"]}) == len(GROUP["rules"])
    for rule in GROUP["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"]
        for name in re.findall(r"deal_sync\.(\w+)", rule["annotations"]["description"]):
            there = pg.execute(
                "SELECT to_regclass('deal_sync.' || %(n)s) IS NOT NULL"
                " OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'deal_sync'::regnamespace AND proname = %(n)s)"
                " OR EXISTS (SELECT FROM deal_sync.settings() WHERE name = %(n)s)",
                {"n": name},
            ).fetchone()
            assert there == (True,), name


# The role


@pytest.mark.parametrize("column", ["runs.server_text", "rejects.value", "rejects.server_text"])
def test_a_monitor_reads_nobodys_data(monitor: Connection, column: str) -> None:
    table, _, name = column.partition(".")
    with pytest.raises(errors.InsufficientPrivilege):
        monitor.execute(f"SELECT {name} FROM deal_sync.{table}".encode())


def test_a_monitor_cannot_run_the_sync(monitor: Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        monitor.execute("SELECT * FROM sync_deals(%s)", [dashboard.TENANTS[0]])
