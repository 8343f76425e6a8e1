-- In: a role. Out: the tables that the sync writes whose row-level security is off, or that lack a policy by which the
-- role can write them, and for which commands.
SELECT
    t.relation::text AS relation,
    c.relrowsecurity AS is_on,
    lacking.commands,
    c.oid IN (SELECT p.polrelid FROM pg_policy AS p) AS has_policies,
    o.rolname AS role
FROM _deal_sync.target_tables() AS t (relation)
INNER JOIN pg_class AS c ON t.relation = c.oid
INNER JOIN pg_roles AS o ON o.oid = $1::regrole
CROSS JOIN LATERAL (
    SELECT string_agg(d.command, ', ' ORDER BY d.place) AS commands
    FROM (VALUES (1, 'SELECT', 'r'), (2, 'INSERT', 'a'), (3, 'UPDATE', 'w')) AS d (place, command, code)
    LEFT JOIN pg_policy AS p
        ON
            t.relation = p.polrelid AND p.polpermissive AND p.polcmd::text IN ('*', d.code)
            AND (
                0 = any(p.polroles)
                OR (SELECT bool_or(pg_has_role(o.oid, r.oid, 'USAGE')) FROM unnest(p.polroles) AS r (oid))
            )
    WHERE p.oid IS NULL AND (d.code <> 'w' OR t.relation = _deal_sync.application_table('deal', 'target'))
) AS lacking
WHERE NOT c.relrowsecurity OR lacking.commands IS NOT NULL
ORDER BY t.relation
