"""In: the checks. Out: one row per check, in a fixed order. Only a cancel is raised."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, TypeVar

from neo4j_deals.catalog import QuotingPlpy, query
from neo4j_deals.doctor import application, connection, indexes, nodes, postgresql, schedule, server
from neo4j_deals.doctor.case import Case, Check, Finding, OwnersCase, checks_of, failure
from neo4j_deals.errors import DealSyncError

C = TypeVar("C", bound=Case)
Row = tuple[str, bool | None, str, str | None]

#: All checks in the order of their rows: that of these modules, and of the functions in each.
CHECKS: list[Check[Any]] = [
    one
    for module in (postgresql, server, connection, indexes, nodes, application, schedule)
    for one in checks_of(module)
]


def examine(plpy: QuotingPlpy, role: str) -> list[Row]:
    """All rows. It calls the SQL function of `examine_graph`, which has the owner's rights."""
    case, found = Case(plpy, role), _Rows()
    for with_owners_rights, checks in groupby(CHECKS, key=lambda one: one.with_owners_rights):
        if with_owners_rights:
            found.take(case)
        else:
            found.make(checks, case)
    return found.rows


def examine_graph(plpy: QuotingPlpy, is_mapped: bool) -> list[Row]:
    """The rows of the checks with the owner's rights. `is_mapped`: the check "foreign tables" has succeeded."""
    found = _Rows([] if is_mapped else [_MAPPED])
    found.make((one for one in CHECKS if one.with_owners_rights), OwnersCase(plpy, is_mapped))
    return found.rows


_MAPPED = "foreign tables"


class _Rows:
    """The rows so far, and the names of the checks that have failed: checks that need one of them are skipped."""

    def __init__(self, failed: Iterable[str] = ()) -> None:
        self.rows: list[Row] = []
        self._failed = set(failed)

    def make(self, checks: Iterable[Check[C]], case: C) -> None:
        """Makes the checks in their order."""
        for one in checks:
            unmet = next((need for need in one.needs if need in self._failed), None)
            found = self._made(one, case) if unmet is None else Finding(None, f"not checked: {unmet}")
            self._add(one.name, found.ok, found.detail, found.hint)

    def take(self, case: Case) -> None:
        """Adds the rows of the checks with the owner's rights."""
        try:
            made = query(
                case.plpy,
                "SELECT g.* FROM _deal_sync.examine_graph($1) AS g",
                ["boolean"],
                [_MAPPED not in self._failed],
            )
        except DealSyncError as error:
            found = _answer(error)
            self._add("graph", found.ok, found.detail, found.hint)
        else:
            for row in made:
                self._add(row["name"], row["ok"], row["detail"], row["hint"])

    def _made(self, one: Check[C], case: C) -> Finding:
        try:
            return one.find(case)
        except DealSyncError as error:
            if error.sqlstate[:2] == "08":  # the connection broke: later checks need not wait for it
                self._failed.add("connection")
            return _answer(error)
        except Exception as error:  # a bug in a check: the others are made all the same
            return Finding(False, f"{type(error).__name__}: {error}")

    def _add(self, name: str, ok: bool | None, detail: str, hint: str | None) -> None:
        if ok is not True:
            self._failed.add(name)
        self.rows.append((name, ok, detail, hint))


def _answer(error: DealSyncError) -> Finding:
    if error.is_cancel:
        raise error
    return failure(error)
