"""In: a tenant and kinds of nodes. Out: its nodes in a temporary staging table for each kind, batch by batch.

The body of `_deal_sync.fill_staging`, which runs with the rights of the extension's owner: none of its arguments
becomes SQL or a path. The flow: docs/internals/run.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO

from neo4j_deals import catalog
from neo4j_deals.catalog import Plpy, TellingPlpy, query
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import results
from neo4j_deals.graph.connection import connection
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.graph.reader import Reader, answer
from neo4j_deals.mapping.model import Table
from neo4j_deals.sync import names
from neo4j_deals.sync.feed import Feed, Limits
from neo4j_deals.sync.names import OWN_COLUMNS
from neo4j_deals.sync.process import ReaderProcess
from neo4j_deals.sync.selection import Selection


@dataclass(frozen=True)
class _Part:
    """The nodes of one kind that are wanted, and how many there are, if that is known."""

    feed: Feed
    options: ServerOptions
    amount: int | None


def fill(plpy: TellingPlpy, kinds: Sequence[str], tenant: str, caller: str, wanted: Selection) -> Iterator[int | None]:
    """Stages the tenant's nodes of these kinds that are wanted, and yields the number of the last row after each batch,
    and None between two kinds; the caller then empties the table. If there are no nodes, no table is created.

    `caller` is the quoted name of a role, which may read and truncate the table, nothing else, and write the plan of
    the batch, another table. Raises DealSyncError for errors of the graph or the network, and whatever PostgreSQL
    raises, including a cancel.
    """
    limits, folder, serve_interrupt = _limits(plpy), spool_folder(plpy), partial(catalog.serve_interrupt, plpy)
    if wanted.undated is not None:
        wanted = replace(wanted, undated=_digests(plpy, tenant))
    parts = []
    for kind in kinds:
        feed = Feed(catalog.mapping(plpy, kind), tenant, limits, wanted)
        options = catalog.server_options(plpy, catalog.mapped(plpy, kind))
        # A selection is not counted: that would cost as much as reading it.
        amount = _amount(options, feed, serve_interrupt) if wanted.is_everything else None
        parts.append(_Part(feed, options, amount))
    with contextlib.closing(_read(parts, limits, folder)) as readers:
        for number, (part, reader) in enumerate(readers):
            if number > 0:
                yield None
            progress = Progress(plpy, part.feed.table.kind, tenant, part.amount)
            progress.show(0)
            with contextlib.closing(reader.batches(serve_interrupt)) as batches:
                for last in _staged(plpy, part.feed, caller, batches, reader.done_with):
                    yield last
                    progress.show(last)


def _read(
    parts: Sequence[_Part], limits: Limits, folder: str
) -> Generator[tuple[_Part, Reader | ReaderProcess], None, None]:
    """Each part with its reader: one process for large ones of a server, which reads the next while the last batches of
    one land.
    """
    for options, group in groupby(parts, key=lambda part: part.options):
        together = list(group)
        if max(part.amount or 0 for part in together) >= limits.process_from:
            with contextlib.closing(ReaderProcess(options, [part.feed for part in together], folder)) as process:
                for part in together:
                    yield part, process
        else:
            for part in together:
                yield part, Reader(connection(options), part.feed.produce, folder)


def _staged(
    plpy: TellingPlpy,
    feed: Feed,
    caller: str,
    batches: Iterator[tuple[IO[bytes], int]],
    done_with: Callable[[IO[bytes]], None],
) -> Iterator[int]:
    """The number of the last row of each batch, when the batch is in the staging table."""
    name, made = names.staging(feed.table.kind), None
    filled = ", ".join([*(own for own, _ in OWN_COLUMNS), *(plpy.quote_ident(column.name) for column in feed.columns)])
    for file, last in batches:
        if made is None:
            made = _make(plpy, name, feed.table, caller)
        _check_ours(plpy, name, made)
        plpy.execute(f"COPY {name} ({filled}) FROM '/proc/self/fd/{file.fileno()}' (FORMAT binary)")
        done_with(file)
        yield last
    if made is not None:
        _check_ours(plpy, name, made)
        plpy.execute(f"DROP TABLE {name}, {names.plan(feed.table.kind)}")


def _digests(plpy: Plpy, tenant: str) -> dict[str, str]:
    """What is known of the tenant's nodes without a timestamp, by element id."""
    known = "SELECT u.element_id, u.digest FROM _deal_sync.undated_nodes AS u WHERE u.tenant_id = $1"
    return {row["element_id"]: row["digest"] for row in query(plpy, known, ["uuid"], [tenant])}


def _make(plpy: Plpy, name: str, table: Table, caller: str) -> int:
    """Creates the staging table, with every column that is staged, and returns its oid."""
    columns = [*OWN_COLUMNS, *((plpy.quote_ident(c.name), c.staged_as) for c in table.columns if c.staged_as)]
    plpy.execute(f"CREATE TEMPORARY TABLE {name} ({', '.join(f'{n} {t}' for n, t in columns)}) ON COMMIT DROP")
    # In the order of the keys, and for a part of the rows.
    plpy.execute(f"CREATE INDEX ON {name} (row_number)")
    plpy.execute(f"GRANT SELECT, TRUNCATE ON {name} TO {caller}")
    plan = names.plan(table.kind)
    plpy.execute(
        f"CREATE TEMPORARY TABLE {plan} (row_number bigint PRIMARY KEY, state text, place tid, part oid, reject jsonb,"
        " note text, sqlstate text, message text, server_text text, null_in text) ON COMMIT DROP"
    )
    plpy.execute(f"GRANT SELECT, INSERT, UPDATE, TRUNCATE ON {plan} TO {caller}")
    made = query(plpy, "SELECT $1::pg_catalog.regclass::pg_catalog.oid AS oid", ["text"], [name])
    return int(made[0]["oid"])


def _limits(plpy: Plpy) -> Limits:
    """The caller's settings."""
    [row] = query(
        plpy,
        "SELECT _deal_sync.setting('batch_rows')::pg_catalog.int4 AS batch_rows,"
        " _deal_sync.size_setting('batch_bytes') AS batch_bytes,"
        " _deal_sync.size_setting('max_value_bytes') AS value_bytes,"
        " _deal_sync.setting('process_from')::pg_catalog.int4 AS process_from",
    )
    return Limits(**row)


def _amount(options: ServerOptions, feed: Feed, serve_interrupt: Callable[[], object]) -> int:
    """The number of nodes to read: from Neo4j's index, in a few milliseconds."""
    return int(answer(connection(options), lambda ask: results.one(ask, feed.count, int)[0], serve_interrupt))


class Progress:
    """Shows how far a run is: to other sessions in application_name, and to its own session by a NOTICE now and then.

    application_name is the only thing that other sessions see before the run ends; sync_tenant() resets it.
    """

    NOTICE_SECONDS = 5.0

    def __init__(self, plpy: TellingPlpy, kind: str, tenant: str, amount: int | None) -> None:
        self._plpy, self._kind, self._amount = plpy, kind, amount
        self._prefix = f"deal_sync {tenant.replace('-', '')} {kind[0]}"  # cut at 63 bytes
        self._told = time.monotonic()

    def show(self, landed: int) -> None:
        """Shows that `landed` nodes have reached the tables."""
        known = self._amount is not None
        name = f"{self._prefix} {landed}/{self._amount}" if known else f"{self._prefix} {landed}"
        query(self._plpy, "SELECT pg_catalog.set_config('application_name', $1, true)", ["text"], [name])
        if time.monotonic() - self._told >= self.NOTICE_SECONDS:
            self._told = time.monotonic()
            self._plpy.notice(f"{landed} of {self._amount} {self._kind}s" if known else f"{landed} {self._kind}s")


def _check_ours(plpy: Plpy, name: str, made: int) -> None:
    """Raises if the name is no longer that of the table that was created.

    The cursor is the caller's: between two fetches it can roll back to a savepoint or DISCARD TEMP, and create a table
    of its own, whose triggers COPY would run with the owner's rights.
    """
    found = query(
        plpy,
        "SELECT 1 FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass($1) AND c.oid = $2"
        " AND c.relowner = pg_catalog.quote_ident(current_user)::pg_catalog.regrole",
        ["text", "oid"],
        [name, made],
    )
    if not found:
        raise DealSyncError("55000", f'table "{name}" is no longer the one that the sync created')


def spool_folder(plpy: Plpy) -> str:
    """The folder of PostgreSQL's own temporary files."""
    folder = Path(query(plpy, "SELECT current_setting('data_directory') AS path")[0]["path"], "base", "pgsql_tmp")
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)
