-- In: the catalog. Out: this server's Python, Multicorn2's version if it is installed, what the wrapper has of it, and
-- server and schema of the deals' foreign table.
SELECT
    p.number AS python,
    _deal_sync.crashes_with_multicorn(p.number) AS crashes,
    e.default_version AS available,
    w.fdwhandler <> 0 AS is_set,
    w.fdwvalidator = '_deal_sync.validator'::regproc AS has_own_validator,
    w.fdwvalidator::regproc::text AS validator,
    t.server,
    t.schema
FROM pg_foreign_data_wrapper AS w
CROSS JOIN _deal_sync.python_version() AS p
LEFT JOIN pg_available_extensions AS e ON e.name = 'multicorn'
LEFT JOIN LATERAL (
    SELECT
        s.srvname AS server,
        n.nspname AS schema
    FROM pg_foreign_table AS ft
    INNER JOIN pg_class AS c ON ft.ftrelid = c.oid
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    INNER JOIN pg_foreign_server AS s ON ft.ftserver = s.oid
    WHERE s.srvfdw = w.oid AND _deal_sync.options_of(ft.ftoptions) ->> 'kind' = 'deal'
    ORDER BY c.oid
    LIMIT 1
) AS t ON true
WHERE w.fdwname = 'neo4j'
