-- In: a session's parameters deal_sync.<name>, and options. Out: the settings and the options, checked, as values.

-- The one list of the settings, their defaults and their valid values. The caller's value counts: none widens a right.
CREATE OR REPLACE FUNCTION deal_sync.settings(OUT name text, OUT fallback text, OUT pattern text) RETURNS SETOF record
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        -- how long a run waits for a row that another transaction has locked
        ('lock_timeout', '5s', '[0-9]+ *(us|ms|s|min|h|d)?'),
        -- failed writes after which a run gives up
        ('max_rejects', '1000', '[0-9]{1,9}'),
        -- a longer text is a misfit
        ('max_value_bytes', '128MB', '[0-9]{1,9} *(B|kB|MB)?'),
        -- how far before the last run an incremental one looks for changes
        ('overlap', '10min', '[0-9]{1,9} *(us|ms|s)|[0-9]{1,6} *(min|h)|[0-9]{1,5} *d'),
        -- how long changes of a node without a timestamp may stay unseen by incremental runs
        ('undated_every', '1h', '[0-9]{1,6} *(s|min|h|d)'),
        -- percent of a column's values that a run may replace with NULL
        ('max_loss', '20', '[0-9]{1,2}|100'),
        -- rows or bytes that complete a batch, whichever comes first
        ('batch_rows', '2000', '[1-9][0-9]{0,5}'),
        ('batch_bytes', '32MB', '[1-9][0-9]{0,8} *(B|kB|MB)?'),
        -- so many nodes or more are read by a process of their own
        ('process_from', '5000', '[0-9]{1,9}'),
        -- a tenant without a good run for longer is late
        ('late_after', '15min', '[0-9]{1,6} *(s|min|h|d)'),
        -- how long runs and reconciliations are kept, and the offending values of rejects
        ('runs_kept', '30d', '[0-9]{1,6} *(s|min|h|d)'),
        ('values_kept', '30d', '[0-9]{1,6} *(s|min|h|d)')
$$;
COMMENT ON FUNCTION deal_sync.settings() IS
'the settings deal_sync.<name>, their defaults, and the pattern that a value must match';

CREATE OR REPLACE FUNCTION _deal_sync.setting(name text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    value text := nullif(current_setting('deal_sync.' || name, true), '');
    known record;
BEGIN
    SELECT k.fallback, k.pattern INTO STRICT known
    FROM (
        SELECT s.* FROM deal_sync.settings() AS s
        UNION ALL
        VALUES ('search_path', 'pg_catalog', '.*') -- a run's own: its caller's, for the application's triggers
    ) AS k
    WHERE k.name = setting.name;

    IF value !~ ('^(' || known.pattern || ')$') THEN
        RAISE EXCEPTION 'invalid value for parameter "deal_sync.%": "%"', name, value USING
            ERRCODE = 'invalid_parameter_value',
            HINT = format('The default is %s: RESET deal_sync.%s;', known.fallback, name);
    END IF;
    RETURN coalesce(value, known.fallback);
END
$$;
COMMENT ON FUNCTION _deal_sync.setting(text) IS
'the value of deal_sync.<name> in this session, or its default';

CREATE OR REPLACE FUNCTION _deal_sync.size_setting(name text) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- pg_size_bytes() takes B from PostgreSQL 16 on.
    SELECT pg_size_bytes(regexp_replace(_deal_sync.setting(name), E'(\\d) *B$', E'\\1'))
$$;
COMMENT ON FUNCTION _deal_sync.size_setting(text) IS 'the value of a setting that is a size, in bytes';

CREATE OR REPLACE FUNCTION _deal_sync.options_of(options text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}')
    FROM pg_options_to_table(options) AS o
$$;
COMMENT ON FUNCTION _deal_sync.options_of(text[]) IS
'the options of a server, user mapping, foreign table or column as an object';
