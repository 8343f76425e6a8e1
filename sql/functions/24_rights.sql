-- In: a role. Out: the rights that it needs to run the sync, to monitor it or to read the graph, and no more.

CREATE OR REPLACE FUNCTION _deal_sync.entry_point() RETURNS regprocedure
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE e.extname = 'deal_sync' AND p.proname = 'sync_deals'
$$;
COMMENT ON FUNCTION _deal_sync.entry_point() IS 'sync_deals, in whichever schema it is';

-- Not those that change the set-up, grant rights, or decide about the graph and its deals, which remain the owner's;
-- nor those that grant_scan() grants.
CREATE OR REPLACE FUNCTION _deal_sync.routines_of_sync() RETURNS SETOF regprocedure
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE
        e.extname = 'deal_sync'
        AND p.proname <> ALL (ARRAY[
            'attach', 'create_mapping', 'detach', 'set_handler', 'grant_sync', 'grant_monitor', 'grant_scan',
            'accept_graph', 'replace_graph', 'forget', 'unbar', 'remove_tenant', 'bar', 'remove_bar', 'scan',
            'scan_rows', 'import_schema', 'import_statements'
        ])
$$;
COMMENT ON FUNCTION _deal_sync.routines_of_sync() IS 'the routines that grant_sync() lets a role call';

CREATE OR REPLACE FUNCTION deal_sync.grant_sync(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place CONSTANT regnamespace := (SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = _deal_sync.entry_point());
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'deal_sync.grant_sync requires a role' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT deal_sync.grant_sync(''name'');';
    END IF;
    EXECUTE format(
        'GRANT EXECUTE ON ROUTINE %s TO %s',
        (SELECT string_agg(r.routine::text, ', ') FROM _deal_sync.routines_of_sync() AS r (routine)), role
    );
    IF NOT has_schema_privilege(role, place, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', place, role);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync, _deal_sync TO %s', role);
    EXECUTE format(
        'GRANT SELECT ON deal_sync.runs, deal_sync.rejects, deal_sync.watermarks, deal_sync.graph, deal_sync.barred,'
        ' deal_sync.reconciliations, deal_sync.backfills, deal_sync.connections, deal_sync.verify,'
        ' deal_sync.tenant_status, deal_sync.progress, deal_sync.metrics, deal_sync.schedules,'
        ' _deal_sync.tenant_runs, _deal_sync.trusted_owners TO %s',
        role
    );
END
$$;
COMMENT ON FUNCTION deal_sync.grant_sync(regrole) IS
'lets a role run the sync, which gives it access to every tenant''s graph; it also needs rights on the application''s '
'tables';

-- The functions are those that the views call: PostgreSQL checks the reader's rights on them. Of runs and rejects, all
-- columns but those that may hold application data: a graph_id is whatever the graph has there, and need not be an id.
CREATE OR REPLACE FUNCTION deal_sync.grant_monitor(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hidden CONSTANT name[] := ARRAY['value', 'server_text', 'graph_id'];
    log record;
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'deal_sync.grant_monitor requires a role' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT deal_sync.grant_monitor(''name'');';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync TO %s', role);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION _deal_sync.setting(text), deal_sync.settings(), _deal_sync.running(),'
        ' _deal_sync.scheduled_jobs() TO %s',
        role
    );
    EXECUTE format(
        'GRANT SELECT ON deal_sync.tenant_status, deal_sync.metrics, deal_sync.progress, deal_sync.schedules TO %s',
        role
    );
    FOR log IN
        SELECT a.attrelid::regclass AS relation, string_agg(quote_ident(a.attname), ', ') AS columns
        FROM pg_attribute AS a
        WHERE
            a.attrelid IN ('deal_sync.runs'::regclass, 'deal_sync.rejects'::regclass)
            AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (hidden)
        GROUP BY a.attrelid
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON %s TO %s', log.columns, log.relation, role);
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.grant_monitor(regrole) IS
'lets a role monitor the sync of all tenants: the status views, and runs and rejects without offending values and '
'server texts';

CREATE OR REPLACE FUNCTION deal_sync.grant_scan(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'deal_sync.grant_scan requires a role' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT deal_sync.grant_scan(''name'');';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync, _deal_sync TO %s', role);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION'
        ' deal_sync.scan(anyelement, uuid, text[], bigint), _deal_sync.scan_rows(regclass, uuid, text[], bigint),'
        ' _deal_sync.check_readable(regclass, text[]), _deal_sync.check_package(), _deal_sync.load_package(),'
        ' _deal_sync.as_meant(_deal_sync.error), _deal_sync.raise_again(_deal_sync.error),'
        ' _deal_sync.checked(_deal_sync.outcome),'
        ' deal_sync.import_schema(name, name, text[], text[], bigint, text),'
        ' _deal_sync.import_statements(name, name, text[], text[], bigint, text),'
        ' _deal_sync.mapping_columns(regclass), _deal_sync.options_of(text[]),'
        ' _deal_sync.base_type(oid, integer), _deal_sync.vector_type(),'
        ' _deal_sync.kept_connections(), _deal_sync.close_connections(name), deal_sync.disconnect(name) TO %s',
        role
    );
    EXECUTE format('GRANT SELECT ON deal_sync.connections TO %s', role);
END
$$;
COMMENT ON FUNCTION deal_sync.grant_scan(regrole) IS
'lets a role call scan() and import_schema(): with its own user mapping, USAGE on the server and, for scan(), SELECT '
'on the foreign table';
