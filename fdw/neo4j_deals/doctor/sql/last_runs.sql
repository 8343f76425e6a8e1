-- In: the run log. Out: of the last run of each tenant that the application knows, how many there are, how many failed,
-- and of the newest failed one, or else the newest, whose it was, and what it said.
SELECT
    count(*) AS tenants,
    count(*) FILTER (WHERE r.status = 'failed') AS failed,
    to_char(max(r.started_at), 'YYYY-MM-DD HH24:MI TZ') AS began,
    max(r.started_at) < now() - '1 day'::interval AS is_old,
    (array_agg(r.tenant_id ORDER BY r.status = 'failed' DESC, r.started_at DESC))[1]::text AS tenant_id,
    (array_agg(r.message ORDER BY r.status = 'failed' DESC, r.started_at DESC))[1] AS message
FROM (
    SELECT DISTINCT ON (r.tenant_id)
        r.tenant_id,
        r.status,
        r.message,
        r.started_at
    FROM deal_sync.runs AS r
    LEFT JOIN deal_sync.tenant_status AS s ON r.tenant_id = s.tenant_id AND s.state = 'unknown'
    WHERE r.status <> 'skipped' AND s.tenant_id IS NULL
    ORDER BY r.tenant_id ASC, r.started_at DESC
) AS r
