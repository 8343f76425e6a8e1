"""In: the application's tables, and the role that runs the sync. Out: whether the role can write the tables."""

from __future__ import annotations

import re

from neo4j_deals import catalog
from neo4j_deals.doctor.case import Case, Finding, check
from neo4j_deals.quoting import literal
from neo4j_deals.sync import setup


@check("target tables", "foreign tables")
def target_tables(case: Case) -> Finding:
    """Do the application's tables exist that the mapping names?"""
    return Finding(True, ", ".join(row["relation"] for row in case.query("application_tables")))


@check("target columns", "target tables")
def target_columns(case: Case) -> Finding:
    """Can the sync write each target, and is no column left without a value?"""
    setup.check_targets(case.plpy)
    return Finding(True, "each target exists and is written once, and no column that requires a value lacks one")


@check("target types", "target columns", "user mapping")
def target_types(case: Case) -> Finding:
    """Can each column of the mapping fill its target?"""
    for kind in ("deal", "version"):
        catalog.query(case.plpy, "SELECT _deal_sync.check_source($1)", ["text"], [kind])
    return Finding(True, "each column of the mapping can fill its target")


@check("target indexes", "target tables")
def target_indexes(case: Case) -> Finding:
    """Has each look-up of a batch an index?"""
    deals, versions, links = (catalog.read_target(case.plpy, *which) for which in _TARGETS)
    lacking = [
        (table.name, columns)
        for table, columns in (
            (deals, ("graph_opportunity_id",)),
            (deals, ("id",)),
            (versions, ("id",)),
            (versions, ("opportunity_id", "version_number")),
            (links, ("interaction_id",)),
        )
        if not table.has_index(*columns)
    ]
    if lacking:
        return Finding(
            False,
            "no index for the look-ups "
            + ", ".join(f"of {table} by {' and '.join(columns)}" for table, columns in lacking),
            " ".join(
                f"CREATE INDEX CONCURRENTLY ON {table} (tenant_id, {', '.join(columns)});" for table, columns in lacking
            ),
        )
    return Finding(True, "there is an index for each look-up of a batch")


_TARGETS = (("deal", "target"), ("version", "target"), ("deal", "links"))


@check("row security", "target tables")
def row_security(case: Case) -> Finding:
    """Is row-level security enabled for the tables that the sync writes, with policies that let the role write?

    For a table with policies, the hint is one for this role only: one for everybody would show other roles rows that
    their own policies hide.
    """
    found = []
    changes = []
    for row in case.query("lacking_policies", ["text"], [case.role]):
        table, commands = row["relation"], row["commands"]
        if row["is_on"]:
            found.append(f'{table} has no policy that allows {commands} to role "{case.role_name}"')
        else:
            found.append(f"off for {table}")
            changes.append(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;")
            changes.append(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;")
        if commands:
            name = case.ident(f"deal_sync_{row['role']}") if row["has_policies"] else "deal_sync_tenant"
            to = f" TO {case.role}" if row["has_policies"] else ""
            tenant = "nullif(current_setting('app.tenant_id', true), '')::uuid"
            changes.append(f"CREATE POLICY {name} ON {table}{to} USING (tenant_id = {tenant});")
    if found:
        return Finding(False, "; ".join(found), " ".join(changes))
    return Finding(True, "on, with a policy, for all tables that the sync writes")


# As pg_get_expr() prints a setting with a cast and without one. After a transaction that set app.tenant_id locally, it
# is '', no longer unset. A cast of '' raises an error, and so does current_setting() if it is unset.
_CAST = r"\(current_setting\(('[^']+')::text(?:, (?:true|false))?\)\)::(uuid|integer|bigint)"
_BARE = r"current_setting\(('[^']+'::text)(?:, false)?\)"


@check("policies", "target tables")
def policies(case: Case) -> Finding:
    """Does no policy raise an error in a session without a tenant?"""
    found = []
    changes = []
    for row in case.query("policies"):
        if not re.search(f"{_CAST}|{_BARE}", f"{row['visible'] or ''} {row['writable'] or ''}"):
            continue
        found.append(f'"{row["name"]}" of {row["relation"]}')
        clauses = [
            f" {clause} ({_tolerant(row[column])})"
            for clause, column in (("USING", "visible"), ("WITH CHECK", "writable"))
            if row[column] is not None
        ]
        changes.append(f"ALTER POLICY {case.ident(row['name'])} ON {row['relation']}{''.join(clauses)};")
    if found:
        return Finding(False, f"raises an error if the setting is '' or unset: {', '.join(found)}", " ".join(changes))
    return Finding(True, "none raises an error if app.tenant_id is '' or unset")


def _tolerant(expression: str) -> str:
    return re.sub(
        _BARE, r"current_setting(\1, true)", re.sub(_CAST, r"(nullif(current_setting(\1, true), ''))::\2", expression)
    )


@check("role")
def role(case: Case) -> Finding:
    """Does row-level security apply to the role?"""
    [row] = case.query("role", ["text"], [case.role])
    name = row["name"]
    if row["is_superuser"]:
        return Finding(
            None,
            f'"{name}" is a superuser, to whom policies and missing privileges do not apply',
            f"Check the role that runs the sync: SELECT * FROM deal_sync.doctor({literal(row['scheduler'] or '...')});",
        )
    if row["bypasses"]:
        detail = f'"{name}" bypasses row-level security, so it could write to rows of other tenants'
        return Finding(False, detail, f"ALTER ROLE {case.role} NOBYPASSRLS;")
    return Finding(True, f'row-level security applies to "{name}"')


@check("rights on tables", "target tables")
def rights_on_tables(case: Case) -> Finding:
    """Does the role have the privileges on the application's tables that the sync needs?"""
    lacking = case.query("missing_rights", ["text"], [case.role])
    if lacking:
        return Finding(
            False,
            f'"{case.role_name}" lacks ' + ", ".join(f"{row['privileges']} on {row['relation']}" for row in lacking),
            " ".join(f"GRANT {row['privileges']} ON {row['relation']} TO {case.role};" for row in lacking),
        )
    return Finding(True, f'"{case.role_name}" has all privileges that the sync needs')


@check("rights on sync")
def rights_on_sync(case: Case) -> Finding:
    """May the role call sync_deals(), and all that it calls?"""
    if case.query("routines_out_of_reach", ["text"], [case.role]):
        detail = f'"{case.role_name}" may not run sync_deals, or a function that it calls'
        return Finding(False, detail, f"SELECT deal_sync.grant_sync({literal(case.role)});")
    return Finding(True, f'"{case.role_name}" may run sync_deals')
