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

CREATE TABLE deal_sync.watermarks (
    tenant_id uuid PRIMARY KEY,
    watermark timestamptz NOT NULL,
    mapping text NOT NULL,
    run_id uuid NOT NULL,
    full_at timestamptz NOT NULL,
    undated jsonb NOT NULL DEFAULT '{}',
    facts jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE deal_sync.watermarks IS 'up to where each tenant''s graph has been read; written in one transaction with the rows';
COMMENT ON COLUMN deal_sync.watermarks.watermark IS
'by the graph''s clock: what changed later is read by the next incremental run, and once more what changed shortly before';
COMMENT ON COLUMN deal_sync.watermarks.mapping IS '_deal_sync.mapping_fingerprint() then, and the graph''s id: a change makes the next run full';
COMMENT ON COLUMN deal_sync.watermarks.full_at IS 'when the last full run of the tenant began';
COMMENT ON COLUMN deal_sync.watermarks.undated IS
'{"element id": digest} of the nodes that do not say when they changed, as the last incremental run landed them: it reads them again when they differ';

-- A key of its own: two first runs at once may remember the same graph, and neither waits for the other.
COMMENT ON COLUMN deal_sync.watermarks.facts IS
'what the run found: ahead (seconds of the graph''s clock before PostgreSQL''s), at_boot (what it said when PostgreSQL''s machine was started: boot), deals and versions (nodes, before it read), counted_at, count_ms, newest (moment of a deal, by a full run), rows_without_deal';

CREATE TABLE deal_sync.graph (
    entry_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    database_id text NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    accepted_by name NOT NULL DEFAULT session_user
);
COMMENT ON TABLE deal_sync.graph IS
'the graph that this database is synced with; another one stops every run until deal_sync.accept_graph() confirms it';
COMMENT ON COLUMN deal_sync.graph.entry_id IS 'names the row, for logical replication';
COMMENT ON COLUMN deal_sync.graph.database_id IS 'the id that Neo4j gives the database: CALL db.info()';

CREATE TABLE deal_sync.barred (
    tenant_id uuid NOT NULL,
    graph_id uuid NOT NULL,
    barred_at timestamptz NOT NULL DEFAULT now(),
    barred_by name NOT NULL DEFAULT session_user,
    PRIMARY KEY (tenant_id, graph_id)
);
COMMENT ON TABLE deal_sync.barred IS
'deals that do not come back, whatever the graph holds: deal_sync.forget() bars them, deal_sync.unbar() lifts it';

CREATE TABLE deal_sync.backfills (
    tenant_id uuid PRIMARY KEY,
    run_id uuid NOT NULL,
    mapping text NOT NULL,
    watermark timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    batch_at timestamptz NOT NULL,
    phase text NOT NULL CHECK (phase IN ('deals', 'deals without id', 'versions', 'versions without deal id')),
    after text,
    done bigint NOT NULL,
    held jsonb NOT NULL,
    cleared jsonb NOT NULL,
    counts jsonb NOT NULL
);
COMMENT ON TABLE deal_sync.backfills IS 'backfills that have begun and not ended: up to where each has come; written in one transaction with the rows';
COMMENT ON COLUMN deal_sync.backfills.mapping IS 'as in deal_sync.watermarks, at its beginning: after a change it starts over';
COMMENT ON COLUMN deal_sync.backfills.watermark IS 'the tenant''s watermark once the backfill has ended';
COMMENT ON COLUMN deal_sync.backfills.batch_at IS 'when the last batch began';
COMMENT ON COLUMN deal_sync.backfills.phase IS 'what is read next; nodes without an id are those whose id is absent or no text';
COMMENT ON COLUMN deal_sync.backfills.after IS 'the last deal id that was read in this phase, as the graph spells it';
COMMENT ON COLUMN deal_sync.backfills.done IS 'nodes read so far, deals and versions';
COMMENT ON COLUMN deal_sync.backfills.held IS 'how many values the tenant''s rows had at its beginning, by column that a run overwrites';
COMMENT ON COLUMN deal_sync.backfills.cleared IS 'how many of them it has replaced by NULL so far';
COMMENT ON COLUMN deal_sync.backfills.counts IS 'the deal_sync.run_result so far; and what its first batch found: facts, remarks for the message, what was known before';

-- A dump keeps what happened.
SELECT pg_catalog.pg_extension_config_dump('deal_sync.runs', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.rejects', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.watermarks', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.graph', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.barred', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.backfills', '');

CREATE FUNCTION _deal_sync.record_run(
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
    SELECT pg_notify('deal_sync', json_build_object('run_id', result.run_id, 'tenant', result.tenant_id, 'status', result.status)::text)
$$;
COMMENT ON FUNCTION _deal_sync.record_run(deal_sync.run_result, timestamptz, text, text) IS
'adds a run to deal_sync.runs, and tells the channel deal_sync';

CREATE FUNCTION _deal_sync.record_rejects(run_id uuid, tenant_id uuid, found jsonb) RETURNS void
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
COMMENT ON FUNCTION _deal_sync.record_rejects(uuid, uuid, jsonb) IS
'adds what a batch could not land to deal_sync.rejects';

CREATE FUNCTION _deal_sync.settle_rejects(
    run_id uuid, tenant_id uuid, elements text[], OUT rows_rejected bigint, OUT values_rejected bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM deal_sync.rejects AS r
    WHERE
        r.tenant_id = settle_rejects.tenant_id
        AND (r.run_id <> settle_rejects.run_id OR r.last_seen < now()) -- the run is the same in each transaction of a backfill
        AND (elements IS NULL OR r.element_id = ANY (elements));

    SELECT count(*) FILTER (WHERE r.level = 'row'), count(*) FILTER (WHERE r.level = 'value')
    INTO rows_rejected, values_rejected
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = settle_rejects.tenant_id AND r.run_id = settle_rejects.run_id;
END
$$;
COMMENT ON FUNCTION _deal_sync.settle_rejects(uuid, uuid, text[]) IS
'at a run''s end, of the nodes that it asked for (NULL: all) removes the refusals that it did not meet again; counts those that it met';

CREATE FUNCTION _deal_sync.refused_elements(tenant_id uuid) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(DISTINCT r.element_id), '{}')
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = refused_elements.tenant_id AND r.level = 'row'
$$;
COMMENT ON FUNCTION _deal_sync.refused_elements(uuid) IS 'the nodes that every run tries again';

CREATE FUNCTION _deal_sync.barred_of(tenant_id uuid) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(b.graph_id), '{}')
    FROM deal_sync.barred AS b
    WHERE b.tenant_id = barred_of.tenant_id
$$;
COMMENT ON FUNCTION _deal_sync.barred_of(uuid) IS 'the deals of a tenant that do not land';

-- The first run remembers its graph; two at once leave two rows, and so does one during which accept_graph() is called: the last counts.
CREATE FUNCTION _deal_sync.check_graph(database_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text := (SELECT g.database_id FROM deal_sync.graph AS g ORDER BY g.accepted_at DESC LIMIT 1);
BEGIN
    IF known IS NULL THEN
        INSERT INTO deal_sync.graph (database_id) VALUES (check_graph.database_id);
    ELSIF known <> check_graph.database_id THEN
        RAISE EXCEPTION 'this is not the graph this database was loaded from' USING
            ERRCODE = 'DS004',
            DETAIL = format('The database id was %s, and now is %s.', left(known, 12), left(check_graph.database_id, 12)),
            HINT = 'If it is meant, SELECT deal_sync.accept_graph(); else set the server''s address right.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_graph(text) IS 'remembers the graph''s database id; raises where it is another one';

CREATE FUNCTION _deal_sync.watermark_of(
    tenant_id uuid, OUT watermark timestamptz, OUT mapping text, OUT undated jsonb, OUT facts jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.watermark, w.mapping, w.undated, w.facts FROM deal_sync.watermarks AS w WHERE w.tenant_id = watermark_of.tenant_id
$$;
COMMENT ON FUNCTION _deal_sync.watermark_of(uuid) IS
'up to where a tenant''s graph has been read, with which mapping, and what was read of nodes that have no timestamp';

CREATE FUNCTION _deal_sync.record_watermark(
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
'remembers up to where a tenant''s graph has been read';

-- Whatever reads a node forgets what was known of it: else a node that goes back to what it was would pass for known.
CREATE FUNCTION _deal_sync.remember_undated(tenant_id uuid, elements text[], undated jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE deal_sync.watermarks AS w
    SET undated = CASE WHEN elements IS NULL THEN '{}' ELSE (w.undated - elements) || remember_undated.undated END
    WHERE
        w.tenant_id = remember_undated.tenant_id
        AND CASE WHEN elements IS NULL THEN w.undated <> '{}' ELSE w.undated ?| elements OR remember_undated.undated <> '{}' END
$$;
COMMENT ON FUNCTION _deal_sync.remember_undated(uuid, text[], jsonb) IS
'of the nodes that a run has read (NULL: all), how those look that have no timestamp';
