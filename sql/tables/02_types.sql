-- In: the schemas. Out: the types that functions and views exchange: the result of a run, and internal ones.

CREATE TYPE deal_sync.run_result AS (
    run_id uuid,
    tenant_id uuid,
    mode text,
    status text,
    deals_read bigint,
    deals_inserted bigint,
    deals_updated bigint,
    deals_unchanged bigint,
    deals_adopted bigint,
    versions_inserted bigint,
    links_inserted bigint,
    rows_rejected bigint,
    values_rejected bigint,
    watermark timestamptz,
    seconds double precision,
    message text
);
COMMENT ON TYPE deal_sync.run_result IS 'what a run did; deal_sync.runs keeps it, except for a dry run';

-- origin says whose words the error holds: 'own' are the extension's and may be shown to everybody, 'application' may
-- hold application data. Neither SQLSTATE nor CONTEXT proves it: the application may raise the same SQLSTATE, and
-- CONTEXT is in the server's language. place: the application's trigger or function that raised it.
CREATE TYPE _deal_sync.error AS (code text, message text, detail text, hint text, origin text, place text);
COMMENT ON TYPE _deal_sync.error IS 'an error that was caught';

-- function: the public function that was called. began: when the run began, of which this may be a part; NULL for now.
CREATE TYPE _deal_sync.request AS (
    function text, mode text, is_dry_run boolean, is_strict boolean, graph_ids text [], batch_size integer,
    began timestamptz
);
COMMENT ON TYPE _deal_sync.request IS 'what a run was asked for';

CREATE TYPE _deal_sync.caller AS (search_path text, tenant_setting text);
COMMENT ON TYPE _deal_sync.caller IS
'the settings of the caller that a run replaces by its own; tenant_setting: app.tenant_id';

CREATE TYPE _deal_sync.outcome AS (result deal_sync.run_result, error _deal_sync.error);
COMMENT ON TYPE _deal_sync.outcome IS 'the result of a run, or the error that is raised instead';

-- neo4j_deals.sync.statements says what each of them does.
CREATE TYPE _deal_sync.statements AS (
    planned text, to_write text, locks text, cleared text, merge text, completion text, failed text, unwritten text,
    counted text, rejects text, links text, linked text, unlinked text, suppressed text
);
COMMENT ON TYPE _deal_sync.statements IS 'the statements that a run executes for each batch of a kind';

-- target_*, not_null: facts of the application's column. required: an insert has nothing to put there but the property.
-- staged_*: the base type that the column is staged in, NULL if it is not staged; text if the reader has no binary form
-- of the type. due_*: the base type of the column that is filled.
CREATE TYPE _deal_sync.mapping_column AS (
    place smallint, name text, type oid, type_name text, type_modifier integer, options jsonb,
    target text, write text, target_type oid, target_modifier integer, target_is_there boolean,
    not_null boolean, target_default text, required boolean,
    staged_as text, staged_type oid, staged_name text, staged_modifier integer,
    due_as text, due_name text, due_modifier integer
);
COMMENT ON TYPE _deal_sync.mapping_column IS 'a column of a foreign table of the mapping, and the column that it fills';

-- row_number: in the staging table; relation (quoted) and column_name: those that the error names.
CREATE TYPE _deal_sync.failure AS (
    row_number bigint, sqlstate text, message text, server_text text, relation text, column_name text
);
COMMENT ON TYPE _deal_sync.failure IS 'a row that the application''s table rejected when it was written alone';

-- selection: what the reader takes (neo4j_deals.sync.selection). mode: the one asked for, or full; remarks: why, and
-- what else the run's message is to say. watermark: what the run sets at its end; facts: what it keeps with it; known:
-- what the last run kept.
CREATE TYPE _deal_sync.reading AS (
    mode text, remarks text [], selection jsonb, watermark timestamptz, mapping text, facts jsonb, known jsonb
);
COMMENT ON TYPE _deal_sync.reading IS 'what a run reads, and up to when the graph has been read afterwards';

-- state: matching, differing, missing or rejected, of a node; value, of a value in which a node and its row differ.
-- deal: the deal's graph id; taken_by: the version that has this one's number; links: interactions.
CREATE TYPE _deal_sync.comparison AS (
    kind text, state text, element_id text, graph_id text, key uuid, deal uuid, taken_by uuid, links uuid [],
    column_name text, graph_value text, table_value text
);
COMMENT ON TYPE _deal_sync.comparison IS 'a node of the graph compared with its row';

CREATE TYPE _deal_sync.tenant_state AS ENUM ('up to date', 'late', 'failing', 'backing off', 'never synced', 'unknown');
COMMENT ON TYPE _deal_sync.tenant_state IS 'the states of deal_sync.tenant_status';
