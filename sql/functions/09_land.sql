-- In: a staged batch. Out: its rows in the application's tables, with the caller's rights, and what could not land.

-- Errors of one row: bad data, a constraint, a view's check option, a trigger that raises (with an SQLSTATE of PL/pgSQL
-- or of its own, or in PL/Python; or a CASE or a subquery in it that one row breaks), an index entry that is too long.
-- Everything else ends the run.
CREATE OR REPLACE FUNCTION _deal_sync.is_row_error(sqlstate text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        left(sqlstate, 2) IN ('22', '23', '44', 'P0')
        OR sqlstate IN ('20000', '54000')
        OR left(sqlstate, 2) NOT IN (
            '00', '01', '02', '03', '08', '09', '0A', '0B', '0F', '0L', '0P', '0Z', '10', '20', '24', '25', '26', '28',
            '2B', '2D', '2F', '34', '39', '3B', '3D', '3F', '40', '42', '53', '54', '55', '57', '58', '72', 'F0',
            'HV', 'XX'
        )
$$;
COMMENT ON FUNCTION _deal_sync.is_row_error(text) IS 'whether an SQLSTATE is about one row, and not about the run';

-- PostgreSQL has one SQLSTATE for a row that a policy rejects and for a missing privilege. Privileges were checked
-- before.
CREATE OR REPLACE FUNCTION _deal_sync.may_be_a_policy(sqlstate text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sqlstate = '42501' AND EXISTS (
        SELECT FROM _deal_sync.target_tables() AS t (relation) WHERE row_security_active(t.relation)
    )
$$;
COMMENT ON FUNCTION _deal_sync.may_be_a_policy(text) IS
'whether an error may mean that a row-level security policy of a target rejected a row';

-- The lines above those of the extension's own functions and statements are the application's.
CREATE OR REPLACE FUNCTION _deal_sync.applications_context(context text, statements text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The text of a statement is part of a line that is in the server's language.
    SELECT nullif(rtrim(regexp_replace(left(context, min(e.place) - 1), E'[^\\n]*$', ''), E'\n'), '')
    FROM (
        SELECT position(s.statement IN context) FROM unnest(statements) AS s (statement)
        UNION ALL
        SELECT regexp_instr(context, E'^[^"\\n]*\\m_?deal_sync\\.\\w+\\(', 1, 1, 0, 'n')
        UNION ALL
        SELECT length(context) + 1
    ) AS e (place)
    WHERE e.place > 0
$$;
COMMENT ON FUNCTION _deal_sync.applications_context(text, text[]) IS
'the lines of an error''s CONTEXT that are the application''s; statements: those of the extension that were run';

-- By the names of functions, which are the same in every language, unlike the quotation marks around them. Names are
-- taken from the lines and looked up, because there may be thousands of functions, and an error for each row of a run.
-- PL/pgSQL prints a name as SQL takes it, other languages print it unquoted.
CREATE OR REPLACE FUNCTION _deal_sync.place_of_error(context text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH named AS MATERIALIZED (
        SELECT f.name, min(position(f.found IN context)) AS place
        FROM (
            SELECT m.parts[1] || '(', m.parts[1] FROM regexp_matches(context, E'\\m(\\w+)\\(', 'g') AS m (parts)
            UNION ALL
            SELECT m.parts[1], replace(m.parts[2], '""', '"')
            FROM regexp_matches(context, E'("((?:[^"\\n]|"")+)")\\(', 'g') AS m (parts)
            UNION ALL
            SELECT m.parts[1], btrim(m.parts[1], E' \u00A0\u202F')
            FROM regexp_matches(
                context, E'^[^"»„“”«「『\\n]*["»„“”«「『](.+)["«“”»」』][^"«“”»」』\\n]*$', 'gn'
            ) AS m (parts)
        ) AS f (found, name)
        GROUP BY f.name
    ),

    called AS MATERIALIZED (
        SELECT p.oid, p.pronamespace, n.place
        FROM pg_proc AS p
        INNER JOIN named AS n ON p.proname = n.name
        WHERE p.proname = ANY (ARRAY(SELECT f.name::name FROM named AS f))
    )

    SELECT coalesce(
        (
            SELECT string_agg(DISTINCT format('trigger "%s" of table %s', t.tgname, t.tgrelid::regclass), ' or ')
            FROM pg_trigger AS t
            INNER JOIN called AS c ON t.tgfoid = c.oid
            WHERE
                NOT t.tgisinternal
                AND t.tgrelid = ANY (ARRAY(SELECT x.relation::oid FROM _deal_sync.target_tables() AS x (relation)))
        ),
        (
            SELECT format('function %s', c.oid::regprocedure)
            FROM called AS c
            WHERE
                c.pronamespace <> ALL (ARRAY['pg_catalog', 'deal_sync', '_deal_sync']::regnamespace[])
            ORDER BY c.place, c.oid
            LIMIT 1
        )
    )
    WHERE context IS NOT NULL
$$;
COMMENT ON FUNCTION _deal_sync.place_of_error(text) IS
'the application''s trigger or function that the lines of applications_context() name';

-- Called where the application's code was run: its triggers, defaults and policies. Whatever they have set in the
-- error, its origin is 'application' from here on, and its field CONSTRAINT says where it was raised.
CREATE OR REPLACE FUNCTION _deal_sync.raise_applications(
    error _deal_sync.error, context text, statements text[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lines CONSTANT text := _deal_sync.applications_context(context, statements);
    place CONSTANT text := _deal_sync.place_of_error(lines);
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = error.code,
        MESSAGE = error.message,
        DETAIL = concat_ws(E'\n', nullif(error.detail, ''), 'In ' || place || ':', lines),
        HINT = error.hint,
        DATATYPE = 'application',
        CONSTRAINT = coalesce(place, '');
END
$$;
COMMENT ON FUNCTION _deal_sync.raise_applications(_deal_sync.error, text, text[]) IS
'raises an error of the application''s code again; its DETAIL says where it was raised';

CREATE OR REPLACE FUNCTION _deal_sync.ask(statement text, tenant_id uuid, INOUT answer anyelement)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    error _deal_sync.error;
    context text;
BEGIN
    EXECUTE statement INTO answer USING tenant_id;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN -- the application's policies run there
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM _deal_sync.raise_applications(error, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION _deal_sync.ask(text, uuid, anyelement) IS
'the value that a statement over a tenant''s rows of the application returns, of the type of answer';

CREATE OR REPLACE FUNCTION _deal_sync.explain_error(
    sqlstate text, "table" text, "column" text, "constraint" text, place text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce('in ' || place || ': ', '') || CASE
        WHEN place IS NOT NULL AND sqlstate LIKE '22%' THEN 'data exception'
        WHEN place IS NOT NULL AND (sqlstate LIKE 'P0%' OR left(sqlstate, 2) NOT IN ('23', '44', '54'))
            THEN 'the row was rejected'
        WHEN sqlstate = '23502' THEN 'a NOT NULL column has no value'
        WHEN sqlstate = '23505' THEN 'another row has the same key'
        WHEN sqlstate = '23503' THEN 'the row that it references does not exist'
        WHEN sqlstate = '23514' THEN 'the row violates a check constraint'
        WHEN sqlstate LIKE '22%' THEN 'a value is invalid'
        WHEN sqlstate LIKE '23%' THEN 'the row violates a constraint'
        WHEN sqlstate = '44000' THEN 'the row violates a view''s check option'
        WHEN sqlstate = '54000' THEN 'the row is too large, possibly for an index'
        WHEN sqlstate = '42501' THEN 'the row violates a row-level security policy'
        ELSE 'a trigger rejected the row'
    END || coalesce(': ' || nullif(concat_ws(
        ', ',
        -- Only names that exist: the application may raise any text as a name.
        (SELECT format('table "%s"', "table") WHERE EXISTS (SELECT FROM pg_class AS c WHERE c.relname = "table")),
        (
            SELECT format('column "%s"', "column")
            WHERE EXISTS (SELECT FROM pg_attribute AS a WHERE a.attname = "column")
        ),
        (
            SELECT format('constraint "%s"', "constraint")
            WHERE
                EXISTS (SELECT FROM pg_constraint AS c WHERE c.conname = "constraint")
                OR EXISTS (SELECT FROM pg_class AS c WHERE c.relname = "constraint")
        )
    ), ''), '')
$$;
COMMENT ON FUNCTION _deal_sync.explain_error(text, text, text, text, text) IS
'the reason for a reject, in SQLSTATE and names only: contains no application data; place: the trigger or function '
'that raised the error';

-- In the search_path of the role that called the sync (after pg_catalog), which the application's triggers may rely on.
-- A function of its own, so that nothing else of the extension runs with it. A trigger may leave another app.tenant_id
-- behind, which is reset afterwards.
CREATE OR REPLACE FUNCTION _deal_sync.execute_for(statement text, rows bigint[], ids uuid[]) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
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

-- One batch: planned, written, checked, explained, linked; neo4j_deals.sync.statements says what each statement does.
-- Passed on from batch to batch: result; cleared, the values that the run replaces with NULL; reasons, which counts
-- failures. completed: versions of this batch.
CREATE OR REPLACE FUNCTION _deal_sync.land_batch(
    kind text, statements _deal_sync.statements, INOUT result deal_sync.run_result, INOUT reasons jsonb,
    INOUT cleared jsonb, OUT completed bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_rejects CONSTANT bigint := _deal_sync.setting('max_rejects')::bigint;
    due record;
    merged record;
    counted record;
    clears jsonb := '{}';
    unlinked bigint[];
    interactions uuid[];
    linked record;
    suppressed _deal_sync.failure[] := '{}';
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
        EXECUTE statements.linked INTO interactions USING counted.there;
        EXECUTE statements.unlinked INTO unlinked USING counted.there, interactions;
        linked := _deal_sync.land(statements.links, unlinked, interactions);
        result.links_inserted := result.links_inserted + linked.landed;
        -- A link that neither landed nor failed: a trigger returned NULL, or another row has a unique key of the pair;
        -- or so many failed (perhaps because a table is not filled yet) that the rest was not tried. The deals still
        -- land.
        IF unlinked <> '{}' THEN
            EXECUTE statements.suppressed INTO suppressed USING
                unlinked, interactions, ARRAY(SELECT f.row_number FROM unnest(linked.failures) AS f),
                CASE WHEN cardinality(linked.failures) > max_rejects
                    THEN 'not tried, because more than deal_sync.max_rejects links were rejected before'
                    ELSE 'a trigger or a unique key of the table prevented the link' END;
        END IF;
        suppressed := linked.failures || suppressed;
    END IF;

    EXECUTE statements.rejects INTO rejects USING counted.there, suppressed;
    IF rejects <> '[]' THEN
        PERFORM _deal_sync.record_rejects(result.run_id, result.tenant_id, rejects);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.land_batch(text, _deal_sync.statements, deal_sync.run_result, jsonb, jsonb) IS
'lands the staged batch of a kind, adds to the run''s counts, and records rejects';
