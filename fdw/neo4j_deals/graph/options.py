"""In: the options of server and user mapping, as the catalog has them. Out: a frozen dataclass.

The extension's validator checks options when they are set; here they are read, with their defaults.
Pure except for `password()`, `redact()` and `trusting()`, which read files of the server.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neo4j_deals.errors import DealSyncError

_LONGEST = 2000  # characters of a text that is shown


@dataclass(frozen=True)
class ServerOptions:
    """How to connect. Times are in seconds; a `query_timeout` of None leaves the limit to Neo4j.

    `fetch_size` is in records: the driver holds up to twice as many, some 100 kB each with both embeddings.
    `max_rows` limits one scan of a table, not a sync. A connection that was idle for `idle_timeout` is tested before
    it is used. `server` and `login` are names for messages; they do not count in a comparison.
    """

    server: str = field(compare=False)
    login: str = field(compare=False)
    uri: str
    database: str | None = None
    sslrootcert: str | None = None
    connect_timeout: float = 10.0
    query_timeout: float | None = None
    idle_timeout: float = 60.0
    keep_alive: bool = True
    fetch_size: int = 100
    max_rows: int | None = None
    user: str | None = None
    secret: str | None = field(default=None, repr=False)
    password_file: str | None = field(default=None, repr=False)
    bearer_token: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, server: str, options: Mapping[str, str], login: str, mapping: Mapping[str, str]) -> ServerOptions:
        """From the options of the server and of the user mapping; `login` is the role whose mapping it is.

        Raises DealSyncError if the server has no uri.
        """
        if "uri" not in options:
            raise DealSyncError(
                "HV00L",
                f'server "{server}" has no option "uri"',
                hint=f"ALTER SERVER {server} OPTIONS (ADD uri 'bolt://host:7687');",
            )
        return cls(
            server=server,
            login=login,
            uri=options["uri"],
            database=options.get("database"),
            connect_timeout=float(options.get("connect_timeout", cls.connect_timeout)),
            query_timeout=float(options["query_timeout"]) if "query_timeout" in options else None,
            idle_timeout=float(options.get("idle_timeout", cls.idle_timeout)),
            keep_alive=options.get("keep_alive", "true") in ("true", "on"),
            sslrootcert=options.get("sslrootcert"),
            fetch_size=int(options.get("fetch_size", cls.fetch_size)),
            max_rows=int(options["max_rows"]) if "max_rows" in options else None,
            user=mapping.get("user"),
            secret=mapping.get("password"),
            password_file=mapping.get("password_file"),
            bearer_token=mapping.get("bearer_token"),
        )

    def password(self) -> str | None:
        """The password; a password_file is read for each connection, without its final line break."""
        if self.password_file is None:
            return self.secret
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DealSyncError(
                "28P01",
                f'could not read the password file of the user mapping for server "{self.server}"',
                detail=error.strerror if isinstance(error, OSError) else "it is not UTF-8 text",
                hint="The operating system user that runs PostgreSQL must be able to read it; it must be UTF-8 text.",
            ) from None

    def trusting(self) -> ssl.SSLContext | None:
        """A context that trusts the certificates in sslrootcert and no others; None without the option.

        The file is read for each connection. Raises DealSyncError (08006) if it cannot be read or has no certificate.
        """
        if self.sslrootcert is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.sslrootcert)
        except OSError as error:
            raise DealSyncError(
                "08006",
                f'could not load the file in option "sslrootcert" of server "{self.server}"',
                detail="no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror,
                hint="The operating system user that runs PostgreSQL must be able to read the file.",
            ) from None

    def redact(self, text: str) -> str:
        """A text of the driver without logins: the secrets themselves, and user names in a URI.

        Only its beginning: a text may have any length, and the regular expression takes quadratic time.
        """
        try:
            secret = self.password()
        except DealSyncError:
            secret = None
        for word in (secret, self.bearer_token):
            if word:
                text = text.replace(word, "********")
        return re.sub(r"(\w+://)\S*@", r"\1", text[:_LONGEST])
