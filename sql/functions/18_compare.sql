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

-- By the plan of a replay (statements_of): what is missing or differs is what it would write. A row that a run has
-- tried and the table has rejected is refused.
CREATE OR REPLACE FUNCTION _deal_sync.compare_nodes(
    kind text, tenant uuid, without text[], lists boolean
) RETURNS SETOF _deal_sync.comparison
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
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
    WHERE EXISTS (SELECT FROM deal_sync.graph);
    RETURN QUERY EXECUTE format(
        $findings$
        WITH found AS MATERIALIZED (
            SELECT n.*
            FROM (VALUES ('deal'), ('version')) AS k (kind)
            CROSS JOIN LATERAL _deal_sync.compare_nodes(
                k.kind, $1, CASE WHEN $2 THEN '{}' ELSE _deal_sync.embedding_columns(k.kind) END, $3
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
        SELECT
            'deal', NULL, CASE WHEN b.key IS NULL THEN 'extra' ELSE coalesce(b.state, 'kept') END,
            d.key::text, d.id::text, NULL, NULL, NULL
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
        _deal_sync.application_table('deal', 'target'), _deal_sync.application_table('version', 'target'),
        _deal_sync.application_table('deal', 'links')
    ) USING tenant, embeddings, lists;
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
    OUT missing bigint, OUT extra bigint, OUT refused bigint, OUT legacy bigint, OUT kept bigint
) RETURNS SETOF record
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.check_tenant('deal_sync.reconcile', tenant);

    SELECT
        k.kind || 's', count(c.in_graph), count(c.in_table),
        count(*) FILTER (WHERE c.in_graph = 'matching'), count(*) FILTER (WHERE c.in_graph = 'differing'),
        count(*) FILTER (WHERE c.in_graph = 'missing'), count(*) FILTER (WHERE c.in_table = 'extra'),
        count(*) FILTER (WHERE c.in_graph = 'refused'), count(*) FILTER (WHERE c.in_table = 'legacy'),
        count(*) FILTER (WHERE c.in_table = 'kept')
    FROM (VALUES (1, 'deal'), (2, 'version'), (3, 'link')) AS k (place, kind)
    LEFT JOIN _deal_sync.compare(tenant, false, false) AS c ON c.kind = k.kind
    GROUP BY k.place, k.kind
    ORDER BY k.place
$$;
COMMENT ON FUNCTION deal_sync.reconcile(uuid) IS
'one row per kind: in_graph = matching + differing + missing + refused, in_postgres = matching + differing + extra + '
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
