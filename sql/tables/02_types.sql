-- In: the schemas. Out: what functions and views give to each other: the result of a run, and what is internal.

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
COMMENT ON TYPE deal_sync.run_result IS
'what a run did; status: ok, partial (something was refused: see deal_sync.rejects), failed (nothing was written) or skipped (another run has the tenant)';

-- What a run executes for each batch of a kind: neo4j_deals.sync.statements says what each is.
CREATE TYPE _deal_sync.statements AS (
    planned text, to_write text, locks text, cleared text, merge text, completion text, failed text, unwritten text, counted text,
    rejects text, links text, linked text, unlinked text, suppressed text
);
COMMENT ON TYPE _deal_sync.statements IS 'what a run executes for each batch of a kind';

-- `options` as jsonb; `not_null`, `target_default` and the rest of the target's facts from the application's table; `required`: an insert
-- has nothing to put there but the property; `staged_*`: the base type in which the sync stages the column, NULL where it does not (for a
-- type without a binary form of ours, the text that its input reads); `due_*`: the base type of what is to be filled.
CREATE TYPE _deal_sync.mapping_column AS (
    place smallint, name text, type oid, type_name text, type_modifier integer, options jsonb,
    target text, write text, target_type oid, target_modifier integer, target_is_there boolean,
    not_null boolean, target_default text, required boolean,
    staged_as text, staged_type oid, staged_name text, staged_modifier integer,
    due_as text, due_name text, due_modifier integer
);
COMMENT ON TYPE _deal_sync.mapping_column IS 'a column of a foreign table of the mapping, and the column that it fills';

-- A row that failed alone. row_number: in the staging table; relation (quoted) and column_name: those that the error names.
CREATE TYPE _deal_sync.failure AS (
    row_number bigint, sqlstate text, message text, server_text text, relation text, column_name text
);
COMMENT ON TYPE _deal_sync.failure IS 'a row that the application''s table refused';

-- `selection`: what the reader takes (neo4j_deals.sync.selection); `mode`: what becomes of the mode asked for, and
-- `remarks` why, and what else the run's message is to say; `watermark`: what the run sets when it ends; `facts`:
-- what it keeps with it, `known` what the last one has.
CREATE TYPE _deal_sync.reading AS (
    mode text, remarks text [], selection jsonb, watermark timestamptz, mapping text, facts jsonb, known jsonb
);
COMMENT ON TYPE _deal_sync.reading IS 'what a run reads, and up to where the graph has been read afterwards';

-- A node of the graph (`state`: matching, differing, missing, refused), or a value in which it and its row differ (`state`: value).
-- deal: the deal's graph id; taken_by: the version that has this one's number; links: interactions.
CREATE TYPE _deal_sync.comparison AS (
    kind text, state text, element_id text, graph_id text, key uuid, deal uuid, taken_by uuid, links uuid [],
    column_name text, graph_value text, table_value text
);
COMMENT ON TYPE _deal_sync.comparison IS 'a node of the graph beside its row';

CREATE TYPE _deal_sync.tenant_state AS ENUM ('up to date', 'late', 'failing', 'backing off', 'never synced', 'unknown');
COMMENT ON TYPE _deal_sync.tenant_state IS 'what tenant_status says of a tenant';
