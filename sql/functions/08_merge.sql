-- In: the mapping. Out: the MERGE from the foreign table into the application's table, as text.

CREATE OR REPLACE FUNCTION deal_sync.merge_statement(relation regclass) RETURNS text
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
    IF relation IS NULL THEN
        RAISE EXCEPTION 'deal_sync.merge_statement requires a foreign table' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT deal_sync.merge_statement(''neo4j.deals'');';
    ELSIF kind IS NULL OR _deal_sync.mapped(kind) <> relation THEN
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
            DETAIL = format(
                'It is of type %s, its target of type %s, to which the sync converts the graph''s value itself.',
                narrow.type, narrow.due_as
            ),
            HINT = format('ALTER FOREIGN TABLE %s ALTER COLUMN %I TYPE %s;', relation, narrow.name, narrow.suitable);
    END IF;
    RETURN _deal_sync.merge_by_hand(kind);
END
$$;
COMMENT ON FUNCTION deal_sync.merge_statement(regclass) IS
'the MERGE from the foreign table into the application''s table, for the tenant in app.tenant_id; with Multicorn2 it '
'runs as it is';
