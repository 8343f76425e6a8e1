-- In: the outcome of runs. Out: the run log, the rejects, watermarks, the graph's id. Written by short functions with
-- the owner's rights.

CREATE OR REPLACE FUNCTION _deal_sync.record_run(
    result deal_sync.run_result, started_at timestamptz, sqlstate text, server_text text
) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.runs
    VALUES (
        result.run_id, result.tenant_id, result.mode, result.status, started_at, result.seconds,
        result.deals_read, result.deals_inserted, result.deals_updated, result.deals_unchanged, result.deals_adopted,
        result.versions_inserted, result.links_inserted, result.rows_rejected, result.values_rejected,
        result.watermark, result.message, sqlstate, nullif(server_text, '')
    );
    -- NOTIFY has no access control: no more than this.
    SELECT pg_notify(
        'deal_sync',
        json_build_object('run_id', result.run_id, 'tenant', result.tenant_id, 'status', result.status)::text
    )
$$;
COMMENT ON FUNCTION _deal_sync.record_run(deal_sync.run_result, timestamptz, text, text) IS
'adds a run to deal_sync.runs, and notifies the channel deal_sync';

CREATE OR REPLACE FUNCTION _deal_sync.record_rejects(run_id uuid, tenant_id uuid, found jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.rejects AS r (
        tenant_id, run_id, kind, level, graph_id, element_id, column_name, sqlstate, message, value, server_text
    )
    SELECT DISTINCT ON (f.kind, f.element_id, coalesce(f.column_name, ''))
        record_rejects.tenant_id, record_rejects.run_id, f.kind, f.level, f.graph_id, f.element_id,
        coalesce(f.column_name, ''), f.sqlstate, f.message, f.value, f.server_text
    FROM jsonb_to_recordset(found) AS f (
        kind text, level text, graph_id text, element_id text, column_name text,
        sqlstate text, message text, value text, server_text text
    )
    ORDER BY f.kind, f.element_id, coalesce(f.column_name, ''), f.level = 'note' -- a reject goes before a note
    ON CONFLICT (tenant_id, kind, element_id, column_name) DO UPDATE SET
        level = excluded.level,
        graph_id = excluded.graph_id,
        sqlstate = excluded.sqlstate,
        message = excluded.message,
        value = excluded.value,
        server_text = excluded.server_text,
        run_id = excluded.run_id,
        times_seen = r.times_seen + (r.run_id <> excluded.run_id)::int,
        last_seen = now()
$$;
COMMENT ON FUNCTION _deal_sync.record_rejects(uuid, uuid, jsonb) IS
'adds what a batch could not land to deal_sync.rejects';

CREATE OR REPLACE FUNCTION _deal_sync.settle_rejects(
    run_id uuid, tenant_id uuid, elements text[], OUT rows_rejected bigint, OUT values_rejected bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM deal_sync.rejects AS r
    WHERE
        r.tenant_id = settle_rejects.tenant_id
        -- A backfill is the same run in each of its transactions.
        AND (r.run_id <> settle_rejects.run_id OR r.last_seen < now())
        AND (elements IS NULL OR r.element_id = ANY (elements));

    SELECT count(*) FILTER (WHERE r.level = 'row'), count(*) FILTER (WHERE r.level = 'value')
    INTO rows_rejected, values_rejected
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = settle_rejects.tenant_id AND r.run_id = settle_rejects.run_id;
END
$$;
COMMENT ON FUNCTION _deal_sync.settle_rejects(uuid, uuid, text[]) IS
'at the end of a run removes the rejects of the nodes that it read (NULL: all) and did not meet again; counts the '
'others';

CREATE OR REPLACE FUNCTION _deal_sync.rejected_elements(tenant_id uuid) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(DISTINCT r.element_id), '{}')
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = rejected_elements.tenant_id AND r.level = 'row'
$$;
COMMENT ON FUNCTION _deal_sync.rejected_elements(uuid) IS 'the rejected nodes of a tenant, which every run tries again';

CREATE OR REPLACE FUNCTION _deal_sync.barred_of(tenant_id uuid) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(b.graph_id), '{}')
    FROM deal_sync.barred AS b
    WHERE b.tenant_id = barred_of.tenant_id
$$;
COMMENT ON FUNCTION _deal_sync.barred_of(uuid) IS 'the deals of a tenant that are barred';

-- Two first runs at once, or one during which accept_graph() is called, leave two rows.
CREATE OR REPLACE FUNCTION _deal_sync.known_graph() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT g.database_id FROM deal_sync.graph AS g ORDER BY g.accepted_at DESC LIMIT 1
$$;
COMMENT ON FUNCTION _deal_sync.known_graph() IS
'the database id of the graph that this database was loaded from, the last one accepted; NULL before the first run';

-- The first run remembers its graph.
CREATE OR REPLACE FUNCTION _deal_sync.check_graph(database_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known CONSTANT text := _deal_sync.known_graph();
BEGIN
    IF known IS NULL THEN
        INSERT INTO deal_sync.graph (database_id) VALUES (check_graph.database_id);
    ELSIF known <> check_graph.database_id THEN
        RAISE EXCEPTION 'this is not the graph this database was loaded from' USING
            ERRCODE = 'DS004',
            DETAIL = format(
                'The database id was %s and is now %s.', left(known, 12), left(check_graph.database_id, 12)
            ),
            HINT = 'To sync with it from now on, SELECT deal_sync.accept_graph(); otherwise correct the option "uri" of'
                ' the server.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_graph(text) IS 'remembers the database id of the graph; raises if it has changed';

CREATE OR REPLACE FUNCTION _deal_sync.replace_graph(database_id text) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM deal_sync.graph;
    DELETE FROM deal_sync.watermarks;
    DELETE FROM deal_sync.backfills;
    INSERT INTO deal_sync.graph (database_id) VALUES (replace_graph.database_id);
$$;
COMMENT ON FUNCTION _deal_sync.replace_graph(text) IS 'the body of accept_graph()';

CREATE OR REPLACE FUNCTION deal_sync.accept_graph() RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state record;
    error _deal_sync.error;
BEGIN
    PERFORM _deal_sync.check_package();
    state := _deal_sync.graph_state();
    PERFORM _deal_sync.replace_graph(state.database_id);
    RETURN state.database_id;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT;
        error := _deal_sync.raise_again(error);
END
$$;
COMMENT ON FUNCTION deal_sync.accept_graph() IS
'accepts the graph behind the server as the one to sync from, and returns its database id; every tenant''s next run is '
'a full one';

CREATE OR REPLACE FUNCTION _deal_sync.watermark_of(
    tenant_id uuid, OUT watermark timestamptz, OUT mapping text, OUT facts jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.watermark, w.mapping, w.facts
    FROM deal_sync.watermarks AS w
    WHERE w.tenant_id = watermark_of.tenant_id
$$;
COMMENT ON FUNCTION _deal_sync.watermark_of(uuid) IS
'up to when a tenant''s graph has been read, with which mapping, and what was found';

CREATE OR REPLACE FUNCTION _deal_sync.record_watermark(
    tenant_id uuid, run_id uuid, watermark timestamptz, mapping text, is_full boolean, facts jsonb
) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.watermarks AS w (tenant_id, watermark, mapping, run_id, full_at, facts)
    VALUES (record_watermark.tenant_id, watermark, mapping, run_id, now(), record_watermark.facts)
    ON CONFLICT (tenant_id) DO UPDATE SET
        watermark = excluded.watermark,
        mapping = excluded.mapping,
        run_id = excluded.run_id,
        full_at = CASE WHEN is_full THEN excluded.full_at ELSE w.full_at END,
        facts = w.facts || excluded.facts
$$;
COMMENT ON FUNCTION _deal_sync.record_watermark(uuid, uuid, timestamptz, text, boolean, jsonb) IS
'remembers up to when a tenant''s graph has been read';

-- A run that reads a node replaces what was known of it, or a node that changes back would pass for unchanged.
CREATE OR REPLACE FUNCTION _deal_sync.remember_undated(tenant_id uuid, elements text[], digests text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM _deal_sync.undated_nodes AS u
    WHERE u.tenant_id = remember_undated.tenant_id AND (elements IS NULL OR u.element_id = ANY (elements));

    INSERT INTO _deal_sync.undated_nodes (tenant_id, element_id, digest)
    SELECT remember_undated.tenant_id, d.element_id, d.digest
    FROM unnest(elements, digests) AS d (element_id, digest)
    WHERE d.digest IS NOT NULL
$$;
COMMENT ON FUNCTION _deal_sync.remember_undated(uuid, text[], text[]) IS
'remembers the digests of nodes that a run has read, or forgets them (NULL); elements NULL: forgets all of the tenant';
