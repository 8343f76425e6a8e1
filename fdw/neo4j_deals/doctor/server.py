"""In: the server's files, and the login to Neo4j. Out: whether a run can begin to read. Nothing here connects.

No finding shows a secret or the path of a password file.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from neo4j_deals import catalog
from neo4j_deals.doctor.case import Finding, OwnersCase, failure, owners_check
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.quoting import literal
from neo4j_deals.sync.staging import spool_folder

_FREE_BYTES = 1 << 30


@owners_check("spool folder")
def spool(case: OwnersCase) -> Finding:
    """Can a run write its files where PostgreSQL puts its own temporary files?"""
    try:
        with tempfile.TemporaryFile(dir=spool_folder(case.plpy)) as file:
            file.write(b"deal_sync")
            file.flush()
    except OSError as error:
        return Finding(
            False,
            f"base/pgsql_tmp of the data directory: {error.strerror}",
            "Let the server's user write there. In the data directory: chmod 700 base/pgsql_tmp",
        )
    return Finding(True, "base/pgsql_tmp of the data directory is writable")


@owners_check("disk space", "spool folder")
def disk_space(case: OwnersCase) -> Finding:
    """Is there enough space for these files, and for the rows that they become?"""
    return disk(shutil.disk_usage(spool_folder(case.plpy)).free)


def disk(free: int) -> Finding:
    """`free`: bytes."""
    said = f"{free / (1 << 30):.1f} GB free for temporary files"
    if free < _FREE_BYTES:
        return Finding(False, said, "Free some space on the disk of the data directory.")
    return Finding(True, said)


@owners_check("server")
def server(case: OwnersCase) -> Finding:
    """Is there a server, that of the mapping or the only one, and is its owner trusted?"""
    found = case.query("servers", ["boolean"], [case.is_mapped])
    if not found:
        return Finding(
            False,
            "no server of the foreign-data wrapper neo4j",
            "CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://host:7687');",
        )
    name = found[0]["name"]
    if len(found) > 1:
        return Finding(
            False,
            f"several servers, and no foreign tables that use one: {', '.join(row['name'] for row in found)}",
            f"SELECT deal_sync.attach({literal(name)});",
        )
    if not found[0]["is_trusted"]:
        return Finding(
            False,
            f'server "{name}" belongs neither to a superuser nor to the owner of the extension',
            f"ALTER SERVER {case.ident(name)} OWNER TO {case.ident(found[0]['trusted'])};",
        )
    case.server, case.options = name, json.loads(found[0]["options"])
    read = ServerOptions.read(name, case.options, "", {})
    return Finding(True, f'"{name}" at {read.redact(case.options["uri"])}')


@owners_check("tls", "server")
def encryption(case: OwnersCase) -> Finding:
    """Is the connection to Neo4j encrypted?"""
    return tls(case.ident(case.server), case.options["uri"])


def tls(server: str, address: str) -> Finding:
    """`server` is its name as SQL takes it."""
    uri = urlsplit(address)
    host = uri.netloc.rpartition("@")[2]
    verified = literal(f"{uri.scheme.partition('+')[0]}+s://{host}")
    change = f"ALTER SERVER {server} OPTIONS (SET uri {verified});"
    if uri.scheme.endswith("+s"):
        return Finding(True, "on, and the certificate is verified")
    if uri.scheme.endswith("+ssc"):
        return Finding(False, "on, but the certificate is not verified", change)
    if _is_here(uri.hostname or ""):
        return Finding(True, "off, but the connection does not leave this machine")
    return Finding(False, "off: login and deals are sent in clear text", change)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@owners_check("user mapping", "server")
def user_mapping(case: OwnersCase) -> Finding:
    """Does the extension's owner have a user mapping for the server?"""
    case.login = catalog.options_of_server(case.plpy, case.server)
    if case.login.bearer_token is not None:
        with_what = "with a bearer token"
    elif not case.login.user:
        with_what = "without a login"
    elif case.login.password_file:
        with_what = "with a password file"
    else:
        with_what = "with a password in the mapping"
    return Finding(True, f'of role "{case.login.login}", {with_what}')


@owners_check("password file", "user mapping")
def password_file(case: OwnersCase) -> Finding:
    """Can only the server's user read the password? The rules for its mode are PostgreSQL's own for ssl_key_file."""
    path, detail = case.login.password_file, "not used"
    if path is not None:
        what = 'the file in the option "password_file" of the user mapping'
        try:
            case.login.password()
            found = Path(path).stat()
        except DealSyncError as error:
            return failure(error)
        except OSError as error:
            return Finding(False, f"{what}: {error.strerror}", "Let the server's user read it.")
        allowed = 0o640 if found.st_uid == 0 and os.geteuid() != 0 else 0o600
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077 & ~allowed:
            return Finding(False, f"others can read or write it: its mode is {mode:04o}", f"chmod {allowed:o} {what}")
        detail = f"readable, mode {mode:04o}"
    roles = [row["role"] for row in case.query("passwords_in_catalog", ["text"], [case.server])]
    if not roles:
        return Finding(True, detail)
    return Finding(
        True,
        f"{detail}; the catalog and its dumps contain the password of the user mapping for {', '.join(roles)}",
        f"ALTER USER MAPPING FOR {roles[0]} SERVER {case.ident(case.server)}"
        " OPTIONS (DROP password, ADD password_file '/etc/deal_sync/password');",
    )
