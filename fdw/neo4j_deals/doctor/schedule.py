"""In: pg_cron and the run log. Out: whether the sync runs automatically and succeeds."""

from __future__ import annotations

from neo4j_deals import catalog
from neo4j_deals.doctor.case import Case, Finding, check
from neo4j_deals.quoting import literal


@check("pg_cron")
def pg_cron(case: Case) -> Finding:
    """Does pg_cron run in this database, and is its launcher running, which starts the jobs?"""
    [row] = case.query("pg_cron")
    if not row["is_installed"]:
        return Finding(
            False,
            "not installed, so deal_sync.schedule() cannot be used; any other scheduler will do",
            f"Install the package postgresql-{row['major']}-cron.",
        )
    if row["home"] is None:
        hint = "Add pg_cron to shared_preload_libraries in postgresql.conf, and restart the server."
        return Finding(False, "not loaded", hint)
    if row["home"] != row["database"]:
        return Finding(
            False,
            f'runs in database "{row["home"]}", not in "{row["database"]}"',
            f"ALTER SYSTEM SET cron.database_name = {literal(row['database'])}; then restart the server.",
        )
    if row["version"] is None:
        return Finding(False, "not created in this database", "CREATE EXTENSION pg_cron;")
    if not row["has_launcher"]:
        return Finding(
            False,
            f"{row['version']}, but the pg_cron launcher is not running, so no job starts: it ends if the"
            " database that it is connected to is dropped, and pg_cron before 1.6.1 does not restart it",
            "Restart the server.",
        )
    return Finding(True, row["version"])


@check("schedule", "pg_cron")
def schedule(case: Case) -> Finding:
    """Does pg_cron run the sync, and did the last run succeed? A role sees its own jobs."""
    [row] = catalog.query(case.plpy, "SELECT current_user AS name, has_schema_privilege('cron', 'USAGE') AS may_see")
    if not row["may_see"]:
        return Finding(
            False,
            f'"{row["name"]}" may not see or create jobs of pg_cron',
            f"GRANT USAGE ON SCHEMA cron TO {case.ident(row['name'])};",
        )
    jobs = case.query("jobs")
    if not jobs:
        return Finding(False, "no job of this role runs the sync", "SELECT deal_sync.schedule('*/5 * * * *');")
    failed = [job for job in jobs if job["status"] == "failed"]
    detail = ", ".join(
        f'"{job["name"]}" at {job["schedule"]}{" (its last run failed)" if job in failed else ""}' for job in jobs
    )
    if not failed:
        return Finding(True, detail)
    if any(job["message"] == "connection failed" for job in failed):
        return Finding(
            False,
            detail,
            "pg_cron cannot log in: set cron.use_background_workers = on in postgresql.conf and restart;"
            " or allow the role to log in by pg_hba.conf.",
        )
    return Finding(
        False,
        detail,
        "SELECT * FROM deal_sync.schedules; shows the error, and deal_sync.tenant_status the tenant.",
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
        return Finding(False, "there has been no run yet", "SELECT * FROM sync_deals('...');")
    again = f"SELECT * FROM sync_deals({literal(last['tenant_id'])});"
    if last["failed"]:
        failed = f"{last['failed']} of {last['tenants']} tenants"
        return Finding(False, f"it failed for {failed}; the last error: {last['message']}", again)
    if last["is_old"]:
        return Finding(False, f"the last run began at {last['began']}, more than a day ago", again)
    return Finding(True, f"none failed (tenants: {last['tenants']}); the last run began at {last['began']}")
