-- In: a tenant that has left, or a deal that must not be synced again. Out: no record of it here. The application's
-- rows are never touched.

CREATE OR REPLACE FUNCTION _deal_sync.remove_tenant(tenant uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE _deal_sync.last_sync_all AS l SET due = l.due || remove_tenant.tenant
    WHERE remove_tenant.tenant <> ALL (l.due);
    DELETE FROM deal_sync.runs WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.rejects WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.watermarks WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM _deal_sync.undated_nodes WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.backfills WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM deal_sync.reconciliations WHERE tenant_id = remove_tenant.tenant;
    DELETE FROM _deal_sync.removed_runs WHERE tenant_id = remove_tenant.tenant;
    -- What the graph has is not a record of the sync.
    DELETE FROM _deal_sync.graph_tenants AS g WHERE g.tenant_id = remove_tenant.tenant AND g.deals = 0;
    UPDATE _deal_sync.graph_tenants AS g SET unchanged_at = NULL WHERE g.tenant_id = remove_tenant.tenant
$$;
COMMENT ON FUNCTION _deal_sync.remove_tenant(uuid) IS 'the body of forget() for a tenant';

CREATE OR REPLACE FUNCTION _deal_sync.bar(tenant uuid, graph_id uuid, elements text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (bar.tenant, bar.graph_id) ON CONFLICT DO NOTHING;

    DELETE FROM deal_sync.rejects AS r
    WHERE
        r.tenant_id = bar.tenant
        AND (
            r.element_id = ANY (bar.elements)
            OR _deal_sync.to_uuid(CASE
                WHEN r.kind <> 'version' THEN r.graph_id
                WHEN r.sqlstate = '23503' THEN r.value
            END) = bar.graph_id
        )
$$;
COMMENT ON FUNCTION _deal_sync.bar(uuid, uuid, text[]) IS
'the body of forget() for a deal; elements: its node and those of its versions, if they are known';

CREATE OR REPLACE FUNCTION _deal_sync.remove_bar(tenant uuid, graph_id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM deal_sync.barred AS b WHERE b.tenant_id = remove_bar.tenant AND b.graph_id = remove_bar.graph_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM deal_sync.watermarks AS w WHERE w.tenant_id = remove_bar.tenant;
    DELETE FROM deal_sync.backfills AS b WHERE b.tenant_id = remove_bar.tenant; -- it may have passed the deal by
    RETURN true;
END
$$;
COMMENT ON FUNCTION _deal_sync.remove_bar(uuid, uuid) IS 'the body of unbar()';

-- By them the rejects of its versions are found: such a reject does not name the deal.
CREATE OR REPLACE FUNCTION _deal_sync.elements_of(tenant uuid, graph_id uuid) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET application_name = 'deal_sync'
AS $$
DECLARE
    current_kind text;
    owner text;
    found text[];
    elements text[] := '{}';
    -- A bound cursor fetches a row at a time: the staging table is read between two.
    batches CURSOR (of_kind text) FOR
        SELECT _deal_sync.fill_staging(
            of_kind, tenant, quote_ident(current_user)::regrole, jsonb_build_object('graph_ids', ARRAY[graph_id])
        ) AS last;
BEGIN
    PERFORM _deal_sync.check_package();
    FOREACH current_kind IN ARRAY ARRAY['deal', 'version'] LOOP
        owner := (
            SELECT m.name FROM _deal_sync.mapping_columns(_deal_sync.mapped(current_kind)) AS m
            WHERE m.target = CASE current_kind WHEN 'deal' THEN 'graph_opportunity_id' ELSE 'opportunity_id' END
        );
        FOR batch IN batches (current_kind) LOOP
            EXECUTE format(
                'SELECT array_agg(s.element_id) FROM pg_temp.%I AS s WHERE s.%I = $1',
                'deal_sync_' || current_kind || 's', owner
            ) INTO found USING graph_id;
            elements := elements || found;
            EXECUTE format('TRUNCATE pg_temp.%I', 'deal_sync_' || current_kind || 's');
        END LOOP;
    END LOOP;
    RETURN elements;
END
$$;
COMMENT ON FUNCTION _deal_sync.elements_of(uuid, uuid) IS 'element ids of the nodes of a deal and its versions';

CREATE OR REPLACE FUNCTION _deal_sync.call_for_deal(function text, tenant uuid, graph_id uuid) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT %s(%L, %L);', function, coalesce(tenant, example.id), coalesce(graph_id, example.id)
    )
    FROM (VALUES ('00000000-0000-0000-0000-000000000000'::uuid)) AS example (id)
$$;
COMMENT ON FUNCTION _deal_sync.call_for_deal(text, uuid, uuid) IS
'a call of forget() or unbar() for a deal, for a HINT; an argument that is NULL is a UUID of zeros in it';

-- Not the same function with a default: a graph id that is NULL by mistake must not remove the whole tenant's records.
CREATE OR REPLACE FUNCTION deal_sync.forget(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _deal_sync.check_tenant('deal_sync.forget', tenant);
    PERFORM _deal_sync.wait_for_tenant(tenant);
    PERFORM _deal_sync.remove_tenant(tenant);
END
$$;
COMMENT ON FUNCTION deal_sync.forget(uuid) IS
'removes the records of a tenant: its runs, rejects, watermark and reconciliations. Rows of the application are kept';

-- It waits for a run in progress: what that one lands has landed before the deal is barred.
CREATE OR REPLACE FUNCTION deal_sync.forget(tenant uuid, graph_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    elements text[] := '{}';
    code text;
BEGIN
    IF tenant IS NULL OR graph_id IS NULL THEN
        RAISE EXCEPTION 'deal_sync.forget requires a tenant and the graph id of a deal' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = _deal_sync.call_for_deal('deal_sync.forget', tenant, graph_id);
    END IF;
    PERFORM _deal_sync.check_tenant('deal_sync.forget', tenant);
    PERFORM _deal_sync.wait_for_tenant(tenant);
    BEGIN
        elements := _deal_sync.elements_of(tenant, graph_id);
    EXCEPTION
        WHEN OTHERS THEN
            code := SQLSTATE;
            IF _deal_sync.is_cancel(code) THEN
                RAISE;
            END IF;
            RAISE WARNING 'could not read the versions of deal % from the graph', graph_id USING
                DETAIL = format('SQLSTATE %s. The deal is barred nevertheless.', code),
                HINT = 'The next full run removes rejects of its versions.';
    END;
    PERFORM _deal_sync.bar(tenant, graph_id, elements);
END
$$;
COMMENT ON FUNCTION deal_sync.forget(uuid, uuid) IS
'removes the rejects of a deal and of its versions, and bars it from then on. Rows of the application are kept: delete '
'them yourself';

CREATE OR REPLACE FUNCTION deal_sync.unbar(tenant uuid, graph_id uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tenant IS NULL OR graph_id IS NULL THEN
        RAISE EXCEPTION 'deal_sync.unbar requires a tenant and the graph id of a deal' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = _deal_sync.call_for_deal('deal_sync.unbar', tenant, graph_id);
    END IF;
    PERFORM _deal_sync.check_tenant('deal_sync.unbar', tenant);
    PERFORM _deal_sync.wait_for_tenant(tenant);
    RETURN _deal_sync.remove_bar(tenant, graph_id);
END
$$;
COMMENT ON FUNCTION deal_sync.unbar(uuid, uuid) IS
'lets a deal that forget() has barred land again, in the tenant''s next run, which is a full one; false if it was '
'not barred';
