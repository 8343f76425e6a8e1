"""Neo4j's Deals as rows for PostgreSQL: the Python half of the extension deal_sync. The way of a deal, in order:

`mapping.defaults` are the foreign tables as attach() makes them, in `mapping.types`; `catalog` reads what has become of
them into `mapping.model`, and `mapping.checks` says what is wrong with it. `sync.selection` says which nodes a run
reads, after asking for `sync.state`. `graph.options`, `graph.connection` and `graph.reader` ask Neo4j what
`graph.cypher` has written, `graph.hydration` and `moment` shorten its answers, `graph.whole` sees that they are whole.
`rows.projection` makes a record a row, by `rows.values` and `rows.derived`, with its `rows.misfits`; `rows.copy_format`
is how it travels. `sync.feed` puts nodes into files of rows, in `sync.process` if they are many, and `sync.staging`
these into PostgreSQL, where SQL lands them; `sync.schedule` knows when. `tables.scan`, and with Multicorn2
`tables.pushdown` and `tables.wrapper`, show them to a SELECT, `tables.imports` makes tables of other labels,
`tables.sessions` lists connections. `doctor.runner` asks whether all that is sound. SQL calls `entry`, which says
`errors` as PostgreSQL does.
"""

__version__ = "0.2.0dev"

#: The versions of the extension deal_sync whose SQL this package serves. 0.1.0 is none of them: its SQL names modules
#: that are gone.
SERVES = frozenset({__version__})
