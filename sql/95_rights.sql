-- In: all functions. Out: nobody may run them, until somebody is granted the sync.

REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA deal_sync FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION @extschema@.sync_deals(uuid, text, boolean, boolean, text) FROM PUBLIC;

CREATE FUNCTION deal_sync.grant_sync(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry regprocedure;
BEGIN
    SELECT p.oid INTO entry
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE e.extname = 'deal_sync' AND p.proname = 'sync_deals';
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync TO %s', role);
    EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA deal_sync TO %s', role);
    EXECUTE format(
        'REVOKE EXECUTE ON FUNCTION deal_sync.grant_sync(regrole), deal_sync.grant_scan(regrole), '
        'deal_sync.accept_graph(), deal_sync.replace_graph(text), deal_sync.forget(uuid, uuid), deal_sync.unbar(uuid, uuid), '
        'deal_sync.remove_tenant(uuid), deal_sync.bar(uuid, uuid, text[]), deal_sync.remove_bar(uuid, uuid) FROM %s', role
    );
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', entry, role);
    EXECUTE format('GRANT SELECT ON deal_sync.runs, deal_sync.rejects, deal_sync.watermarks, deal_sync.graph, deal_sync.barred, deal_sync.connections TO %s', role);
    EXECUTE format(
        'GRANT SELECT ON deal_sync.tenant_runs, deal_sync.tenant_status, deal_sync.progress, deal_sync.metrics, deal_sync.schedules, '
        'deal_sync.reconciliations TO %s',
        role
    );
END
$$;
COMMENT ON FUNCTION deal_sync.grant_sync(regrole) IS
'lets a role run the sync: trust with every tenant''s graph. It needs rights on the application''s tables as well';
REVOKE EXECUTE ON FUNCTION deal_sync.grant_sync(regrole) FROM PUBLIC;

CREATE FUNCTION deal_sync.grant_scan(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA deal_sync TO %s', role);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION deal_sync.scan(anyelement, uuid, text[], bigint), deal_sync.scan_rows(regclass, uuid, text[], bigint), '
        'deal_sync.check_readable(regclass, text[]), deal_sync.check_package(), deal_sync.load_package(), deal_sync.python_error(text, text), '
        'deal_sync.raise_again(text, text, text, text), '
        'deal_sync.import_schema(name, name, text[], text[], bigint, text), '
        'deal_sync.import_statements(name, name, text[], text[], bigint, text), deal_sync.mapping_columns(regclass), deal_sync.options_of(text[]), '
        'deal_sync.base_type(oid, integer), deal_sync.vector_type(), '
        'deal_sync.kept_connections(), deal_sync.close_connections(name), deal_sync.disconnect(name) TO %s',
        role
    );
    EXECUTE format('GRANT SELECT ON deal_sync.connections TO %s', role);
END
$$;
COMMENT ON FUNCTION deal_sync.grant_scan(regrole) IS
'lets a role call scan() and import_schema(); scan() reads only foreign tables that it may SELECT from, and both use a user mapping of its own and need USAGE on the server';
REVOKE EXECUTE ON FUNCTION deal_sync.grant_scan(regrole) FROM PUBLIC;
