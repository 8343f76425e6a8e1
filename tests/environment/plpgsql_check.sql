-- Flows in: the extension's functions. Flows out: one line for each thing plpgsql_check has to say.
-- Trigger functions need a table, so they are checked against the table that they stand on.
SELECT p.oid::regprocedure, c.lineno, c.level, c.sqlstate, c.message, c.detail, c.hint
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'deal_sync'
JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::regclass
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgfoid = p.oid
CROSS JOIN LATERAL plpgsql_check_function_tb(p.oid, coalesce(t.tgrelid, 0), extra_warnings => false) AS c
WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    AND (p.prorettype <> 'trigger'::regtype OR t.oid IS NOT NULL)
    -- text assigned to another type goes through its input function, which is what PL/pgSQL is used for here
    AND NOT (c.level = 'warning' AND c.sqlstate = '42804')
    -- statements are generated on purpose; what their records hold cannot be known before they run
    AND c.message NOT LIKE 'cannot determinate a result of dynamic SQL%'
    AND c.sqlstate <> '55000'
    -- pg_cron is looked for when it is needed: it cannot be in this database
    AND c.message !~ '^(relation "cron\.job"|schema "cron") does not exist$'
    -- a parameter's name is part of the calls that people write, and PL/pgSQL takes these as variables
    AND c.message NOT LIKE 'name of % is reserved keyword'
ORDER BY 1, 2;
