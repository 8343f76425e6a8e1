-- In: labels of the graph. Out: foreign tables for them, and the rows of a foreign table, without Multicorn2, too.

CREATE OR REPLACE FUNCTION deal_sync.import_schema(
    server name, schema name, limit_to text[] DEFAULT NULL, "except" text[] DEFAULT NULL,
    sample bigint DEFAULT NULL, prefix text DEFAULT NULL,
    OUT relation regclass, OUT label text, OUT columns integer
) RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    error _deal_sync.error;
BEGIN
    PERFORM _deal_sync.check_package();
    IF server IS NULL OR schema IS NULL THEN
        RAISE EXCEPTION 'deal_sync.import_schema requires a server and a schema' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT * FROM deal_sync.import_schema(''neo4j'', ''public'');';
    ELSIF limit_to IS NOT NULL AND "except" IS NOT NULL THEN
        RAISE EXCEPTION 'limit_to and except cannot be used together' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'limit_to names the tables to create, except the tables not to create.';
    ELSIF to_regnamespace(quote_ident(schema)) IS NULL THEN
        RAISE EXCEPTION 'schema "%" does not exist', schema USING
            ERRCODE = 'invalid_schema_name',
            HINT = format('CREATE SCHEMA %I;', schema);
    END IF;
    FOR this IN
        SELECT s.* FROM _deal_sync.import_statements(server, schema, limit_to, "except", sample, prefix) AS s
    LOOP
        EXECUTE this.statement;
        relation := format('%I.%I', schema, this.table_name)::regclass;
        label := this.label;
        columns := this.columns;
        RETURN NEXT;
    END LOOP;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT;
        error := _deal_sync.raise_again(error);
END
$$;
COMMENT ON FUNCTION deal_sync.import_schema(name, name, text[], text[], bigint, text) IS
'creates a foreign table for each label of the graph, as IMPORT FOREIGN SCHEMA does with Multicorn2. limit_to and '
'except: names of tables; sample: how many nodes of a label are examined (0: all); prefix: of the names of the tables';

CREATE OR REPLACE FUNCTION _deal_sync.check_readable(relation regclass, columns text[]) RETURNS void
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
COMMENT ON FUNCTION _deal_sync.check_readable(regclass, text[]) IS
'raises if the caller may not SELECT the columns of a foreign table; columns NULL: all of them';

-- PL/Python can return records, but not anyelement.
CREATE OR REPLACE FUNCTION deal_sync.scan(
    "table" anyelement, tenant uuid DEFAULT NULL, columns text[] DEFAULT NULL, row_limit bigint DEFAULT NULL
) RETURNS SETOF anyelement
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation regclass := (SELECT t.typrelid FROM pg_type AS t WHERE t.oid = pg_typeof("table"));
    unknown text;
    error _deal_sync.error;
BEGIN
    PERFORM _deal_sync.check_package();
    IF NOT EXISTS (SELECT FROM pg_foreign_table AS ft WHERE ft.ftrelid = relation) THEN
        RAISE EXCEPTION 'scan() requires a foreign table, not %', pg_typeof("table") USING
            ERRCODE = 'wrong_object_type',
            HINT = 'SELECT * FROM deal_sync.scan(NULL::neo4j.deals);';
    END IF;
    SELECT min(c.name) INTO unknown
    FROM unnest(columns) AS c (name)
    WHERE NOT EXISTS (SELECT FROM _deal_sync.mapping_columns(relation) AS m WHERE m.name = c.name);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" of foreign table % does not exist', unknown, relation USING
            ERRCODE = 'undefined_column',
            HINT = (
                SELECT format('Its columns are %s.', string_agg(m.name, ', ' ORDER BY m.place))
                FROM _deal_sync.mapping_columns(relation) AS m
            );
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT * FROM _deal_sync.scan_rows($1, $2, $3, $4) AS t (%s)',
        (
            SELECT string_agg(format('%I %s', m.name, format_type(m.type, m.type_modifier)), ', ' ORDER BY m.place)
            FROM _deal_sync.mapping_columns(relation) AS m
        )
    ) USING relation, tenant, columns, row_limit;
EXCEPTION
    WHEN OTHERS OR query_canceled THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT;
        error := _deal_sync.raise_again(error);
END
$$;
COMMENT ON FUNCTION deal_sync.scan(anyelement, uuid, text[], bigint) IS
'the rows of a foreign table, with or without Multicorn2: SELECT * FROM deal_sync.scan(NULL::neo4j.deals); tenant, '
'columns and row_limit limit what is read';
