-- In: the mapping. Out: the policies of the tables that the sync writes.
SELECT
    p.polname AS name,
    t.relation::text AS relation,
    pg_get_expr(p.polqual, p.polrelid) AS visible,
    pg_get_expr(p.polwithcheck, p.polrelid) AS writable
FROM _deal_sync.target_tables() AS t (relation)
INNER JOIN pg_policy AS p ON t.relation = p.polrelid
ORDER BY t.relation, p.polname
