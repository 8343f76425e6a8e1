"""In: pg_cron and the run log. Out: whether the sync runs automatically and succeeds."""

from __future__ import annotations

from neo4j_deals import catalog
from neo4j_deals.doctor.case import Case, Finding, check
from neo4j_deals.quoting import literal


@check("pg_cron")
def pg_cron(case: Case) -> Finding:
    """Does pg_cron work in this database, and does the process run that starts its jobs?"""
    [row] = case.query("pg_cron")
    if not row["is_installed"]:
        return Finding(
            False,
            "not installed: no schedule by deal_sync.schedule(); any other scheduler will do",
            f"install the package postgresql-{row['major']}-cron",
        )
    if row["home"] is None:
        hint = "add pg_cron to shared_preload_libraries in postgresql.conf, and restart the server"
        return Finding(False, "not loaded", hint)
    if row["home"] != row["database"]:
        return Finding(
            False,
            f'works in database "{row["home"]}", not in "{row["database"]}"',
            f"ALTER SYSTEM SET cron.database_name = {literal(row['database'])}; then restart the server",
        )
    if row["version"] is None:
        return Finding(False, "not created in this database", "CREATE EXTENSION pg_cron;")
    if not row["has_launcher"]:
        return Finding(
            False,
            f"{row['version']}, but no pg_cron launcher runs, so that no job starts: it ends, and does not start again,"
            " when the database that it is connected to is dropped",
            "restart the server",
        )
    return Finding(True, row["version"])


@check("schedule", "pg_cron")
def schedule(case: Case) -> Finding:
    """Does pg_cron run the sync, and did the last run succeed? A role sees its own jobs."""
    [row] = catalog.query(case.plpy, "SELECT current_user AS name, has_schema_privilege('cron', 'USAGE') AS may_see")
    if not row["may_see"]:
        return Finding(
            False,
            f'"{row["name"]}" may not see the jobs of pg_cron, or make one',
            f"GRANT USAGE ON SCHEMA cron TO {case.ident(row['name'])};",
        )
    jobs = case.query("jobs")
    if not jobs:
        return Finding(False, "no job of this role runs the sync", "SELECT deal_sync.schedule('*/5 * * * *');")
    failed = [job for job in jobs if job["status"] == "failed"]
    detail = ", ".join(
        f'"{job["name"]}" at {job["schedule"]}{" (failed the last time)" if job in failed else ""}' for job in jobs
    )
    if not failed:
        return Finding(True, detail)
    if any(job["message"] == "connection failed" for job in failed):
        return Finding(
            False,
            detail,
            "pg_cron cannot log in: set cron.use_background_workers = on in postgresql.conf and restart;"
            " or let the role in by pg_hba.conf",
        )
    return Finding(
        False,
        detail,
        "SELECT * FROM deal_sync.schedules; says what failed, and deal_sync.tenant_status of which tenant.",
    )


@check("last run")
def last_run(case: Case) -> Finding:
    """Did no tenant's last run fail, and was there a run within the last day?"""
    [row] = catalog.query(
        case.plpy, "SELECT current_user AS name, has_table_privilege('deal_sync.runs', 'SELECT') AS may_read"
    )
    if not row["may_read"]:
        return Finding(
            False,
            f'"{row["name"]}" may not read deal_sync.runs',
            f"SELECT deal_sync.grant_sync({literal(case.ident(row['name']))});",
        )
    [last] = case.query("last_runs")
    if not last["tenants"]:
        return Finding(False, "there was none yet", "SELECT * FROM sync_deals('...');")
    again = f"SELECT * FROM sync_deals({literal(last['tenant_id'])});"
    if last["failed"]:
        failed = f"{last['failed']} of {last['tenants']}, the newest: {last['message']}"
        return Finding(False, f"tenants for which it failed: {failed}", again)
    if last["is_old"]:
        return Finding(False, f"the newest began at {last['began']}, more than a day ago", again)
    return Finding(True, f"none failed, tenants: {last['tenants']}; the newest began at {last['began']}")
