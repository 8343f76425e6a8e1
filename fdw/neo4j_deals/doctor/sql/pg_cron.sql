-- In: the server. Out: whether pg_cron is installed, in which database it runs, its version if that is this one, and
-- whether its launcher runs.
SELECT
    e.name IS NOT NULL AS is_installed,
    c.home,
    c.version::text AS version,
    c.has_launcher,
    current_database() AS database,
    current_setting('server_version_num')::integer / 10000 AS major
FROM _deal_sync.cron_facts() AS c
LEFT JOIN pg_available_extensions AS e ON e.name = 'pg_cron'
