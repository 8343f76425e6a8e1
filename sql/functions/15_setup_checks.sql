-- In: the server, the caller and the tenant, and what neo4j_deals.sync.setup finds in the mapping. Out: the first setup
-- error, before anything is read.

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

-- Column by column, because a privilege may be granted so; SELECT on whole tables, for the ctid of a row. Only replays
-- update versions, so UPDATE on them is not required.
CREATE OR REPLACE FUNCTION _deal_sync.missing_rights(
    role regrole, OUT relation text, OUT privileges text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE -- it keeps its plan: each run asks
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deals CONSTANT regclass := _deal_sync.application_table('deal', 'target');
    versions CONSTANT regclass := _deal_sync.application_table('version', 'target');
    links CONSTANT regclass := _deal_sync.application_table('deal', 'links');
    tenants CONSTANT regclass := _deal_sync.application_table('deal', 'tenants');
    stamp CONSTANT text := _deal_sync.stamp_column();
BEGIN
    RETURN QUERY
    WITH written (relation, name, inserted, updated) AS (
        SELECT t.relation, m.target, true, t.kind = 'deal' AND m.write IN ('always', 'fill') AND m.target <> 'tenant_id'
        FROM (VALUES ('deal', deals), ('version', versions)) AS t (kind, relation)
        CROSS JOIN LATERAL _deal_sync.mapping_columns(_deal_sync.mapped(t.kind)) AS m
        WHERE
            m.target IS NOT NULL AND m.write <> 'never'
            -- To read the mapping takes most of a check's time, and most roles have privileges on whole tables.
            AND NOT (
                has_table_privilege(role, t.relation, 'INSERT')
                AND (t.kind = 'version' OR has_table_privilege(role, t.relation, 'UPDATE'))
            )
        UNION
        SELECT deals, own.name, true, own.name <> 'id'
        FROM (VALUES ('id'), (stamp)) AS own (name)
        UNION
        SELECT links, own.name, true, false
        FROM _deal_sync.link_columns() AS own (name)
    ),

    lacking (relation, privilege, name) AS (
        SELECT w.relation, p.name, w.name
        FROM written AS w
        INNER JOIN pg_attribute AS a ON a.attrelid = w.relation AND a.attname = w.name AND NOT a.attisdropped
        CROSS JOIN LATERAL (VALUES ('INSERT', w.inserted), ('UPDATE', w.updated)) AS p (name, is_needed)
        WHERE p.is_needed AND NOT has_column_privilege(role, w.relation, w.name, p.name)
        UNION ALL
        SELECT w.relation, 'SELECT', NULL FROM (VALUES (deals), (versions), (links)) AS w (relation)
        WHERE NOT has_table_privilege(role, w.relation, 'SELECT')
        UNION ALL
        SELECT tenants, 'SELECT', 'id'
        WHERE NOT has_column_privilege(role, tenants, 'id', 'SELECT')
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
    FROM pg_class AS c
    WHERE c.oid IN (deals, versions, links) AND NOT has_schema_privilege(role, c.relnamespace, 'USAGE');
END
$$;
COMMENT ON FUNCTION _deal_sync.missing_rights(regrole) IS
'the privileges on the application''s tables that a role lacks to run the sync, as GRANT takes them';

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
'raises if the caller lacks a privilege on the application''s tables';

-- With the caller's rights and policies: row-level security may hide other tenants, so app.tenant_id is set to this
-- one.
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
'whether the tenant is in the application''s table, as the caller sees it with app.tenant_id set to the tenant';

CREATE OR REPLACE FUNCTION _deal_sync.raise_unknown(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'tenant % is not in table %', tenant, _deal_sync.application_table('deal', 'tenants') USING
        ERRCODE = 'foreign_key_violation',
        HINT = 'Insert it there first, or check that the calling role can see it.';
END
$$;
COMMENT ON FUNCTION _deal_sync.raise_unknown(uuid) IS
'raises the error for a tenant that is not in the application''s table';

CREATE OR REPLACE FUNCTION _deal_sync.check_handler(python integer) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF
        _deal_sync.crashes_with_multicorn(python)
        AND (SELECT w.fdwhandler <> 0 FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = 'neo4j')
    THEN
        RAISE EXCEPTION 'foreign-data wrapper neo4j has Multicorn''s handler, but this server runs Python %.%',
            python / 100, python % 100
            USING
                ERRCODE = 'object_not_in_prerequisite_state',
                DETAIL = 'With Python 3.12 or later, Multicorn2 and PL/Python in one backend crash the server.',
                HINT = 'SELECT deal_sync.detach();';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_handler(integer) IS
'raises if the wrapper has Multicorn''s handler, which would crash the server with this version of Python';

CREATE OR REPLACE FUNCTION _deal_sync.check_encoding() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'database "%" has encoding %, but deal_sync requires UTF8',
            current_database(), getdatabaseencoding()
            USING
                ERRCODE = 'feature_not_supported',
                HINT = 'Use a database that was created with ENCODING ''UTF8''.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_encoding() IS 'raises if the database cannot store every text of the graph';

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
'raises if the server''s Python or the database''s encoding is not suitable';

CREATE OR REPLACE FUNCTION _deal_sync.check_setup(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _deal_sync.setting(s.name) FROM deal_sync.settings() AS s;
    PERFORM _deal_sync.check_source('deal', 'version');
    PERFORM _deal_sync.check_targets();
    IF NOT _deal_sync.tenant_exists(tenant) THEN
        PERFORM _deal_sync.raise_unknown(tenant);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_setup(uuid) IS
'raises a setup error before anything is read';
