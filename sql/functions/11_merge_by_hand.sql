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
    error _deal_sync.error;
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'deal_sync.merge_statement requires a foreign table' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT deal_sync.merge_statement(''neo4j.deals'');';
    ELSIF kind IS NULL OR _deal_sync.mapped(kind) <> relation THEN
        RAISE EXCEPTION 'table % is not part of the mapping', relation USING
            ERRCODE = 'wrong_object_type',
            HINT = 'SELECT deal_sync.merge_statement(''neo4j.deals'');';
    END IF;
    PERFORM _deal_sync.check_targets(kind);
    RETURN _deal_sync.merge_by_hand(kind);
EXCEPTION
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT;
        error := _deal_sync.raise_again(error);
END
$$;
COMMENT ON FUNCTION deal_sync.merge_statement(regclass) IS
'the MERGE from the foreign table into the application''s table, for the tenant in app.tenant_id; with Multicorn2 it '
'runs as it is';
