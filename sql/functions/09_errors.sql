-- In: an error that was caught, ours or the application's. Out: whose it is, what may be said of it, and the error that
-- the user sees.

-- PL/Python puts the name of its exception before an error's message, and the message of an error in a set-returning
-- function into the DETAIL: what it says instead is in the server's language.
CREATE OR REPLACE FUNCTION _deal_sync.as_meant(INOUT error _deal_sync.error)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF error.detail ~ E'^(plpy|spiexceptions)\\.\\w+: ' THEN
        error.message := error.detail;
        error.detail := NULL;
    END IF;
    error.message := regexp_replace(error.message, E'^(plpy|spiexceptions)\\.\\w+: ', '');
    error.detail := nullif(error.detail, '');
    error.hint := nullif(error.hint, '');
END
$$;
COMMENT ON FUNCTION _deal_sync.as_meant(_deal_sync.error) IS
'an error with message, DETAIL and HINT as they were raised';

-- A public function of a run is one expression with this as its outermost function, so that the user's error has one
-- line of CONTEXT.
CREATE OR REPLACE FUNCTION _deal_sync.checked(outcome _deal_sync.outcome) RETURNS _deal_sync.outcome
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    error _deal_sync.error := _deal_sync.as_meant(outcome.error);
BEGIN
    IF error.code IS NULL THEN
        RETURN outcome;
    END IF;
    error.origin := coalesce(error.origin, 'own');
    error.hint := coalesce(
        error.hint,
        CASE
            WHEN error.code = '42501' THEN 'To see what the role lacks: SELECT * FROM deal_sync.doctor() WHERE NOT ok;'
        END
    );
    -- An option of RAISE that is '' is printed as an empty line.
    IF error.detail IS NULL AND error.hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = error.code, MESSAGE = error.message, DATATYPE = error.origin;
    ELSIF error.detail IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = error.code, MESSAGE = error.message, HINT = error.hint, DATATYPE = error.origin;
    ELSIF error.hint IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = error.code, MESSAGE = error.message, DETAIL = error.detail, DATATYPE = error.origin;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = error.code, MESSAGE = error.message, DETAIL = error.detail, HINT = error.hint,
        DATATYPE = error.origin;
END
$$;
COMMENT ON FUNCTION _deal_sync.checked(_deal_sync.outcome) IS 'an outcome as it is; raises its error, if it has one';

-- An assignment leaves one line less in CONTEXT than PERFORM. A caller that has waited for Neo4j catches
-- query_canceled, too, so that a cancel is reported in PostgreSQL's own words.
CREATE OR REPLACE FUNCTION _deal_sync.raise_again(error _deal_sync.error) RETURNS _deal_sync.error
LANGUAGE sql
AS $$
    SELECT (_deal_sync.checked(ROW(NULL, error)::_deal_sync.outcome)).error
$$;
COMMENT ON FUNCTION _deal_sync.raise_again(_deal_sync.error) IS
'raises an error that was caught; does nothing if its code is NULL';

-- A part may end with a full stop or a semicolon, as a DETAIL and a statement do. If it begins with a capital, it is a
-- new sentence.
CREATE OR REPLACE FUNCTION _deal_sync.sentences(VARIADIC parts text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(string_agg(
        CASE WHEN p.place = 1 THEN '' WHEN p.part ~ '^[A-Z]' THEN '. ' ELSE '; ' END || p.part, '' ORDER BY p.place
    ), '')
    FROM (
        SELECT row_number() OVER (ORDER BY g.place) AS place, rtrim(g.part, '.; ') AS part
        FROM unnest(parts) WITH ORDINALITY AS g (part, place)
        WHERE g.part <> ''
    ) AS p
$$;
COMMENT ON FUNCTION _deal_sync.sentences(text[]) IS
'message, DETAIL and HINT of an error, and further parts, as one text; parts that are NULL are omitted';

CREATE OR REPLACE FUNCTION _deal_sync.is_cancel(sqlstate text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT left(sqlstate, 2) = '57'
$$;
COMMENT ON FUNCTION _deal_sync.is_cancel(text) IS
'whether an SQLSTATE says that the user or an administrator has ended the statement: nothing may go on after it';

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
