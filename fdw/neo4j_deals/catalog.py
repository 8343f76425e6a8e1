"""In: PostgreSQL's catalog, by way of `plpy`. Out: the mapping's tables and the options of their server.

The mapping is read once per session, and again if a row of the catalog that it is read from has changed.
`plpy` is passed in: it exists in PL/Python only, and tests can stand in for it.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, Protocol, TypeVar, cast

from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.mapping.application import Application, TargetTable
from neo4j_deals.mapping.model import Column, Source, Table, keys_of


class Plpy(Hashable, Protocol):
    """What the package uses of PL/Python's module `plpy`."""

    def execute(self, query: Any, arguments: Sequence[Any] = ...) -> Sequence[Mapping[str, Any]]:
        """Runs a query or a plan."""

    def prepare(self, query: str, types: Sequence[str]) -> Any:
        """Plans a query."""

    def error(self, message: str, **fields: str | None) -> NoReturn:
        """Raises an error with SQLSTATE, DETAIL and HINT."""

    def quote_ident(self, name: str) -> str:
        """An identifier as SQL takes it."""


class QuotingPlpy(Plpy, Protocol):
    """With what statements are compiled with."""

    def quote_literal(self, value: str) -> str:
        """A text as SQL takes it."""


class TellingPlpy(Plpy, Protocol):
    """With what a scan or an import sends to the client."""

    def notice(self, message: str, **fields: str | None) -> None:
        """Sends a NOTICE with DETAIL and HINT."""

    def warning(self, message: str, **fields: str | None) -> None:
        """Sends a WARNING with DETAIL and HINT."""


def query(plpy: Plpy, text: str, types: Sequence[str] = (), values: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
    """Rows of a query with parameters."""
    return plpy.execute(_plan(plpy, text, tuple(types)), values)


@lru_cache(maxsize=100)
def _plan(plpy: Plpy, text: str, types: tuple[str, ...]) -> Any:
    """A prepared query: to plan one on the catalog takes as long as to run it. PostgreSQL replans it after changes."""
    return plpy.prepare(text, types)


def serve_interrupt(plpy: Plpy) -> None:
    """Lets PostgreSQL process a pending interrupt, which may raise an error."""
    plpy.execute("SELECT 1")


T = TypeVar("T")

_LIBC = ctypes.CDLL(None)
_known: dict[Hashable, Any] = {}  # what `once` keeps
_state: str | None = None  # of the mapping, when it was read
_read_by: tuple[int, int] | None = None  # the statement that last looked


def once(plpy: Plpy, key: Hashable, make: Callable[[], T]) -> T:
    """What `make` returns, which follows from the mapping; it is kept, under `key`, until the mapping changes.

    A statement looks once whether it has changed, so that a run has one mapping from its beginning to its end.
    """
    if _read_by is None or _read_by != _statement():
        look(plpy)
    if key not in _known:
        _known[key] = make()
    return cast("T", _known[key])


def look(plpy: Plpy) -> None:
    """Forgets what `once` keeps if the mapping has changed; each run begins with it."""
    global _state, _read_by
    _read_by = None
    [row] = query(plpy, "SELECT _deal_sync.mapping_state() AS state")
    if row["state"] != _state:
        _known.clear()
    _state, _read_by = row["state"], _statement()


def _statement() -> tuple[int, int] | None:
    """Identifies the transaction and the client's statement; None outside a backend."""
    try:
        beginnings = _LIBC.GetCurrentTransactionStartTimestamp, _LIBC.GetCurrentStatementStartTimestamp
    except AttributeError:
        return None
    for beginning in beginnings:
        beginning.restype = ctypes.c_int64
    return beginnings[0](), beginnings[1]()


def mapped(plpy: Plpy, kind: str) -> str:
    """The foreign table that maps a kind (`_deal_sync.mapped` says which ones count), as its OID: a role that runs a
    sync need not have USAGE on its schema.
    """

    def read() -> str:
        return str(query(plpy, "SELECT _deal_sync.mapped($1)::oid::text AS oid", ["text"], [kind])[0]["oid"])

    return once(plpy, ("mapped", kind), read)


def mapping(plpy: Plpy, kind: str) -> Table:
    """The foreign table of the mapping for a kind."""
    return once(plpy, ("mapping", kind), lambda: table(plpy, mapped(plpy, kind)))


def fingerprint(plpy: Plpy) -> str:
    """Changes with the mapping, of which it knows names only, so that it survives a dump and a restore."""

    def read() -> str:
        return str(query(plpy, "SELECT _deal_sync.mapping_fingerprint() AS fingerprint")[0]["fingerprint"])

    return once(plpy, "fingerprint", read)


def table(plpy: Plpy, relation: str) -> Table:
    """A foreign table, of the mapping or not; `relation` is a regclass."""
    head = query(
        plpy,
        "SELECT _deal_sync.options_of(ftoptions) AS options, ftrelid::pg_catalog.regclass::text AS name"
        " FROM pg_catalog.pg_foreign_table WHERE ftrelid = $1",
        ["pg_catalog.regclass"],
        [relation],
    )[0]
    options = json.loads(head["options"])
    source = Source.read(options, f"foreign table {head['name']}")
    columns = query(
        plpy,
        "SELECT m.*, pg_catalog.format_type(m.type, NULL) AS type_family,"
        " pg_catalog.format_type(m.type, m.type_modifier) AS type_as,"
        " pg_catalog.format_type(m.staged_type, NULL) AS staged_family,"
        " pg_catalog.format_type(m.target_type, NULL) AS target_family,"
        " pg_catalog.format_type(m.target_type, m.target_modifier) AS target_as"
        " FROM _deal_sync.mapping_columns($1) AS m ORDER BY m.place",
        ["pg_catalog.regclass"],
        [relation],
    )
    return Table(
        head["name"],
        options.get("kind", ""),
        source,
        tuple(Column.read(row, keys_of(options)) for row in columns),
        options.get("stamps"),
    )


def application(plpy: Plpy) -> Application:
    """The application's tables. Raises PostgreSQL's error if one that the mapping names does not exist."""
    return Application(target(plpy, "deal"), target(plpy, "version"), target(plpy, "deal", "links"))


def target(plpy: Plpy, kind: str, option: str = "target") -> TargetTable:
    """The table of the application that an option names; PostgreSQL's error if it does not exist."""
    return once(plpy, ("target", kind, option), lambda: read_target(plpy, kind, option))


def read_target(plpy: Plpy, kind: str, option: str) -> TargetTable:
    """See `target`: as it is now."""
    [row] = query(
        plpy,
        "SELECT c.oid::pg_catalog.regclass::text AS name, c.relkind::text,"
        " (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname,"
        "   'type_family', pg_catalog.format_type(a.atttypid, NULL), 'base_name', y.typname,"
        "   'base_as', pg_catalog.format_type(b.type, b.modifier), 'not_null', a.attnotnull,"
        "   'has_default', a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,"
        "   'is_generated', a.attgenerated <> '', 'first_label',"
        "    (SELECT e.enumlabel FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = y.oid"
        "     ORDER BY e.enumsortorder LIMIT 1)) ORDER BY a.attnum)"
        "  FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid"
        "  CROSS JOIN LATERAL (SELECT a.atttypid AS type, a.atttypmod AS modifier WHERE t.typtype <> 'd' UNION ALL"
        "   SELECT d.* FROM _deal_sync.base_type(a.atttypid, a.atttypmod) AS d WHERE t.typtype = 'd') AS b"
        "  JOIN pg_catalog.pg_type AS y ON y.oid = b.type"
        "  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,"
        " (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', r.rulename, 'command', r.ev_type,"
        "   'is_enabled', r.ev_enabled <> 'D') ORDER BY r.rulename)"
        "  FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid AND r.ev_type <> '1') AS rules,"
        " (SELECT pg_catalog.jsonb_agg((SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)"
        "   FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k (number, place)"
        "   LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number"
        "   WHERE k.place <= i.indnkeyatts))"
        "  FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid"
        "  JOIN pg_catalog.pg_am AS m ON m.oid = x.relam"
        "  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree') AS indexes"
        " FROM pg_catalog.pg_class AS c WHERE c.oid = _deal_sync.application_table($1, $2)",
        ["text", "text"],
        [kind, option],
    )
    return TargetTable.read(row)


def cast_error(plpy: Plpy, text: str | None, type_name: str, modifier: int) -> str | None:
    """Why a type, as SQL spells it, rejects a text; None if it takes it. A domain may run code of the application."""
    [row] = query(
        plpy,
        "SELECT _deal_sync.cast_error($1, $2, $3) ->> 'message' AS message",
        ["text", "pg_catalog.regtype", "int4"],
        [text, type_name, modifier],
    )
    message: str | None = row["message"]
    return message


def server_options(plpy: Plpy, relation: str) -> ServerOptions:
    """The options to reach the graph behind a foreign table, with the current user's mapping or the PUBLIC one.

    Raises DealSyncError (42704) if the current user can read no user mapping, or if the server belongs to another
    foreign-data wrapper.
    """
    server = query(
        plpy,
        "SELECT s.srvname FROM pg_catalog.pg_foreign_table t JOIN pg_catalog.pg_foreign_server s ON s.oid = t.ftserver"
        " WHERE t.ftrelid = $1",
        ["pg_catalog.regclass"],
        [relation],
    )[0]["srvname"]
    return options_of_server(plpy, server)


def options_of_server(plpy: Plpy, server: str) -> ServerOptions:
    """The same for a server of this foreign-data wrapper, by its name. Raises DealSyncError (42704)."""
    found = query(
        plpy,
        "SELECT s.srvname, _deal_sync.options_of(s.srvoptions) AS options, m.usename AS login,"
        " _deal_sync.options_of(m.umoptions) AS mapping,"
        " m.usename IS NOT NULL AND m.umoptions IS NULL"
        " AND (m.usename = 'public' OR NOT has_server_privilege(s.oid, 'USAGE')) AS hidden"
        " FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
        " LEFT JOIN LATERAL (SELECT u.usename, u.umoptions FROM pg_catalog.pg_user_mappings u"
        "  WHERE u.srvid = s.oid AND u.usename IN (current_user, 'public')"
        "  AND u.umuser IN (0, quote_ident(current_user)::regrole)"
        "  ORDER BY u.umuser DESC LIMIT 1) m ON true"
        " WHERE s.srvname = $1 AND w.fdwname = 'neo4j'",
        ["text"],
        [server],
    )
    if not found:
        raise DealSyncError(
            "42704",
            f'server "{server}" of the foreign-data wrapper neo4j does not exist',
            hint="CREATE SERVER ... FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://host:7687');",
        )
    row = found[0]
    if row["login"] is None or row["hidden"]:
        user = query(plpy, "SELECT current_user AS name")[0]["name"]
        role, server = plpy.quote_ident(user), plpy.quote_ident(row["srvname"])
        if row["hidden"] and row["login"] not in (None, "public"):
            why, hint = "may not read its user mapping", f"GRANT USAGE ON FOREIGN SERVER {server} TO {role};"
        else:
            why = "has no user mapping" if row["login"] is None else "may not read the PUBLIC user mapping"
            hint = f"CREATE USER MAPPING FOR {role} SERVER {server} OPTIONS (\"user\" '…', password '…');"
        raise DealSyncError("42704", f'role "{user}" {why} for server "{row["srvname"]}"', hint=hint)
    return ServerOptions.read(row["srvname"], json.loads(row["options"]), row["login"], json.loads(row["mapping"]))


def check_readable(plpy: Plpy, relation: str, columns: Sequence[str] | None) -> None:
    """Raises PostgreSQL's error if the caller may not SELECT the columns of a foreign table; None: all of them."""
    query(
        plpy,
        "SELECT _deal_sync.check_readable($1, $2)",
        ["pg_catalog.regclass", "text[]"],
        [relation, columns],
    )


def vector_type(plpy: Plpy) -> str:
    """pgvector's type vector, with its schema if it is not in the search_path."""
    name = query(plpy, "SELECT _deal_sync.vector_type()::pg_catalog.regtype::text AS name")[0]["name"]
    return str(name)
