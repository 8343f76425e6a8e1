-- In: runs, rejects, reconciliations, jobs. Out: status for people and monitors, without offending values and server
-- texts.

CREATE OR REPLACE VIEW deal_sync.tenant_status AS
WITH planned AS (
    SELECT
        s.tenant_id,
        min(s.next_run) AS next_run
    FROM deal_sync.schedules AS s
    GROUP BY s.tenant_id
)

SELECT
    r.tenant_id,
    (CASE
        WHEN NOT g.is_known THEN 'unknown'
        WHEN r.failures >= 5 THEN 'backing off'
        WHEN r.failures > 0 THEN 'failing'
        WHEN r.good_at IS NULL THEN 'never synced'
        WHEN now() - greatest(r.good_at, unchanged.at) > late.after THEN 'late'
        ELSE 'up to date'
    END)::_deal_sync.tenant_state::text AS state,
    r.good_at AS last_good_run,
    date_trunc('second', now() - greatest(r.good_at, unchanged.at)) AS lag,
    CASE WHEN r.counted_at > g.counted_at THEN r.deals_read ELSE coalesce(g.deals, r.deals_read) END AS deals,
    rejects.open AS rejects_open,
    rejects.new AS rejects_new,
    r.failures,
    CASE
        WHEN r.failures > 0 THEN r.message
        WHEN NOT g.is_known THEN 'the tenant does not exist in the application'
    END AS last_error,
    reconciled.reconciled_at AS last_reconcile,
    reconciled.missing,
    reconciled.differing,
    reconciled.extra,
    CASE
        WHEN g.is_known IS NOT FALSE THEN greatest(least(own.next_run, everybodys.next_run), r.next_try)
    END AS next_run
FROM _deal_sync.tenant_runs AS r
CROSS JOIN (SELECT _deal_sync.setting('late_after')::interval AS after) AS late
LEFT JOIN _deal_sync.graph_tenants AS g ON r.tenant_id = g.tenant_id
LEFT JOIN LATERAL (
    SELECT CASE WHEN array_position(q.due, g.tenant_id) IS NOT NULL THEN g.unchanged_at ELSE q.asked_at END AS at
    FROM _deal_sync.last_sync_all AS q
    WHERE g.is_known
) AS unchanged ON TRUE
LEFT JOIN LATERAL (
    SELECT
        count(*) AS open,
        count(*) FILTER (WHERE j.first_seen > now() - interval '1 day') AS new
    FROM deal_sync.rejects AS j
    WHERE j.tenant_id = r.tenant_id AND j.level IN ('row', 'value')
) AS rejects ON TRUE
LEFT JOIN LATERAL (
    SELECT c.* FROM deal_sync.reconciliations AS c
    WHERE c.tenant_id = r.tenant_id
    ORDER BY c.reconciled_at DESC LIMIT 1
) AS reconciled ON TRUE
LEFT JOIN planned AS own ON r.tenant_id = own.tenant_id
LEFT JOIN planned AS everybodys ON everybodys.tenant_id IS NULL;
COMMENT ON VIEW deal_sync.tenant_status IS
'one row per tenant that the graph has or that was ever synced: whether it is up to date, and if not, why';
COMMENT ON COLUMN deal_sync.tenant_status.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.tenant_status.state IS
'up to date, late (no good run within deal_sync.late_after), failing (the last run failed), backing off (five or more '
'failed in a row, so that it is tried less often), never synced, or unknown (not in the application)';
COMMENT ON COLUMN deal_sync.tenant_status.last_good_run IS 'when the last run that ended ok or partial began';
COMMENT ON COLUMN deal_sync.tenant_status.lag IS
'time since then, or since sync_all last found that nothing had changed';
COMMENT ON COLUMN deal_sync.tenant_status.deals IS
'deals in the graph, as last counted by sync_all or a full run, whichever is newer';
COMMENT ON COLUMN deal_sync.tenant_status.rejects_open IS
'rows and values that are rejected at present: see deal_sync.rejects';
COMMENT ON COLUMN deal_sync.tenant_status.rejects_new IS 'of these, first met in the last 24 hours';
COMMENT ON COLUMN deal_sync.tenant_status.failures IS 'runs that failed since the last good one';
COMMENT ON COLUMN deal_sync.tenant_status.last_error IS 'message of the last run, if it failed';
COMMENT ON COLUMN deal_sync.tenant_status.last_reconcile IS 'when the tenant was last reconciled by the nightly job';
COMMENT ON COLUMN deal_sync.tenant_status.missing IS 'deals, versions and links that had no row then';
COMMENT ON COLUMN deal_sync.tenant_status.differing IS 'deals and versions whose row differed from the graph';
COMMENT ON COLUMN deal_sync.tenant_status.extra IS 'rows that had no counterpart in the graph';
COMMENT ON COLUMN deal_sync.tenant_status.next_run IS
'when a job syncs it next; if it is backing off, not before its next try; NULL if nothing is scheduled';

-- With the owner's rights: PostgreSQL shows the start of a transaction to its own role only. Nothing else of it is
-- shown.
CREATE OR REPLACE FUNCTION _deal_sync.running(
    OUT pid integer, OUT tenant_id uuid, OUT phase text, OUT done bigint, OUT total bigint, OUT started_at timestamptz
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        a.pid, m.found[1]::uuid, CASE m.found[2] WHEN 'd' THEN 'deals' WHEN 'v' THEN 'versions' ELSE 'set-up' END,
        m.found[3]::bigint, m.found[4]::bigint, greatest(a.xact_start, a.query_start)
    FROM pg_stat_activity AS a
    CROSS JOIN LATERAL (
        SELECT regexp_match(
            a.application_name, '^deal_sync ([0-9a-f]{32})(?: ([dv]) ([0-9]{1,18})(?:/([0-9]{1,18}))?)?$'
        ) AS found
    ) AS m
    WHERE a.datname = current_database() AND m.found IS NOT NULL AND a.state = 'active'
$$;
COMMENT ON FUNCTION _deal_sync.running() IS 'the runs in progress in other sessions, by their application_name';

CREATE OR REPLACE VIEW deal_sync.progress AS
SELECT
    r.pid,
    r.tenant_id,
    r.phase,
    r.done,
    r.total,
    r.started_at,
    round(r.done / nullif(extract(EPOCH FROM clock_timestamp() - r.started_at), 0)) AS per_second
FROM _deal_sync.running() AS r;
COMMENT ON VIEW deal_sync.progress IS 'the runs in progress in other sessions, and their progress';
COMMENT ON COLUMN deal_sync.progress.pid IS 'process ID of the session that runs it';
COMMENT ON COLUMN deal_sync.progress.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.progress.phase IS 'set-up, deals or versions';
COMMENT ON COLUMN deal_sync.progress.done IS 'nodes of this phase that have landed';
COMMENT ON COLUMN deal_sync.progress.total IS
'nodes to land in this phase, as counted when it began; NULL for an incremental run';
COMMENT ON COLUMN deal_sync.progress.started_at IS 'when the run began';
COMMENT ON COLUMN deal_sync.progress.per_second IS 'nodes of this phase per second since the run began';

-- One row per metric and labels, as postgres_exporter and sql_exporter take them.
CREATE OR REPLACE VIEW deal_sync.metrics AS
WITH counted AS (
    SELECT
        c.tenant_id,
        c.status,
        sum(c.runs) AS runs,
        sum(c.rows_written) AS rows_written
    FROM (
        SELECT
            r.tenant_id,
            r.status,
            count(*) AS runs,
            sum(r.deals_inserted + r.deals_updated + r.deals_adopted + r.versions_inserted) AS rows_written
        FROM deal_sync.runs AS r
        GROUP BY r.tenant_id, r.status
        UNION ALL
        SELECT
            o.tenant_id,
            o.status,
            o.runs,
            o.rows_written
        FROM _deal_sync.removed_runs AS o
    ) AS c
    GROUP BY c.tenant_id, c.status
)

SELECT
    m.name,
    m.type,
    m.help,
    s.tenant_id,
    NULL::text AS status,
    NULL::text AS state,
    m.value
FROM deal_sync.tenant_status AS s
INNER JOIN _deal_sync.tenant_runs AS r ON s.tenant_id = r.tenant_id
CROSS JOIN LATERAL (
    VALUES
    (
        'deal_sync_up_to_date', 'gauge', 'Whether the tenant is up to date: 1 or 0.',
        (s.state = 'up to date')::integer::double precision
    ),
    (
        'deal_sync_last_success_timestamp_seconds', 'gauge', 'When the last good run began.',
        extract(EPOCH FROM s.last_good_run)
    ),
    (
        'deal_sync_lag_seconds', 'gauge', 'Time since the tenant was last known to be up to date.',
        extract(EPOCH FROM s.lag)
    ),
    ('deal_sync_last_run_duration_seconds', 'gauge', 'How long the last run took.', r.seconds),
    ('deal_sync_consecutive_failures', 'gauge', 'Runs that failed since the last good one.', s.failures),
    ('deal_sync_deals', 'gauge', 'Deals of the tenant in the graph.', s.deals),
    ('deal_sync_rejects_open', 'gauge', 'Rows and values that are rejected at present.', s.rejects_open),
    ('deal_sync_rejects_new', 'gauge', 'Of these, first met in the last 24 hours.', s.rejects_new),
    (
        'deal_sync_last_reconcile_timestamp_seconds', 'gauge', 'When the last reconcile was.',
        extract(EPOCH FROM s.last_reconcile)
    ),
    ('deal_sync_reconcile_missing', 'gauge', 'Rows that the last reconcile found missing in PostgreSQL.', s.missing),
    ('deal_sync_reconcile_differing', 'gauge', 'Rows that the last reconcile found to differ.', s.differing)
) AS m (name, type, help, value)
WHERE m.value IS NOT NULL
UNION ALL
SELECT
    'deal_sync_tenant_state' AS name,
    'gauge' AS type,
    'Whether the tenant is in this state: 1 for one of them, 0 for the others.' AS help,
    s.tenant_id,
    NULL AS status,
    e.state::text,
    (s.state = e.state::text)::integer::double precision AS value
FROM deal_sync.tenant_status AS s
CROSS JOIN unnest(enum_range(NULL::_deal_sync.tenant_state)) AS e (state)
UNION ALL
SELECT
    m.name,
    'counter' AS type,
    m.help,
    c.tenant_id,
    c.status,
    NULL AS state,
    m.value
FROM counted AS c
CROSS JOIN LATERAL (
    VALUES
    ('deal_sync_runs_total', 'Runs by how they ended.', c.runs::double precision),
    ('deal_sync_rows_written_total', 'Deals and versions written by runs.', c.rows_written::double precision)
) AS m (name, help, value);
COMMENT ON VIEW deal_sync.metrics IS
'metrics for a monitoring system: one row per metric and tenant, and per status or state if the metric has that label';
COMMENT ON COLUMN deal_sync.metrics.name IS 'name of the metric';
COMMENT ON COLUMN deal_sync.metrics.type IS 'gauge or counter, as Prometheus defines them';
COMMENT ON COLUMN deal_sync.metrics.help IS 'what the metric means';
COMMENT ON COLUMN deal_sync.metrics.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.metrics.status IS 'for the counters, how the runs ended: deal_sync.runs.status';
COMMENT ON COLUMN deal_sync.metrics.state IS 'for deal_sync_tenant_state, one of the states of deal_sync.tenant_status';
COMMENT ON COLUMN deal_sync.metrics.value IS 'value of the metric';
