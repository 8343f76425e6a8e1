-- In: a value of a foreign column. Out: the value in the type of its target, or NULL if it does not fit.
-- For the MERGE by hand; what the sync stages has been converted by the reader, by the same rules.

CREATE OR REPLACE FUNCTION _deal_sync.to_smallint(value bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -32768 AND 32767 THEN value::smallint END
$$;
COMMENT ON FUNCTION _deal_sync.to_smallint(bigint) IS 'the same number, or NULL if it is out of range';

CREATE OR REPLACE FUNCTION _deal_sync.to_integer(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -2147483648 AND 2147483647 THEN value::integer END
$$;
COMMENT ON FUNCTION _deal_sync.to_integer(bigint) IS 'the same number, or NULL if it is out of range';

CREATE OR REPLACE FUNCTION _deal_sync.to_bigint(value double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value = trunc(value) AND value >= -9223372036854775808 AND value < 9223372036854775808 THEN value::bigint
    END
$$;
COMMENT ON FUNCTION _deal_sync.to_bigint(double precision) IS
'the same number, or NULL if it has a fraction or is out of range';

CREATE OR REPLACE FUNCTION _deal_sync.to_text(value double precision) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
    SELECT CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity') THEN value::text END
$$;
COMMENT ON FUNCTION _deal_sync.to_text(double precision) IS 'the shortest decimal form; NULL if it is not finite';

-- precision NULL: numeric without limits.
CREATE OR REPLACE FUNCTION _deal_sync.to_numeric(value numeric, "precision" integer, scale integer) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN "precision" IS NULL THEN value
        WHEN abs(round(value, scale)) < 10::numeric ^ ("precision" - scale) THEN round(value, scale)
    END
$$;
COMMENT ON FUNCTION _deal_sync.to_numeric(numeric, integer, integer) IS
'the number rounded to the scale, or NULL if it is out of range';

-- By the shortest decimal form: 0.145 becomes 0.15.
CREATE OR REPLACE FUNCTION _deal_sync.to_numeric(
    value double precision, "precision" integer, scale integer
) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.to_numeric(_deal_sync.to_text(value)::numeric, "precision", scale)
$$;
COMMENT ON FUNCTION _deal_sync.to_numeric(double precision, integer, integer) IS
'the shortest decimal form of the number, rounded to the scale; NULL if it is not finite or out of range';

CREATE OR REPLACE FUNCTION _deal_sync.to_varchar(value text, length integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN char_length(value) <= length THEN value END
$$;
COMMENT ON FUNCTION _deal_sync.to_varchar(text, integer) IS 'the same text, or NULL if it is longer';

CREATE OR REPLACE FUNCTION _deal_sync.to_uuid(value text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value ~* E'^(\\{[0-9a-f]{4}(-?[0-9a-f]{4}){7}\\}|[0-9a-f]{4}(-?[0-9a-f]{4}){7})$' THEN value::uuid
    END
$$;
COMMENT ON FUNCTION _deal_sync.to_uuid(text) IS 'the text as uuid, or NULL if it is not a UUID';

-- For a domain, an enum or any other type: the type's own input, with the caller's rights.
CREATE OR REPLACE FUNCTION _deal_sync.try_cast(value text, target anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result target%TYPE;
BEGIN
    result := value;
    RETURN result;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        IF NOT _deal_sync.is_row_error(sqlstate) THEN
            RAISE;
        END IF;
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION _deal_sync.try_cast(text, anyelement) IS
'the text as a value of the second argument''s type; NULL if that type rejects it';

CREATE OR REPLACE FUNCTION _deal_sync.cast_error(value text, type regtype, modifier integer) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    code text;
    name text;
BEGIN
    EXECUTE format('SELECT $1::%s', format_type(type, modifier)) USING value;
    RETURN NULL;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
        IF NOT _deal_sync.is_row_error(code) THEN
            RAISE;
        END IF;
        RETURN jsonb_build_object(
            'sqlstate', code,
            'message', format('invalid value for type %s', format_type(type, NULL))
            || CASE WHEN name <> '' THEN format(', constraint "%s"', name) ELSE '' END
        );
END
$$;
COMMENT ON FUNCTION _deal_sync.cast_error(text, regtype, integer) IS
'why a type rejects a text, as SQLSTATE and message';
