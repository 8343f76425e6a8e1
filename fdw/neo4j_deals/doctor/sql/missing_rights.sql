-- In: a role. Out: what it lacks on the application's tables, as GRANT has it.
SELECT
    m.relation,
    m.privileges
FROM _deal_sync.missing_rights($1::regrole) AS m
ORDER BY m.relation
