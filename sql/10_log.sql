-- In: the outcome of runs. Out: the run log and the refusals. Written by short functions with the owner's rights.

CREATE TABLE deal_sync.runs (
    run_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    mode text NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'partial', 'failed', 'skipped')),
    started_at timestamptz NOT NULL,
    seconds double precision NOT NULL,
    deals_read bigint NOT NULL,
    deals_inserted bigint NOT NULL,
    deals_updated bigint NOT NULL,
    deals_unchanged bigint NOT NULL,
    deals_adopted bigint NOT NULL,
    versions_inserted bigint NOT NULL,
    links_inserted bigint NOT NULL,
    rows_rejected bigint NOT NULL,
    values_rejected bigint NOT NULL,
    watermark timestamptz,
    message text,
    sqlstate text,
    server_text text
);
CREATE INDEX runs_tenant_id_started_at_idx ON deal_sync.runs (tenant_id, started_at DESC);
COMMENT ON TABLE deal_sync.runs IS 'one row a run of sync_deals';
COMMENT ON COLUMN deal_sync.runs.message IS 'what happened, built from names and codes: holds nobody''s data';
COMMENT ON COLUMN deal_sync.runs.server_text IS
'the server''s own words; they can hold people''s data: not for monitors';

CREATE TABLE deal_sync.rejects (
    tenant_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('deal', 'version', 'link')),
    level text NOT NULL CHECK (level IN ('row', 'value', 'note')),
    graph_id text,
    element_id text NOT NULL,
    column_name text NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    value text,
    server_text text,
    run_id uuid NOT NULL,
    times_seen bigint NOT NULL DEFAULT 1,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, kind, element_id, column_name)
);
COMMENT ON TABLE deal_sync.rejects IS
'what could not land, and why; a row leaves when its cause is gone. Level row: the whole row; value: one column; note: worth knowing';
COMMENT ON COLUMN deal_sync.rejects.graph_id IS 'opportunity_id or version_id as the graph spells it';
COMMENT ON COLUMN deal_sync.rejects.element_id IS 'a hint: it does not survive a restore of the graph';
COMMENT ON COLUMN deal_sync.rejects.column_name IS 'the column of the foreign table; '''' for the row as a whole';
COMMENT ON COLUMN deal_sync.rejects.message IS 'the reason, built from names and codes: holds nobody''s data';
COMMENT ON COLUMN deal_sync.rejects.value IS 'the offending value, cut to a readable length: not for monitors';
COMMENT ON COLUMN deal_sync.rejects.server_text IS
'the server''s own words; they can hold people''s data: not for monitors';

-- A dump keeps what happened.
SELECT pg_catalog.pg_extension_config_dump('deal_sync.runs', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.rejects', '');

CREATE FUNCTION deal_sync.record_run(
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
    )
$$;
COMMENT ON FUNCTION deal_sync.record_run(deal_sync.run_result, timestamptz, text, text) IS
'internal: adds a run to deal_sync.runs';

CREATE FUNCTION deal_sync.record_rejects(run_id uuid, tenant_id uuid, found jsonb) RETURNS void
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
    ORDER BY f.kind, f.element_id, coalesce(f.column_name, ''), f.level = 'note' -- a refusal counts more
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
COMMENT ON FUNCTION deal_sync.record_rejects(uuid, uuid, jsonb) IS
'internal: adds what a batch could not land to deal_sync.rejects';

CREATE FUNCTION deal_sync.settle_rejects(
    run_id uuid, tenant_id uuid, OUT rows_rejected bigint, OUT values_rejected bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM deal_sync.rejects AS r
    WHERE r.tenant_id = settle_rejects.tenant_id AND r.run_id <> settle_rejects.run_id;

    SELECT count(*) FILTER (WHERE r.level = 'row'), count(*) FILTER (WHERE r.level = 'value')
    INTO rows_rejected, values_rejected
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = settle_rejects.tenant_id;
END
$$;
COMMENT ON FUNCTION deal_sync.settle_rejects(uuid, uuid) IS
'internal: at the end of a run that read everything, removes the refusals it did not meet again, and counts the rest';
