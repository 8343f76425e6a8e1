-- In: a tenant's watermark and the graph's state. Out: what a run reads.

-- By names: OIDs and column numbers change with dump and restore.
CREATE OR REPLACE FUNCTION _deal_sync.mapping_fingerprint() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT md5(string_agg(
        concat_ws(' ', _deal_sync.options_of(ft.ftoptions)::text, columns.definition, e.extversion),
        E'\n' ORDER BY k.kind
    ))
    FROM unnest(ARRAY['deal', 'version']) AS k (kind)
    INNER JOIN pg_foreign_table AS ft ON ft.ftrelid = _deal_sync.mapped(k.kind)
    INNER JOIN pg_extension AS e ON e.extname = 'deal_sync'
    CROSS JOIN LATERAL (
        SELECT string_agg(
            jsonb_build_array(
                m.name, format_type(m.type, m.type_modifier), m.options, m.write,
                format_type(m.target_type, m.target_modifier), m.not_null, m.target_default, m.staged_as
            )::text,
            E'\n' ORDER BY m.place
        ) AS definition
        FROM _deal_sync.mapping_columns(ft.ftrelid) AS m
    ) AS columns
$$;
COMMENT ON FUNCTION _deal_sync.mapping_fingerprint() IS
'changes with the mapping: a column, an option, the type of a target, the version of the extension';

CREATE OR REPLACE FUNCTION _deal_sync.keys_held(kind text, tenant_id uuid) RETURNS SETOF uuid
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT unnest(_deal_sync.ask(
        format(
            'SELECT array_agg(t.%1$I::uuid) FROM %2$s AS t WHERE t.tenant_id = $1 AND t.%1$I IS NOT NULL',
            CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'id' END,
            _deal_sync.application_table(kind, 'target')
        ),
        keys_held.tenant_id, NULL::uuid[]
    ))
$$;
COMMENT ON FUNCTION _deal_sync.keys_held(text, uuid) IS 'the keys of a tenant''s rows that have one';

-- Nodes with a row are known, and so are those that every run tries again. Nodes that share a key are read together,
-- because only together they show which of them lands. IN (...) IS NOT TRUE leaves the planner no other way than a
-- hash.
CREATE OR REPLACE FUNCTION _deal_sync.unread(
    kind text, tenant_id uuid, OUT elements text[], OUT rows_without_node bigint
)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH node AS MATERIALIZED (
        SELECT k.element_id, k.key FROM _deal_sync.graph_keys(unread.kind, unread.tenant_id) AS k
    ),

    held AS MATERIALIZED (SELECT h.key FROM _deal_sync.keys_held(unread.kind, unread.tenant_id) AS h (key)),

    tried AS MATERIALIZED (
        SELECT n.element_id, n.key, count(n.key) OVER (PARTITION BY n.key) AS sharing
        FROM node AS n
        WHERE (n.element_id IN (SELECT unnest(_deal_sync.rejected_elements(unread.tenant_id)))) IS NOT TRUE
    )

    SELECT
        (
            SELECT coalesce(array_agg(f.element_id), '{}')
            FROM tried AS f
            WHERE
                ((f.key IN (SELECT h.key FROM held AS h)) IS NOT TRUE OR f.sharing > 1)
                AND (f.key IN (SELECT unnest(_deal_sync.barred_of(unread.tenant_id)))) IS NOT TRUE
        ),
        (
            SELECT count(*) FROM held AS h
            WHERE (h.key IN (SELECT n.key FROM node AS n WHERE n.key IS NOT NULL)) IS NOT TRUE
        )
$$;
COMMENT ON FUNCTION _deal_sync.unread(text, uuid) IS
'the nodes of a kind that no run has landed or rejected, by key, and how many rows of the tenant have no node';

-- The watermark is the graph's clock before the run's first query, minus deal_sync.overlap, for writers whose clocks
-- are slow and commits that are late. If that clock was set, changes may lie on the wrong side of the watermark, so the
-- run is a full one.
CREATE OR REPLACE FUNCTION _deal_sync.plan_reading(tenant_id uuid, mode text) RETURNS _deal_sync.reading
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    overlap CONSTANT interval := _deal_sync.setting('overlap')::interval;
    overlap_seconds CONSTANT double precision := extract(EPOCH FROM overlap);
    exact double precision := 1;  -- how exactly two clocks are compared, in seconds; more if an answer took long
    quick CONSTANT integer := 10;  -- milliseconds: if counting takes longer, not every run counts
    barred CONSTANT uuid[] := _deal_sync.barred_of(tenant_id);
    moved double precision;
    set_by double precision;  -- if both clocks are on one machine
    elements text[];
    differing text;
    come_back bigint;
    found record;
    last record;
    state record;
    result _deal_sync.reading;
BEGIN
    SELECT w.watermark, w.mapping, w.undated, w.facts INTO last FROM _deal_sync.watermark_of(tenant_id) AS w;
    SELECT s.* INTO state FROM _deal_sync.graph_state(
        tenant_id,
        coalesce(
            (last.facts ->> 'count_ms')::integer <= quick
            OR (last.facts ->> 'counted_at')::timestamptz < clock_timestamp() - interval '1 hour',
            true
        ),
        late => overlap_seconds
    ) AS s;
    PERFORM _deal_sync.check_graph(state.database_id);
    result.mode := mode;
    result.remarks := '{}';
    result.known := last.facts;
    result.facts := jsonb_build_object(
        'ahead', state.ahead, 'unsure', state.unsure, 'boot', state.boot, 'at_boot', state.at_boot
    ) || CASE WHEN state.deals IS NULL THEN '{}' ELSE jsonb_build_object(
        'deals', state.deals, 'versions', state.versions, 'count_ms', state.count_ms, 'counted_at', clock_timestamp()
    ) END;
    -- With the graph's id: a run that is in progress while accept_graph() removes the watermarks leaves one of the old
    -- graph.
    result.mapping := concat_ws(' ', _deal_sync.mapping_fingerprint(), state.database_id);
    result.watermark := state.clock - overlap;
    result.selection := CASE WHEN barred = '{}' THEN '{}' ELSE jsonb_build_object('barred', barred) END;
    moved := state.ahead - (last.facts ->> 'ahead')::double precision;
    set_by := CASE
        WHEN last.facts ->> 'boot' = state.boot THEN state.at_boot - (last.facts ->> 'at_boot')::double precision
    END;
    exact := exact + state.unsure + coalesce((last.facts ->> 'unsure')::double precision, 0);
    IF last.watermark > state.clock OR greatest(abs(moved), abs(set_by)) > overlap_seconds + exact THEN
        result.known := last.facts - 'newest'; -- by another clock
    END IF;
    IF last.watermark > state.clock AND mode <> 'incremental' THEN
        result.remarks := result.remarks || 'the graph''s clock was set back'::text;
    END IF;
    IF mode = 'incremental' AND last.watermark IS NULL THEN
        result.mode := 'full';
    ELSIF mode = 'incremental' THEN
        result.remarks := result.remarks || CASE
            WHEN split_part(last.mapping, ' ', 1) <> split_part(result.mapping, ' ', 1)
                THEN 'full run because the mapping has changed'
            WHEN last.mapping <> result.mapping THEN 'full run because the graph is a different one'
            WHEN last.watermark > state.clock THEN 'full run because the graph''s clock was set back'
            WHEN abs(moved) > overlap_seconds + exact
                THEN format(
                    'full run because the graph''s clock was moved by %s s relative to PostgreSQL''s',
                    round(moved::numeric)
                )
            WHEN abs(set_by) > overlap_seconds + exact
                THEN format(
                    'full run because the graph''s and PostgreSQL''s clocks were both moved by %s s',
                    round(set_by::numeric)
                )
        END;
        result.remarks := array_remove(result.remarks, NULL);
        IF result.remarks = '{}' THEN
            elements := _deal_sync.rejected_elements(tenant_id);
            -- New nodes with an old timestamp, and deleted ones.
            FOR differing IN
                SELECT k.kind
                FROM (VALUES ('deal', state.deals), ('version', state.versions)) AS k (kind, number)
                WHERE k.number IS DISTINCT FROM (last.facts ->> (k.kind || 's'))::bigint AND state.deals IS NOT NULL
            LOOP
                SELECT u.elements, u.rows_without_node INTO found FROM _deal_sync.unread(differing, tenant_id) AS u;
                elements := elements || found.elements;
                IF differing = 'deal' THEN
                    result.facts := result.facts || jsonb_build_object('rows_without_deal', found.rows_without_node);
                    -- Their keys do not tell which they are: a row that has a deal again looks like any other.
                    come_back := (last.facts ->> 'rows_without_deal')::bigint - found.rows_without_node;
                    IF come_back > 0 THEN
                        result.remarks := result.remarks
                            || format('full run because deals have reappeared in the graph: %s', come_back);
                    END IF;
                END IF;
            END LOOP;
        END IF;
        IF result.remarks <> '{}' THEN
            result.mode := 'full';
        ELSE
            result.selection := result.selection
                || jsonb_build_object('since', last.watermark, 'elements', elements, 'undated', last.undated);
        END IF;
    END IF;
    IF state.open <> '{}' THEN
        result.remarks := result.remarks || format(
            'transactions that have been open in Neo4j for longer than deal_sync.overlap, and whose changes the next'
            ' runs may miss: %s',
            array_to_string(state.open[1:5], ', ')
        );
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION _deal_sync.plan_reading(uuid, text) IS
'what a run reads: everything, or what has changed since the tenant''s watermark; raises if the graph has changed';
