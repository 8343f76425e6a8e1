-- In: the tenants of the graph. Out: a run of each, with a commit after it; old records are removed.

CREATE OR REPLACE FUNCTION _deal_sync.tenants_of_graph(
    OUT tenant_id uuid, OUT deals bigint, OUT versions bigint, OUT count_ms bigint
) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.graph_tenants(plpy)
$$;
COMMENT ON FUNCTION _deal_sync.tenants_of_graph() IS
'the tenants that have nodes in the graph, and how many; NULL: how many nodes belong to no tenant. count_ms: the '
'milliseconds that counting took';

CREATE OR REPLACE FUNCTION _deal_sync.changed_tenants(since jsonb, known uuid[]) RETURNS SETOF uuid
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.changed_tenants(plpy, since, known)
$$;
COMMENT ON FUNCTION _deal_sync.changed_tenants(jsonb, uuid[]) IS
'the tenants with a node that has changed, or may have; since: by tenant, a moment of the graph''s clock. NULL, if a '
'tenant that is not among known has nodes';

-- The row of last_sync_all is locked before those of tenants, here and by all others that write both.
CREATE OR REPLACE FUNCTION _deal_sync.record_tenants(found jsonb, count_ms bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO _deal_sync.last_sync_all AS l (counted_at, count_ms) VALUES (now(), record_tenants.count_ms)
    ON CONFLICT (is_the_last) DO UPDATE SET counted_at = excluded.counted_at, count_ms = excluded.count_ms;

    DELETE FROM _deal_sync.graph_tenants AS g
    WHERE NOT EXISTS (SELECT FROM jsonb_to_recordset(found) AS f (tenant_id uuid) WHERE f.tenant_id = g.tenant_id);

    INSERT INTO _deal_sync.graph_tenants AS g (tenant_id, deals, versions, is_known)
    SELECT f.tenant_id, f.deals, f.versions, f.is_known
    FROM jsonb_to_recordset(found) AS f (tenant_id uuid, deals bigint, versions bigint, is_known boolean)
    ON CONFLICT (tenant_id) DO UPDATE SET
        deals = excluded.deals, versions = excluded.versions, is_known = excluded.is_known,
        counted_at = excluded.counted_at
$$;
COMMENT ON FUNCTION _deal_sync.record_tenants(jsonb, bigint) IS
'keeps the tenants of the graph in _deal_sync.graph_tenants, and what it took to count their nodes';

-- One row for all tenants: of those that are not due, this moment is known. One that becomes due keeps the last such
-- moment.
CREATE OR REPLACE FUNCTION _deal_sync.record_question(due uuid[], role name) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH last AS MATERIALIZED (
        SELECT l.asked_at, l.due FROM _deal_sync.last_sync_all AS l
        FOR UPDATE
    )

    UPDATE _deal_sync.graph_tenants AS g SET unchanged_at = last.asked_at
    FROM last
    WHERE g.tenant_id = ANY (record_question.due) AND g.tenant_id <> ALL (last.due);

    INSERT INTO _deal_sync.last_sync_all AS l (asked_at, due, asked_by)
    VALUES (now(), record_question.due, role)
    ON CONFLICT (is_the_last) DO UPDATE SET
        asked_at = excluded.asked_at, due = excluded.due, asked_by = excluded.asked_by, failed_at = NULL, error = NULL
$$;
COMMENT ON FUNCTION _deal_sync.record_question(uuid[], name) IS
'keeps which tenants need a run by the answer of the graph to a role''s question';

CREATE OR REPLACE FUNCTION _deal_sync.record_failed_question(error _deal_sync.error, role name) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO _deal_sync.last_sync_all AS l (failed_at, error, asked_by) VALUES (now(), to_jsonb(error), role)
    ON CONFLICT (is_the_last) DO UPDATE SET
        failed_at = excluded.failed_at, error = excluded.error, asked_by = excluded.asked_by
$$;
COMMENT ON FUNCTION _deal_sync.record_failed_question(_deal_sync.error, name) IS
'keeps that the graph could not be asked, and why';

-- A moment of the future is one of a clock that was set since. An error ends the other jobs, too, but only one of them
-- records it for the tenants.
CREATE OR REPLACE FUNCTION _deal_sync.asked_since(
    moment timestamptz, role name, OUT due uuid[], OUT error _deal_sync.error
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        CASE WHEN q.failed_at IS NULL THEN ARRAY(
            SELECT d.id FROM unnest(q.due) AS d (id)
            WHERE NOT EXISTS (
                SELECT FROM deal_sync.runs AS r
                WHERE r.tenant_id = d.id AND r.started_at BETWEEN q.asked_at AND clock_timestamp()
            )
        ) END,
        jsonb_populate_record(NULL::_deal_sync.error, q.error)
    FROM _deal_sync.last_sync_all AS q
    WHERE q.asked_by = role AND coalesce(q.failed_at, q.asked_at) BETWEEN moment AND clock_timestamp()
$$;
COMMENT ON FUNCTION _deal_sync.asked_since(timestamptz, name) IS
'the tenants that still need a run by what another session of the role has asked the graph since then, or the error '
'that it met; NULL if none has asked';

CREATE OR REPLACE FUNCTION _deal_sync.wait_for_question() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '60s'
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('deal_sync question', 0));
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'another session has been asking the graph for a minute which tenants have changes' USING
            ERRCODE = 'lock_not_available',
            HINT = 'If the graph does not answer: the option query_timeout of the server limits how long it may take.';
END
$$;
COMMENT ON FUNCTION _deal_sync.wait_for_question() IS
'waits for another session that asks the graph, for a minute; then it is this session that may ask';

-- What sync_all may take for the tenants of the graph and the numbers of their nodes, without counting. All of them are
-- counted when there is a new one.
CREATE OR REPLACE FUNCTION _deal_sync.counted_lately(
    OUT tenant_id uuid, OUT deals bigint, OUT versions bigint, OUT is_known boolean, OUT counted_at timestamptz
) RETURNS SETOF record
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH last AS MATERIALIZED (
        SELECT _deal_sync.is_count_due((SELECT to_jsonb(l) FROM _deal_sync.last_sync_all AS l)) AS is_old
    )

    SELECT g.tenant_id, g.deals, g.versions, g.is_known, g.counted_at
    FROM _deal_sync.graph_tenants AS g
    CROSS JOIN last
    WHERE
        NOT last.is_old
        AND NOT EXISTS (
            SELECT FROM deal_sync.watermarks AS w
            WHERE NOT EXISTS (SELECT FROM _deal_sync.graph_tenants AS k WHERE k.tenant_id = w.tenant_id)
        )
$$;
COMMENT ON FUNCTION _deal_sync.counted_lately() IS
'the tenants that the graph had when sync_all last counted; none, if it is to count again';

CREATE OR REPLACE FUNCTION _deal_sync.record_reconciliation(tenant uuid, report jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.reconciliations (tenant_id, missing, differing, extra, rejected, report)
    SELECT
        record_reconciliation.tenant, coalesce(sum(r.missing), 0), coalesce(sum(r.differing), 0),
        coalesce(sum(r.extra), 0), coalesce(sum(r.rejected), 0), record_reconciliation.report
    FROM jsonb_to_recordset(report) AS r (missing bigint, differing bigint, extra bigint, rejected bigint)
$$;
COMMENT ON FUNCTION _deal_sync.record_reconciliation(uuid, jsonb) IS
'adds the result of a reconcile to deal_sync.reconciliations';

-- One row per tenant, found by the index on runs. After five failures in a row the next try waits for twice the usual
-- interval, then four times, up to an hour; the usual interval is that between the first five. Manual calls do not
-- wait.
CREATE OR REPLACE VIEW _deal_sync.tenant_runs AS
WITH RECURSIVE seen (id) AS (
    (
        SELECT r.tenant_id FROM deal_sync.runs AS r
        ORDER BY r.tenant_id LIMIT 1
    )
    UNION ALL
    SELECT
        (
            SELECT r.tenant_id FROM deal_sync.runs AS r
            WHERE r.tenant_id > s.id
            ORDER BY r.tenant_id LIMIT 1
        ) AS id
    FROM seen AS s
    WHERE s.id IS NOT NULL
)

SELECT
    t.id AS tenant_id,
    tried.started_at AS tried_at,
    tried.started_at + tried.seconds * interval '1 second' AS tried_until,
    tried.status,
    tried.message,
    tried.seconds,
    good.started_at AS good_at,
    counted.deals_read,
    coalesce(f.failures, 0) AS failures,
    CASE WHEN f.failures >= 5 THEN f.last_at + least(
        interval '1 hour',
        greatest((f.fifth_at - f.first_at) / 4, interval '1 minute') * power(2, least(f.failures, 12) - 4)
    ) END AS next_try,
    counted.started_at AS counted_at
FROM (
    SELECT s.id FROM seen AS s
    WHERE s.id IS NOT NULL
    UNION
    SELECT g.tenant_id FROM _deal_sync.graph_tenants AS g
) AS t
LEFT JOIN LATERAL (
    SELECT r.* FROM deal_sync.runs AS r
    WHERE r.tenant_id = t.id AND r.status <> 'skipped'
    ORDER BY r.started_at DESC LIMIT 1
) AS tried ON TRUE
LEFT JOIN LATERAL (
    SELECT r.* FROM deal_sync.runs AS r
    WHERE r.tenant_id = t.id AND r.status IN ('ok', 'partial')
    ORDER BY r.started_at DESC LIMIT 1
) AS good ON TRUE
LEFT JOIN LATERAL (
    SELECT r.* FROM deal_sync.runs AS r
    WHERE r.tenant_id = t.id AND r.status IN ('ok', 'partial') AND r.mode IN ('full', 'backfill')
    ORDER BY r.started_at DESC LIMIT 1
) AS counted ON TRUE
LEFT JOIN LATERAL (
    SELECT
        count(*) AS failures,
        min(n.started_at) AS first_at,
        min(n.started_at) FILTER (WHERE n.number = 5) AS fifth_at,
        max(n.started_at) AS last_at
    FROM (
        SELECT
            r.started_at,
            row_number() OVER (ORDER BY r.started_at) AS number
        FROM deal_sync.runs AS r
        WHERE r.tenant_id = t.id AND r.status = 'failed' AND r.started_at > coalesce(good.started_at, '-infinity')
    ) AS n
) AS f ON TRUE;
COMMENT ON VIEW _deal_sync.tenant_runs IS
'the last run and the last good run of each tenant, its failures since, and when it is tried again';

-- A full run between two batches would do at once what the backfill does in pieces.
CREATE OR REPLACE FUNCTION _deal_sync.is_backfilled(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM deal_sync.backfills AS b
        WHERE b.tenant_id = is_backfilled.tenant AND b.batch_at > clock_timestamp() - interval '10 minutes'
    )
$$;
COMMENT ON FUNCTION _deal_sync.is_backfilled(uuid) IS
'whether a backfill of the tenant is in progress: its last batch began in the last ten minutes';

CREATE OR REPLACE FUNCTION _deal_sync.line_up_tenant(tenant uuid, OUT todo uuid[], OUT unknown uuid[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_known boolean := true;
BEGIN
    BEGIN
        is_known := _deal_sync.tenant_exists(tenant);
    EXCEPTION
        WHEN OTHERS THEN
            IF _deal_sync.is_cancel(SQLSTATE) THEN
                RAISE;
            END IF; -- a setup error: the run raises it again, and it is recorded then
    END;
    IF NOT is_known THEN
        unknown := ARRAY[tenant];
        RETURN;
    END IF;
    SELECT array_agg(tenant) INTO todo
    WHERE
        NOT EXISTS (
            SELECT FROM _deal_sync.tenant_runs AS r WHERE r.tenant_id = tenant AND r.next_try > clock_timestamp()
        )
        AND NOT _deal_sync.is_backfilled(tenant);
END
$$;
COMMENT ON FUNCTION _deal_sync.line_up_tenant(uuid) IS
'one tenant as what sync_all syncs, unless it waits after failures or is being backfilled; or as unknown';

-- What a run would look at beside changed nodes: the numbers of nodes, which sync_all has counted (found), the clocks,
-- the mapping and the graph, rejected nodes, nodes without a timestamp, and whether it is to correct a failure.
CREATE OR REPLACE FUNCTION _deal_sync.settled(
    found jsonb, clock timestamptz, mapping text, facts jsonb, overlap interval, undated_every interval
) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT jsonb_object_agg(w.tenant_id, w.watermark)
    FROM jsonb_to_recordset(found) AS t (
        tenant_id uuid, deals bigint, versions bigint, is_known boolean, counted_at timestamptz
    )
    INNER JOIN deal_sync.watermarks AS w ON w.tenant_id = t.tenant_id
    WHERE
        t.is_known
        AND w.mapping = settled.mapping
        AND w.watermark <= clock
        AND _deal_sync.clock_was_set(w.facts, settled.facts, overlap) IS NULL
        AND NOT _deal_sync.is_older(w.facts ->> 'undated_at', undated_every)
        AND NOT _deal_sync.numbers_differ(w.facts, t.deals, t.versions, t.counted_at)
        AND NOT EXISTS (SELECT FROM deal_sync.rejects AS r WHERE r.tenant_id = t.tenant_id AND r.level = 'row')
        AND (
            SELECT r.status FROM deal_sync.runs AS r
            WHERE r.tenant_id = t.tenant_id AND r.status <> 'skipped'
            ORDER BY r.started_at DESC LIMIT 1
        ) IN ('ok', 'partial')
$$;
COMMENT ON FUNCTION _deal_sync.settled(jsonb, timestamptz, text, jsonb, interval, interval) IS
'of these tenants, those that need a run only if a node has changed since the watermark, and that watermark';

-- One question to the graph for all tenants, in place of a run for each.
CREATE OR REPLACE FUNCTION _deal_sync.unchanged_tenants(tenants jsonb, are_all boolean) RETURNS uuid[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state CONSTANT record := _deal_sync.graph_state();
    settled CONSTANT jsonb := _deal_sync.settled(
        tenants, state.clock, state.mapping, to_jsonb(state), _deal_sync.setting('overlap')::interval,
        _deal_sync.setting('undated_every')::interval
    );
    known CONSTANT uuid[] := CASE WHEN NOT are_all THEN
        ARRAY(SELECT t.tenant_id FROM jsonb_to_recordset(tenants) AS t (tenant_id uuid))
    END;
    changed CONSTANT uuid[] := ARRAY(
        SELECT c.id FROM _deal_sync.changed_tenants(coalesce(settled, '{}'), known) AS c (id)
    );
BEGIN
    IF array_position(changed, NULL) IS NULL THEN
        RETURN ARRAY(SELECT s.tenant::uuid FROM jsonb_object_keys(settled) AS s (tenant) EXCEPT SELECT unnest(changed));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _deal_sync.unchanged_tenants(jsonb, boolean) IS
'the tenants, of those that sync_all has found, for which an incremental run would do nothing; NULL if the graph has '
'another tenant, which is not looked for if these are all';

-- A tenant that has left the graph is still synced, as one without deals, or it would be late for ever, and no
-- reconcile would report it.
CREATE OR REPLACE FUNCTION _deal_sync.find_tenants(
    counting boolean, OUT found jsonb, OUT nobodys bigint, OUT count_ms bigint
)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH g AS MATERIALIZED (
        SELECT t.tenant_id, t.deals, t.versions, false AS is_known, now() AS counted_at, t.count_ms
        FROM _deal_sync.tenants_of_graph() AS t
        WHERE find_tenants.counting
        UNION ALL
        SELECT l.tenant_id, l.deals, l.versions, l.is_known, l.counted_at, NULL
        FROM _deal_sync.counted_lately() AS l
        WHERE NOT find_tenants.counting
    )

    SELECT
        coalesce(jsonb_agg(jsonb_build_object(
            'tenant_id', f.tenant_id, 'deals', f.deals, 'versions', f.versions, 'counted_at', f.counted_at,
            'is_known', CASE WHEN f.is_known THEN true ELSE _deal_sync.tenant_exists(f.tenant_id) END
        )) FILTER (WHERE f.tenant_id IS NOT NULL), '[]'),
        max(f.deals + f.versions) FILTER (WHERE f.tenant_id IS NULL),
        max(f.count_ms)
    FROM (
        SELECT * FROM g
        UNION ALL
        SELECT r.tenant_id, 0, 0, false, now(), NULL FROM _deal_sync.tenant_runs AS r
        WHERE
            find_tenants.counting
            AND r.tried_at IS NOT NULL
            AND r.tenant_id NOT IN (SELECT g.tenant_id FROM g WHERE g.tenant_id IS NOT NULL)
    ) AS f
$$;
COMMENT ON FUNCTION _deal_sync.find_tenants(boolean) IS
'the tenants that the graph has or had, with the numbers of their nodes; not counting: as they were counted last. '
'nobodys: how many nodes belong to no tenant, if they are counted';

-- One may have been deleted since they were counted.
CREATE OR REPLACE FUNCTION _deal_sync.that_exist(tenants uuid[]) RETURNS uuid[]
LANGUAGE sql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT t.id FROM unnest(tenants) AS t (id) WHERE _deal_sync.tenant_exists(t.id))
$$;
COMMENT ON FUNCTION _deal_sync.that_exist(uuid[]) IS 'those of the tenants that the application knows';

-- unknown: tenants that the application does not know; nobodys: nodes that belong to no tenant, if they are counted.
-- If the graph cannot be asked, todo are the tenants that were synced before, and error says why.
CREATE OR REPLACE FUNCTION _deal_sync.ask_tenants(
    mode text, OUT todo uuid[], OUT unknown uuid[], OUT unchanged bigint, OUT nobodys bigint, OUT error _deal_sync.error
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_incremental CONSTANT boolean := mode = 'incremental';
    counting boolean;
    tenants record;
    settled uuid[] := '{}';
    due uuid[];
BEGIN
    BEGIN
        PERFORM _deal_sync.check_package();
        counting := NOT is_incremental OR NOT EXISTS (SELECT FROM _deal_sync.counted_lately());
        LOOP
            SELECT f.* INTO tenants FROM _deal_sync.find_tenants(counting) AS f;
            IF is_incremental THEN
                settled := _deal_sync.unchanged_tenants(tenants.found, counting);
            END IF;
            EXIT WHEN settled IS NOT NULL;
            counting := true;
        END LOOP;
        SELECT
            coalesce(array_agg(f.tenant_id) FILTER (WHERE f.is_known AND f.tenant_id <> ALL (settled)), '{}'),
            array_agg(f.tenant_id ORDER BY f.tenant_id) FILTER (WHERE f.deals + f.versions > 0 AND NOT f.is_known)
        INTO due, unknown
        FROM jsonb_to_recordset(tenants.found) AS f (
            tenant_id uuid, deals bigint, versions bigint, is_known boolean
        );
        todo := CASE WHEN counting THEN due ELSE _deal_sync.that_exist(due) END;
    EXCEPTION
        WHEN OTHERS OR query_canceled THEN
            GET STACKED DIAGNOSTICS
                error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
                error.hint := PG_EXCEPTION_HINT, error.origin := PG_DATATYPE_NAME;
            IF error.origin <> 'application' THEN
                error.origin := 'own'; -- except for tenant_exists(), only the graph is asked
            END IF;
            IF _deal_sync.is_cancel(error.code) THEN
                error := _deal_sync.raise_again(error);
            END IF;
            error := _deal_sync.as_meant(error);
    END;
    IF error.code IS NOT NULL THEN
        todo := ARRAY(SELECT r.tenant_id FROM _deal_sync.tenant_runs AS r WHERE r.tried_at IS NOT NULL);
        IF is_incremental THEN
            PERFORM _deal_sync.record_failed_question(error, current_user);
        END IF;
        RETURN;
    END IF;

    unchanged := cardinality(settled);
    nobodys := tenants.nobodys;
    -- Last: another sync_all waits for these rows.
    IF is_incremental THEN
        PERFORM _deal_sync.record_question(due, current_user);
    END IF;
    IF counting THEN
        PERFORM _deal_sync.record_tenants(tenants.found, tenants.count_ms);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.ask_tenants(text) IS 'asks the graph which tenants are to be synced';

-- todo: the one that has waited longest comes first. shares_since: the jobs of a schedule ask the graph once for all.
CREATE OR REPLACE FUNCTION _deal_sync.line_up(
    tenant uuid, mode text, shares_since timestamptz,
    OUT todo uuid[], OUT unknown uuid[], OUT unchanged bigint, OUT nobodys bigint, OUT error _deal_sync.error
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked record;
BEGIN
    IF tenant IS NOT NULL THEN
        SELECT l.todo, l.unknown INTO todo, unknown FROM _deal_sync.line_up_tenant(tenant) AS l;
        RETURN;
    END IF;
    IF shares_since IS NOT NULL THEN
        PERFORM _deal_sync.wait_for_question();
        SELECT a.due, a.error INTO asked FROM _deal_sync.asked_since(shares_since, current_user) AS a;
        todo := _deal_sync.that_exist(asked.due);
        error := asked.error;
    END IF;
    IF todo IS NULL AND error.code IS NULL THEN
        asked := _deal_sync.ask_tenants(mode);
        todo := asked.todo;
        unknown := asked.unknown;
        unchanged := asked.unchanged;
        nobodys := asked.nobodys;
        error := asked.error;
    END IF;
    IF error.code IS NULL AND todo <> '{}' THEN
        SELECT array_agg(t.id ORDER BY r.tried_at NULLS FIRST, t.id) INTO todo
        FROM unnest(todo) AS t (id)
        LEFT JOIN (
            SELECT v.tenant_id, v.tried_at, v.next_try FROM _deal_sync.tenant_runs AS v
            WHERE v.tenant_id = ANY (todo) -- of these alone the view reads the runs
        ) AS r ON r.tenant_id = t.id
        WHERE (r.next_try IS NULL OR r.next_try <= clock_timestamp()) AND NOT _deal_sync.is_backfilled(t.id);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.line_up(uuid, text, timestamptz) IS
'the tenants that sync_all syncs, in their order';

CREATE OR REPLACE FUNCTION _deal_sync.record_failure(
    tenant uuid, mode text, began timestamptz, error _deal_sync.error
) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result deal_sync.run_result;
BEGIN
    result.run_id := gen_random_uuid();
    result.tenant_id := tenant;
    result.mode := mode;
    result.status := 'failed';
    result := _deal_sync.nothing_done(result);
    result.message := _deal_sync.sentences(
        CASE
            WHEN error.origin = 'own' THEN _deal_sync.sentences(error.message, error.detail, error.hint)
            ELSE format('the run failed with SQLSTATE %s', error.code)
        END,
        'nothing was written'
    );
    result.seconds := extract(EPOCH FROM clock_timestamp() - began);
    PERFORM _deal_sync.record_run(result, began, error.code, concat_ws(E'\n', error.message, error.detail));
    RETURN result;
END
$$;
COMMENT ON FUNCTION _deal_sync.record_failure(uuid, text, timestamptz, _deal_sync.error) IS
'records a run that ended with an error in deal_sync.runs';

CREATE OR REPLACE FUNCTION _deal_sync.attempt(
    tenant uuid, mode text, caller _deal_sync.caller
) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
AS $$
DECLARE
    began CONSTANT timestamptz := clock_timestamp();
    outcome _deal_sync.outcome;
    error _deal_sync.error;
BEGIN
    BEGIN
        -- A full run waits for a run in progress: it would come again tomorrow, an incremental one in minutes.
        IF mode = 'full' THEN
            BEGIN
                PERFORM _deal_sync.wait_for_tenant(tenant);
            EXCEPTION
                WHEN lock_not_available THEN
                    NULL; -- sync_tenant() reports who holds the lock
            END;
        END IF;
        outcome := _deal_sync.sync_tenant(
            tenant, ROW('deal_sync.sync_all', mode, false, false, NULL, NULL, NULL)::_deal_sync.request, caller
        );
        error := outcome.error;
    EXCEPTION
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS
                error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
                error.hint := PG_EXCEPTION_HINT, error.origin := PG_DATATYPE_NAME;
            error := _deal_sync.as_meant(error);
    END;
    IF _deal_sync.is_cancel(error.code) THEN
        error := _deal_sync.raise_again(error);
    ELSIF error.code IS NOT NULL THEN
        RETURN _deal_sync.record_failure(tenant, mode, began, error);
    END IF;
    RETURN outcome.result;
END
$$;
COMMENT ON FUNCTION _deal_sync.attempt(uuid, text, _deal_sync.caller) IS
'a run that also records a setup error; it raises only a cancel or a termination';

CREATE OR REPLACE FUNCTION _deal_sync.attempt_reconcile(tenant uuid) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    report jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') INTO report FROM deal_sync.reconcile(tenant) AS r;
    PERFORM _deal_sync.record_reconciliation(tenant, report);
    RETURN NULL;
EXCEPTION
    WHEN OTHERS THEN
        IF _deal_sync.is_cancel(SQLSTATE) THEN
            RAISE;
        END IF;
        RETURN format(
            'the reconcile failed with SQLSTATE %s; SELECT * FROM deal_sync.reconcile(%L) shows the error',
            SQLSTATE, tenant
        );
END
$$;
COMMENT ON FUNCTION _deal_sync.attempt_reconcile(uuid) IS
'reconciles a tenant and records the result; returns the error, or NULL';

-- The last good run of a tenant stays, unless the tenant itself is gone.
CREATE OR REPLACE FUNCTION _deal_sync.remove_records(runs_kept interval, values_kept interval, gone uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH removed AS (
        DELETE FROM deal_sync.runs AS r
        WHERE
            r.started_at < now() - runs_kept
            AND (
                r.tenant_id = ANY (gone)
                OR r.run_id IS DISTINCT FROM (
                    SELECT k.run_id FROM deal_sync.runs AS k
                    WHERE k.tenant_id = r.tenant_id AND k.status IN ('ok', 'partial')
                    ORDER BY k.started_at DESC LIMIT 1
                )
            )
        RETURNING
            r.tenant_id, r.status,
            r.deals_inserted + r.deals_updated + r.deals_adopted + r.versions_inserted AS rows_written
    )

    INSERT INTO _deal_sync.removed_runs AS o (tenant_id, status, runs, rows_written)
    SELECT d.tenant_id, d.status, count(*), sum(d.rows_written)
    FROM removed AS d
    GROUP BY d.tenant_id, d.status
    ON CONFLICT (tenant_id, status) DO UPDATE SET
        runs = o.runs + excluded.runs, rows_written = o.rows_written + excluded.rows_written;

    DELETE FROM _deal_sync.removed_runs AS o
    WHERE o.tenant_id = ANY (gone) AND NOT EXISTS (SELECT FROM deal_sync.runs AS r WHERE r.tenant_id = o.tenant_id);

    DELETE FROM deal_sync.watermarks AS w
    WHERE w.tenant_id = ANY (gone) AND NOT EXISTS (SELECT FROM deal_sync.runs AS r WHERE r.tenant_id = w.tenant_id);

    DELETE FROM deal_sync.backfills AS b
    WHERE b.tenant_id = ANY (gone);

    DELETE FROM _deal_sync.undated_nodes AS u
    WHERE u.tenant_id = ANY (gone);

    DELETE FROM deal_sync.reconciliations AS c
    WHERE c.reconciled_at < now() - runs_kept;

    DELETE FROM deal_sync.rejects AS r
    WHERE r.tenant_id = ANY (gone) AND r.last_seen < now() - values_kept;

    UPDATE deal_sync.rejects AS r SET value = NULL, server_text = NULL
    WHERE r.last_seen < now() - values_kept AND (r.value IS NOT NULL OR r.server_text IS NOT NULL);

    UPDATE deal_sync.runs AS r SET server_text = NULL
    WHERE r.started_at < now() - values_kept AND r.server_text IS NOT NULL
$$;
COMMENT ON FUNCTION _deal_sync.remove_records(interval, interval, uuid[]) IS
'removes older runs and reconciliations, and older offending values of rejects; of tenants that are gone, everything';

-- To look for tenants that are gone takes all of them, too long for each tick.
CREATE OR REPLACE FUNCTION _deal_sync.is_retention_due() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.is_older(
        (SELECT to_jsonb(l) ->> 'retained_at' FROM _deal_sync.last_sync_all AS l), interval '1 hour'
    )
$$;
COMMENT ON FUNCTION _deal_sync.is_retention_due() IS
'whether sync_all last removed old records an hour ago or longer';

CREATE OR REPLACE FUNCTION _deal_sync.record_retention() RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO _deal_sync.last_sync_all AS l (retained_at) VALUES (now())
    ON CONFLICT (is_the_last) DO UPDATE SET retained_at = excluded.retained_at
$$;
COMMENT ON FUNCTION _deal_sync.record_retention() IS 'keeps that sync_all has removed old records';

CREATE OR REPLACE FUNCTION deal_sync.retain() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _deal_sync.remove_records(
        _deal_sync.setting('runs_kept')::interval,
        _deal_sync.setting('values_kept')::interval,
        ARRAY(
            SELECT t.tenant_id
            FROM (
                SELECT r.tenant_id FROM _deal_sync.tenant_runs AS r
                UNION
                SELECT r.tenant_id FROM deal_sync.rejects AS r
            ) AS t
            WHERE NOT _deal_sync.tenant_exists(t.tenant_id)
        )
    );
END
$$;
COMMENT ON FUNCTION deal_sync.retain() IS
'removes runs older than deal_sync.runs_kept and offending values older than deal_sync.values_kept; sync_all calls it '
'at the end, once an hour';

CREATE OR REPLACE FUNCTION _deal_sync.tell_of_queue(
    todo uuid[], unknown uuid[], unchanged bigint, nobodys bigint, tenant uuid, mode text, quiet boolean
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    waiting record;
BEGIN
    IF unknown IS NOT NULL AND NOT quiet THEN
        RAISE WARNING 'tenants of the graph that do not exist in the application: %', cardinality(unknown) USING
            DETAIL = array_to_string(unknown[1:20], ', ')
                || CASE WHEN cardinality(unknown) > 20 THEN ', ...' ELSE '' END,
            HINT = 'They are not synced; deal_sync.tenant_status shows them as unknown.';
    END IF;
    IF nobodys > 0 AND (mode = 'full' OR NOT quiet) THEN
        RAISE WARNING 'nodes of the graph that belong to no tenant: %', nobodys USING
            DETAIL = 'Their tenant_id is absent or not a UUID in standard form.',
            HINT = 'They are not synced; SELECT * FROM deal_sync.doctor() counts them by kind.';
    END IF;
    IF quiet THEN
        RETURN;
    END IF;
    IF unchanged > 0 THEN
        RAISE NOTICE 'tenants in which nothing has changed: %', unchanged;
    END IF;
    SELECT count(*) AS tenants, min(r.next_try) AS first_try INTO waiting
    FROM _deal_sync.tenant_runs AS r
    WHERE r.next_try > clock_timestamp() AND (tenant IS NULL OR r.tenant_id = tenant);
    IF waiting.tenants > 0 THEN
        RAISE NOTICE 'tenants waiting after consecutive failures: %; the next one is tried at %',
            waiting.tenants, waiting.first_try
            USING
            HINT = 'sync_deals(tenant) tries one at once; deal_sync.tenant_status shows what failed.';
    ELSIF coalesce(todo, '{}') = '{}' AND unchanged = 0 THEN
        RAISE NOTICE 'no tenant of the graph exists in the application';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.tell_of_queue(uuid[], uuid[], bigint, bigint, uuid, text, boolean) IS
'what a client of sync_all is told of what line_up() has found: whatever is not synced';

-- For procedures that commit: they have no SET clause, and each of their transactions begins with this.
CREATE OR REPLACE FUNCTION _deal_sync.begin_transaction(messages text) RETURNS void
LANGUAGE sql
AS $$
    SELECT
        pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
        pg_catalog.set_config('client_min_messages', messages, true)
$$;
COMMENT ON FUNCTION _deal_sync.begin_transaction(text) IS
'sets search_path, and client_min_messages, until the end of the transaction';

CREATE OR REPLACE PROCEDURE _deal_sync.sync_next(
    tenant uuid, mode text, reconcile boolean, messages text, caller _deal_sync.caller, INOUT wrong text
)
LANGUAGE plpgsql
AS $$
DECLARE
    result CONSTANT deal_sync.run_result := _deal_sync.attempt(tenant, mode, caller);
BEGIN
    COMMIT;
    PERFORM _deal_sync.begin_transaction(messages);
    wrong := CASE WHEN result.status = 'failed' THEN result.message END;
    -- A skipped incremental run is repeated in minutes, a full one tomorrow: so a warning even if quiet is set.
    IF mode = 'full' AND messages = 'warning' AND result.status = 'skipped' THEN
        RAISE WARNING '%', result.message USING HINT = 'Call it again when that run has ended.';
    END IF;
    IF reconcile AND result.status IN ('ok', 'partial') THEN
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; -- the numbers add up, whatever other sessions do
        PERFORM _deal_sync.begin_transaction(messages);
        wrong := _deal_sync.attempt_reconcile(tenant);
        COMMIT;
        PERFORM _deal_sync.begin_transaction(messages);
    END IF;
END
$$;
COMMENT ON PROCEDURE _deal_sync.sync_next (uuid, text, boolean, text, _deal_sync.caller, text) IS
'a tenant of sync_all: its run and its reconcile, each committed; wrong: what failed, or NULL';

-- It commits, so it has no SET clause: each transaction sets search_path.
CREATE OR REPLACE PROCEDURE deal_sync.sync_all(
    mode text DEFAULT 'incremental', time_limit interval DEFAULT NULL, quiet boolean DEFAULT FALSE,
    tenant uuid DEFAULT NULL, reconcile boolean DEFAULT FALSE, shared boolean DEFAULT FALSE
)
LANGUAGE plpgsql
AS $$
DECLARE
    began CONSTANT timestamptz := pg_catalog.clock_timestamp();
    caller CONSTANT _deal_sync.caller := _deal_sync.caller();
    messages CONSTANT text := CASE
        WHEN quiet THEN 'warning' ELSE pg_catalog.current_setting('client_min_messages')
    END;
    queue record;
    due uuid;
    error _deal_sync.error;
    wrong text;
    failures text[] := '{}';
    tried bigint := 0;
BEGIN
    COMMIT; -- raises at once in a transaction block, and not after the first tenant
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED; -- what the session that was waited for has asked is to be seen
    PERFORM _deal_sync.begin_transaction(messages);
    error := _deal_sync.mode_error(mode);
    IF error.code IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = error.code, MESSAGE = error.message, HINT = error.hint;
    ELSIF time_limit < interval '0' THEN
        RAISE EXCEPTION 'time_limit must not be negative' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'CALL deal_sync.sync_all(time_limit => ''10 min'');';
    ELSIF nullif(current_setting('app.tenant_id', true), '') IS NOT NULL THEN
        RAISE EXCEPTION 'cannot sync all tenants while app.tenant_id is set' USING
            ERRCODE = 'insufficient_privilege',
            HINT = 'RESET app.tenant_id.';
    END IF;
    PERFORM _deal_sync.check_writable();

    queue := _deal_sync.line_up(
        tenant, mode, CASE WHEN shared AND mode = 'incremental' THEN began - interval '1 second' END
    );
    IF tenant = ANY (queue.unknown) THEN
        PERFORM _deal_sync.raise_unknown(tenant);
    ELSIF (queue.error).code IS NOT NULL THEN
        PERFORM _deal_sync.record_failure(t.id, mode, began, queue.error)
        FROM unnest(queue.todo) AS t (id);
        COMMIT;
        PERFORM _deal_sync.raise_again(queue.error);
    END IF;
    PERFORM _deal_sync.tell_of_queue(
        queue.todo, queue.unknown, queue.unchanged, queue.nobodys, tenant, mode, quiet
    );

    FOREACH due IN ARRAY coalesce(queue.todo, '{}') LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED; -- and what another session has just done
        PERFORM _deal_sync.begin_transaction(messages);
        EXIT WHEN clock_timestamp() >= began + time_limit;
        -- A concurrent sync_all may have just done it, or be doing it: the lock comes first.
        CONTINUE WHEN shared AND NOT pg_try_advisory_xact_lock(_deal_sync.lock_key(due));
        CONTINUE WHEN EXISTS (
            SELECT FROM deal_sync.runs AS r
            WHERE
                r.tenant_id = due AND r.status <> 'skipped' AND r.mode IN (sync_all.mode, 'full')
                AND r.started_at + r.seconds * interval '1 second' > began
                AND r.started_at <= clock_timestamp() -- or that clock was set since
        );
        CALL _deal_sync.sync_next(due, mode, reconcile, messages, caller, wrong);
        tried := tried + 1;
        IF wrong IS NOT NULL THEN
            failures := failures || format('%s: %s', due, wrong);
        END IF;
    END LOOP;

    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM _deal_sync.begin_transaction(messages);
    IF mode = 'full' OR _deal_sync.is_retention_due() THEN
        PERFORM deal_sync.retain();
        PERFORM _deal_sync.record_retention();
    END IF;
    COMMIT;
    PERFORM _deal_sync.begin_transaction(messages);
    IF failures <> '{}' THEN
        RAISE EXCEPTION '% of % tenants failed', cardinality(failures), tried USING
            ERRCODE = 'DS006',
            DETAIL = array_to_string(failures[1:20], E'\n')
                || CASE WHEN cardinality(failures) > 20 THEN E'\n...' ELSE '' END,
            HINT = 'All others were synced; see deal_sync.tenant_status and deal_sync.runs for details.';
    END IF;
END
$$;
COMMENT ON PROCEDURE deal_sync.sync_all (text, interval, boolean, uuid, boolean, boolean) IS
'syncs the tenants of the graph, the one that has waited longest first, and commits after each; raises an error at the '
'end if one failed. tenant: only this one; reconcile: also reconciles each one; shared: several sessions do this '
'together, and each leaves alone the tenants that another one is syncing';

CREATE OR REPLACE PROCEDURE deal_sync.nightly(tenant uuid DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL deal_sync.sync_all(mode => 'full', quiet => true, tenant => tenant, reconcile => true);
END
$$;
COMMENT ON PROCEDURE deal_sync.nightly (uuid) IS
'a full run and a reconcile of each tenant, or of one; deal_sync.tenant_status shows what the reconcile found';
