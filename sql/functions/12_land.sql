-- In: a staged batch. Out: its rows in the application's tables, with the caller's rights, and what could not land.

-- In the search_path of the role that called the sync (after pg_catalog), which the application's triggers may rely on.
-- A function of its own, so that nothing else of the extension runs with it. A trigger may leave another app.tenant_id
-- behind, which is reset afterwards. The planner is to reach the rows to be changed by their places alone, in a nested
-- loop: whatever the statistics say, any other way is disabled while it plans.
CREATE OR REPLACE FUNCTION _deal_sync.execute_for(statement text, rows bigint[], ids uuid[]) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
SET enable_incremental_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
AS $$
DECLARE
    tenant CONSTANT text := current_setting('app.tenant_id');
    landed bigint;
BEGIN
    PERFORM set_config('search_path', _deal_sync.setting('search_path'), true);
    EXECUTE statement USING rows, ids;
    GET DIAGNOSTICS landed = ROW_COUNT;
    PERFORM set_config('app.tenant_id', tenant, true);
    RETURN landed;
END
$$;
COMMENT ON FUNCTION _deal_sync.execute_for(text, bigint[], uuid[]) IS
'runs a statement over rows of the staging table in the caller''s search_path';

-- Part of the statements of execute_for, which calls it before a row is written: their plan is made, and those of the
-- application's triggers are none of the extension's business.
CREATE OR REPLACE FUNCTION _deal_sync.plan_freely() RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SET LOCAL enable_sort TO DEFAULT;
    SET LOCAL enable_incremental_sort TO DEFAULT;
    SET LOCAL enable_hashjoin TO DEFAULT;
    SET LOCAL enable_mergejoin TO DEFAULT;
    SET LOCAL enable_seqscan TO DEFAULT;
    RETURN true;
END
$$;
COMMENT ON FUNCTION _deal_sync.plan_freely() IS 'true; takes back how execute_for has set the planner';

-- If it fails because of a row, it is run for an eighth of the rows at a time, until the bad row is alone. After a
-- unique violation it is tried once more: another session may have inserted the row, which exists now (met).
CREATE OR REPLACE FUNCTION _deal_sync.land(
    statement text, rows bigint[], ids uuid[], OUT landed bigint, OUT failures _deal_sync.failure[], OUT met bigint[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    amount CONSTANT integer := cardinality(rows);
    part CONSTANT integer := greatest(1, (amount + 7) / 8);
    part_landed bigint;
    part_failures _deal_sync.failure[];
    part_met bigint[];
    code text;
    text_of_server text;
    detail text;
    context text;
    "schema" text;
    "table" text;
    "column" text;
    "constraint" text;
BEGIN
    landed := 0;
    failures := '{}';
    met := '{}';
    IF amount = 0 THEN
        RETURN;
    END IF;

    FOR attempt IN 1 .. 2 LOOP
        BEGIN
            landed := _deal_sync.execute_for(statement, rows, ids);
            met := CASE attempt WHEN 2 THEN rows ELSE met END;
            RETURN;
        EXCEPTION
            WHEN OTHERS OR assert_failure THEN
                GET STACKED DIAGNOSTICS
                    code := RETURNED_SQLSTATE, text_of_server := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL,
                    context := PG_EXCEPTION_CONTEXT, "schema" := SCHEMA_NAME, "table" := TABLE_NAME,
                    "column" := COLUMN_NAME, "constraint" := CONSTRAINT_NAME;
                IF NOT (_deal_sync.is_row_error(code) OR _deal_sync.may_be_a_policy(code)) THEN
                    RAISE;
                END IF;
        END;
        EXIT WHEN amount > 1 OR code <> '23505';
    END LOOP;

    IF amount = 1 THEN
        context := _deal_sync.applications_context(context, ARRAY[statement]);
        failures := ARRAY[ROW(
            rows[1], code,
            _deal_sync.explain_error(code, "table", "column", "constraint", _deal_sync.place_of_error(context)),
            concat_ws(E'\n', text_of_server, nullif(detail, ''), context), format('%I.%I', "schema", "table"), "column"
        )::_deal_sync.failure];
        RETURN;
    END IF;

    FOR start IN 1 .. amount BY part LOOP
        SELECT l.landed, l.failures, l.met INTO part_landed, part_failures, part_met
        FROM _deal_sync.land(statement, rows[start : start + part - 1], ids) AS l;
        landed := landed + part_landed;
        failures := failures || part_failures;
        met := met || part_met;
        EXIT WHEN cardinality(failures) > _deal_sync.setting('max_rejects')::integer;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.land(text, bigint[], uuid[]) IS
'runs a statement over rows of the staging table in subtransactions, and isolates those that the table rejects';

-- Of a link that neither landed nor failed, a trigger returned NULL, or another row has a unique key of the pair; or so
-- many failed (perhaps because a table is not filled yet) that the rest was not tried. The deals still land.
CREATE OR REPLACE FUNCTION _deal_sync.land_links(
    statements _deal_sync.statements, rows bigint[], OUT landed bigint, OUT failures _deal_sync.failure[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    interactions uuid[];
    unlinked bigint[];
    suppressed _deal_sync.failure[] := '{}';
BEGIN
    EXECUTE statements.linked INTO interactions USING rows;
    EXECUTE statements.unlinked INTO unlinked USING rows, interactions;
    SELECT l.landed, l.failures INTO landed, failures
    FROM _deal_sync.land(statements.links, unlinked, interactions) AS l;
    IF unlinked <> '{}' THEN
        EXECUTE statements.suppressed INTO suppressed USING
            unlinked, interactions, ARRAY(SELECT f.row_number FROM unnest(failures) AS f),
            CASE WHEN cardinality(failures) > _deal_sync.setting('max_rejects')::bigint
                THEN 'not tried, because more than deal_sync.max_rejects links were rejected before'
                ELSE 'a trigger or a unique key of the table prevented the link' END;
    END IF;
    failures := failures || suppressed;
END
$$;
COMMENT ON FUNCTION _deal_sync.land_links(_deal_sync.statements, bigint[]) IS
'links the rows of a batch that have landed; failures: the links that are missing afterwards';

-- One batch: planned, written, checked, explained, linked; neo4j_deals.sync.statements says what each statement does.
-- Passed on from batch to batch: result; cleared, the values that the run replaces with NULL; reasons, which counts
-- failures. completed: versions of this batch.
CREATE OR REPLACE FUNCTION _deal_sync.land_batch(
    kind text, statements _deal_sync.statements, INOUT result deal_sync.run_result, INOUT reasons jsonb,
    INOUT cleared jsonb, OUT completed bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_sort = off -- see by_key.sql
SET enable_incremental_sort = off
AS $$
DECLARE
    max_rejects CONSTANT bigint := _deal_sync.setting('max_rejects')::bigint;
    due record;
    merged record;
    counted record;
    clears jsonb := '{}';
    links bigint;
    not_linked _deal_sync.failure[] := '{}';
    rejects jsonb;
BEGIN
    EXECUTE statements.planned USING NULL::bigint[];
    EXECUTE statements.to_write INTO due;
    IF due.changes > 0 THEN
        EXECUTE statements.locks;
        IF statements.cleared IS NOT NULL THEN
            EXECUTE statements.cleared INTO clears USING due.rows;
        END IF;
    END IF;

    merged := _deal_sync.land(
        CASE WHEN due.changes > 0 THEN statements.completion ELSE statements.merge END, due.rows, '{}'
    );
    IF merged.failures <> '{}' THEN
        EXECUTE statements.failed USING merged.failures;
    END IF;
    -- If land() gave up, rows that it never tried are missing, too: the run fails with what was found.
    IF
        merged.landed + cardinality(merged.failures) < cardinality(due.rows)
        AND cardinality(merged.failures) <= max_rejects
    THEN
        EXECUTE statements.unwritten USING merged.met, _deal_sync.explain_error('23505', NULL, NULL, NULL);
    END IF;

    EXECUTE statements.counted INTO counted USING merged.met;
    IF kind = 'deal' THEN
        result.deals_inserted := result.deals_inserted + counted.inserted;
        result.deals_adopted := result.deals_adopted + counted.adopted;
        result.deals_updated := result.deals_updated + counted.updated;
        result.deals_unchanged := result.deals_unchanged + counted.unchanged;
    ELSE
        result.versions_inserted := result.versions_inserted + counted.inserted;
    END IF;
    completed := counted.completed;
    reasons := _deal_sync.add_counts(reasons, counted.reasons);
    IF clears <> '{}' THEN
        cleared := _deal_sync.add_counts(cleared, clears);
        IF counted.failed <> '{}' THEN -- their rows have kept their values
            EXECUTE statements.cleared INTO clears USING counted.failed;
            cleared := _deal_sync.add_counts(cleared, clears, -1);
        END IF;
    END IF;

    IF statements.links IS NOT NULL THEN
        SELECT l.landed, l.failures INTO links, not_linked FROM _deal_sync.land_links(statements, counted.there) AS l;
        result.links_inserted := result.links_inserted + links;
    END IF;

    EXECUTE statements.rejects INTO rejects USING counted.there, not_linked;
    IF rejects <> '[]' THEN
        PERFORM _deal_sync.record_rejects(result.run_id, result.tenant_id, rejects);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.land_batch(text, _deal_sync.statements, deal_sync.run_result, jsonb, jsonb) IS
'lands the staged batch of a kind, adds to the run''s counts, and records rejects';
