\echo Use "CREATE EXTENSION deal_sync" to load this file. \quit
SET LOCAL search_path = pg_catalog, pg_temp;
-- In: CREATE EXTENSION. Out: the schema of the extension's objects and the result of a run.

CREATE SCHEMA deal_sync;
COMMENT ON SCHEMA deal_sync IS 'deal_sync: copies the Deals of a Neo4j graph into opportunities and deal_versions';

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

-- One source for the settings, their defaults and what they may be. They are read with the caller's value: none of them widens a right.
CREATE FUNCTION deal_sync.settings(OUT name text, OUT fallback text, OUT pattern text) RETURNS SETOF record
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        ('lock_timeout', '5s', '[0-9]+ *(us|ms|s|min|h|d)?'),     -- how long a run waits for a row that another transaction holds
        ('max_rejects', '1000', '[0-9]{1,9}'),                    -- failed writes after which a run gives up
        ('max_value_bytes', '128MB', '[0-9]{1,9} *(B|kB|MB)?'),   -- a longer text is refused
        ('overlap', '10min', '[0-9]{1,9} *(us|ms|s)|[0-9]{1,6} *(min|h)|[0-9]{1,5} *d'), -- how far before its own beginning the next incremental run looks
        ('max_loss', '20', '[0-9]{1,2}|100'),                     -- percent of a column's values that a run may replace by NULL
        ('batch_rows', '2000', '[1-9][0-9]{0,5}'),                -- what ends a batch ...
        ('batch_bytes', '32MB', '[1-9][0-9]{0,8} *(B|kB|MB)?'),   -- ... whichever comes first
        ('process_from', '5000', '[0-9]{1,9}'),                   -- so many nodes or more are read by a process of their own
        ('late_after', '15min', '[0-9]{1,6} *(s|min|h|d)'),       -- a tenant without a good run for longer is late
        ('runs_kept', '30d', '[0-9]{1,6} *(s|min|h|d)'),          -- how long runs and reconciliations are kept ...
        ('values_kept', '30d', '[0-9]{1,6} *(s|min|h|d)'),        -- ... and the offending values of refusals
        ('search_path', 'pg_catalog', '.*')                       -- the caller's, for the application's triggers: sync_deals sets it
$$;
COMMENT ON FUNCTION deal_sync.settings() IS
'the settings deal_sync.<name>, their defaults, and the pattern of what they may be';

CREATE FUNCTION deal_sync.setting(name text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    value text := nullif(current_setting('deal_sync.' || name, true), '');
    known record;
BEGIN
    SELECT k.fallback, k.pattern INTO STRICT known FROM deal_sync.settings() AS k WHERE k.name = setting.name;

    IF value !~ ('^(' || known.pattern || ')$') THEN
        RAISE EXCEPTION 'invalid value for parameter "deal_sync.%": "%"', name, value USING
            ERRCODE = 'invalid_parameter_value',
            HINT = format('The default is %s: RESET deal_sync.%s;', known.fallback, name);
    END IF;
    RETURN coalesce(value, known.fallback);
END
$$;
COMMENT ON FUNCTION deal_sync.setting(text) IS
'the value of deal_sync.<name> in this session, or its default';

CREATE FUNCTION deal_sync.size_setting(name text) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_size_bytes(regexp_replace(deal_sync.setting(name), '(\d) *B$', '\1')) -- which takes B from PostgreSQL 16 on
$$;
COMMENT ON FUNCTION deal_sync.size_setting(text) IS 'internal: the value of a setting that is a size, in bytes';

CREATE FUNCTION deal_sync.options_of(options text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}')
    FROM pg_options_to_table(options) AS o
$$;
COMMENT ON FUNCTION deal_sync.options_of(text[]) IS
'the options of a server, user mapping, foreign table or column as an object';
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
COMMENT ON COLUMN deal_sync.watermarks.mapping IS 'deal_sync.mapping_fingerprint() then, and the graph''s id: a change makes the next run full';
COMMENT ON COLUMN deal_sync.watermarks.full_at IS 'when the last full run of the tenant began';
COMMENT ON COLUMN deal_sync.watermarks.undated IS
'{"element id": digest} of the nodes that do not say when they changed, as the last incremental run landed them: it reads them again when they differ';

-- A key of its own: two first runs at once may remember the same graph, and neither waits for the other.
COMMENT ON COLUMN deal_sync.watermarks.facts IS
'what the run found: ahead (seconds of the graph''s clock before PostgreSQL''s), deals and versions (nodes, before it read), counted_at, count_ms, newest (moment of a deal, by a full run), rows_without_deal';

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
COMMENT ON COLUMN deal_sync.backfills.counts IS 'the deal_sync.run_result so far, and the facts of its beginning';

-- A dump keeps what happened.
SELECT pg_catalog.pg_extension_config_dump('deal_sync.runs', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.rejects', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.watermarks', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.graph', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.barred', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.backfills', '');

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
    );
    -- NOTIFY has no access control: no more than this.
    SELECT pg_notify('deal_sync', json_build_object('run_id', result.run_id, 'tenant', result.tenant_id, 'status', result.status)::text)
$$;
COMMENT ON FUNCTION deal_sync.record_run(deal_sync.run_result, timestamptz, text, text) IS
'internal: adds a run to deal_sync.runs, and tells the channel deal_sync';

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
COMMENT ON FUNCTION deal_sync.settle_rejects(uuid, uuid, text[]) IS
'internal: at a run''s end, of the nodes that it asked for (NULL: all) removes the refusals that it did not meet again; counts those that it met';

CREATE FUNCTION deal_sync.refused_elements(tenant_id uuid) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(DISTINCT r.element_id), '{}')
    FROM deal_sync.rejects AS r
    WHERE r.tenant_id = refused_elements.tenant_id AND r.level = 'row'
$$;
COMMENT ON FUNCTION deal_sync.refused_elements(uuid) IS 'internal: the nodes that every run tries again';

CREATE FUNCTION deal_sync.barred_of(tenant_id uuid) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(b.graph_id), '{}')
    FROM deal_sync.barred AS b
    WHERE b.tenant_id = barred_of.tenant_id
$$;
COMMENT ON FUNCTION deal_sync.barred_of(uuid) IS 'internal: the deals of a tenant that do not land';

-- The first run remembers its graph; two at once leave two rows, and so does one during which accept_graph() is called: the last counts.
CREATE FUNCTION deal_sync.check_graph(database_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text := (SELECT g.database_id FROM deal_sync.graph AS g ORDER BY g.accepted_at DESC LIMIT 1);
BEGIN
    IF known IS NULL THEN
        INSERT INTO deal_sync.graph (database_id) VALUES (check_graph.database_id);
    ELSIF known <> check_graph.database_id THEN
        RAISE EXCEPTION 'this is another graph than the one that the tables were filled from' USING
            ERRCODE = 'DS004',
            DETAIL = format('The database id was %s, and now is %s.', left(known, 12), left(check_graph.database_id, 12)),
            HINT = 'If it is meant, SELECT deal_sync.accept_graph(); else set the server''s address right.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_graph(text) IS 'internal: remembers the graph''s database id; raises where it is another one';

CREATE FUNCTION deal_sync.watermark_of(
    tenant_id uuid, OUT watermark timestamptz, OUT mapping text, OUT undated jsonb, OUT facts jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.watermark, w.mapping, w.undated, w.facts FROM deal_sync.watermarks AS w WHERE w.tenant_id = watermark_of.tenant_id
$$;
COMMENT ON FUNCTION deal_sync.watermark_of(uuid) IS
'internal: up to where a tenant''s graph has been read, with which mapping, and what was read of nodes that have no timestamp';

CREATE FUNCTION deal_sync.record_watermark(
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
COMMENT ON FUNCTION deal_sync.record_watermark(uuid, uuid, timestamptz, text, boolean, jsonb) IS
'internal: remembers up to where a tenant''s graph has been read';

-- Whatever reads a node forgets what was known of it: else a node that goes back to what it was would pass for known.
CREATE FUNCTION deal_sync.remember_undated(tenant_id uuid, elements text[], undated jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE deal_sync.watermarks AS w
    SET undated = CASE WHEN elements IS NULL THEN '{}' ELSE (w.undated - elements) || remember_undated.undated END
    WHERE
        w.tenant_id = remember_undated.tenant_id
        AND CASE WHEN elements IS NULL THEN w.undated <> '{}' ELSE w.undated ?| elements OR remember_undated.undated <> '{}' END
$$;
COMMENT ON FUNCTION deal_sync.remember_undated(uuid, text[], jsonb) IS
'internal: of the nodes that a run has read (NULL: all), how those look that have no timestamp';
-- In: the Python that this server runs. Out: the extension's Python functions, each one call into neo4j_deals.server.

-- PL/Python puts the name of its exception before an error's text, and the text of an error in a set-returning function into the DETAIL:
-- its own words there are in the server's language.
CREATE FUNCTION deal_sync.python_error(INOUT message text, INOUT detail text)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF detail ~ '^(plpy|spiexceptions)\.\w+: ' THEN
        message := detail;
        detail := NULL;
    END IF;
    message := regexp_replace(message, '^(plpy|spiexceptions)\.\w+: ', '');
    detail := nullif(detail, '');
END
$$;
COMMENT ON FUNCTION deal_sync.python_error(text, text) IS 'internal: message and DETAIL as they were meant';

-- Whose words an error holds, `origin` says, in its field DATATYPE: 'own' are the extension's and may be shown to everybody,
-- 'application' may hold people's data. Neither a code nor CONTEXT proves it: the application may raise the same code, and CONTEXT is in
-- the server's language.
-- Who calls it at the end of a wait for Neo4j catches query_canceled, too: a cancel is told in PostgreSQL's own words.
CREATE FUNCTION deal_sync.raise_again(sqlstate text, message text, detail text, hint text, origin text DEFAULT 'own') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    meant CONSTANT record := deal_sync.python_error(message, detail);
BEGIN
    hint := coalesce(
        nullif(hint, ''),
        CASE WHEN sqlstate = '42501' THEN 'What the role lacks: SELECT * FROM deal_sync.doctor() WHERE NOT ok;' END
    );
    -- An option of RAISE that is '' is printed as an empty line.
    IF meant.detail IS NULL AND hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = sqlstate, MESSAGE = meant.message, DATATYPE = origin;
    ELSIF meant.detail IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = sqlstate, MESSAGE = meant.message, HINT = hint, DATATYPE = origin;
    ELSIF hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = sqlstate, MESSAGE = meant.message, DETAIL = meant.detail, DATATYPE = origin;
    END IF;
    RAISE EXCEPTION USING ERRCODE = sqlstate, MESSAGE = meant.message, DETAIL = meant.detail, HINT = hint, DATATYPE = origin;
END
$$;
COMMENT ON FUNCTION deal_sync.raise_again(text, text, text, text, text) IS 'internal: raises an error as it was meant, and says whose words it holds';

CREATE FUNCTION deal_sync.load_package() RETURNS integer
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
import sys
try:
    from neo4j_deals import server
except ImportError as error:
    plpy.error(
        "the Python package neo4j_deals cannot be imported by this server",
        sqlstate="55000",
        detail=f"{error}; the server's Python is {sys.version.split()[0]} of {sys.prefix}.",
        hint="install the package deal-sync into it (README, \"Installing\"), then reconnect",
    )
version = plpy.execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'deal_sync'")
server.check_version(plpy, version[0]["extversion"])
return sys.version_info.major * 100 + sys.version_info.minor
$$;
COMMENT ON FUNCTION deal_sync.load_package() IS
'internal: the body of check_package()';

CREATE FUNCTION deal_sync.check_package() RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    code text;
    said text;
    detail text;
    hint text;
BEGIN
    RETURN deal_sync.load_package();
EXCEPTION
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        PERFORM deal_sync.raise_again(code, said, detail, hint);
END
$$;
COMMENT ON FUNCTION deal_sync.check_package() IS
'raises where the Python package is missing or does not fit the extension; else the Python version, 311 for 3.11';

CREATE FUNCTION deal_sync.default_columns(
    OUT table_name text, OUT label text, OUT kind text, OUT target text,
    OUT place integer, OUT name text, OUT type text, OUT options jsonb
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import catalog
return catalog.definitions()
$$;
COMMENT ON FUNCTION deal_sync.default_columns() IS
'the columns of the foreign tables as attach() creates them: the default mapping';

-- With the owner's rights: it uses the owner's user mapping and loads nameless spool files. The caller gets to read and to empty the
-- staging table, no more. `caller` is a role, `relation` a table that deal_sync.mapped() vouches for: no text becomes SQL or a path.
CREATE FUNCTION deal_sync.fill_staging(kind text, tenant_id uuid, caller regrole, selection jsonb) RETURNS SETOF bigint
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_encoding = 'UTF8' -- COPY takes the spool's texts to be in it
AS $$
from neo4j_deals import server
yield from server.fill_staging(plpy, kind, tenant_id, caller, selection)
$$;
COMMENT ON FUNCTION deal_sync.fill_staging(text, uuid, regrole, jsonb) IS
'internal: reads a tenant''s nodes, those of a selection (neo4j_deals.selection) or all, into pg_temp.deal_sync_<kind>s, one batch a row fetched; the caller empties it between two';

CREATE FUNCTION deal_sync.graph_state(
    tenant_id uuid DEFAULT NULL, counts boolean DEFAULT FALSE, with_newest boolean DEFAULT FALSE, late double precision DEFAULT NULL,
    OUT database_id text, OUT clock timestamptz, OUT ahead double precision, OUT unsure double precision,
    OUT deals bigint, OUT versions bigint, OUT count_ms bigint, OUT open text[], OUT newest timestamptz
)
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
return server.graph_state(plpy, tenant_id, counts, with_newest, late)
$$;
COMMENT ON FUNCTION deal_sync.graph_state(uuid, boolean, boolean, double precision) IS
'internal: the id of the graph''s database, its clock, and what there is to know of a tenant''s nodes and of transactions that are open (neo4j_deals.server)';

CREATE FUNCTION deal_sync.graph_keys(kind text, tenant_id uuid, OUT element_id text, OUT key uuid) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
return server.graph_keys(plpy, kind, tenant_id)
$$;
COMMENT ON FUNCTION deal_sync.graph_keys(text, uuid) IS 'internal: the nodes of a kind that a tenant has, each with its key, NULL where that is no UUID';

CREATE FUNCTION deal_sync.deal_keys(kind text, tenant_id uuid, after text, amount integer) RETURNS text[]
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
return server.deal_keys(plpy, kind, tenant_id, after, amount)
$$;
COMMENT ON FUNCTION deal_sync.deal_keys(text, uuid, text, integer) IS
'internal: the ids of deals that a tenant''s nodes of a kind name, in their order: so many after one';

CREATE FUNCTION deal_sync.check_source(kind text) RETURNS void
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
server.check_source(plpy, kind)
$$;
COMMENT ON FUNCTION deal_sync.check_source(text) IS
'internal: raises where the server, the user mapping or the type of a column is a mistake of set-up';

CREATE FUNCTION deal_sync.nobodys_nodes(kind text) RETURNS bigint
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
return server.nobodys_nodes(plpy, kind)
$$;
COMMENT ON FUNCTION deal_sync.nobodys_nodes(text) IS
'internal: how many nodes belong to no tenant, because tenant_id is absent, no text or spelled in another way';

CREATE FUNCTION deal_sync.check_readable(relation regclass, columns text[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    forbidden text;
BEGIN
    SELECT min(a.attname) INTO forbidden
    FROM pg_attribute AS a
    WHERE
        a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
        AND (columns IS NULL OR a.attname = ANY (columns)) AND NOT has_column_privilege(relation, a.attnum, 'SELECT');
    IF forbidden IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied for column "%" of foreign table %', forbidden, relation USING
            ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_readable(regclass, text[]) IS
'internal: raises where the caller may not SELECT the columns of a foreign table; columns NULL: all of them';

-- It checks the rights itself: whoever may call scan() may call it, too.
CREATE FUNCTION deal_sync.scan_rows(
    relation regclass, tenant uuid, columns text[], row_limit bigint
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import catalog, server
catalog.query(plpy, "SELECT deal_sync.check_readable($1::pg_catalog.regclass, $2)", ["text", "text[]"], [relation, columns])
yield from server.scan_rows(plpy, relation, tenant, columns, row_limit)
$$;
COMMENT ON FUNCTION deal_sync.scan_rows(regclass, uuid, text[], bigint) IS
'internal: the rows of a foreign table; call deal_sync.scan()';

-- With the caller's rights and the caller's own user mapping.
CREATE FUNCTION deal_sync.import_statements(
    server name, schema name, limit_to text[], "except" text[], sample bigint, prefix text,
    OUT table_name text, OUT label text, OUT statement text, OUT columns integer
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server as package
options = {"sample": None if sample is None else str(sample), "prefix": prefix}
given = {name: value for name, value in options.items() if value is not None}
yield from package.import_statements(plpy, server, schema, limit_to, args[3], given)
$$;
COMMENT ON FUNCTION deal_sync.import_statements(name, name, text[], text[], bigint, text) IS
'internal: the foreign tables that import_schema() creates, as statements';

CREATE FUNCTION deal_sync.to_type(value text, type_name text) RETURNS text
LANGUAGE plpython3u IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
return server.to_type(value, type_name)
$$;
COMMENT ON FUNCTION deal_sync.to_type(text, text) IS
'a text as the reader converts it to date, timestamp or timestamptz, in UTC; NULL where it does not fit';
-- In: options where they are set. Out: an error for one that is unknown, misplaced, malformed or not this role's to set.

CREATE FUNCTION deal_sync.validator(options text[], catalog oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    option record;
    context text := catalog::regclass::text;
    given jsonb;
    partner text;
BEGIN
    FOR option IN
        WITH known (place, name, pattern, superuser_only, meaning) AS (VALUES
            ('pg_foreign_server', 'uri', '(bolt|neo4j)(\+s|\+ssc)?://([^/@\s:\[\]]+|\[[0-9a-fA-F:.%]+\])(:[0-9]{1,5})?/?(\?\S*)?', false,
                'bolt://host:7687 or neo4j://host:7687, with +s or +ssc for TLS; a login belongs into the user mapping'),
            ('pg_foreign_server', 'database', '\S+', false, 'the name of a database'),
            ('pg_foreign_server', 'connect_timeout', '(?!0+(\.0+)?$)[0-9]{1,6}(\.[0-9]+)?', false, 'seconds, more than 0'),
            ('pg_foreign_server', 'query_timeout', '(?!0+(\.0+)?$)[0-9]{1,6}(\.[0-9]+)?', false, 'seconds, more than 0'),
            ('pg_foreign_server', 'fetch_size', '[1-9][0-9]{0,5}', false, 'a number of records, 1 to 999999'),
            ('pg_foreign_server', 'idle_timeout', '(?!0+(\.0+)?$)[0-9]{1,6}(\.[0-9]+)?', false, 'seconds, more than 0'),
            ('pg_foreign_server', 'keep_alive', 'true|false|on|off', false, 'true or false'),
            ('pg_foreign_server', 'max_rows', '[1-9][0-9]{0,17}', false, 'a number of rows, 1 or more'),
            ('pg_foreign_server', 'sslrootcert', '/.+', true, 'the absolute path of a file on the server'),
            ('pg_foreign_server', 'wrapper', 'neo4j_deals\.wrapper\.Neo4jForeignDataWrapper', true,
                'neo4j_deals.wrapper.Neo4jForeignDataWrapper: attach() sets it'),
            ('pg_user_mapping', 'user', '.+', false, 'a user of Neo4j'),
            ('pg_user_mapping', 'password', '.*', false, 'a password'),
            ('pg_user_mapping', 'password_file', '/.+', true, 'the absolute path of a file on the server'),
            ('pg_user_mapping', 'bearer_token', '\S+', false, 'a token of a single sign-on'),
            ('pg_foreign_table', 'label', '.+', false, 'a label of the graph'),
            ('pg_foreign_table', 'cypher', '.+', false, 'a query: MATCH ... RETURN ...'),
            ('pg_foreign_table', 'key', '.+', false, 'column names, separated by commas: nodes are looked up by them'),
            ('pg_foreign_table', 'kind', 'deal|version', false, 'deal or version'),
            ('pg_foreign_table', 'target', '.+', false, 'a table, qualified with its schema'),
            ('pg_foreign_table', 'links', '.+', false, 'a table, qualified with its schema'),
            ('pg_foreign_table', 'tenants', '.+', false, 'a table, qualified with its schema'),
            ('pg_foreign_table', 'stamps', '.+', false, 'a column of the target table'),
            ('pg_attribute', 'property', '.+', false, 'a property of the node'),
            ('pg_attribute', 'derive',
                'ontology_scores|ontology_completeness|meddic_completeness|workflow_metadata|element_id|labels|conversion_errors',
                false, 'ontology_scores, ontology_completeness, meddic_completeness, workflow_metadata, element_id, labels or conversion_errors'),
            ('pg_attribute', 'of', '.+', false, 'property names, separated by commas'),
            ('pg_attribute', 'target', '.+', false, 'a column of the table'),
            ('pg_attribute', 'write', 'never|insert|fill|always', false, 'never, insert, fill or always'),
            ('pg_attribute', 'on_misfit', 'null|keep|reject|error', false, 'null, keep, reject or error'),
            ('pg_attribute', 'empty', 'null', false, 'null: an empty text becomes NULL'),
            ('pg_attribute', 'default', '.*', false, 'a value'),
            ('pg_attribute', 'fallback', '.+', false, 'a column of the same foreign table'),
            ('pg_attribute', 'link', 'true', false, 'true: the value is linked in interaction_links')
        )
        SELECT o.option_name AS name, o.option_value AS value, k.pattern, k.superuser_only, k.meaning,
            (SELECT string_agg(v.name, ', ') FROM known AS v WHERE v.place = context) AS valid
        FROM pg_options_to_table(options) AS o
        LEFT JOIN known AS k ON k.place = context AND k.name = o.option_name
    LOOP
        IF option.pattern IS NULL THEN
            RAISE EXCEPTION 'invalid option "%"', option.name USING
                ERRCODE = 'fdw_invalid_option_name',
                HINT = CASE
                    WHEN option.name IN ('user', 'password', 'password_file', 'bearer_token') AND context <> 'pg_user_mapping'
                        THEN 'A login belongs into the user mapping: other roles can read the options of a server or table.'
                    ELSE 'Valid options in this context are: ' || coalesce(option.valid, '<none>')
                END;
        END IF;
        IF option.value !~ ('^(' || option.pattern || ')$') THEN
            RAISE EXCEPTION 'invalid value for option "%"', option.name USING
                ERRCODE = 'fdw_invalid_string_format',
                HINT = format('It takes %s.', option.meaning);
        END IF;
        IF option.superuser_only AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
            RAISE EXCEPTION 'permission denied to set option "%"', option.name USING
                ERRCODE = 'insufficient_privilege',
                HINT = 'Only superusers can set it: it names a file or code of the server.';
        END IF;
    END LOOP;

    -- What does not go together. PostgreSQL gives all options, those that stay as they are, too.
    given := (SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}') FROM pg_options_to_table(options) AS o);
    partner := (SELECT min(n.name) FROM unnest(ARRAY['user', 'password', 'password_file']) AS n (name) WHERE given ? n.name);
    IF given ? 'bearer_token' AND partner IS NOT NULL THEN
        RAISE EXCEPTION 'option "bearer_token" does not go with option "%"', partner USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'A user mapping holds either user and password, or a token.';
    END IF;
    IF given ?| ARRAY['password', 'password_file'] AND NOT given ? 'user' THEN
        RAISE EXCEPTION 'option "%" needs option "user"', partner USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'Give the user of Neo4j in the same statement.';
    END IF;
    IF given ? 'sslrootcert' AND given ->> 'uri' !~ '^\w+\+s://' THEN
        RAISE EXCEPTION 'option "sslrootcert" needs an uri that begins with bolt+s:// or neo4j+s://' USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'With other schemes no certificate is checked.';
    END IF;
    -- What reads in Neo4j is more than the graph: LOAD CSV opens files and addresses on its host, procedures do what they do.
    IF context = 'pg_foreign_table' AND given ? 'cypher' AND NOT EXISTS (
        SELECT FROM pg_roles AS r CROSS JOIN pg_extension AS e
        WHERE r.rolname = current_user AND e.extname = 'deal_sync' AND (r.rolsuper OR r.oid = e.extowner)
    ) THEN
        RAISE EXCEPTION 'permission denied to set option "cypher"' USING
            ERRCODE = 'insufficient_privilege',
            DETAIL = 'A query can have files and addresses read on the host of Neo4j.',
            HINT = 'Have a superuser or the owner of the extension create it and GRANT SELECT, or use the option label.';
    END IF;
    IF context = 'pg_foreign_table' AND given ? 'cypher' AND given ?| ARRAY['label', 'kind'] THEN
        RAISE EXCEPTION 'option "cypher" does not go with options "label" and "kind"' USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'A foreign table has either a label or a query, and the sync reads labels only.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.validator(text[], oid) IS
'the validator of the foreign-data wrapper neo4j: option names, values, places, and those that only superusers set';
-- In: the validator. Out: the foreign-data wrapper. In a file of its own: sqlfluff cannot parse the statement.
-- Without a handler: deal_sync.attach() gives it Multicorn's where that is safe, and scan() serves its tables everywhere.

CREATE FOREIGN DATA WRAPPER neo4j NO HANDLER VALIDATOR deal_sync.validator;
COMMENT ON FOREIGN DATA WRAPPER neo4j IS 'nodes of a Neo4j graph as foreign tables (deal_sync)';
-- In: the connections to Neo4j that this session keeps. Out: a view of them, and their end.

CREATE FUNCTION deal_sync.kept_connections(
    OUT server name, OUT login name, OUT uri text, OUT state text, OUT idle_seconds double precision, OUT valid boolean
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import kept
return kept.rows(plpy)
$$;
COMMENT ON FUNCTION deal_sync.kept_connections() IS 'internal: the rows of deal_sync.connections';

CREATE VIEW deal_sync.connections AS
SELECT
    c.server,
    c.login,
    c.uri,
    c.state,
    c.idle_seconds,
    c.valid
FROM deal_sync.kept_connections() AS c;
COMMENT ON VIEW deal_sync.connections IS 'the connections to Neo4j that this session keeps';
COMMENT ON COLUMN deal_sync.connections.server IS 'NULL: no server has these options any more';
COMMENT ON COLUMN deal_sync.connections.login IS 'the role whose user mapping it uses';
COMMENT ON COLUMN deal_sync.connections.state IS 'in use: a scan or a cursor reads by it; or idle';
COMMENT ON COLUMN deal_sync.connections.valid IS
'false: options have changed, and the next statement makes a new one; NULL: the user mapping is not yours to read';

CREATE FUNCTION deal_sync.close_connections(server name, OUT closed bigint, OUT busy bigint)
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import kept
return kept.close(plpy, server)
$$;
COMMENT ON FUNCTION deal_sync.close_connections(name) IS 'internal: the body of disconnect()';

CREATE FUNCTION deal_sync.disconnect(server name) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_foreign_server AS s WHERE s.srvname = server) THEN
        RAISE EXCEPTION 'server "%" does not exist', server USING
            ERRCODE = 'undefined_object',
            HINT = 'The servers are in pg_foreign_server, those of this session''s connections in deal_sync.connections.';
    END IF;
    result := deal_sync.close_connections(server);
    IF result.busy > 0 THEN
        RAISE WARNING 'connections to server "%" that are in use stay open', server USING
            HINT = 'A cursor of this session reads by them: CLOSE it.';
    END IF;
    RETURN result.closed > 0;
END
$$;
COMMENT ON FUNCTION deal_sync.disconnect(name) IS
'closes this session''s connections to a server, but for those in use; true where there was one';
-- In: the catalog. Out: the mapping: which foreign tables, which columns, which targets, and what a target's type is.

-- The foreign table of a kind. Only one that a superuser or the extension's owner made on a server of theirs counts: the reader lends
-- it the owner's login.
CREATE FUNCTION deal_sync.mapped(kind text) RETURNS regclass
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found regclass[];
    untrusted regclass;
BEGIN
    SELECT
        array_agg(t.relation ORDER BY t.relation) FILTER (WHERE t.trusted),
        min(t.relation::oid) FILTER (WHERE NOT t.trusted)
    INTO found, untrusted
    FROM (
        SELECT
            ft.ftrelid::regclass AS relation,
            (
                SELECT bool_and(r.rolsuper OR r.oid = e.extowner)
                FROM pg_roles AS r, pg_extension AS e
                WHERE r.oid IN (c.relowner, s.srvowner) AND e.extname = 'deal_sync'
            ) AS trusted
        FROM pg_foreign_table AS ft
        INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
        INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
        INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
        WHERE w.fdwname = 'neo4j' AND deal_sync.options_of(ft.ftoptions) ->> 'kind' = mapped.kind
    ) AS t;

    IF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'several foreign tables map the %s of the graph: %', kind, array_to_string(found, ', ') USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'One mapping a database: drop the others, or ALTER FOREIGN TABLE ... OPTIONS (DROP kind).';
    ELSIF found IS NULL THEN
        RAISE EXCEPTION 'no foreign table maps the %s of the graph', kind USING
            ERRCODE = 'undefined_object',
            DETAIL = CASE WHEN untrusted IS NULL THEN format('None has the option kind %L.', kind) ELSE format(
                'Foreign table %s does not count: it and its server must belong to a superuser or to the owner of the extension.', untrusted
            ) END,
            HINT = 'CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri ''bolt://host:7687''); SELECT deal_sync.attach();';
    END IF;
    RETURN found[1];
END
$$;
COMMENT ON FUNCTION deal_sync.mapped(text) IS
'the foreign table that maps the deals (kind deal) or the versions (kind version) of the graph';

CREATE FUNCTION deal_sync.table_option(kind text, option text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT deal_sync.options_of(ft.ftoptions) ->> option
    FROM pg_foreign_table AS ft
    WHERE ft.ftrelid = deal_sync.mapped(kind)
$$;
COMMENT ON FUNCTION deal_sync.table_option(text, text) IS
'an option of the foreign table of a kind';

CREATE FUNCTION deal_sync.stamp_column() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(deal_sync.table_option('deal', 'stamps'), 'updated_at')
$$;
COMMENT ON FUNCTION deal_sync.stamp_column() IS
'internal: the column of opportunities that gets the time of each change, if it is there';

-- The application's table behind an option (target, links, tenants); a mistake of set-up where it does not exist.
CREATE FUNCTION deal_sync.application_table(kind text, option text) RETURNS regclass
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := deal_sync.table_option(kind, option);
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION 'foreign table % has no option "%"', deal_sync.mapped(kind), option USING
            ERRCODE = 'fdw_option_name_not_found',
            HINT = format('ALTER FOREIGN TABLE %s OPTIONS (ADD %s ''schema.table'');', deal_sync.mapped(kind), option);
    ELSIF to_regclass(name) IS NULL THEN
        RAISE EXCEPTION 'table "%" does not exist', name USING
            ERRCODE = 'undefined_table',
            DETAIL = format('Option "%s" of foreign table %s names it.', option, deal_sync.mapped(kind)),
            -- The migration makes deal_versions; the other tables are the application's own.
            HINT = CASE WHEN kind = 'version' THEN 'Run the migration (sql/migration)' ELSE 'Make it' END
                || ', or ALTER the option if the table stands in another schema.';
    END IF;
    RETURN to_regclass(name);
END
$$;
COMMENT ON FUNCTION deal_sync.application_table(text, text) IS
'the table of the application that the mapping of a kind names in an option';

CREATE FUNCTION deal_sync.target_tables() RETURNS SETOF regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT deal_sync.application_table(t.kind, t.option)
    FROM (VALUES ('deal', 'target'), ('version', 'target'), ('deal', 'links')) AS t (kind, option)
$$;
COMMENT ON FUNCTION deal_sync.target_tables() IS 'internal: the tables of the application that the sync writes';

-- What a column is staged as: a domain's base type, down to the last; char(n) as varchar(n).
CREATE FUNCTION deal_sync.base_type(INOUT type oid, INOUT modifier integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base record;
BEGIN
    LOOP
        SELECT t.typbasetype, t.typtypmod INTO base
        FROM pg_type AS t
        WHERE t.oid = base_type.type AND t.typtype = 'd';
        EXIT WHEN NOT found;
        type := base.typbasetype;
        modifier := base.typtypmod;
    END LOOP;
    IF type = 'bpchar'::regtype THEN
        type := 'varchar'::regtype;  -- the same modifier; only varchar keeps blanks apart from what is too long
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.base_type(oid, integer) IS
'the type and modifier as which a column is staged: under a domain, its base type';

CREATE FUNCTION deal_sync.vector_type() RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.oid
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_type AS t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typname = 'vector'
    WHERE e.extname = 'vector' AND d.deptype = 'e'
$$;
COMMENT ON FUNCTION deal_sync.vector_type() IS 'pgvector''s type vector, in whichever schema it sits';

-- `options` as jsonb; `not_null`, `target_default` and the rest of the target's facts from the application's table; `required`: an insert
-- has nothing to put there but the property; `staged_*`: the base type in which the sync stages the column, NULL where it does not (for a
-- type without a binary form of ours, the text that its input reads); `due_*`: the base type of what is to be filled.
CREATE TYPE deal_sync.mapping_column AS (
    place smallint, name text, type oid, type_name text, type_modifier integer, options jsonb,
    target text, write text, target_type oid, target_modifier integer, target_is_there boolean,
    not_null boolean, target_default text, required boolean,
    staged_as text, staged_type oid, staged_name text, staged_modifier integer,
    due_as text, due_name text, due_modifier integer
);
COMMENT ON TYPE deal_sync.mapping_column IS 'a column of a foreign table of the mapping, and the column that it fills';

CREATE FUNCTION deal_sync.mapping_columns(relation regclass) RETURNS SETOF deal_sync.mapping_column
LANGUAGE plpgsql STABLE -- it keeps its plan: a run asks some ten times
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH foreign_columns AS (
        SELECT
            a.attnum, a.attname, a.atttypid, a.atttypmod, f.typname, o.options,
            o.options ->> 'target' AS target,
            coalesce(o.options ->> 'write', 'always') AS write,
            ft.target_table
        FROM (
            SELECT to_regclass(deal_sync.options_of(t.ftoptions) ->> 'target') AS target_table
            FROM pg_foreign_table AS t
            WHERE t.ftrelid = relation
            OFFSET 0 -- once, not for each column
        ) AS ft
        INNER JOIN pg_attribute AS a ON a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
        INNER JOIN pg_type AS f ON f.oid = a.atttypid
        CROSS JOIN LATERAL deal_sync.options_of(a.attfdwoptions) AS o (options)
    ),

    -- What is staged: whatever is written, and what is linked; the tenant is the run's own.
    with_targets AS (
        SELECT
            f.*, t.attname IS NOT NULL AS target_is_there, t.atttypid AS target_type, t.atttypmod AS target_modifier,
            t.attnotnull AS not_null, pg_get_expr(d.adbin, d.adrelid) AS target_default,
            CASE WHEN f.target <> 'tenant_id' AND f.write <> 'never' THEN t.atttypid
                WHEN f.options ? 'link' THEN 'uuid'::regtype END AS due_type,
            CASE WHEN f.target <> 'tenant_id' AND f.write <> 'never' THEN t.atttypmod ELSE -1 END AS due_modifier
        FROM foreign_columns AS f
        LEFT JOIN pg_attribute AS t
            ON t.attrelid = f.target_table AND t.attname = f.target AND t.attnum > 0 AND NOT t.attisdropped
        LEFT JOIN pg_attrdef AS d ON d.adrelid = t.attrelid AND d.adnum = t.attnum AND t.attgenerated = ''
    )

    SELECT
        w.attnum, w.attname::text, w.atttypid, w.typname::text, w.atttypmod, w.options,
        w.target, w.write, w.target_type, w.target_modifier, w.target_is_there,
        coalesce(w.not_null, false), w.target_default,
        coalesce(w.not_null, false) AND w.target_default IS NULL AND NOT w.options ?| ARRAY['default', 'fallback'],
        CASE WHEN w.due_type IS NULL THEN NULL WHEN own.stages THEN format_type(base.type, base.modifier) ELSE 'text' END,
        CASE WHEN own.stages THEN base.type WHEN w.due_type IS NOT NULL THEN 'text'::regtype::oid END,
        CASE WHEN own.stages THEN own.typname::text WHEN w.due_type IS NOT NULL THEN 'text' END,
        CASE WHEN own.stages THEN base.modifier ELSE -1 END,
        format_type(base.type, base.modifier), due.typname::text, base.modifier
    FROM with_targets AS w
    LEFT JOIN LATERAL deal_sync.base_type(w.due_type, w.due_modifier) AS base ON true
    LEFT JOIN pg_type AS due ON due.oid = base.type
    LEFT JOIN LATERAL (
        SELECT b.typname, true AS stages
        FROM pg_type AS b
        WHERE
            b.oid = base.type
            AND (
                b.oid = ANY (
                    '{int2,int4,int8,float4,float8,numeric,text,varchar,bool,uuid,date,timestamp,timestamptz,json,jsonb}'::regtype[]
                )
                OR b.oid = deal_sync.vector_type()
            )
    ) AS own ON true;
END
$$;
COMMENT ON FUNCTION deal_sync.mapping_columns(regclass) IS
'the columns of a foreign table of the mapping: options, target, and the base type in which the sync stages it (NULL: not staged)';

CREATE FUNCTION deal_sync.attach(server name DEFAULT 'neo4j', schema name DEFAULT 'neo4j', application name DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    python integer := deal_sync.check_package();
    vector text := deal_sync.vector_type()::regtype::text;
    home name := application;
    homes name[];
    definition record;
    relation regclass;
    said text := '';
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_foreign_server AS s
        INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
        WHERE s.srvname = server AND w.fdwname = 'neo4j'
    ) THEN
        RAISE EXCEPTION 'server "%" of the foreign-data wrapper neo4j does not exist', server USING
            ERRCODE = 'undefined_object',
            HINT = format('CREATE SERVER %I FOREIGN DATA WRAPPER neo4j OPTIONS (uri ''bolt://host:7687'');', server);
    END IF;

    -- Where the application's tables stand: in the one schema with a table "opportunities", unless the caller says.
    IF home IS NULL THEN
        SELECT array_agg(n.nspname ORDER BY n.nspname) INTO homes
        FROM pg_class AS c
        INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relname = 'opportunities' AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_';
        IF cardinality(homes) > 1 THEN
            RAISE EXCEPTION 'several schemas have a table "opportunities": %', array_to_string(homes, ', ') USING
                ERRCODE = 'ambiguous_parameter',
                HINT = format('SELECT deal_sync.attach(%L, %L, application => %L);', server, schema, homes[1]);
        END IF;
        home := coalesce(homes[1], 'public');
    END IF;

    IF to_regnamespace(quote_ident(schema)) IS NULL THEN
        EXECUTE format('CREATE SCHEMA %I', schema);
    END IF;

    FOR definition IN
        SELECT
            d.table_name, d.label, d.kind, d.target,
            array_agg(
                format(
                    '%I %s%s', d.name, regexp_replace(d.type, '^vector', vector),
                    ' OPTIONS (' || (
                        SELECT string_agg(format('%I %L', o.key, o.value), ', ')
                        FROM jsonb_each_text(d.options) AS o
                    ) || ')'
                ) ORDER BY d.place
            ) AS columns,
            array_agg(d.name ORDER BY d.place) AS names,
            array_agg(coalesce(d.options ->> 'property', d.name) ORDER BY d.place) AS properties,
            array_agg(d.options ->> 'derive' ORDER BY d.place) AS derivations
        FROM deal_sync.default_columns() AS d
        GROUP BY d.table_name, d.label, d.kind, d.target
        ORDER BY d.table_name DESC
    LOOP
        relation := to_regclass(format('%I.%I', schema, definition.table_name));
        IF relation IS NULL THEN
            EXECUTE format(
                E'CREATE FOREIGN TABLE %I.%I (\n    %s\n) SERVER %I OPTIONS (label %L, kind %L, target %L%s)',
                schema, definition.table_name, array_to_string(definition.columns, E',\n    '), server,
                definition.label, definition.kind, format('%I.%I', home, definition.target),
                CASE WHEN definition.kind = 'deal' THEN
                    format(', links %L, tenants %L', format('%I.interaction_links', home), format('%I.tenants', home))
                END
            );
            EXECUTE format(
                'COMMENT ON FOREIGN TABLE %I.%I IS %L', schema, definition.table_name,
                format('the nodes :%s of the graph, and where the sync writes them', definition.label)
            );
            said := said || format('created %I.%I; ', schema, definition.table_name);
        ELSE
            FOR nth IN 1 .. cardinality(definition.names) LOOP
                IF NOT EXISTS ( -- also under another name: a person may rename a column
                    SELECT FROM deal_sync.mapping_columns(relation) AS m
                    WHERE
                        m.name = definition.names[nth]
                        OR m.options ->> 'derive' = definition.derivations[nth]
                        OR (
                            NOT m.options ? 'derive' AND definition.derivations[nth] IS NULL
                            AND coalesce(m.options ->> 'property', m.name) = definition.properties[nth]
                        )
                ) THEN
                    EXECUTE format('ALTER FOREIGN TABLE %s ADD COLUMN %s', relation, definition.columns[nth]);
                    said := said || format('added %s.%I; ', relation, definition.names[nth]);
                END IF;
            END LOOP;
        END IF;
    END LOOP;

    RETURN said || deal_sync.set_handler(server, python);
END
$$;
COMMENT ON FUNCTION deal_sync.attach(name, name, name) IS
'creates the foreign tables of the mapping, or adds what they lack, and gives the wrapper Multicorn''s handler where that is safe; application: the schema of opportunities';

-- Multicorn's handler only, never its validator: with that one a user mapping could name any Python class to load.
CREATE FUNCTION deal_sync.set_handler(server name, python integer) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = error
AS $$
DECLARE
    handler regproc;
BEGIN
    IF python >= 312 THEN
        RETURN format(
            'Multicorn2 is not used: with Python %s.%s it crashes the server beside PL/Python (it is safe before 3.12); read the tables with deal_sync.scan()',
            python / 100, python % 100
        );
    END IF;
    IF NOT EXISTS (SELECT FROM pg_available_extensions AS e WHERE e.name = 'multicorn') THEN
        RETURN 'Multicorn2 is not installed: read the tables with deal_sync.scan()';
    END IF;
    EXECUTE format(
        'CREATE EXTENSION IF NOT EXISTS multicorn SCHEMA %s',
        (SELECT e.extnamespace::regnamespace FROM pg_extension AS e WHERE e.extname = 'deal_sync')
    );
    SELECT p.oid INTO handler
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE e.extname = 'multicorn' AND p.proname = 'multicorn_handler';

    EXECUTE format('ALTER FOREIGN DATA WRAPPER neo4j HANDLER %s', handler);
    EXECUTE format(
        'ALTER SERVER %I OPTIONS (%s wrapper %L)',
        server,
        (
            SELECT CASE WHEN deal_sync.options_of(s.srvoptions) ? 'wrapper' THEN 'SET' ELSE 'ADD' END
            FROM pg_foreign_server AS s
            WHERE s.srvname = server
        ),
        'neo4j_deals.wrapper.Neo4jForeignDataWrapper'
    );
    RETURN 'Multicorn2 answers a SELECT on the tables';
END
$$;
COMMENT ON FUNCTION deal_sync.set_handler(name, integer) IS
'internal: gives the wrapper Multicorn''s handler where Multicorn2 is installed and Python is older than 3.12';

CREATE FUNCTION deal_sync.detach() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = error
AS $$
BEGIN
    ALTER FOREIGN DATA WRAPPER neo4j NO HANDLER;
END
$$;
COMMENT ON FUNCTION deal_sync.detach() IS
'takes Multicorn''s handler from the wrapper (before pg_upgrade, a newer Python, or dropping multicorn); tables, servers and scan() stay';

CREATE FUNCTION deal_sync.options_clause(options text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(' OPTIONS (' || string_agg(format('%I %L', o.option_name, o.option_value), ', ' ORDER BY o.option_name) || ')', '')
    FROM pg_options_to_table(options) AS o
$$;
COMMENT ON FUNCTION deal_sync.options_clause(text[]) IS 'internal: options as SQL writes them';

CREATE FUNCTION deal_sync.mapping_ddl() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(
        format(
            E'CREATE FOREIGN TABLE %s (\n%s\n) SERVER %I%s;',
            ft.ftrelid::regclass, columns.list, s.srvname, deal_sync.options_clause(ft.ftoptions)
        ),
        E'\n\n' ORDER BY k.kind
    )
    FROM unnest(ARRAY['deal', 'version']) AS k (kind)
    INNER JOIN pg_foreign_table AS ft ON ft.ftrelid = deal_sync.mapped(k.kind)
    INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
    CROSS JOIN LATERAL (
        SELECT string_agg(
            format(
                '    %I %s%s',
                a.attname, format_type(a.atttypid, a.atttypmod), deal_sync.options_clause(a.attfdwoptions)
            ),
            E',\n' ORDER BY a.attnum
        ) AS list
        FROM pg_attribute AS a
        WHERE a.attrelid = ft.ftrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns
$$;
COMMENT ON FUNCTION deal_sync.mapping_ddl() IS 'the mapping as statements, to keep in version control';

CREATE FUNCTION deal_sync.import_schema(
    server name, schema name, limit_to text[] DEFAULT NULL, "except" text[] DEFAULT NULL,
    sample bigint DEFAULT NULL, prefix text DEFAULT NULL,
    OUT relation regclass, OUT label text, OUT columns integer
) RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    code text;
    said text;
    detail text;
    hint text;
BEGIN
    PERFORM deal_sync.check_package();
    IF limit_to IS NOT NULL AND "except" IS NOT NULL THEN
        RAISE EXCEPTION 'limit_to and except exclude each other' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'limit_to names the tables to make, except those not to make.';
    ELSIF to_regnamespace(quote_ident(schema)) IS NULL THEN
        RAISE EXCEPTION 'schema "%" does not exist', schema USING
            ERRCODE = 'invalid_schema_name',
            HINT = format('CREATE SCHEMA %I;', schema);
    END IF;
    FOR this IN SELECT s.* FROM deal_sync.import_statements(server, schema, limit_to, "except", sample, prefix) AS s LOOP
        EXECUTE this.statement;
        relation := format('%I.%I', schema, this.table_name)::regclass;
        label := this.label;
        columns := this.columns;
        RETURN NEXT;
    END LOOP;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        PERFORM deal_sync.raise_again(code, said, detail, hint);
END
$$;
COMMENT ON FUNCTION deal_sync.import_schema(name, name, text[], text[], bigint, text) IS
'makes a foreign table for each label of the graph, as IMPORT FOREIGN SCHEMA does with Multicorn2; limit_to and except name tables, sample is the nodes of a label that are looked at (10000; 0: all), prefix stands before each name';

-- PL/Python returns records, not anyelement; a PL/pgSQL function over it can (field notes).
CREATE FUNCTION deal_sync.scan(
    "table" anyelement, tenant uuid DEFAULT NULL, columns text[] DEFAULT NULL, row_limit bigint DEFAULT NULL
) RETURNS SETOF anyelement
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation regclass := (SELECT t.typrelid FROM pg_type AS t WHERE t.oid = pg_typeof("table"));
    unknown text;
    code text;
    said text;
    detail text;
    hint text;
BEGIN
    PERFORM deal_sync.check_package();
    IF NOT EXISTS (SELECT FROM pg_foreign_table AS ft WHERE ft.ftrelid = relation) THEN
        RAISE EXCEPTION 'scan() takes a foreign table, not %', pg_typeof("table") USING
            ERRCODE = 'wrong_object_type',
            HINT = 'SELECT * FROM deal_sync.scan(NULL::neo4j.deals);';
    END IF;
    SELECT min(c.name) INTO unknown
    FROM unnest(columns) AS c (name)
    WHERE NOT EXISTS (SELECT FROM deal_sync.mapping_columns(relation) AS m WHERE m.name = c.name);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" of foreign table % does not exist', unknown, relation USING
            ERRCODE = 'undefined_column',
            HINT = (
                SELECT 'It has the columns ' || string_agg(m.name, ', ' ORDER BY m.place)
                FROM deal_sync.mapping_columns(relation) AS m
            );
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT * FROM deal_sync.scan_rows($1, $2, $3, $4) AS t (%s)',
        (
            SELECT string_agg(format('%I %s', m.name, format_type(m.type, m.type_modifier)), ', ' ORDER BY m.place)
            FROM deal_sync.mapping_columns(relation) AS m
        )
    ) USING relation, tenant, columns, row_limit;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        PERFORM deal_sync.raise_again(code, said, detail, hint);
END
$$;
COMMENT ON FUNCTION deal_sync.scan(anyelement, uuid, text[], bigint) IS
'the rows of a foreign table, with or without Multicorn2: SELECT * FROM deal_sync.scan(NULL::neo4j.deals, tenant => ..., columns => ..., row_limit => ...)';
-- In: a value of a foreign column. Out: the value in the type of its target, or NULL where it does not fit.
-- For the MERGE by hand; what the sync stages has been converted by the reader, by the same rules.

CREATE FUNCTION deal_sync.to_smallint(value bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -32768 AND 32767 THEN value::smallint END
$$;
COMMENT ON FUNCTION deal_sync.to_smallint(bigint) IS 'NULL where it does not fit';

CREATE FUNCTION deal_sync.to_integer(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -2147483648 AND 2147483647 THEN value::integer END
$$;
COMMENT ON FUNCTION deal_sync.to_integer(bigint) IS 'NULL where it does not fit';

CREATE FUNCTION deal_sync.to_double(value double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity') THEN value END
$$;
COMMENT ON FUNCTION deal_sync.to_double(double precision) IS 'NULL where it is not finite';

CREATE FUNCTION deal_sync.to_bigint(value double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value = trunc(value) AND value >= -9223372036854775808 AND value < 9223372036854775808 THEN value::bigint END
$$;
COMMENT ON FUNCTION deal_sync.to_bigint(double precision) IS 'NULL where it has a fraction or does not fit';

CREATE FUNCTION deal_sync.to_text(value double precision) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
    SELECT CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity') THEN value::text END
$$;
COMMENT ON FUNCTION deal_sync.to_text(double precision) IS 'the shortest decimal form; NULL where it is not finite';

CREATE FUNCTION deal_sync.to_text(value timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_char(value AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || CASE WHEN extract(MICROSECONDS FROM value)::bigint % 1000000 <> 0 THEN to_char(value AT TIME ZONE 'UTC', '.US') ELSE '' END
        || '+00:00'
$$;
COMMENT ON FUNCTION deal_sync.to_text(timestamptz) IS 'ISO 8601, in UTC';

-- precision NULL: numeric without limits.
CREATE FUNCTION deal_sync.to_numeric(value numeric, "precision" integer, scale integer) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN "precision" IS NULL THEN value
        WHEN abs(round(value, scale)) < 10::numeric ^ ("precision" - scale) THEN round(value, scale)
    END
$$;
COMMENT ON FUNCTION deal_sync.to_numeric(numeric, integer, integer) IS 'rounded to the scale; NULL where it is out of range';

-- By the shortest decimal form: 0.145 becomes 0.15.
CREATE FUNCTION deal_sync.to_numeric(value double precision, "precision" integer, scale integer) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT deal_sync.to_numeric(deal_sync.to_text(value)::numeric, "precision", scale)
$$;
COMMENT ON FUNCTION deal_sync.to_numeric(double precision, integer, integer) IS
'by the shortest decimal form, rounded to the scale; NULL where it is not finite or out of range';

CREATE FUNCTION deal_sync.to_varchar(value text, length integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN char_length(value) <= length THEN value END
$$;
COMMENT ON FUNCTION deal_sync.to_varchar(text, integer) IS 'NULL where it is longer';

CREATE FUNCTION deal_sync.to_uuid(value text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value ~* '^(\{[0-9a-f]{4}(-?[0-9a-f]{4}){7}\}|[0-9a-f]{4}(-?[0-9a-f]{4}){7})$' THEN value::uuid
    END
$$;
COMMENT ON FUNCTION deal_sync.to_uuid(text) IS 'NULL where it is no UUID';

-- For a domain, an enum or any other type: the type's own input, with the caller's rights.
CREATE FUNCTION deal_sync.try_cast(value text, target anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result target%TYPE;
BEGIN
    result := value;
    RETURN result;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        IF NOT deal_sync.is_row_error(sqlstate) THEN
            RAISE;
        END IF;
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION deal_sync.try_cast(text, anyelement) IS
'the text as a value of the second argument''s type; NULL where it does not fit';

CREATE FUNCTION deal_sync.cast_error(value text, type regtype, modifier integer) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    code text;
    name text;
BEGIN
    EXECUTE format('SELECT $1::%s', format_type(type, modifier)) USING value;
    RETURN NULL;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
        IF NOT deal_sync.is_row_error(code) THEN
            RAISE;
        END IF;
        RETURN jsonb_build_object(
            'sqlstate', code,
            'message', format('type %s refuses it', format_type(type, NULL)) || CASE WHEN name <> '' THEN format(', constraint "%s"', name) ELSE '' END
        );
END
$$;
COMMENT ON FUNCTION deal_sync.cast_error(text, regtype, integer) IS 'why a text does not fit a type, as SQLSTATE and message';

-- The expression that takes a value from a source's type to its target's. `source` and `target` are types with modifiers.
CREATE FUNCTION deal_sync.cast_expression(
    value text, source_type oid, source_modifier integer, target_type oid, target_modifier integer
) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source CONSTANT text := source_type::regtype;
    target CONSTANT text := format_type(target_type, target_modifier);
    family CONSTANT text := target_type::regtype;
    as_text CONSTANT text := CASE
        WHEN source IN ('double precision', 'timestamp with time zone') THEN format('deal_sync.to_text(%s)', value)
        WHEN source IN ('text', 'character varying') THEN value
        ELSE value || '::text'
    END;
BEGIN
    IF source_type = target_type AND source_modifier = target_modifier THEN
        RETURN value;
    END IF;
    RETURN CASE
        WHEN source = 'bigint' AND family = 'smallint' THEN format('deal_sync.to_smallint(%s)', value)
        WHEN source = 'bigint' AND family = 'integer' THEN format('deal_sync.to_integer(%s)', value)
        WHEN source = 'double precision' AND family IN ('smallint', 'integer', 'bigint') THEN
            deal_sync.cast_expression(format('deal_sync.to_bigint(%s)', value), 'int8'::regtype, -1, target_type, target_modifier)
        WHEN source IN ('bigint', 'double precision') AND family = 'numeric' THEN
            format(
                'deal_sync.to_numeric(%s, %s, %s)::%s',
                CASE source WHEN 'bigint' THEN value || '::numeric' ELSE value END,
                CASE WHEN target_modifier < 0 THEN 'NULL' ELSE ((target_modifier - 4) >> 16 & 65535)::text END,
                CASE WHEN target_modifier < 0 THEN 'NULL' ELSE (((target_modifier - 4) & 2047 # 1024) - 1024)::text END,
                target
            )
        WHEN family IN ('character varying', 'character') AND target_modifier >= 0 THEN
            format('deal_sync.to_varchar(%s, %s)::%s', as_text, target_modifier - 4, target)
        WHEN family IN ('character varying', 'text') THEN CASE family WHEN 'text' THEN as_text ELSE format('%s::%s', as_text, target) END
        WHEN source = 'text' AND family = 'numeric' THEN
            deal_sync.cast_expression(
                format('deal_sync.to_type(%s, ''numeric'')::numeric', value), 'numeric'::regtype, -1, target_type, target_modifier
            )
        WHEN source = 'numeric' AND family = 'numeric' THEN
            format(
                'deal_sync.to_numeric(%s, %s, %s)::%s', value, (target_modifier - 4) >> 16 & 65535,
                ((target_modifier - 4) & 2047 # 1024) - 1024, target
            )
        WHEN source = 'text' AND family IN ('smallint', 'integer', 'bigint', 'real', 'double precision', 'boolean') THEN
            format('deal_sync.to_type(%s, %L)::%s', value, (SELECT t.typname FROM pg_type AS t WHERE t.oid = target_type), target)
        WHEN source = 'text' AND family IN ('time without time zone', 'time with time zone') THEN
            format('deal_sync.to_type(%s, %L)::%s', value, (SELECT t.typname FROM pg_type AS t WHERE t.oid = target_type), target)
        WHEN source = 'text' AND family = 'uuid' THEN format('deal_sync.to_uuid(%s)', value)
        WHEN source = 'text' AND family = 'date' THEN format('deal_sync.to_type(%s, ''date'')::date', value)
        WHEN source = 'text' AND family = 'timestamp without time zone' THEN format('deal_sync.to_type(%s, ''timestamp'')::%s', value, target)
        WHEN source = 'text' AND family = 'timestamp with time zone' THEN format('deal_sync.to_type(%s, ''timestamptz'')::%s', value, target)
        WHEN source = 'timestamp with time zone' AND family = 'timestamp without time zone' THEN
            format('(%s AT TIME ZONE ''UTC'')::%s', value, target)
        WHEN source = 'timestamp with time zone' AND family = 'date' THEN format('(%s AT TIME ZONE ''UTC'')::date', value)
        WHEN source = 'text[]' AND family = 'jsonb' THEN format('to_jsonb(%s)', value)
        WHEN source = 'text[]' AND family = 'json' THEN format('to_json(%s)', value)
        WHEN source = 'jsonb' AND family = 'json' THEN format('%s::json', value)
        WHEN source_type = target_type THEN format('%s::%s', value, target)
        ELSE format('deal_sync.try_cast(%s::text, NULL::%s)', value, target)
    END;
END
$$;
COMMENT ON FUNCTION deal_sync.cast_expression(text, oid, integer, oid, integer) IS
'internal: the SQL that takes a value from a foreign or staged column to its target''s type, NULL where it does not fit';
-- In: the mapping. Out: the statements that land a batch, as text: the same MERGE over the staging table and over the foreign table.

-- `selected`, `inserted`, `updated`: the expressions of a MERGE, the first over the source `s`, the others over what it selects; `lost`:
-- true where the graph has a value that the target cannot take; `exotic`: that shows only when the caller casts it.
CREATE TYPE deal_sync.merge_column AS (
    name text, target text, write text, on_misfit text, place integer, target_type oid, target_modifier integer,
    selected text, lost text, inserted text, updated text, exotic boolean, link boolean
);
COMMENT ON TYPE deal_sync.merge_column IS 'internal: a column of a MERGE, as expressions';

-- `completes`: a version that is there gets what it lacks, but for what says which version of which deal it is. Where it lacks its end,
-- or ends before it begins, the old service has put the moment of insertion into its other times: all become the node's.
CREATE FUNCTION deal_sync.merge_columns(kind text, staged boolean, completes boolean DEFAULT false) RETURNS SETOF deal_sync.merge_column
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mapping CONSTANT deal_sync.mapping_column[] := ARRAY(
        SELECT m FROM deal_sync.mapping_columns(deal_sync.mapped(kind)) AS m ORDER BY m.place
    );
    fallbacks CONSTANT jsonb := (
        SELECT jsonb_object_agg(m.name, m.options ->> 'fallback') FROM unnest(mapping) AS m WHERE m.options ? 'fallback'
    );
    span CONSTANT jsonb := (
        SELECT jsonb_object_agg(m.target, m.name)
        FROM unnest(mapping) AS m
        WHERE completes AND kind = 'version' AND m.write <> 'never' AND m.target IN ('valid_from', 'valid_until', 'created_at')
    );
    c deal_sync.mapping_column;
    result deal_sync.merge_column;
    source text;
    fallback text;
    after text;
BEGIN
    FOREACH c IN ARRAY mapping LOOP
        CONTINUE WHEN c.staged_as IS NULL;
        result.name := c.name;
        result.target := CASE WHEN c.write <> 'never' THEN c.target END;
        result.write := CASE
            WHEN kind = 'deal' THEN c.write
            WHEN completes AND c.target NOT IN ('id', 'opportunity_id') THEN 'fill'
            ELSE 'insert'
        END;
        result.on_misfit := coalesce(replace(c.options ->> 'on_misfit', 'error', 'reject'), 'null');  -- an error in a SELECT
        result.place := c.place;
        result.target_type := c.target_type;
        result.target_modifier := c.target_modifier;
        result.link := c.options ? 'link';
        source := 's.' || quote_ident(c.name);
        IF NOT staged AND c.options ? 'empty' AND c.type IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) THEN
            source := format('nullif(%s, '''')', source);
        END IF;
        result.selected := deal_sync.cast_expression(
            source,
            CASE WHEN staged THEN c.staged_type ELSE c.type END,
            CASE WHEN staged THEN c.staged_modifier ELSE c.type_modifier END,
            coalesce(CASE WHEN c.write <> 'never' THEN c.target_type END, c.staged_type),
            coalesce(CASE WHEN c.write <> 'never' THEN c.target_modifier END, c.staged_modifier)
        );
        result.exotic := staged AND result.selected <> source;
        result.lost := format(
            '%s IS NULL AND (%scoalesce(jsonb_exists(s.conversion_errors, %L::text), false))',
            result.selected, CASE WHEN result.selected <> source THEN format('%s IS NOT NULL OR ', source) ELSE '' END, c.name
        );

        -- What stands in for an absent value on insert: other columns, a constant, the column's own default.
        after := NULL;
        fallback := c.options ->> 'fallback';
        WHILE fallback IS NOT NULL AND position('s.' || quote_ident(fallback) IN coalesce(after, '')) = 0 LOOP
            after := concat_ws(', ', after, 's.' || quote_ident(fallback));
            fallback := fallbacks ->> fallback;
        END LOOP;
        after := concat_ws(
            ', ', after, quote_literal(c.options ->> 'default'),
            CASE WHEN NOT c.options ? 'default' AND c.not_null THEN c.target_default END
        );
        result.inserted := 's.' || quote_ident(c.name);
        IF after <> '' THEN
            result.inserted := format('CASE WHEN s.%I THEN NULL ELSE coalesce(%s, %s) END', c.name || ' lost', result.inserted, after);
        ELSIF result.on_misfit = 'null' AND NOT result.exotic THEN
            result.lost := NULL;
        END IF;
        result.updated := CASE
            WHEN result.target IS NULL OR result.write NOT IN ('always', 'fill') THEN NULL
            WHEN span ?& ARRAY['valid_from', 'valid_until'] AND span ? result.target THEN format(
                'CASE WHEN s.%1$I IS NOT NULL AND (t.valid_until IS NULL OR t.valid_until < t.valid_from) THEN coalesce(%2$s, t.%3$I)'
                ' ELSE coalesce(t.%3$I, s.%4$I) END',
                span ->> 'valid_until', result.inserted, result.target, c.name
            )
            WHEN result.write = 'fill' THEN format('coalesce(t.%I, s.%I)', result.target, c.name)
            WHEN result.on_misfit = 'keep' THEN format(
                'CASE WHEN s.%I THEN t.%I ELSE %s END', c.name || ' lost', result.target,
                CASE WHEN after <> '' THEN format('coalesce(s.%I, %s)', c.name, after) ELSE format('s.%I', c.name) END
            )
            ELSE result.inserted  -- with its stand-in: else the next run would take away what this one has put there
        END;
        RETURN NEXT result;
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.merge_columns(text, boolean, boolean) IS
'internal: of each column of a MERGE the expressions that select, insert and update it';

-- No value is compared by an operator of its type, which may find equal what is not the same.
CREATE FUNCTION deal_sync.differs(merged deal_sync.merge_column[], without text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(format(
        E'ROW(\n    %s\n)::record OPERATOR(pg_catalog.*<>) ROW(\n    %s\n)::record',
        string_agg(format('t.%I', c.target), E',\n    ' ORDER BY c.place),
        string_agg(c.updated, E',\n    ' ORDER BY c.place)
    ), 'false')
    FROM unnest(merged) AS c
    WHERE c.updated IS NOT NULL AND c.name <> ALL (without)
$$;
COMMENT ON FUNCTION deal_sync.differs(deal_sync.merge_column[], text[]) IS
'internal: true where an update by the source s would change the row t of a target, in another column than those of `without`';

-- `source` is the subselect that a MERGE uses; `matching` its ON; `differs` true where an update would change the row; `merge` the whole;
-- `key`, `owner` (the deal's key) and `number` are names of its columns, `merged` all of them.
CREATE FUNCTION deal_sync.merge_parts(
    kind text, tenant_id uuid, without text[] DEFAULT '{}', completes boolean DEFAULT false,
    OUT source text, OUT matching text, OUT differs text, OUT merge text,
    OUT key text, OUT owner text, OUT number text, OUT merged deal_sync.merge_column[]
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    staged CONSTANT boolean := tenant_id IS NOT NULL;
    -- Of a run, a constant: a trigger of the application may change the setting.
    this CONSTANT text := CASE WHEN staged THEN quote_literal(tenant_id) ELSE 'current_setting(''app.tenant_id'')' END || '::uuid';
    relation CONSTANT regclass := deal_sync.mapped(kind);
    target CONSTANT regclass := deal_sync.application_table(kind, 'target');
    deals CONSTANT regclass := deal_sync.application_table('deal', 'target');
    key_target CONSTANT text := CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'id' END;
    stamp CONSTANT text := deal_sync.stamp_column();
    stamps boolean;
    key_value text;
    tenant text;
    rows text;
    selected text;
    sets text;
    columns text;
    inserts text;
BEGIN
    merged := ARRAY(SELECT c FROM deal_sync.merge_columns(kind, staged, completes) AS c);
    differs := deal_sync.differs(merged, without);
    SELECT
        max(c.name) FILTER (WHERE c.target = key_target),
        max(c.name) FILTER (WHERE c.target = CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'opportunity_id' END),
        max(c.name) FILTER (WHERE c.target = 'version_number')
    INTO key, owner, number
    FROM unnest(merged) AS c;
    SELECT m.name INTO tenant FROM deal_sync.mapping_columns(relation) AS m WHERE m.target = 'tenant_id';
    stamps := kind = 'deal' AND EXISTS (
        SELECT FROM pg_attribute AS a WHERE a.attrelid = target AND a.attname = stamp AND NOT a.attisdropped
    ) AND NOT EXISTS (SELECT FROM unnest(merged) AS c WHERE c.target = stamp);

    IF staged THEN
        rows := format(
            'SELECT * FROM pg_temp.%I AS f WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))', 'deal_sync_' || kind || 's'
        );
    ELSE
        -- Of nodes with one key, one; of the spellings of the tenant, both (a join, since Multicorn cannot push a computed list).
        rows := format(
            $rows$SELECT DISTINCT ON (%s) f.*
        FROM (
            SELECT lower(current_setting('app.tenant_id')) UNION SELECT upper(current_setting('app.tenant_id'))
        ) AS spelling (id)
        INNER JOIN %s AS f ON f.%I = spelling.id
        WHERE
            %s
        ORDER BY %s$rows$,
            CASE kind WHEN 'deal' THEN format('deal_sync.to_uuid(f.%I)', key)
                ELSE format('deal_sync.to_uuid(f.%I), f.%I', owner, number) END,
            relation, tenant,
            concat_ws(
                E'\n            AND ', format('deal_sync.to_uuid(f.%I) IS NOT NULL', key),
                (
                    SELECT string_agg(format('NOT coalesce(jsonb_exists(f.conversion_errors, %L::text), false)', c.name), E'\n            AND ')
                    FROM unnest(merged) AS c
                    WHERE c.on_misfit = 'reject'
                )
            ),
            CASE kind WHEN 'deal' THEN format('deal_sync.to_uuid(f.%I), f.last_updated_at DESC NULLS LAST, f.element_id', key)
                ELSE format('deal_sync.to_uuid(f.%I), f.%I, f.created_at, f.%I', owner, number, key) END
        );
    END IF;

    SELECT
        string_agg(concat_ws(
            E',\n        ', format('%s AS %I', c.selected, c.name), CASE WHEN c.lost IS NOT NULL THEN format('%s AS %I', c.lost, c.name || ' lost') END
        ), E',\n        ' ORDER BY c.place),
        string_agg(format('%I = %s', c.target, c.updated), E',\n    ' ORDER BY c.place) FILTER (WHERE c.updated IS NOT NULL),
        string_agg(quote_ident(c.target), E',\n    ' ORDER BY c.place) FILTER (WHERE c.target NOT IN (key_target, 'opportunity_id')),
        string_agg(c.inserted, E',\n    ' ORDER BY c.place) FILTER (WHERE c.target NOT IN (key_target, 'opportunity_id'))
    INTO selected, sets, columns, inserts
    FROM unnest(merged) AS c;

    IF staged THEN
        selected := E's.row_number,\n        s.element_id,\n        s.graph_id,\n        s.refusal,\n        s.conversion_errors,\n        ' || selected;
    END IF;
    key_value := CASE WHEN staged THEN format('s.%I', key) ELSE format('deal_sync.to_uuid(s.%I)', key) END;
    matching := format('t.tenant_id = %s AND t.id = s.landed_id', this);

    IF kind = 'deal' THEN
        -- The deal's row: the one that holds its graph id, else the CRM row of the same id that has none yet (adoption).
        source := format(
            $source$SELECT
        coalesce(by_key.id, adopted.id) AS landed_id,
        by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
        %1$s
    FROM (
        %2$s
    ) AS s
    LEFT JOIN %3$s AS by_key
        ON by_key.tenant_id = %4$s AND by_key.graph_opportunity_id = %5$s
    LEFT JOIN %3$s AS adopted
        ON adopted.tenant_id = %4$s AND adopted.id = %5$s AND adopted.graph_opportunity_id IS NULL$source$,
            selected, rows, target, this, key_value
        );
        merge := format(
            $merge$MERGE INTO %1$s AS t
USING (
    %2$s%13$s
) AS s
ON %3$s
WHEN MATCHED AND %4$s THEN UPDATE SET
    %5$s%6$s
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    graph_opportunity_id,
    %7$s%8$s
) VALUES (
    s.%9$I,
    %10$s,
    s.%9$I,
    %11$s%12$s
)$merge$,
            target, source, matching, differs,
            sets, CASE WHEN stamps THEN format(E',\n    %I = now()', stamp) END,
            columns, CASE WHEN stamps THEN format(E',\n    %I', stamp) END,
            key, this, inserts, CASE WHEN stamps THEN E',\n    now()' END,
            CASE WHEN staged THEN E'\n    ORDER BY s.row_number' END
        );
    ELSE
        -- LATERAL with a LIMIT: else the planner, as long as the table has no statistics, looks through all versions of the tenant.
        source := format(
            $source$SELECT
        there.id AS landed_id,
        o.id AS "landed deal",
        taken.id AS "number taken by",
        %1$s
    FROM (
        %2$s
    ) AS s
    LEFT JOIN %3$s AS there
        ON there.tenant_id = %4$s AND there.id = %5$s
    LEFT JOIN %6$s AS o
        ON o.tenant_id = %4$s AND o.graph_opportunity_id = %7$s
    LEFT JOIN LATERAL (
        SELECT v.id
        FROM %3$s AS v
        WHERE v.tenant_id = %4$s AND v.opportunity_id = o.id AND v.version_number = s.%8$I
        LIMIT 1
    ) AS taken ON TRUE$source$,
            selected, rows, target, this, key_value,
            deals, CASE WHEN staged THEN format('s.%I', owner) ELSE format('deal_sync.to_uuid(s.%I)', owner) END, number
        );
        merge := format(
            $merge$MERGE INTO %1$s AS t
USING (
    SELECT *
    FROM (
    %2$s
    ) AS s
    WHERE %9$ss."landed deal" IS NOT NULL AND s.%3$I IS NOT NULL AND s."number taken by" IS NULL
) AS s
ON %4$s
%10$sWHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    opportunity_id,
    %5$s
) VALUES (
    s.%6$I,
    %7$s,
    s."landed deal",
    %8$s
)$merge$,
            target, source, number, matching, columns, key, this, inserts,
            CASE WHEN sets IS NOT NULL THEN 's.landed_id IS NOT NULL OR ' END,
            CASE WHEN sets IS NOT NULL THEN format(E'WHEN MATCHED AND %s THEN UPDATE SET\n    %s\n', differs, sets) END
        );
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.merge_parts(text, uuid, text[], boolean) IS
'internal: the MERGE of a kind and its parts, over the staging table of a tenant ($1: the rows, NULL for all) or, tenant_id being NULL, over the foreign table';

CREATE FUNCTION deal_sync.merge_statement(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind text := (
        SELECT deal_sync.options_of(ft.ftoptions) ->> 'kind'
        FROM pg_foreign_table AS ft
        WHERE ft.ftrelid = relation
    );
    narrow record;
BEGIN
    IF kind IS NULL OR deal_sync.mapped(kind) <> relation THEN
        RAISE EXCEPTION 'table % is not one of the mapping', relation USING
            ERRCODE = 'wrong_object_type',
            HINT = 'SELECT deal_sync.merge_statement(''neo4j.deals'');';
    END IF;
    PERFORM deal_sync.check_targets();
    -- The sync converts the graph's value, this statement what the foreign column shows of it: that must be all of it.
    SELECT
        m.name, format_type(m.type, m.type_modifier) AS type, m.due_as,
        CASE
            WHEN m.due_name IN ('int2', 'int4') THEN 'bigint'
            WHEN m.due_name IN ('float4', 'numeric') THEN 'double precision'
            WHEN m.due_name IN ('varchar', 'uuid') THEN 'text'
            WHEN m.due_name = 'timestamp' THEN 'timestamp with time zone'
            ELSE m.due_as
        END AS suitable
    INTO narrow
    FROM deal_sync.mapping_columns(relation) AS m
    WHERE
        m.staged_as IS NOT NULL AND NOT m.options ? 'derive'
        AND NOT (m.type_name = m.due_name AND m.type_modifier IN (-1, m.due_modifier))
        AND NOT (m.type_modifier = -1 AND CASE m.type_name
            WHEN 'text' THEN true
            WHEN 'int8' THEN m.due_name IN ('int2', 'int4')
            WHEN 'float8' THEN m.due_name IN ('int2', 'int4', 'float4', 'numeric')
            WHEN 'timestamptz' THEN m.due_name = 'timestamp'
            WHEN 'json' THEN m.due_name IN ('jsonb', 'text', 'varchar')
            WHEN 'jsonb' THEN m.due_name IN ('json', 'text', 'varchar')
            WHEN '_text' THEN m.due_name IN ('json', 'jsonb')
            ELSE false
        END)
    ORDER BY m.place
    LIMIT 1;
    IF narrow.name IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" of foreign table % shows less than what the sync lands', narrow.name, relation USING
            ERRCODE = 'datatype_mismatch',
            DETAIL = format('It is of type %s, its target of type %s, to which the sync converts the graph''s value itself.', narrow.type, narrow.due_as),
            HINT = format('ALTER FOREIGN TABLE %s ALTER COLUMN %I TYPE %s;', relation, narrow.name, narrow.suitable);
    END IF;
    RETURN (deal_sync.merge_parts(kind, NULL)).merge;
END
$$;
COMMENT ON FUNCTION deal_sync.merge_statement(regclass) IS
'the MERGE from the foreign table into the application''s table, for the tenant in app.tenant_id; with Multicorn2 it runs as it is';
-- In: a staged batch. Out: its rows in the application's tables, with the caller's rights, and what could not land.

-- A row that failed alone. row_number: in the staging table; relation (quoted) and column_name: those that the error names.
CREATE TYPE deal_sync.failure AS (
    row_number bigint, sqlstate text, message text, server_text text, relation text, column_name text
);
COMMENT ON TYPE deal_sync.failure IS 'internal: a row that the application''s table refused';

-- Whether an error is one row's: bad data, a constraint, a view's check, a trigger that raises (with a code of PL/pgSQL or one of its
-- own making, or in PL/Python; a CASE or a subquery in it that one row breaks), an index entry too long. Everything else ends the run.
CREATE FUNCTION deal_sync.is_row_error(sqlstate text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        left(sqlstate, 2) IN ('22', '23', '44', 'P0')
        OR sqlstate IN ('20000', '54000')
        OR left(sqlstate, 2) NOT IN (
            '00', '01', '02', '03', '08', '09', '0A', '0B', '0F', '0L', '0P', '0Z', '10', '20', '24', '25', '26', '27', '28',
            '2B', '2D', '2F', '34', '39', '3B', '3D', '3F', '40', '42', '53', '54', '55', '57', '58', '72', 'F0', 'HV', 'XX'
        )
$$;
COMMENT ON FUNCTION deal_sync.is_row_error(text) IS 'whether a SQLSTATE is about one row, and not about the run';

-- What of an error's CONTEXT lies above the extension's own functions and statements: the application's.
CREATE FUNCTION deal_sync.applications_context(context text, statements text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A statement's own text stands within a line that is in the server's language.
    SELECT nullif(rtrim(regexp_replace(left(context, min(e.place) - 1), '[^\n]*$', ''), E'\n'), '')
    FROM (
        SELECT position(s.statement IN context) FROM unnest(statements) AS s (statement)
        UNION ALL
        SELECT regexp_instr(context, '^[^"\n]*\mdeal_sync\.\w+\(', 1, 1, 0, 'n')
        UNION ALL
        SELECT length(context) + 1
    ) AS e (place)
    WHERE e.place > 0
$$;
COMMENT ON FUNCTION deal_sync.applications_context(text, text[]) IS
'internal: CONTEXT without the lines of the extension, whose statements were run';

-- By the names of functions, which are the same in every language.
CREATE FUNCTION deal_sync.place_of_error(context text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (
            SELECT string_agg(DISTINCT format('trigger "%s" of table %s', t.tgname, t.tgrelid::regclass), ' or ')
            FROM pg_trigger AS t
            INNER JOIN pg_proc AS p ON p.oid = t.tgfoid
            WHERE
                NOT t.tgisinternal
                AND t.tgrelid IN (SELECT x.relation FROM deal_sync.target_tables() AS x (relation))
                AND (position(quote_ident(p.proname) || '()' IN context) > 0 OR position('"' || p.proname || '"' IN context) > 0)
        ),
        (
            SELECT format('function %s', p.oid::regprocedure)
            FROM pg_proc AS p
            CROSS JOIN LATERAL (
                SELECT regexp_instr(context, '(\m|")' || regexp_replace(p.proname, '\W', '\\\&', 'g') || '("|\()') AS place
            ) AS f
            WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'deal_sync'::regnamespace) AND f.place > 0
            ORDER BY f.place, p.oid
            LIMIT 1
        )
    )
    WHERE context IS NOT NULL
$$;
COMMENT ON FUNCTION deal_sync.place_of_error(text) IS
'internal: the application''s trigger or function that the lines of applications_context() name';

-- For whoever has run the application's code: its triggers, defaults and policies. Whatever they have set in the error, its origin is
-- 'application' from here on; its field CONSTRAINT says where it was.
CREATE FUNCTION deal_sync.raise_applications(
    sqlstate text, message text, detail text, hint text, context text, statements text[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lines CONSTANT text := deal_sync.applications_context(context, statements);
    place CONSTANT text := deal_sync.place_of_error(lines);
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = sqlstate,
        MESSAGE = message,
        DETAIL = concat_ws(E'\n', nullif(detail, ''), 'In ' || place || ':', lines),
        HINT = coalesce(hint, ''),
        DATATYPE = 'application',
        CONSTRAINT = coalesce(place, '');
END
$$;
COMMENT ON FUNCTION deal_sync.raise_applications(text, text, text, text, text, text[]) IS
'internal: raises an error of the application''s code, with where it was in its DETAIL';

CREATE FUNCTION deal_sync.explain_error(
    sqlstate text, "table" text, "column" text, "constraint" text, place text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce('in ' || place || ': ', '') || CASE
        WHEN place IS NOT NULL AND sqlstate LIKE '22%' THEN 'data exception'
        WHEN place IS NOT NULL AND (sqlstate LIKE 'P0%' OR left(sqlstate, 2) NOT IN ('23', '44', '54')) THEN 'it refuses the row'
        WHEN sqlstate = '23502' THEN 'a column that takes no NULL has no value'
        WHEN sqlstate = '23505' THEN 'another row holds this key already'
        WHEN sqlstate = '23503' THEN 'a row that it refers to is not there'
        WHEN sqlstate = '23514' THEN 'a check constraint refuses it'
        WHEN sqlstate LIKE '22%' THEN 'a value does not fit'
        WHEN sqlstate LIKE '23%' THEN 'a constraint refuses it'
        WHEN sqlstate = '44000' THEN 'a view''s check refuses it'
        WHEN sqlstate = '54000' THEN 'too large, for an index perhaps'
        ELSE 'a trigger refuses it'
    END || coalesce(': ' || nullif(concat_ws(
        ', ',
        -- Names of something: the application may raise any text as a name.
        (SELECT format('table "%s"', "table") WHERE EXISTS (SELECT FROM pg_class AS c WHERE c.relname = "table")),
        (SELECT format('column "%s"', "column") WHERE EXISTS (SELECT FROM pg_attribute AS a WHERE a.attname = "column")),
        (
            SELECT format('constraint "%s"', "constraint")
            WHERE
                EXISTS (SELECT FROM pg_constraint AS c WHERE c.conname = "constraint")
                OR EXISTS (SELECT FROM pg_class AS c WHERE c.relname = "constraint")
        )
    ), ''), '')
$$;
COMMENT ON FUNCTION deal_sync.explain_error(text, text, text, text, text) IS
'a reason from SQLSTATE and names alone: it holds nobody''s data; place: the trigger or function that the error was in';

-- A statement over staged rows, in the search_path of the one who called the sync (behind pg_catalog): the application's triggers may
-- count on it. In a function of its own, so that nothing else of the extension runs there. Triggers may leave another app.tenant_id
-- behind: afterwards it is the run's again.
CREATE FUNCTION deal_sync.execute_for(statement text, rows bigint[], ids uuid[]) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant CONSTANT text := current_setting('app.tenant_id');
    landed bigint;
BEGIN
    PERFORM set_config('search_path', deal_sync.setting('search_path'), true);
    EXECUTE statement USING rows, ids;
    GET DIAGNOSTICS landed = ROW_COUNT;
    PERFORM set_config('app.tenant_id', tenant, true);
    RETURN landed;
END
$$;
COMMENT ON FUNCTION deal_sync.execute_for(text, bigint[], uuid[]) IS
'internal: runs a statement over rows of the staging table in the caller''s search_path';

-- Runs a statement over staged rows. When it fails for a row's sake, in eighths, until the bad row is alone. A unique violation is tried
-- once more: somebody may have inserted beside us, and now the row is there (`met`).
CREATE FUNCTION deal_sync.land(
    statement text, rows bigint[], ids uuid[], OUT landed bigint, OUT failures deal_sync.failure[], OUT met bigint[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    amount CONSTANT integer := cardinality(rows);
    part CONSTANT integer := greatest(1, (amount + 7) / 8);
    part_landed bigint;
    part_failures deal_sync.failure[];
    part_met bigint[];
    code text;
    text_of_server text;
    detail text;
    context text;
    "schema" text;
    "table" text;
    "column" text;
    "constraint" text;
BEGIN
    landed := 0;
    failures := '{}';
    met := '{}';
    IF amount = 0 THEN
        RETURN;
    END IF;

    FOR attempt IN 1 .. 2 LOOP
        BEGIN
            landed := deal_sync.execute_for(statement, rows, ids);
            met := CASE attempt WHEN 2 THEN rows ELSE met END;
            RETURN;
        EXCEPTION
            WHEN OTHERS OR assert_failure THEN
                GET STACKED DIAGNOSTICS
                    code := RETURNED_SQLSTATE, text_of_server := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL,
                    context := PG_EXCEPTION_CONTEXT, "schema" := SCHEMA_NAME, "table" := TABLE_NAME, "column" := COLUMN_NAME, "constraint" := CONSTRAINT_NAME;
                IF NOT deal_sync.is_row_error(code) THEN
                    RAISE;
                END IF;
        END;
        EXIT WHEN amount > 1 OR code <> '23505';
    END LOOP;

    IF amount = 1 THEN
        context := deal_sync.applications_context(context, ARRAY[statement]);
        failures := ARRAY[ROW(
            rows[1], code, deal_sync.explain_error(code, "table", "column", "constraint", deal_sync.place_of_error(context)),
            concat_ws(E'\n', text_of_server, nullif(detail, ''), context), format('%I.%I', "schema", "table"), "column"
        )::deal_sync.failure];
        RETURN;
    END IF;

    FOR start IN 1 .. amount BY part LOOP
        SELECT l.landed, l.failures, l.met INTO part_landed, part_failures, part_met
        FROM deal_sync.land(statement, rows[start : start + part - 1], ids) AS l;
        landed := landed + part_landed;
        failures := failures || part_failures;
        met := met || part_met;
        EXIT WHEN cardinality(failures) > deal_sync.setting('max_rejects')::integer;
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.land(text, bigint[], uuid[]) IS
'internal: runs a statement over rows of the staging table in subtransactions, isolating those that the table refuses';

-- The statements of a run for one kind, made once: `plan` tells of each staged row what is to become of it, `merge` writes, `unwritten`
-- finds rows that a trigger kept from being written, `losses` the values that did not land, `links` connects interactions
-- (`linked`: those of the batch; `unlinked`: rows whose link is missing), `locks` takes the rows to be changed in key order: a MERGE goes
-- through them in whatever order its join has. `completion` is the MERGE of a batch that has versions to complete: its UPDATE needs a
-- right that one which only inserts does not. `cleared` counts, by column of the deals' table, the values that a MERGE of these rows would
-- replace by NULL.
CREATE TYPE deal_sync.statements AS (
    plan text, locks text, cleared text, merge text, completion text, unwritten text, losses text,
    links text, linked text, unlinked text
);
COMMENT ON TYPE deal_sync.statements IS 'internal: what a run executes for each batch of a kind';

-- The columns `without` were not read: they make no row differ. `completes`: versions that are there get what they lack.
CREATE FUNCTION deal_sync.statements_of(
    kind text, tenant_id uuid, without text[] DEFAULT '{}', completes boolean DEFAULT FALSE
) RETURNS deal_sync.statements
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this CONSTANT text := quote_literal(tenant_id) || '::uuid';
    target CONSTANT regclass := deal_sync.application_table(kind, 'target');
    key_target CONSTANT text := CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'id' END;
    parts CONSTANT record := deal_sync.merge_parts(kind, tenant_id, without, completes);
    staging CONSTANT text := format('pg_temp.%I', 'deal_sync_' || kind || 's');
    key CONSTANT text := parts.key;
    owner CONSTANT text := parts.owner;
    number CONSTANT text := parts.number;
    merged CONSTANT deal_sync.merge_column[] := parts.merged;
    held_back text;
    exotic_losses text;
    still_counts text;
    statements deal_sync.statements;
BEGIN
    SELECT
        string_agg(
            format(
                $plan$WHEN s.%I AND %s THEN jsonb_build_object(
                    'column', %L, 'message', 'held back: its value does not fit', 'sqlstate', '22000', 'value', left(raw.%I::text, 200)
                ) || coalesce(s.conversion_errors -> %L, '{}')$plan$,
                c.name || ' lost',
                CASE WHEN kind = 'deal' AND c.write <> 'always' THEN format('t.%I IS NULL', c.target) ELSE 'true' END,
                c.name, c.name, c.name
            ), E'\n'
        ) FILTER (
            WHERE c.on_misfit = 'reject'
            AND (c.exotic OR (kind = 'deal' AND c.write <> 'always' AND c.target IS NOT NULL AND c.lost IS NOT NULL))
        ),
        string_agg(
            format(
                $losses$
                SELECT s.row_number, %1$L, deal_sync.cast_error(raw.%2$I::text, %3$L::regtype, %4$s)
                    || jsonb_build_object('value', left(raw.%2$I::text, 200), 'landed', false)
                FROM s INNER JOIN %5$s AS raw USING (row_number)
                WHERE s.%6$I AND NOT coalesce(jsonb_exists(s.conversion_errors, %1$L), false)$losses$,
                c.name, c.name, c.target_type::regtype, c.target_modifier, staging, c.name || ' lost'
            ), E'\nUNION ALL'
        ) FILTER (WHERE c.exotic),
        string_agg(
            format(
                'WHEN %L THEN t.%I IS NULL OR coalesce((lost.error -> ''landed'')::boolean, false)'
                ' AND ROW(t.%I)::record OPERATOR(pg_catalog.*=) ROW(%s)::record',
                c.name, c.target, c.target, c.selected
            ), ' '
        )
            FILTER (WHERE c.write IN ('insert', 'fill') AND c.target IS NOT NULL)
    INTO held_back, exotic_losses, still_counts
    FROM unnest(merged) AS c;

    IF kind = 'deal' THEN
        statements.plan := format(
            $plan$
            SELECT
                s.row_number, t.ctid AS place, t.tableoid AS part,
                CASE WHEN s.refusal IS NOT NULL THEN s.refusal %s END AS refusal,
                CASE WHEN s.shadows THEN 'duplicate opportunity: a CRM row has the deal''s id, another row is the deal' END AS note,
                CASE
                    WHEN t.id IS NULL THEN 'new'
                    WHEN t.graph_opportunity_id IS NULL THEN 'adopted'
                    WHEN %s THEN 'changed'
                    ELSE 'unchanged'
                END AS state
            FROM (%s) AS s
            INNER JOIN %s AS raw USING (row_number)
            LEFT JOIN %s AS t ON %s
            ORDER BY s.row_number$plan$,
            held_back, parts.differs, parts.source, staging, target, parts.matching
        );
    ELSE
        statements.plan := format(
            $plan$
            SELECT
                s.row_number, %8$s,
                CASE
                    WHEN s.landed_id IS NOT NULL AND NOT coalesce(s.refusal ? 'even_if_there', false) THEN NULL
                    WHEN s.refusal IS NOT NULL AND NOT (s.refusal ? 'ahead' AND NOT EXISTS (
                        SELECT FROM jsonb_array_elements_text(s.refusal -> 'ahead') AS a (id)
                        WHERE NOT EXISTS (SELECT FROM %11$s AS l WHERE l.tenant_id = %12$s AND l.id = a.id::uuid)
                    )) THEN s.refusal
                    WHEN s.%1$I IS NULL THEN NULL
                    WHEN s."landed deal" IS NULL THEN jsonb_build_object(
                        'column', %2$L, 'sqlstate', '23503', 'value', s.%3$I::text,
                        'message', 'its deal has not landed; it follows by itself'
                    )
                    WHEN s."number taken by" IS NOT NULL THEN jsonb_build_object(
                        'column', %4$L, 'sqlstate', '23505', 'value', s.%1$I::text,
                        'message', format('duplicate version number: version %%s has it', s."number taken by")
                    ) %5$s
                END AS refusal,
                CASE WHEN s.landed_id IS NULL AND s.%1$I IS NULL THEN 'a version without a number' END AS note,
                CASE %9$s WHEN s.landed_id IS NOT NULL THEN 'unchanged' WHEN s.%1$I IS NULL THEN 'none' ELSE 'new' END AS state
            FROM (%6$s) AS s
            INNER JOIN %7$s AS raw USING (row_number)
            %10$s
            ORDER BY s.row_number$plan$,
            number, owner, owner, number, held_back, parts.source, staging,
            CASE WHEN completes THEN 't.ctid AS place, t.tableoid AS part' ELSE 'NULL::tid AS place, NULL::oid AS part' END,
            CASE WHEN completes THEN format('WHEN t.id IS NOT NULL AND %s THEN ''changed''', parts.differs) END,
            CASE WHEN completes THEN format('LEFT JOIN %s AS t ON %s', target, parts.matching) END,
            target, this
        );
    END IF;
    SELECT format(
        $cleared$
        SELECT coalesce(jsonb_object_agg(c.name, c.times) FILTER (WHERE c.times > 0), '{}')
        FROM (SELECT ARRAY[%s] AS counts FROM (%s) AS s INNER JOIN %s AS t ON %s) AS n
        CROSS JOIN unnest(%L::text[], n.counts) AS c (name, times)$cleared$,
        o.counts, parts.source, target, parts.matching, o.names
    ) INTO statements.cleared
    FROM (
        SELECT
            string_agg(format('count(*) FILTER (WHERE t.%I IS NOT NULL AND (%s) IS NULL)', c.target, c.updated), ', ' ORDER BY c.place) AS counts,
            array_agg(c.target ORDER BY c.place) AS names
        FROM unnest(merged) AS c
        WHERE kind = 'deal' AND c.write = 'always' AND c.updated IS NOT NULL
    ) AS o
    WHERE o.names IS NOT NULL;
    statements.merge := CASE WHEN completes THEN (deal_sync.merge_parts(kind, tenant_id, without)).merge ELSE parts.merge END;
    statements.completion := parts.merge;
    statements.locks := format(
        'SELECT FROM unnest($1::bigint[], $2::tid[]) AS w (row_number, place) INNER JOIN %s AS t ON t.ctid = w.place'
        ' WHERE t.tenant_id = %s ORDER BY w.row_number FOR NO KEY UPDATE OF t',
        target, this
    );
    -- A new row must be there afterwards; a changed one must have a new place.
    statements.unwritten := format(
        $unwritten$
        SELECT w.row_number
        FROM unnest($1::bigint[], $2::tid[], $3::oid[]) AS w (row_number, place, part)
        INNER JOIN %s AS s USING (row_number)
        LEFT JOIN %s AS t ON t.tenant_id = %s AND t.%I = s.%I
        WHERE t.id IS NULL OR (t.ctid = w.place AND t.tableoid = w.part)$unwritten$,
        staging, target, this, key_target, key
    );

    -- A bad value of a column that an existing row keeps counts when the row is new, and as long as the row has NULL there, or the text that
    -- landed without some characters.
    statements.losses := format(
        $losses$
        WITH s AS (%s),
        lost (row_number, field, error) AS (
            SELECT s.row_number, e.key, e.value
            FROM s CROSS JOIN LATERAL jsonb_each(s.conversion_errors) AS e %s
        )
        SELECT
            s.row_number, s.graph_id, s.element_id, lost.field, lost.error,
            m.write = 'insert' OR $3 AS stays, m.write = 'insert' AND NOT $3 AS may_fill
        FROM lost
        INNER JOIN %s AS s USING (row_number)
        INNER JOIN deal_sync.mapping_columns(%s::regclass) AS m ON m.name = lost.field
        LEFT JOIN %s AS t ON t.tenant_id = %s AND t.%I = s.%I
        WHERE CASE WHEN s.row_number = ANY ($2) THEN true ELSE CASE lost.field %s ELSE true END END$losses$,
        CASE WHEN exotic_losses IS NULL
            THEN format('SELECT * FROM %s AS f WHERE f.row_number = ANY ($1) AND f.conversion_errors IS NOT NULL', staging)
            ELSE parts.source
        END,
        'UNION ALL' || exotic_losses, staging, deal_sync.mapped(kind)::oid, -- by oid: the caller need not see its schema
        target, this, key_target, key,
        coalesce(still_counts, format('WHEN %L THEN true', key))
    );

    SELECT
        format(
            'INSERT INTO %s (%s tenant_id, interaction_id, entity_type, entity_id)'
            ' SELECT %s %s, pair.interaction_id, ''opportunity'', pair.entity_id'
            ' FROM (SELECT DISTINCT interaction_id, entity_id FROM (%s) AS missing) AS pair ON CONFLICT DO NOTHING',
            links.relation, links.extra_columns, links.extra_values, this, missing.query
        ),
        format(
            'SELECT coalesce(array_agg(DISTINCT link.interaction_id), ''{}'')'
            ' FROM %s AS s CROSS JOIN LATERAL (VALUES %s) AS link (interaction_id)'
            ' WHERE s.row_number = ANY ($1) AND link.interaction_id IS NOT NULL',
            staging, linked.list
        ),
        format('SELECT DISTINCT row_number FROM (%s) AS missing', missing.query)
    INTO statements.links, statements.linked, statements.unlinked
    FROM (
        SELECT string_agg(format('(s.%I)', c.name), ', ') AS list
        FROM unnest(merged) AS c
        WHERE c.link
    ) AS linked
    CROSS JOIN LATERAL (
        SELECT
            deal_sync.application_table('deal', 'links') AS relation,
            coalesce(string_agg(quote_ident(a.attname) || ', ', ''), '') AS extra_columns,
            coalesce(string_agg(CASE a.attname WHEN 'id' THEN 'gen_random_uuid()' ELSE 'now()' END || ', ', ''), '') AS extra_values
        FROM pg_attribute AS a
        WHERE
            a.attrelid = deal_sync.application_table('deal', 'links') AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attname IN ('id', 'created_at', 'updated_at') AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
    ) AS links
    -- By the interactions of the batch ($2), hashed: the planner may believe that the table is empty (an ANALYZE while it is filled), and a
    -- nested loop over a table without an index on the pair takes minutes then.
    CROSS JOIN LATERAL format(
        $missing$
        SELECT s.row_number, link.interaction_id, o.id AS entity_id
        FROM %s AS s
        INNER JOIN %s AS o ON o.tenant_id = %s AND o.graph_opportunity_id = s.%I
        CROSS JOIN LATERAL (VALUES %s) AS link (interaction_id)
        WHERE s.row_number = ANY ($1) AND link.interaction_id IS NOT NULL
        AND (link.interaction_id, o.id) NOT IN (
            SELECT l.interaction_id, l.entity_id
            FROM %s AS l
            WHERE l.tenant_id = %s AND l.interaction_id = ANY ($2)
            AND l.entity_type::text = 'opportunity' AND l.entity_id IS NOT NULL
        )$missing$,
        staging, deal_sync.application_table('deal', 'target'), this, owner, linked.list, links.relation, this
    ) AS missing (query)
    WHERE linked.list IS NOT NULL;
    RETURN statements;
END
$$;
COMMENT ON FUNCTION deal_sync.statements_of(text, uuid, text[], boolean) IS
'internal: the statements that land a batch of a kind, of a tenant';

-- One batch, planned, written, checked, explained, linked. `result` is carried on from batch to batch, and so is `cleared`, the values that
-- the run replaces by NULL; `reasons` counts failures; `completed` counts versions of this batch.
CREATE FUNCTION deal_sync.land_batch(
    kind text, statements deal_sync.statements, INOUT result deal_sync.run_result, INOUT reasons jsonb, INOUT cleared jsonb,
    OUT completed bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    merge text := statements.merge;
    planned record;
    lost record;
    written bigint[] := '{}';
    places tid[] := '{}';
    parts oid[] := '{}';
    new_rows bigint[] := '{}';
    there bigint[] := '{}';
    adopted_rows bigint[] := '{}';
    failures deal_sync.failure[];
    link_failures deal_sync.failure[];
    failed bigint[];
    others bigint[];
    ids uuid[];
    unlinked bigint[];
    inserted bigint;
    adopted bigint;
    landed bigint;
    clears jsonb := '{}';
    found jsonb;
    losses jsonb[] := '{}';
    refused jsonb[] := '{}';
BEGIN
    completed := 0;
    FOR planned IN EXECUTE statements.plan USING NULL::bigint[] LOOP
        IF planned.refusal IS NOT NULL THEN
            refused := refused || (planned.refusal || jsonb_build_object('row_number', planned.row_number, 'level', 'row'));
        ELSIF planned.state IN ('new', 'changed', 'adopted') THEN
            written := written || planned.row_number;
            places := places || planned.place;
            parts := parts || planned.part;
            IF planned.state = 'new' THEN
                new_rows := new_rows || planned.row_number;
            ELSIF planned.state = 'adopted' THEN
                adopted_rows := adopted_rows || planned.row_number;
            END IF;
        ELSIF planned.state = 'unchanged' THEN
            there := there || planned.row_number;
        END IF;
        IF planned.note IS NOT NULL AND planned.refusal IS NULL THEN
            refused := refused || jsonb_build_object(
                'row_number', planned.row_number, 'level', 'note', 'sqlstate', '00000', 'message', planned.note
            );
        END IF;
    END LOOP;

    IF cardinality(written) > cardinality(new_rows) THEN
        EXECUTE statements.locks USING written, places;
        merge := statements.completion;
        IF statements.cleared IS NOT NULL THEN
            EXECUTE statements.cleared INTO clears USING written;
        END IF;
    END IF;
    SELECT l.landed, l.failures, l.met INTO landed, failures, others
    FROM deal_sync.land(merge, written, '{}') AS l;
    -- When land() gave up, rows that it never tried are not there either: the run fails with what was found.
    IF landed + cardinality(failures) < cardinality(written)
        AND cardinality(failures) <= deal_sync.setting('max_rejects')::bigint THEN
        FOR lost IN EXECUTE statements.unwritten USING written, places, parts LOOP
            IF NOT EXISTS (SELECT FROM unnest(failures) AS f WHERE f.row_number = lost.row_number) THEN
                failures := failures || ROW(
                    lost.row_number,
                    CASE WHEN lost.row_number = ANY (others) THEN '23505' ELSE '09000' END,
                    CASE WHEN lost.row_number = ANY (others) THEN deal_sync.explain_error('23505', NULL, NULL, NULL)
                        ELSE 'a trigger of the table suppressed the row' END,
                    NULL, NULL, NULL
                )::deal_sync.failure;
            END IF;
        END LOOP;
    END IF;
    failed := ARRAY(SELECT f.row_number FROM unnest(failures) AS f);
    IF clears <> '{}' THEN
        cleared := deal_sync.add_counts(cleared, clears);
        IF failed <> '{}' THEN -- their rows have kept what they had
            EXECUTE statements.cleared INTO clears USING failed;
            cleared := deal_sync.add_counts(cleared, clears, -1);
        END IF;
    END IF;

    -- What somebody inserted beside us was not inserted here.
    inserted := (
        SELECT count(*) FROM unnest(new_rows) AS n (row_number) WHERE n.row_number <> ALL (failed) AND n.row_number <> ALL (others)
    );
    adopted := cardinality(adopted_rows) - (SELECT count(*) FROM unnest(failed) AS f (row_number) WHERE f.row_number = ANY (adopted_rows));
    IF kind = 'deal' THEN
        result.deals_inserted := result.deals_inserted + inserted;
        result.deals_adopted := result.deals_adopted + adopted;
        result.deals_updated := result.deals_updated + cardinality(written) - cardinality(failed) - inserted - adopted;
        result.deals_unchanged := result.deals_unchanged + cardinality(there);
    ELSE
        result.versions_inserted := result.versions_inserted + inserted;
        completed := cardinality(written) - cardinality(new_rows)
            - (SELECT count(*) FROM unnest(failed) AS f (row_number) WHERE f.row_number <> ALL (new_rows));
    END IF;
    there := there || CASE WHEN failed = '{}' THEN written ELSE ARRAY(
        SELECT w.row_number FROM unnest(written) AS w (row_number) WHERE w.row_number <> ALL (failed)
    ) END;

    IF statements.links IS NOT NULL THEN
        EXECUTE statements.linked INTO ids USING there;
        EXECUTE format('SELECT coalesce(array_agg(u.row_number ORDER BY u.row_number), ''{}'') FROM (%s) AS u', statements.unlinked)
        INTO unlinked USING there, ids;
        SELECT l.landed, l.failures INTO landed, link_failures
        FROM deal_sync.land(statements.links, unlinked, ids) AS l;
        result.links_inserted := result.links_inserted + landed;
        -- What neither landed nor failed: a trigger returned NULL, or a unique key of the table's own has the pair's place; or so many
        -- failed (a table that is not filled yet, perhaps) that the rest was not tried. The deals land all the same.
        IF unlinked <> '{}' THEN
            FOR lost IN EXECUTE statements.unlinked USING unlinked, ids LOOP
                IF NOT EXISTS (SELECT FROM unnest(link_failures) AS f WHERE f.row_number = lost.row_number) THEN
                    link_failures := link_failures || ROW(
                        lost.row_number, '09000',
                        CASE WHEN cardinality(link_failures) > deal_sync.setting('max_rejects')::bigint
                            THEN 'not tried: more links than deal_sync.max_rejects were refused before it'
                            ELSE 'a trigger or a unique key of the table suppressed the link' END,
                        NULL, NULL, NULL
                    )::deal_sync.failure;
                END IF;
            END LOOP;
        END IF;
    END IF;

    -- What did not land, by node. A NULL that the table did not take stands for a value that did not fit, where the node has one.
    EXECUTE format(
        $found$
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'kind', f.kind, 'level', f.level, 'graph_id', s.graph_id, 'element_id', s.element_id, 'column_name', f."column",
            'sqlstate', f.sqlstate, 'message', f.message, 'value', f.value, 'server_text', f.server_text
        )), '[]')
        FROM (
            SELECT $1 AS kind, r.level, r.row_number, r."column", r.sqlstate, r.message, r.value, NULL AS server_text
            FROM jsonb_to_recordset(to_jsonb($2)) AS r (
                row_number bigint, level text, "column" text, sqlstate text, message text, value text
            )
            UNION ALL
            SELECT
                $1, 'row', l.row_number, m.name, coalesce(e.error ->> 'sqlstate', l.sqlstate),
                coalesce(e.error ->> 'message', l.message), e.error ->> 'value', l.server_text
            FROM unnest($3) AS l
            LEFT JOIN deal_sync.mapping_columns(%s::oid) AS m
                ON l.sqlstate = '23502' AND l.relation = %L AND m.target = l.column_name AND m.write <> 'never'
            LEFT JOIN pg_temp.%I AS raw ON raw.row_number = l.row_number
            CROSS JOIN LATERAL (SELECT raw.conversion_errors -> m.name::text) AS e (error)
            UNION ALL
            SELECT 'link', 'row', l.row_number, NULL, l.sqlstate, l.message, NULL, l.server_text FROM unnest($4) AS l
        ) AS f
        INNER JOIN pg_temp.%I AS s USING (row_number)$found$,
        deal_sync.mapped(kind)::oid,
        (
            SELECT format('%I.%I', n.nspname, c.relname)
            FROM pg_class AS c
            INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.oid = deal_sync.application_table(kind, 'target')
        ),
        'deal_sync_' || kind || 's', 'deal_sync_' || kind || 's'
    ) INTO found USING kind, refused, failures, coalesce(link_failures, '{}');

    FOR lost IN EXECUTE statements.losses USING there, new_rows, kind = 'version' LOOP
        losses := losses || jsonb_build_object(
            'kind', kind, 'level', 'value', 'graph_id', lost.graph_id, 'element_id', lost.element_id, 'column_name', lost.field,
            'sqlstate', lost.error ->> 'sqlstate', 'value', lost.error ->> 'value',
            'message', concat(
                lost.error ->> 'message',
                CASE
                    WHEN NOT lost.stays OR (lost.error -> 'landed')::boolean THEN NULL
                    WHEN kind = 'version' THEN
                        ' (of a version that is there only a replay fills what is NULL: mend the node and replay it, or set it by hand)'
                    ELSE
                        ' (a row that is there is not written here, so this does not heal by itself: set it by hand'
                        || CASE WHEN lost.may_fill THEN ', or ALTER the column''s option write to ''fill''' ELSE '' END || ')'
                END
            )
        );
    END LOOP;
    found := found || to_jsonb(losses);
    IF found <> '[]' THEN
        PERFORM deal_sync.record_rejects(result.run_id, result.tenant_id, found);
    END IF;

    IF cardinality(failures) > 0 THEN
        SELECT coalesce(jsonb_object_agg(r.reason, r.times), '{}') INTO reasons
        FROM (
            SELECT x.reason, sum(x.times) AS times
            FROM (
                SELECT o.key AS reason, o.value::bigint AS times FROM jsonb_each_text(reasons) AS o
                UNION ALL
                SELECT format('%s %s', f.sqlstate, f.message), 1 FROM unnest(failures) AS f
            ) AS x
            GROUP BY x.reason
        ) AS r;
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.land_batch(text, deal_sync.statements, deal_sync.run_result, jsonb, jsonb) IS
'internal: lands the staged batch of a kind, adds to the run''s counts, records what was refused';
-- In: a tenant's watermark and the graph's state. Out: what a run reads, and whether it lost so much that it must not stay.

-- By names: OIDs and column numbers are others after a dump and restore.
CREATE FUNCTION deal_sync.mapping_fingerprint() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT md5(string_agg(concat_ws(' ', deal_sync.options_of(ft.ftoptions)::text, columns.definition, e.extversion), E'\n' ORDER BY k.kind))
    FROM unnest(ARRAY['deal', 'version']) AS k (kind)
    INNER JOIN pg_foreign_table AS ft ON ft.ftrelid = deal_sync.mapped(k.kind)
    INNER JOIN pg_extension AS e ON e.extname = 'deal_sync'
    CROSS JOIN LATERAL (
        SELECT string_agg(
            jsonb_build_array(
                m.name, format_type(m.type, m.type_modifier), m.options, m.write,
                format_type(m.target_type, m.target_modifier), m.not_null, m.target_default, m.staged_as
            )::text,
            E'\n' ORDER BY m.place
        ) AS definition
        FROM deal_sync.mapping_columns(ft.ftrelid) AS m
    ) AS columns
$$;
COMMENT ON FUNCTION deal_sync.mapping_fingerprint() IS
'changes when the mapping does: a column, an option, the type of a target, the extension''s version';

-- The application's policies run there.
CREATE FUNCTION deal_sync.keys_held(kind text, tenant_id uuid) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := format(
        'SELECT t.%1$I::uuid FROM %2$s AS t WHERE t.tenant_id = $1 AND t.%1$I IS NOT NULL',
        CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'id' END, deal_sync.application_table(kind, 'target')
    );
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    RETURN QUERY EXECUTE statement USING keys_held.tenant_id;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION deal_sync.keys_held(text, uuid) IS 'internal: the keys of a tenant''s rows that have one';

-- Nodes that have a row are known, and those that every run tries again; of several with one key all are read, since only together it
-- shows which of them lands.
CREATE FUNCTION deal_sync.unread(kind text, tenant_id uuid, OUT elements text[], OUT rows_without_node bigint)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH node AS MATERIALIZED (SELECT k.element_id, k.key FROM deal_sync.graph_keys(unread.kind, unread.tenant_id) AS k),

    held AS MATERIALIZED (SELECT h.key FROM deal_sync.keys_held(unread.kind, unread.tenant_id) AS h (key)),

    tried AS MATERIALIZED (
        SELECT n.element_id, n.key, count(n.key) OVER (PARTITION BY n.key) AS sharing
        FROM node AS n
        WHERE NOT EXISTS (
            SELECT FROM unnest(deal_sync.refused_elements(unread.tenant_id)) AS r (element_id) WHERE r.element_id = n.element_id
        )
    )

    SELECT
        (
            SELECT coalesce(array_agg(f.element_id), '{}')
            FROM tried AS f
            LEFT JOIN held AS h USING (key)
            WHERE (h.key IS NULL OR f.sharing > 1) AND (f.key = ANY (deal_sync.barred_of(unread.tenant_id))) IS NOT TRUE
        ),
        (SELECT count(*) FROM held AS h WHERE NOT EXISTS (SELECT FROM node AS n WHERE n.key = h.key))
$$;
COMMENT ON FUNCTION deal_sync.unread(text, uuid) IS
'internal: by key, the nodes of a kind that no run has landed or refused, and how many rows of the tenant have no node';

-- `selection`: what the reader takes (neo4j_deals.selection); `mode`: what becomes of the mode asked for, and `remarks` why, and what else
-- the run's message is to say; `watermark`: what the run sets when it ends; `facts`: what it keeps with it, `known` what the last one has.
CREATE TYPE deal_sync.reading AS (
    mode text, remarks text [], selection jsonb, watermark timestamptz, mapping text, facts jsonb, known jsonb
);
COMMENT ON TYPE deal_sync.reading IS 'internal: what a run reads, and up to where the graph has been read afterwards';

-- The watermark is the graph's own clock from before the run's first question, less what writers' clocks may be behind and a commit may
-- be late. What was written while that clock was wrong lies before a watermark of the time when it was right, or the other way round.
CREATE FUNCTION deal_sync.plan_reading(tenant_id uuid, mode text) RETURNS deal_sync.reading
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    overlap CONSTANT interval := deal_sync.setting('overlap')::interval;
    overlap_seconds CONSTANT double precision := extract(EPOCH FROM overlap);
    exact double precision := 1;  -- of the difference of two clocks, in seconds; less so if an answer was long under way
    quick CONSTANT integer := 10;  -- milliseconds that counting may take in every run
    barred CONSTANT uuid[] := deal_sync.barred_of(tenant_id);
    moved double precision;
    elements text[];
    differing text;
    come_back bigint;
    found record;
    last record;
    state record;
    result deal_sync.reading;
BEGIN
    SELECT w.watermark, w.mapping, w.undated, w.facts INTO last FROM deal_sync.watermark_of(tenant_id) AS w;
    SELECT s.* INTO state FROM deal_sync.graph_state(
        tenant_id,
        coalesce(
            (last.facts ->> 'count_ms')::integer <= quick OR (last.facts ->> 'counted_at')::timestamptz < clock_timestamp() - interval '1 hour', true
        ),
        late => overlap_seconds
    ) AS s;
    PERFORM deal_sync.check_graph(state.database_id);
    result.mode := mode;
    result.remarks := '{}';
    result.known := last.facts;
    result.facts := jsonb_build_object('ahead', state.ahead, 'unsure', state.unsure) || CASE WHEN state.deals IS NULL THEN '{}' ELSE jsonb_build_object(
        'deals', state.deals, 'versions', state.versions, 'count_ms', state.count_ms, 'counted_at', clock_timestamp()
    ) END;
    -- A run that was under way while accept_graph() removed the watermarks leaves one of the graph before.
    result.mapping := concat_ws(' ', deal_sync.mapping_fingerprint(), state.database_id);
    result.watermark := state.clock - overlap;
    result.selection := CASE WHEN barred = '{}' THEN '{}' ELSE jsonb_build_object('barred', barred) END;
    moved := state.ahead - (last.facts ->> 'ahead')::double precision;
    exact := exact + state.unsure + coalesce((last.facts ->> 'unsure')::double precision, 0);
    IF last.watermark > state.clock OR abs(moved) > overlap_seconds + exact THEN
        result.known := last.facts - 'newest'; -- by another clock
    END IF;
    IF last.watermark > state.clock AND mode <> 'incremental' THEN
        result.remarks := result.remarks || 'the graph''s clock has gone back'::text;
    END IF;
    IF mode = 'incremental' AND last.watermark IS NULL THEN
        result.mode := 'full';
    ELSIF mode = 'incremental' THEN
        result.remarks := result.remarks || CASE
            WHEN split_part(last.mapping, ' ', 1) <> split_part(result.mapping, ' ', 1) THEN 'a full run, since the mapping has changed'
            WHEN last.mapping <> result.mapping THEN 'a full run, since the graph is another one'
            WHEN last.watermark > state.clock THEN 'a full run, since the graph''s clock has gone back'
            WHEN abs(moved) > overlap_seconds + exact
                THEN format('a full run, since the graph''s clock has moved by %s s against PostgreSQL''s', round(moved::numeric))
        END;
        result.remarks := array_remove(result.remarks, NULL);
        IF result.remarks = '{}' THEN
            elements := deal_sync.refused_elements(tenant_id);
            -- A node that is new and has an old time, or one that is gone.
            FOR differing IN
                SELECT k.kind
                FROM (VALUES ('deal', state.deals), ('version', state.versions)) AS k (kind, number)
                WHERE k.number IS DISTINCT FROM (last.facts ->> (k.kind || 's'))::bigint AND state.deals IS NOT NULL
            LOOP
                SELECT u.elements, u.rows_without_node INTO found FROM deal_sync.unread(differing, tenant_id) AS u;
                elements := elements || found.elements;
                IF differing = 'deal' THEN
                    result.facts := result.facts || jsonb_build_object('rows_without_deal', found.rows_without_node);
                    -- Which they are their keys do not tell: a row that has a deal again looks like any other.
                    come_back := (last.facts ->> 'rows_without_deal')::bigint - found.rows_without_node;
                    IF come_back > 0 THEN
                        result.remarks := result.remarks || format('a full run, since deals have come back to the graph: %s', come_back);
                    END IF;
                END IF;
            END LOOP;
        END IF;
        IF result.remarks <> '{}' THEN
            result.mode := 'full';
        ELSE
            result.selection := result.selection || jsonb_build_object('since', last.watermark, 'elements', elements, 'undated', last.undated);
        END IF;
    END IF;
    IF state.open <> '{}' THEN
        result.remarks := result.remarks || format(
            'transactions that are open in Neo4j for longer than deal_sync.overlap, and whose changes the next runs may not see: %s',
            array_to_string(state.open[1:5], ', ')
        );
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION deal_sync.plan_reading(uuid, text) IS
'internal: whether a run reads everything or what changed since the tenant''s watermark; raises where the graph is another one';

-- Opened before a run writes, such a cursor counts what was there then, whenever it is fetched: and mostly it is not.
CREATE FUNCTION deal_sync.count_of_values() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT jsonb_object(%L, ARRAY[%s]::text[]) FROM %s AS t WHERE t.tenant_id = $1',
        coalesce(array_agg(m.target), '{}'), string_agg(format('count(t.%I)', m.target), ', '), deal_sync.application_table('deal', 'target')
    )
    FROM deal_sync.mapping_columns(deal_sync.mapped('deal')) AS m
    WHERE m.target_is_there AND m.staged_as IS NOT NULL AND m.write = 'always'
$$;
COMMENT ON FUNCTION deal_sync.count_of_values() IS
'internal: the statement that counts a tenant''s ($1) values in each column of the deals'' table that a run overwrites';

-- A policy may raise here already, while the statement is planned.
CREATE FUNCTION deal_sync.open_count(tenant_id uuid) RETURNS refcursor
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := deal_sync.count_of_values();
    counts refcursor;
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    OPEN counts FOR EXECUTE statement USING open_count.tenant_id;
    RETURN counts;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION deal_sync.open_count(uuid) IS 'internal: that cursor, opened';

-- The application's policies run there. `before`: that cursor; without it, what is there now.
CREATE FUNCTION deal_sync.values_held(tenant_id uuid, before refcursor DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := deal_sync.count_of_values();
    counted jsonb;
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    IF before IS NULL THEN
        EXECUTE statement INTO counted USING values_held.tenant_id;
    ELSE
        FETCH before INTO counted;
    END IF;
    RETURN counted;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION deal_sync.values_held(uuid, refcursor) IS
'internal: how many values a tenant''s rows have in each column that a run overwrites';

CREATE FUNCTION deal_sync.add_counts(counts jsonb, more jsonb, times integer DEFAULT 1) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_object_agg(summed.key, summed.total), '{}')
    FROM (
        SELECT c.key, sum(c.value) AS total
        FROM (
            SELECT a.key, a.value::bigint AS value FROM jsonb_each_text(counts) AS a
            UNION ALL
            SELECT b.key, b.value::bigint * times FROM jsonb_each_text(more) AS b
        ) AS c
        GROUP BY c.key
    ) AS summed
    WHERE summed.total <> 0
$$;
COMMENT ON FUNCTION deal_sync.add_counts(jsonb, jsonb, integer) IS 'internal: {"name": count} of both, the second multiplied';

CREATE FUNCTION deal_sync.is_mass(cleared bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT cleared >= 20 -- of fewer values a share says little
$$;
COMMENT ON FUNCTION deal_sync.is_mass(bigint) IS 'internal: whether so many values of a column are worth a count of all';

-- `cleared`: by column of the deals' table, the values that the run has replaced by NULL; `held`: those that were there before it.
CREATE FUNCTION deal_sync.check_losses(cleared jsonb, held jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_loss CONSTANT integer := deal_sync.setting('max_loss')::integer;
    said text[];
    worst text;
BEGIN
    SELECT
        array_agg(format('%s of %s values in column "%s"', c.value, held ->> c.key, c.key) ORDER BY c.value::bigint DESC, c.key),
        (array_agg(c.key ORDER BY c.value::bigint DESC, c.key))[1]
    INTO said, worst
    FROM jsonb_each_text(cleared) AS c
    WHERE deal_sync.is_mass(c.value::bigint) AND c.value::bigint * 100 > (held ->> c.key)::bigint * max_loss;
    IF said IS NOT NULL THEN
        RAISE EXCEPTION 'the run would replace % of % by NULL', said[1], deal_sync.application_table('deal', 'target') USING
            ERRCODE = 'DS005',
            DETAIL = concat_ws(
                ' ',
                (
                    SELECT format(
                        'It is filled from column "%s" of %s: in the graph the property is absent, or its value does not fit.', m.name, m.relation
                    )
                    FROM (
                        SELECT x.name, x.target, r.relation
                        FROM deal_sync.mapped('deal') AS r (relation)
                        CROSS JOIN LATERAL deal_sync.mapping_columns(r.relation) AS x
                    ) AS m
                    WHERE m.target = worst
                ),
                'It would also replace ' || nullif(array_to_string(said[2:5], ', '), '')
                || CASE WHEN cardinality(said) > 5 THEN format(' and of %s more', cardinality(said) - 5) ELSE '' END || '.',
                format('deal_sync.max_loss allows %s percent of a column''s values.', max_loss)
            ),
            HINT = 'Fix the graph or the column''s mapping. If the loss is meant, SET deal_sync.max_loss = 100 for one run.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_losses(jsonb, jsonb) IS
'internal: raises if a run would replace so many values of one column by NULL that it must be a mistake';

CREATE FUNCTION deal_sync.cleared_columns(cleared jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'cleared: ' || string_agg(format('%s (%s)', c.key, c.value), ', ' ORDER BY c.value::bigint DESC, c.key)
    FROM jsonb_each_text(cleared) AS c
$$;
COMMENT ON FUNCTION deal_sync.cleared_columns(jsonb) IS 'internal: what a run''s message says of the values that it has replaced by NULL';

CREATE FUNCTION deal_sync.replace_graph(database_id text) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM deal_sync.graph;
    DELETE FROM deal_sync.watermarks;
    DELETE FROM deal_sync.backfills;
    INSERT INTO deal_sync.graph (database_id) VALUES (replace_graph.database_id);
$$;
COMMENT ON FUNCTION deal_sync.replace_graph(text) IS 'internal: the body of accept_graph()';

CREATE FUNCTION deal_sync.accept_graph() RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state record;
    code text;
    said text;
    detail text;
    hint text;
BEGIN
    PERFORM deal_sync.check_package();
    state := deal_sync.graph_state();
    PERFORM deal_sync.replace_graph(state.database_id);
    RETURN state.database_id;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        PERFORM deal_sync.raise_again(code, said, detail, hint);
END
$$;
COMMENT ON FUNCTION deal_sync.accept_graph() IS
'confirms that the graph behind the server is the one to sync with from now on; every tenant''s next run is full. Returns its database id';
-- In: the mapping and the application's tables. Out: an error for each mistake of set-up, before anything is read.

CREATE FUNCTION deal_sync.check_targets() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind text;
    relation regclass;
    target regclass;
    mapping deal_sync.mapping_column[];
    key_targets text[];
    stamp CONSTANT text := deal_sync.stamp_column();
    wrong record;
BEGIN
    FOREACH kind IN ARRAY ARRAY['deal', 'version'] LOOP
        relation := deal_sync.mapped(kind);
        target := deal_sync.application_table(kind, 'target');
        mapping := ARRAY(SELECT m FROM deal_sync.mapping_columns(relation) AS m);
        key_targets := CASE kind
            WHEN 'deal' THEN ARRAY['tenant_id', 'graph_opportunity_id']
            ELSE ARRAY['tenant_id', 'id', 'opportunity_id', 'version_number']
        END;

        -- The plan of a batch asks for the place of a row, which a view does not have; and MERGE takes no table with rules, not
        -- even disabled ones.
        FOR wrong IN
            SELECT
                c.relkind NOT IN ('r', 'p') AS is_no_table, r.rulename,
                CASE c.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' WHEN 'f' THEN 'a foreign table' END AS is_instead
            FROM pg_class AS c
            LEFT JOIN pg_rewrite AS r ON r.ev_class = c.oid AND r.ev_type <> '1'
            WHERE c.oid = target AND (c.relkind NOT IN ('r', 'p') OR r.oid IS NOT NULL)
            LIMIT 1
        LOOP
            IF wrong.is_no_table THEN
                RAISE EXCEPTION '% is %, and the sync writes tables only', target, coalesce(wrong.is_instead, 'no table') USING
                    ERRCODE = 'wrong_object_type',
                    DETAIL = format('Option "target" of foreign table %s names it.', relation),
                    HINT = format('ALTER FOREIGN TABLE %s OPTIONS (SET target ''schema.table'');', relation);
            END IF;
            RAISE EXCEPTION 'table % has the rule "%", and MERGE does not write a table with rules', target, wrong.rulename USING
                ERRCODE = 'feature_not_supported',
                HINT = 'Replace the rule by a trigger.';
        END LOOP;

        FOR wrong IN
            SELECT r.name
            FROM unnest(key_targets) AS r (name)
            WHERE NOT EXISTS (SELECT FROM unnest(mapping) AS m WHERE m.target = r.name AND m.write <> 'never')
        LOOP
            RAISE EXCEPTION 'no column of foreign table % has the target "%"', relation, wrong.name USING
                ERRCODE = 'undefined_column',
                HINT = 'The key needs it: SELECT deal_sync.attach() adds a column that is missing.';
        END LOOP;

        FOR wrong IN
            SELECT m.name, m.target, format_type(m.type, m.type_modifier) AS type, kind AS of_kind
            FROM unnest(mapping) AS m
            WHERE m.target IS NOT NULL AND m.write <> 'never' AND NOT coalesce(m.target_is_there, false)
        LOOP
            RAISE EXCEPTION 'column "%" of table % does not exist', wrong.target, target USING
                ERRCODE = 'undefined_column',
                DETAIL = format('Column "%s" of foreign table %s names it as its target.', wrong.name, relation),
                -- The foreign column's type says little of the target's: the migration knows the types of its columns.
                HINT = CASE WHEN EXISTS (
                    SELECT FROM deal_sync.default_columns() AS d
                    WHERE d.kind = wrong.of_kind AND d.options ->> 'target' = wrong.target
                ) THEN
                    'Run the migration (sql/migration/deal_sync.sql)'
                    || CASE WHEN wrong.target = ANY (key_targets) THEN '.' ELSE ', or ' END
                ELSE
                    format('ALTER TABLE %s ADD COLUMN %I %s; or ', target, wrong.target, wrong.type)
                END || CASE WHEN wrong.target = ANY (key_targets) THEN '' ELSE format(
                    'ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (DROP target);', relation, wrong.name
                ) END;
        END LOOP;

        FOR wrong IN
            SELECT m.name
            FROM unnest(mapping) AS m
            WHERE
                m.staged_as IS NOT NULL
                AND (
                    octet_length(m.name) > 58
                    OR m.name IN ('row_number', 'element_id', 'graph_id', 'refusal', 'conversion_errors', 'landed_id', 'shadows')
                )
        LOOP
            RAISE EXCEPTION 'column "%" of foreign table % cannot have a target under this name', wrong.name, relation USING
                ERRCODE = 'duplicate_column',
                DETAIL = 'The sync uses the name itself, or it is longer than 58 bytes.',
                HINT = format(
                    'ALTER FOREIGN TABLE %s RENAME COLUMN %I TO ...; ALTER FOREIGN TABLE %s ALTER COLUMN ... OPTIONS (ADD property %L);',
                    relation, wrong.name, relation, wrong.name
                );
        END LOOP;

        FOR wrong IN
            SELECT m.target FROM unnest(mapping) AS m
            INNER JOIN pg_attribute AS a ON a.attrelid = deal_sync.application_table(kind, 'target') AND a.attname = m.target
            WHERE m.write <> 'never' AND a.attgenerated <> ''
        LOOP
            RAISE EXCEPTION 'column "%" of table % is generated: nothing can be written to it', wrong.target, target USING
                ERRCODE = 'generated_always',
                HINT = format('ALTER FOREIGN TABLE %s ALTER COLUMN ... OPTIONS (DROP target);', relation);
        END LOOP;

        FOR wrong IN
            SELECT m.target FROM unnest(mapping) AS m
            WHERE m.target IS NOT NULL AND m.write <> 'never'
            GROUP BY m.target HAVING count(*) > 1
        LOOP
            RAISE EXCEPTION 'several columns of foreign table % have the target "%"', relation, wrong.target USING
                ERRCODE = 'duplicate_column',
                HINT = 'One of them must lose it, or be written never.';
        END LOOP;

        FOR wrong IN
            SELECT m.name, m.options ->> 'default' AS value, deal_sync.cast_error(m.options ->> 'default', m.target_type, m.target_modifier) AS error
            FROM unnest(mapping) AS m
            WHERE m.options ? 'default' AND m.target_is_there AND m.write <> 'never'
        LOOP
            -- A cast to varchar(n) cuts what is too long, an INSERT refuses it.
            CONTINUE WHEN wrong.error IS NULL AND NOT EXISTS (
                SELECT FROM unnest(mapping) AS m
                WHERE
                    m.name = wrong.name AND m.target_type IN ('varchar'::regtype, 'bpchar'::regtype) AND m.target_modifier >= 0
                    AND char_length(wrong.value) > m.target_modifier - 4
            );
            RAISE EXCEPTION 'the option default of column "%" of foreign table % does not fit its target', wrong.name, relation USING
                ERRCODE = 'datatype_mismatch',
                DETAIL = coalesce(wrong.error ->> 'message', 'It is too long.'),
                HINT = format('ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (SET "default" ...);', relation, wrong.name);
        END LOOP;

        FOR wrong IN
            SELECT m.name, m.options ->> 'fallback' AS fallback
            FROM unnest(mapping) AS m
            WHERE
                m.options ? 'fallback' AND m.write <> 'never'
                AND NOT EXISTS (SELECT FROM unnest(mapping) AS f WHERE f.name = m.options ->> 'fallback' AND f.staged_as IS NOT NULL)
        LOOP
            RAISE EXCEPTION 'column "%" of foreign table % has the fallback "%", and no column that is read has this name',
                wrong.name, relation, wrong.fallback
                USING
                    ERRCODE = 'undefined_column',
                    HINT = format('ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (SET fallback ...);', relation, wrong.name);
        END LOOP;

        FOR wrong IN
            SELECT deal_sync.table_option(kind, 'stamps') AS name, a.atttypid::regtype AS type
            FROM (SELECT 1) AS this
            LEFT JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = stamp AND a.attnum > 0 AND NOT a.attisdropped
            CROSS JOIN LATERAL deal_sync.base_type(a.atttypid, a.atttypmod) AS b
            WHERE kind = 'deal' AND deal_sync.table_option(kind, 'stamps') IS NOT NULL
                AND (b.type IS NULL OR b.type NOT IN ('timestamptz'::regtype, 'timestamp'::regtype))
        LOOP
            RAISE EXCEPTION 'column "%" of table % %', wrong.name, target,
                CASE WHEN wrong.type IS NULL THEN 'does not exist' ELSE format('is of type %s, not a timestamp', wrong.type) END
                USING
                    ERRCODE = CASE WHEN wrong.type IS NULL THEN 'undefined_column' ELSE 'datatype_mismatch' END,
                    DETAIL = format('Option "stamps" of foreign table %s names it.', relation),
                    HINT = format('ALTER FOREIGN TABLE %s OPTIONS (DROP stamps);', relation);
        END LOOP;

        -- Something must fill each column that takes no NULL and has no default. A hint gives every new row a value: a property that no
        -- node has would reject them all.
        FOR wrong IN
            SELECT
                a.attname AS name, k.type, k."default",
                b.type IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype, 'time'::regtype, 'timetz'::regtype) AS is_time,
                -- By its name, a column that a framework sets at each change.
                kind = 'deal' AND b.type IN ('timestamptz'::regtype, 'timestamp'::regtype) AND a.attname ~* '(updat|modif|chang)'
                AND NOT EXISTS (SELECT FROM pg_attribute AS u WHERE u.attrelid = target AND u.attname = stamp AND NOT u.attisdropped) AS is_stamp
            FROM pg_attribute AS a
            CROSS JOIN LATERAL deal_sync.base_type(a.atttypid, a.atttypmod) AS b
            CROSS JOIN LATERAL (
                SELECT
                    CASE
                        WHEN b.type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'bigint'
                        WHEN b.type IN ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) THEN 'double precision'
                        WHEN b.type = 'bool'::regtype THEN 'boolean'
                        WHEN b.type = deal_sync.vector_type() THEN format_type(b.type, b.modifier)
                        WHEN b.type IN ('json'::regtype, 'jsonb'::regtype) THEN 'jsonb'
                        ELSE 'text'
                    END,
                    CASE
                        WHEN b.type IN ('text'::regtype, 'varchar'::regtype) THEN ''
                        WHEN b.type = 'bool'::regtype THEN 'false'
                        WHEN b.type IN ('json'::regtype, 'jsonb'::regtype) THEN '{}'
                        WHEN b.type IN (
                            'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype, 'numeric'::regtype
                        ) THEN '0'
                        WHEN EXISTS (SELECT FROM pg_type AS y WHERE y.oid = b.type AND y.typtype = 'e') THEN (
                            SELECT v.enumlabel::text FROM pg_enum AS v WHERE v.enumtypid = b.type ORDER BY v.enumsortorder LIMIT 1
                        )
                    END
            ) AS k (type, "default")
            WHERE
                a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
                AND NOT EXISTS (SELECT FROM pg_type AS y WHERE y.oid = a.atttypid AND y.typdefault IS NOT NULL)
                AND a.attname NOT IN ('id', 'tenant_id')
                AND NOT (kind = 'deal' AND a.attname = stamp)
                AND NOT EXISTS (
                    SELECT FROM unnest(mapping) AS m
                    WHERE m.target = a.attname AND m.write <> 'never'
                )
        LOOP
            RAISE EXCEPTION 'column "%" of table % takes no NULL and has no default, and the sync does not write it', wrong.name, target USING
                ERRCODE = 'not_null_violation',
                HINT = coalesce(
                    (
                        SELECT format(
                            'ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (%s write ''insert''%s);', relation, m.name,
                            CASE WHEN m.options ? 'write' THEN 'SET' ELSE 'ADD' END,
                            CASE WHEN m.target IS NULL THEN format(', ADD target %L', wrong.name) ELSE '' END
                        )
                        FROM unnest(mapping) AS m
                        WHERE m.target = wrong.name OR (m.target IS NULL AND m.name = wrong.name)
                        LIMIT 1
                    ),
                    CASE
                        WHEN wrong.is_stamp THEN format(
                            'ALTER FOREIGN TABLE %s OPTIONS (%s stamps %L);', relation,
                            CASE WHEN deal_sync.table_option(kind, 'stamps') IS NULL THEN 'ADD' ELSE 'SET' END, wrong.name
                        )
                        WHEN wrong.is_time THEN format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT now();', target, wrong.name)
                        WHEN wrong."default" IS NULL THEN format(
                            'Give the column a default, or map it: ALTER FOREIGN TABLE %s ADD COLUMN %I %s OPTIONS (target %L, write ''insert'');'
                            ' a node without this property is rejected then.',
                            relation, wrong.name, wrong.type, wrong.name
                        )
                        ELSE format(
                            'ALTER FOREIGN TABLE %s ADD COLUMN %I %s OPTIONS (target %L, write ''insert'', "default" %L);'
                            ' or give the column of the table a default.',
                            relation, wrong.name, wrong.type, wrong.name, wrong."default"
                        )
                    END
                );
        END LOOP;
    END LOOP;

    FOR wrong IN
        SELECT l.relation, r.rulename
        FROM (SELECT deal_sync.application_table('deal', 'links')) AS l (relation)
        INNER JOIN pg_rewrite AS r ON r.ev_class = l.relation AND r.ev_type IN ('2', '3') AND r.ev_enabled <> 'D'
        LIMIT 1
    LOOP
        RAISE EXCEPTION 'table % has the rule "%", and INSERT ... ON CONFLICT does not write a table with rules', wrong.relation, wrong.rulename USING
            ERRCODE = 'feature_not_supported',
            HINT = 'Replace the rule by a trigger.';
    END LOOP;

    FOR wrong IN
        SELECT due.name, due.type, l.relation, a.atttypid AS is_of
        FROM (SELECT deal_sync.application_table('deal', 'links')) AS l (relation)
        CROSS JOIN (
            VALUES ('tenant_id', 'uuid'), ('interaction_id', 'uuid'), ('entity_id', 'uuid'), ('entity_type', 'text')
        ) AS due (name, type)
        LEFT JOIN pg_attribute AS a ON a.attrelid = l.relation AND a.attname = due.name AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN LATERAL deal_sync.base_type(a.atttypid, a.atttypmod) AS b
        WHERE a.attname IS NULL OR (due.type = 'uuid' AND b.type <> 'uuid'::regtype)
    LOOP
        RAISE EXCEPTION 'column "%" of table % %', wrong.name, wrong.relation,
            CASE WHEN wrong.is_of IS NULL THEN 'does not exist' ELSE format('is of type %s, and the sync writes a %s', wrong.is_of::regtype, wrong.type) END
            USING
                ERRCODE = CASE WHEN wrong.is_of IS NULL THEN 'undefined_column' ELSE 'datatype_mismatch' END,
                HINT = 'Run the migration (sql/migration), or ALTER FOREIGN TABLE ... OPTIONS (SET links ...) if the table is another one.';
    END LOOP;

    FOR wrong IN
        SELECT a.attname AS name, l.relation
        FROM (SELECT deal_sync.application_table('deal', 'links')) AS l (relation)
        INNER JOIN pg_attribute AS a ON a.attrelid = l.relation
        WHERE
            a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
            AND a.attname NOT IN ('tenant_id', 'interaction_id', 'entity_type', 'entity_id')
            AND NOT (a.attname = 'id' AND a.atttypid = 'uuid'::regtype)
            AND NOT (a.attname IN ('created_at', 'updated_at') AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype))
    LOOP
        RAISE EXCEPTION 'column "%" of table % takes no NULL and has no default, and the sync does not write it', wrong.name, wrong.relation USING
            ERRCODE = 'not_null_violation',
            HINT = format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT ...;', wrong.relation, wrong.name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.check_targets() IS
'internal: raises where a target of the mapping is missing, given twice, or not filled by anything';

CREATE FUNCTION deal_sync.check_writable() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'cannot sync on a standby server' USING
            ERRCODE = 'read_only_sql_transaction',
            HINT = 'Connect to the primary server.';
    ELSIF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'cannot sync in a read-only transaction' USING
            ERRCODE = 'read_only_sql_transaction',
            HINT = CASE WHEN current_setting('default_transaction_read_only')::boolean
                THEN 'SET default_transaction_read_only = off;' ELSE 'START TRANSACTION READ WRITE;' END;
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_writable() IS 'internal: raises on a standby server and in a read-only transaction';

-- Column by column, since a right may be granted so; SELECT on whole tables, for the place of a row. Replays alone update versions.
CREATE FUNCTION deal_sync.missing_rights(role regrole, OUT relation text, OUT privileges text) RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH targets (kind, relation) AS (
        SELECT k.kind, deal_sync.application_table(k.kind, 'target') FROM (VALUES ('deal'), ('version')) AS k (kind)
    ),

    written (relation, name, inserted, updated) AS (
        SELECT t.relation, m.target, true, t.kind = 'deal' AND m.write IN ('always', 'fill') AND m.target <> 'tenant_id'
        FROM targets AS t
        CROSS JOIN LATERAL deal_sync.mapping_columns(deal_sync.mapped(t.kind)) AS m
        WHERE m.target IS NOT NULL AND m.write <> 'never'
        UNION
        SELECT t.relation, own.name, true, own.name <> 'id'
        FROM targets AS t
        CROSS JOIN (VALUES ('id'), (deal_sync.stamp_column())) AS own (name)
        WHERE t.kind = 'deal'
        UNION
        SELECT deal_sync.application_table('deal', 'links'), own.name, true, false
        FROM (VALUES ('tenant_id'), ('interaction_id'), ('entity_type'), ('entity_id')) AS own (name)
    ),

    lacking (relation, privilege, name) AS (
        SELECT w.relation, p.name, w.name
        FROM written AS w
        INNER JOIN pg_attribute AS a ON a.attrelid = w.relation AND a.attname = w.name AND NOT a.attisdropped
        CROSS JOIN LATERAL (VALUES ('INSERT', w.inserted), ('UPDATE', w.updated)) AS p (name, is_due)
        WHERE p.is_due AND NOT has_column_privilege(role, w.relation, w.name, p.name)
        UNION ALL
        SELECT w.relation, 'SELECT', NULL FROM (SELECT DISTINCT relation FROM written) AS w
        WHERE NOT has_table_privilege(role, w.relation, 'SELECT')
        UNION ALL
        SELECT t.relation, 'SELECT', 'id' FROM (SELECT deal_sync.application_table('deal', 'tenants')) AS t (relation)
        WHERE NOT has_column_privilege(role, t.relation, 'id', 'SELECT')
    )

    SELECT l.relation::text, string_agg(l.privilege, ', ' ORDER BY l.privilege)
    FROM (
        SELECT
            l.relation,
            l.privilege || CASE WHEN has_any_column_privilege(role, l.relation, l.privilege)
                THEN coalesce(format(' (%s)', string_agg(quote_ident(l.name), ', ' ORDER BY l.name)), '') ELSE '' END AS privilege
        FROM lacking AS l
        GROUP BY l.relation, l.privilege
    ) AS l
    GROUP BY l.relation
    UNION ALL
    SELECT DISTINCT 'SCHEMA ' || c.relnamespace::regnamespace, 'USAGE'
    FROM written AS w
    INNER JOIN pg_class AS c ON c.oid = w.relation
    WHERE NOT has_schema_privilege(role, c.relnamespace, 'USAGE')
$$;
COMMENT ON FUNCTION deal_sync.missing_rights(regrole) IS
'internal: what a role lacks on the application''s tables to run the sync, as GRANT has it';

CREATE FUNCTION deal_sync.check_rights_of_caller() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller CONSTANT regrole := quote_ident(current_user)::regrole;
    lacks text;
    remedy text;
BEGIN
    SELECT
        string_agg(format('%s on %s', m.privileges, m.relation), ', ' ORDER BY m.relation),
        string_agg(format('GRANT %s ON %s TO %s;', m.privileges, m.relation, caller), ' ' ORDER BY m.relation)
    INTO lacks, remedy
    FROM deal_sync.missing_rights(caller) AS m;
    IF lacks IS NOT NULL THEN
        RAISE EXCEPTION 'role "%" lacks %', current_user, lacks USING
            ERRCODE = 'insufficient_privilege',
            HINT = remedy;
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_rights_of_caller() IS 'internal: raises if the caller lacks a right on the application''s tables';

-- Under the caller's rights and policies: row-level security may hide the list of tenants, and show each one by its id.
CREATE FUNCTION deal_sync.tenant_exists(tenant uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
AS $$
DECLARE
    statement CONSTANT text := format('SELECT EXISTS (SELECT FROM %s WHERE id = $1)', deal_sync.application_table('deal', 'tenants'));
    found boolean;
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    EXECUTE statement INTO found USING tenant;
    RETURN found;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION deal_sync.tenant_exists(uuid) IS 'internal: whether the caller finds the tenant in the application''s table, with app.tenant_id set to it';

CREATE FUNCTION deal_sync.raise_unknown(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'tenant % is not in table %', tenant, deal_sync.application_table('deal', 'tenants') USING
        ERRCODE = 'foreign_key_violation',
        HINT = 'Insert it there first, or check that the calling role may see it.';
END
$$;
COMMENT ON FUNCTION deal_sync.raise_unknown(uuid) IS 'internal: raises that the application does not know the tenant';

CREATE FUNCTION deal_sync.check_server() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    python CONSTANT integer := deal_sync.check_package();
BEGIN
    IF python >= 312 AND (SELECT w.fdwhandler <> 0 FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = 'neo4j') THEN
        RAISE EXCEPTION 'the foreign-data wrapper neo4j has Multicorn''s handler, and this server runs Python %.%', python / 100, python % 100 USING
            ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'From Python 3.12 on, Multicorn2 and PL/Python in one backend crash the server.',
            HINT = 'SELECT deal_sync.detach();';
    END IF;
    IF getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'the encoding of database "%" is %, and the graph''s texts need UTF8', current_database(), getdatabaseencoding() USING
            ERRCODE = 'feature_not_supported',
            HINT = 'Use a database made with ENCODING ''UTF8''.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_server() IS
'internal: raises if the server''s Python or the database''s encoding will not do, whatever the mapping is';

CREATE FUNCTION deal_sync.check_setup(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.setting(s.name) FROM deal_sync.settings() AS s;
    PERFORM deal_sync.check_source('deal');
    PERFORM deal_sync.check_source('version');
    PERFORM deal_sync.check_targets();
    IF NOT deal_sync.tenant_exists(tenant) THEN
        PERFORM deal_sync.raise_unknown(tenant);
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_setup(uuid) IS
'internal: raises a mistake of set-up before anything is read';
-- In: a tenant. Out: its deals, versions and links in the application's tables, and one run_result.

-- The reader's batches of one kind, each landed as it comes. The cursor stands in no block of its own and nothing commits here: see
-- flow.md, rules 3 and 4.
-- `selection` is the reader's; of a part of the tenant's nodes, `elements` tells which they were, `graph_ids` of which deals, `undated`
-- how those look that have no timestamp. `cleared` counts the values that the run has replaced by NULL, by column of the deals' table.
CREATE FUNCTION deal_sync.run_kind(
    kind text, selection jsonb, INOUT result deal_sync.run_result, INOUT reasons jsonb, INOUT cleared jsonb,
    OUT elements text[], OUT graph_ids text[], OUT undated jsonb, OUT completed bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statements deal_sync.statements;
    staging CONSTANT text := format('pg_temp.%I', 'deal_sync_' || kind || 's');
    limit_of_failures CONSTANT bigint := deal_sync.setting('max_rejects')::bigint;
    done bigint := 0;
    staged bigint;
    landed record;
    most record;
    read record;
    said text;
    detail text;
    hint text;
    context text;
    batches CURSOR FOR
        SELECT deal_sync.fill_staging(kind, result.tenant_id, quote_ident(current_user)::regrole, selection) AS last;
    is_part CONSTANT boolean := selection ?| ARRAY['since', 'graph_ids', 'rest'];
BEGIN
    elements := '{}';
    graph_ids := '{}';
    undated := '{}';
    completed := 0;
    FOR batch IN batches LOOP
        EXECUTE format('SELECT count(*) FROM %s', staging) INTO staged;
        IF staged <> batch.last - done THEN
            RAISE EXCEPTION 'a batch was lost: % rows staged where % were read', staged, batch.last - done USING ERRCODE = 'internal_error';
        END IF;
        IF is_part THEN
            EXECUTE format(
                'SELECT array_agg(s.element_id) AS elements, array_agg(s.graph_id) FILTER (WHERE s.graph_id IS NOT NULL) AS graph_ids,'
                ' coalesce(jsonb_object_agg(s.element_id, s.undated) FILTER (WHERE s.undated IS NOT NULL), ''{}'') AS undated FROM %s AS s',
                staging
            ) INTO read;
            elements := elements || read.elements;
            graph_ids := graph_ids || read.graph_ids;
            undated := undated || read.undated;
        END IF;
        statements := coalesce(statements, deal_sync.statements_of(kind, result.tenant_id, completes => result.mode = 'replay'));
        BEGIN
            landed := deal_sync.land_batch(kind, statements, result, reasons, cleared);
        EXCEPTION
            WHEN OTHERS OR assert_failure THEN -- the application's policies and triggers run there
                GET STACKED DIAGNOSTICS
                    said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
                PERFORM deal_sync.raise_applications(
                    SQLSTATE, said, detail, hint, context, ARRAY(SELECT s.value FROM jsonb_each_text(to_jsonb(statements)) AS s)
                );
        END;
        result := landed.result;
        reasons := landed.reasons;
        cleared := landed.cleared;
        completed := completed + landed.completed;
        done := batch.last;
        EXECUTE format('TRUNCATE %s', staging);

        IF (SELECT sum(r.value::bigint) FROM jsonb_each_text(reasons) AS r) > limit_of_failures THEN
            SELECT r.key AS reason, r.value AS times INTO most
            FROM jsonb_each_text(reasons) AS r
            ORDER BY r.value::bigint DESC
            LIMIT 1;
            RAISE EXCEPTION 'more than % rows were refused when they were written', limit_of_failures USING
                ERRCODE = 'DS001',
                DETAIL = format('Most often (%s times): %s.', most.times, most.reason),
                HINT = 'Mend the cause, or raise deal_sync.max_rejects.';
        END IF;
    END LOOP;
    IF kind = 'deal' THEN
        result.deals_read := done;
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.run_kind(text, jsonb, deal_sync.run_result, jsonb, jsonb) IS
'internal: reads and lands a tenant''s deals or versions, batch by batch';

-- `remark`: why the mode is another one than what was asked for, what a replay has completed or left out, what was cleared. Of a run that
-- has read everything, nodes of nobody are counted.
CREATE FUNCTION deal_sync.conclude_run(INOUT result deal_sync.run_result, remark text, is_full boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nobodys bigint := 0;
BEGIN
    IF is_full THEN
        nobodys := deal_sync.nobodys_nodes('deal') + deal_sync.nobodys_nodes('version');
    END IF;
    result.status := CASE WHEN result.rows_rejected + result.values_rejected > 0 THEN 'partial' ELSE 'ok' END;
    result.message := nullif(concat_ws(
        '; ',
        nullif(remark, ''),
        CASE WHEN result.status = 'partial' THEN format(
            'refused: %s rows, %s values (see deal_sync.rejects)', result.rows_rejected, result.values_rejected
        ) END,
        CASE WHEN nobodys > 0 THEN format(
            'nodes of the graph that belong to no tenant: %s (their tenant_id is absent, no text or spelled in another way)', nobodys
        ) END
    ), '');
END
$$;
COMMENT ON FUNCTION deal_sync.conclude_run(deal_sync.run_result, text, boolean) IS
'internal: status and message of a run that has landed what it read';

-- What the caller's transaction has deferred is checked now: the application's triggers.
CREATE FUNCTION deal_sync.hurry_constraints() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context);
END
$$;
COMMENT ON FUNCTION deal_sync.hurry_constraints() IS 'internal: SET CONSTRAINTS ALL IMMEDIATE, for the rest of the transaction';

-- After a full run, which has met each row that has a deal. Only where some are left it is asked which: a deal that was refused may have
-- one, too.
CREATE FUNCTION deal_sync.rows_without_deal(result deal_sync.run_result) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := format(
        'SELECT count(*) FROM %s AS t WHERE t.tenant_id = $1 AND t.graph_opportunity_id IS NOT NULL', deal_sync.application_table('deal', 'target')
    );
    held bigint;
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    BEGIN
        EXECUTE statement INTO held USING result.tenant_id;
    EXCEPTION
        WHEN OTHERS OR assert_failure THEN -- the application's policies run there
            GET STACKED DIAGNOSTICS
                said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
            PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context, ARRAY[statement]);
    END;
    IF held = result.deals_inserted + result.deals_updated + result.deals_unchanged + result.deals_adopted THEN
        RETURN 0;
    END IF;
    RETURN (SELECT u.rows_without_node FROM deal_sync.unread('deal', result.tenant_id) AS u);
END
$$;
COMMENT ON FUNCTION deal_sync.rows_without_deal(deal_sync.run_result) IS 'internal: how many of a tenant''s rows have a graph id and no deal in the graph';

CREATE FUNCTION deal_sync.left_out(only_deals text[], read text[], barred jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(concat_ws(
        '; ',
        'barred and left out: ' || nullif(count(*) FILTER (WHERE d.is_barred), 0) || ' (deal_sync.unbar() lifts it)',
        'not among the tenant''s nodes: ' || nullif(count(*) FILTER (WHERE NOT d.is_barred AND NOT d.is_read), 0)
    ), '')
    FROM (
        SELECT DISTINCT
            o.id, coalesce(jsonb_exists(barred, o.id), false) AS is_barred,
            deal_sync.to_uuid(o.id) IN (SELECT deal_sync.to_uuid(r.id) FROM unnest(read) AS r (id)) AS is_read
        FROM unnest(only_deals) AS o (id)
    ) AS d
$$;
COMMENT ON FUNCTION deal_sync.left_out(text[], text[], jsonb) IS
'internal: what the message of a replay says of deals that it was asked for and did not read';

-- `only_deals`: graph ids of the deals that a replay is for, NULL for all.
CREATE FUNCTION deal_sync.run_tenant(INOUT result deal_sync.run_result, only_deals text[] DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reading CONSTANT deal_sync.reading := deal_sync.plan_reading(result.tenant_id, result.mode);
    selection CONSTANT jsonb := reading.selection || CASE WHEN only_deals IS NULL THEN '{}' ELSE jsonb_build_object('graph_ids', only_deals) END;
    is_full CONSTANT boolean := reading.mode IN ('full', 'replay') AND only_deals IS NULL;
    values_before refcursor;
    deals record;
    versions record;
    state record;
    facts jsonb := reading.facts;
    remarks text[] := reading.remarks;
    read text[];
    deferred text;
BEGIN
    PERFORM deal_sync.hurry_constraints();
    result.mode := reading.mode;
    values_before := deal_sync.open_count(result.tenant_id);
    deals := deal_sync.run_kind('deal', selection, result, '{}', '{}');
    IF EXISTS (SELECT FROM jsonb_each_text(deals.cleared) AS c WHERE deal_sync.is_mass(c.value::bigint)) THEN
        PERFORM deal_sync.check_losses(deals.cleared, deal_sync.values_held(result.tenant_id, values_before));
    END IF;
    CLOSE values_before;
    -- All versions of a deal that is read are read, too.
    versions := deal_sync.run_kind(
        'version', CASE WHEN is_full THEN selection ELSE selection || jsonb_build_object('graph_ids', deals.graph_ids || only_deals) END,
        deals.result, deals.reasons, '{}'
    );
    result := versions.result;

    IF NOT is_full THEN
        read := deals.elements || versions.elements || ARRAY(SELECT jsonb_array_elements_text(selection -> 'elements'));
    END IF;
    SELECT s.rows_rejected, s.values_rejected INTO result.rows_rejected, result.values_rejected
    FROM deal_sync.settle_rejects(result.run_id, result.tenant_id, read) AS s;
    PERFORM deal_sync.remember_undated(result.tenant_id, read, deals.undated || versions.undated);
    -- Versions are read by a connection of their own: the server's address may have been changed meanwhile.
    SELECT g.* INTO state FROM deal_sync.graph_state(result.tenant_id, with_newest => is_full, late => NULL) AS g;
    PERFORM deal_sync.check_graph(state.database_id);
    IF is_full THEN
        IF state.newest < (reading.known ->> 'newest')::timestamptz THEN
            remarks := remarks || format(
                'the newest deal is of %s, and an earlier full run read one of %s: this may be an older copy of the graph',
                state.newest, (reading.known ->> 'newest')::timestamptz
            );
        END IF;
        facts := facts || jsonb_build_object('newest', greatest(state.newest, (reading.known ->> 'newest')::timestamptz), 'rows_without_deal', deal_sync.rows_without_deal(result));
    END IF;
    IF only_deals IS NULL THEN
        PERFORM deal_sync.record_watermark(result.tenant_id, result.run_id, reading.watermark, reading.mapping, is_full, facts);
        result.watermark := reading.watermark;
    END IF;
    result := deal_sync.conclude_run(
        result,
        concat_ws(
            '; ',
            nullif(array_to_string(remarks, '; '), ''),
            CASE WHEN versions.completed > 0 THEN format('completed: %s versions', versions.completed) END,
            deal_sync.cleared_columns(deals.cleared),
            deal_sync.left_out(only_deals, deals.graph_ids, reading.selection -> 'barred'),
            'rows whose deal is not in the graph: ' || nullif((coalesce(reading.known, '{}') || facts) ->> 'rows_without_deal', '0')
        ),
        is_full
    );

    -- As the constraints are by their definition, as far as SET CONSTRAINTS can say it: by a name that belongs to none that cannot be
    -- deferred, in a schema that the caller may use.
    SELECT string_agg(d.name, ', ') INTO deferred
    FROM (
        SELECT format('%I.%I', n.nspname, c.conname) AS name
        FROM pg_constraint AS c
        INNER JOIN pg_namespace AS n ON n.oid = c.connamespace
        WHERE has_schema_privilege(n.oid, 'USAGE')
        GROUP BY n.nspname, c.conname
        HAVING bool_and(c.condeferred)
    ) AS d;
    IF deferred IS NOT NULL THEN
        EXECUTE format('SET CONSTRAINTS %s DEFERRED', deferred);
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.run_tenant(deal_sync.run_result, text[]) IS
'internal: a whole run inside the caller''s subtransaction; constraints are immediate while it lasts';

CREATE FUNCTION deal_sync.lock_key(tenant uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT hashtextextended('deal_sync ' || tenant, 0)
$$;
COMMENT ON FUNCTION deal_sync.lock_key(uuid) IS 'internal: the advisory lock that a tenant''s runs take';

CREATE FUNCTION deal_sync.wait_for_tenant(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    PERFORM set_config('lock_timeout', deal_sync.setting('lock_timeout'), true);
    PERFORM pg_advisory_xact_lock(deal_sync.lock_key(tenant));
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'a run of tenant % is under way', tenant USING
            ERRCODE = 'lock_not_available',
            DETAIL = format('It was waited for as long as deal_sync.lock_timeout says: %s.', deal_sync.setting('lock_timeout')),
            HINT = 'Try again when it has ended: deal_sync.progress shows how far it is.';
END
$$;
COMMENT ON FUNCTION deal_sync.wait_for_tenant(uuid) IS 'internal: takes the lock of a tenant''s runs, when they have ended';

CREATE FUNCTION deal_sync.check_tenant(what text, tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- What the caller has set: it must be read before a function sets its own.
    setting CONSTANT text := nullif(current_setting('app.tenant_id', true), '');
BEGIN
    IF tenant IS NULL THEN
        RAISE EXCEPTION '% needs a tenant', what USING
            ERRCODE = 'null_value_not_allowed',
            HINT = format('SELECT * FROM %s(''00000000-0000-0000-0000-000000000000'');', what);
    ELSIF setting IS NOT NULL AND deal_sync.to_uuid(setting) IS DISTINCT FROM tenant THEN
        RAISE EXCEPTION 'app.tenant_id is set to another tenant than %', tenant USING
            ERRCODE = 'insufficient_privilege',
            HINT = 'RESET app.tenant_id, or name the tenant that it names.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_tenant(text, uuid) IS
'internal: raises where there is no tenant, or the caller has set app.tenant_id to another one';

CREATE FUNCTION deal_sync.nothing_done(result deal_sync.run_result) RETURNS deal_sync.run_result
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT result.run_id, result.tenant_id, result.mode, result.status, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL::timestamptz, 0, NULL
$$;
COMMENT ON FUNCTION deal_sync.nothing_done(deal_sync.run_result) IS 'internal: a result whose counts are zero';

CREATE FUNCTION deal_sync.summary(result deal_sync.run_result, dry_run boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat(
        'tenant ', result.tenant_id, ': ', result.status, CASE WHEN dry_run THEN ' (dry run)' END, ', ',
        CASE WHEN result.status = 'failed' THEN result.message ELSE concat_ws(
            ', ', 'deals read: ' || result.deals_read, 'inserted: ' || nullif(result.deals_inserted, 0),
            'updated: ' || nullif(result.deals_updated, 0), 'adopted: ' || nullif(result.deals_adopted, 0),
            'new versions: ' || nullif(result.versions_inserted, 0), 'new links: ' || nullif(result.links_inserted, 0), result.message
        ) END,
        format(' (%s s)', round(result.seconds::numeric, 1))
    )
$$;
COMMENT ON FUNCTION deal_sync.summary(deal_sync.run_result, boolean) IS 'internal: a run in one line, from names and counts';

CREATE FUNCTION deal_sync.target_tablespaces() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(DISTINCT format('tablespace "%s"', s.spcname), ', ')
    FROM deal_sync.target_tables() AS t (relation)
    INNER JOIN pg_database AS d ON d.datname = current_database()
    LEFT JOIN pg_index AS i ON i.indrelid = t.relation
    INNER JOIN pg_class AS c ON c.oid IN (t.relation, i.indexrelid)
    INNER JOIN pg_tablespace AS s ON s.oid = coalesce(nullif(c.reltablespace, 0), d.dattablespace)
$$;
COMMENT ON FUNCTION deal_sync.target_tablespaces() IS 'internal: where the tables that the sync writes lie, and their indexes';

-- `batch_size`: of a backfill, whose next batch is what is run; else NULL. `began`: when what is recorded as one run began.
-- The SET clauses give the caller's values back whichever way the function ends; the values for the run are set inside.
CREATE FUNCTION deal_sync.sync_tenant(
    tenant uuid, mode text, dry_run boolean, strict boolean, application_path text, only_deals text[] DEFAULT NULL,
    batch_size integer DEFAULT NULL, began timestamptz DEFAULT clock_timestamp()
) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "deal_sync.search_path" = ''
SET "app.tenant_id" = ''
SET lock_timeout = '5s'
SET row_security = on
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
SET enable_material = off
SET jit = off
SET application_name = 'deal_sync' -- the reader shows its progress there
AS $$
DECLARE
    lock_key CONSTANT bigint := deal_sync.lock_key(tenant);
    result deal_sync.run_result;
    is_set_up boolean := false;
    is_undone boolean := false;
    is_own boolean;
    holder text;
    application text;
    code text;
    said text;
    detail text;
    hint text;
    origin text;
    place text;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    PERFORM set_config(
        'deal_sync.search_path',
        concat_ws(', ', 'pg_catalog', nullif(application_path, ''), CASE WHEN application_path !~ 'pg_temp' THEN 'pg_temp' END),
        true
    );
    result.run_id := gen_random_uuid();
    result.tenant_id := tenant;
    result.mode := mode;
    result := deal_sync.nothing_done(result);

    IF pg_try_advisory_xact_lock(lock_key) THEN
        PERFORM set_config('application_name', 'deal_sync ' || replace(tenant::text, '-', ''), true);
        BEGIN
            PERFORM deal_sync.check_writable();
            PERFORM deal_sync.check_server();
            PERFORM deal_sync.check_rights_of_caller();
            PERFORM deal_sync.check_setup(tenant);
            PERFORM set_config('lock_timeout', deal_sync.setting('lock_timeout'), true);
            is_set_up := true;
            result := CASE
                WHEN batch_size IS NULL THEN deal_sync.run_tenant(result, only_deals) ELSE deal_sync.run_backfill_batch(result, batch_size)
            END;
            IF strict AND result.status = 'partial' THEN
                RAISE EXCEPTION 'the sync of tenant % met refusals, and strict allows none', tenant USING
                    ERRCODE = 'DS002',
                    DETAIL = format('Refused: %s rows, %s values.', result.rows_rejected, result.values_rejected),
                    HINT = 'Run it without strict, and see deal_sync.rejects.';
            ELSIF dry_run THEN
                is_undone := true; -- a variable outlives what is undone
                RAISE EXCEPTION USING ERRCODE = 'DS003', MESSAGE = 'dry run: everything is undone';
            END IF;
        EXCEPTION
            WHEN OTHERS OR query_canceled THEN
                GET STACKED DIAGNOSTICS
                    code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT,
                    origin := PG_DATATYPE_NAME, place := CONSTRAINT_NAME;
                -- The reader's own errors, and ours, hold nobody's data; those of the application's code may.
                is_own := origin <> 'application';
                IF is_undone THEN
                    NULL; -- the counts stay, nothing else
                ELSE
                    IF strict
                        OR (NOT is_set_up AND code NOT IN ('55P03', '40P01') AND left(code, 2) <> '53')
                        OR left(code, 2) IN ('42', '0A', '3D', '3F') OR left(code, 2) = '57' THEN
                        PERFORM deal_sync.raise_again(code, said, detail, hint, CASE WHEN is_own THEN 'own' ELSE 'application' END);
                    END IF;
                    SELECT e.message, e.detail INTO said, detail FROM deal_sync.python_error(said, detail) AS e;
                    result := deal_sync.nothing_done(result);
                    result.status := 'failed';
                    result.message := CASE
                        WHEN is_own AND (code ~ '^(DS|HV)' OR code IN ('08006', '08P01', '28P01', '53000', '53100', '53200'))
                            THEN concat_ws('; ', said, detail, nullif(hint, ''))
                        WHEN code = '55P03' THEN format(
                            'a row is locked by another transaction for longer than deal_sync.lock_timeout (%s)', deal_sync.setting('lock_timeout')
                        )
                        WHEN code = '40P01' THEN 'deadlock with another transaction'
                        WHEN code = '53100' THEN concat_ws(
                            '; ', 'no space is left on a disk of the database', 'the tables lie in ' || deal_sync.target_tablespaces(),
                            'make room and sync again; server_text in deal_sync.runs names the file'
                        )
                        ELSE format('SQLSTATE %s ended the run%s', code, CASE WHEN NOT is_own THEN ', in ' || nullif(place, '') END)
                    END || CASE WHEN batch_size IS NULL THEN '; nothing was written' ELSE '; nothing of this batch was written' END;
                END IF;
        END;
    ELSE
        SELECT format('pid %s (%s)', a.pid, a.usename), nullif(a.application_name, '') INTO holder, application
        FROM pg_locks AS l
        INNER JOIN pg_stat_activity AS a USING (pid)
        WHERE
            l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND (l.classid::bigint << 32 | l.objid::bigint) = lock_key
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database());
        result.status := 'skipped';
        result.message := format('another run of this tenant is under way: %s', coalesce(holder, 'it has just ended'));
        RAISE NOTICE '%', concat_ws(', ', result.message, application); -- a client's own text: not for the log
    END IF;

    result.seconds := extract(EPOCH FROM clock_timestamp() - began);
    -- A backfill is one run, recorded at its end.
    IF NOT dry_run AND result.status <> 'running' THEN
        PERFORM deal_sync.record_run(result, began, code, concat_ws(E'\n', said, detail));
    END IF;
    IF result.status NOT IN ('skipped', 'running') THEN
        RAISE NOTICE '%', deal_sync.summary(result, dry_run);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION deal_sync.sync_tenant(uuid, text, boolean, boolean, text, text[], integer, timestamptz) IS
'internal: sync_deals, or a batch of a backfill, after its arguments were checked';

-- application_path: a default is evaluated where the caller stands, so it brings the caller's search_path past the SET clause.
CREATE FUNCTION @extschema@.sync_deals(
    tenant uuid, mode text DEFAULT 'incremental', dry_run boolean DEFAULT FALSE, strict boolean DEFAULT FALSE,
    application_path text DEFAULT pg_catalog.current_setting('search_path')
) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.check_tenant('sync_deals', tenant);
    IF mode IS NULL OR mode NOT IN ('incremental', 'full') THEN
        RAISE EXCEPTION 'unknown mode "%"', mode USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'The mode is incremental or full.';
    END IF;
    RETURN deal_sync.sync_tenant(tenant, mode, coalesce(dry_run, false), coalesce(strict, false), coalesce(application_path, ''));
END
$$;
COMMENT ON FUNCTION @extschema@.sync_deals(uuid, text, boolean, boolean, text) IS
'copies a tenant''s deals, versions and links from the graph, in one transaction; SELECT * FROM sync_deals(tenant)';
-- In: a tenant. Out: what a full run would leave, in transactions of so many deals each; one that was killed goes on where it was.

CREATE FUNCTION deal_sync.keep_backfill(state deal_sync.backfills) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM deal_sync.backfills AS b
    WHERE b.tenant_id = state.tenant_id;
    INSERT INTO deal_sync.backfills SELECT (state).*
$$;
COMMENT ON FUNCTION deal_sync.keep_backfill(deal_sync.backfills) IS 'internal: remembers up to where a backfill has come';

-- What its batches met stays. What others met before it began was met by none of its nodes: each batch has settled its own.
CREATE FUNCTION deal_sync.end_backfill(state deal_sync.backfills, OUT rows_rejected bigint, OUT values_rejected bigint)
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
COMMENT ON FUNCTION deal_sync.end_backfill(deal_sync.backfills) IS
'internal: removes the refusals from before a backfill that it did not meet again; counts those that there are';

-- Pages are of ids, not of nodes: nodes that share an id are never apart. First all deals, then the versions by the id of their deal,
-- so that those whose deal is not in the graph come, too; after each those that have no such id. The guard against losses adds up
-- what all batches clear, and knows what was there when the first began.
CREATE FUNCTION deal_sync.run_backfill_batch(INOUT result deal_sync.run_result, batch_size integer)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reading CONSTANT deal_sync.reading := deal_sync.plan_reading(result.tenant_id, 'full');
    state deal_sync.backfills;
    kind text;
    keys text[];
    deals_before bigint;
    landed record;
    last record;
BEGIN
    PERFORM deal_sync.hurry_constraints();
    SELECT b.* INTO state FROM deal_sync.backfills AS b WHERE b.tenant_id = result.tenant_id;
    IF state.mapping <> reading.mapping THEN
        RAISE NOTICE 'the backfill of tenant % starts over, since the mapping has changed', result.tenant_id;
        state := NULL;
    END IF;
    IF state.tenant_id IS NULL THEN
        state := (
            result.tenant_id, result.run_id, reading.mapping, reading.watermark, now(), now(), 'deals', NULL, 0, '{}', '{}',
            to_jsonb(result) || reading.facts
        );
        state.held := deal_sync.values_held(result.tenant_id);
    END IF;
    result := jsonb_populate_record(result, state.counts);
    kind := CASE WHEN state.phase LIKE 'deals%' THEN 'deal' ELSE 'version' END;
    IF state.phase IN ('deals', 'versions') THEN
        keys := deal_sync.deal_keys(kind, result.tenant_id, state.after, batch_size);
    END IF;
    deals_before := result.deals_read;
    landed := deal_sync.run_kind(
        kind,
        reading.selection || CASE WHEN keys IS NULL THEN '{"rest": true}' ELSE jsonb_build_object('graph_ids', keys) END,
        result, '{}', state.cleared
    );
    result := landed.result;
    IF kind = 'deal' THEN
        result.deals_read := result.deals_read + deals_before;
        state.cleared := landed.cleared;
        PERFORM deal_sync.check_losses(state.cleared, state.held);
    END IF;
    PERFORM deal_sync.settle_rejects(result.run_id, result.tenant_id, landed.elements);
    PERFORM deal_sync.remember_undated(result.tenant_id, landed.elements, '{}');
    state.done := state.done + cardinality(landed.elements);

    IF state.phase = 'versions without deal id' THEN
        SELECT e.rows_rejected, e.values_rejected INTO result.rows_rejected, result.values_rejected FROM deal_sync.end_backfill(state) AS e;
        -- A run in between may have brought the tenant further; past what is known by now only a clock that was wrong has.
        SELECT w.watermark, w.mapping INTO last FROM deal_sync.watermark_of(result.tenant_id) AS w;
        result.watermark := CASE
            WHEN last.mapping = state.mapping AND last.watermark <= reading.watermark THEN greatest(last.watermark, state.watermark)
            ELSE state.watermark
        END;
        -- Nodes that came meanwhile may have been passed: the next run looks for them.
        PERFORM deal_sync.record_watermark(
            result.tenant_id, result.run_id, result.watermark, state.mapping, true,
            '{"deals": null, "versions": null}'
            || CASE WHEN result.watermark = state.watermark THEN jsonb_build_object('ahead', state.counts -> 'ahead', 'unsure', state.counts -> 'unsure') ELSE '{}' END
        );
        result := deal_sync.conclude_run(result, deal_sync.cleared_columns(state.cleared), true);
        RETURN;
    END IF;
    IF cardinality(keys) = batch_size THEN
        state.after := keys[batch_size];
    ELSE
        state.after := NULL;
        state.phase := CASE state.phase
            WHEN 'deals' THEN 'deals without id' WHEN 'deals without id' THEN 'versions' ELSE 'versions without deal id'
        END;
    END IF;
    result.status := 'running';
    state.batch_at := now();
    state.counts := state.counts || to_jsonb(result);
    PERFORM deal_sync.keep_backfill(state);
END
$$;
COMMENT ON FUNCTION deal_sync.run_backfill_batch(deal_sync.run_result, integer) IS
'internal: the next batch of a tenant''s backfill, or its first; its status is running until the last one has landed';

-- It commits, so it has no SET clause: search_path is set anew in each transaction.
CREATE PROCEDURE deal_sync.backfill(tenant uuid, batch_size integer DEFAULT 1000)
LANGUAGE plpgsql
AS $$
DECLARE
    began CONSTANT timestamptz := pg_catalog.clock_timestamp();
    application_path CONSTANT text := pg_catalog.current_setting('search_path');
    told timestamptz := began;
    result deal_sync.run_result;
    state record;
BEGIN
    COMMIT; -- in a transaction block this raises at once, and not after the first batch
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'deal_sync.backfill needs a tenant' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'CALL deal_sync.backfill(''00000000-0000-0000-0000-000000000000'');';
    END IF;
    PERFORM deal_sync.check_tenant('deal_sync.backfill', tenant);
    IF batch_size IS NULL OR batch_size < 1 THEN
        RAISE EXCEPTION 'a batch of "%" deals is none', batch_size USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'batch_size is the number of deals that are committed together, 1 or more.';
    END IF;
    LOOP
        result := deal_sync.sync_tenant(tenant, 'backfill', false, false, application_path, NULL, batch_size, began);
        COMMIT;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        EXIT WHEN result.status <> 'running';
        -- Another session may go on with it between two batches, and sync the tenant.
        PERFORM pg_advisory_xact_lock(deal_sync.lock_key(tenant));
        SELECT b.phase, b.done INTO state FROM deal_sync.backfills AS b WHERE b.tenant_id = tenant;
        IF state.phase IS NULL THEN
            RAISE NOTICE 'tenant %: another session has ended the backfill', tenant;
            EXIT;
        ELSIF clock_timestamp() >= told + interval '5 seconds' THEN
            told := clock_timestamp();
            RAISE NOTICE 'tenant %: backfill, % nodes read, next %', tenant, state.done, state.phase;
        END IF;
    END LOOP;
    IF result.status = 'skipped' THEN
        RAISE EXCEPTION 'the backfill of tenant % has not begun', tenant USING
            ERRCODE = 'lock_not_available',
            DETAIL = result.message,
            HINT = 'CALL it again when the other run has ended.';
    ELSIF result.status = 'failed' THEN
        RAISE EXCEPTION 'a batch of the backfill of tenant % failed', tenant USING
            ERRCODE = 'DS006',
            DETAIL = result.message,
            HINT = 'Mend the cause and CALL it again: it goes on after the last batch that was committed.';
    END IF;
END
$$;
COMMENT ON PROCEDURE deal_sync.backfill (uuid, integer) IS
'a full run of a tenant that commits after each batch of deals; killed or failed, the next CALL goes on; deal_sync.backfills shows its progress';
-- In: a tenant's graph and tables. Out: what of the one is in the other, counted or listed. Nothing is written.

-- A node of the graph (`state`: matching, differing, missing, refused), or a value in which it and its row differ (`state`: value).
-- deal: the deal's graph id; taken_by: the version that has this one's number; links: interactions.
CREATE TYPE deal_sync.comparison AS (
    kind text, state text, element_id text, graph_id text, key uuid, deal uuid, taken_by uuid, links uuid [],
    column_name text, graph_value text, table_value text
);
COMMENT ON TYPE deal_sync.comparison IS 'internal: a node of the graph beside its row';

-- Columns that a comparison need not read: vectors that refuse no row. They are most of the bytes.
CREATE FUNCTION deal_sync.embedding_columns(kind text) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(m.name), '{}')
    FROM deal_sync.mapping_columns(deal_sync.mapped(kind)) AS m
    WHERE
        m.staged_as IS NOT NULL AND m.staged_type = deal_sync.vector_type() AND NOT coalesce(m.not_null, false)
        AND coalesce(m.options ->> 'on_misfit', 'null') IN ('null', 'keep')
$$;
COMMENT ON FUNCTION deal_sync.embedding_columns(text) IS 'internal: the vector columns of a kind that can be left out when it is read';

-- By the plan of a replay (statements_of), so that what is missing or differs is what it would write. A row that a run has tried and the
-- table did not take is refused.
CREATE FUNCTION deal_sync.compare_nodes(kind text, tenant uuid, without text[], lists boolean) RETURNS SETOF deal_sync.comparison
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts CONSTANT record := deal_sync.merge_parts(kind, tenant, without, completes => true);
    statements CONSTANT deal_sync.statements := deal_sync.statements_of(kind, tenant, without, completes => true);
    staging CONSTANT text := format('pg_temp.%I', 'deal_sync_' || kind || 's');
    nodes text;
    differing text;
    batches CURSOR FOR
        SELECT deal_sync.fill_staging(kind, tenant, quote_ident(current_user)::regrole, jsonb_build_object('without', without)) AS last;
BEGIN
    SELECT format(
        $nodes$
        SELECT
            %1$L,
            CASE
                WHEN s.%2$I = ANY ($2) THEN 'refused'
                WHEN p.refusal ->> 'sqlstate' = '23503' THEN 'awaiting its deal'
                WHEN p.refusal IS NOT NULL OR p.state = 'none' THEN 'refused'
                WHEN p.state = 'unchanged' THEN 'matching'
                WHEN r.element_id IS NOT NULL THEN 'refused'
                WHEN p.state = 'changed' THEN 'differing'
                ELSE 'missing'
            END,
            s.element_id, s.graph_id, s.%3$I, s.%2$I,
            %4$s,
            ARRAY[%5$s]::uuid[], NULL, NULL, NULL
        FROM (%6$s) AS p
        INNER JOIN %7$s AS s USING (row_number)
        LEFT JOIN (
            SELECT DISTINCT j.element_id FROM deal_sync.rejects AS j
            WHERE j.tenant_id = $3 AND j.kind = %1$L AND j.level = 'row'
        ) AS r ON r.element_id = s.element_id$nodes$,
        kind, parts.owner, parts.key,
        CASE kind WHEN 'deal' THEN 'NULL::uuid' ELSE format(
            'CASE WHEN p.refusal ->> ''sqlstate'' = ''23505'' THEN (SELECT taken.id FROM %s AS taken INNER JOIN %s AS o'
            ' ON o.tenant_id = $3 AND o.id = taken.opportunity_id'
            ' WHERE taken.tenant_id = $3 AND o.graph_opportunity_id = s.%I AND taken.version_number = s.%I LIMIT 1) END',
            deal_sync.application_table('version', 'target'), deal_sync.application_table('deal', 'target'), parts.owner, parts.number
        ) END,
        string_agg(format('s.%I', c.name), ', ') FILTER (WHERE c.link),
        statements.plan, staging
    ) INTO nodes
    FROM unnest(parts.merged) AS c;
    IF lists THEN
        SELECT format(
            $differing$
            SELECT %7$L, 'value', s.element_id, s.graph_id, s.%1$I, s.%8$I, NULL::uuid, '{}'::uuid[], v.name, v.graph_value, v.table_value
            FROM (%2$s) AS s
            INNER JOIN (%6$s) AS n (kind, state, element_id, graph_id, key, deal, taken_by, links, name, graph_value, table_value)
                ON n.element_id = s.element_id AND n.state = 'differing'
            INNER JOIN %3$s AS t ON %4$s
            CROSS JOIN LATERAL (VALUES %5$s) AS v (name, differs, graph_value, table_value)
            WHERE v.differs$differing$,
            parts.key, parts.source, deal_sync.application_table(kind, 'target'), parts.matching,
            string_agg(format(
                '(%L, ROW(t.%I)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record, (%s)::text, t.%I::text)',
                c.name, c.target, c.updated, c.updated, c.target
            ), ', ' ORDER BY c.place),
            nodes, kind, parts.owner
        ) INTO differing
        FROM unnest(parts.merged) AS c
        WHERE c.updated IS NOT NULL AND c.name <> ALL (without);
    END IF;
    FOR batch IN batches LOOP
        RETURN QUERY EXECUTE nodes USING NULL::bigint[], deal_sync.barred_of(tenant), tenant;
        IF differing IS NOT NULL THEN
            RETURN QUERY EXECUTE differing USING NULL::bigint[], deal_sync.barred_of(tenant), tenant;
        END IF;
        EXECUTE format('TRUNCATE %s', staging);
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.compare_nodes(text, uuid, text[], boolean) IS
'internal: the nodes of a kind beside their rows; lists: also the values that differ';

-- `findings`: (kind, in_graph, in_table, graph_id, row_id, column_name, graph_value, table_value); in_graph and in_table say what a node or
-- a row is, and are NULL where there is none.
CREATE FUNCTION deal_sync.compare(tenant uuid, embeddings boolean, lists boolean)
RETURNS TABLE (
    kind text, in_graph text, in_table text, graph_id text, row_id text, column_name text, graph_value text, table_value text
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
SET row_security = on
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
SET jit = off
SET application_name = 'deal_sync'
AS $$
DECLARE
    code text;
    said text;
    detail text;
    hint text;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    PERFORM deal_sync.check_server();
    PERFORM deal_sync.check_setup(tenant);
    -- The first run remembers its graph; a comparison does not.
    PERFORM deal_sync.check_graph(g.database_id) FROM deal_sync.graph_state() AS g WHERE EXISTS (SELECT FROM deal_sync.graph);
    RETURN QUERY EXECUTE format(
        $findings$
        WITH found AS MATERIALIZED (
            SELECT n.*
            FROM (VALUES ('deal'), ('version')) AS k (kind)
            CROSS JOIN LATERAL deal_sync.compare_nodes(
                k.kind, $1, CASE WHEN $2 THEN '{}' ELSE deal_sync.embedding_columns(k.kind) END, $3
            ) AS n
        ),
        missing_deals AS MATERIALIZED (SELECT f.key FROM found AS f WHERE f.kind = 'deal' AND f.state = 'missing'),
        nodes AS MATERIALIZED (
            SELECT
                f.kind, f.element_id, f.graph_id, f.key, f.deal, f.taken_by, f.links,
                CASE
                    WHEN f.state <> 'awaiting its deal' THEN f.state
                    WHEN f.deal IN (SELECT m.key FROM missing_deals AS m) THEN 'missing'
                    ELSE 'refused'
                END AS state
            FROM found AS f
            WHERE f.state <> 'value'
        ),
        deals AS MATERIALIZED (
            SELECT o.id, o.graph_opportunity_id AS key FROM %1$s AS o
            WHERE o.tenant_id = $1 AND o.graph_opportunity_id IS NOT NULL
        ),
        by_key AS MATERIALIZED (
            SELECT n.kind, n.key, min(n.state) FILTER (WHERE n.state <> 'refused') AS state
            FROM nodes AS n
            WHERE n.key IS NOT NULL
            GROUP BY n.kind, n.key
        ),
        pairs AS MATERIALIZED (
            SELECT
                link.interaction_id, coalesce(d.id, n.deal) AS entity_id, min(n.deal::text) AS deal,
                bool_or(n.state <> 'refused') AS is_due, bool_or(r.element_id IS NOT NULL) AS is_refused
            FROM nodes AS n
            LEFT JOIN deals AS d ON d.key = n.deal
            CROSS JOIN LATERAL unnest(n.links) AS link (interaction_id)
            LEFT JOIN (
                SELECT DISTINCT j.element_id FROM deal_sync.rejects AS j
                WHERE j.tenant_id = $1 AND j.kind = 'link' AND j.level = 'row'
            ) AS r ON r.element_id = n.element_id
            WHERE link.interaction_id IS NOT NULL AND n.deal IS NOT NULL
            GROUP BY link.interaction_id, coalesce(d.id, n.deal)
        ),
        link_rows AS MATERIALIZED (
            SELECT DISTINCT l.interaction_id, l.entity_id FROM %3$s AS l
            WHERE l.tenant_id = $1 AND l.entity_type::text = 'opportunity' AND l.entity_id IS NOT NULL
        )
        SELECT n.kind, n.state, NULL::text, n.graph_id, NULL::text, NULL::text, NULL::text, NULL::text FROM nodes AS n
        UNION ALL
        SELECT 'deal', NULL, CASE WHEN b.key IS NULL THEN 'extra' ELSE coalesce(b.state, 'kept') END, d.key::text, d.id::text, NULL, NULL, NULL
        FROM deals AS d
        LEFT JOIN by_key AS b ON b.kind = 'deal' AND b.key = d.key
        UNION ALL
        SELECT
            'version', NULL,
            CASE
                WHEN b.key IS NOT NULL THEN coalesce(b.state, 'kept')
                WHEN v.id IN (SELECT t.taken_by FROM nodes AS t WHERE t.taken_by IS NOT NULL) THEN 'legacy'
                ELSE 'extra'
            END,
            d.key::text, v.id::text, NULL, NULL, NULL
        FROM %2$s AS v
        LEFT JOIN deals AS d ON d.id = v.opportunity_id
        LEFT JOIN by_key AS b ON b.kind = 'version' AND b.key = v.id
        WHERE v.tenant_id = $1 AND (d.id IS NOT NULL OR b.key IS NOT NULL)
        UNION ALL
        SELECT
            'link',
            CASE WHEN p.interaction_id IS NOT NULL THEN CASE
                WHEN NOT p.is_due THEN 'refused'
                WHEN l.interaction_id IS NOT NULL THEN 'matching'
                WHEN p.is_refused THEN 'refused'
                ELSE 'missing'
            END END,
            CASE WHEN l.interaction_id IS NOT NULL THEN CASE
                WHEN p.is_due THEN 'matching'
                WHEN NOT p.is_due THEN 'kept'
                WHEN d.id IS NULL THEN 'legacy'
                ELSE 'extra'
            END END,
            coalesce(p.deal, d.key::text, l.entity_id::text),
            coalesce(l.interaction_id, p.interaction_id)::text, NULL, NULL, NULL
        FROM pairs AS p
        FULL JOIN link_rows AS l ON l.interaction_id = p.interaction_id AND l.entity_id = p.entity_id
        LEFT JOIN deals AS d ON d.id = l.entity_id
        WHERE
            p.interaction_id IS NOT NULL OR d.id IS NOT NULL
            OR l.entity_id IN (SELECT g.key FROM deals AS g WHERE g.key <> g.id)
        UNION ALL
        SELECT f.kind, 'value', NULL, f.graph_id, NULL, f.column_name, f.graph_value, f.table_value
        FROM found AS f
        WHERE f.state = 'value'$findings$,
        deal_sync.application_table('deal', 'target'), deal_sync.application_table('version', 'target'),
        deal_sync.application_table('deal', 'links')
    ) USING tenant, embeddings, lists;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        PERFORM deal_sync.raise_again(code, said, detail, hint);
END
$$;
COMMENT ON FUNCTION deal_sync.compare(uuid, boolean, boolean) IS
'internal: each node and each row of a tenant, what it is to the other side; lists: also the values that differ';

CREATE FUNCTION deal_sync.reconcile(
    tenant uuid,
    OUT kind text, OUT in_graph bigint, OUT in_postgres bigint, OUT matching bigint, OUT differing bigint, OUT missing bigint,
    OUT extra bigint, OUT refused bigint, OUT legacy bigint, OUT kept bigint
) RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.check_tenant('deal_sync.reconcile', tenant);
    RETURN QUERY
    SELECT
        k.kind || 's', count(c.in_graph), count(c.in_table),
        count(*) FILTER (WHERE c.in_graph = 'matching'), count(*) FILTER (WHERE c.in_graph = 'differing'),
        count(*) FILTER (WHERE c.in_graph = 'missing'), count(*) FILTER (WHERE c.in_table = 'extra'),
        count(*) FILTER (WHERE c.in_graph = 'refused'), count(*) FILTER (WHERE c.in_table = 'legacy'),
        count(*) FILTER (WHERE c.in_table = 'kept')
    FROM (VALUES (1, 'deal'), (2, 'version'), (3, 'link')) AS k (place, kind)
    LEFT JOIN deal_sync.compare(tenant, false, false) AS c ON c.kind = k.kind
    GROUP BY k.place, k.kind
    ORDER BY k.place;
END
$$;
COMMENT ON FUNCTION deal_sync.reconcile(uuid) IS
'one row a kind: in_graph = matching + differing + missing + refused, in_postgres = matching + differing + extra + legacy + kept; writes nothing, reads no embeddings';

CREATE FUNCTION deal_sync.differences(
    tenant uuid, embeddings boolean DEFAULT FALSE,
    OUT kind text, OUT graph_id text, OUT column_name text, OUT graph_value text, OUT table_value text
) RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.check_tenant('deal_sync.differences', tenant);
    RETURN QUERY
    SELECT
        c.kind, c.graph_id, coalesce(c.column_name, ''),
        CASE WHEN c.in_graph = 'value' THEN c.graph_value WHEN c.in_graph = 'missing' THEN coalesce(c.row_id, c.graph_id) END,
        CASE WHEN c.in_graph = 'value' THEN c.table_value WHEN c.in_table = 'extra' THEN c.row_id END
    FROM deal_sync.compare(tenant, coalesce(embeddings, false), true) AS c
    WHERE c.in_graph IN ('missing', 'value') OR c.in_table = 'extra'
    ORDER BY 1, 2, 3, 4, 5;
END
$$;
COMMENT ON FUNCTION deal_sync.differences(uuid, boolean) IS
'one row a value that a replay would write; of a row that is missing, or is in the table only, one with column_name '''' and its id on the side that has it';

-- application_path: as in sync_deals().
CREATE FUNCTION deal_sync.replay(
    tenant uuid, graph_ids text[] DEFAULT NULL, application_path text DEFAULT pg_catalog.current_setting('search_path')
) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nonsense text;
BEGIN
    PERFORM deal_sync.check_tenant('deal_sync.replay', tenant);
    SELECT coalesce(g.id, 'NULL') INTO nonsense FROM unnest(graph_ids) AS g (id) WHERE deal_sync.to_uuid(g.id) IS NULL LIMIT 1;
    IF nonsense IS NOT NULL THEN
        RAISE EXCEPTION 'invalid graph id "%"', nonsense USING
            ERRCODE = 'invalid_text_representation',
            HINT = 'A deal''s graph id is a UUID: opportunities.graph_opportunity_id.';
    END IF;
    RETURN deal_sync.sync_tenant(
        tenant, 'replay', false, false, coalesce(application_path, ''),
        CASE WHEN graph_ids IS NOT NULL THEN ARRAY(SELECT deal_sync.to_uuid(g.id)::text FROM unnest(graph_ids) AS g (id)) END
    );
END
$$;
COMMENT ON FUNCTION deal_sync.replay(uuid, text[], text) IS
'lands what is missing or differs, also the values that a landed version lacks: of these deals and their versions, or, without ids, of the whole tenant; a run of mode replay';
-- In: the tenants of the graph. Out: a run of each, with a commit after it; and the records that have grown old go.

CREATE TABLE deal_sync.graph_tenants (
    tenant_id uuid PRIMARY KEY,
    deals bigint NOT NULL,
    is_known boolean NOT NULL
);
COMMENT ON TABLE deal_sync.graph_tenants IS
'the tenants that the graph had when sync_all last looked, and those that were synced before';
COMMENT ON COLUMN deal_sync.graph_tenants.deals IS 'nodes in the graph';
COMMENT ON COLUMN deal_sync.graph_tenants.is_known IS 'whether the application''s table has the tenant; one that it has not is not synced';

CREATE TABLE deal_sync.reconciliations (
    tenant_id uuid NOT NULL,
    reconciled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    missing bigint NOT NULL,
    differing bigint NOT NULL,
    extra bigint NOT NULL,
    refused bigint NOT NULL,
    report jsonb NOT NULL,
    PRIMARY KEY (tenant_id, reconciled_at)
);
COMMENT ON TABLE deal_sync.reconciliations IS 'what the nightly reconcile of a tenant found; report: its rows, one a kind';

CREATE TABLE deal_sync.removed_runs (
    tenant_id uuid NOT NULL,
    status text NOT NULL,
    runs bigint NOT NULL,
    rows_written bigint NOT NULL,
    PRIMARY KEY (tenant_id, status)
);
COMMENT ON TABLE deal_sync.removed_runs IS 'what runs that retention has removed add to the counters of deal_sync.metrics';

SELECT pg_catalog.pg_extension_config_dump('deal_sync.graph_tenants', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.reconciliations', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.removed_runs', '');

CREATE FUNCTION deal_sync.tenants_of_graph(OUT tenant_id uuid, OUT deals bigint) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import server
return server.graph_tenants(plpy)
$$;
COMMENT ON FUNCTION deal_sync.tenants_of_graph() IS 'internal: the tenants that have nodes in the graph, with their number of deals';

CREATE FUNCTION deal_sync.record_tenants(found jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM deal_sync.graph_tenants AS g
    WHERE NOT EXISTS (SELECT FROM jsonb_to_recordset(found) AS f (tenant_id uuid) WHERE f.tenant_id = g.tenant_id);

    INSERT INTO deal_sync.graph_tenants AS g (tenant_id, deals, is_known)
    SELECT f.tenant_id, f.deals, f.is_known
    FROM jsonb_to_recordset(found) AS f (tenant_id uuid, deals bigint, is_known boolean)
    ORDER BY f.tenant_id -- two at once lock in one order
    ON CONFLICT (tenant_id) DO UPDATE SET deals = excluded.deals, is_known = excluded.is_known
    WHERE (g.deals, g.is_known) IS DISTINCT FROM (excluded.deals, excluded.is_known)
$$;
COMMENT ON FUNCTION deal_sync.record_tenants(jsonb) IS 'internal: keeps the tenants of the graph in deal_sync.graph_tenants';

CREATE FUNCTION deal_sync.record_reconciliation(tenant uuid, report jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.reconciliations (tenant_id, missing, differing, extra, refused, report)
    SELECT record_reconciliation.tenant, coalesce(sum(r.missing), 0), coalesce(sum(r.differing), 0), coalesce(sum(r.extra), 0),
        coalesce(sum(r.refused), 0), record_reconciliation.report
    FROM jsonb_to_recordset(report) AS r (missing bigint, differing bigint, extra bigint, refused bigint)
$$;
COMMENT ON FUNCTION deal_sync.record_reconciliation(uuid, jsonb) IS 'internal: adds an outcome to deal_sync.reconciliations';

-- One row a tenant, each found by the index on runs. After five failures in a row the next try waits for twice the usual time, then
-- four times, up to an hour; the usual time is what lay between the first five. What people call by hand does not wait.
CREATE VIEW deal_sync.tenant_runs AS
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
    ) END AS next_try
FROM (
    SELECT s.id FROM seen AS s
    WHERE s.id IS NOT NULL
    UNION
    SELECT g.tenant_id FROM deal_sync.graph_tenants AS g
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
COMMENT ON VIEW deal_sync.tenant_runs IS 'internal: the last run and the last good run of each tenant, its failures since, and when it is tried again';

-- A full run between two batches would do at once what the backfill is to do in pieces.
CREATE FUNCTION deal_sync.is_backfilled(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM deal_sync.backfills AS b
        WHERE b.tenant_id = is_backfilled.tenant AND b.batch_at > clock_timestamp() - interval '10 minutes'
    )
$$;
COMMENT ON FUNCTION deal_sync.is_backfilled(uuid) IS 'internal: whether a backfill of the tenant is under way: its last batch began in the last ten minutes';

-- Those to sync, longest-waiting first, and those that the application does not know. A tenant that has left the graph is still
-- synced, as one without deals: else it would be late for ever, and no reconcile would tell. Asking the graph may fail as a run may: then
-- those that were synced before are what there is, and what went wrong is said in `code` and the next ones.
CREATE FUNCTION deal_sync.line_up(
    tenant uuid, OUT todo uuid[], OUT unknown uuid[], OUT code text, OUT said text, OUT detail text, OUT hint text, OUT origin text
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found jsonb;
    is_known boolean := true;
BEGIN
    IF tenant IS NOT NULL THEN
        BEGIN
            is_known := deal_sync.tenant_exists(tenant);
        EXCEPTION
            WHEN OTHERS THEN
                IF SQLSTATE LIKE '57%' THEN
                    RAISE;
                END IF; -- a mistake of set-up: the run meets it, too, and it is recorded there
        END;
        IF NOT is_known THEN
            unknown := ARRAY[tenant];
            RETURN;
        END IF;
        SELECT array_agg(tenant) INTO todo
        WHERE
            NOT EXISTS (SELECT FROM deal_sync.tenant_runs AS r WHERE r.tenant_id = tenant AND r.next_try > clock_timestamp())
            AND NOT deal_sync.is_backfilled(tenant);
        RETURN;
    END IF;
    BEGIN
        PERFORM deal_sync.check_package();
        WITH g AS MATERIALIZED (
            SELECT t.* FROM deal_sync.tenants_of_graph() AS t
        )

        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'tenant_id', f.tenant_id, 'deals', f.deals, 'is_there', f.is_there, 'is_known', deal_sync.tenant_exists(f.tenant_id)
        )), '[]') INTO found
        FROM (
            SELECT g.tenant_id, g.deals, true FROM g
            UNION ALL
            SELECT r.tenant_id, 0, false FROM deal_sync.tenant_runs AS r
            WHERE r.tried_at IS NOT NULL AND r.tenant_id NOT IN (SELECT g.tenant_id FROM g)
        ) AS f (tenant_id, deals, is_there);
        PERFORM deal_sync.record_tenants(found);
        SELECT
            array_agg(f.tenant_id) FILTER (WHERE f.is_known),
            array_agg(f.tenant_id ORDER BY f.tenant_id) FILTER (WHERE f.is_there AND NOT f.is_known)
        INTO todo, unknown
        FROM jsonb_to_recordset(found) AS f (tenant_id uuid, is_there boolean, is_known boolean);
    EXCEPTION
        WHEN OTHERS OR query_canceled THEN
            GET STACKED DIAGNOSTICS
                code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT,
                origin := PG_DATATYPE_NAME;
            origin := CASE WHEN origin = 'application' THEN origin ELSE 'own' END; -- but for tenant_exists(), the graph alone is asked
            IF left(code, 2) = '57' THEN
                PERFORM deal_sync.raise_again(code, said, detail, hint);
            END IF;
            SELECT e.message, e.detail INTO said, detail FROM deal_sync.python_error(said, detail) AS e;
            todo := ARRAY(SELECT r.tenant_id FROM deal_sync.tenant_runs AS r WHERE r.tried_at IS NOT NULL);
    END;
    SELECT array_agg(t.id ORDER BY r.tried_at NULLS FIRST, t.id) INTO todo
    FROM unnest(todo) AS t (id)
    LEFT JOIN deal_sync.tenant_runs AS r ON r.tenant_id = t.id
    WHERE (r.next_try IS NULL OR r.next_try <= clock_timestamp()) AND NOT deal_sync.is_backfilled(t.id);
END
$$;
COMMENT ON FUNCTION deal_sync.line_up(uuid) IS 'internal: the tenants that sync_all goes through, in their order';

CREATE FUNCTION deal_sync.record_failure(
    tenant uuid, mode text, began timestamptz, code text, said text, detail text, hint text, origin text
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
    result := deal_sync.nothing_done(result);
    result.message := CASE
        WHEN origin = 'own' THEN concat_ws('; ', said, nullif(detail, ''), nullif(hint, ''))
        ELSE format('SQLSTATE %s ended the run', code)
    END || '; nothing was written';
    result.seconds := extract(EPOCH FROM clock_timestamp() - began);
    PERFORM deal_sync.record_run(result, began, code, concat_ws(E'\n', said, detail));
    RETURN result;
END
$$;
COMMENT ON FUNCTION deal_sync.record_failure(uuid, text, timestamptz, text, text, text, text, text) IS
'internal: a run that ended with an error, as a row of deal_sync.runs; origin: as raise_again() has it';

CREATE FUNCTION deal_sync.attempt(tenant uuid, mode text, application_path text) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
AS $$
DECLARE
    began CONSTANT timestamptz := clock_timestamp();
    code text;
    said text;
    detail text;
    hint text;
    origin text;
BEGIN
    -- An incremental run that is skipped comes again in minutes, a full one tomorrow: it waits for a run that is under way.
    IF mode = 'full' THEN
        BEGIN
            PERFORM deal_sync.wait_for_tenant(tenant);
        EXCEPTION
            WHEN lock_not_available THEN
                NULL; -- sync_tenant() says who has it
        END;
    END IF;
    RETURN deal_sync.sync_tenant(tenant, mode, false, false, application_path);
EXCEPTION
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS
            code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, origin := PG_DATATYPE_NAME;
        IF left(code, 2) = '57' THEN
            RAISE;
        END IF;
        RETURN deal_sync.record_failure(tenant, mode, began, code, said, detail, hint, origin);
END
$$;
COMMENT ON FUNCTION deal_sync.attempt(uuid, text, text) IS
'internal: a run that records a mistake of set-up, too, and raises a cancel or termination only';

CREATE FUNCTION deal_sync.attempt_reconcile(tenant uuid) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    report jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') INTO report FROM deal_sync.reconcile(tenant) AS r;
    PERFORM deal_sync.record_reconciliation(tenant, report);
    RETURN NULL;
EXCEPTION
    WHEN OTHERS THEN
        IF SQLSTATE LIKE '57%' THEN
            RAISE;
        END IF;
        RETURN format('SQLSTATE %s ended the reconcile; SELECT * FROM deal_sync.reconcile(%L) says more', SQLSTATE, tenant);
END
$$;
COMMENT ON FUNCTION deal_sync.attempt_reconcile(uuid) IS
'internal: reconciles a tenant and keeps the outcome; returns what went wrong, or NULL';

-- The last good run of a tenant stays, unless the tenant itself is gone.
CREATE FUNCTION deal_sync.remove_records(runs_kept interval, values_kept interval, gone uuid[]) RETURNS void
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
        RETURNING r.tenant_id, r.status, r.deals_inserted + r.deals_updated + r.deals_adopted + r.versions_inserted AS rows_written
    )

    INSERT INTO deal_sync.removed_runs AS o (tenant_id, status, runs, rows_written)
    SELECT d.tenant_id, d.status, count(*), sum(d.rows_written)
    FROM removed AS d
    GROUP BY d.tenant_id, d.status
    ON CONFLICT (tenant_id, status) DO UPDATE SET runs = o.runs + excluded.runs, rows_written = o.rows_written + excluded.rows_written;

    DELETE FROM deal_sync.removed_runs AS o
    WHERE o.tenant_id = ANY (gone) AND NOT EXISTS (SELECT FROM deal_sync.runs AS r WHERE r.tenant_id = o.tenant_id);

    DELETE FROM deal_sync.watermarks AS w
    WHERE w.tenant_id = ANY (gone) AND NOT EXISTS (SELECT FROM deal_sync.runs AS r WHERE r.tenant_id = w.tenant_id);

    DELETE FROM deal_sync.backfills AS b
    WHERE b.tenant_id = ANY (gone);

    DELETE FROM deal_sync.reconciliations AS c
    WHERE c.reconciled_at < now() - runs_kept;

    DELETE FROM deal_sync.rejects AS r
    WHERE r.tenant_id = ANY (gone) AND r.last_seen < now() - values_kept;

    UPDATE deal_sync.rejects AS r SET value = NULL, server_text = NULL
    WHERE r.last_seen < now() - values_kept AND (r.value IS NOT NULL OR r.server_text IS NOT NULL);

    UPDATE deal_sync.runs AS r SET server_text = NULL
    WHERE r.started_at < now() - values_kept AND r.server_text IS NOT NULL
$$;
COMMENT ON FUNCTION deal_sync.remove_records(interval, interval, uuid[]) IS
'internal: removes runs and reconciliations that are older, and the offending values of refusals; of tenants that are gone everything';

CREATE FUNCTION deal_sync.retain() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.remove_records(
        deal_sync.setting('runs_kept')::interval,
        deal_sync.setting('values_kept')::interval,
        ARRAY(
            SELECT t.tenant_id
            FROM (
                SELECT r.tenant_id FROM deal_sync.tenant_runs AS r
                UNION
                SELECT r.tenant_id FROM deal_sync.rejects AS r
            ) AS t
            WHERE NOT deal_sync.tenant_exists(t.tenant_id)
        )
    );
END
$$;
COMMENT ON FUNCTION deal_sync.retain() IS
'removes runs older than deal_sync.runs_kept and offending values older than deal_sync.values_kept; sync_all calls it at its end';

-- It commits, so it has no SET clause: search_path is set anew in each transaction.
CREATE PROCEDURE deal_sync.sync_all(
    mode text DEFAULT 'incremental', time_limit interval DEFAULT NULL, quiet boolean DEFAULT FALSE,
    tenant uuid DEFAULT NULL, reconcile boolean DEFAULT FALSE
)
LANGUAGE plpgsql
AS $$
DECLARE
    began CONSTANT timestamptz := pg_catalog.clock_timestamp();
    application_path CONSTANT text := pg_catalog.current_setting('search_path');
    loudness CONSTANT text := pg_catalog.current_setting('client_min_messages');
    queue record;
    waiting record;
    due uuid;
    result deal_sync.run_result;
    wrong text;
    failures text[] := '{}';
    tried bigint := 0;
BEGIN
    COMMIT; -- in a transaction block this raises at once, and not after the first tenant
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM set_config('client_min_messages', CASE WHEN quiet THEN 'warning' ELSE loudness END, true);
    IF mode IS NULL OR mode NOT IN ('incremental', 'full') THEN
        RAISE EXCEPTION 'unknown mode "%"', mode USING ERRCODE = 'invalid_parameter_value', HINT = 'The mode is incremental or full.';
    ELSIF nullif(current_setting('app.tenant_id', true), '') IS NOT NULL THEN
        RAISE EXCEPTION 'app.tenant_id is set, and sync_all works for every tenant' USING
            ERRCODE = 'insufficient_privilege',
            HINT = 'RESET app.tenant_id.';
    END IF;
    PERFORM deal_sync.check_writable();

    queue := deal_sync.line_up(tenant);
    IF tenant = ANY (queue.unknown) THEN
        PERFORM deal_sync.raise_unknown(tenant);
    ELSIF queue.code IS NOT NULL THEN
        PERFORM deal_sync.record_failure(t.id, mode, began, queue.code, queue.said, queue.detail, queue.hint, queue.origin)
        FROM unnest(queue.todo) AS t (id);
        COMMIT;
        PERFORM deal_sync.raise_again(queue.code, queue.said, queue.detail, queue.hint, queue.origin);
    ELSIF queue.unknown IS NOT NULL AND NOT quiet THEN
        RAISE WARNING 'tenants of the graph that the application does not know: %', cardinality(queue.unknown) USING
            DETAIL = array_to_string(queue.unknown[1:20], ', ') || CASE WHEN cardinality(queue.unknown) > 20 THEN ', ...' ELSE '' END,
            HINT = 'They are not synced; deal_sync.tenant_status shows them as unknown.';
    END IF;
    SELECT count(*) AS tenants, min(r.next_try) AS first_try INTO waiting
    FROM deal_sync.tenant_runs AS r
    WHERE r.next_try > clock_timestamp() AND (tenant IS NULL OR r.tenant_id = tenant);
    IF waiting.tenants > 0 THEN
        RAISE NOTICE 'tenants that wait after failures in a row: %; the next is tried at %', waiting.tenants, waiting.first_try USING
            HINT = 'sync_deals(tenant) tries at once; deal_sync.tenant_status says what failed.';
    ELSIF queue.todo IS NULL THEN
        RAISE NOTICE 'no tenant of the graph is one that the application knows';
    END IF;
    COMMIT;

    FOREACH due IN ARRAY coalesce(queue.todo, '{}') LOOP
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        PERFORM set_config('client_min_messages', CASE WHEN quiet THEN 'warning' ELSE loudness END, true);
        EXIT WHEN clock_timestamp() >= began + time_limit;
        -- Another sync_all beside this one may have just done it.
        CONTINUE WHEN EXISTS (
            SELECT FROM deal_sync.runs AS r
            WHERE
                r.tenant_id = due AND r.status <> 'skipped' AND r.mode IN (sync_all.mode, 'full')
                AND r.started_at + r.seconds * interval '1 second' > began
        );
        result := deal_sync.attempt(due, mode, application_path);
        COMMIT;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        PERFORM set_config('client_min_messages', CASE WHEN quiet THEN 'warning' ELSE loudness END, true);
        tried := tried + 1;
        wrong := CASE WHEN result.status = 'failed' THEN result.message END;
        IF reconcile AND result.status IN ('ok', 'partial') THEN
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; -- beside a run of another session the numbers still add up
            PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
            PERFORM set_config('client_min_messages', CASE WHEN quiet THEN 'warning' ELSE loudness END, true);
            wrong := deal_sync.attempt_reconcile(due);
            COMMIT;
            PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        END IF;
        IF wrong IS NOT NULL THEN
            failures := failures || format('%s: %s', due, wrong);
        END IF;
    END LOOP;

    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM deal_sync.retain();
    COMMIT;
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF failures <> '{}' THEN
        RAISE EXCEPTION '% of % tenants failed', cardinality(failures), tried USING
            ERRCODE = 'DS006',
            DETAIL = array_to_string(failures[1:20], E'\n') || CASE WHEN cardinality(failures) > 20 THEN E'\n...' ELSE '' END,
            HINT = 'All others are done; deal_sync.tenant_status and deal_sync.runs say more.';
    END IF;
END
$$;
COMMENT ON PROCEDURE deal_sync.sync_all (text, interval, boolean, uuid, boolean) IS
'syncs the tenants of the graph, longest-waiting first, and commits after each; raises at its end where one failed. tenant: this one only; reconcile: afterwards each';

CREATE PROCEDURE deal_sync.nightly(tenant uuid DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL deal_sync.sync_all(mode => 'full', quiet => true, tenant => tenant, reconcile => true);
END
$$;
COMMENT ON PROCEDURE deal_sync.nightly (uuid) IS
'a full run and a reconcile of each tenant, or of one; deal_sync.tenant_status shows what it found';
-- In: a schedule as cron writes it. Out: pg_cron's jobs, and what has become of them.

CREATE FUNCTION deal_sync.next_run(schedule text, after timestamptz, zone text) RETURNS timestamptz
LANGUAGE plpython3u STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
from neo4j_deals import server
return server.next_run(plpy, schedule, after, zone)
$$;
COMMENT ON FUNCTION deal_sync.next_run(text, timestamptz, text) IS 'internal: when a schedule of pg_cron fires next';

-- With the owner's rights: the settings of pg_cron are a superuser's to see. pg_cron cannot be required by the extension, since it
-- lives in one database of the cluster only; so nothing here names its objects before they are known to be its own.
CREATE FUNCTION deal_sync.cron_facts(OUT home text, OUT version numeric, OUT zone text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        current_setting('cron.database_name', true),
        (
            SELECT substring(e.extversion FROM '^[0-9]+\.[0-9]+')::numeric
            FROM pg_extension AS e
            INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            WHERE e.extname = 'pg_cron' AND d.classid = 'pg_class'::regclass AND d.objid = to_regclass('cron.job')
        ),
        coalesce(nullif(current_setting('cron.timezone', true), ''), 'GMT')
$$;
COMMENT ON FUNCTION deal_sync.cron_facts() IS
'internal: the database that pg_cron works in (NULL: the server does not load it), its version here (NULL: it is not here), its time zone';

-- pg_cron 1.4 cuts a name at 63 bytes: what tells jobs apart stands before the database's name, which may be as long.
CREATE FUNCTION deal_sync.job_name(tenant uuid, is_nightly boolean) RETURNS name
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(
        ' ', 'deal_sync', replace(tenant::text, '-', ''), CASE WHEN is_nightly THEN 'nightly' END, current_database()
    )::name
$$;
COMMENT ON FUNCTION deal_sync.job_name(uuid, boolean) IS 'internal: the name of a job of pg_cron';

-- With the owner's rights: pg_cron shows a job to its owner only, and a monitor is to see when the next run is due. A command is not
-- shown, and only jobs with the names that schedule() gives are. What the server said of a run can hold people's data: it is for
-- whoever may be the job's owner.
CREATE FUNCTION deal_sync.scheduled_jobs(
    OUT job_id bigint, OUT job text, OUT tenant_id uuid, OUT task text, OUT owner name, OUT schedule text, OUT active boolean,
    OUT next_run timestamptz, OUT last_run timestamptz, OUT last_status text, OUT last_message text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := deal_sync.cron_facts();
BEGIN
    IF facts.version IS NULL THEN
        RETURN;
    END IF;
    FOR job_id, job, owner, schedule, active, last_run, last_status, last_message IN EXECUTE
        'SELECT j.jobid, j.jobname, j.username, j.schedule, j.active, d.start_time, d.status, CASE WHEN EXISTS ('
        'SELECT FROM pg_roles AS r WHERE r.rolname = j.username AND pg_has_role(session_user, r.oid, ''MEMBER'')'
        ') THEN d.return_message END FROM cron.job AS j '
        'LEFT JOIN LATERAL (SELECT r.* FROM cron.job_run_details AS r WHERE r.jobid = j.jobid ORDER BY r.runid DESC LIMIT 1) AS d ON true '
        'WHERE j.database = current_database() AND starts_with(j.jobname, ''deal_sync '') ORDER BY j.jobname'
    LOOP
        tenant_id := CASE
            WHEN job NOT IN (deal_sync.job_name(NULL, false), deal_sync.job_name(NULL, true)) THEN deal_sync.to_uuid(substring(job FROM 11 FOR 32))
        END;
        CONTINUE WHEN job NOT IN (deal_sync.job_name(tenant_id, false), deal_sync.job_name(tenant_id, true));
        task := CASE WHEN job = deal_sync.job_name(tenant_id, true) THEN 'full run and reconcile' ELSE 'sync' END;
        BEGIN
            next_run := CASE WHEN active THEN deal_sync.next_run(schedule, now(), facts.zone) END;
        EXCEPTION
            WHEN invalid_parameter_value THEN
                next_run := NULL; -- somebody has altered the job to a schedule that never fires
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.scheduled_jobs() IS 'internal: the rows of deal_sync.schedules';

CREATE VIEW deal_sync.schedules AS
SELECT
    s.job,
    s.task,
    s.tenant_id,
    s.schedule,
    s.active,
    s.owner,
    s.next_run,
    s.last_run,
    s.last_status,
    s.last_message
FROM deal_sync.scheduled_jobs() AS s;
COMMENT ON VIEW deal_sync.schedules IS 'the jobs that schedule() has made, when they run next and how they ended last; tenant_id NULL: all tenants';
COMMENT ON COLUMN deal_sync.schedules.last_message IS 'the server''s own words, for whoever may be the job''s owner; NULL for others';

CREATE FUNCTION deal_sync.check_cron(job text, schedule text, command text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := deal_sync.cron_facts();
    said text;
    detail text;
    hint text;
BEGIN
    BEGIN
        PERFORM deal_sync.next_run(schedule, now(), facts.zone);
    EXCEPTION
        WHEN invalid_parameter_value THEN
            GET STACKED DIAGNOSTICS said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
            PERFORM deal_sync.raise_again(SQLSTATE, said, detail, hint);
    END;
    IF facts.home IS NULL THEN
        RAISE EXCEPTION 'pg_cron is not loaded by this server' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Scheduling needs it; any other scheduler that runs SQL will do as well.',
            HINT = format(
                'Install it, set shared_preload_libraries = ''pg_cron'' and cron.database_name = %L in postgresql.conf, restart, CREATE EXTENSION pg_cron.',
                current_database()
            );
    ELSIF facts.home <> current_database() THEN
        RAISE EXCEPTION 'pg_cron works in database "%", not in "%"', facts.home, current_database() USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = format(
                'In database %I: SELECT cron.schedule_in_database(%L, %L, %L, %L); or set cron.database_name = %L in postgresql.conf and restart.',
                facts.home, job, schedule, command, current_database(), current_database()
            );
    ELSIF facts.version IS NULL THEN
        RAISE EXCEPTION 'the extension pg_cron is not in this database' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'CREATE EXTENSION pg_cron;';
    ELSIF NOT has_schema_privilege('cron', 'USAGE') THEN
        RAISE EXCEPTION 'permission denied for schema "cron"' USING
            ERRCODE = 'insufficient_privilege',
            HINT = format('GRANT USAGE ON SCHEMA cron TO %s;', quote_ident(current_user));
    ELSIF schedule ~* 'seconds?' AND facts.version < 1.5 THEN
        RAISE EXCEPTION 'pg_cron % has no schedules in seconds', facts.version USING
            ERRCODE = 'feature_not_supported',
            HINT = 'Take ''* * * * *'', or pg_cron 1.5 or newer.';
    ELSIF schedule ~ '\$' AND facts.version < 1.5 THEN
        RAISE EXCEPTION 'pg_cron % has no sign for the last day of a month', facts.version USING
            ERRCODE = 'feature_not_supported',
            HINT = 'Take pg_cron 1.5 or newer.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_cron(text, text, text) IS 'internal: raises where pg_cron cannot take this schedule here, and says what to do';

CREATE FUNCTION deal_sync.unschedule_job(job text) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed integer;
BEGIN
    IF (deal_sync.cron_facts()).version IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE 'SELECT count(cron.unschedule(j.jobid)) FROM cron.job AS j WHERE j.jobname = $1' INTO removed USING job;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION deal_sync.unschedule_job(text) IS 'internal: takes a job away, if there is one that the caller may see';

CREATE FUNCTION deal_sync.schedule(
    cron text, tenant uuid DEFAULT NULL, nightly text DEFAULT '17 2 * * *'
) RETURNS SETOF deal_sync.schedules
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    jobs CONSTANT text[] := ARRAY[deal_sync.job_name(tenant, false)::text, deal_sync.job_name(tenant, true)::text];
    named CONSTANT text := CASE WHEN tenant IS NOT NULL THEN format('tenant => %L', tenant) END;
    at record;
    others text;
BEGIN
    IF cron IS NULL THEN
        RAISE EXCEPTION 'schedule needs a schedule' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT * FROM deal_sync.schedule(''*/5 * * * *''); deal_sync.unschedule() takes it away.';
    ELSIF tenant IS NOT NULL AND NOT deal_sync.tenant_exists(tenant) THEN
        PERFORM deal_sync.raise_unknown(tenant);
    END IF;
    FOR at IN
        SELECT j.name, j.schedule, j.command
        FROM (VALUES
            (jobs[1], cron, format('CALL deal_sync.sync_all(%s)', concat_ws(', ', 'quiet => true', named))),
            (jobs[2], nightly, format('CALL deal_sync.nightly(%s)', concat(named)))
        ) AS j (name, schedule, command)
    LOOP
        IF at.schedule IS NULL THEN
            PERFORM deal_sync.unschedule_job(at.name);
        ELSE
            PERFORM deal_sync.check_cron(at.name, at.schedule, at.command);
            EXECUTE 'SELECT cron.schedule($1, $2, $3)' USING at.name, at.schedule, at.command;
        END IF;
    END LOOP;
    IF (SELECT r.rolsuper OR r.rolbypassrls FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE WARNING 'the jobs run as role "%", past row-level security', current_user USING
            HINT = 'deal_sync.unschedule(), SET ROLE to the role that is to sync, and schedule again.';
    END IF;
    SELECT string_agg(DISTINCT quote_ident(s.owner), ', ') INTO others
    FROM deal_sync.schedules AS s
    WHERE s.job = ANY (jobs) AND s.owner <> current_user;
    IF others IS NOT NULL THEN
        RAISE WARNING 'the same is scheduled by another role, too: %', others USING
            HINT = 'One of them is enough: SET ROLE to the other and deal_sync.unschedule().';
    END IF;
    RETURN QUERY SELECT s.* FROM deal_sync.schedules AS s WHERE s.job = ANY (jobs) AND s.owner = current_user;
END
$$;
COMMENT ON FUNCTION deal_sync.schedule(text, uuid, text) IS
'makes pg_cron sync all tenants, or one, at this schedule, as the calling role, and reconcile every night; again: replaces. nightly NULL: no such job';

CREATE FUNCTION deal_sync.unschedule(tenant uuid DEFAULT NULL) RETURNS integer
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(sum(deal_sync.unschedule_job(s.job)), 0)
    FROM deal_sync.schedules AS s
    WHERE s.tenant_id = unschedule.tenant OR unschedule.tenant IS NULL
$$;
COMMENT ON FUNCTION deal_sync.unschedule(uuid) IS
'takes the jobs of a tenant away, or all that schedule() has made in this database; returns how many';
-- In: a tenant who left, or a deal that must not come back. Out: no record of it here. Application rows are never touched.

CREATE FUNCTION deal_sync.remove_tenant(tenant uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM deal_sync.runs WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.rejects WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.watermarks WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.backfills WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.reconciliations WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.removed_runs WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.graph_tenants WHERE tenant_id = remove_tenant.tenant
$$;
COMMENT ON FUNCTION deal_sync.remove_tenant(uuid) IS 'internal: the body of forget() for a tenant';

CREATE FUNCTION deal_sync.bar(tenant uuid, graph_id uuid, elements text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (bar.tenant, bar.graph_id) ON CONFLICT DO NOTHING;

    DELETE FROM deal_sync.rejects AS r
    WHERE
        r.tenant_id = bar.tenant
        AND (
            r.element_id = ANY (bar.elements)
            OR deal_sync.to_uuid(CASE WHEN r.kind = 'version' THEN CASE WHEN r.sqlstate = '23503' THEN r.value END ELSE r.graph_id END) = bar.graph_id
        )
$$;
COMMENT ON FUNCTION deal_sync.bar(uuid, uuid, text[]) IS
'internal: the body of forget() for a deal; elements: its node and those of its versions, as far as they are known';

CREATE FUNCTION deal_sync.remove_bar(tenant uuid, graph_id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM deal_sync.barred AS b WHERE b.tenant_id = remove_bar.tenant AND b.graph_id = remove_bar.graph_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM deal_sync.watermarks AS w WHERE w.tenant_id = remove_bar.tenant;
    DELETE FROM deal_sync.backfills AS b WHERE b.tenant_id = remove_bar.tenant; -- it may have passed the deal by
    RETURN true;
END
$$;
COMMENT ON FUNCTION deal_sync.remove_bar(uuid, uuid) IS 'internal: the body of unbar()';

-- Of the deal's node and those of its versions, the element ids: a refusal does not name the deal of its version.
CREATE FUNCTION deal_sync.elements_of(tenant uuid, graph_id uuid) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET application_name = 'deal_sync'
AS $$
DECLARE
    current_kind text;
    owner text;
    found text[];
    elements text[] := '{}';
    -- A bound cursor fetches a row at a time: the staging table is read between two.
    batches CURSOR (of_kind text) FOR
        SELECT deal_sync.fill_staging(of_kind, tenant, quote_ident(current_user)::regrole, jsonb_build_object('graph_ids', ARRAY[graph_id])) AS last;
BEGIN
    PERFORM deal_sync.check_package();
    FOREACH current_kind IN ARRAY ARRAY['deal', 'version'] LOOP
        owner := (
            SELECT m.name FROM deal_sync.mapping_columns(deal_sync.mapped(current_kind)) AS m
            WHERE m.target = CASE current_kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'opportunity_id' END
        );
        FOR batch IN batches (current_kind) LOOP
            EXECUTE format('SELECT array_agg(s.element_id) FROM pg_temp.%I AS s WHERE s.%I = $1', 'deal_sync_' || current_kind || 's', owner)
            INTO found USING graph_id;
            elements := elements || found;
            EXECUTE format('TRUNCATE pg_temp.%I', 'deal_sync_' || current_kind || 's');
        END LOOP;
    END LOOP;
    RETURN elements;
END
$$;
COMMENT ON FUNCTION deal_sync.elements_of(uuid, uuid) IS 'internal: the nodes of a deal and of its versions';

-- A function of its own: a graph id that a query does not find is NULL, and must not cost the whole tenant's records.
CREATE FUNCTION deal_sync.forget(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.check_tenant('deal_sync.forget', tenant);
    PERFORM deal_sync.wait_for_tenant(tenant);
    PERFORM deal_sync.remove_tenant(tenant);
END
$$;
COMMENT ON FUNCTION deal_sync.forget(uuid) IS
'removes the records of a tenant: its runs, refusals, watermark and reconciliations. Rows of the application stay';

-- It waits for a run that is under way: what that lands has landed before the bar.
CREATE FUNCTION deal_sync.forget(tenant uuid, graph_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    elements text[] := '{}';
    code text;
BEGIN
    PERFORM deal_sync.check_tenant('deal_sync.forget', tenant);
    IF graph_id IS NULL THEN
        RAISE EXCEPTION 'deal_sync.forget needs the graph id of a deal' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = format('For the records of the whole tenant: SELECT deal_sync.forget(%L);', tenant);
    END IF;
    PERFORM deal_sync.wait_for_tenant(tenant);
    BEGIN
        elements := deal_sync.elements_of(tenant, graph_id);
    EXCEPTION
        WHEN OTHERS THEN
            code := SQLSTATE;
            IF left(code, 2) = '57' THEN
                RAISE;
            END IF;
            RAISE WARNING 'the graph could not be asked for the versions of deal %', graph_id USING
                DETAIL = format('SQLSTATE %s. The deal is barred all the same.', code),
                HINT = 'Refusals of its versions that are recorded leave with the next full run.';
    END;
    PERFORM deal_sync.bar(tenant, graph_id, elements);
END
$$;
COMMENT ON FUNCTION deal_sync.forget(uuid, uuid) IS
'removes the refusals of a deal and of its versions, and bars it from then on. Rows of the application stay: delete them there';

CREATE FUNCTION deal_sync.unbar(tenant uuid, graph_id uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM deal_sync.check_tenant('deal_sync.unbar', tenant);
    PERFORM deal_sync.wait_for_tenant(tenant);
    RETURN deal_sync.remove_bar(tenant, graph_id);
END
$$;
COMMENT ON FUNCTION deal_sync.unbar(uuid, uuid) IS
'lets a deal that forget() has barred land again, by the tenant''s next run, which is a full one; false where it was not barred';
-- In: runs, refusals, reconciliations, jobs. Out: what a person or a monitor wants to know. No offending value, no server's text.

CREATE TYPE deal_sync.tenant_state AS ENUM ('up to date', 'late', 'failing', 'backing off', 'never synced', 'unknown');
COMMENT ON TYPE deal_sync.tenant_state IS 'internal: what tenant_status says of a tenant';

CREATE VIEW deal_sync.tenant_status AS
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
        WHEN now() - r.good_at > late.after THEN 'late'
        ELSE 'up to date'
    END)::deal_sync.tenant_state::text AS state,
    r.good_at AS last_good_run,
    date_trunc('second', now() - r.good_at) AS lag,
    coalesce(g.deals, r.deals_read) AS deals,
    refusals.open AS refusals_open,
    refusals.new AS refusals_new,
    r.failures,
    CASE WHEN r.failures > 0 THEN r.message WHEN NOT g.is_known THEN 'the application does not know this tenant' END AS last_error,
    reconciled.reconciled_at AS last_reconcile,
    reconciled.missing,
    reconciled.differing,
    reconciled.extra,
    CASE WHEN g.is_known IS NOT FALSE THEN greatest(least(own.next_run, everybodys.next_run), r.next_try) END AS next_run
FROM deal_sync.tenant_runs AS r
CROSS JOIN (SELECT deal_sync.setting('late_after')::interval AS after) AS late
LEFT JOIN deal_sync.graph_tenants AS g ON r.tenant_id = g.tenant_id
LEFT JOIN LATERAL (
    SELECT
        count(*) AS open,
        count(*) FILTER (WHERE j.first_seen > now() - interval '1 day') AS new
    FROM deal_sync.rejects AS j
    WHERE j.tenant_id = r.tenant_id AND j.level IN ('row', 'value')
) AS refusals ON TRUE
LEFT JOIN LATERAL (
    SELECT c.* FROM deal_sync.reconciliations AS c
    WHERE c.tenant_id = r.tenant_id
    ORDER BY c.reconciled_at DESC LIMIT 1
) AS reconciled ON TRUE
LEFT JOIN planned AS own ON r.tenant_id = own.tenant_id
LEFT JOIN planned AS everybodys ON everybodys.tenant_id IS NULL;
COMMENT ON VIEW deal_sync.tenant_status IS
'one row a tenant: up to date, late, failing, backing off, never synced, or unknown to the application; and since when, with what refused';
COMMENT ON COLUMN deal_sync.tenant_status.deals IS 'nodes in the graph when sync_all last looked, else read by the last full run';
COMMENT ON COLUMN deal_sync.tenant_status.refusals_new IS 'first met in the last 24 hours';
COMMENT ON COLUMN deal_sync.tenant_status.next_run IS 'NULL where nothing is scheduled; of a tenant that is backing off: not before this time';

-- With the owner's rights: when a session's transaction began is shown to its own role only. It shows nothing else of it.
CREATE FUNCTION deal_sync.running(
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
        SELECT regexp_match(a.application_name, '^deal_sync ([0-9a-f]{32})(?: ([dv]) ([0-9]{1,18})(?:/([0-9]{1,18}))?)?$') AS found
    ) AS m
    WHERE a.datname = current_database() AND m.found IS NOT NULL AND a.state = 'active'
$$;
COMMENT ON FUNCTION deal_sync.running() IS 'internal: the runs under way in other sessions, by their application_name';

CREATE VIEW deal_sync.progress AS
SELECT
    r.pid,
    r.tenant_id,
    r.phase,
    r.done,
    r.total,
    r.started_at,
    round(r.done / nullif(extract(EPOCH FROM clock_timestamp() - r.started_at), 0)) AS per_second
FROM deal_sync.running() AS r;
COMMENT ON VIEW deal_sync.progress IS 'the runs under way: the phase, how many of its nodes have landed, of how many the graph had at its start (NULL: an incremental run)';

-- One row a metric, tenant and other label, as postgres_exporter and sql_exporter take them.
CREATE VIEW deal_sync.metrics AS
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
        FROM deal_sync.removed_runs AS o
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
INNER JOIN deal_sync.tenant_runs AS r ON s.tenant_id = r.tenant_id
CROSS JOIN LATERAL (
    VALUES
    ('deal_sync_up_to_date', 'gauge', 'Whether the tenant is up to date: 1 or 0.', (s.state = 'up to date')::integer::double precision),
    ('deal_sync_last_success_timestamp_seconds', 'gauge', 'When the last good run began.', extract(EPOCH FROM s.last_good_run)),
    ('deal_sync_lag_seconds', 'gauge', 'Time since the last good run began.', extract(EPOCH FROM now() - s.last_good_run)),
    ('deal_sync_last_run_duration_seconds', 'gauge', 'How long the last run took.', r.seconds),
    ('deal_sync_consecutive_failures', 'gauge', 'Runs that failed since the last good one.', s.failures),
    ('deal_sync_deals', 'gauge', 'Deals of the tenant in the graph.', s.deals),
    ('deal_sync_refusals_open', 'gauge', 'Rows and values that are refused at present.', s.refusals_open),
    ('deal_sync_refusals_new', 'gauge', 'Of these, first met in the last 24 hours.', s.refusals_new),
    ('deal_sync_last_reconcile_timestamp_seconds', 'gauge', 'When the last reconcile was.', extract(EPOCH FROM s.last_reconcile)),
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
CROSS JOIN unnest(enum_range(NULL::deal_sync.tenant_state)) AS e (state)
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
COMMENT ON VIEW deal_sync.metrics IS 'what a monitoring system takes: one row a metric and tenant, and status or state where a metric has that label';
-- In: the mapping and the application's tables. Out: the plan's own checks, one row a tenant.

-- What the columns are called the mapping knows: no field and no dimension is named here.
CREATE FUNCTION deal_sync.verify_tenant(
    tenant uuid,
    OUT deals bigint, OUT with_graph_id bigint, OUT with_meddic bigint, OUT meddic_filled numeric,
    OUT with_dimensions bigint, OUT with_embedding bigint, OUT versions bigint, OUT deals_with_versions bigint
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
AS $$
DECLARE
    mapping CONSTANT deal_sync.mapping_column[] := ARRAY(
        SELECT m FROM deal_sync.mapping_columns(deal_sync.mapped('deal')) AS m WHERE m.target_is_there
    );
    meddic text;
    fields integer;
    dimensions text;
    embeddings text;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    SELECT string_agg(format('(nullif(o.%I::text, '''') IS NOT NULL)::integer', f.target), ' + '), count(*)
    INTO meddic, fields
    FROM unnest(mapping) AS m
    CROSS JOIN LATERAL regexp_split_to_table(m.options ->> 'of', ' *, *') AS part (name)
    INNER JOIN unnest(mapping) AS f ON f.name = part.name
    WHERE m.options ->> 'derive' = 'meddic_completeness';
    SELECT string_agg(format('o.%I IS NOT NULL', m.target), ' OR ') FILTER (WHERE m.options ->> 'derive' = 'ontology_scores'),
        string_agg(format('o.%I IS NOT NULL', m.target), ' OR ') FILTER (WHERE m.target_type = deal_sync.vector_type())
    INTO dimensions, embeddings
    FROM unnest(mapping) AS m;

    EXECUTE format(
        $checks$
        SELECT
            count(*), count(o.graph_opportunity_id),
            count(*) FILTER (WHERE %1$s > 0), round(avg((%1$s)::numeric / %2$s) FILTER (WHERE o.graph_opportunity_id IS NOT NULL), 3),
            count(*) FILTER (WHERE %3$s), count(*) FILTER (WHERE %4$s),
            (SELECT count(*) FROM %6$s AS v WHERE v.tenant_id = $1),
            count(*) FILTER (WHERE EXISTS (SELECT FROM %6$s AS v WHERE v.tenant_id = $1 AND v.opportunity_id = o.id))
        FROM %5$s AS o
        WHERE o.tenant_id = $1$checks$,
        coalesce(meddic, '0'), greatest(fields, 1), coalesce(dimensions, 'false'), coalesce(embeddings, 'false'),
        deal_sync.application_table('deal', 'target'), deal_sync.application_table('version', 'target')
    ) INTO deals, with_graph_id, with_meddic, meddic_filled, with_dimensions, with_embedding, versions, deals_with_versions USING tenant;
END
$$;
COMMENT ON FUNCTION deal_sync.verify_tenant(uuid) IS 'internal: the row of a tenant in deal_sync.verify, with the caller''s rights';

CREATE VIEW deal_sync.verify AS
SELECT
    t.tenant_id,
    v.deals,
    v.with_graph_id,
    v.with_meddic,
    v.meddic_filled,
    v.with_dimensions,
    v.with_embedding,
    v.versions,
    v.deals_with_versions
FROM (SELECT DISTINCT r.tenant_id FROM deal_sync.runs AS r) AS t
CROSS JOIN LATERAL deal_sync.verify_tenant(t.tenant_id) AS v;
COMMENT ON VIEW deal_sync.verify IS
'of each tenant that was ever synced: its deals, how many have a graph id, a MEDDIC field, a scored dimension, an embedding, versions';
COMMENT ON COLUMN deal_sync.verify.meddic_filled IS 'the share of the MEDDIC fields that are filled, over the deals with a graph id';
-- In: a role. Out: the rights that it needs to run the sync, to watch it or to read the graph, and no more.

-- What stays with the owner: what changes the set-up, gives rights, or decides about the graph and its deals; and what
-- grant_scan() gives.
CREATE FUNCTION deal_sync.routines_of_sync() RETURNS SETOF regprocedure
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE
        e.extname = 'deal_sync'
        AND p.proname <> ALL (ARRAY[
            'attach', 'detach', 'set_handler', 'grant_sync', 'grant_monitor', 'grant_scan', 'accept_graph', 'replace_graph',
            'forget', 'unbar', 'remove_tenant', 'bar', 'remove_bar', 'scan', 'scan_rows', 'import_schema', 'import_statements'
        ])
$$;
COMMENT ON FUNCTION deal_sync.routines_of_sync() IS 'internal: what grant_sync() lets a role call';

CREATE FUNCTION deal_sync.grant_sync(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place CONSTANT regnamespace := (SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = deal_sync.entry_point());
BEGIN
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', (SELECT string_agg(r.routine::text, ', ') FROM deal_sync.routines_of_sync() AS r (routine)), role);
    IF NOT has_schema_privilege(role, place, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', place, role);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync TO %s', role);
    EXECUTE format('GRANT SELECT ON deal_sync.runs, deal_sync.rejects, deal_sync.watermarks, deal_sync.graph, deal_sync.barred, deal_sync.connections TO %s', role);
    EXECUTE format(
        'GRANT SELECT ON deal_sync.verify, deal_sync.tenant_runs, deal_sync.tenant_status, deal_sync.progress, deal_sync.metrics, deal_sync.schedules, '
        'deal_sync.reconciliations, deal_sync.backfills TO %s',
        role
    );
END
$$;
COMMENT ON FUNCTION deal_sync.grant_sync(regrole) IS
'lets a role run the sync: trust with every tenant''s graph. It needs rights on the application''s tables as well';

-- The functions are those that the views call, which PostgreSQL checks for whoever reads. Of runs and rejects all columns but those
-- that can hold people's data: a graph_id is what the graph has in that place, which need not be an id.
CREATE FUNCTION deal_sync.grant_monitor(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hidden CONSTANT name[] := ARRAY['value', 'server_text', 'graph_id'];
    log record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync TO %s', role);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION deal_sync.setting(text), deal_sync.settings(), deal_sync.running(), deal_sync.scheduled_jobs() TO %s', role
    );
    EXECUTE format('GRANT SELECT ON deal_sync.tenant_status, deal_sync.metrics, deal_sync.progress, deal_sync.schedules TO %s', role);
    FOR log IN
        SELECT a.attrelid::regclass AS relation, string_agg(quote_ident(a.attname), ', ') AS columns
        FROM pg_attribute AS a
        WHERE
            a.attrelid IN ('deal_sync.runs'::regclass, 'deal_sync.rejects'::regclass) AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attname <> ALL (hidden)
        GROUP BY a.attrelid
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON %s TO %s', log.columns, log.relation, role);
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.grant_monitor(regrole) IS
'lets a role watch the sync, of all tenants: the status views, and runs and rejects without offending values and the server''s words';

CREATE FUNCTION deal_sync.grant_scan(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync TO %s', role);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION deal_sync.scan(anyelement, uuid, text[], bigint), deal_sync.scan_rows(regclass, uuid, text[], bigint), '
        'deal_sync.check_readable(regclass, text[]), deal_sync.check_package(), deal_sync.load_package(), deal_sync.python_error(text, text), '
        'deal_sync.raise_again(text, text, text, text, text), '
        'deal_sync.import_schema(name, name, text[], text[], bigint, text), '
        'deal_sync.import_statements(name, name, text[], text[], bigint, text), deal_sync.mapping_columns(regclass), deal_sync.options_of(text[]), '
        'deal_sync.base_type(oid, integer), deal_sync.vector_type(), '
        'deal_sync.kept_connections(), deal_sync.close_connections(name), deal_sync.disconnect(name) TO %s',
        role
    );
    EXECUTE format('GRANT SELECT ON deal_sync.connections TO %s', role);
END
$$;
COMMENT ON FUNCTION deal_sync.grant_scan(regrole) IS
'lets a role call scan() and import_schema(); scan() reads only foreign tables that it may SELECT from, and both use a user mapping of its own and need USAGE on the server';
-- In: the catalog, the server's Python, the graph and the run log. Out: one row a check: name, ok, detail, hint.

-- Without the package: it may be what is missing.
CREATE FUNCTION deal_sync.python_version(OUT number integer, OUT said text)
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
import sys
return sys.version_info.major * 100 + sys.version_info.minor, f"{sys.version.split()[0]} of {sys.prefix}"
$$;
COMMENT ON FUNCTION deal_sync.python_version() IS 'internal: the Python that this server runs, 311 for 3.11, and where it lies';

CREATE FUNCTION deal_sync.package_versions() RETURNS text
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import doctor
return doctor.versions()
$$;
COMMENT ON FUNCTION deal_sync.package_versions() IS 'internal: the Python package, what it needs, and where it lies';

-- With the owner's rights: the owner's user mapping is the one that the sync uses, and only a superuser may ask where the data lies.
-- No text comes in.
CREATE FUNCTION deal_sync.examine_graph(
    is_mapped boolean, OUT name text, OUT ok boolean, OUT detail text, OUT hint text
) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import doctor
return doctor.examine(plpy, is_mapped)
$$;
COMMENT ON FUNCTION deal_sync.examine_graph(boolean) IS
'internal: the checks of doctor() that need the owner''s user mapping, or the server''s files';

CREATE FUNCTION deal_sync.check_settings(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    wrong text[] := '{}';
    remedies text[] := '{}';
    said text;
    kept record;
BEGIN
    FOR known IN SELECT s.name, count(*) OVER () AS many FROM deal_sync.settings() AS s LOOP
        BEGIN
            detail := format('%s settings are as they may be', known.many);
            PERFORM deal_sync.setting(known.name);
        EXCEPTION
            WHEN invalid_parameter_value THEN
                GET STACKED DIAGNOSTICS said := MESSAGE_TEXT;
                wrong := wrong || said;
                remedies := remedies || format('RESET deal_sync.%I;', known.name);
        END;
    END LOOP;

    -- What ALTER DATABASE and ALTER ROLE keep: a name that nobody reads, and where a bad value comes from.
    FOR kept IN
        SELECT
            split_part(c.setting, '=', 1) AS name,
            CASE
                WHEN s.setrole = 0 THEN format('ALTER DATABASE %I', current_database())
                WHEN s.setdatabase = 0 THEN format('ALTER ROLE %s', s.setrole::regrole)
                ELSE format('ALTER ROLE %s IN DATABASE %I', s.setrole::regrole, current_database())
            END AS place
        FROM pg_db_role_setting AS s
        CROSS JOIN unnest(s.setconfig) AS c (setting)
        WHERE
            c.setting LIKE 'deal\_sync.%'
            AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
    LOOP
        IF format('RESET %s;', kept.name) = ANY (remedies) THEN
            remedies := remedies || format('%s RESET %s;', kept.place, kept.name);
        ELSIF NOT EXISTS (SELECT FROM deal_sync.settings() AS s WHERE 'deal_sync.' || s.name = kept.name) THEN
            wrong := wrong || format('unknown setting "%s"', kept.name);
            remedies := remedies || format('%s RESET %s;', kept.place, kept.name);
        END IF;
    END LOOP;

    ok := cardinality(wrong) = 0;
    IF NOT ok THEN
        detail := array_to_string(wrong, '; ');
        hint := array_to_string(remedies, ' ');
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_settings() IS 'internal: whether the settings in this session have values that may be';

CREATE FUNCTION deal_sync.check_multicorn(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    python CONSTANT integer := (SELECT p.number FROM deal_sync.python_version() AS p);
    available CONSTANT text := (SELECT e.default_version FROM pg_available_extensions AS e WHERE e.name = 'multicorn');
    wrapper CONSTANT record := (SELECT w FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = 'neo4j');
    is_set CONSTANT boolean := wrapper.fdwhandler <> 0;
BEGIN
    ok := false;
    IF wrapper.fdwvalidator <> 'deal_sync.validator'::regproc THEN
        detail := format('the wrapper neo4j has the validator %s, which may let a user mapping load any code', wrapper.fdwvalidator::regproc);
        hint := 'ALTER FOREIGN DATA WRAPPER neo4j VALIDATOR deal_sync.validator;';
    ELSIF is_set AND python >= 312 THEN
        detail := format('with Python %s.%s its handler crashes the server', python / 100, python % 100);
        hint := 'SELECT deal_sync.detach();';
    ELSIF is_set AND available IS NULL THEN
        detail := 'the handler is set, and Multicorn2 is not installed any more';
        hint := 'SELECT deal_sync.detach();';
    ELSIF is_set THEN
        ok := true;
        detail := format('%s answers a SELECT on the foreign tables', available);
    ELSIF available IS NULL OR python >= 312 THEN
        ok := true;
        detail := 'not used: deal_sync.scan() reads the foreign tables';
    ELSE
        detail := format('%s is installed and not used, as after a restore or detach()', available);
        hint := coalesce(
            (
                SELECT format('SELECT deal_sync.attach(%L, %L);', s.srvname, c.relnamespace::regnamespace::text)
                FROM pg_foreign_table AS ft
                INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
                INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
                WHERE s.srvfdw = wrapper.oid AND deal_sync.options_of(ft.ftoptions) ->> 'kind' = 'deal'
                LIMIT 1
            ),
            'SELECT deal_sync.attach();'
        );
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_multicorn() IS
'internal: whether Multicorn2 is used where it is safe, and only there';

CREATE FUNCTION deal_sync.check_foreign_tables(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    server name;
    said text;
BEGIN
    SELECT min(s.srvname) INTO server
    FROM pg_foreign_server AS s
    INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    WHERE w.fdwname = 'neo4j';
    SELECT string_agg(deal_sync.mapped(k.kind)::text, ', ') INTO detail FROM (VALUES ('deal'), ('version')) AS k (kind);
    ok := true;
EXCEPTION
    WHEN undefined_object THEN
        GET STACKED DIAGNOSTICS detail := MESSAGE_TEXT, said := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        ok := false;
        detail := format('%s: %s', detail, said);
        hint := coalesce(
            (
                SELECT string_agg(DISTINCT format('ALTER %s OWNER TO %s;', o.object, e.extowner::regrole), ' ')
                FROM pg_foreign_table AS ft
                INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
                INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
                INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'neo4j'
                INNER JOIN pg_extension AS e ON e.extname = 'deal_sync'
                CROSS JOIN LATERAL (VALUES
                    (format('FOREIGN TABLE %s', c.oid::regclass), c.relowner), (format('SERVER %I', s.srvname), s.srvowner)
                ) AS o (object, owner)
                INNER JOIN pg_roles AS r ON r.oid = o.owner
                WHERE deal_sync.options_of(ft.ftoptions) ? 'kind' AND NOT r.rolsuper AND r.oid <> e.extowner
            ),
            CASE WHEN server IS NOT NULL THEN format('SELECT deal_sync.attach(%L);', server) END,
            hint
        );
END
$$;
COMMENT ON FUNCTION deal_sync.check_foreign_tables() IS 'internal: whether foreign tables map deals and versions';

-- A table that has policies gets one for the role alone: a further one for everybody would show others what theirs hide from them.
CREATE FUNCTION deal_sync.check_row_security(role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deals CONSTANT regclass := deal_sync.application_table('deal', 'target');
    own CONSTANT text := 'deal_sync_' || (SELECT r.rolname FROM pg_roles AS r WHERE r.oid = role);
BEGIN
    SELECT
        coalesce(string_agg(
            CASE WHEN u.is_on THEN format('%s has no policy for %s by role "%s"', u.relation, u.commands, role) ELSE format('%s has none', u.relation) END,
            '; ' ORDER BY u.relation
        ), 'on, with a policy, on all that the sync writes'),
        string_agg(
            CASE
                WHEN NOT u.is_on
                    THEN format('ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY; ALTER TABLE %1$s FORCE ROW LEVEL SECURITY;', u.relation)
                ELSE ''
            END
            || CASE
                WHEN u.commands IS NOT NULL
                    THEN format(
                        ' CREATE POLICY %I ON %s%s USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid);',
                        CASE WHEN u.has_policies THEN own ELSE 'deal_sync_tenant' END, u.relation,
                        CASE WHEN u.has_policies THEN format(' TO %s', role) END
                    )
                ELSE ''
            END,
            ' ' ORDER BY u.relation
        ),
        count(*) = 0
    INTO detail, hint, ok
    FROM (
        SELECT
            t.relation, c.relrowsecurity AS is_on, lacking.commands,
            EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = t.relation) AS has_policies
        FROM deal_sync.target_tables() AS t (relation)
        INNER JOIN pg_class AS c ON c.oid = t.relation
        CROSS JOIN LATERAL (
            SELECT string_agg(d.command, ', ' ORDER BY d.place) AS commands
            FROM (VALUES (1, 'SELECT', 'r'), (2, 'INSERT', 'a'), (3, 'UPDATE', 'w')) AS d (place, command, code)
            WHERE (d.code <> 'w' OR t.relation = deals) AND NOT EXISTS (
                SELECT FROM pg_policy AS p
                WHERE
                    p.polrelid = t.relation AND p.polpermissive AND p.polcmd::text IN ('*', d.code)
                    AND EXISTS (SELECT FROM unnest(p.polroles) AS r (oid) WHERE r.oid = 0 OR pg_has_role(role, r.oid, 'USAGE'))
            )
        ) AS lacking
        WHERE NOT c.relrowsecurity OR lacking.commands IS NOT NULL
    ) AS u;
END
$$;
COMMENT ON FUNCTION deal_sync.check_row_security(regrole) IS
'internal: whether row-level security is on for the tables that the sync writes, with policies by which the role can';

-- After a transaction that set app.tenant_id locally it is '', and no longer unset. A cast of '' raises; asking does where it is unset.
CREATE FUNCTION deal_sync.check_policies(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cast_one CONSTANT text := '\(current_setting\((''[^'']+'')::text(?:, (?:true|false))?\)\)::(uuid|integer|bigint)';
    tolerant CONSTANT text := '(nullif(current_setting(\1, true), ''''))::\2';
    bare_one CONSTANT text := 'current_setting\((''[^'']+''::text)(?:, false)?\)';
BEGIN
    SELECT
        coalesce(
            'raises where the setting is '''' or unset: ' || string_agg(format('"%s" of %s', w.polname, w.relation), ', ' ORDER BY w.relation, w.polname),
            'none raises where app.tenant_id is '''' or unset'
        ),
        string_agg(
            format(
                'ALTER POLICY %I ON %s%s%s;', w.polname, w.relation,
                ' USING (' || regexp_replace(regexp_replace(w.qual, cast_one, tolerant, 'g'), bare_one, 'current_setting(\1, true)', 'g') || ')',
                ' WITH CHECK ('
                || regexp_replace(regexp_replace(w.with_check, cast_one, tolerant, 'g'), bare_one, 'current_setting(\1, true)', 'g') || ')'
            ),
            ' ' ORDER BY w.relation, w.polname
        ),
        count(*) = 0
    INTO detail, hint, ok
    FROM (
        SELECT
            t.relation, p.polname, pg_get_expr(p.polqual, p.polrelid) AS qual, pg_get_expr(p.polwithcheck, p.polrelid) AS with_check
        FROM deal_sync.target_tables() AS t (relation)
        INNER JOIN pg_policy AS p ON p.polrelid = t.relation
    ) AS w
    WHERE concat_ws(' ', w.qual, w.with_check) ~ concat_ws('|', cast_one, bare_one);
END
$$;
COMMENT ON FUNCTION deal_sync.check_policies() IS
'internal: whether a policy of the tables that the sync writes raises in a session without a tenant';

CREATE FUNCTION deal_sync.check_role(role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := (SELECT r FROM pg_roles AS r WHERE r.oid = role);
BEGIN
    ok := NOT facts.rolbypassrls AND NOT facts.rolsuper;
    IF facts.rolsuper THEN
        ok := NULL;
        detail := format('"%s" is a superuser, whom no policy and no right binds', facts.rolname);
        hint := format('look with the scheduler''s role: SELECT * FROM deal_sync.doctor(%L);', coalesce(
            (
                SELECT min(a.grantee::regrole::text)
                FROM pg_proc AS p
                CROSS JOIN LATERAL aclexplode(p.proacl) AS a
                WHERE p.oid = deal_sync.entry_point() AND a.grantee NOT IN (0, p.proowner)
            ),
            '...'
        ));
    ELSIF facts.rolbypassrls THEN
        detail := format('"%s" bypasses row-level security: it could write into another tenant''s rows', facts.rolname);
        hint := format('ALTER ROLE %s NOBYPASSRLS;', role);
    ELSE
        detail := format('"%s" is bound by row-level security', facts.rolname);
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_role(regrole) IS 'internal: whether row-level security binds a role';

CREATE FUNCTION deal_sync.entry_point() RETURNS regprocedure
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE e.extname = 'deal_sync' AND p.proname = 'sync_deals'
$$;
COMMENT ON FUNCTION deal_sync.entry_point() IS 'internal: sync_deals, in whichever schema it stands';

CREATE FUNCTION deal_sync.check_rights(role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT
        coalesce(
            format('"%s" lacks ', role) || string_agg(format('%s on %s', l.privileges, l.relation), ', ' ORDER BY l.relation),
            format('"%s" may read and write what the sync does', role)
        ),
        string_agg(format('GRANT %s ON %s TO %s;', l.privileges, l.relation, role), ' ' ORDER BY l.relation),
        count(*) = 0
    INTO detail, hint, ok
    FROM deal_sync.missing_rights(role) AS l;
END
$$;
COMMENT ON FUNCTION deal_sync.check_rights(regrole) IS
'internal: whether a role has the rights on the application''s tables that the sync needs';

CREATE FUNCTION deal_sync.check_pg_cron(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := deal_sync.cron_facts();
BEGIN
    ok := false;
    IF NOT EXISTS (SELECT FROM pg_available_extensions AS e WHERE e.name = 'pg_cron') THEN
        detail := 'not installed: no schedule by deal_sync.schedule(); any other scheduler will do';
        hint := format('install the package postgresql-%s-cron', current_setting('server_version_num')::integer / 10000);
    ELSIF facts.home IS NULL THEN
        detail := 'not loaded';
        hint := 'add pg_cron to shared_preload_libraries in postgresql.conf, and restart the server';
    ELSIF facts.home <> current_database() THEN
        detail := format('it works in database "%s", and this one is "%s"', facts.home, current_database());
        hint := format('ALTER SYSTEM SET cron.database_name = %L; then restart the server', current_database());
    ELSIF facts.version IS NULL THEN
        detail := 'not created in this database';
        hint := 'CREATE EXTENSION pg_cron;';
    ELSE
        ok := true;
        detail := facts.version::text;
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_pg_cron() IS 'internal: whether pg_cron works in this database';

-- Dynamic: the schema cron need not be there when this is planned.
CREATE FUNCTION deal_sync.check_schedule(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    no_login boolean;
BEGIN
    IF NOT has_schema_privilege('cron', 'USAGE') THEN
        ok := false;
        detail := format('"%s" may not see the jobs of pg_cron, or make one', current_user);
        hint := format('GRANT USAGE ON SCHEMA cron TO %I;', current_user);
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT string_agg(format(''"%%s" at %%s%%s'', coalesce(j.jobname, j.jobid::text), j.schedule,'
        ' CASE d.status WHEN ''failed'' THEN '' (failed the last time)'' END), '', '' ORDER BY j.jobid),'
        ' NOT coalesce(bool_or(d.status = ''failed''), false), bool_or(d.return_message = ''connection failed'')'
        ' FROM %s AS j LEFT JOIN LATERAL ('
        'SELECT r.status, r.return_message FROM %s AS r WHERE r.jobid = j.jobid AND r.status IN (''succeeded'', ''failed'') ORDER BY r.runid DESC LIMIT 1'
        ') AS d ON true WHERE j.active AND j.database = current_database() AND j.command ~ ''\m(sync_all|nightly|sync_deals)\M''',
        to_regclass('cron.job'), to_regclass('cron.job_run_details')
    )
    INTO detail, ok, no_login;
    IF detail IS NULL THEN
        ok := false;
        detail := 'no job of this role runs the sync';
        hint := 'SELECT deal_sync.schedule(''*/5 * * * *'');';
    ELSIF no_login THEN
        hint := 'pg_cron cannot log in: set cron.use_background_workers = on in postgresql.conf and restart; or let the role in by pg_hba.conf';
    ELSIF NOT ok THEN
        hint := 'SELECT * FROM deal_sync.schedules; says what failed, and deal_sync.tenant_status of which tenant.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_schedule() IS 'internal: whether pg_cron runs the sync, and did the last time; a role sees its own jobs';

CREATE FUNCTION deal_sync.check_last_run(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    late CONSTANT interval := '1 day';
    last record;
BEGIN
    ok := false;
    IF NOT has_table_privilege('deal_sync.runs', 'SELECT') THEN
        detail := format('"%s" may not read deal_sync.runs', current_user);
        hint := format('SELECT deal_sync.grant_sync(%L);', quote_ident(current_user));
        RETURN;
    END IF;
    SELECT
        count(*) AS tenants,
        count(*) FILTER (WHERE r.status = 'failed') AS failed,
        max(r.started_at) AS started_at,
        (array_agg(r.tenant_id ORDER BY r.status = 'failed' DESC, r.started_at DESC))[1] AS tenant_id,
        (array_agg(r.message ORDER BY r.status = 'failed' DESC, r.started_at DESC))[1] AS message
    INTO last
    FROM (
        SELECT DISTINCT ON (r.tenant_id) r.tenant_id, r.status, r.message, r.started_at
        FROM deal_sync.runs AS r
        WHERE
            r.status <> 'skipped'
            AND NOT EXISTS (SELECT FROM deal_sync.tenant_status AS s WHERE s.tenant_id = r.tenant_id AND s.state = 'unknown')
        ORDER BY r.tenant_id ASC, r.started_at DESC
    ) AS r;

    IF last.tenants = 0 THEN
        detail := 'there was none yet';
        hint := 'SELECT * FROM sync_deals(''...'');';
        RETURN;
    END IF;
    hint := format('SELECT * FROM sync_deals(%L);', last.tenant_id);
    IF last.failed > 0 THEN
        detail := format('tenants for which it failed: %s of %s, the newest: %s', last.failed, last.tenants, last.message);
    ELSIF last.started_at < now() - late THEN
        detail := format('the newest began at %s, more than a day ago', to_char(last.started_at, 'YYYY-MM-DD HH24:MI TZ'));
    ELSE
        ok := true;
        hint := NULL;
        detail := format('none failed, tenants: %s; the newest began at %s', last.tenants, to_char(last.started_at, 'YYYY-MM-DD HH24:MI TZ'));
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_last_run() IS
'internal: whether the last run of a tenant failed, or the newest of all is more than a day old';

CREATE FUNCTION deal_sync.examine(name text, role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    newest text;
BEGIN
    ok := true;
    CASE examine.name
        WHEN 'python' THEN
            SELECT p.number >= 311, p.said INTO ok, detail FROM deal_sync.python_version() AS p;
            hint := CASE WHEN NOT ok THEN 'PL/Python must run Python 3.11 or newer' END;
        WHEN 'package' THEN
            PERFORM deal_sync.check_package();
            detail := deal_sync.package_versions();
        WHEN 'extension' THEN
            SELECT e.extversion, a.default_version INTO detail, newest
            FROM pg_extension AS e
            LEFT JOIN pg_available_extensions AS a ON a.name = e.extname
            WHERE e.extname = 'deal_sync';
            IF newest IS DISTINCT FROM detail THEN
                ok := false;
                detail := format('%s, and the files installed are of %s', detail, coalesce(newest, 'none'));
                hint := 'ALTER EXTENSION deal_sync UPDATE;';
            END IF;
        WHEN 'encoding' THEN
            ok := getdatabaseencoding() = 'UTF8';
            detail := getdatabaseencoding();
            hint := CASE WHEN NOT ok THEN 'use a database made with ENCODING ''UTF8''' END;
        WHEN 'writable' THEN
            PERFORM deal_sync.check_writable();
            detail := 'no standby server, and transactions may write';
        WHEN 'settings' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_settings() AS c;
        WHEN 'multicorn' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_multicorn() AS c;
        WHEN 'foreign tables' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_foreign_tables() AS c;
        WHEN 'target tables' THEN
            SELECT string_agg(t.relation::text, ', ') INTO detail
            FROM (
                SELECT x.relation FROM deal_sync.target_tables() AS x (relation)
                UNION ALL
                SELECT deal_sync.application_table('deal', 'tenants')
            ) AS t;
        WHEN 'target columns' THEN
            PERFORM deal_sync.check_targets();
            detail := 'each target is there, once, and nothing is left unfilled';
        WHEN 'target types' THEN
            PERFORM deal_sync.check_source(k.kind) FROM (VALUES ('deal'), ('version')) AS k (kind);
            detail := 'each target can take what the mapping sends there';
        WHEN 'row security' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_row_security(role) AS c;
        WHEN 'policies' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_policies() AS c;
        WHEN 'role' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_role(role) AS c;
        WHEN 'rights on tables' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_rights(role) AS c;
        WHEN 'rights on sync' THEN
            ok := NOT EXISTS (
                SELECT FROM deal_sync.routines_of_sync() AS r (routine)
                INNER JOIN pg_proc AS p ON p.oid = r.routine
                WHERE NOT has_function_privilege(role, r.routine, 'EXECUTE') OR NOT has_schema_privilege(role, p.pronamespace, 'USAGE')
            );
            detail := format('"%s" may %s', role, CASE WHEN ok THEN 'run sync_deals' ELSE 'not run sync_deals, or not all that it calls' END);
            hint := CASE WHEN NOT ok THEN format('SELECT deal_sync.grant_sync(%L);', role) END;
        WHEN 'pg_cron' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_pg_cron() AS c;
        WHEN 'schedule' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_schedule() AS c;
        WHEN 'last run' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM deal_sync.check_last_run() AS c;
    END CASE;
END
$$;
COMMENT ON FUNCTION deal_sync.examine(text, regrole) IS
'internal: one check of doctor(), all but those of examine_graph(); what it raises is a finding, too';

-- The graph's checks stand where 'graph' stands; their own order and what they hang on are theirs.
CREATE FUNCTION deal_sync.doctor(role regrole DEFAULT NULL)
RETURNS TABLE (name text, ok boolean, detail text, hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    whose CONSTANT regrole := coalesce(role, quote_ident(current_user)::regrole);
    failed text[] := '{}';
    this record;
    found record;
    lost text;
    code text;
    said text;
    more text;
BEGIN
    FOR this IN
        SELECT c.name, c.needs
        FROM (VALUES
            ('python', '{}'),
            ('package', '{python}'),
            ('extension', '{}'),
            ('encoding', '{}'),
            ('writable', '{}'),
            ('settings', '{}'),
            ('multicorn', '{python}'),
            ('foreign tables', '{}'),
            ('graph', '{package}'),
            ('target tables', '{foreign tables}'),
            ('target columns', '{target tables}'),
            ('target types', '{package,target columns,user mapping}'),
            ('row security', '{target tables}'),
            ('policies', '{target tables}'),
            ('role', '{}'),
            ('rights on tables', '{target tables}'),
            ('rights on sync', '{}'),
            ('pg_cron', '{}'),
            ('schedule', '{pg_cron}'),
            ('last run', '{}')
        ) AS c (name, needs)
    LOOP
        name := this.name;
        hint := NULL;
        lost := (
            SELECT n.need FROM unnest(this.needs::text[]) WITH ORDINALITY AS n (need, place)
            WHERE n.need = ANY (failed) ORDER BY n.place LIMIT 1
        );
        IF lost IS NOT NULL THEN
            ok := NULL;
            detail := format('not checked: %s', lost);
        ELSE
            BEGIN
                IF name = 'graph' THEN
                    FOR found IN SELECT g.* FROM deal_sync.examine_graph('foreign tables' <> ALL (failed)) AS g LOOP
                        name := found.name;
                        ok := found.ok;
                        detail := found.detail;
                        hint := found.hint;
                        failed := failed || CASE WHEN ok IS NOT TRUE THEN ARRAY[name] END;
                        RETURN NEXT;
                    END LOOP;
                    CONTINUE;
                END IF;
                SELECT e.ok, e.detail, e.hint INTO ok, detail, hint FROM deal_sync.examine(this.name, whose) AS e;
            EXCEPTION
                WHEN OTHERS OR query_canceled THEN
                    GET STACKED DIAGNOSTICS
                        code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, more := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
                    IF code LIKE '57%' THEN
                        PERFORM deal_sync.raise_again(code, said, more, hint);
                    END IF;
                    name := this.name;
                    ok := false;
                    SELECT concat_ws(': ', m.message, m.detail) INTO detail FROM deal_sync.python_error(said, more) AS m;
                    hint := nullif(hint, '');
            END;
        END IF;
        failed := failed || CASE WHEN ok IS NOT TRUE THEN ARRAY[name] END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.doctor(regrole) IS
'looks at everything that the sync stands on: one row a check, with what to do; role: whose rights are looked at, yours by default';
-- In: all routines. Out: nobody may run them, until somebody is granted the sync. The last file, so that none is forgotten.

REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA deal_sync FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION @extschema@.sync_deals(uuid, text, boolean, boolean, text) FROM PUBLIC;
