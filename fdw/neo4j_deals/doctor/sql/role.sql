-- In: a role. Out: whether policies apply to it, and a role that was granted the sync.
SELECT
    r.rolname AS name,
    r.rolsuper AS is_superuser,
    r.rolbypassrls AS bypasses,
    (
        SELECT min(a.grantee::regrole::text)
        FROM pg_proc AS p
        CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.oid = _deal_sync.entry_point() AND a.grantee NOT IN (0, p.proowner)
    ) AS scheduler
FROM pg_roles AS r
WHERE r.oid = $1::regrole
