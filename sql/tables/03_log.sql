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
COMMENT ON COLUMN deal_sync.watermarks.facts IS
'what the run found: ahead (seconds of the graph''s clock before PostgreSQL''s), at_boot (what it said when PostgreSQL''s machine was started: boot), deals and versions (nodes, before it read), counted_at, count_ms, newest (moment of a deal, by a full run), rows_without_deal';

-- A key of its own: two first runs at once may remember the same graph, and neither waits for the other.
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
