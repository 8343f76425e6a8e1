-- In: a tenant. Out: its deals, versions and links in the application's tables, and one run_result.

-- If a run reads a part of the tenant's nodes: those of this batch, and the ids of their deals.
CREATE OR REPLACE FUNCTION _deal_sync.note_nodes(
    staging text, tenant_id uuid, INOUT elements text[], INOUT graph_ids text[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    read record;
BEGIN
    EXECUTE format(
        $nodes$
        SELECT
            array_agg(s.element_id) AS elements,
            array_agg(s.undated) AS digests,
            array_agg(s.graph_id) FILTER (WHERE s.graph_id IS NOT NULL) AS graph_ids
        FROM %s AS s
        $nodes$,
        staging
    ) INTO read;
    elements := elements || read.elements;
    graph_ids := graph_ids || read.graph_ids;
    PERFORM _deal_sync.remember_undated(tenant_id, read.elements, read.digests);
END
$$;
COMMENT ON FUNCTION _deal_sync.note_nodes(text, uuid, text[], text[]) IS
'adds the nodes of a batch to those that a run has read, and remembers what was read of those without a timestamp';

CREATE OR REPLACE FUNCTION _deal_sync.check_rejects(reasons jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_rejects CONSTANT bigint := _deal_sync.setting('max_rejects')::bigint;
    most record;
BEGIN
    IF (SELECT sum(r.value::bigint) FROM jsonb_each_text(reasons) AS r) > max_rejects THEN
        SELECT r.key AS reason, r.value AS times INTO most
        FROM jsonb_each_text(reasons) AS r
        ORDER BY r.value::bigint DESC
        LIMIT 1;
        RAISE EXCEPTION 'more than % rows were rejected', max_rejects USING
            ERRCODE = 'DS001',
            DETAIL = format('Most frequent reason: %s (rows: %s).', most.reason, most.times),
            HINT = 'Fix the cause, or raise deal_sync.max_rejects.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_rejects(jsonb) IS
'raises if a run has met more failures than deal_sync.max_rejects; reasons: how many of each';

-- Each FETCH stages a batch. next_kind: a kind that the cursor returns after the first one, and after a NULL.
CREATE OR REPLACE FUNCTION _deal_sync.open_batches(
    kind text, tenant_id uuid, selection jsonb, next_kind text DEFAULT NULL
) RETURNS refcursor
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batches NO SCROLL CURSOR FOR
        SELECT _deal_sync.fill_staging(
            kind, open_batches.tenant_id, quote_ident(current_user)::regrole, selection, next_kind
        );
BEGIN
    OPEN batches;
    RETURN batches;
END
$$;
COMMENT ON FUNCTION _deal_sync.open_batches(text, uuid, jsonb, text) IS
'opens a cursor that stages a tenant''s nodes: see fill_staging()';

-- The batches of the reader, each landed as it comes. FETCH is not in a block of its own, and nothing commits here: see
-- docs/internals/run.md, rules 3 and 4. If a part of the tenant's nodes is read, elements and graph_ids are the nodes
-- that were read, and the ids of their deals. cleared: how many values the run has replaced with NULL, by column of the
-- deals' table.
CREATE OR REPLACE FUNCTION _deal_sync.run_kind(
    kind text, batches refcursor, is_part boolean, INOUT result deal_sync.run_result, INOUT reasons jsonb,
    INOUT cleared jsonb, OUT elements text[], OUT graph_ids text[], OUT completed bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statements _deal_sync.statements;
    staging CONSTANT text := format('pg_temp.%I', 'deal_sync_' || kind || 's');
    done bigint := 0;
    last bigint;
    staged bigint;
    read record;
    landed record;
    error _deal_sync.error;
    context text;
BEGIN
    elements := '{}';
    graph_ids := '{}';
    completed := 0;
    LOOP
        FETCH batches INTO last;
        EXIT WHEN last IS NULL; -- the end, or another kind follows
        EXECUTE format('SELECT count(*) FROM %s', staging) INTO staged;
        IF staged <> last - done THEN
            RAISE EXCEPTION 'a batch was lost: % rows were read, but % were staged', last - done, staged USING
                ERRCODE = 'internal_error';
        END IF;
        IF is_part THEN
            read := _deal_sync.note_nodes(staging, result.tenant_id, elements, graph_ids);
            elements := read.elements;
            graph_ids := read.graph_ids;
        END IF;
        statements := coalesce(
            statements, _deal_sync.statements_of(kind, result.tenant_id, completes => result.mode = 'replay')
        );
        BEGIN
            landed := _deal_sync.land_batch(kind, statements, result, reasons, cleared);
        EXCEPTION
            WHEN OTHERS OR assert_failure THEN -- of the application's policies and triggers
                GET STACKED DIAGNOSTICS
                    error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
                    error.hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
                PERFORM _deal_sync.raise_applications(
                    error, context, ARRAY(SELECT s.value FROM jsonb_each_text(to_jsonb(statements)) AS s)
                );
        END;
        result := landed.result;
        reasons := landed.reasons;
        cleared := landed.cleared;
        completed := completed + landed.completed;
        done := last;
        EXECUTE format('TRUNCATE %s, pg_temp.%I', staging, 'deal_sync_' || kind || '_plan');
        PERFORM _deal_sync.check_rejects(reasons);
    END LOOP;
    IF kind = 'deal' THEN
        result.deals_read := done;
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.run_kind(text, refcursor, boolean, deal_sync.run_result, jsonb, jsonb) IS
'reads and lands a tenant''s deals or versions, batch by batch; is_part: not all of them are read';

-- remark: why the mode is not the one asked for, what a replay has completed or left out, what was cleared.
CREATE OR REPLACE FUNCTION _deal_sync.conclude_run(
    INOUT result deal_sync.run_result, remark text, rows_without_deal bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    result.status := CASE WHEN result.rows_rejected + result.values_rejected > 0 THEN 'partial' ELSE 'ok' END;
    result.message := nullif(concat_ws(
        '; ',
        nullif(remark, ''),
        'rows whose deal is not in the graph: ' || nullif(rows_without_deal, 0),
        CASE WHEN result.status = 'partial' THEN concat_ws(
            ', ', 'rejected rows: ' || nullif(result.rows_rejected, 0),
            'rejected values: ' || nullif(result.values_rejected, 0)
        ) || ' (see deal_sync.rejects)' END
    ), '');
END
$$;
COMMENT ON FUNCTION _deal_sync.conclude_run(deal_sync.run_result, text, bigint) IS
'status and message of a run that has landed what it read';

-- Constraints and triggers of the application that the caller's transaction has deferred are checked now.
CREATE OR REPLACE FUNCTION _deal_sync.hurry_constraints() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    error _deal_sync.error;
    context text;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM _deal_sync.raise_applications(error, context);
END
$$;
COMMENT ON FUNCTION _deal_sync.hurry_constraints() IS 'SET CONSTRAINTS ALL IMMEDIATE, for the rest of the transaction';

-- After a full run, which has met each row that has a deal. The graph is asked only if there are more rows: a rejected
-- deal may have one, too.
CREATE OR REPLACE FUNCTION _deal_sync.rows_without_deal(result deal_sync.run_result) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held CONSTANT bigint := _deal_sync.ask(
        format(
            'SELECT count(*) FROM %s AS t WHERE t.tenant_id = $1 AND t.graph_opportunity_id IS NOT NULL',
            _deal_sync.application_table('deal', 'target')
        ),
        result.tenant_id, NULL::bigint
    );
BEGIN
    IF held = result.deals_inserted + result.deals_updated + result.deals_unchanged + result.deals_adopted THEN
        RETURN 0;
    END IF;
    RETURN (SELECT u.rows_without_node FROM _deal_sync.unread('deal', result.tenant_id) AS u);
END
$$;
COMMENT ON FUNCTION _deal_sync.rows_without_deal(deal_sync.run_result) IS
'how many of a tenant''s rows have a graph id, but no deal in the graph';

-- known: what the last run has kept, if it can be compared. Versions, and the batches of a backfill, are read with
-- another connection than deals, so the server's address may have changed meanwhile. That the newest deal is older is
-- reported once: mostly it was deleted.
CREATE OR REPLACE FUNCTION _deal_sync.end_reading(
    result deal_sync.run_result, is_full boolean, known jsonb, OUT facts jsonb, OUT remark text
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    last CONSTANT timestamptz := known ->> 'newest';
    state record;
BEGIN
    SELECT g.* INTO state FROM _deal_sync.graph_state(result.tenant_id, with_newest => is_full, late => NULL) AS g;
    PERFORM _deal_sync.check_graph(state.database_id);
    facts := '{}';
    IF is_full THEN
        IF state.newest < last THEN
            remark := format(
                'the newest deal is of %s, but the previous full run read one of %s: that deal was deleted, or this is'
                ' an older copy of the graph',
                state.newest, last
            );
        END IF;
        facts := jsonb_build_object(
            'newest', coalesce(state.newest, last), 'rows_without_deal', _deal_sync.rows_without_deal(result)
        );
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.end_reading(deal_sync.run_result, boolean, jsonb) IS
'checks that the graph is still the one that the run began with; for a full run, the facts to keep and a remark on '
'them';

CREATE OR REPLACE FUNCTION _deal_sync.left_out(only_deals text[], read text[], barred jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(concat_ws(
        '; ',
        'skipped because barred: ' || nullif(count(*) FILTER (WHERE d.is_barred), 0)
        || ' (deal_sync.unbar() lifts the bar)',
        'not among the tenant''s nodes: ' || nullif(count(*) FILTER (WHERE NOT d.is_barred AND NOT d.is_read), 0)
    ), '')
    FROM (
        SELECT DISTINCT
            o.id, coalesce(jsonb_exists(barred, o.id), false) AS is_barred,
            _deal_sync.to_uuid(o.id) IN (SELECT _deal_sync.to_uuid(r.id) FROM unnest(read) AS r (id)) AS is_read
        FROM unnest(only_deals) AS o (id)
    ) AS d
$$;
COMMENT ON FUNCTION _deal_sync.left_out(text[], text[], jsonb) IS
'the part of a replay''s message on deals that it was asked for and did not read';

-- SET CONSTRAINTS takes a name that only deferrable constraints have, in a schema that the caller may use.
CREATE OR REPLACE FUNCTION _deal_sync.defer_constraints() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deferred text;
BEGIN
    SELECT string_agg(d.name, ', ') INTO deferred
    FROM (
        SELECT format('%I.%I', n.nspname, c.conname) AS name
        FROM pg_constraint AS c
        INNER JOIN pg_namespace AS n ON n.oid = c.connamespace
        WHERE has_schema_privilege(n.oid, 'USAGE')
        GROUP BY n.nspname, c.conname
        HAVING bool_and(c.condeferred)
    ) AS d;
    IF deferred IS NOT NULL THEN
        EXECUTE format('SET CONSTRAINTS %s DEFERRED', deferred);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.defer_constraints() IS
'sets constraints back to their definition, as far as SET CONSTRAINTS can';

-- All versions of a deal that is read are read, too. only_deals: graph ids of the deals to replay, NULL for all.
CREATE OR REPLACE FUNCTION _deal_sync.read_and_land(
    reading _deal_sync.reading, only_deals text[], INOUT result deal_sync.run_result,
    OUT facts jsonb, OUT remarks text[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    selection CONSTANT jsonb := reading.selection
    || CASE WHEN only_deals IS NULL THEN '{}' ELSE jsonb_build_object('graph_ids', only_deals) END;
    is_full CONSTANT boolean := reading.mode IN ('full', 'replay') AND only_deals IS NULL;
    counts_before CONSTANT refcursor := _deal_sync.open_count(result.tenant_id);
    batches refcursor;
    deals record;
    versions record;
    ended record;
    read text[];
BEGIN
    batches := _deal_sync.open_batches(
        'deal', result.tenant_id, selection, CASE WHEN is_full THEN 'version' END
    );
    deals := _deal_sync.run_kind('deal', batches, NOT is_full, result, '{}', '{}');
    IF EXISTS (SELECT FROM jsonb_each_text(deals.cleared) AS c WHERE _deal_sync.is_mass(c.value::bigint)) THEN
        PERFORM _deal_sync.check_losses(deals.cleared, _deal_sync.fetch_count(counts_before));
    END IF;
    CLOSE counts_before;
    IF NOT is_full THEN
        CLOSE batches;
        batches := _deal_sync.open_batches(
            'version', result.tenant_id,
            selection || jsonb_build_object('graph_ids', deals.graph_ids || only_deals)
        );
    END IF;
    versions := _deal_sync.run_kind('version', batches, NOT is_full, deals.result, deals.reasons, '{}');
    CLOSE batches;
    result := versions.result;

    IF is_full THEN
        PERFORM _deal_sync.remember_undated(result.tenant_id, NULL, NULL);
    ELSE
        read := deals.elements || versions.elements || ARRAY(SELECT jsonb_array_elements_text(selection -> 'elements'));
    END IF;
    SELECT s.rows_rejected, s.values_rejected INTO result.rows_rejected, result.values_rejected
    FROM _deal_sync.settle_rejects(result.run_id, result.tenant_id, read) AS s;
    ended := _deal_sync.end_reading(result, is_full, reading.known);
    facts := ended.facts;
    remarks := ARRAY[
        ended.remark,
        CASE WHEN versions.completed > 0 THEN 'completed versions: ' || versions.completed END,
        _deal_sync.cleared_columns(deals.cleared),
        _deal_sync.left_out(only_deals, deals.graph_ids, reading.selection -> 'barred')
    ];
END
$$;
COMMENT ON FUNCTION _deal_sync.read_and_land(_deal_sync.reading, text[], deal_sync.run_result) IS
'reads and lands the deals, versions and links of a run, while constraints are immediate; the facts that it found, and '
'remarks for its message';

CREATE OR REPLACE FUNCTION _deal_sync.run_tenant(INOUT result deal_sync.run_result, only_deals text[] DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reading CONSTANT _deal_sync.reading := _deal_sync.plan_reading(result.tenant_id, result.mode);
    is_full CONSTANT boolean := reading.mode IN ('full', 'replay') AND only_deals IS NULL;
    facts jsonb := reading.facts;
    remarks text[] := reading.remarks;
    landed record;
BEGIN
    result.mode := reading.mode;
    IF reading.selection IS NOT NULL THEN
        PERFORM _deal_sync.hurry_constraints();
        landed := _deal_sync.read_and_land(reading, only_deals, result);
        result := landed.result;
        facts := facts || landed.facts;
        remarks := remarks || landed.remarks;
        PERFORM _deal_sync.defer_constraints();
    END IF;
    IF only_deals IS NULL THEN
        PERFORM _deal_sync.record_watermark(
            result.tenant_id, result.run_id, reading.watermark, reading.mapping, is_full, facts
        );
        result.watermark := reading.watermark;
    END IF;
    result := _deal_sync.conclude_run(
        result,
        array_to_string(remarks, '; '),
        ((coalesce(reading.known, '{}') || facts) ->> 'rows_without_deal')::bigint
    );
END
$$;
COMMENT ON FUNCTION _deal_sync.run_tenant(deal_sync.run_result, text[]) IS
'a whole run in the caller''s subtransaction; constraints are immediate while it lasts';

CREATE OR REPLACE FUNCTION _deal_sync.lock_key(tenant uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT hashtextextended('deal_sync ' || tenant, 0)
$$;
COMMENT ON FUNCTION _deal_sync.lock_key(uuid) IS 'the key of the advisory lock for the runs of a tenant';

CREATE OR REPLACE FUNCTION _deal_sync.wait_for_tenant(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    PERFORM set_config('lock_timeout', _deal_sync.setting('lock_timeout'), true);
    PERFORM pg_advisory_xact_lock(_deal_sync.lock_key(tenant));
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'tenant % is being synced by another session', tenant USING
            ERRCODE = 'lock_not_available',
            DETAIL = format('Gave up after deal_sync.lock_timeout (%s).', _deal_sync.setting('lock_timeout')),
            HINT = 'Try again when that run has ended; deal_sync.progress shows how far it is.';
END
$$;
COMMENT ON FUNCTION _deal_sync.wait_for_tenant(uuid) IS 'waits for a run of the tenant, and takes its advisory lock';

-- A function with SET clauses would see its own settings: this one has none, and is called by functions without any.
CREATE OR REPLACE FUNCTION _deal_sync.caller() RETURNS _deal_sync.caller
LANGUAGE sql STABLE
AS $$
    SELECT ROW(
        pg_catalog.current_setting('search_path'), pg_catalog.current_setting('app.tenant_id', true)
    )::_deal_sync.caller
$$;
COMMENT ON FUNCTION _deal_sync.caller() IS 'the settings of the caller that a run replaces by its own';

CREATE OR REPLACE FUNCTION _deal_sync.tenant_error(
    function text, tenant uuid, tenant_setting text
) RETURNS _deal_sync.error
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN tenant IS NULL THEN ROW(
            '22004', function || ' requires a tenant', NULL,
            format('%s %s(''00000000-0000-0000-0000-000000000000'');',
                CASE function WHEN 'deal_sync.backfill' THEN 'CALL' ELSE 'SELECT * FROM' END, function), 'own', NULL
        )::_deal_sync.error
        WHEN nullif(tenant_setting, '') IS NOT NULL AND _deal_sync.to_uuid(tenant_setting) IS DISTINCT FROM tenant
            THEN ROW(
                '42501', format('app.tenant_id is set to a tenant other than %s', tenant), NULL,
                'RESET app.tenant_id, or pass that tenant.', 'own', NULL
            )::_deal_sync.error
    END
$$;
COMMENT ON FUNCTION _deal_sync.tenant_error(text, uuid, text) IS
'the error if there is no tenant, or the caller has set app.tenant_id to another one; else NULL';

-- Without SET clauses, as caller().
CREATE OR REPLACE FUNCTION _deal_sync.check_tenant(function text, tenant uuid) RETURNS _deal_sync.error
LANGUAGE sql
AS $$
    SELECT _deal_sync.raise_again(
        _deal_sync.tenant_error(function, tenant, pg_catalog.current_setting('app.tenant_id', true))
    )
$$;
COMMENT ON FUNCTION _deal_sync.check_tenant(text, uuid) IS
'raises if there is no tenant, or the caller has set app.tenant_id to another one';

CREATE OR REPLACE FUNCTION _deal_sync.mode_error(mode text) RETURNS _deal_sync.error
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN coalesce(mode, '') NOT IN ('incremental', 'full') THEN ROW(
            '22023', format('unknown mode "%s"', coalesce(mode, '<NULL>')), NULL,
            'The mode must be incremental or full.', 'own', NULL
        )::_deal_sync.error
    END
$$;
COMMENT ON FUNCTION _deal_sync.mode_error(text) IS 'the error if a mode is not one that a user may ask for; else NULL';

CREATE OR REPLACE FUNCTION _deal_sync.request_error(
    tenant uuid, request _deal_sync.request, caller _deal_sync.caller
) RETURNS _deal_sync.error
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN (e.error).code IS NOT NULL THEN e.error
        WHEN request.is_dry_run IS NULL OR request.is_strict IS NULL THEN ROW(
            '22004',
            format('%s must not be NULL', CASE WHEN request.is_dry_run IS NULL THEN 'dry_run' ELSE 'strict' END),
            NULL, 'dry_run and strict must be true or false.', 'own', NULL
        )::_deal_sync.error
        WHEN request.function = 'sync_deals' AND (_deal_sync.mode_error(request.mode)).code IS NOT NULL
            THEN _deal_sync.mode_error(request.mode)
        ELSE (
            SELECT ROW(
                '22P02', format('invalid graph id "%s"', coalesce(g.id, 'NULL')), NULL,
                'A graph id is a UUID, as in opportunities.graph_opportunity_id.', 'own', NULL
            )::_deal_sync.error
            FROM unnest(request.graph_ids) AS g (id)
            WHERE _deal_sync.to_uuid(g.id) IS NULL
            LIMIT 1
        )
    END
    FROM (SELECT _deal_sync.tenant_error(request.function, tenant, caller.tenant_setting) AS error) AS e
$$;
COMMENT ON FUNCTION _deal_sync.request_error(uuid, _deal_sync.request, _deal_sync.caller) IS
'the error in the arguments of a run, or NULL';

CREATE OR REPLACE FUNCTION _deal_sync.nothing_done(result deal_sync.run_result) RETURNS deal_sync.run_result
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        result.run_id, result.tenant_id, result.mode, result.status,
        0, 0, 0, 0, 0, 0, 0, 0, 0, NULL::timestamptz, 0, NULL
$$;
COMMENT ON FUNCTION _deal_sync.nothing_done(deal_sync.run_result) IS 'the result with all counts zero';

CREATE OR REPLACE FUNCTION _deal_sync.summary(result deal_sync.run_result, dry_run boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat(
        'tenant ', result.tenant_id, ': ', result.status, CASE WHEN dry_run THEN ' (dry run)' END, ', ',
        CASE WHEN result.status = 'failed' THEN result.message ELSE concat_ws(
            ', ', 'deals read: ' || result.deals_read, 'inserted: ' || nullif(result.deals_inserted, 0),
            'updated: ' || nullif(result.deals_updated, 0), 'adopted: ' || nullif(result.deals_adopted, 0),
            'new versions: ' || nullif(result.versions_inserted, 0),
            'new links: ' || nullif(result.links_inserted, 0), result.message
        ) END,
        format(' (%s s)', round(result.seconds::numeric, 1))
    )
$$;
COMMENT ON FUNCTION _deal_sync.summary(deal_sync.run_result, boolean) IS
'a run in one line: contains no application data';

CREATE OR REPLACE FUNCTION _deal_sync.target_tablespaces() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(DISTINCT format('tablespace "%s"', s.spcname), ', ')
    FROM _deal_sync.target_tables() AS t (relation)
    INNER JOIN pg_database AS d ON d.datname = current_database()
    LEFT JOIN pg_index AS i ON i.indrelid = t.relation
    INNER JOIN pg_class AS c ON c.oid IN (t.relation, i.indexrelid)
    INNER JOIN pg_tablespace AS s ON s.oid = coalesce(nullif(c.reltablespace, 0), d.dattablespace)
$$;
COMMENT ON FUNCTION _deal_sync.target_tablespaces() IS
'the tablespaces of the tables that the sync writes, and of their indexes';

CREATE OR REPLACE FUNCTION _deal_sync.is_for_the_caller(error _deal_sync.error, is_set_up boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Before a run is set up every error is a setup error, except a lock, a deadlock or a lack of resources.
    SELECT
        (NOT is_set_up AND error.code NOT IN ('55P03', '40P01') AND left(error.code, 2) <> '53')
        OR left(error.code, 2) IN ('42', '0A', '3D', '3F')
        OR _deal_sync.is_cancel(error.code)
$$;
COMMENT ON FUNCTION _deal_sync.is_for_the_caller(_deal_sync.error, boolean) IS
'whether an error is raised (setup errors, a cancel, a termination) or becomes a failed run';

CREATE OR REPLACE FUNCTION _deal_sync.message_of(error _deal_sync.error, mode text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.sentences(CASE
        WHEN
            error.origin = 'own'
            AND (error.code ~ '^(DS|HV)' OR error.code IN ('08006', '08P01', '28P01', '53000', '53100', '53200'))
            THEN _deal_sync.sentences(error.message, error.detail, error.hint)
        WHEN error.code = '55P03' THEN format(
            'a row was locked by another transaction for longer than deal_sync.lock_timeout (%s)',
            _deal_sync.setting('lock_timeout')
        )
        WHEN error.code = '40P01' THEN 'deadlock with another transaction'
        WHEN error.code = '53100' THEN _deal_sync.sentences(
            'no space left on a disk of the database', 'the tables are in ' || _deal_sync.target_tablespaces(),
            'free some space and sync again; server_text in deal_sync.runs names the file'
        )
        ELSE concat_ws(', in ', format('the run failed with SQLSTATE %s', error.code), nullif(error.place, ''))
    END, CASE mode WHEN 'backfill' THEN 'nothing of this batch was written' ELSE 'nothing was written' END)
$$;
COMMENT ON FUNCTION _deal_sync.message_of(_deal_sync.error, text) IS
'the message of a failed run of a mode: contains no application data';

CREATE OR REPLACE FUNCTION _deal_sync.holder_of(lock_key bigint, OUT pid integer, OUT role name, OUT application text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.pid, a.usename, a.application_name
    FROM pg_locks AS l
    INNER JOIN pg_stat_activity AS a USING (pid)
    WHERE
        l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND (l.classid::bigint << 32 | l.objid::bigint) = holder_of.lock_key
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
$$;
COMMENT ON FUNCTION _deal_sync.holder_of(bigint) IS 'the session that holds an advisory lock';

CREATE OR REPLACE FUNCTION _deal_sync.begin_run(
    tenant uuid, request _deal_sync.request, caller _deal_sync.caller
) RETURNS deal_sync.run_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result deal_sync.run_result;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    PERFORM set_config(
        'deal_sync.search_path',
        concat_ws(
            ', ', 'pg_catalog', nullif(caller.search_path, ''),
            CASE WHEN caller.search_path !~ 'pg_temp' THEN 'pg_temp' END
        ),
        true
    );
    result.run_id := gen_random_uuid();
    result.tenant_id := tenant;
    result.mode := request.mode;
    RETURN _deal_sync.nothing_done(result);
END
$$;
COMMENT ON FUNCTION _deal_sync.begin_run(uuid, _deal_sync.request, _deal_sync.caller) IS
'sets the settings that depend on tenant and caller until sync_tenant() ends; the result before anything is done';

CREATE OR REPLACE FUNCTION _deal_sync.skip_run(INOUT result deal_sync.run_result)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder CONSTANT record := _deal_sync.holder_of(_deal_sync.lock_key(result.tenant_id));
BEGIN
    result.status := 'skipped';
    result.message := concat_ws(
        ': ', format('tenant %s is being synced by another session', result.tenant_id),
        'pid ' || holder.pid || format(' (%s)', holder.role)
    );
    -- application_name may be any text of a client, so it is not recorded.
    RAISE NOTICE '%', concat_ws(', ', result.message, nullif(holder.application, ''));
END
$$;
COMMENT ON FUNCTION _deal_sync.skip_run(deal_sync.run_result) IS
'the result of a run whose tenant is being synced by another session';

-- The SET clauses restore the caller's values however the function ends; the values for the run are set inside.
CREATE OR REPLACE FUNCTION _deal_sync.sync_tenant(
    tenant uuid, request _deal_sync.request, caller _deal_sync.caller
) RETURNS _deal_sync.outcome
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET "deal_sync.search_path" = ''
SET "app.tenant_id" = ''
SET lock_timeout = '5s'
SET row_security = on
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
SET enable_material = off
SET jit = off
SET application_name = 'deal_sync' -- the reader shows its progress there
AS $$
DECLARE
    began CONSTANT timestamptz := coalesce(request.began, clock_timestamp());
    error _deal_sync.error := _deal_sync.request_error(tenant, request, caller);
    result deal_sync.run_result;
    is_set_up boolean := false;
    is_undone boolean := false;
BEGIN
    IF error.code IS NOT NULL THEN
        RETURN ROW(NULL, error)::_deal_sync.outcome;
    END IF;
    result := _deal_sync.begin_run(tenant, request, caller);
    IF pg_try_advisory_xact_lock(_deal_sync.lock_key(tenant)) THEN
        PERFORM set_config('application_name', 'deal_sync ' || replace(tenant::text, '-', ''), true);
        BEGIN
            PERFORM _deal_sync.check_writable();
            PERFORM _deal_sync.check_server();
            PERFORM _deal_sync.check_rights_of_caller();
            PERFORM _deal_sync.check_setup(tenant);
            PERFORM set_config('lock_timeout', _deal_sync.setting('lock_timeout'), true);
            is_set_up := true;
            result := CASE request.mode
                WHEN 'backfill' THEN _deal_sync.run_backfill_batch(result, request.batch_size)
                ELSE _deal_sync.run_tenant(result, request.graph_ids::uuid[]::text[])
            END;
            IF request.is_strict AND result.status = 'partial' THEN
                RAISE EXCEPTION 'the sync of tenant % has rejects, and strict is set', tenant USING
                    ERRCODE = 'DS002',
                    DETAIL = format(
                        'Rejected rows: %s. Rejected values: %s.', result.rows_rejected, result.values_rejected
                    ),
                    HINT = 'Run the sync without strict, and see deal_sync.rejects.';
            ELSIF request.is_dry_run THEN
                is_undone := true; -- a variable survives the rollback
                RAISE EXCEPTION USING ERRCODE = 'DS003', MESSAGE = 'dry run: everything is undone';
            END IF;
        EXCEPTION
            WHEN OTHERS OR query_canceled THEN
                IF NOT is_undone THEN -- of a dry run only the counts stay
                    GET STACKED DIAGNOSTICS
                        error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT,
                        error.detail := PG_EXCEPTION_DETAIL, error.hint := PG_EXCEPTION_HINT,
                        error.origin := PG_DATATYPE_NAME, error.place := CONSTRAINT_NAME;
                    -- Our own errors contain no application data; those of the application's code may.
                    IF error.origin <> 'application' THEN
                        error.origin := 'own';
                        error.place := NULL;
                    END IF;
                    error := _deal_sync.as_meant(error);
                    IF request.is_strict OR _deal_sync.is_for_the_caller(error, is_set_up) THEN
                        RETURN ROW(NULL, error)::_deal_sync.outcome;
                    END IF;
                    result := _deal_sync.nothing_done(result);
                    result.status := 'failed';
                    result.message := _deal_sync.message_of(error, request.mode);
                END IF;
        END;
    ELSE
        result := _deal_sync.skip_run(result);
    END IF;

    result.seconds := extract(EPOCH FROM clock_timestamp() - began);
    -- A backfill is one run, recorded at its end.
    IF NOT request.is_dry_run AND result.status <> 'running' THEN
        PERFORM _deal_sync.record_run(result, began, error.code, concat_ws(E'\n', error.message, error.detail));
    END IF;
    IF result.status NOT IN ('skipped', 'running') THEN
        RAISE NOTICE '%', _deal_sync.summary(result, request.is_dry_run);
    END IF;
    RETURN ROW(result, NULL)::_deal_sync.outcome;
END
$$;
COMMENT ON FUNCTION _deal_sync.sync_tenant(uuid, _deal_sync.request, _deal_sync.caller) IS
'a run, or a batch of a backfill: its result, which is recorded, or the error to raise';

-- One expression with qualified names and without SET clauses, so that caller() sees the caller's settings.
CREATE OR REPLACE FUNCTION @extschema@.sync_deals(
    tenant uuid, mode text DEFAULT 'incremental', dry_run boolean DEFAULT FALSE, strict boolean DEFAULT FALSE
) RETURNS deal_sync.run_result
LANGUAGE sql
AS $$
    SELECT (_deal_sync.checked(_deal_sync.sync_tenant(
        tenant, ROW('sync_deals', mode, dry_run, strict, NULL, NULL, NULL)::_deal_sync.request, _deal_sync.caller()
    ))).result
$$;
COMMENT ON FUNCTION @extschema@.sync_deals(uuid, text, boolean, boolean) IS
'copies a tenant''s deals, versions and links from the graph, in one transaction; SELECT * FROM sync_deals(tenant)';
