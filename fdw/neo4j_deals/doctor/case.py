"""In: the role that doctor() checks. Out: what a check is, and what it may look at; each thing is read once.

A check is one function. Its docstring is the question; what it returns, or raises, is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.resources import files
from types import ModuleType
from typing import Any, Generic, NoReturn, TypeVar

from neo4j_deals import catalog
from neo4j_deals.catalog import QuotingPlpy
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import results
from neo4j_deals.graph.connection import Ask, connection
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.graph.reader import answer, unless_forbidden
from neo4j_deals.mapping.model import Table

T = TypeVar("T")
C = TypeVar("C", bound="Case")

_QUERY_SECONDS = 30.0  # the maximum time for a query in Neo4j, unless the server's option says less


@dataclass(frozen=True)
class Finding:
    """The result of a check; `ok` is None if it could not be made."""

    ok: bool | None
    detail: str
    hint: str | None = None


def failure(error: DealSyncError) -> Finding:
    """An error as a finding."""
    return Finding(False, f"{error.message}: {error.detail}" if error.detail else error.message, error.hint)


@dataclass(frozen=True)
class Check(Generic[C]):
    """A check, the names of the checks that it needs, and the kind of nodes that it is about."""

    name: str
    needs: tuple[str, ...]
    find: Callable[[C], Finding]
    with_owners_rights: bool
    kind: str | None = None


def check(name: str, *needs: str) -> Callable[[Callable[[Case], Finding]], Check[Case]]:
    """A check with the caller's rights."""
    return lambda find: Check(name, needs, find, with_owners_rights=False)


def owners_check(name: str, *needs: str) -> Callable[[Callable[[OwnersCase], Finding]], Check[OwnersCase]]:
    """A check with the rights of the extension's owner: it uses the owner's login, or the server's files."""
    return lambda find: Check(name, needs, find, with_owners_rights=True)


#: The checks that must succeed before Neo4j can be queried.
REACHED = ("connection", "login", "database")


def check_of_nodes(
    name: str, *kinds: str
) -> Callable[[Callable[[OwnersCase, Table], Finding]], list[Check[OwnersCase]]]:
    """An owner's check for each kind, named "deals: …" and "versions: …", of the kind's foreign table."""

    def for_each_kind(find: Callable[[OwnersCase, Table], Finding]) -> list[Check[OwnersCase]]:
        def find_in(kind: str) -> Callable[[OwnersCase], Finding]:
            def find_in_table(case: OwnersCase) -> Finding:
                return find(case, case.table(kind))

            find_in_table.__doc__ = find.__doc__
            return find_in_table

        needs = (*REACHED, "foreign tables")
        return [Check(f"{kind}s: {name}", needs, find_in(kind), True, kind) for kind in kinds or ("deal", "version")]

    return for_each_kind


def checks_of(module: ModuleType) -> list[Check[Any]]:
    """The checks of a module in their order, with those of the versions after those of the deals."""
    values = [value if isinstance(value, list) else [value] for value in vars(module).values()]
    found = [one for several in values for one in several if isinstance(one, Check)]
    return sorted(found, key=lambda one: one.kind == "version")


class Case:
    """What a check may look at with the caller's rights; `role`: the role that runs the sync, as regrole prints it."""

    def __init__(self, plpy: QuotingPlpy, role: str = "") -> None:
        self.plpy: QuotingPlpy = _Told(plpy)
        self.role = role

    @property
    def role_name(self) -> str:
        """The role as a message shows it in quotes of its own."""
        return self.role[1:-1].replace('""', '"') if self.role.startswith('"') else self.role

    def query(self, name: str, types: Sequence[str] = (), values: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
        """Rows of the statement in a file of doctor/sql."""
        text = (files(__package__) / "sql" / f"{name}.sql").read_text(encoding="utf-8")
        return catalog.query(self.plpy, text, types, values)

    def ident(self, name: str) -> str:
        """A name as SQL takes it."""
        return self.plpy.quote_ident(name)


class OwnersCase(Case):
    """What a check may look at with the owner's rights; `is_mapped`: there are foreign tables that count.

    Some attributes are set by a check that the others need.
    """

    server: str
    options: Mapping[str, str]
    login: ServerOptions
    first_error: DealSyncError | None = None

    def __init__(self, plpy: QuotingPlpy, is_mapped: bool) -> None:
        super().__init__(plpy)
        self.is_mapped = is_mapped

    def ask(self, work: Callable[[Ask], T]) -> T:
        """The result of `work` in a transaction of its own, because one that has failed cannot go on."""
        seconds = min(self.login.query_timeout or _QUERY_SECONDS, _QUERY_SECONDS)
        to = connection(replace(self.login, query_timeout=seconds))
        return answer(to, work, partial(catalog.serve_interrupt, self.plpy))

    def rows(self, query: Query, *types: Any) -> list[tuple[Any, ...]]:
        """All rows of an answer with values of these types."""
        return self.ask(lambda ask: list(results.many(ask, query, *types)))

    def row(self, query: Query, *types: Any) -> tuple[Any, ...]:
        """The only row of an answer with values of these types."""
        return self.ask(lambda ask: results.one(ask, query, *types))

    def table(self, kind: str) -> Table:
        """The foreign table of a kind."""
        return catalog.mapping(self.plpy, kind)

    @cached_property
    def database(self) -> tuple[str, str]:
        """Name and id of the database in Neo4j."""
        name, id_ = self.row(Query("CALL db.info() YIELD name, id RETURN name, id"), str, str)
        return name, id_

    @cached_property
    def neo4j(self) -> tuple[str, str]:
        """Version and edition of Neo4j."""
        components = "CALL dbms.components() YIELD name, versions, edition WHERE name = 'Neo4j Kernel'"
        number, edition = self.row(Query(f"{components} RETURN versions[0], edition"), str, str)
        return number, edition

    @cached_property
    def indexes(self) -> list[tuple[Any, ...]] | None:
        """Name, labels, properties, state and constraint of each; None if the login may not see them."""
        shown = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, state, owningConstraint"
        query = Query(
            f"{shown} WHERE entityType = 'NODE' AND type = 'RANGE'"
            " RETURN name, labelsOrTypes, properties, state, owningConstraint"
        )
        return unless_forbidden(lambda: self.rows(query, str, list, list, str, str | None))


class _Told:
    """plpy with errors as DealSyncErrors."""

    def __init__(self, plpy: QuotingPlpy) -> None:
        self._plpy = plpy

    def execute(self, query: Any, *arguments: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        try:
            return self._plpy.execute(query, *arguments)
        except Exception as error:
            raise self._told(error) from None

    def prepare(self, query: str, types: Sequence[str]) -> Any:
        try:
            return self._plpy.prepare(query, types)
        except Exception as error:
            raise self._told(error) from None

    def error(self, message: str, **fields: str | None) -> NoReturn:
        self._plpy.error(message, **fields)

    def quote_ident(self, name: str) -> str:
        return self._plpy.quote_ident(name)

    def quote_literal(self, value: str) -> str:
        return self._plpy.quote_literal(value)

    def _told(self, error: Exception) -> Exception:
        if not hasattr(error, "spidata"):
            return error
        code, detail, hint = error.spidata[:3]
        plan = self._plpy.prepare(
            "SELECT * FROM _deal_sync.as_meant(ROW(NULL, $1, $2, $3, NULL, NULL))", ["text", "text", "text"]
        )
        [meant] = self._plpy.execute(plan, [str(error), detail, hint])
        sqlstate = "".join(chr((code >> 6 * place & 0x3F) + ord("0")) for place in range(5))
        return DealSyncError(sqlstate, meant["message"], meant["detail"], meant["hint"])
