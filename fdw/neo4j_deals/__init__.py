"""Neo4j's Deals as rows for PostgreSQL: the Python half of the extension deal_sync. The way of a deal, in order:

`mapping.defaults` defines the foreign tables as attach() creates them, in the types of `mapping.types`; `catalog` reads
what they are now into `mapping.model`, and the tables that they fill into `mapping.application`; `mapping.checks` finds
setup errors in both, for `sync.setup`. `sync.selection` decides which nodes a run reads, from what `sync.state` asked.
`graph.options`, `graph.connection` and `graph.reader` send Neo4j the queries of `graph.cypher`; `graph.hydration`,
`moment`, `graph.unpacking` and `floats` make its answers cheaper to read, `graph.results` checks that they are
complete, and `graph.failures` tells what went wrong. `rows.projection` turns a record into a row, by `rows.values` and
`rows.derived`; `rows.shown` and `rows.warning` tell of misfits, and `rows.copy_format` encodes the row. `sync.feed`
writes nodes to files of rows, in `sync.process` if there are many, and `sync.staging` loads these into PostgreSQL,
under `sync.names`, where SQL lands them by `sync.statements`; `sync.cron` computes when a job runs next. `tables.scan`,
and with Multicorn2 `tables.pushdown` and `tables.wrapper`, answer a SELECT, `tables.imports` creates tables for other
labels, `tables.sessions` lists connections. `doctor.runner` checks all of that. SQL calls `entry`, which raises
`errors` as PostgreSQL does; `quoting` is for SQL that is written where PostgreSQL cannot be asked.
"""

__version__ = "0.2.0dev"

#: The versions of the extension that this package serves. Not 0.1.0: its SQL names modules that no longer exist.
SERVES = frozenset({__version__})
