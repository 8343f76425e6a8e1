"""In: the database in PostgreSQL, and the extension in it. Out: whether they are usable with any graph and mapping."""

from __future__ import annotations

from neo4j_deals import catalog
from neo4j_deals.doctor.case import Case, Finding, check
from neo4j_deals.errors import DealSyncError
from neo4j_deals.floats import by_numpy
from neo4j_deals.graph.unpacking import WHY_NOT
from neo4j_deals.quoting import literal


@check("encoding")
def encoding(case: Case) -> Finding:
    """Can the database hold any text of the graph?"""
    [row] = catalog.query(case.plpy, "SELECT getdatabaseencoding() AS name")
    try:
        catalog.query(case.plpy, "SELECT _deal_sync.check_encoding()")
    except DealSyncError as error:
        return Finding(False, row["name"], error.hint)
    return Finding(True, row["name"])


@check("writable")
def writable(case: Case) -> Finding:
    """May a transaction write here?"""
    catalog.query(case.plpy, "SELECT _deal_sync.check_writable()")
    return Finding(True, "not a standby server, and transactions can write")


@check("settings")
def settings(case: Case) -> Finding:
    """Is each setting valid in this session, and does each one that is stored exist?"""
    known = [row["name"] for row in catalog.query(case.plpy, "SELECT s.name FROM deal_sync.settings() AS s")]
    wrong: list[str] = []
    remedies: list[str] = []
    for name in known:
        try:
            catalog.query(case.plpy, "SELECT _deal_sync.setting($1)", ["text"], [name])
        except DealSyncError as error:
            if error.sqlstate != "22023":
                raise
            wrong.append(error.message)
            remedies.append(f"RESET deal_sync.{case.ident(name)};")
    # ALTER DATABASE and ALTER ROLE may have stored an unknown name, or the invalid value.
    for row in case.query("kept_settings"):
        if f"RESET {row['name']};" in remedies:
            remedies.append(f"{row['place']} RESET {row['name']};")
        elif row["name"].removeprefix("deal_sync.") not in known:
            wrong.append(f'unknown setting "{row["name"]}"')
            remedies.append(f"{row['place']} RESET {row['name']};")
    if wrong:
        return Finding(False, "; ".join(wrong), " ".join(remedies))
    return Finding(True, f"all {len(known)} settings are valid")


@check("multicorn")
def multicorn(case: Case) -> Finding:
    """Is Multicorn2 used if it is safe, and only then?"""
    [row] = case.query("multicorn")
    if not row["has_own_validator"]:
        return Finding(
            False,
            f"wrapper neo4j has the validator {row['validator']}, which may let a user mapping load any code",
            "ALTER FOREIGN DATA WRAPPER neo4j VALIDATOR _deal_sync.validator;",
        )
    catalog.query(case.plpy, "SELECT _deal_sync.check_handler($1)", ["integer"], [row["python"]])
    if row["is_set"] and row["available"] is None:
        detail = "the handler is set, but Multicorn2 is no longer installed"
        return Finding(False, detail, "SELECT deal_sync.detach();")
    if row["is_set"]:
        return Finding(True, f"{row['available']} answers SELECTs on the foreign tables")
    if row["available"] is None or row["crashes"]:
        return Finding(True, "not used: deal_sync.scan() reads the foreign tables")
    names = "" if row["server"] is None else f"{literal(row['server'])}, {literal(row['schema'])}"
    return Finding(
        False,
        f"{row['available']} is installed but not used, as after a restore or detach()",
        f"SELECT deal_sync.attach({names});",
    )


@check("embeddings")
def embeddings(case: Case) -> Finding:
    """Does the reader take embeddings from Neo4j's messages without a Python object for each number?"""
    lacking = WHY_NOT
    if lacking is None and by_numpy() is None:
        lacking = "no numpy that works"
    if lacking is not None:
        return Finding(
            False,
            f"a sync of embeddings takes longer than it could: {lacking}",
            "Install the Python package and what it requires again: make install-python PYTHON=...",
        )
    return Finding(True, "taken from Neo4j's messages as they are, with numpy")


@check("foreign tables")
def foreign_tables(case: Case) -> Finding:
    """Is there one foreign table for the deals and one for the versions, with trusted owners?"""
    try:
        return Finding(True, ", ".join(row["name"] for row in case.query("foreign_tables")))
    except DealSyncError as error:
        if error.sqlstate != "42704":
            raise
        found, hint = f"{error.message}: {error.detail}", error.hint
    untrusted = case.query("untrusted_owners")
    if untrusted:
        changes = sorted({f"ALTER {row['object']} OWNER TO {row['trusted']};" for row in untrusted})
        return Finding(False, found, " ".join(changes))
    return Finding(False, found, hint)
