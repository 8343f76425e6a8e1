"""In: the mapping's server and its graph, with the login of the extension's owner. Out: one row a check, for doctor().

Nothing here raises for what it finds, but for a cancel: a check that cannot be made says why. Secrets and the path of a
password file stay out of every row.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from neo4j_deals import __file__ as package_file
from neo4j_deals import __version__, catalog
from neo4j_deals.catalog import Plpy
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import cypher, whole
from neo4j_deals.graph.connection import Ask, connection
from neo4j_deals.graph.cypher import Query, is_a_tenant, quoted
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.graph.reader import answer, unless_forbidden
from neo4j_deals.mapping.defaults import DIMENSION_PREFIX, TABLES
from neo4j_deals.mapping.model import Table
from neo4j_deals.sync.staging import spool_folder
from neo4j_deals.tables import imports

T = TypeVar("T")

_QUERY_SECONDS = 30.0  # what a question may take in Neo4j, where the server's options allow more or say nothing
_CLOCK_SECONDS = 60.0  # a difference of clocks that nobody need mend
_FUTURE = "PT10M"  # writers' clocks may be ahead
_WITHOUT_MOMENT = 0.1  # share of nodes; skeletons have none, and a real graph holds about one in twenty
_FREE_BYTES = 1 << 30
_SAYS_A_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}.*"  # what a text begins with that is a time
_SAYS_NO_ZONE = ".{10}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?"


@dataclass(frozen=True)
class Finding:
    """What a check found; `ok` None: it could not be made."""

    ok: bool | None
    detail: str
    hint: str | None = None


Row = tuple[str, bool | None, str, str | None]


class _Rows:
    """The rows so far. A check whose ground has failed is not made."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._failed: set[str] = set()

    def add(self, name: str, check: Callable[[], Finding], *needs: str) -> None:
        """A row of what `check` finds, or of why it was not made."""
        found = self._not_made(needs)
        if found is None:
            try:
                found = check()
            except DealSyncError as error:
                found = failure(error)
                if error.sqlstate[:2] == "08":  # it broke: those that follow need not wait for it
                    self._failed.add("connection")
        if found.ok is not True:
            self._failed.add(name)
        self.rows.append((name, found.ok, found.detail, found.hint))

    def fail(self, name: str) -> None:
        """As a row that was found wrong elsewhere."""
        self._failed.add(name)

    def _not_made(self, needs: Sequence[str]) -> Finding | None:
        for need in needs:
            if need in self._failed:
                return Finding(None, f"not checked: {need}")
        return None


def failure(error: DealSyncError) -> Finding:
    """An error as a finding."""
    return Finding(False, f"{error.message}: {error.detail}" if error.detail else error.message, error.hint)


def versions() -> str:
    """The package, what it needs, and where they lie."""
    needed = [re.split(r"[^\w-]", line)[0] for line in metadata.requires("deal-sync") or ()]
    listed = ", ".join(f"{name} {metadata.version(name)}" for name in needed)
    return f"neo4j_deals {__version__} in {Path(package_file).parent}; {listed}"


def examine(plpy: Plpy, is_mapped: bool) -> list[Row]:
    """The checks of spool, server and graph. `is_mapped`: `_deal_sync.mapped` finds both kinds."""
    rows = _Rows()
    if not is_mapped:
        rows.fail("foreign tables")
    rows.add("spool folder", lambda: _spool(plpy))
    rows.add("disk space", lambda: disk(shutil.disk_usage(spool_folder(plpy)).free), "spool folder")
    _examine_server(plpy, rows, is_mapped)
    return rows.rows


# -- the spool ---------------------------------------------------------------------------------------------------------


def _spool(plpy: Plpy) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=spool_folder(plpy)) as file:
            file.write(b"deal_sync")
            file.flush()
    except OSError as error:
        return Finding(
            False,
            f"base/pgsql_tmp of the data directory: {error.strerror}",
            "let the server's user write there: chmod 700 base/pgsql_tmp in the data directory",
        )
    return Finding(True, "base/pgsql_tmp of the data directory is writable")


def disk(free: int) -> Finding:
    """Whether there is room for the spool files, and for what they become in tables."""
    said = f"{free / (1 << 30):.1f} GB free for temporary files"
    return (
        Finding(True, said) if free >= _FREE_BYTES else Finding(False, said, "make room where the server's data lies")
    )


# -- the server and its login ------------------------------------------------------------------------------------------


def _examine_server(plpy: Plpy, rows: _Rows, is_mapped: bool) -> None:
    server: list[tuple[str, dict[str, str]]] = []
    options: list[ServerOptions] = []

    def find_server() -> Finding:
        server.append(_server(plpy, is_mapped))
        name, found = server[0]
        return Finding(True, f'"{name}" at {ServerOptions.read(name, found, "", {}).redact(found["uri"])}')

    def find_login() -> Finding:
        options.append(catalog.options_of_server(plpy, server[0][0]))
        return Finding(True, f'of role "{options[0].login}", {_kind_of_login(options[0])}')

    rows.add("server", find_server)
    rows.add("tls", lambda: tls(plpy.quote_ident(server[0][0]), server[0][1]["uri"]), "server")
    rows.add("user mapping", find_login, "server")
    rows.add("password file", lambda: _password_file(options[0], _in_catalog(plpy, server[0][0])), "user mapping")

    def asked(work: Callable[[Ask], T]) -> T:
        # One transaction a question: one that was refused something is of no more use.
        mine = options[0]
        seconds = min(mine.query_timeout or _QUERY_SECONDS, _QUERY_SECONDS)
        return answer(connection(replace(mine, query_timeout=seconds)), work, lambda: plpy.execute("SELECT 1"))

    refused: list[DealSyncError] = []

    def connect() -> Finding:
        began = time.monotonic()
        try:
            asked(lambda ask: list(ask(Query("RETURN 1"))))
        except DealSyncError as error:
            if error.sqlstate[:2] == "08" or error.sqlstate == "HV00D":
                raise
            refused.append(error)
        return Finding(True, f"answers in {1000 * (time.monotonic() - began):.0f} ms")

    def log_in() -> Finding:
        if refused and refused[0].sqlstate[:2] == "28":
            return failure(refused[0])
        return Finding(True, "accepted")

    def has_database() -> Finding:
        if refused:
            found = failure(refused[0])
            return replace(found, hint=found.hint or f'check the option "database" of server "{server[0][0]}"')
        return Finding(True, f'"{asked(_database)[0]}"')

    rows.add("connection", connect, "server", "user mapping", "password file")
    rows.add("login", log_in, "connection")
    rows.add("database", has_database, "connection", "login")
    there = ("connection", "login", "database")
    rows.add("neo4j version", lambda: version(*asked(_components)), *there)
    rows.add("clock", lambda: asked(_clock), *there)
    rows.add("graph id", lambda: _graph_id(plpy, asked(_database)[1]), *there)
    rows.add("open transactions", lambda: _open_transactions(plpy, asked), *there)
    _examine_graph(plpy, rows, asked, there)


def _server(plpy: Plpy, is_mapped: bool) -> tuple[str, dict[str, str]]:
    """The server of the mapping, or the only one there is. It must belong to a superuser or the extension's owner."""
    found = catalog.query(
        plpy,
        "SELECT s.srvname AS name, _deal_sync.options_of(s.srvoptions) AS options, o.rolname AS owner,"
        " (SELECT bool_and(r.rolsuper OR r.oid = e.extowner) FROM pg_catalog.pg_roles AS r WHERE r.oid = s.srvowner)"
        " AS trusted"
        " FROM pg_catalog.pg_foreign_server AS s JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw"
        " JOIN pg_catalog.pg_extension AS e ON e.extname = 'deal_sync'"
        " JOIN pg_catalog.pg_roles AS o ON o.oid = e.extowner"
        " WHERE w.fdwname = 'neo4j' AND (NOT $1 OR s.oid ="
        " (SELECT t.ftserver FROM pg_catalog.pg_foreign_table AS t WHERE t.ftrelid ="
        " CASE WHEN $1 THEN _deal_sync.mapped('deal') END)) ORDER BY s.srvname",
        ["boolean"],
        [is_mapped],
    )
    if not found:
        raise DealSyncError(
            "42704",
            "no server of the foreign-data wrapper neo4j",
            hint="CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://host:7687');",
        )
    name = found[0]["name"]
    if len(found) > 1:
        raise DealSyncError(
            "55000",
            f"several servers, and no foreign tables say which: {', '.join(row['name'] for row in found)}",
            hint=f"SELECT deal_sync.attach({_literal(name)});",
        )
    if not found[0]["trusted"]:
        raise DealSyncError(
            "42501",
            f'server "{name}" belongs to no superuser and not to the owner of the extension',
            hint=f"ALTER SERVER {plpy.quote_ident(name)} OWNER TO {plpy.quote_ident(found[0]['owner'])};",
        )
    return name, json.loads(found[0]["options"])


def _kind_of_login(options: ServerOptions) -> str:
    if options.bearer_token is not None:
        return "with a bearer token"
    if not options.user:
        return "without a login"
    return "with a password file" if options.password_file else "with a password in the mapping"


def tls(server: str, address: str) -> Finding:
    """Whether what travels to Neo4j can be read on the way; `server` is its name as SQL takes it."""
    uri = urlsplit(address)
    host = uri.netloc.rpartition("@")[2]
    verified = _literal(f"{uri.scheme.partition('+')[0]}+s://{host}")
    change = f"ALTER SERVER {server} OPTIONS (SET uri {verified});"
    if uri.scheme.endswith("+s"):
        return Finding(True, "on; the certificate must be one that this server trusts")
    if uri.scheme.endswith("+ssc"):
        return Finding(False, "on, but any certificate will do: an impostor's, too", change)
    if _is_here(uri.hostname or ""):
        return Finding(True, "off; nothing leaves this machine")
    return Finding(False, "off: login and deals can be read on the way", change)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_catalog(plpy: Plpy, server: str) -> tuple[str, str] | None:
    """The user mappings that hold a password themselves, and what puts the first one's into a file."""
    found = catalog.query(
        plpy,
        "SELECT CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(m.usename) END AS role"
        " FROM pg_catalog.pg_user_mappings AS m"
        " WHERE m.srvname = $1 AND _deal_sync.options_of(m.umoptions) ? 'password' ORDER BY m.umuser",
        ["text"],
        [server],
    )
    roles = [str(row["role"]) for row in found]
    alter = "ALTER USER MAPPING FOR {} SERVER {} OPTIONS (DROP password, ADD password_file '/etc/deal_sync/password');"
    return (", ".join(roles), alter.format(roles[0], plpy.quote_ident(server))) if roles else None


def _password_file(options: ServerOptions, in_catalog: tuple[str, str] | None) -> Finding:
    """As PostgreSQL judges the key of its own certificate: 0600, or 0640 where root owns it."""
    if options.password_file is None:
        return _beside("not used", in_catalog)
    what = 'the file that the option "password_file" of the user mapping names'
    try:
        options.password()
        found = Path(options.password_file).stat()
    except DealSyncError as error:
        return Finding(False, f"{error.message}: {error.detail}", f"let the server's user read {what}")
    except OSError as error:
        return Finding(False, f"{what}: {error.strerror}", "let the server's user read it")
    allowed = 0o640 if found.st_uid == 0 and os.geteuid() != 0 else 0o600
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 & ~allowed:
        return Finding(False, f"others can read or write it: its mode is {mode:04o}", f"chmod {allowed:o} {what}")
    return _beside(f"readable, mode {mode:04o}", in_catalog)


def _beside(said: str, in_catalog: tuple[str, str] | None) -> Finding:
    if in_catalog is None:
        return Finding(True, said)
    roles, hint = in_catalog
    return Finding(
        True, f"{said}; the catalog, and a dump of it, holds the password of the user mapping for {roles}", hint
    )


# -- the graph's server ------------------------------------------------------------------------------------------------


def _components(ask: Ask) -> tuple[str, str]:
    query = (
        "CALL dbms.components() YIELD name, versions, edition WHERE name = 'Neo4j Kernel' RETURN versions[0], edition"
    )
    number, edition = next(ask(Query(query)))
    return number, edition


def version(number: str, edition: str) -> Finding:
    """Neo4j 5, or the calendar line that follows it (2025.01 and later)."""
    major = number.partition(".")[0]
    ok = major.isdigit() and (int(major) == 5 or int(major) >= 2025)
    hint = None if ok else "use Neo4j 5 or a later one: the sync's Cypher needs it"
    return Finding(ok, f"{number}, {edition}", hint)


def _clock(ask: Ask) -> Finding:
    before = time.time()
    theirs = next(ask(Query("RETURN datetime.realtime().epochMillis")))[0] / 1000
    return clock(theirs - (before + time.time()) / 2)


def clock(ahead: float) -> Finding:
    """`ahead`: seconds that the graph's clock is ahead of this server's."""
    if abs(ahead) < 1:
        return Finding(True, "the two clocks agree within a second")
    said = f"Neo4j's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} PostgreSQL's"
    ok = abs(ahead) <= _CLOCK_SECONDS
    return Finding(ok, said, None if ok else "let both machines follow a time server (NTP)")


def _database(ask: Ask) -> tuple[str, str]:
    name, id_ = next(ask(Query("CALL db.info() YIELD name, id RETURN name, id")))
    return name, id_


def _graph_id(plpy: Plpy, found: str) -> Finding:
    known = catalog.query(plpy, "SELECT g.database_id FROM deal_sync.graph AS g")
    if not known:
        return Finding(True, f"{found}; the first run will remember it")
    if known[0]["database_id"] == found:
        return Finding(True, found)
    return Finding(
        False,
        f"is it the one that is meant? it is {found}, and the runs so far read {known[0]['database_id']}",
        "SELECT deal_sync.accept_graph();",
    )


def _open_transactions(plpy: Plpy, asked: Asked) -> Finding:
    """Those that are open for longer than a run looks back; of others than us."""
    [row] = catalog.query(
        plpy,
        "SELECT o.overlap, extract(EPOCH FROM o.overlap::pg_catalog.interval)::pg_catalog.float8 AS seconds"
        " FROM _deal_sync.setting('overlap') AS o (overlap)",
    )
    query = cypher.open_transactions(asked(_database)[0], int(row["seconds"] * 1000))
    found = unless_forbidden(lambda: asked(lambda ask: whole.one(ask, query)[0]))
    return transactions(found, row["overlap"], found is not None and _sees_others(asked))


def _sees_others(asked: Asked) -> bool | None:
    """Whether the login is shown the transactions of other logins; None where Neo4j does not tell."""
    if asked(_components)[1] == "community":  # without rights of its own
        return True
    privileges = Query("SHOW USER PRIVILEGES YIELD access, action RETURN access, action")
    try:
        return sees_others(asked(lambda ask: list(ask(privileges))))
    except DealSyncError as error:
        if error.sqlstate != "HV000":
            raise
        return None


def sees_others(privileges: Sequence[tuple[str, str]]) -> bool:
    """By the login's privileges: access and action of each."""
    actions = ("show_transaction", "transaction_management", "database_actions")
    return any(access == "GRANTED" and action in actions for access, action in privileges)


def transactions(found: Sequence[tuple[str, int]] | None, overlap: str, all_are_seen: bool | None) -> Finding:
    """`found`: id and seconds of each, None where the login may not ask; `overlap` as the setting has it."""
    if found:
        return Finding(
            False,
            f"open for longer than deal_sync.overlap ({overlap}): "
            + ", ".join(f"{id_} ({seconds} s)" for id_, seconds in found[:5])
            + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            + "; runs may not see what they commit",
            "when they have ended, SELECT * FROM sync_deals('...', 'full'); where they are usual, SET deal_sync.overlap"
            " to more than they last",
        )
    said = f"none of others is open for longer than deal_sync.overlap ({overlap})"
    if all_are_seen:
        return Finding(True, said)
    if found is None or all_are_seen is False:
        return Finding(
            None,
            "the login may not see the transactions of other logins",
            "GRANT SHOW TRANSACTION (*) ON DATABASE * TO … (in Neo4j)",
        )
    return Finding(True, f"{said}, as far as the login may see them")


# -- what the graph holds ----------------------------------------------------------------------------------------------


Asked = Callable[[Callable[[Ask], Any]], Any]


def _examine_graph(plpy: Plpy, rows: _Rows, asked: Asked, there: Sequence[str]) -> None:
    tables: dict[str, Table] = {}

    def of(kind: str) -> Table:
        if kind not in tables:
            tables[kind] = catalog.table(plpy, catalog.mapped(plpy, kind))
        return tables[kind]

    indexes: list[list[tuple[Any, ...]] | None] = []

    def indexed(
        kind: str, name: str, choices: Callable[[Table], Sequence[Sequence[str]]], is_unique: bool = False
    ) -> Finding:
        if not indexes:
            indexes.append(unless_forbidden(lambda: asked(_indexes)))
        if indexes[0] is None:
            return Finding(None, "the login may not see indexes", "GRANT SHOW INDEX ON DATABASE * TO … (in Neo4j)")
        return index(indexes[0], of(kind).label, name, choices(of(kind)), is_unique)

    needs = (*there, "foreign tables")

    def add(name: str, check: Callable[[], Finding]) -> None:
        rows.add(name, check, *needs)

    add("deals: key index", lambda: indexed("deal", "deal_sync_deal_key", _key_choices))
    add("deals: watermark index", lambda: indexed("deal", "deal_sync_deal_watermark", _watermark_choices))
    add("deals: tenant index", lambda: indexed("deal", "deal_sync_deal_tenant", _tenant_choices))
    add("versions: key index", lambda: indexed("version", "deal_sync_version_key", _key_choices, is_unique=True))
    add("versions: watermark index", lambda: indexed("version", "deal_sync_version_watermark", _watermark_choices))
    add("versions: tenant index", lambda: indexed("version", "deal_sync_version_tenant", _tenant_choices))
    add("versions: deal index", lambda: indexed("version", "deal_sync_version_deal", _deal_choices))

    def said(kind: str, check: Callable[[Asked, Table], Finding]) -> Callable[[], Finding]:
        return lambda: check(asked, of(kind))

    def unmapped(asked: Asked, table: Table) -> Finding:
        return _unmapped(plpy, asked, table, of("deal"))

    def absent(asked: Asked, table: Table) -> Finding:
        return _absent(plpy, asked, table)

    for kind in ("deal", "version"):
        add(f"{kind}s: duplicates", said(kind, _duplicates))
        add(f"{kind}s: tenants", said(kind, _tenants))
        add(f"{kind}s: timestamps", said(kind, _timestamps))
        add(f"{kind}s: future", said(kind, _future))
        add(f"{kind}s: unmapped", said(kind, unmapped))
        add(f"{kind}s: absent", said(kind, absent))


def _indexes(ask: Ask) -> list[tuple[Any, ...]]:
    return list(
        ask(
            Query(
                "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, state, owningConstraint"
                " WHERE entityType = 'NODE' AND type = 'RANGE'"
                " RETURN name, labelsOrTypes, properties, state, owningConstraint"
            )
        )
    )


def _key_choices(table: Table) -> Sequence[Sequence[str]]:
    tenant, key = table.tenant.property, table.key.property
    return [[tenant, key], [key, tenant], [key]]


def _watermark_choices(table: Table) -> Sequence[Sequence[str]]:
    return [[table.tenant.property, table.moments[0]]]


def _deal_choices(table: Table) -> Sequence[Sequence[str]]:
    tenant, deal = table.tenant.property, table.deal.property
    return [[tenant, deal], [deal, tenant], [deal]]


def _tenant_choices(table: Table) -> Sequence[Sequence[str]]:
    return [[table.tenant.property]]


def index(
    found: Sequence[tuple[Any, ...]], label: str, name: str, choices: Sequence[Sequence[str]], is_unique: bool = False
) -> Finding:
    """Whether one of the indexes serves; `choices` are the properties that will do, the best first.

    `is_unique`: the writer's own constraint may be due there, and a plain index would stand in its way.
    """
    serving = [row for row in found if row[1] == [label] and list(row[2]) in [list(choice) for choice in choices]]
    wanted = ", ".join(f"n.{quoted(name)}" for name in choices[0])
    for known, _, _, state, constraint in serving:
        if state == "ONLINE":
            return Finding(True, f'constraint "{constraint}"' if constraint else f'index "{known}"')
    if serving:
        known, _, _, state, constraint = serving[0]
        made = f"CREATE INDEX {quoted(known)} FOR (n:{quoted(label)}) ON ({wanted})"
        if state == "POPULATING":
            return Finding(False, f'index "{known}" is still being built', "wait for it: CALL db.awaitIndexes()")
        return Finding(
            False, f'index "{known}" is {state}', None if constraint else f"DROP INDEX {quoted(known)}; {made}"
        )
    return Finding(
        False,
        f"none on ({', '.join(choices[0])}) of :{label}: a look-up reads all nodes",
        f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{quoted(label)}) REQUIRE ({wanted}) IS UNIQUE"
        if is_unique
        else f"CREATE INDEX {name} IF NOT EXISTS FOR (n:{quoted(label)}) ON ({wanted})",
    )


def _one(asked: Asked, query: Query) -> tuple[Any, ...]:
    found: tuple[Any, ...] = asked(lambda ask: next(ask(query)))
    return found


def _duplicates(asked: Asked, table: Table) -> Finding:
    """By the key alone, over all tenants: the application's tables hold an id once."""
    key = f"n.{quoted(table.key.property)}"
    group = f"MATCH (n:{quoted(table.label)})\nWITH {cypher.normalised(key)} AS key, "
    some = "WHERE key IS NOT NULL AND "
    keys, nodes = _one(
        asked, Query(f"{group}count(*) AS nodes\n{some}nodes > 1\nRETURN count(*), coalesce(sum(nodes), 0)")
    )
    if not keys:
        return Finding(True, f"each {table.key.property} is on one node")
    shown = f"{group}collect(n) AS nodes {some}size(nodes) > 1 UNWIND nodes AS n RETURN elementId(n), {key}"
    return Finding(
        False,
        f"values of {table.key.property} that several nodes share: {keys}; these nodes: {nodes}; one of each lands",
        "delete the superfluous ones, which are among: " + shown.replace("\n", " "),
    )


def _tenants(asked: Asked, table: Table) -> Finding:
    property_ = table.tenant.property
    counts = asked(lambda ask: list(ask(cypher.tenant_counts(table.label, property_))))
    absent = sum(nodes for value, nodes in counts if value is None)
    odd = sum(nodes for value, nodes in counts if value is not None and not is_a_tenant(value))
    if not absent and not odd:
        return Finding(True, f"nodes: {sum(nodes for _, nodes in counts)}, tenants: {len(counts)}")
    name = f"n.{quoted(property_)}"
    return Finding(
        False,
        f"nodes of no tenant: {absent + odd}; {property_} is absent on {absent}, no UUID as usual on {odd}",
        "set it to the tenant's id, a UUID in lower case; they are among:"
        f" MATCH (n:{quoted(table.label)}) WITH {name} AS tenant, collect(elementId(n)) AS nodes"
        " RETURN tenant, size(nodes), nodes[..5]",
    )


def _timestamps(asked: Asked, table: Table) -> Finding:
    moments = table.moments
    first = f"coalesce({', '.join(f'n.{quoted(name)}' for name in moments)})"
    is_a_time = " OR ".join(f"{first} IS :: {type_} NOT NULL" for type_ in ("ZONED DATETIME", "LOCAL DATETIME", "DATE"))
    unreadable = f"NOT ({is_a_time} OR {first} IS :: STRING NOT NULL AND {first} =~ '{_SAYS_A_DAY}')"
    match = f"MATCH (n:{quoted(table.label)})"
    epochs = _epochs(table)
    no_zone = f"{first} IS :: LOCAL DATETIME NOT NULL OR {first} IS :: STRING NOT NULL AND {first} =~ '{_SAYS_NO_ZONE}'"
    nodes, absent, wrong, local, *of_epochs = _one(
        asked,
        Query(
            f"{match}\nRETURN count(n), count(CASE WHEN {first} IS NULL THEN 1 END),"
            f" count(CASE WHEN {first} IS NOT NULL AND {unreadable} THEN 1 END), count(CASE WHEN {no_zone} THEN 1 END)"
            + "".join(f", count(CASE WHEN {condition} THEN 1 END)" for condition, _ in epochs)
        ),
    )
    said = f"nodes without {' and '.join(moments)}: {absent} of {nodes}"
    if local:
        said += f", with one that says no zone: {local}; it counts as UTC, and runs look for it 14 hours further back"
    if not wrong and absent <= nodes * _WITHOUT_MOMENT:
        return Finding(True, said)
    remedies = [
        f"{match} WHERE {condition} SET {change}"
        for (condition, change), found in zip(epochs, of_epochs, strict=True)
        if found
    ]
    if wrong > sum(of_epochs):
        remedies.append(_set_moment(asked, table, f"{first} IS NOT NULL AND {unreadable}"))
    if absent > nodes * _WITHOUT_MOMENT:
        remedies.append(_set_moment(asked, table, f"{first} IS NULL", keeping=False))
    return Finding(False, f"{said}, with an unreadable one: {wrong}; every run reads them", "; ".join(remedies))


def _epochs(table: Table) -> list[tuple[str, str]]:
    """Integers that count from 1970: which they are, and what makes the same moment of them.

    Seconds and milliseconds are told apart by the years that they would mean: from 2000 until now.
    """
    return [
        (
            f"n.{quoted(name)} IS :: INTEGER NOT NULL AND {since_2000} <= n.{quoted(name)} <= datetime().{unit}",
            f"n.{quoted(name)} = datetime({{{unit}: n.{quoted(name)}}})",
        )
        for name in table.moments
        for unit, since_2000 in (("epochSeconds", 946_684_800), ("epochMillis", 946_684_800_000))
    ]


def _future(asked: Asked, table: Table) -> Finding:
    """Times by the graph's clock; texts by their day, since they may be in any offset."""
    name = f"n.{quoted(table.moments[0])}"
    day = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    condition = " OR ".join(
        [
            *(f"{name} > {clock}() + duration('{_FUTURE}')" for clock in ("datetime", "localdatetime")),
            f"{name} >= '{day}' AND {name} =~ '{_SAYS_A_DAY}'",
        ]
    )
    (nodes,) = _one(asked, Query(f"MATCH (n:{quoted(table.label)}) WHERE {condition} RETURN count(n)"))
    if not nodes:
        return Finding(True, "no timestamp is ahead of the clock")
    return Finding(
        False,
        f"nodes with a {table.moments[0]} in the future: {nodes}; every run reads them",
        _set_moment(asked, table, f"({condition})"),
    )


def _set_moment(asked: Asked, table: Table, condition: str, *, keeping: bool = True) -> str:
    """What to do with the nodes that meet it: a deal may count as changed now, a version's times are its own.

    What stands there is kept beside it, by a name that no node has: it may be all that is known. The statement leaves
    out nodes that have got the name meanwhile, so that it destroys nothing when it is run again.
    """
    match, moment = f"MATCH (n:{quoted(table.label)}) WHERE {condition}", f"n.{quoted(table.moments[0])}"
    if table.kind != "deal":
        return f"set it to the moment of the change, a ZONED DATETIME; they are: {match} RETURN elementId(n), {moment}"
    if not keeping:
        return f"{match} SET {moment} = datetime()"
    kept = f"n.{quoted(_free_name(asked, table, f'{table.moments[0]}_before'))}"
    return f"{match} AND {kept} IS NULL SET {kept} = {moment}, {moment} = datetime()"


def _free_name(asked: Asked, table: Table, name: str) -> str:
    """A name that no property of the label's nodes has: this one, or with a number behind it."""
    match = f"MATCH (n:{quoted(table.label)}) UNWIND keys(n) AS name"
    query = Query(f"{match} WITH name WHERE name STARTS WITH $name RETURN collect(DISTINCT name)", {"name": name})
    (taken,) = _one(asked, query)
    return next(free for number in count(1) if (free := name if number == 1 else f"{name}_{number}") not in taken)


def _unmapped(plpy: Plpy, asked: Asked, table: Table, deals: Table) -> Finding:
    """Of a sample. A version is a copy of its deal: what only the deals' table maps is left out there on purpose.

    A dimension without a column is shown in the document of all of them.
    """
    columns = [column for one in (table, deals) for column in one.columns]
    in_documents = any(column.derive == "ontology_scores" for column in columns)
    match = f"MATCH (n:{quoted(table.label)})\nWITH n LIMIT $sample\n"
    names = Query(
        f"{match}UNWIND keys(n) AS name\nWITH DISTINCT name\n"
        "WHERE NOT name IN $known AND NOT ($in_documents AND name STARTS WITH $prefix)\nRETURN name ORDER BY name",
        {
            "sample": imports.SAMPLE,
            "known": sorted({column.property for column in columns}),
            "in_documents": in_documents,
            "prefix": DIMENSION_PREFIX,
        },
    )
    found = [name for (name,) in asked(lambda ask: list(ask(names)))]
    if not found:
        return Finding(True, f"each property of the first {imports.SAMPLE} nodes has a column")
    vector = catalog.vector_type(plpy)
    wish = imports.Wish(only=[table.label], sample=1000)
    _, named, labels = asked(lambda ask: imports.found(ask, wish, {}))
    types = {
        options.get("property", name): type_
        for made in imports.tables(wish, named, labels, vector).tables
        for name, type_, options in made.columns
    }
    used = {column.name for column in table.columns} | imports.SYSTEM_COLUMNS
    added: list[imports.Column] = []
    for name in found:
        free = imports.free_name(name, used)
        added.append((free, types.get(name, "text"), {} if free == name else {"property": name}))
    return Finding(
        False,
        f"no column shows {', '.join(found[:5])}" + (f" and {len(found) - 5} more" if len(found) > 5 else ""),
        f"ALTER FOREIGN TABLE {table.name} "
        + ", ".join(f"ADD COLUMN {imports.as_definition(column)}" for column in added)
        + ";",
    )


def _absent(plpy: Plpy, asked: Asked, table: Table) -> Finding:
    """Columns whose property no node has. A graph need not have all that attach() maps."""
    shown = {column.property: column for column in table.columns if column.derive is None}
    match = f"MATCH (n:{quoted(table.label)})"
    keys = f"{match} WITH n LIMIT $sample UNWIND keys(n) AS name RETURN DISTINCT name ORDER BY name"
    found = [name for (name,) in asked(lambda ask: list(ask(Query(keys, {"sample": imports.SAMPLE}))))]
    rest = sorted(set(shown) - set(found))
    if not found or not rest:
        return Finding(True, "each property that a column shows is on some node" if found else "there are no nodes yet")
    counts = _one(asked, Query(f"{match} RETURN {', '.join(f'count(n.{quoted(name)})' for name in rest)}"))
    absent = [name for name, nodes in zip(rest, counts, strict=True) if not nodes]
    unshown = {_folded(name): name for name in found if name not in shown}
    alike = {name: unshown[_folded(name)] for name in absent if _folded(name) in unshown}
    by_default = {column.name for one in TABLES if one.kind == table.kind for column in one.columns}
    wrong = [name for name in absent if name in alike or shown[name].name not in by_default]
    if not wrong:
        return Finding(True, f"no node has these of the default mapping: {', '.join(absent) or 'none'}")
    has_option = catalog.query(
        plpy,
        "SELECT m.name FROM _deal_sync.mapping_columns(_deal_sync.mapped($1)) AS m"
        " WHERE pg_catalog.jsonb_exists(m.options, 'property')",
        ["text"],
        [table.kind],
    )
    set_before = {row["name"] for row in has_option}
    return Finding(
        False,
        "no node has "
        + ", ".join(f"{name} (but {alike[name]} is there)" if name in alike else name for name in wrong[:5])
        + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
        "let the column show the property that the nodes have: "
        + " ".join(
            f"ALTER FOREIGN TABLE {table.name} ALTER COLUMN {plpy.quote_ident(shown[name].name)} OPTIONS"
            f" ({'SET' if shown[name].name in set_before else 'ADD'} property {_literal(alike.get(name, '…'))});"
            for name in wrong
        ),
    )


def _folded(name: str) -> str:
    """What two spellings of one name have in common: nextStep, nextstep, next_step."""
    return name.replace("_", "").casefold()
