-- In: a value of a foreign column. Out: the value in the type of its target, or NULL where it does not fit.
-- For the MERGE by hand; what the sync stages has been converted by the reader, by the same rules.

CREATE FUNCTION _deal_sync.to_smallint(value bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -32768 AND 32767 THEN value::smallint END
$$;
COMMENT ON FUNCTION _deal_sync.to_smallint(bigint) IS 'NULL where it does not fit';

CREATE FUNCTION _deal_sync.to_integer(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -2147483648 AND 2147483647 THEN value::integer END
$$;
COMMENT ON FUNCTION _deal_sync.to_integer(bigint) IS 'NULL where it does not fit';

CREATE FUNCTION _deal_sync.to_double(value double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity') THEN value END
$$;
COMMENT ON FUNCTION _deal_sync.to_double(double precision) IS 'NULL where it is not finite';

CREATE FUNCTION _deal_sync.to_bigint(value double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value = trunc(value) AND value >= -9223372036854775808 AND value < 9223372036854775808 THEN value::bigint END
$$;
COMMENT ON FUNCTION _deal_sync.to_bigint(double precision) IS 'NULL where it has a fraction or does not fit';

CREATE FUNCTION _deal_sync.to_text(value double precision) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
    SELECT CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity') THEN value::text END
$$;
COMMENT ON FUNCTION _deal_sync.to_text(double precision) IS 'the shortest decimal form; NULL where it is not finite';

CREATE FUNCTION _deal_sync.to_text(value timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_char(value AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || CASE WHEN extract(MICROSECONDS FROM value)::bigint % 1000000 <> 0 THEN to_char(value AT TIME ZONE 'UTC', '.US') ELSE '' END
        || '+00:00'
$$;
COMMENT ON FUNCTION _deal_sync.to_text(timestamptz) IS 'ISO 8601, in UTC';

-- precision NULL: numeric without limits.
CREATE FUNCTION _deal_sync.to_numeric(value numeric, "precision" integer, scale integer) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN "precision" IS NULL THEN value
        WHEN abs(round(value, scale)) < 10::numeric ^ ("precision" - scale) THEN round(value, scale)
    END
$$;
COMMENT ON FUNCTION _deal_sync.to_numeric(numeric, integer, integer) IS 'rounded to the scale; NULL where it is out of range';

-- By the shortest decimal form: 0.145 becomes 0.15.
CREATE FUNCTION _deal_sync.to_numeric(value double precision, "precision" integer, scale integer) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT _deal_sync.to_numeric(_deal_sync.to_text(value)::numeric, "precision", scale)
$$;
COMMENT ON FUNCTION _deal_sync.to_numeric(double precision, integer, integer) IS
'by the shortest decimal form, rounded to the scale; NULL where it is not finite or out of range';

CREATE FUNCTION _deal_sync.to_varchar(value text, length integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN char_length(value) <= length THEN value END
$$;
COMMENT ON FUNCTION _deal_sync.to_varchar(text, integer) IS 'NULL where it is longer';

CREATE FUNCTION _deal_sync.to_uuid(value text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value ~* '^(\{[0-9a-f]{4}(-?[0-9a-f]{4}){7}\}|[0-9a-f]{4}(-?[0-9a-f]{4}){7})$' THEN value::uuid
    END
$$;
COMMENT ON FUNCTION _deal_sync.to_uuid(text) IS 'NULL where it is no UUID';

-- For a domain, an enum or any other type: the type's own input, with the caller's rights.
CREATE FUNCTION _deal_sync.try_cast(value text, target anyelement) RETURNS anyelement
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
'the text as a value of the second argument''s type; NULL where it does not fit';

CREATE FUNCTION _deal_sync.cast_error(value text, type regtype, modifier integer) RETURNS jsonb
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
            'message', format('type %s refuses it', format_type(type, NULL)) || CASE WHEN name <> '' THEN format(', constraint "%s"', name) ELSE '' END
        );
END
$$;
COMMENT ON FUNCTION _deal_sync.cast_error(text, regtype, integer) IS 'why a text does not fit a type, as SQLSTATE and message';

-- The expression that takes a value from a source's type to its target's. `source` and `target` are types with modifiers.
CREATE FUNCTION _deal_sync.cast_expression(
    value text, source_type oid, source_modifier integer, target_type oid, target_modifier integer
) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source CONSTANT text := source_type::regtype;
    target CONSTANT text := format_type(target_type, target_modifier);
    family CONSTANT text := target_type::regtype;
    as_text CONSTANT text := CASE
        WHEN source IN ('double precision', 'timestamp with time zone') THEN format('_deal_sync.to_text(%s)', value)
        WHEN source IN ('text', 'character varying') THEN value
        ELSE value || '::text'
    END;
BEGIN
    IF source_type = target_type AND source_modifier = target_modifier THEN
        RETURN value;
    END IF;
    RETURN CASE
        WHEN source = 'bigint' AND family = 'smallint' THEN format('_deal_sync.to_smallint(%s)', value)
        WHEN source = 'bigint' AND family = 'integer' THEN format('_deal_sync.to_integer(%s)', value)
        WHEN source = 'double precision' AND family IN ('smallint', 'integer', 'bigint') THEN
            _deal_sync.cast_expression(format('_deal_sync.to_bigint(%s)', value), 'int8'::regtype, -1, target_type, target_modifier)
        WHEN source IN ('bigint', 'double precision') AND family = 'numeric' THEN
            format(
                '_deal_sync.to_numeric(%s, %s, %s)::%s',
                CASE source WHEN 'bigint' THEN value || '::numeric' ELSE value END,
                CASE WHEN target_modifier < 0 THEN 'NULL' ELSE ((target_modifier - 4) >> 16 & 65535)::text END,
                CASE WHEN target_modifier < 0 THEN 'NULL' ELSE (((target_modifier - 4) & 2047 # 1024) - 1024)::text END,
                target
            )
        WHEN family IN ('character varying', 'character') AND target_modifier >= 0 THEN
            format('_deal_sync.to_varchar(%s, %s)::%s', as_text, target_modifier - 4, target)
        WHEN family IN ('character varying', 'text') THEN CASE family WHEN 'text' THEN as_text ELSE format('%s::%s', as_text, target) END
        WHEN source = 'text' AND family = 'numeric' THEN
            _deal_sync.cast_expression(
                format('_deal_sync.to_type(%s, ''numeric'')::numeric', value), 'numeric'::regtype, -1, target_type, target_modifier
            )
        WHEN source = 'numeric' AND family = 'numeric' THEN
            format(
                '_deal_sync.to_numeric(%s, %s, %s)::%s', value, (target_modifier - 4) >> 16 & 65535,
                ((target_modifier - 4) & 2047 # 1024) - 1024, target
            )
        WHEN source = 'text' AND family IN ('smallint', 'integer', 'bigint', 'real', 'double precision', 'boolean') THEN
            format('_deal_sync.to_type(%s, %L)::%s', value, (SELECT t.typname FROM pg_type AS t WHERE t.oid = target_type), target)
        WHEN source = 'text' AND family IN ('time without time zone', 'time with time zone') THEN
            format('_deal_sync.to_type(%s, %L)::%s', value, (SELECT t.typname FROM pg_type AS t WHERE t.oid = target_type), target)
        WHEN source = 'text' AND family = 'uuid' THEN format('_deal_sync.to_uuid(%s)', value)
        WHEN source = 'text' AND family = 'date' THEN format('_deal_sync.to_type(%s, ''date'')::date', value)
        WHEN source = 'text' AND family = 'timestamp without time zone' THEN format('_deal_sync.to_type(%s, ''timestamp'')::%s', value, target)
        WHEN source = 'text' AND family = 'timestamp with time zone' THEN format('_deal_sync.to_type(%s, ''timestamptz'')::%s', value, target)
        WHEN source = 'timestamp with time zone' AND family = 'timestamp without time zone' THEN
            format('(%s AT TIME ZONE ''UTC'')::%s', value, target)
        WHEN source = 'timestamp with time zone' AND family = 'date' THEN format('(%s AT TIME ZONE ''UTC'')::date', value)
        WHEN source = 'text[]' AND family = 'jsonb' THEN format('to_jsonb(%s)', value)
        WHEN source = 'text[]' AND family = 'json' THEN format('to_json(%s)', value)
        WHEN source = 'jsonb' AND family = 'json' THEN format('%s::json', value)
        WHEN source_type = target_type THEN format('%s::%s', value, target)
        ELSE format('_deal_sync.try_cast(%s::text, NULL::%s)', value, target)
    END;
END
$$;
COMMENT ON FUNCTION _deal_sync.cast_expression(text, oid, integer, oid, integer) IS
'the SQL that takes a value from a foreign or staged column to its target''s type, NULL where it does not fit';
