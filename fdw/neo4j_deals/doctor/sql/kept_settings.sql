-- In: the catalog. Out: the names of settings that ALTER DATABASE or ALTER ROLE keeps for this database, and where.
SELECT
    split_part(c.setting, '=', 1) AS name,
    CASE
        WHEN s.setrole = 0 THEN format('ALTER DATABASE %I', current_database())
        WHEN s.setdatabase = 0 THEN format('ALTER ROLE %s', s.setrole::regrole)
        ELSE format('ALTER ROLE %s IN DATABASE %I', s.setrole::regrole, current_database())
    END AS place
FROM pg_db_role_setting AS s
CROSS JOIN unnest(s.setconfig) AS c (setting)
LEFT JOIN pg_database AS d ON s.setdatabase = d.oid
WHERE c.setting LIKE E'deal\\_sync.%' AND coalesce(d.datname = current_database(), true)
