"""In: the connections that this backend keeps, and the catalog. Out: a list of them; or they are closed.

Multicorn does not tell the server's name, so a connection belongs to the server that has the same options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from neo4j_deals.catalog import Plpy, query
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.connection import Connection, kept
from neo4j_deals.graph.options import ServerOptions


def rows(plpy: Plpy) -> Iterator[dict[str, Any]]:
    """The rows of `deal_sync.connections`. Of a login they show only the role whose user mapping it is."""
    servers = _servers(plpy)
    for connection in kept():
        server = _server(connection, servers)
        yield {
            "server": server,
            "login": _role(plpy, connection.role),
            "uri": connection.options.redact(connection.options.uri),
            "state": "in use" if connection.in_use else "idle",
            "idle_seconds": round(connection.idle(), 3),
            "valid": server is not None and _is_valid(plpy, connection, server, servers[server]),
        }


def close(plpy: Plpy, server: str) -> dict[str, int]:
    """Closes the idle connections to a server; returns how many, and how many are in use.

    Connections whose server no longer exists, or has other options now, are closed as well.
    """
    servers = _servers(plpy)
    theirs = [connection for connection in kept() if _server(connection, servers) in (server, None)]
    idle = [connection for connection in theirs if not connection.in_use]
    for connection in idle:
        connection.shut()
        connection.close()
    return {"closed": len(idle), "busy": len(theirs) - len(idle)}


def _servers(plpy: Plpy) -> dict[str, Mapping[str, str]]:
    """The options of each server of the foreign-data wrapper that has an address, by name."""
    found = query(
        plpy,
        "SELECT s.srvname AS name, _deal_sync.options_of(s.srvoptions) AS options FROM pg_catalog.pg_foreign_server s"
        " JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE w.fdwname = 'neo4j' ORDER BY 1",
    )
    servers = {row["name"]: json.loads(row["options"]) for row in found}
    return {name: options for name, options in servers.items() if "uri" in options}


def _server(connection: Connection, servers: Mapping[str, Mapping[str, str]]) -> str | None:
    """The server of a connection; of several with the same options the one that it was made for."""
    without_login = replace(connection.options, user=None, secret=None, password_file=None, bearer_token=None)
    named = connection.options.server
    same = [name for name, options in servers.items() if ServerOptions.read(name, options, "", {}) == without_login]
    if named in same or (not same and named in servers):
        return named
    return same[0] if same else None


def _role(plpy: Plpy, oid: int) -> str:
    return str(query(plpy, "SELECT pg_catalog.pg_get_userbyid($1) AS name", ["oid"], [oid])[0]["name"])


def _is_valid(plpy: Plpy, connection: Connection, server: str, options: Mapping[str, str]) -> bool | None:
    """Whether the next statement would use it; None if the current role may not read the user mapping."""
    mappings = query(
        plpy,
        "SELECT _deal_sync.options_of(m.umoptions) AS options,"
        " m.umoptions IS NULL AND NOT m.is_readable AS hidden"
        " FROM (SELECT u.umuser, u.umoptions, u.usename = current_user AND has_server_privilege(u.srvid, 'USAGE')"
        "  OR pg_has_role((SELECT s.srvowner FROM pg_catalog.pg_foreign_server s WHERE s.oid = u.srvid), 'USAGE')"
        "  AS is_readable FROM pg_catalog.pg_user_mappings u WHERE u.srvname = $1 AND u.umuser IN (0, $2)) AS m"
        " ORDER BY m.umuser DESC LIMIT 1",
        ["text", "oid"],
        [server, connection.role],
    )
    if not mappings:
        return False
    mapping = json.loads(mappings[0]["options"])
    try:
        now = ServerOptions.read(server, options, "", mapping)
    except DealSyncError:
        return False
    if mappings[0]["hidden"]:
        then = connection.options
        now = replace(
            now,
            user=then.user,
            secret=then.secret,
            password_file=then.password_file,
            bearer_token=then.bearer_token,
        )
        return None if now == then else False
    return now == connection.options
