-- In: whether foreign tables map the graph. Out: their server, or all that there are; whether the owner is trusted, and
-- who would be.
SELECT
    s.srvname AS name,
    _deal_sync.options_of(s.srvoptions) AS options,
    s.srvowner IN (SELECT t.owner FROM _deal_sync.trusted_owners AS t) AS is_trusted,
    o.rolname AS trusted
FROM pg_foreign_server AS s
INNER JOIN pg_foreign_data_wrapper AS w ON s.srvfdw = w.oid
INNER JOIN pg_extension AS e ON e.extname = 'deal_sync'
INNER JOIN pg_roles AS o ON e.extowner = o.oid
WHERE
    w.fdwname = 'neo4j'
    AND (
        NOT $1
        OR s.oid = (
            SELECT t.ftserver
            FROM pg_foreign_table AS t
            WHERE t.ftrelid = CASE WHEN $1 THEN _deal_sync.mapped('deal') END
        )
    )
ORDER BY s.srvname
