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

-- By the facts of two runs. A clock that is compared with another one is known to a second, and less exactly if an
-- answer took long. boot: both clocks are on one machine, and it has not been booted since.
CREATE OR REPLACE FUNCTION _deal_sync.clock_was_set(last jsonb, facts jsonb, overlap interval) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN abs(m.moved) > m.tolerated THEN format(
            'the graph''s clock was moved by %s s relative to PostgreSQL''s', round(m.moved::numeric)
        )
        WHEN abs(m.both_moved) > m.tolerated THEN format(
            'the graph''s and PostgreSQL''s clocks were both moved by %s s', round(m.both_moved::numeric)
        )
    END
    FROM (
        SELECT
            n.ahead - l.ahead AS moved,
            CASE WHEN n.boot = l.boot THEN n.at_boot - l.at_boot END AS both_moved,
            extract(EPOCH FROM overlap) + 1 + n.unsure + coalesce(l.unsure, 0) AS tolerated
        FROM jsonb_to_record(facts) AS n (
            ahead double precision, unsure double precision, boot text, at_boot double precision
        )
        CROSS JOIN jsonb_to_record(coalesce(last, '{}')) AS l (
            ahead double precision, unsure double precision, boot text, at_boot double precision
        )
    ) AS m
$$;
COMMENT ON FUNCTION _deal_sync.clock_was_set(jsonb, jsonb, interval) IS
'how the graph''s clock was set between two runs, by more than deal_sync.overlap; NULL if it was not';

CREATE OR REPLACE FUNCTION _deal_sync.is_older(moment text, age interval) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A moment in the future is of a clock that has been set since.
    SELECT coalesce(moment::timestamptz NOT BETWEEN clock_timestamp() - age AND clock_timestamp(), true)
$$;
COMMENT ON FUNCTION _deal_sync.is_older(text, interval) IS 'whether a moment is that long ago; true if it is NULL';

CREATE OR REPLACE FUNCTION _deal_sync.numbers_differ(
    known jsonb, deals bigint, versions bigint, counted_at timestamptz
) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        known ->> 'deals' IS NULL
        OR (
            coalesce((known ->> 'counted_at')::timestamptz < counted_at, false)
            AND ((known ->> 'deals')::bigint, (known ->> 'versions')::bigint) IS DISTINCT FROM (deals, versions)
        )
$$;
COMMENT ON FUNCTION _deal_sync.numbers_differ(jsonb, bigint, bigint, timestamptz) IS
'whether these numbers of a tenant''s nodes differ from those that its last run (known: the facts) had counted before; '
'true if it has kept none';

-- To count takes an index some milliseconds; if it takes longer, not every run counts.
CREATE OR REPLACE FUNCTION _deal_sync.is_count_due(last jsonb) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        coalesce((last ->> 'count_ms')::integer <= 10, true)
        OR _deal_sync.is_older(last ->> 'counted_at', interval '1 hour')
$$;
COMMENT ON FUNCTION _deal_sync.is_count_due(jsonb) IS
'whether nodes are counted again; last: count_ms and counted_at of the last count, or NULL';

CREATE OR REPLACE FUNCTION _deal_sync.counted_otherwise(tenant_id uuid, known jsonb) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM _deal_sync.graph_tenants AS g
        WHERE
            g.tenant_id = counted_otherwise.tenant_id
            AND _deal_sync.numbers_differ(known, g.deals, g.versions, g.counted_at)
    )
$$;
COMMENT ON FUNCTION _deal_sync.counted_otherwise(uuid, jsonb) IS
'whether sync_all has counted other numbers of a tenant''s nodes since they were counted for the facts (known)';

-- New nodes with an old timestamp, and deleted ones. That deals are there again their keys do not tell: a row that has
-- a deal again looks like any other.
CREATE OR REPLACE FUNCTION _deal_sync.uncounted(
    tenant_id uuid, known jsonb, INOUT facts jsonb, OUT elements text[], OUT reappeared bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    differing text;
    found record;
BEGIN
    elements := '{}';
    FOR differing IN
        SELECT k.kind
        FROM (VALUES ('deal', 'deals'), ('version', 'versions')) AS k (kind, name)
        WHERE facts ? k.name AND (facts ->> k.name) IS DISTINCT FROM (known ->> k.name)
    LOOP
        found := _deal_sync.unread(differing, tenant_id);
        elements := elements || found.elements;
        IF differing = 'deal' THEN
            facts := facts || jsonb_build_object('rows_without_deal', found.rows_without_node);
            reappeared := (known ->> 'rows_without_deal')::bigint - found.rows_without_node;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.uncounted(uuid, jsonb, jsonb) IS
'if the numbers of a tenant''s nodes are not those of the last run: the nodes that no run has read';

-- Nothing is read (selection NULL) if no node has changed, none is tried again, and those without a timestamp have been
-- looked at lately.
CREATE OR REPLACE FUNCTION _deal_sync.select_changes(
    tenant_id uuid, since timestamptz, changed boolean, INOUT reading _deal_sync.reading
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new CONSTANT record := _deal_sync.uncounted(tenant_id, reading.known, reading.facts);
    elements CONSTANT text[] := _deal_sync.rejected_elements(tenant_id) || new.elements;
    undated CONSTANT boolean := _deal_sync.is_older(
        reading.known ->> 'undated_at', _deal_sync.setting('undated_every')::interval
    );
BEGIN
    reading.facts := new.facts;
    IF new.reappeared > 0 THEN
        reading.mode := 'full';
        reading.remarks := ARRAY[format('full run because deals have reappeared in the graph: %s', new.reappeared)];
        reading.selection := '{}';
    ELSIF changed OR undated OR elements <> '{}' THEN
        reading.selection := jsonb_build_object('since', since, 'elements', elements, 'undated', undated);
    END IF;
    IF undated THEN
        reading.facts := reading.facts || jsonb_build_object('undated_at', clock_timestamp());
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.select_changes(uuid, timestamptz, boolean, _deal_sync.reading) IS
'what an incremental run reads, or that it must be a full one';

-- The watermark is the graph's clock before the run's first query, minus deal_sync.overlap, for writers whose clocks
-- are slow and commits that are late. If that clock was set, changes may lie on the wrong side of the watermark, so the
-- run is a full one.
CREATE OR REPLACE FUNCTION _deal_sync.plan_reading(tenant_id uuid, mode text) RETURNS _deal_sync.reading
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    overlap CONSTANT interval := _deal_sync.setting('overlap')::interval;
    barred CONSTANT uuid[] := _deal_sync.barred_of(tenant_id);
    last record;
    is_incremental boolean;
    state record;
    set_back text;
    clock text;
    reason text;
    result _deal_sync.reading;
BEGIN
    SELECT w.watermark, w.mapping, w.facts INTO last FROM _deal_sync.watermark_of(tenant_id) AS w;
    is_incremental := mode = 'incremental' AND last.watermark IS NOT NULL;
    state := _deal_sync.graph_state(
        tenant_id,
        NOT is_incremental OR _deal_sync.is_count_due(last.facts)
        OR _deal_sync.counted_otherwise(tenant_id, last.facts),
        late => extract(EPOCH FROM overlap),
        since => CASE WHEN is_incremental THEN last.watermark END
    );
    PERFORM _deal_sync.check_graph(state.database_id);
    result.mapping := state.mapping;
    result.watermark := state.clock - overlap;
    result.facts := jsonb_build_object(
        'ahead', state.ahead, 'unsure', state.unsure, 'boot', state.boot, 'at_boot', state.at_boot
    ) || CASE WHEN state.deals IS NULL THEN '{}' ELSE jsonb_build_object(
        'deals', state.deals, 'versions', state.versions, 'count_ms', state.count_ms, 'counted_at', clock_timestamp()
    ) END;
    set_back := CASE WHEN last.watermark > state.clock THEN 'the graph''s clock was set back' END;
    clock := coalesce(set_back, _deal_sync.clock_was_set(last.facts, result.facts, overlap));
    result.known := CASE WHEN clock IS NULL THEN last.facts ELSE last.facts - 'newest' END; -- by another clock
    IF is_incremental THEN
        reason := CASE
            WHEN split_part(last.mapping, ' ', 1) <> split_part(result.mapping, ' ', 1) THEN 'the mapping has changed'
            WHEN last.mapping <> result.mapping THEN 'the graph is a different one'
            ELSE clock
        END;
    END IF;
    result.mode := CASE
        WHEN mode = 'incremental' AND (reason IS NOT NULL OR NOT is_incremental) THEN 'full' ELSE mode
    END;
    result.remarks := array_remove(
        ARRAY['full run because ' || reason, CASE WHEN NOT is_incremental THEN set_back END], NULL
    );
    IF result.mode = 'incremental' THEN
        result := _deal_sync.select_changes(tenant_id, last.watermark, state.changed, result);
    ELSE
        result.selection := '{}';
        result.facts := result.facts || jsonb_build_object('undated_at', clock_timestamp());
    END IF;
    IF barred <> '{}' THEN
        result.selection := result.selection || jsonb_build_object('barred', barred);
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
'what a run reads: everything, what has changed since the tenant''s watermark, or nothing (selection NULL); raises if '
'the graph has changed';
