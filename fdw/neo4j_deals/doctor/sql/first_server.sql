-- In: the catalog. Out: the first server of the wrapper, or NULL.
SELECT min(s.srvname) AS name
FROM pg_foreign_server AS s
INNER JOIN pg_foreign_data_wrapper AS w ON s.srvfdw = w.oid
WHERE w.fdwname = 'neo4j'
