-- In: the mapping and the application's tables. Out: the first setup error, before anything is read.

CREATE OR REPLACE FUNCTION _deal_sync.check_target_table(relation regclass, target regclass) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong record;
BEGIN
    -- The plan of a batch asks for the place of a row, which a view does not have; and MERGE takes no table with rules,
    -- not even disabled ones.
    FOR wrong IN
        SELECT
            c.relkind NOT IN ('r', 'p') AS is_no_table, r.rulename,
            CASE c.relkind
                WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' WHEN 'f' THEN 'a foreign table'
            END AS is_instead
        FROM pg_class AS c
        LEFT JOIN pg_rewrite AS r ON r.ev_class = c.oid AND r.ev_type <> '1'
        WHERE c.oid = target AND (c.relkind NOT IN ('r', 'p') OR r.oid IS NOT NULL)
        LIMIT 1
    LOOP
        IF wrong.is_no_table THEN
            RAISE EXCEPTION '% is %, and the sync writes tables only', target, coalesce(wrong.is_instead, 'no table')
                USING
                    ERRCODE = 'wrong_object_type',
                    DETAIL = format('Option "target" of foreign table %s names it.', relation),
                    HINT = format('ALTER FOREIGN TABLE %s OPTIONS (SET target ''schema.table'');', relation);
        END IF;
        RAISE EXCEPTION 'table % has the rule "%", and MERGE does not write a table with rules', target, wrong.rulename
            USING
                ERRCODE = 'feature_not_supported',
                HINT = 'Replace the rule by a trigger.';
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_target_table(regclass, regclass) IS
'raises if the sync cannot write a target because of what it is: no table, or one with rules';

CREATE OR REPLACE FUNCTION _deal_sync.check_target_columns(
    kind text, relation regclass, target regclass, mapping _deal_sync.mapping_column[]
) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key_targets CONSTANT text[] := CASE kind
        WHEN 'deal' THEN ARRAY['tenant_id', 'graph_opportunity_id']
        ELSE ARRAY['tenant_id', 'id', 'opportunity_id', 'version_number']
    END;
    wrong record;
BEGIN
    FOR wrong IN
        SELECT r.name
        FROM unnest(key_targets) AS r (name)
        WHERE NOT EXISTS (SELECT FROM unnest(mapping) AS m WHERE m.target = r.name AND m.write <> 'never')
    LOOP
        RAISE EXCEPTION 'no column of foreign table % has the target "%"', relation, wrong.name USING
            ERRCODE = 'undefined_column',
            HINT = 'The key needs it: SELECT deal_sync.attach() adds a column that is missing.';
    END LOOP;

    FOR wrong IN
        SELECT m.name, m.target, format_type(m.type, m.type_modifier) AS type, kind AS of_kind
        FROM unnest(mapping) AS m
        WHERE m.target IS NOT NULL AND m.write <> 'never' AND NOT coalesce(m.target_is_there, false)
    LOOP
        RAISE EXCEPTION 'column "%" of table % does not exist', wrong.target, target USING
            ERRCODE = 'undefined_column',
            DETAIL = format('Column "%s" of foreign table %s names it as its target.', wrong.name, relation),
            -- The foreign column's type says little of the target's: the migration knows the types of its columns.
            HINT = CASE WHEN EXISTS (
                SELECT FROM _deal_sync.default_columns() AS d
                WHERE d.kind = wrong.of_kind AND d.options ->> 'target' = wrong.target
            ) THEN
                'Run the migration (sql/migration/deal_sync.sql)'
                || CASE WHEN wrong.target = ANY (key_targets) THEN '.' ELSE ', or ' END
            ELSE
                format('ALTER TABLE %s ADD COLUMN %I %s; or ', target, wrong.target, wrong.type)
            END || CASE WHEN wrong.target = ANY (key_targets) THEN '' ELSE format(
                'ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (DROP target);', relation, wrong.name
            ) END;
    END LOOP;

    FOR wrong IN
        SELECT m.name
        FROM unnest(mapping) AS m
        WHERE
            m.staged_as IS NOT NULL
            AND (
                octet_length(m.name) > 58
                OR m.name IN (
                    'row_number', 'element_id', 'graph_id', 'refusal', 'conversion_errors', 'undated',
                    'landed_id', 'shadows'
                )
            )
    LOOP
        RAISE EXCEPTION 'column "%" of foreign table % cannot have a target under this name', wrong.name, relation USING
            ERRCODE = 'duplicate_column',
            DETAIL = 'The sync uses the name itself, or it is longer than 58 bytes.',
            HINT = format(
                'ALTER FOREIGN TABLE %1$s RENAME COLUMN %2$I TO ...;'
                ' ALTER FOREIGN TABLE %1$s ALTER COLUMN ... OPTIONS (ADD property %2$L);',
                relation, wrong.name
            );
    END LOOP;

    FOR wrong IN
        SELECT m.target
        FROM unnest(mapping) AS m
        INNER JOIN pg_attribute AS a ON a.attrelid = check_target_columns.target AND a.attname = m.target
        WHERE m.write <> 'never' AND a.attgenerated <> ''
    LOOP
        RAISE EXCEPTION 'column "%" of table % is generated: nothing can be written to it', wrong.target, target USING
            ERRCODE = 'generated_always',
            HINT = format('ALTER FOREIGN TABLE %s ALTER COLUMN ... OPTIONS (DROP target);', relation);
    END LOOP;

    FOR wrong IN
        SELECT m.target
        FROM unnest(mapping) AS m
        WHERE m.target IS NOT NULL AND m.write <> 'never'
        GROUP BY m.target HAVING count(*) > 1
    LOOP
        RAISE EXCEPTION 'several columns of foreign table % have the target "%"', relation, wrong.target USING
            ERRCODE = 'duplicate_column',
            HINT = 'Drop the target of one of them, or set its write policy to ''never''.';
    END LOOP;

    FOR wrong IN
        SELECT
            m.name, m.options ->> 'default' AS value,
            _deal_sync.cast_error(m.options ->> 'default', m.target_type, m.target_modifier) AS error
        FROM unnest(mapping) AS m
        WHERE m.options ? 'default' AND m.target_is_there AND m.write <> 'never'
    LOOP
        -- A cast to varchar(n) cuts what is too long, an INSERT rejects it.
        CONTINUE WHEN wrong.error IS NULL AND NOT EXISTS (
            SELECT FROM unnest(mapping) AS m
            WHERE
                m.name = wrong.name AND m.target_type IN ('varchar'::regtype, 'bpchar'::regtype)
                AND m.target_modifier >= 0 AND char_length(wrong.value) > m.target_modifier - 4
        );
        RAISE EXCEPTION 'the option default of column "%" of foreign table % does not fit its target',
            wrong.name, relation
            USING
                ERRCODE = 'datatype_mismatch',
                DETAIL = coalesce(wrong.error ->> 'message', 'It is too long.'),
                HINT = format(
                    'ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (SET "default" ...);', relation, wrong.name
                );
    END LOOP;

    FOR wrong IN
        SELECT m.name, m.options ->> 'fallback' AS fallback
        FROM unnest(mapping) AS m
        WHERE
            m.options ? 'fallback' AND m.write <> 'never'
            AND NOT EXISTS (
                SELECT FROM unnest(mapping) AS f WHERE f.name = m.options ->> 'fallback' AND f.staged_as IS NOT NULL
            )
    LOOP
        RAISE EXCEPTION 'column "%" of foreign table % has the fallback "%", and no column that is read has this name',
            wrong.name, relation, wrong.fallback
            USING
                ERRCODE = 'undefined_column',
                HINT = format(
                    'ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (SET fallback ...);', relation, wrong.name
                );
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_target_columns(text, regclass, regclass, _deal_sync.mapping_column[]) IS
'raises if a column of the mapping has a target that it cannot have, or an option that does not go with it';

CREATE OR REPLACE FUNCTION _deal_sync.check_stamps(relation regclass, target regclass) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stamp CONSTANT text := _deal_sync.table_option('deal', 'stamps');
    is_of record;
BEGIN
    IF stamp IS NULL THEN
        RETURN;
    END IF;
    SELECT a.atttypid::regtype AS type, b.type AS base INTO is_of
    FROM pg_attribute AS a
    CROSS JOIN LATERAL _deal_sync.base_type(a.atttypid, a.atttypmod) AS b
    WHERE a.attrelid = target AND a.attname = stamp AND a.attnum > 0 AND NOT a.attisdropped;
    IF is_of.base IS NULL OR is_of.base NOT IN ('timestamptz'::regtype, 'timestamp'::regtype) THEN
        RAISE EXCEPTION 'column "%" of table % %', stamp, target,
            CASE
                WHEN is_of.type IS NULL THEN 'does not exist'
                ELSE format('is of type %s, not a timestamp', is_of.type)
            END
            USING
                ERRCODE = CASE WHEN is_of.type IS NULL THEN 'undefined_column' ELSE 'datatype_mismatch' END,
                DETAIL = format('Option "stamps" of foreign table %s names it.', relation),
                HINT = format('ALTER FOREIGN TABLE %s OPTIONS (DROP stamps);', relation);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_stamps(regclass, regclass) IS 'raises if the option stamps names no timestamp';

CREATE OR REPLACE FUNCTION _deal_sync.check_unfilled(
    kind text, relation regclass, target regclass, mapping _deal_sync.mapping_column[]
) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stamp CONSTANT text := _deal_sync.stamp_column();
    wrong record;
BEGIN
    -- Something must fill each column that is NOT NULL and has no default. A hint gives every new row a value: a
    -- property that no node has would reject them all.
    FOR wrong IN
        SELECT
            a.attname AS name, k.type, k."default",
            b.type = ANY ('{timestamptz,timestamp,date,time,timetz}'::regtype[]) AS is_time,
            -- By its name, a column that a framework sets at each change.
            kind = 'deal' AND b.type IN ('timestamptz'::regtype, 'timestamp'::regtype)
            AND a.attname ~* '(updat|modif|chang)'
            AND NOT EXISTS (
                SELECT FROM pg_attribute AS u WHERE u.attrelid = target AND u.attname = stamp AND NOT u.attisdropped
            ) AS is_stamp
        FROM pg_attribute AS a
        CROSS JOIN LATERAL _deal_sync.base_type(a.atttypid, a.atttypmod) AS b
        CROSS JOIN LATERAL (
            SELECT
                CASE
                    WHEN b.type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'bigint'
                    WHEN b.type IN ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) THEN 'double precision'
                    WHEN b.type = 'bool'::regtype THEN 'boolean'
                    WHEN b.type = _deal_sync.vector_type() THEN format_type(b.type, b.modifier)
                    WHEN b.type IN ('json'::regtype, 'jsonb'::regtype) THEN 'jsonb'
                    ELSE 'text'
                END,
                CASE
                    WHEN b.type IN ('text'::regtype, 'varchar'::regtype) THEN ''
                    WHEN b.type = 'bool'::regtype THEN 'false'
                    WHEN b.type IN ('json'::regtype, 'jsonb'::regtype) THEN '{}'
                    WHEN b.type = ANY ('{int2,int4,int8,float4,float8,numeric}'::regtype[]) THEN '0'
                    WHEN EXISTS (SELECT FROM pg_type AS y WHERE y.oid = b.type AND y.typtype = 'e') THEN (
                        SELECT v.enumlabel::text
                        FROM pg_enum AS v
                        WHERE v.enumtypid = b.type
                        ORDER BY v.enumsortorder
                        LIMIT 1
                    )
                END
        ) AS k (type, "default")
        WHERE
            a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
            AND NOT EXISTS (SELECT FROM pg_type AS y WHERE y.oid = a.atttypid AND y.typdefault IS NOT NULL)
            AND a.attname NOT IN ('id', 'tenant_id')
            AND NOT (kind = 'deal' AND a.attname = stamp)
            AND NOT EXISTS (
                SELECT FROM unnest(mapping) AS m
                WHERE m.target = a.attname AND m.write <> 'never'
            )
    LOOP
        RAISE EXCEPTION 'column "%" of table % is NOT NULL and has no default, and the sync does not write it',
            wrong.name, target
            USING
            ERRCODE = 'not_null_violation',
            HINT = coalesce(
                (
                    SELECT format(
                        'ALTER FOREIGN TABLE %s ALTER COLUMN %I OPTIONS (%s write ''insert''%s);', relation, m.name,
                        CASE WHEN m.options ? 'write' THEN 'SET' ELSE 'ADD' END,
                        CASE WHEN m.target IS NULL THEN format(', ADD target %L', wrong.name) ELSE '' END
                    )
                    FROM unnest(mapping) AS m
                    WHERE m.target = wrong.name OR (m.target IS NULL AND m.name = wrong.name)
                    LIMIT 1
                ),
                CASE
                    WHEN wrong.is_stamp THEN format(
                        'ALTER FOREIGN TABLE %s OPTIONS (%s stamps %L);', relation,
                        CASE WHEN _deal_sync.table_option(kind, 'stamps') IS NULL THEN 'ADD' ELSE 'SET' END, wrong.name
                    )
                    WHEN wrong.is_time
                        THEN format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT now();', target, wrong.name)
                    WHEN wrong."default" IS NULL THEN format(
                        'Give the column a default, or map it: ALTER FOREIGN TABLE %s ADD COLUMN %I %s'
                        ' OPTIONS (target %L, write ''insert''); a node without this property is rejected then.',
                        relation, wrong.name, wrong.type, wrong.name
                    )
                    ELSE format(
                        'ALTER FOREIGN TABLE %s ADD COLUMN %I %s OPTIONS (target %L, write ''insert'', "default" %L);'
                        ' or give the column of the table a default.',
                        relation, wrong.name, wrong.type, wrong.name, wrong."default"
                    )
                END
            );
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_unfilled(text, regclass, regclass, _deal_sync.mapping_column[]) IS
'raises if a column of a target requires a value that nothing gives it';

CREATE OR REPLACE FUNCTION _deal_sync.check_links() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong record;
BEGIN
    FOR wrong IN
        SELECT l.relation, r.rulename
        FROM (SELECT _deal_sync.application_table('deal', 'links')) AS l (relation)
        INNER JOIN pg_rewrite AS r ON r.ev_class = l.relation AND r.ev_type IN ('2', '3') AND r.ev_enabled <> 'D'
        LIMIT 1
    LOOP
        RAISE EXCEPTION 'table % has the rule "%", and INSERT ... ON CONFLICT does not write a table with rules',
            wrong.relation, wrong.rulename
            USING
                ERRCODE = 'feature_not_supported',
                HINT = 'Replace the rule by a trigger.';
    END LOOP;

    FOR wrong IN
        SELECT own.name, own.type, l.relation, a.atttypid AS is_of
        FROM (SELECT _deal_sync.application_table('deal', 'links')) AS l (relation)
        CROSS JOIN (
            VALUES ('tenant_id', 'uuid'), ('interaction_id', 'uuid'), ('entity_id', 'uuid'), ('entity_type', 'text')
        ) AS own (name, type)
        LEFT JOIN pg_attribute AS a
            ON a.attrelid = l.relation AND a.attname = own.name AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN LATERAL _deal_sync.base_type(a.atttypid, a.atttypmod) AS b
        WHERE a.attname IS NULL OR (own.type = 'uuid' AND b.type <> 'uuid'::regtype)
    LOOP
        RAISE EXCEPTION 'column "%" of table % %', wrong.name, wrong.relation,
            CASE
                WHEN wrong.is_of IS NULL THEN 'does not exist'
                ELSE format('is of type %s, and the sync writes a %s', wrong.is_of::regtype, wrong.type)
            END
            USING
                ERRCODE = CASE WHEN wrong.is_of IS NULL THEN 'undefined_column' ELSE 'datatype_mismatch' END,
                HINT = 'Run the migration (sql/migration), or, if the table is another one,'
                    ' ALTER FOREIGN TABLE ... OPTIONS (SET links ...).';
    END LOOP;

    FOR wrong IN
        SELECT a.attname AS name, l.relation
        FROM (SELECT _deal_sync.application_table('deal', 'links')) AS l (relation)
        INNER JOIN pg_attribute AS a ON a.attrelid = l.relation
        WHERE
            a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
            AND a.attname NOT IN ('tenant_id', 'interaction_id', 'entity_type', 'entity_id')
            AND NOT (a.attname = 'id' AND a.atttypid = 'uuid'::regtype)
            AND NOT (
                a.attname IN ('created_at', 'updated_at')
                AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
            )
    LOOP
        RAISE EXCEPTION 'column "%" of table % is NOT NULL and has no default, and the sync does not write it',
            wrong.name, wrong.relation
            USING
            ERRCODE = 'not_null_violation',
            HINT = format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT ...;', wrong.relation, wrong.name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_links() IS
'raises if the sync cannot write the table of links';

CREATE OR REPLACE FUNCTION _deal_sync.check_targets() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind text;
    relation regclass;
    target regclass;
    mapping _deal_sync.mapping_column[];
BEGIN
    FOREACH kind IN ARRAY ARRAY['deal', 'version'] LOOP
        relation := _deal_sync.mapped(kind);
        target := _deal_sync.application_table(kind, 'target');
        mapping := ARRAY(SELECT m FROM _deal_sync.mapping_columns(relation) AS m);
        PERFORM _deal_sync.check_target_table(relation, target);
        PERFORM _deal_sync.check_target_columns(kind, relation, target, mapping);
        IF kind = 'deal' THEN
            PERFORM _deal_sync.check_stamps(relation, target);
        END IF;
        PERFORM _deal_sync.check_unfilled(kind, relation, target, mapping);
    END LOOP;
    PERFORM _deal_sync.check_links();
END
$$;
COMMENT ON FUNCTION _deal_sync.check_targets() IS
'raises if a target of the mapping is missing, given twice, or not filled by anything';

CREATE OR REPLACE FUNCTION _deal_sync.check_writable() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'cannot sync on a standby server' USING
            ERRCODE = 'read_only_sql_transaction',
            HINT = 'Connect to the primary server.';
    ELSIF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'cannot sync in a read-only transaction' USING
            ERRCODE = 'read_only_sql_transaction',
            HINT = CASE WHEN current_setting('default_transaction_read_only')::boolean
                THEN 'SET default_transaction_read_only = off;' ELSE 'START TRANSACTION READ WRITE;' END;
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_writable() IS 'raises on a standby server and in a read-only transaction';

-- Column by column, since a right may be granted so; SELECT on whole tables, for the place of a row. Replays alone
-- update versions.
CREATE OR REPLACE FUNCTION _deal_sync.missing_rights(
    role regrole, OUT relation text, OUT privileges text
) RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH targets (kind, relation) AS (
        SELECT k.kind, _deal_sync.application_table(k.kind, 'target') FROM (VALUES ('deal'), ('version')) AS k (kind)
    ),

    written (relation, name, inserted, updated) AS (
        SELECT t.relation, m.target, true, t.kind = 'deal' AND m.write IN ('always', 'fill') AND m.target <> 'tenant_id'
        FROM targets AS t
        CROSS JOIN LATERAL _deal_sync.mapping_columns(_deal_sync.mapped(t.kind)) AS m
        WHERE m.target IS NOT NULL AND m.write <> 'never'
        UNION
        SELECT t.relation, own.name, true, own.name <> 'id'
        FROM targets AS t
        CROSS JOIN (VALUES ('id'), (_deal_sync.stamp_column())) AS own (name)
        WHERE t.kind = 'deal'
        UNION
        SELECT _deal_sync.application_table('deal', 'links'), own.name, true, false
        FROM (VALUES ('tenant_id'), ('interaction_id'), ('entity_type'), ('entity_id')) AS own (name)
    ),

    lacking (relation, privilege, name) AS (
        SELECT w.relation, p.name, w.name
        FROM written AS w
        INNER JOIN pg_attribute AS a ON a.attrelid = w.relation AND a.attname = w.name AND NOT a.attisdropped
        CROSS JOIN LATERAL (VALUES ('INSERT', w.inserted), ('UPDATE', w.updated)) AS p (name, is_needed)
        WHERE p.is_needed AND NOT has_column_privilege(role, w.relation, w.name, p.name)
        UNION ALL
        SELECT w.relation, 'SELECT', NULL FROM (SELECT DISTINCT relation FROM written) AS w
        WHERE NOT has_table_privilege(role, w.relation, 'SELECT')
        UNION ALL
        SELECT t.relation, 'SELECT', 'id' FROM (SELECT _deal_sync.application_table('deal', 'tenants')) AS t (relation)
        WHERE NOT has_column_privilege(role, t.relation, 'id', 'SELECT')
    )

    SELECT l.relation::text, string_agg(l.privilege, ', ' ORDER BY l.privilege)
    FROM (
        SELECT
            l.relation,
            l.privilege || CASE WHEN has_any_column_privilege(role, l.relation, l.privilege)
                THEN coalesce(format(' (%s)', string_agg(quote_ident(l.name), ', ' ORDER BY l.name)), '')
                ELSE '' END AS privilege
        FROM lacking AS l
        GROUP BY l.relation, l.privilege
    ) AS l
    GROUP BY l.relation
    UNION ALL
    SELECT DISTINCT 'SCHEMA ' || c.relnamespace::regnamespace, 'USAGE'
    FROM written AS w
    INNER JOIN pg_class AS c ON c.oid = w.relation
    WHERE NOT has_schema_privilege(role, c.relnamespace, 'USAGE')
$$;
COMMENT ON FUNCTION _deal_sync.missing_rights(regrole) IS
'what a role lacks on the application''s tables to run the sync, as GRANT has it';

CREATE OR REPLACE FUNCTION _deal_sync.check_rights_of_caller() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller CONSTANT regrole := quote_ident(current_user)::regrole;
    lacks text;
    remedy text;
BEGIN
    SELECT
        string_agg(format('%s on %s', m.privileges, m.relation), ', ' ORDER BY m.relation),
        string_agg(format('GRANT %s ON %s TO %s;', m.privileges, m.relation, caller), ' ' ORDER BY m.relation)
    INTO lacks, remedy
    FROM _deal_sync.missing_rights(caller) AS m;
    IF lacks IS NOT NULL THEN
        RAISE EXCEPTION 'role "%" lacks %', current_user, lacks USING
            ERRCODE = 'insufficient_privilege',
            HINT = remedy;
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_rights_of_caller() IS
'raises if the caller lacks a right on the application''s tables';

-- Under the caller's rights and policies: row-level security may hide the list of tenants, and show each one by its id.
CREATE OR REPLACE FUNCTION _deal_sync.tenant_exists(tenant uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
AS $$
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    RETURN _deal_sync.ask(
        format('SELECT EXISTS (SELECT FROM %s WHERE id = $1)', _deal_sync.application_table('deal', 'tenants')),
        tenant, NULL::boolean
    );
END
$$;
COMMENT ON FUNCTION _deal_sync.tenant_exists(uuid) IS
'whether the caller finds the tenant in the application''s table, with app.tenant_id set to it';

CREATE OR REPLACE FUNCTION _deal_sync.raise_unknown(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'tenant % is not in table %', tenant, _deal_sync.application_table('deal', 'tenants') USING
        ERRCODE = 'foreign_key_violation',
        HINT = 'Insert it there first, or check that the calling role may see it.';
END
$$;
COMMENT ON FUNCTION _deal_sync.raise_unknown(uuid) IS 'raises that the application does not know the tenant';

CREATE OR REPLACE FUNCTION _deal_sync.check_handler(python integer) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF
        _deal_sync.crashes_with_multicorn(python)
        AND (SELECT w.fdwhandler <> 0 FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = 'neo4j')
    THEN
        RAISE EXCEPTION 'the foreign-data wrapper neo4j has Multicorn''s handler, and this server runs Python %.%',
            python / 100, python % 100
            USING
                ERRCODE = 'object_not_in_prerequisite_state',
                DETAIL = 'From Python 3.12 on, Multicorn2 and PL/Python in one backend crash the server.',
                HINT = 'SELECT deal_sync.detach();';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_handler(integer) IS
'raises if the wrapper has Multicorn''s handler, and this Python would crash the server with it';

CREATE OR REPLACE FUNCTION _deal_sync.check_encoding() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'the encoding of database "%" is %, and the graph''s texts need UTF8',
            current_database(), getdatabaseencoding()
            USING
                ERRCODE = 'feature_not_supported',
                HINT = 'Use a database made with ENCODING ''UTF8''.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_encoding() IS 'raises if the database cannot hold any text of the graph';

CREATE OR REPLACE FUNCTION _deal_sync.check_server() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _deal_sync.check_handler(_deal_sync.check_package());
    PERFORM _deal_sync.check_encoding();
END
$$;
COMMENT ON FUNCTION _deal_sync.check_server() IS
'raises if the server''s Python or the database''s encoding will not do, whatever the mapping is';

CREATE OR REPLACE FUNCTION _deal_sync.check_setup(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _deal_sync.setting(s.name) FROM deal_sync.settings() AS s;
    PERFORM _deal_sync.check_source('deal');
    PERFORM _deal_sync.check_source('version');
    PERFORM _deal_sync.check_targets();
    IF NOT _deal_sync.tenant_exists(tenant) THEN
        PERFORM _deal_sync.raise_unknown(tenant);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_setup(uuid) IS
'raises a setup error before anything is read';
