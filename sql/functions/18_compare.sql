-- In: a tenant's graph and tables. Out: how they differ, counted or listed. Nothing is written.

-- A comparison need not read them, and they are most of the bytes; but not those for which a misfit rejects the row.
CREATE OR REPLACE FUNCTION _deal_sync.embedding_columns(kind text) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(m.name), '{}')
    FROM _deal_sync.mapping_columns(_deal_sync.mapped(kind)) AS m
    WHERE
        m.staged_as IS NOT NULL AND m.staged_type = _deal_sync.vector_type() AND NOT coalesce(m.not_null, false)
        AND coalesce(m.options ->> 'on_misfit', 'null') IN ('null', 'keep')
$$;
COMMENT ON FUNCTION _deal_sync.embedding_columns(text) IS
'the vector columns of a kind that a comparison can leave out';

-- By the plan of a replay (statements_of): what is missing or differs is what it would write. What the table
-- rejected when a run tried it is rejected.
CREATE OR REPLACE FUNCTION _deal_sync.compare_nodes(
    kind text, tenant uuid, without text[], lists boolean
) RETURNS SETOF _deal_sync.comparison
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_sort = off -- see by_key.sql
SET enable_incremental_sort = off
AS $$
DECLARE
    made CONSTANT record := _deal_sync.statements_of_comparison(kind, tenant, without);
    staging CONSTANT text := format('pg_temp.%I', 'deal_sync_' || kind || 's');
    batches CURSOR FOR
        SELECT _deal_sync.fill_staging(
            kind, tenant, quote_ident(current_user)::regrole, jsonb_build_object('without', without)
        ) AS last;
BEGIN
    FOR batch IN batches LOOP
        RETURN QUERY EXECUTE made.nodes USING NULL::bigint[], _deal_sync.barred_of(tenant), tenant;
        IF lists AND made.differing IS NOT NULL THEN
            RETURN QUERY EXECUTE made.differing USING NULL::bigint[], _deal_sync.barred_of(tenant), tenant;
        END IF;
        EXECUTE format('TRUNCATE %s', staging);
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.compare_nodes(text, uuid, text[], boolean) IS
'the nodes of a kind compared with their rows; lists: also the values that differ';

-- in_graph and in_table: the state of a node and of a row, NULL if there is none.
CREATE OR REPLACE FUNCTION _deal_sync.compare(tenant uuid, embeddings boolean, lists boolean)
RETURNS TABLE (
    kind text, in_graph text, in_table text, graph_id text, row_id text, column_name text,
    graph_value text, table_value text
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
    error _deal_sync.error;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    PERFORM _deal_sync.check_writable();  -- the staging table is created
    PERFORM _deal_sync.check_server();
    PERFORM _deal_sync.check_setup(tenant);
    -- The first run remembers its graph; a comparison does not.
    PERFORM _deal_sync.check_graph(g.database_id)
    FROM _deal_sync.graph_state() AS g
    WHERE _deal_sync.known_graph() IS NOT NULL;
    RETURN QUERY EXECUTE _deal_sync.comparison_of_tenant() USING tenant, embeddings, lists;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT;
        error := _deal_sync.raise_again(error);
END
$$;
COMMENT ON FUNCTION _deal_sync.compare(uuid, boolean, boolean) IS
'each node and each row of a tenant, and whether it has its counterpart; lists: also the values that differ';

CREATE OR REPLACE FUNCTION deal_sync.reconcile(
    tenant uuid,
    OUT kind text, OUT in_graph bigint, OUT in_postgres bigint, OUT matching bigint, OUT differing bigint,
    OUT missing bigint, OUT extra bigint, OUT rejected bigint, OUT legacy bigint, OUT kept bigint
) RETURNS SETOF record
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.check_tenant('deal_sync.reconcile', tenant);

    SELECT
        k.kind || 's', count(c.in_graph), count(c.in_table),
        count(*) FILTER (WHERE c.in_graph = 'matching'), count(*) FILTER (WHERE c.in_graph = 'differing'),
        count(*) FILTER (WHERE c.in_graph = 'missing'), count(*) FILTER (WHERE c.in_table = 'extra'),
        count(*) FILTER (WHERE c.in_graph = 'rejected'), count(*) FILTER (WHERE c.in_table = 'legacy'),
        count(*) FILTER (WHERE c.in_table = 'kept')
    FROM (VALUES (1, 'deal'), (2, 'version'), (3, 'link')) AS k (place, kind)
    LEFT JOIN _deal_sync.compare(tenant, false, false) AS c ON c.kind = k.kind
    GROUP BY k.place, k.kind
    ORDER BY k.place
$$;
COMMENT ON FUNCTION deal_sync.reconcile(uuid) IS
'one row per kind: in_graph = matching + differing + missing + rejected, in_postgres = matching + differing + extra + '
'legacy + kept; writes nothing, reads no embeddings';

CREATE OR REPLACE FUNCTION deal_sync.differences(
    tenant uuid, embeddings boolean DEFAULT FALSE,
    OUT kind text, OUT graph_id text, OUT column_name text, OUT graph_value text, OUT table_value text
) RETURNS SETOF record
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.check_tenant('deal_sync.differences', tenant);

    SELECT
        c.kind, c.graph_id, coalesce(c.column_name, ''),
        CASE
            WHEN c.in_graph = 'value' THEN c.graph_value
            WHEN c.in_graph = 'missing' THEN coalesce(c.row_id, c.graph_id)
        END,
        CASE WHEN c.in_graph = 'value' THEN c.table_value WHEN c.in_table = 'extra' THEN c.row_id END
    FROM _deal_sync.compare(tenant, coalesce(embeddings, false), true) AS c
    WHERE c.in_graph IN ('missing', 'value') OR c.in_table = 'extra'
    ORDER BY 1, 2, 3, 4, 5
$$;
COMMENT ON FUNCTION deal_sync.differences(uuid, boolean) IS
'one row per value that a replay would write; for a missing or extra row, one row with column_name '''' and its id on '
'the side that has it';

CREATE OR REPLACE FUNCTION deal_sync.replay(tenant uuid, graph_ids text[] DEFAULT NULL) RETURNS deal_sync.run_result
LANGUAGE sql
AS $$
    SELECT (_deal_sync.checked(_deal_sync.sync_tenant(
        tenant, ROW('deal_sync.replay', 'replay', false, false, graph_ids, NULL, NULL)::_deal_sync.request,
        _deal_sync.caller()
    ))).result
$$;
COMMENT ON FUNCTION deal_sync.replay(uuid, text[]) IS
'lands what is missing or differs, including values that a landed version lacks, for the given deals and their '
'versions or for the whole tenant; a run of mode replay';
