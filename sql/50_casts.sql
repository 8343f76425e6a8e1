-- In: a value of a foreign column. Out: the value in the type of its target, or NULL where it does not fit.
-- For the MERGE by hand; what the sync stages has been converted by the reader, by the same rules.

CREATE FUNCTION deal_sync.to_smallint(value bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -32768 AND 32767 THEN value::smallint END
$$;
COMMENT ON FUNCTION deal_sync.to_smallint(bigint) IS 'NULL where it does not fit';

CREATE FUNCTION deal_sync.to_integer(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value BETWEEN -2147483648 AND 2147483647 THEN value::integer END
$$;
COMMENT ON FUNCTION deal_sync.to_integer(bigint) IS 'NULL where it does not fit';

CREATE FUNCTION deal_sync.to_double(value double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity') THEN value END
$$;
COMMENT ON FUNCTION deal_sync.to_double(double precision) IS 'NULL where it is not finite';

-- By the shortest decimal form: 0.145 becomes 0.15. precision NULL: numeric without limits.
CREATE FUNCTION deal_sync.to_numeric(value double precision, "precision" integer, scale integer) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
SET extra_float_digits = 1
AS $$
    SELECT CASE
        WHEN value IS NULL OR value IN ('NaN', 'Infinity', '-Infinity') THEN NULL
        WHEN "precision" IS NULL THEN value::text::numeric
        WHEN abs(round(value::text::numeric, scale)) < 10::numeric ^ ("precision" - scale)
            THEN round(value::text::numeric, scale)
    END
$$;
COMMENT ON FUNCTION deal_sync.to_numeric(double precision, integer, integer) IS
'by the shortest decimal form, rounded to the scale; NULL where it is not finite or out of range';

CREATE FUNCTION deal_sync.to_varchar(value text, length integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN char_length(value) <= length THEN value END
$$;
COMMENT ON FUNCTION deal_sync.to_varchar(text, integer) IS 'NULL where it is longer';

CREATE FUNCTION deal_sync.to_uuid(value text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN value ~* '^(\{[0-9a-f]{4}(-?[0-9a-f]{4}){7}\}|[0-9a-f]{4}(-?[0-9a-f]{4}){7})$' THEN value::uuid
    END
$$;
COMMENT ON FUNCTION deal_sync.to_uuid(text) IS 'NULL where it is no UUID';

-- For a domain, an enum or any other type: the type's own input, with the caller's rights.
CREATE FUNCTION deal_sync.try_cast(value text, target anyelement) RETURNS anyelement
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
        IF NOT deal_sync.is_row_error(sqlstate) THEN
            RAISE;
        END IF;
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION deal_sync.try_cast(text, anyelement) IS
'the text as a value of the second argument''s type; NULL where it does not fit';

CREATE FUNCTION deal_sync.cast_error(value text, type regtype, modifier integer) RETURNS jsonb
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
        IF NOT deal_sync.is_row_error(code) THEN
            RAISE;
        END IF;
        RETURN jsonb_build_object(
            'sqlstate', code,
            'message', format('type %s refuses it', format_type(type, NULL)) || coalesce(format(', constraint "%s"', nullif(name, '')), '')
        );
END
$$;
COMMENT ON FUNCTION deal_sync.cast_error(text, regtype, integer) IS 'why a text does not fit a type, as SQLSTATE and message';

-- The expression that takes a value from a source's type to its target's. `source` and `target` are types with modifiers.
CREATE FUNCTION deal_sync.cast_expression(
    value text, source_type oid, source_modifier integer, target_type oid, target_modifier integer
) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text := format_type(target_type, target_modifier);
    pair text := source_type::regtype || ' to ' || target_type::regtype;
BEGIN
    IF source_type = target_type AND source_modifier = target_modifier THEN
        RETURN value;
    END IF;
    RETURN CASE pair
        WHEN 'bigint to smallint' THEN format('deal_sync.to_smallint(%s)', value)
        WHEN 'bigint to integer' THEN format('deal_sync.to_integer(%s)', value)
        WHEN 'double precision to numeric' THEN
            CASE WHEN target_modifier < 0 THEN format('deal_sync.to_numeric(%s, NULL, NULL)', value)
                ELSE format(
                    'deal_sync.to_numeric(%s, %s, %s)::%s', value,
                    (target_modifier - 4) >> 16 & 65535, ((target_modifier - 4) & 2047 # 1024) - 1024, target
                )
            END
        WHEN 'text to character varying' THEN
            CASE WHEN target_modifier < 0 THEN format('%s::%s', value, target)
                ELSE format('deal_sync.to_varchar(%s, %s)::%s', value, target_modifier - 4, target)
            END
        WHEN 'text to character' THEN format('deal_sync.to_varchar(%s, %s)::%s', value, target_modifier - 4, target)
        WHEN 'character varying to character' THEN format('%s::%s', value, target)
        WHEN 'bigint to numeric' THEN
            deal_sync.cast_expression(value || '::double precision', 'float8'::regtype, -1, target_type, target_modifier)
        WHEN 'text to uuid' THEN format('deal_sync.to_uuid(%s)', value)
        WHEN 'text to date' THEN format('deal_sync.to_type(%s, ''date'')::date', value)
        WHEN 'text to timestamp without time zone' THEN format('deal_sync.to_type(%s, ''timestamp'')::%s', value, target)
        WHEN 'text to timestamp with time zone' THEN format('deal_sync.to_type(%s, ''timestamptz'')::%s', value, target)
        WHEN 'timestamp with time zone to timestamp without time zone' THEN format('(%s AT TIME ZONE ''UTC'')::%s', value, target)
        WHEN 'timestamp with time zone to date' THEN format('(%s AT TIME ZONE ''UTC'')::date', value)
        WHEN 'text[] to jsonb' THEN format('to_jsonb(%s)', value)
        WHEN 'jsonb to json' THEN format('%s::json', value)
        ELSE CASE WHEN source_type = target_type THEN format('%s::%s', value, target)
            ELSE format('deal_sync.try_cast(%s::text, NULL::%s)', value, target)
        END
    END;
END
$$;
COMMENT ON FUNCTION deal_sync.cast_expression(text, oid, integer, oid, integer) IS
'internal: the SQL that takes a value from a foreign or staged column to its target''s type, NULL where it does not fit';
