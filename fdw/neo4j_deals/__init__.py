"""Neo4j's Deals as rows for PostgreSQL: the Python half of the extension deal_sync.

The way of a deal, file by file: `columns` (the default mapping) → `options` and `connection` (whom to ask) →
`cypher` and `pushdown` (what to ask) → `values` and `derived` (what an answer means) → `projection` (a record as a
row) → `reader` (a thread that can be interrupted) → `spool`, `feed`, `process` and `staging` (rows into PostgreSQL), or
`scan` and `wrapper` (rows for a SELECT, with its `losses`); `imports` (tables for any label); `doctor` (whether all
that it stands on is sound); `catalog`, `kept` and `server` stand between them and SQL.
"""

__version__ = "0.1.0"

#: The versions of the extension deal_sync whose SQL this package serves: its own and the one before it,
#: so that an upgrade has an order (first the package, then ALTER EXTENSION deal_sync UPDATE).
SERVES = frozenset({"0.1.0"})
