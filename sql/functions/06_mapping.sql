-- In: the catalog. Out: the mapping: its foreign tables and columns, their targets and the types of these.

CREATE OR REPLACE FUNCTION _deal_sync.way_to_map(kind text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH servers AS (
        SELECT s.oid, s.srvname FROM pg_foreign_server AS s
        INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
        WHERE w.fdwname = 'neo4j'
    ),

    tables AS (
        SELECT ft.ftrelid, s.srvname, n.nspname AS home, o.options
        FROM pg_foreign_table AS ft
        INNER JOIN servers AS s ON s.oid = ft.ftserver
        INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
        INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL _deal_sync.options_of(ft.ftoptions) AS o (options)
    )

    SELECT coalesce(
        -- a table with the key of this kind, which has lost the option
        (
            SELECT format('ALTER FOREIGN TABLE %s OPTIONS (ADD kind %L);', min(t.ftrelid)::regclass, way_to_map.kind)
            FROM tables AS t
            INNER JOIN pg_attribute AS a ON a.attrelid = t.ftrelid
            WHERE
                NOT t.options ? 'kind'
                AND _deal_sync.options_of(a.attfdwoptions) ->> 'target'
                = CASE way_to_map.kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'version_number' END
            HAVING count(*) > 0
        ),
        -- beside the table of the other kind, or with the first server
        (
            SELECT CASE
                WHEN p.srvname = 'neo4j' AND p.home = 'neo4j' THEN 'SELECT deal_sync.attach();'
                ELSE format('SELECT deal_sync.attach(%L, %L);', p.srvname, p.home)
            END
            FROM (
                SELECT t.srvname, t.home, 1 AS place FROM tables AS t
                WHERE t.options ? 'kind'
                UNION ALL
                SELECT s.srvname, 'neo4j', 2 FROM servers AS s
            ) AS p
            ORDER BY p.place, p.srvname
            LIMIT 1
        ),
        'CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri ''bolt://host:7687''); SELECT deal_sync.attach();'
    )
$$;
COMMENT ON FUNCTION _deal_sync.way_to_map(text) IS
'the statement that creates the foreign table of a kind that has none, or gives it the option kind';

-- A foreign table counts only if it and its server belong to a superuser or to the extension's owner, because it is
-- read with the owner's login.
CREATE OR REPLACE FUNCTION _deal_sync.mapped(kind text) RETURNS regclass
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found regclass[];
    untrusted regclass;
BEGIN
    SELECT
        array_agg(t.relation ORDER BY t.relation) FILTER (WHERE t.trusted),
        min(t.relation::oid) FILTER (WHERE NOT t.trusted)
    INTO found, untrusted
    FROM (
        SELECT
            ft.ftrelid::regclass AS relation,
            (
                SELECT bool_and(r.rolsuper OR r.oid = e.extowner)
                FROM pg_roles AS r, pg_extension AS e
                WHERE r.oid IN (c.relowner, s.srvowner) AND e.extname = 'deal_sync'
            ) AS trusted
        FROM pg_foreign_table AS ft
        INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
        INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
        INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
        WHERE w.fdwname = 'neo4j' AND _deal_sync.options_of(ft.ftoptions) ->> 'kind' = mapped.kind
    ) AS t;

    IF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'several foreign tables map the %s of the graph: %', kind, array_to_string(found, ', ') USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'A database has one mapping: drop the others, or ALTER FOREIGN TABLE ... OPTIONS (DROP kind);';
    ELSIF found IS NULL THEN
        RAISE EXCEPTION 'no foreign table maps the %s of the graph', kind USING
            ERRCODE = 'undefined_object',
            DETAIL = CASE
                WHEN untrusted IS NULL THEN format('No foreign table has the option kind %L.', kind)
                ELSE format(
                    'Foreign table %s does not count: it and its server must belong to a superuser'
                    ' or to the owner of the extension.',
                    untrusted
                )
            END,
            HINT = CASE WHEN untrusted IS NULL THEN _deal_sync.way_to_map(kind) ELSE
                'What to change: SELECT hint FROM deal_sync.doctor() WHERE name = ''foreign tables'';'
            END;
    END IF;
    RETURN found[1];
END
$$;
COMMENT ON FUNCTION _deal_sync.mapped(text) IS
'the foreign table that maps the deals (kind deal) or the versions (kind version) of the graph';

CREATE OR REPLACE FUNCTION _deal_sync.table_option(kind text, option text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.options_of(ft.ftoptions) ->> option
    FROM pg_foreign_table AS ft
    WHERE ft.ftrelid = _deal_sync.mapped(kind)
$$;
COMMENT ON FUNCTION _deal_sync.table_option(text, text) IS
'an option of the foreign table of a kind';

CREATE OR REPLACE FUNCTION _deal_sync.stamp_column() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(_deal_sync.table_option('deal', 'stamps'), 'updated_at')
$$;
COMMENT ON FUNCTION _deal_sync.stamp_column() IS
'the column of opportunities that is set to the time of each change, if it exists';

-- For the options target, links and tenants; a setup error if the table does not exist.
CREATE OR REPLACE FUNCTION _deal_sync.application_table(kind text, option text) RETURNS regclass
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := _deal_sync.table_option(kind, option);
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION 'foreign table % has no option "%"', _deal_sync.mapped(kind), option USING
            ERRCODE = 'fdw_option_name_not_found',
            HINT = format('ALTER FOREIGN TABLE %s OPTIONS (ADD %s ''schema.table'');', _deal_sync.mapped(kind), option);
    ELSIF to_regclass(name) IS NULL THEN
        RAISE EXCEPTION 'table "%" does not exist', name USING
            ERRCODE = 'undefined_table',
            DETAIL = format('Option "%s" of foreign table %s names it.', option, _deal_sync.mapped(kind)),
            -- The migration creates deal_versions; the other tables are the application's own.
            HINT = CASE WHEN kind = 'version' THEN 'Run the migration (sql/migration)' ELSE 'Create it' END
                || ', or ALTER the option if the table is in another schema.';
    END IF;
    RETURN to_regclass(name);
END
$$;
COMMENT ON FUNCTION _deal_sync.application_table(text, text) IS
'the table of the application that the mapping of a kind names in an option';

CREATE OR REPLACE FUNCTION _deal_sync.target_tables() RETURNS SETOF regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.application_table(t.kind, t.option)
    FROM (VALUES ('deal', 'target'), ('version', 'target'), ('deal', 'links')) AS t (kind, option)
$$;
COMMENT ON FUNCTION _deal_sync.target_tables() IS 'the tables of the application that the sync writes';

-- What a column is staged as: a domain's base type, down to the last; char(n) as varchar(n).
CREATE OR REPLACE FUNCTION _deal_sync.base_type(INOUT type oid, INOUT modifier integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base record;
BEGIN
    LOOP
        SELECT t.typbasetype, t.typtypmod INTO base
        FROM pg_type AS t
        WHERE t.oid = base_type.type AND t.typtype = 'd';
        EXIT WHEN NOT found;
        type := base.typbasetype;
        modifier := base.typtypmod;
    END LOOP;
    IF type = 'bpchar'::regtype THEN
        type := 'varchar'::regtype;  -- the same modifier; only varchar keeps blanks apart from what is too long
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.base_type(oid, integer) IS
'the type and modifier that a column is staged with: of a domain, those of its base type';

CREATE OR REPLACE FUNCTION _deal_sync.vector_type() RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.oid
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_type AS t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typname = 'vector'
    WHERE e.extname = 'vector' AND d.deptype = 'e'
$$;
COMMENT ON FUNCTION _deal_sync.vector_type() IS 'pgvector''s type vector, in whichever schema it is';

CREATE OR REPLACE FUNCTION _deal_sync.mapping_columns(relation regclass) RETURNS SETOF _deal_sync.mapping_column
LANGUAGE plpgsql STABLE -- it keeps its plan: a run asks some ten times
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH foreign_columns AS (
        SELECT
            a.attnum, a.attname, a.atttypid, a.atttypmod, f.typname, o.options,
            o.options ->> 'target' AS target,
            coalesce(o.options ->> 'write', 'always') AS write,
            ft.target_table
        FROM (
            SELECT to_regclass(_deal_sync.options_of(t.ftoptions) ->> 'target') AS target_table
            FROM pg_foreign_table AS t
            WHERE t.ftrelid = relation
            OFFSET 0 -- once, not for each column
        ) AS ft
        INNER JOIN pg_attribute AS a ON a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
        INNER JOIN pg_type AS f ON f.oid = a.atttypid
        CROSS JOIN LATERAL _deal_sync.options_of(a.attfdwoptions) AS o (options)
    ),

    -- What is staged: whatever is written, and what is linked; the tenant is the run's own.
    with_targets AS (
        SELECT
            f.*, t.attname IS NOT NULL AS target_is_there, t.atttypid AS target_type, t.atttypmod AS target_modifier,
            t.attnotnull AS not_null, pg_get_expr(d.adbin, d.adrelid) AS target_default,
            CASE WHEN f.target <> 'tenant_id' AND f.write <> 'never' THEN t.atttypid
                WHEN f.options ? 'link' THEN 'uuid'::regtype END AS due_type,
            CASE WHEN f.target <> 'tenant_id' AND f.write <> 'never' THEN t.atttypmod ELSE -1 END AS due_modifier
        FROM foreign_columns AS f
        LEFT JOIN pg_attribute AS t
            ON t.attrelid = f.target_table AND t.attname = f.target AND t.attnum > 0 AND NOT t.attisdropped
        LEFT JOIN pg_attrdef AS d ON d.adrelid = t.attrelid AND d.adnum = t.attnum AND t.attgenerated = ''
    )

    SELECT
        w.attnum, w.attname::text, w.atttypid, w.typname::text, w.atttypmod, w.options,
        w.target, w.write, w.target_type, w.target_modifier, w.target_is_there,
        coalesce(w.not_null, false), w.target_default,
        coalesce(w.not_null, false) AND w.target_default IS NULL AND NOT w.options ?| ARRAY['default', 'fallback'],
        CASE
            WHEN w.due_type IS NULL THEN NULL
            WHEN own.stages THEN format_type(base.type, base.modifier)
            ELSE 'text'
        END,
        CASE WHEN own.stages THEN base.type WHEN w.due_type IS NOT NULL THEN 'text'::regtype::oid END,
        CASE WHEN own.stages THEN own.typname::text WHEN w.due_type IS NOT NULL THEN 'text' END,
        CASE WHEN own.stages THEN base.modifier ELSE -1 END,
        format_type(base.type, base.modifier), due.typname::text, base.modifier
    FROM with_targets AS w
    LEFT JOIN pg_type AS t ON t.oid = w.due_type
    LEFT JOIN LATERAL ( -- a call costs more than all else here, and few types need it
        SELECT w.due_type AS type, w.due_modifier AS modifier WHERE t.typtype <> 'd' AND t.oid <> 'bpchar'::regtype
        UNION ALL
        SELECT b.* FROM _deal_sync.base_type(w.due_type, w.due_modifier) AS b
        WHERE t.typtype = 'd' OR t.oid = 'bpchar'::regtype
    ) AS base ON true
    LEFT JOIN pg_type AS due ON due.oid = base.type
    LEFT JOIN LATERAL (
        SELECT b.typname, true AS stages
        FROM pg_type AS b
        WHERE
            b.oid = base.type
            AND (
                b.oid = ANY (ARRAY[
                    'int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'text', 'varchar', 'bool', 'uuid', 'date',
                    'timestamp', 'timestamptz', 'json', 'jsonb'
                ]::regtype[])
                OR b.oid = _deal_sync.vector_type()
            )
    ) AS own ON true;
END
$$;
COMMENT ON FUNCTION _deal_sync.mapping_columns(regclass) IS
'the columns of a foreign table of the mapping: options, target, and the base type that each is staged in (NULL: none)';

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
