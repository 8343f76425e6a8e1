-- In: a server, and the default mapping. Out: the foreign tables of the mapping, and the mapping as statements.

CREATE OR REPLACE FUNCTION deal_sync.attach(
    server name DEFAULT 'neo4j', schema name DEFAULT 'neo4j', application name DEFAULT NULL
)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    python integer := _deal_sync.check_package();
    vector text := _deal_sync.vector_type()::regtype::text;
    home name := application;
    homes name[];
    definition record;
    relation regclass;
    there regclass;
    shown record;
    said text := '';
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
    END IF;

    -- Where the application's tables stand: in the one schema with a table "opportunities", unless the caller says.
    SELECT array_agg(n.nspname ORDER BY n.nspname) INTO homes
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relname = 'opportunities' AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_';
    IF home IS NULL AND cardinality(homes) > 1 THEN
        RAISE EXCEPTION 'several schemas have a table "opportunities": %', array_to_string(homes, ', ') USING
            ERRCODE = 'ambiguous_parameter',
            HINT = format('SELECT deal_sync.attach(%L, %L, application => %L);', server, schema, homes[1]);
    ELSIF to_regnamespace(quote_ident(home)) IS NULL AND home IS NOT NULL THEN
        RAISE EXCEPTION 'schema "%" does not exist', home USING
            ERRCODE = 'invalid_schema_name',
            DETAIL = 'The argument "application" names the schema of the table "opportunities".',
            HINT = format(
                'SELECT deal_sync.attach(%L, %L, application => %L);', server, schema, coalesce(homes[1], 'public')
            );
    END IF;
    home := coalesce(home, homes[1], 'public');

    IF to_regnamespace(quote_ident(schema)) IS NULL THEN
        EXECUTE format('CREATE SCHEMA %I', schema);
    END IF;

    FOR definition IN
        SELECT
            d.table_name, d.label, d.kind, d.target,
            array_agg(
                format(
                    '%I %s%s', d.name, regexp_replace(d.type, '^vector', vector),
                    ' OPTIONS (' || (
                        SELECT string_agg(format('%I %L', o.key, o.value), ', ')
                        FROM jsonb_each_text(d.options) AS o
                    ) || ')'
                ) ORDER BY d.place
            ) AS columns,
            array_agg(d.name ORDER BY d.place) AS names,
            array_agg(coalesce(d.options ->> 'property', d.name) ORDER BY d.place) AS properties,
            array_agg(d.options ->> 'derive' ORDER BY d.place) AS derivations
        FROM _deal_sync.default_columns() AS d
        GROUP BY d.table_name, d.label, d.kind, d.target
        ORDER BY d.table_name DESC
    LOOP
        relation := to_regclass(format('%I.%I', schema, definition.table_name));
        IF relation IS NULL THEN
            BEGIN
                there := _deal_sync.mapped(definition.kind);
            EXCEPTION
                WHEN undefined_object THEN
                    there := NULL;
            END;
            IF there IS NOT NULL THEN
                RAISE EXCEPTION 'foreign table % already maps the %s of the graph', there, definition.kind USING
                    ERRCODE = 'object_not_in_prerequisite_state',
                    DETAIL = 'A database has one mapping.',
                    HINT = (
                        SELECT format(
                            'To add columns that it lacks: SELECT deal_sync.attach(%L, %L);'
                            ' to replace it, first: DROP FOREIGN TABLE %s;',
                            s.srvname, n.nspname, there
                        )
                        FROM pg_foreign_table AS ft
                        INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
                        INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
                        INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
                        WHERE ft.ftrelid = there
                    );
            END IF;
            EXECUTE format(
                E'CREATE FOREIGN TABLE %I.%I (\n    %s\n) SERVER %I OPTIONS (label %L, kind %L, target %L%s)',
                schema, definition.table_name, array_to_string(definition.columns, E',\n    '), server,
                definition.label, definition.kind, format('%I.%I', home, definition.target),
                CASE WHEN definition.kind = 'deal' THEN
                    format(', links %L, tenants %L', format('%I.interaction_links', home), format('%I.tenants', home))
                END
            );
            EXECUTE format(
                'COMMENT ON FOREIGN TABLE %I.%I IS %L', schema, definition.table_name,
                format('the nodes :%s of the graph, and the columns that the sync fills from them', definition.label)
            );
            relation := format('%I.%I', schema, definition.table_name)::regclass;
            said := said || format('created %I.%I; ', schema, definition.table_name);
        ELSE
            FOR nth IN 1 .. cardinality(definition.names) LOOP
                IF NOT EXISTS ( -- also under another name: a person may rename a column
                    SELECT FROM _deal_sync.mapping_columns(relation) AS m
                    WHERE
                        m.name = definition.names[nth]
                        OR m.options ->> 'derive' = definition.derivations[nth]
                        OR (
                            NOT m.options ? 'derive' AND definition.derivations[nth] IS NULL
                            AND coalesce(m.options ->> 'property', m.name) = definition.properties[nth]
                        )
                ) THEN
                    EXECUTE format('ALTER FOREIGN TABLE %s ADD COLUMN %s', relation, definition.columns[nth]);
                    said := said || format('added %s.%I; ', relation, definition.names[nth]);
                END IF;
            END LOOP;
        END IF;

        -- A column is found by what it shows, whatever its name is; a comment that somebody has written stays.
        FOR shown IN
            SELECT m.name, d.comment
            FROM _deal_sync.mapping_columns(relation) AS m
            INNER JOIN _deal_sync.default_columns() AS d
                ON d.kind = definition.kind
                AND coalesce(d.options ->> 'derive', 'property ' || d.name)
                = coalesce(m.options ->> 'derive', 'property ' || coalesce(m.options ->> 'property', m.name))
            WHERE col_description(relation, m.place) IS NULL
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, shown.name, shown.comment);
        END LOOP;
    END LOOP;

    RETURN said || _deal_sync.set_handler(server, python);
END
$$;
COMMENT ON FUNCTION deal_sync.attach(name, name, name) IS
'creates the foreign tables of the mapping, or adds the columns that they lack, and sets Multicorn''s handler if that '
'is safe; application: the schema of opportunities';

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
