-- In: the mapping. Out: the statements that land a batch, as text: the same MERGE over the staging table and over the foreign table.

-- `selected`, `inserted`, `updated`: the expressions of a MERGE, the first over the source `s`, the others over what it selects; `lost`:
-- true where the graph has a value that the target cannot take; `exotic`: that shows only when the caller casts it.
CREATE TYPE _deal_sync.merge_column AS (
    name text, target text, write text, on_misfit text, place integer, target_type oid, target_modifier integer,
    selected text, lost text, inserted text, updated text, exotic boolean, link boolean
);
COMMENT ON TYPE _deal_sync.merge_column IS 'a column of a MERGE, as expressions';

-- `completes`: a version that is there gets what it lacks, but for what says which version of which deal it is. Where it lacks its end,
-- or ends before it begins, the old service has put the moment of insertion into its other times: all become the node's.
CREATE FUNCTION _deal_sync.merge_columns(kind text, staged boolean, completes boolean DEFAULT false) RETURNS SETOF _deal_sync.merge_column
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mapping CONSTANT _deal_sync.mapping_column[] := ARRAY(
        SELECT m FROM _deal_sync.mapping_columns(_deal_sync.mapped(kind)) AS m ORDER BY m.place
    );
    fallbacks CONSTANT jsonb := (
        SELECT jsonb_object_agg(m.name, m.options ->> 'fallback') FROM unnest(mapping) AS m WHERE m.options ? 'fallback'
    );
    span CONSTANT jsonb := (
        SELECT jsonb_object_agg(m.target, m.name)
        FROM unnest(mapping) AS m
        WHERE completes AND kind = 'version' AND m.write <> 'never' AND m.target IN ('valid_from', 'valid_until', 'created_at')
    );
    c _deal_sync.mapping_column;
    result _deal_sync.merge_column;
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
        result.selected := _deal_sync.cast_expression(
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
COMMENT ON FUNCTION _deal_sync.merge_columns(text, boolean, boolean) IS
'of each column of a MERGE the expressions that select, insert and update it';

-- No value is compared by an operator of its type, which may find equal what is not the same.
CREATE FUNCTION _deal_sync.differs(merged _deal_sync.merge_column[], without text[]) RETURNS text
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
COMMENT ON FUNCTION _deal_sync.differs(_deal_sync.merge_column[], text[]) IS
'true where an update by the source s would change the row t of a target, in another column than those of `without`';

-- `source` is the subselect that a MERGE uses; `matching` its ON; `differs` true where an update would change the row; `merge` the whole;
-- `key`, `owner` (the deal's key) and `number` are names of its columns, `merged` all of them.
CREATE FUNCTION _deal_sync.merge_parts(
    kind text, tenant_id uuid, without text[] DEFAULT '{}', completes boolean DEFAULT false,
    OUT source text, OUT matching text, OUT differs text, OUT merge text,
    OUT key text, OUT owner text, OUT number text, OUT merged _deal_sync.merge_column[]
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    staged CONSTANT boolean := tenant_id IS NOT NULL;
    -- Of a run, a constant: a trigger of the application may change the setting.
    this CONSTANT text := CASE WHEN staged THEN quote_literal(tenant_id) ELSE 'current_setting(''app.tenant_id'')' END || '::uuid';
    relation CONSTANT regclass := _deal_sync.mapped(kind);
    target CONSTANT regclass := _deal_sync.application_table(kind, 'target');
    deals CONSTANT regclass := _deal_sync.application_table('deal', 'target');
    key_target CONSTANT text := CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'id' END;
    stamp CONSTANT text := _deal_sync.stamp_column();
    stamps boolean;
    key_value text;
    tenant text;
    rows text;
    selected text;
    sets text;
    columns text;
    inserts text;
BEGIN
    merged := ARRAY(SELECT c FROM _deal_sync.merge_columns(kind, staged, completes) AS c);
    differs := _deal_sync.differs(merged, without);
    SELECT
        max(c.name) FILTER (WHERE c.target = key_target),
        max(c.name) FILTER (WHERE c.target = CASE kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'opportunity_id' END),
        max(c.name) FILTER (WHERE c.target = 'version_number')
    INTO key, owner, number
    FROM unnest(merged) AS c;
    SELECT m.name INTO tenant FROM _deal_sync.mapping_columns(relation) AS m WHERE m.target = 'tenant_id';
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
            CASE kind WHEN 'deal' THEN format('_deal_sync.to_uuid(f.%I)', key)
                ELSE format('_deal_sync.to_uuid(f.%I), f.%I', owner, number) END,
            relation, tenant,
            concat_ws(
                E'\n            AND ', format('_deal_sync.to_uuid(f.%I) IS NOT NULL', key),
                (
                    SELECT string_agg(format('NOT coalesce(jsonb_exists(f.conversion_errors, %L::text), false)', c.name), E'\n            AND ')
                    FROM unnest(merged) AS c
                    WHERE c.on_misfit = 'reject'
                )
            ),
            CASE kind WHEN 'deal' THEN format('_deal_sync.to_uuid(f.%I), f.last_updated_at DESC NULLS LAST, f.element_id', key)
                ELSE format('_deal_sync.to_uuid(f.%I), f.%I, f.created_at, f.%I', owner, number, key) END
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
    key_value := CASE WHEN staged THEN format('s.%I', key) ELSE format('_deal_sync.to_uuid(s.%I)', key) END;
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
            deals, CASE WHEN staged THEN format('s.%I', owner) ELSE format('_deal_sync.to_uuid(s.%I)', owner) END, number
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
COMMENT ON FUNCTION _deal_sync.merge_parts(text, uuid, text[], boolean) IS
'the MERGE of a kind and its parts, over the staging table of a tenant ($1: the rows, NULL for all) or, tenant_id being NULL, over the foreign table';

CREATE FUNCTION deal_sync.merge_statement(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind text := (
        SELECT _deal_sync.options_of(ft.ftoptions) ->> 'kind'
        FROM pg_foreign_table AS ft
        WHERE ft.ftrelid = relation
    );
    narrow record;
BEGIN
    IF kind IS NULL OR _deal_sync.mapped(kind) <> relation THEN
        RAISE EXCEPTION 'table % is not one of the mapping', relation USING
            ERRCODE = 'wrong_object_type',
            HINT = 'SELECT deal_sync.merge_statement(''neo4j.deals'');';
    END IF;
    PERFORM _deal_sync.check_targets();
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
    FROM _deal_sync.mapping_columns(relation) AS m
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
    RETURN (_deal_sync.merge_parts(kind, NULL)).merge;
END
$$;
COMMENT ON FUNCTION deal_sync.merge_statement(regclass) IS
'the MERGE from the foreign table into the application''s table, for the tenant in app.tenant_id; with Multicorn2 it runs as it is';
