"""In: Neo4j, asked with the owner's login. Out: whether it answers, and whether the sync can work with it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from neo4j_deals import catalog
from neo4j_deals.doctor.case import REACHED, Finding, OwnersCase, failure, owners_check
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import cypher, results
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.reader import unless_forbidden

_CLOCK_SECONDS = 60.0  # a difference of the clocks that is harmless


@owners_check("connection", "server", "user mapping", "password file")
def connects(case: OwnersCase) -> Finding:
    """Does Neo4j answer at all? The next two checks report an error in its answer."""
    began = time.monotonic()
    try:
        case.rows(Query("RETURN 1"), int)
    except DealSyncError as error:
        if error.is_cancel or error.sqlstate[:2] == "08" or error.sqlstate == "HV00D":
            raise
        case.first_error = error
    return Finding(True, f"answers in {1000 * (time.monotonic() - began):.0f} ms")


@owners_check("login", "connection")
def logs_in(case: OwnersCase) -> Finding:
    """Does it accept the login?"""
    if case.first_error is not None and case.first_error.sqlstate[:2] == "28":
        return failure(case.first_error)
    return Finding(True, "accepted")


@owners_check("database", "connection", "login")
def has_database(case: OwnersCase) -> Finding:
    """Does it have the database?"""
    if case.first_error is not None:
        found = failure(case.first_error)
        return replace(found, hint=found.hint or f'Check the option "database" of server "{case.server}".')
    return Finding(True, f'"{case.database[0]}"')


@owners_check("neo4j version", *REACHED)
def neo4j_version(case: OwnersCase) -> Finding:
    """Does it support the Cypher of the sync?"""
    return version(*case.neo4j)


def version(number: str, edition: str) -> Finding:
    """Neo4j 5 from 5.9 on, or the calendar line that follows it (2025.01 and later)."""
    found = re.match(r"(\d+)\.(\d+)", number)
    major, minor = map(int, found.groups()) if found else (0, 0)
    if major >= 2025 or (major == 5 and minor >= 9):
        return Finding(True, f"{number}, {edition}")
    lacks = "; it lacks Cypher that an incremental run and a backfill use" if major == 5 else ""
    return Finding(False, f"{number}, {edition}{lacks}", "Use Neo4j 5.9 or later, which the sync requires.")


@owners_check("clock", *REACHED)
def clocks(case: OwnersCase) -> Finding:
    """Does its clock agree with this server's?"""
    before = time.time()
    theirs = case.row(Query("RETURN datetime.realtime().epochMillis"), int)[0] / 1000
    return clock(theirs - (before + time.time()) / 2)


def clock(ahead: float) -> Finding:
    """`ahead`: seconds by which the graph's clock is ahead of this server's."""
    if abs(ahead) < 1:
        return Finding(True, "the two clocks agree within a second")
    said = f"Neo4j's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} PostgreSQL's"
    if abs(ahead) <= _CLOCK_SECONDS:
        return Finding(True, said)
    return Finding(False, said, "Synchronize the clocks of both machines (NTP).")


@owners_check("graph id", *REACHED)
def graph_id(case: OwnersCase) -> Finding:
    """Is it the graph that this database was loaded from?"""
    found = case.database[1]
    [row] = catalog.query(case.plpy, "SELECT _deal_sync.known_graph() AS known")
    known = row["known"]
    if known is None:
        return Finding(True, f"{found}; the first run will remember it")
    if known == found:
        return Finding(True, found)
    return Finding(
        False,
        f"not the graph this database was loaded from: it is {found}, runs so far read {known}",
        "SELECT deal_sync.accept_graph();",
    )


@owners_check("open transactions", *REACHED)
def open_transactions(case: OwnersCase) -> Finding:
    """Is no other transaction open for longer than deal_sync.overlap?"""
    [row] = case.query("overlap")
    query = cypher.open_transactions(case.database[0], int(row["seconds"] * 1000))
    found: list[Any] | None = unless_forbidden(
        lambda: case.ask(lambda ask: results.rows_of(results.one(ask, query, list)[0], str, int))
    )
    return transactions(found, row["overlap"], found is not None and _sees_others(case))


def transactions(found: Sequence[tuple[str, int]] | None, overlap: str, all_are_seen: bool | None) -> Finding:
    """`found`: id and seconds of each, None if the login may not see them; `overlap`: the value of the setting."""
    if found:
        return Finding(
            False,
            f"open for longer than deal_sync.overlap ({overlap}): "
            + ", ".join(f"{id_} ({seconds} s)" for id_, seconds in found[:5])
            + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            + "; runs may miss what they commit",
            "When they have ended, SELECT * FROM sync_deals('...', 'full'); if such transactions are usual,"
            " set deal_sync.overlap to more than their duration.",
        )
    said = f"no other transaction is open for longer than deal_sync.overlap ({overlap})"
    if all_are_seen:
        return Finding(True, said)
    if found is None or all_are_seen is False:
        return Finding(
            None,
            "the login may not see the transactions of other logins",
            "In Neo4j: GRANT SHOW TRANSACTION (*) ON DATABASE * TO …",
        )
    return Finding(True, f"{said}, as far as the login can see")


def _sees_others(case: OwnersCase) -> bool | None:
    """Whether the login may see the transactions of other logins; None if Neo4j does not tell."""
    if case.neo4j[1] == "community":  # it has no privileges
        return True
    try:
        privileges = Query("SHOW USER PRIVILEGES YIELD access, action RETURN access, action")
        return sees_others(case.rows(privileges, str, str))
    except DealSyncError as error:
        if error.sqlstate != "HV000":
            raise
        return None


def sees_others(privileges: Sequence[tuple[str, str]]) -> bool:
    """`privileges`: access and action of each privilege of the login."""
    actions = ("show_transaction", "transaction_management", "database_actions")
    return any(access == "GRANTED" and action in actions for access, action in privileges)
