-- In: a role. Out: what grant_sync() would let it call, and it may not.
SELECT r.routine::text AS routine
FROM _deal_sync.routines_of_sync() AS r (routine)
INNER JOIN pg_proc AS p ON r.routine = p.oid
WHERE
    NOT has_function_privilege($1::regrole, r.routine, 'EXECUTE')
    OR NOT has_schema_privilege($1::regrole, p.pronamespace, 'USAGE')
