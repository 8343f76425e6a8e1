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

-- `selection`: what the reader takes (neo4j_deals.selection); `mode`: what becomes of the mode asked for, and `reason` why; `watermark`:
-- what the run sets when it ends.
CREATE TYPE deal_sync.reading AS (
    mode text, reason text, selection jsonb, watermark timestamptz, mapping text
);
COMMENT ON TYPE deal_sync.reading IS 'internal: what a run reads, and up to where the graph has been read afterwards';

-- The watermark is the graph's own clock from before the run's first question, less what writers' clocks may be behind and a commit may
-- be late.
CREATE FUNCTION deal_sync.plan_reading(tenant_id uuid, mode text) RETURNS deal_sync.reading
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state CONSTANT record := deal_sync.graph_state();
    last record;
    barred CONSTANT uuid[] := deal_sync.barred_of(tenant_id);
    result deal_sync.reading;
BEGIN
    PERFORM deal_sync.check_graph(state.database_id);
    SELECT w.watermark, w.mapping, w.undated INTO last FROM deal_sync.watermark_of(tenant_id) AS w;
    result.mode := mode;
    -- A run that was under way while accept_graph() removed the watermarks leaves one of the graph before.
    result.mapping := concat_ws(' ', deal_sync.mapping_fingerprint(), state.database_id);
    result.watermark := state.clock - deal_sync.setting('overlap')::interval;
    result.selection := CASE WHEN barred = '{}' THEN '{}' ELSE jsonb_build_object('barred', barred) END;
    IF mode = 'incremental' AND last.watermark IS NULL THEN
        result.mode := 'full';
    ELSIF mode = 'incremental' AND last.mapping <> result.mapping THEN
        result.mode := 'full';
        result.reason := CASE WHEN split_part(last.mapping, ' ', 1) <> split_part(result.mapping, ' ', 1)
            THEN 'a full run, since the mapping has changed'
            ELSE 'a full run, since the graph is another one'
        END;
    ELSIF mode = 'incremental' AND last.watermark > state.clock THEN
        result.mode := 'full';
        result.reason := 'a full run, since the graph''s clock has gone back';
    ELSIF mode = 'incremental' THEN
        result.selection := result.selection || jsonb_build_object(
            'since', last.watermark, 'elements', deal_sync.refused_elements(tenant_id), 'undated', last.undated
        );
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION deal_sync.plan_reading(uuid, text) IS
'internal: whether a run reads everything or what changed since the tenant''s watermark; raises where the graph is another one';

-- The tenant's rows that have a value, by column that a run overwrites: {"column of the foreign table": rows}; of all its deals, or of
-- some.
CREATE FUNCTION deal_sync.filled_columns(tenant_id uuid, graph_ids uuid[] DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement text;
    counted jsonb;
    said text;
    detail text;
    hint text;
    context text;
BEGIN
    statement := (
        SELECT format(
            'SELECT jsonb_object(%L, ARRAY[%s]::text[]) FROM %s AS t WHERE t.tenant_id = $1 AND '
            || CASE WHEN graph_ids IS NULL THEN 't.graph_opportunity_id IS NOT NULL' ELSE 't.graph_opportunity_id = ANY ($2)' END,
            array_agg(m.name), string_agg(format('count(t.%I)', m.target), ', '), deal_sync.application_table('deal', 'target')
        )
        FROM deal_sync.mapping_columns(deal_sync.mapped('deal')) AS m
        WHERE m.target_is_there AND m.staged_as IS NOT NULL AND m.write = 'always'
    );
    EXECUTE statement INTO counted USING filled_columns.tenant_id, graph_ids;
    RETURN counted;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM deal_sync.raise_applications(SQLSTATE, said, detail, hint, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION deal_sync.filled_columns(uuid, uuid[]) IS
'internal: how many of a tenant''s rows have a value in each column that a run overwrites';

-- The columns of a staged batch of deals in which a node has a value, also one that does not fit.
CREATE FUNCTION deal_sync.present_columns(among text[]) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present text[];
BEGIN
    IF among = '{}' THEN
        RETURN among;
    END IF;
    EXECUTE (
        SELECT format(
            'SELECT array_remove(ARRAY[%s], NULL) FROM pg_temp.deal_sync_deals AS s',
            string_agg(
                format('CASE WHEN bool_or(s.%I IS NOT NULL OR coalesce(jsonb_exists(s.conversion_errors, %L), false)) THEN %L END', c.name, c.name, c.name),
                ', '
            )
        )
        FROM unnest(among) AS c (name)
    ) INTO present;
    RETURN present;
END
$$;
COMMENT ON FUNCTION deal_sync.present_columns(text[]) IS 'internal: in which of these columns the staged deals have a value';

-- `gone`: columns of which no node had a value, of rows that had; `filled`: how many they were.
CREATE FUNCTION deal_sync.check_losses(result deal_sync.run_result, filled jsonb, gone text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_loss CONSTANT integer := deal_sync.setting('max_loss')::integer;
    least CONSTANT integer := 50;  -- of fewer deals a share says little
    worst record;
BEGIN
    IF max_loss = 100 THEN
        RETURN;
    END IF;
    -- A run that reads a part of the deals reads those again that are refused, and of these alone the share would be large.
    SELECT m.column_name, n.times INTO worst
    FROM deal_sync.misfits(result.run_id, result.tenant_id) AS m
    CROSS JOIN LATERAL (SELECT CASE WHEN result.mode IN ('full', 'backfill') THEN m.times ELSE m.new_times END) AS n (times)
    ORDER BY n.times DESC, m.column_name
    LIMIT 1;
    IF worst.times >= least AND worst.times * 100 > result.deals_read * max_loss THEN
        RAISE EXCEPTION 'the values of column "%" do not fit in % of % deals', worst.column_name, worst.times, result.deals_read USING
            ERRCODE = 'DS005',
            DETAIL = format('deal_sync.max_loss allows %s percent.', max_loss),
            HINT = 'Mend the graph or the column''s mapping; or, if it is meant, SET deal_sync.max_loss = 100 for one run.';
    END IF;
    SELECT g.name AS column_name, (filled ->> g.name)::bigint AS times INTO worst
    FROM unnest(gone) AS g (name)
    WHERE (filled ->> g.name)::bigint > least
    ORDER BY 2 DESC, 1
    LIMIT 1;
    IF worst.times IS NOT NULL THEN
        RAISE EXCEPTION 'no deal that was read has a value for column "%", and % rows of the tenant have', worst.column_name, worst.times USING
            ERRCODE = 'DS005',
            DETAIL = 'The run would have emptied them.',
            HINT = 'Mend the graph or the column''s mapping; or, if it is meant, SET deal_sync.max_loss = 100 for one run.';
    END IF;
END
$$;
COMMENT ON FUNCTION deal_sync.check_losses(deal_sync.run_result, jsonb, text[]) IS
'internal: raises where a run would lose so much of one column that it must be a mistake';

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
