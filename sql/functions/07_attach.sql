-- In: a server, and the default mapping. Out: the foreign tables of the mapping, and the mapping as statements.

CREATE OR REPLACE FUNCTION _deal_sync.application_schemas() RETURNS name[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(n.nspname ORDER BY n.nspname)
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relname = 'opportunities' AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
$$;
COMMENT ON FUNCTION _deal_sync.application_schemas() IS 'the schemas that have a table "opportunities"';

CREATE OR REPLACE FUNCTION _deal_sync.mapped_elsewhere(schema name, OUT kind text, OUT relation regclass, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR kind IN
        SELECT DISTINCT d.kind
        FROM _deal_sync.default_columns() AS d
        WHERE to_regclass(format('%I.%I', schema, d.table_name)) IS NULL
    LOOP
        BEGIN
            relation := _deal_sync.mapped(kind);
            EXIT;
        EXCEPTION
            WHEN undefined_object THEN
                NULL; -- attach() creates it
        END;
    END LOOP;
    SELECT format(
        'To add columns that it lacks: SELECT deal_sync.attach(%L, %L); to replace it, first: DROP FOREIGN TABLE %s;',
        s.srvname, n.nspname, relation
    )
    INTO hint
    FROM pg_foreign_table AS ft
    INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
    INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
    INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE ft.ftrelid = relation;
END
$$;
COMMENT ON FUNCTION _deal_sync.mapped_elsewhere(name) IS
'a foreign table that maps a kind that has no table in a schema yet; NULL if there is none';

CREATE OR REPLACE FUNCTION _deal_sync.column_definition(name text, type text, options jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        '%I %s%s', name, regexp_replace(type, '^vector', _deal_sync.vector_type()::regtype::text),
        ' OPTIONS (' || string_agg(format('%I %L', o.key, o.value), ', ') || ')'
    )
    FROM jsonb_each_text(options) AS o
$$;
COMMENT ON FUNCTION _deal_sync.column_definition(text, text, jsonb) IS
'a column of the default mapping, as CREATE FOREIGN TABLE takes it';

CREATE OR REPLACE FUNCTION _deal_sync.default_tables(
    server name, schema name, application name, OUT name text, OUT kind text, OUT definition text, OUT comment text
) RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        d.table_name, d.kind,
        format(
            E'CREATE FOREIGN TABLE %I.%I (\n    %s\n) SERVER %I OPTIONS (label %L, kind %L, target %L%s)',
            schema, d.table_name,
            string_agg(_deal_sync.column_definition(d.name, d.type, d.options), E',\n    ' ORDER BY d.place),
            server, d.label, d.kind, format('%I.%I', application, d.target),
            CASE WHEN d.kind = 'deal' THEN format(
                ', links %L, tenants %L',
                format('%I.interaction_links', application), format('%I.tenants', application)
            ) END
        ),
        format(
            'COMMENT ON FOREIGN TABLE %I.%I IS %L', schema, d.table_name,
            format('the nodes :%s of the graph, and the columns that the sync fills from them', d.label)
        )
    FROM _deal_sync.default_columns() AS d
    GROUP BY d.table_name, d.label, d.kind, d.target
    ORDER BY d.table_name DESC
$$;
COMMENT ON FUNCTION _deal_sync.default_tables(name, name, name) IS
'the foreign tables of the default mapping, as statements; application: the schema of opportunities';

-- Not by its name alone: a person may rename a column.
CREATE OR REPLACE FUNCTION _deal_sync.shown(name text, options jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(options ->> 'derive', 'property ' || coalesce(options ->> 'property', name))
$$;
COMMENT ON FUNCTION _deal_sync.shown(text, jsonb) IS 'what a foreign column shows of a node';

CREATE OR REPLACE FUNCTION _deal_sync.lacking_columns(
    relation regclass, kind text, OUT name text, OUT definition text
) RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        d.name,
        format(
            'ALTER FOREIGN TABLE %s ADD COLUMN %s', relation, _deal_sync.column_definition(d.name, d.type, d.options)
        )
    FROM _deal_sync.default_columns() AS d
    WHERE d.kind = lacking_columns.kind AND NOT EXISTS (
        SELECT FROM _deal_sync.mapping_columns(relation) AS m
        WHERE m.name = d.name OR _deal_sync.shown(m.name, m.options) = _deal_sync.shown(d.name, d.options)
    )
    ORDER BY d.place
$$;
COMMENT ON FUNCTION _deal_sync.lacking_columns(regclass, text) IS
'the columns of the default mapping that a foreign table lacks, and the statements that add them';

-- A comment that somebody has written stays.
CREATE OR REPLACE FUNCTION _deal_sync.lacking_comments(relation regclass, kind text) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('COMMENT ON COLUMN %s.%I IS %L', relation, m.name, d.comment)
    FROM _deal_sync.mapping_columns(relation) AS m
    INNER JOIN _deal_sync.default_columns() AS d
        ON d.kind = lacking_comments.kind
        AND _deal_sync.shown(d.name, d.options) = _deal_sync.shown(m.name, m.options)
    WHERE col_description(relation, m.place) IS NULL
$$;
COMMENT ON FUNCTION _deal_sync.lacking_comments(regclass, text) IS
'the statements that comment the columns of a foreign table that have no comment';

CREATE OR REPLACE FUNCTION _deal_sync.create_mapping(server name, schema name, application name) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    planned record;
    lacking record;
    statement text;
    relation regclass;
    said text := '';
BEGIN
    IF to_regnamespace(quote_ident(schema)) IS NULL THEN
        EXECUTE format('CREATE SCHEMA %I', schema);
    END IF;
    FOR planned IN SELECT t.* FROM _deal_sync.default_tables(server, schema, application) AS t LOOP
        relation := to_regclass(format('%I.%I', schema, planned.name));
        IF relation IS NULL THEN
            EXECUTE planned.definition;
            EXECUTE planned.comment;
            relation := to_regclass(format('%I.%I', schema, planned.name));
            said := said || format('created %I.%I; ', schema, planned.name);
        ELSE
            FOR lacking IN SELECT c.* FROM _deal_sync.lacking_columns(relation, planned.kind) AS c LOOP
                EXECUTE lacking.definition;
                said := said || format('added %s.%I; ', relation, lacking.name);
            END LOOP;
        END IF;
        FOR statement IN SELECT c.* FROM _deal_sync.lacking_comments(relation, planned.kind) AS c LOOP
            EXECUTE statement;
        END LOOP;
    END LOOP;
    RETURN said;
END
$$;
COMMENT ON FUNCTION _deal_sync.create_mapping(name, name, name) IS
'creates the foreign tables of the mapping, or adds the columns and comments that they lack; returns what it did';

CREATE OR REPLACE FUNCTION _deal_sync.crashes_with_multicorn(python integer) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT python >= 312
$$;
COMMENT ON FUNCTION _deal_sync.crashes_with_multicorn(integer) IS
'whether Multicorn2 and PL/Python in one backend crash the server; python: 311 for 3.11';

-- Multicorn's handler only, never its validator: that one lets a user mapping name any Python class to load.
CREATE OR REPLACE FUNCTION _deal_sync.set_handler(server name, python integer) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = error
AS $$
DECLARE
    handler regproc;
BEGIN
    IF _deal_sync.crashes_with_multicorn(python) THEN
        RETURN format(
            'Multicorn2 is not used, because with Python %s.%s it would crash the server (it is safe before 3.12);'
            ' read the tables with deal_sync.scan()',
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
            SELECT CASE WHEN _deal_sync.options_of(s.srvoptions) ? 'wrapper' THEN 'SET' ELSE 'ADD' END
            FROM pg_foreign_server AS s
            WHERE s.srvname = server
        ),
        'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper'
    );
    RETURN 'Multicorn2 answers SELECTs on the tables';
END
$$;
COMMENT ON FUNCTION _deal_sync.set_handler(name, integer) IS
'sets Multicorn''s handler if Multicorn2 is installed and Python is older than 3.12';

CREATE OR REPLACE FUNCTION deal_sync.attach(
    server name DEFAULT 'neo4j', schema name DEFAULT 'neo4j', application name DEFAULT NULL
)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    python CONSTANT integer := _deal_sync.check_package();
    -- The application's tables are in the one schema with a table "opportunities", unless the caller says.
    homes CONSTANT name[] := _deal_sync.application_schemas();
    home CONSTANT name := coalesce(application, homes[1], 'public');
    elsewhere record;
BEGIN
    IF server IS NULL OR schema IS NULL THEN
        RAISE EXCEPTION 'deal_sync.attach requires a server and a schema' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT deal_sync.attach(''neo4j'', ''neo4j'');';
    ELSIF NOT EXISTS (
        SELECT FROM pg_foreign_server AS s
        INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
        WHERE s.srvname = server AND w.fdwname = 'neo4j'
    ) THEN
        RAISE EXCEPTION 'server "%" of the foreign-data wrapper neo4j does not exist', server USING
            ERRCODE = 'undefined_object',
            HINT = format('CREATE SERVER %I FOREIGN DATA WRAPPER neo4j OPTIONS (uri ''bolt://host:7687'');', server);
    ELSIF application IS NULL AND cardinality(homes) > 1 THEN
        RAISE EXCEPTION 'several schemas have a table "opportunities": %', array_to_string(homes, ', ') USING
            ERRCODE = 'ambiguous_parameter',
            HINT = format('SELECT deal_sync.attach(%L, %L, application => %L);', server, schema, homes[1]);
    ELSIF application IS NOT NULL AND to_regnamespace(quote_ident(application)) IS NULL THEN
        RAISE EXCEPTION 'schema "%" does not exist', application USING
            ERRCODE = 'invalid_schema_name',
            DETAIL = 'The argument "application" names the schema of the table "opportunities".',
            HINT = format(
                'SELECT deal_sync.attach(%L, %L, application => %L);', server, schema, coalesce(homes[1], 'public')
            );
    END IF;

    elsewhere := _deal_sync.mapped_elsewhere(schema);
    IF elsewhere.relation IS NOT NULL THEN
        RAISE EXCEPTION 'foreign table % already maps the %s of the graph', elsewhere.relation, elsewhere.kind USING
            ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'A database has one mapping.',
            HINT = elsewhere.hint;
    END IF;

    RETURN _deal_sync.create_mapping(server, schema, home) || _deal_sync.set_handler(server, python);
END
$$;
COMMENT ON FUNCTION deal_sync.attach(name, name, name) IS
'creates the foreign tables of the mapping, or adds the columns that they lack, and sets Multicorn''s handler if that '
'is safe; application: the schema of opportunities';

CREATE OR REPLACE FUNCTION deal_sync.detach() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = error
AS $$
BEGIN
    ALTER FOREIGN DATA WRAPPER neo4j NO HANDLER;
END
$$;
COMMENT ON FUNCTION deal_sync.detach() IS
'removes Multicorn''s handler from the foreign-data wrapper, before pg_upgrade, a newer Python or DROP EXTENSION '
'multicorn; tables, servers and scan() stay';

CREATE OR REPLACE FUNCTION _deal_sync.options_clause(options text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(' OPTIONS (' || string_agg(o.option, ', ' ORDER BY o.name) || ')', '')
    FROM (
        SELECT p.option_name AS name, format('%I %L', p.option_name, p.option_value) AS option
        FROM pg_options_to_table(options) AS p
    ) AS o
$$;
COMMENT ON FUNCTION _deal_sync.options_clause(text[]) IS 'an OPTIONS clause, or nothing';

CREATE OR REPLACE FUNCTION deal_sync.mapping_ddl() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(
        format(
            E'CREATE FOREIGN TABLE %s (\n%s\n) SERVER %I%s;',
            ft.ftrelid::regclass, columns.list, s.srvname, _deal_sync.options_clause(ft.ftoptions)
        ),
        E'\n\n' ORDER BY k.kind
    )
    FROM unnest(ARRAY['deal', 'version']) AS k (kind)
    INNER JOIN pg_foreign_table AS ft ON ft.ftrelid = _deal_sync.mapped(k.kind)
    INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
    CROSS JOIN LATERAL (
        SELECT string_agg(
            format(
                '    %I %s%s',
                a.attname, format_type(a.atttypid, a.atttypmod), _deal_sync.options_clause(a.attfdwoptions)
            ),
            E',\n' ORDER BY a.attnum
        ) AS list
        FROM pg_attribute AS a
        WHERE a.attrelid = ft.ftrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns
$$;
COMMENT ON FUNCTION deal_sync.mapping_ddl() IS 'the mapping as SQL statements, to keep in version control';
