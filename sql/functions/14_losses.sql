-- In: how many values a run replaces with NULL, and how many there were. Out: an error if they are too many.

-- A cursor that is opened before the run writes counts what was there then, whenever it is fetched; mostly it never is.
-- A policy may raise an error here, while the statement is planned.
CREATE OR REPLACE FUNCTION _deal_sync.open_count(tenant_id uuid) RETURNS refcursor
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := _deal_sync.count_of_values();
    counts refcursor;
    error _deal_sync.error;
    context text;
BEGIN
    OPEN counts FOR EXECUTE statement USING open_count.tenant_id;
    RETURN counts;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM _deal_sync.raise_applications(error, context, ARRAY[statement]);
END
$$;
COMMENT ON FUNCTION _deal_sync.open_count(uuid) IS 'an open cursor over the statement of count_of_values()';

-- The application's policies run there.
CREATE OR REPLACE FUNCTION _deal_sync.fetch_count(counts refcursor) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted jsonb;
    error _deal_sync.error;
    context text;
BEGIN
    FETCH counts INTO counted;
    RETURN counted;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT, context := PG_EXCEPTION_CONTEXT;
        PERFORM _deal_sync.raise_applications(error, context, ARRAY[_deal_sync.count_of_values()]);
END
$$;
COMMENT ON FUNCTION _deal_sync.fetch_count(refcursor) IS
'how many values a tenant''s rows had in each column that a run overwrites, when open_count() was called';

CREATE OR REPLACE FUNCTION _deal_sync.add_counts(counts jsonb, more jsonb, times integer DEFAULT 1) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_object_agg(summed.key, summed.total), '{}')
    FROM (
        SELECT c.key, sum(c.value) AS total
        FROM (
            SELECT a.key, a.value::bigint AS value FROM jsonb_each_text(counts) AS a
            UNION ALL
            SELECT b.key, b.value::bigint * times FROM jsonb_each_text(more) AS b
        ) AS c
        GROUP BY c.key
    ) AS summed
    WHERE summed.total <> 0
$$;
COMMENT ON FUNCTION _deal_sync.add_counts(jsonb, jsonb, integer) IS
'the sum of two objects {"name": count}, the second one multiplied';

CREATE OR REPLACE FUNCTION _deal_sync.is_mass(cleared bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT cleared >= 20 -- a percentage of fewer values says little
$$;
COMMENT ON FUNCTION _deal_sync.is_mass(bigint) IS
'whether so many values of a column were replaced by NULL that it is worth counting all of them';

-- By column of the deals' table: cleared, the values that the run has replaced with NULL; held, those that were there
-- before.
CREATE OR REPLACE FUNCTION _deal_sync.check_losses(cleared jsonb, held jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    max_loss CONSTANT integer := _deal_sync.setting('max_loss')::integer;
    said text[];
    worst text;
BEGIN
    SELECT
        array_agg(
            format('%s of %s values in column "%s"', c.value, held ->> c.key, c.key)
            ORDER BY c.value::bigint DESC, c.key
        ),
        (array_agg(c.key ORDER BY c.value::bigint DESC, c.key))[1]
    INTO said, worst
    FROM jsonb_each_text(cleared) AS c
    WHERE _deal_sync.is_mass(c.value::bigint) AND c.value::bigint * 100 > (held ->> c.key)::bigint * max_loss;
    IF said IS NOT NULL THEN
        RAISE EXCEPTION 'the run would replace % of % with NULL',
            said[1], _deal_sync.application_table('deal', 'target')
            USING
            ERRCODE = 'DS005',
            DETAIL = concat_ws(
                ' ',
                (
                    SELECT format(
                        'The column is filled from column "%s" of %s; in the graph the property is absent, or its value'
                        ' does not fit.',
                        m.name, m.relation
                    )
                    FROM (
                        SELECT x.name, x.target, r.relation
                        FROM _deal_sync.mapped('deal') AS r (relation)
                        CROSS JOIN LATERAL _deal_sync.mapping_columns(r.relation) AS x
                    ) AS m
                    WHERE m.target = worst
                ),
                'It would also replace ' || nullif(array_to_string(said[2:5], ', '), '')
                || CASE
                    WHEN cardinality(said) > 5
                        THEN format(', and values in %s more columns', cardinality(said) - 5)
                    ELSE ''
                END || '.',
                format('deal_sync.max_loss allows %s percent of a column''s values.', max_loss)
            ),
            HINT = 'Fix the graph or the column''s mapping. If the loss is intended,'
                ' SET deal_sync.max_loss = 100 for one run.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_losses(jsonb, jsonb) IS
'raises if a run would replace more values of a column with NULL than deal_sync.max_loss allows';

CREATE OR REPLACE FUNCTION _deal_sync.cleared_columns(cleared jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'cleared: ' || string_agg(format('%s (%s)', c.key, c.value), ', ' ORDER BY c.value::bigint DESC, c.key)
    FROM jsonb_each_text(cleared) AS c
$$;
COMMENT ON FUNCTION _deal_sync.cleared_columns(jsonb) IS
'the part of a run''s message on the values that it has replaced with NULL';
