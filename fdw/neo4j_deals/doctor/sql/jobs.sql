-- In: pg_cron's jobs of the caller. Out: those that run the sync in this database, and how their last run ended.
SELECT
    coalesce(j.jobname, j.jobid::text) AS name,
    j.schedule,
    d.status,
    d.return_message AS message
FROM cron.job AS j
LEFT JOIN LATERAL (
    SELECT
        r.status,
        r.return_message
    FROM cron.job_run_details AS r
    WHERE r.jobid = j.jobid AND r.status IN ('succeeded', 'failed')
    ORDER BY r.runid DESC
    LIMIT 1
) AS d ON true
WHERE j.active AND j.database = current_database() AND j.command ~ E'\\m(sync_all|nightly|sync_deals)\\M'
ORDER BY j.jobid
