-- In: the schemas. Out: the tables of what has happened: runs, rejects, watermarks, the graph, barred deals, backfills.

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
COMMENT ON TABLE deal_sync.runs IS
'one row per run: of a tenant, by sync_deals, sync_all, replay or backfill';
COMMENT ON COLUMN deal_sync.runs.run_id IS 'identifies the run; deal_sync.rejects refers to it';
COMMENT ON COLUMN deal_sync.runs.tenant_id IS 'the tenant that was synced';
COMMENT ON COLUMN deal_sync.runs.mode IS
'what was read: incremental (what has changed since the last run), full (everything), replay (everything or the given '
'deals, to complete landed versions too) or backfill (everything, in batches)';
COMMENT ON COLUMN deal_sync.runs.status IS
'ok; partial (some rows or values were rejected: see deal_sync.rejects); failed (rolled back; of a backfill, the last '
'batch only) or skipped (another session was syncing the tenant)';
COMMENT ON COLUMN deal_sync.runs.started_at IS 'when the run began';
COMMENT ON COLUMN deal_sync.runs.seconds IS 'how long the run took';
COMMENT ON COLUMN deal_sync.runs.deals_read IS 'deals read from the graph';
COMMENT ON COLUMN deal_sync.runs.deals_inserted IS 'deals for which a row was inserted into opportunities';
COMMENT ON COLUMN deal_sync.runs.deals_updated IS 'deals whose row was updated';
COMMENT ON COLUMN deal_sync.runs.deals_unchanged IS 'deals whose row was up to date already';
COMMENT ON COLUMN deal_sync.runs.deals_adopted IS
'deals that took over a row of the application: one without a graph id, whose id was that of the deal';
COMMENT ON COLUMN deal_sync.runs.versions_inserted IS 'rows inserted into deal_versions';
COMMENT ON COLUMN deal_sync.runs.links_inserted IS 'rows inserted into interaction_links';
COMMENT ON COLUMN deal_sync.runs.rows_rejected IS 'deals, versions and links that could not land';
COMMENT ON COLUMN deal_sync.runs.values_rejected IS 'single values that could not land, in rows that did';
COMMENT ON COLUMN deal_sync.runs.watermark IS
'up to when the graph has been read, by the graph''s clock; NULL if the run did not advance the tenant''s watermark';
COMMENT ON COLUMN deal_sync.runs.message IS 'what happened, in names and codes only: contains no application data';
COMMENT ON COLUMN deal_sync.runs.sqlstate IS 'SQLSTATE of the error that ended the run';
COMMENT ON COLUMN deal_sync.runs.server_text IS
'the error as the server reported it; may contain application data, so monitoring roles cannot read it';

-- What a function returns of a run is its row here.
DO $$
DECLARE
    shared record;
BEGIN
    FOR shared IN
        SELECT t.attname AS name, pg_catalog.col_description(r.attrelid, r.attnum) AS comment
        FROM pg_catalog.pg_attribute AS t
        INNER JOIN pg_catalog.pg_attribute AS r ON t.attname = r.attname AND r.attrelid = 'deal_sync.runs'::regclass
        WHERE t.attrelid = 'deal_sync.run_result'::regclass AND t.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN deal_sync.run_result.%I IS %L', shared.name, shared.comment);
    END LOOP;
END
$$;

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
'what could not land, and why; a row is removed once its cause is gone';
COMMENT ON COLUMN deal_sync.rejects.tenant_id IS 'the tenant that the node belongs to';
COMMENT ON COLUMN deal_sync.rejects.kind IS 'deal, version or link';
COMMENT ON COLUMN deal_sync.rejects.level IS
'row: the whole row was rejected; value: one value was, and the rest of the row landed; note: nothing was rejected';
COMMENT ON COLUMN deal_sync.rejects.graph_id IS
'opportunity_id of the deal or version_id of the version, as the graph has it';
COMMENT ON COLUMN deal_sync.rejects.element_id IS
'Neo4j''s element id of the node; it does not survive a restore of the graph';
COMMENT ON COLUMN deal_sync.rejects.column_name IS 'the column of the foreign table; empty if the whole row is meant';
COMMENT ON COLUMN deal_sync.rejects.sqlstate IS 'SQLSTATE of the error; 00000 for a note';
COMMENT ON COLUMN deal_sync.rejects.message IS 'the reason, in names and codes only: contains no application data';
COMMENT ON COLUMN deal_sync.rejects.value IS
'the offending value, shortened; removed after deal_sync.values_kept, and monitoring roles cannot read it';
COMMENT ON COLUMN deal_sync.rejects.server_text IS
'the error as the server reported it; may contain application data, so monitoring roles cannot read it';
COMMENT ON COLUMN deal_sync.rejects.run_id IS 'the last run that met it';
COMMENT ON COLUMN deal_sync.rejects.times_seen IS 'how many runs have met it';
COMMENT ON COLUMN deal_sync.rejects.first_seen IS 'when a run first met it';
COMMENT ON COLUMN deal_sync.rejects.last_seen IS 'when a run last met it';

CREATE TABLE deal_sync.watermarks (
    tenant_id uuid PRIMARY KEY,
    watermark timestamptz NOT NULL,
    mapping text NOT NULL,
    run_id uuid NOT NULL,
    full_at timestamptz NOT NULL,
    facts jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE deal_sync.watermarks IS
'up to when each tenant''s graph has been read; written in the same transaction as the rows';
COMMENT ON COLUMN deal_sync.watermarks.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.watermarks.watermark IS
'a time of the graph''s clock: the next incremental run reads what has changed since then; it lies deal_sync.overlap '
'before the run that set it';
COMMENT ON COLUMN deal_sync.watermarks.mapping IS
'fingerprint of the mapping, and the graph''s database id; if either changes, the next run is a full one';
COMMENT ON COLUMN deal_sync.watermarks.run_id IS 'the run that set the watermark';
COMMENT ON COLUMN deal_sync.watermarks.full_at IS 'when the last full run began';
COMMENT ON COLUMN deal_sync.watermarks.facts IS
'what the run found: ahead (seconds by which the graph''s clock is ahead of PostgreSQL''s), unsure (how exactly, in '
'seconds), boot (the boot of PostgreSQL''s machine), at_boot (the graph''s clock at that boot), deals and versions '
'(nodes), counted_at, count_ms, undated_at (when nodes without a timestamp were last read), newest (last change of a '
'deal, of a full run), rows_without_deal';

CREATE TABLE _deal_sync.undated_nodes (
    tenant_id uuid NOT NULL,
    element_id text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (tenant_id, element_id)
);
COMMENT ON TABLE _deal_sync.undated_nodes IS
'nodes without a timestamp, as an incremental run last landed them: the next one that looks at them lands those that '
'differ';
COMMENT ON COLUMN _deal_sync.undated_nodes.digest IS 'of what was read of the node';

-- A key of its own: two first runs at once may remember the same graph, and neither waits for the other.
CREATE TABLE deal_sync.graph (
    entry_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    database_id text NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    accepted_by name NOT NULL DEFAULT session_user
);
COMMENT ON TABLE deal_sync.graph IS
'the graph that this database is synced with; a run that finds another one fails, until deal_sync.accept_graph() '
'confirms it';
COMMENT ON COLUMN deal_sync.graph.entry_id IS 'identifies the row, for logical replication';
COMMENT ON COLUMN deal_sync.graph.database_id IS 'the id of the Neo4j database, as CALL db.info() returns it';
COMMENT ON COLUMN deal_sync.graph.accepted_at IS 'when the first run found it, or accept_graph() confirmed it';
COMMENT ON COLUMN deal_sync.graph.accepted_by IS 'session_user at that time';

CREATE TABLE deal_sync.barred (
    tenant_id uuid NOT NULL,
    graph_id uuid NOT NULL,
    barred_at timestamptz NOT NULL DEFAULT now(),
    barred_by name NOT NULL DEFAULT session_user,
    PRIMARY KEY (tenant_id, graph_id)
);
COMMENT ON TABLE deal_sync.barred IS
'deals that are not synced, although the graph has them: deal_sync.forget() adds them, deal_sync.unbar() removes them';
COMMENT ON COLUMN deal_sync.barred.tenant_id IS 'the tenant that the deal belongs to';
COMMENT ON COLUMN deal_sync.barred.graph_id IS 'the deal''s id in the graph: opportunities.graph_opportunity_id';
COMMENT ON COLUMN deal_sync.barred.barred_at IS 'when it was barred';
COMMENT ON COLUMN deal_sync.barred.barred_by IS 'session_user at that time';

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
COMMENT ON TABLE deal_sync.backfills IS
'backfills that are not complete, and how far each has come; written in the same transaction as the rows';
COMMENT ON COLUMN deal_sync.backfills.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.backfills.run_id IS 'the run that the backfill will be in deal_sync.runs';
COMMENT ON COLUMN deal_sync.backfills.mapping IS
'as in deal_sync.watermarks, when it began; if it has changed, the backfill starts over';
COMMENT ON COLUMN deal_sync.backfills.watermark IS 'the tenant''s watermark once the backfill is complete';
COMMENT ON COLUMN deal_sync.backfills.started_at IS 'when its first batch began';
COMMENT ON COLUMN deal_sync.backfills.batch_at IS 'when its last batch began';
COMMENT ON COLUMN deal_sync.backfills.phase IS
'what the next batch reads; nodes without id are those whose id is absent or not a text';
COMMENT ON COLUMN deal_sync.backfills.after IS 'the last deal id that was read in this phase, as the graph has it';
COMMENT ON COLUMN deal_sync.backfills.done IS 'nodes read so far, deals and versions';
COMMENT ON COLUMN deal_sync.backfills.held IS
'how many values the tenant''s rows had when it began, by column that a run overwrites';
COMMENT ON COLUMN deal_sync.backfills.cleared IS 'how many of them it has replaced with NULL so far';
COMMENT ON COLUMN deal_sync.backfills.counts IS
'its deal_sync.run_result so far, and what its first batch found: facts, remarks for the message, and what was known '
'before';

-- A dump keeps what happened.
SELECT pg_catalog.pg_extension_config_dump('deal_sync.runs', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.rejects', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.watermarks', '');
SELECT pg_catalog.pg_extension_config_dump('_deal_sync.undated_nodes', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.graph', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.barred', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.backfills', '');
