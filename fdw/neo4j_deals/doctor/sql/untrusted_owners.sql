-- In: the catalog. Out: the foreign tables of the mapping that do not count, and their servers, for their owners; and
-- the owner of the extension.
SELECT
    o.object,
    e.extowner::regrole::text AS trusted
FROM pg_foreign_table AS ft
INNER JOIN pg_class AS c ON ft.ftrelid = c.oid
INNER JOIN pg_foreign_server AS s ON ft.ftserver = s.oid
INNER JOIN pg_foreign_data_wrapper AS w ON s.srvfdw = w.oid AND w.fdwname = 'neo4j'
INNER JOIN pg_extension AS e ON e.extname = 'deal_sync'
CROSS JOIN LATERAL (VALUES
    (format('FOREIGN TABLE %s', c.oid::regclass), c.relowner), (format('SERVER %I', s.srvname), s.srvowner)
) AS o (object, owner)
WHERE
    _deal_sync.options_of(ft.ftoptions) ? 'kind'
    AND o.owner NOT IN (SELECT t.owner FROM _deal_sync.trusted_owners AS t)
