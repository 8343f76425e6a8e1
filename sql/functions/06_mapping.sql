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

-- A view, not a function, which would be called for each row: a run looks for its foreign tables often. The validator,
-- which may read nothing of the extension, has the rule, too.
CREATE OR REPLACE VIEW _deal_sync.trusted_owners AS
SELECT r.oid AS owner
FROM pg_catalog.pg_roles AS r
CROSS JOIN pg_catalog.pg_extension AS e
WHERE e.extname = 'deal_sync' AND (r.rolsuper OR r.oid = e.extowner);
COMMENT ON VIEW _deal_sync.trusted_owners IS
'the owners whose foreign tables and servers count, because the login of the extension''s owner reads them: that role, '
'and superusers';
COMMENT ON COLUMN _deal_sync.trusted_owners.owner IS 'the role';

-- A foreign table counts only if it and its server belong to trusted owners, because it is read with the login of the
-- extension's owner.
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
            EXISTS (SELECT FROM _deal_sync.trusted_owners AS o WHERE o.owner = c.relowner)
            AND EXISTS (SELECT FROM _deal_sync.trusted_owners AS o WHERE o.owner = s.srvowner) AS trusted
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

-- Where each row of the catalog is that the mapping is read from, and who wrote it: both change with the row. By keys,
-- so that it costs the same in a database of many tables.
CREATE OR REPLACE FUNCTION _deal_sync.mapping_state() RETURNS text
LANGUAGE plpgsql STABLE -- it keeps its plan: each run asks
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH RECURSIVE servers AS MATERIALIZED (
            SELECT s.tableoid, s.xmin, s.ctid, s.oid, s.srvowner
            FROM pg_foreign_server AS s
            INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
            WHERE w.fdwname = 'neo4j'
        ),

        mapping AS MATERIALIZED (
            SELECT
                ft.tableoid, ft.xmin, ft.ctid, ft.ftrelid, _deal_sync.options_of(ft.ftoptions) AS options,
                EXISTS (SELECT FROM _deal_sync.trusted_owners AS o WHERE o.owner = c.relowner)
                AND EXISTS (SELECT FROM _deal_sync.trusted_owners AS o WHERE o.owner = s.srvowner) AS counts
            FROM pg_foreign_table AS ft
            INNER JOIN servers AS s ON s.oid = ft.ftserver
            INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
            WHERE EXISTS (SELECT FROM pg_options_to_table(ft.ftoptions) AS o WHERE o.option_name = 'kind')
        ),

        -- Of a table that does not count nothing is looked up: to_regclass() raises errors for some names.
        relations AS MATERIALIZED (
            SELECT m.ftrelid AS oid FROM mapping AS m
            WHERE m.counts
            UNION
            SELECT to_regclass(m.options ->> o.name)
            FROM mapping AS m
            CROSS JOIN unnest(ARRAY['target', 'links', 'tenants']) AS o (name)
            WHERE m.counts
        ),

        types AS (
            SELECT a.atttypid AS oid
            FROM pg_attribute AS a
            WHERE a.attrelid = ANY (ARRAY(SELECT r.oid FROM relations AS r))
            UNION
            SELECT t.typbasetype
            FROM types AS d
            INNER JOIN pg_type AS t ON t.oid = d.oid
            WHERE t.typbasetype <> 0
        ),

        found (relation, xmin, ctid) AS (
            SELECT s.tableoid, s.xmin, s.ctid FROM servers AS s
            UNION ALL
            SELECT m.tableoid, m.xmin, m.ctid FROM mapping AS m
            UNION ALL
            SELECT e.tableoid, e.xmin, e.ctid FROM pg_extension AS e
            UNION ALL
            SELECT c.tableoid, c.xmin, c.ctid
            FROM pg_class AS c
            WHERE c.oid = ANY (ARRAY(SELECT r.oid FROM relations AS r))
            UNION ALL
            SELECT n.tableoid, n.xmin, n.ctid FROM pg_namespace AS n WHERE n.nspname !~ '^pg_'
            UNION ALL
            SELECT a.tableoid, a.xmin, a.ctid
            FROM pg_attribute AS a
            WHERE a.attrelid = ANY (ARRAY(SELECT r.oid FROM relations AS r)) AND a.attnum > 0
            UNION ALL
            SELECT d.tableoid, d.xmin, d.ctid
            FROM pg_attrdef AS d
            WHERE d.adrelid = ANY (ARRAY(SELECT r.oid FROM relations AS r))
            UNION ALL
            SELECT i.tableoid, i.xmin, i.ctid
            FROM pg_index AS i
            WHERE i.indrelid = ANY (ARRAY(SELECT to_regclass(m.options ->> 'links') FROM mapping AS m WHERE m.counts))
            UNION ALL
            SELECT w.tableoid, w.xmin, w.ctid
            FROM pg_rewrite AS w
            WHERE w.ev_class = ANY (ARRAY(SELECT r.oid FROM relations AS r))
            UNION ALL
            SELECT t.tableoid, t.xmin, t.ctid
            FROM pg_type AS t
            WHERE t.oid = ANY (ARRAY(SELECT y.oid FROM types AS y))
            UNION ALL
            SELECT k.tableoid, k.xmin, k.ctid
            FROM pg_constraint AS k
            WHERE k.contypid = ANY (ARRAY(SELECT y.oid FROM types AS y))
            UNION ALL
            SELECT l.tableoid, l.xmin, l.ctid
            FROM pg_enum AS l
            WHERE l.enumtypid = ANY (ARRAY(SELECT y.oid FROM types AS y))
        )

        -- The text of a default also changes with the names in it.
        SELECT concat_ws(
            ' ',
            (SELECT count(*) FROM found),
            (SELECT bit_xor(hash_record_extended(ROW(f.relation, f.xmin, f.ctid), 0)) FROM found AS f),
            (
                SELECT bit_xor(hash_record_extended(ROW(d.oid, pg_get_expr(d.adbin, d.adrelid)), 0))
                FROM pg_attrdef AS d
                WHERE d.adrelid = ANY (ARRAY(SELECT r.oid FROM relations AS r))
            )
        )
    );
END
$$;
COMMENT ON FUNCTION _deal_sync.mapping_state() IS
'changes if a row of the catalog changes that the mapping is read from';
