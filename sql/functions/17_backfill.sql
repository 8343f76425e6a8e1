-- In: a tenant. Out: what a full run would leave, in transactions of so many deals each; after an interruption it goes
-- on where it was.

CREATE OR REPLACE FUNCTION _deal_sync.keep_backfill(state deal_sync.backfills) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM deal_sync.backfills AS b
    WHERE b.tenant_id = state.tenant_id;
    INSERT INTO deal_sync.backfills SELECT (state).*
$$;
COMMENT ON FUNCTION _deal_sync.keep_backfill(deal_sync.backfills) IS 'remembers how far a backfill has come';

-- The rejects of its batches stay. Those from before it began belong to nodes that no longer exist, because each batch
-- has settled those of its own nodes.
CREATE OR REPLACE FUNCTION _deal_sync.end_backfill(
    state deal_sync.backfills, OUT rows_rejected bigint, OUT values_rejected bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM deal_sync.backfills AS b
    WHERE b.tenant_id = state.tenant_id;

    DELETE FROM deal_sync.rejects AS r
    WHERE r.tenant_id = state.tenant_id AND r.run_id <> state.run_id AND r.last_seen < state.started_at;

    SELECT count(*) FILTER (WHERE r.level = 'row'), count(*) FILTER (WHERE r.level = 'value')
    INTO rows_rejected, values_rejected
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = state.tenant_id;
END
$$;
COMMENT ON FUNCTION _deal_sync.end_backfill(deal_sync.backfills) IS
'removes the rejects from before a backfill that it did not meet again; counts all others';

-- NULL if the mapping has changed since it began: it starts over.
CREATE OR REPLACE FUNCTION _deal_sync.started_backfill(tenant_id uuid, mapping text) RETURNS deal_sync.backfills
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state deal_sync.backfills;
BEGIN
    SELECT b.* INTO state FROM deal_sync.backfills AS b WHERE b.tenant_id = started_backfill.tenant_id;
    IF state.mapping <> started_backfill.mapping THEN
        RAISE NOTICE 'the backfill of tenant % starts over because the mapping has changed', tenant_id;
        RETURN NULL;
    END IF;
    RETURN state;
END
$$;
COMMENT ON FUNCTION _deal_sync.started_backfill(uuid, text) IS
'the backfill of a tenant that a batch continues, or NULL';

CREATE OR REPLACE FUNCTION _deal_sync.new_backfill(
    result deal_sync.run_result, reading _deal_sync.reading
) RETURNS deal_sync.backfills
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(
        result.tenant_id, result.run_id, reading.mapping, reading.watermark, now(), now(), 'deals', NULL, 0,
        _deal_sync.ask(_deal_sync.count_of_values(), result.tenant_id, NULL::jsonb), '{}',
        to_jsonb(result) || reading.facts || jsonb_build_object('remarks', reading.remarks, 'known', reading.known)
    )::deal_sync.backfills
$$;
COMMENT ON FUNCTION _deal_sync.new_backfill(deal_sync.run_result, _deal_sync.reading) IS
'a backfill before its first batch';

-- First all deals, then the versions by the id of their deal, which also finds versions whose deal is not in the graph;
-- after each, the nodes without such an id.
CREATE OR REPLACE FUNCTION _deal_sync.phase_after(phase text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE phase
        WHEN 'deals' THEN 'deals without id' WHEN 'deals without id' THEN 'versions' ELSE 'versions without deal id'
    END
$$;
COMMENT ON FUNCTION _deal_sync.phase_after(text) IS 'what a backfill reads when it has read all nodes of a phase';

CREATE OR REPLACE FUNCTION _deal_sync.conclude_backfill(
    state deal_sync.backfills, reading _deal_sync.reading, INOUT result deal_sync.run_result
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended record;
    last record;
BEGIN
    SELECT e.rows_rejected, e.values_rejected INTO result.rows_rejected, result.values_rejected
    FROM _deal_sync.end_backfill(state) AS e;
    -- A run in between may have advanced the watermark; beyond the present only with a clock that was wrong.
    SELECT w.watermark, w.mapping INTO last FROM _deal_sync.watermark_of(result.tenant_id) AS w;
    result.watermark := CASE
        WHEN last.mapping = state.mapping AND last.watermark <= reading.watermark
            THEN greatest(last.watermark, state.watermark)
        ELSE state.watermark
    END;
    -- If the graph's clock was set before it began, there is nothing to compare with.
    ended := _deal_sync.end_reading(
        result, true, CASE WHEN state.counts #>> '{known, newest}' IS NOT NULL THEN reading.known END
    );
    -- Nodes that were created meanwhile may have been skipped: the next run looks for them.
    PERFORM _deal_sync.record_watermark(
        result.tenant_id, result.run_id, result.watermark, state.mapping, true,
        '{"deals": null, "versions": null}' || ended.facts
        || CASE WHEN result.watermark = state.watermark THEN (
            SELECT jsonb_object_agg(f.name, state.counts -> f.name)
            FROM unnest(ARRAY['ahead', 'unsure', 'boot', 'at_boot']) AS f (name)
        ) ELSE '{}' END
    );
    result := _deal_sync.conclude_run(
        result,
        concat_ws(
            '; ',
            nullif(array_to_string(
                ARRAY(SELECT jsonb_array_elements_text(state.counts -> 'remarks')) || ended.remark, '; '
            ), ''),
            _deal_sync.cleared_columns(state.cleared)
        ),
        (ended.facts ->> 'rows_without_deal')::bigint
    );
END
$$;
COMMENT ON FUNCTION _deal_sync.conclude_backfill(deal_sync.backfills, _deal_sync.reading, deal_sync.run_result) IS
'ends a backfill whose last batch has landed: rejects, watermark, and the result of all batches';

-- A batch is a range of ids, not of nodes, so that nodes that share an id are never separated. The values that all
-- batches replace with NULL are added up, and compared with those that were there when the first one began.
CREATE OR REPLACE FUNCTION _deal_sync.run_backfill_batch(INOUT result deal_sync.run_result, batch_size integer)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reading CONSTANT _deal_sync.reading := _deal_sync.plan_reading(result.tenant_id, 'full');
    state deal_sync.backfills;
    kind text;
    keys text[];
    deals_before bigint;
    batches refcursor;
    landed record;
BEGIN
    PERFORM _deal_sync.hurry_constraints();
    state := _deal_sync.started_backfill(result.tenant_id, reading.mapping);
    IF state.tenant_id IS NULL THEN
        state := _deal_sync.new_backfill(result, reading);
    END IF;
    result := jsonb_populate_record(result, state.counts);
    kind := CASE WHEN state.phase LIKE 'deals%' THEN 'deal' ELSE 'version' END;
    IF state.phase IN ('deals', 'versions') THEN
        keys := _deal_sync.deal_keys(kind, result.tenant_id, state.after, batch_size);
    END IF;
    deals_before := result.deals_read;
    batches := _deal_sync.open_batches(
        kind, result.tenant_id,
        reading.selection
        || CASE WHEN keys IS NULL THEN '{"rest": true}' ELSE jsonb_build_object('graph_ids', keys) END
    );
    landed := _deal_sync.run_kind(kind, batches, true, result, '{}', state.cleared);
    CLOSE batches;
    result := landed.result;
    IF kind = 'deal' THEN
        result.deals_read := result.deals_read + deals_before;
        state.cleared := landed.cleared;
        PERFORM _deal_sync.check_losses(state.cleared, state.held);
    END IF;
    PERFORM _deal_sync.settle_rejects(result.run_id, result.tenant_id, landed.elements);
    state.done := state.done + cardinality(landed.elements);

    IF state.phase = 'versions without deal id' THEN
        result := _deal_sync.conclude_backfill(state, reading, result);
        RETURN;
    END IF;
    IF cardinality(keys) = batch_size THEN
        state.after := keys[batch_size];
    ELSE
        state.after := NULL;
        state.phase := _deal_sync.phase_after(state.phase);
    END IF;
    result.status := 'running';
    state.batch_at := now();
    state.counts := state.counts || to_jsonb(result);
    PERFORM _deal_sync.keep_backfill(state);
END
$$;
COMMENT ON FUNCTION _deal_sync.run_backfill_batch(deal_sync.run_result, integer) IS
'the next batch of a tenant''s backfill, or its first; its status is running until the last one has landed';

-- It commits, so it has no SET clause: each transaction sets search_path.
CREATE OR REPLACE PROCEDURE deal_sync.backfill(tenant uuid, batch_size integer DEFAULT 1000)
LANGUAGE plpgsql
AS $$
DECLARE
    began CONSTANT timestamptz := pg_catalog.clock_timestamp();
    caller CONSTANT _deal_sync.caller := _deal_sync.caller();
    told timestamptz := began;
    outcome _deal_sync.outcome;
    result deal_sync.run_result;
    state record;
BEGIN
    COMMIT; -- raises at once in a transaction block, and not after the first batch
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF batch_size IS NULL OR batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'batch_size is the number of deals that are committed together.';
    END IF;
    LOOP
        outcome := _deal_sync.checked(_deal_sync.sync_tenant(
            tenant, ROW('deal_sync.backfill', 'backfill', false, false, NULL, batch_size, began)::_deal_sync.request,
            caller
        ));
        result := outcome.result;
        COMMIT;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        EXIT WHEN result.status <> 'running';
        -- Between two batches another session may continue the backfill, or sync the tenant.
        PERFORM pg_advisory_xact_lock(_deal_sync.lock_key(tenant));
        SELECT b.phase, b.done INTO state FROM deal_sync.backfills AS b WHERE b.tenant_id = tenant;
        IF state.phase IS NULL THEN
            RAISE NOTICE 'tenant %: another session has completed the backfill', tenant;
            EXIT;
        ELSIF clock_timestamp() >= told + interval '5 seconds' THEN
            told := clock_timestamp();
            RAISE NOTICE 'tenant %: backfill: % nodes read, next: %', tenant, state.done, state.phase;
        END IF;
    END LOOP;
    IF result.status = 'skipped' THEN
        RAISE EXCEPTION 'could not start the backfill of tenant %', tenant USING
            ERRCODE = 'lock_not_available',
            DETAIL = result.message,
            HINT = 'CALL it again when the other run has ended.';
    ELSIF result.status = 'failed' THEN
        RAISE EXCEPTION 'a batch of the backfill of tenant % failed', tenant USING
            ERRCODE = 'DS006',
            DETAIL = result.message,
            HINT = 'Fix the cause and CALL it again: it continues after the last committed batch.';
    END IF;
END
$$;
COMMENT ON PROCEDURE deal_sync.backfill (uuid, integer) IS
'a full run of a tenant that commits after each batch of deals; if it is interrupted, the next CALL continues; '
'deal_sync.backfills shows its progress';
