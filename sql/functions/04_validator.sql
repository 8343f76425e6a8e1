-- In: options, as they are set. Out: an error if one is unknown, misplaced, malformed or not for this role to set.

-- In one function: it runs with the rights of whoever sets an option, a role that may call nothing else of the
-- extension. A query needs a trusted owner (_deal_sync.trusted_owners).
CREATE OR REPLACE FUNCTION _deal_sync.validator(options text[], catalog oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    option record;
    context text := catalog::regclass::text;
    seconds CONSTANT text := E'(?!0+(\\.0+)?$)[0-9]{1,6}(\\.[0-9]+)?';
    of_seconds CONSTANT text := 'a number of seconds greater than 0';
    given jsonb;
    partner text;
BEGIN
    FOR option IN
        WITH known (place, name, pattern, superuser_only, meaning) AS (VALUES
            (
                'pg_foreign_server', 'uri',
                E'(bolt|neo4j)(\\+s|\\+ssc)?://([^/@\\s:\\[\\]]+|\\[[0-9a-fA-F:.%]+\\])(:[0-9]{1,5})?/?(\\?\\S*)?',
                false,
                'bolt://host:7687 or neo4j://host:7687, with +s or +ssc for TLS; a login belongs in the user mapping'
            ),
            ('pg_foreign_server', 'database', E'\\S+', false, 'the name of a database'),
            ('pg_foreign_server', 'connect_timeout', seconds, false, of_seconds),
            ('pg_foreign_server', 'query_timeout', seconds, false, of_seconds),
            ('pg_foreign_server', 'fetch_size', '[1-9][0-9]{0,5}', false, 'a number of records, 1 to 999999'),
            ('pg_foreign_server', 'idle_timeout', seconds, false, of_seconds),
            ('pg_foreign_server', 'keep_alive', 'true|false|on|off', false, 'true or false'),
            ('pg_foreign_server', 'max_rows', '[1-9][0-9]{0,17}', false, 'a number of rows, 1 or more'),
            ('pg_foreign_server', 'sslrootcert', '/.+', true, 'the absolute path of a file on the server'),
            (
                'pg_foreign_server', 'wrapper', E'neo4j_deals\\.tables\\.wrapper\\.Neo4jForeignDataWrapper', true,
                'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper, which attach() sets'
            ),
            ('pg_user_mapping', 'user', '.+', false, 'a user of Neo4j'),
            ('pg_user_mapping', 'password', '.*', false, 'a password'),
            ('pg_user_mapping', 'password_file', '/.+', true, 'the absolute path of a file on the server'),
            ('pg_user_mapping', 'bearer_token', E'\\S+', false, 'a single sign-on token'),
            ('pg_foreign_table', 'label', '.+', false, 'a label of the graph'),
            ('pg_foreign_table', 'cypher', '.+', false, 'a Cypher query, MATCH ... RETURN ...'),
            ('pg_foreign_table', 'key', '.+', false, 'names of columns to look nodes up by, separated by commas'),
            ('pg_foreign_table', 'kind', 'deal|version', false, 'deal or version'),
            ('pg_foreign_table', 'target', '.+', false, 'a table, qualified with its schema'),
            ('pg_foreign_table', 'links', '.+', false, 'a table, qualified with its schema'),
            ('pg_foreign_table', 'tenants', '.+', false, 'a table, qualified with its schema'),
            ('pg_foreign_table', 'stamps', '.+', false, 'a column of the target table'),
            ('pg_attribute', 'property', '.+', false, 'a property of the node'),
            (
                'pg_attribute', 'derive',
                'ontology_scores|ontology_completeness|meddic_completeness|workflow_metadata|element_id|labels'
                '|conversion_errors', false,
                'ontology_scores, ontology_completeness, meddic_completeness, workflow_metadata, element_id, labels or '
                'conversion_errors'
            ),
            ('pg_attribute', 'of', '.+', false, 'property names, separated by commas'),
            ('pg_attribute', 'target', '.+', false, 'a column of the table'),
            ('pg_attribute', 'write', 'never|insert|fill|always', false, 'never, insert, fill or always'),
            ('pg_attribute', 'on_misfit', 'null|keep|reject|error', false, 'null, keep, reject or error'),
            ('pg_attribute', 'empty', 'null', false, 'null, which makes an empty text NULL'),
            ('pg_attribute', 'default', '.*', false, 'a value'),
            ('pg_attribute', 'fallback', '.+', false, 'a column of the same foreign table'),
            ('pg_attribute', 'link', 'true', false, 'true, which links the value in interaction_links')
        )
        SELECT o.option_name AS name, o.option_value AS value, k.pattern, k.superuser_only, k.meaning,
            (SELECT string_agg(v.name, ', ') FROM known AS v WHERE v.place = context) AS valid
        FROM pg_options_to_table(options) AS o
        LEFT JOIN known AS k ON k.place = context AND k.name = o.option_name
    LOOP
        IF option.pattern IS NULL THEN
            RAISE EXCEPTION 'invalid option "%"', option.name USING
                ERRCODE = 'fdw_invalid_option_name',
                HINT = CASE
                    WHEN
                        option.name IN ('user', 'password', 'password_file', 'bearer_token')
                        AND context <> 'pg_user_mapping'
                    THEN 'A login belongs in the user mapping: other roles can read the options of a server or table.'
                    ELSE 'Valid options in this context are: ' || coalesce(option.valid, '<none>')
                END;
        END IF;
        IF option.value !~ ('^(' || option.pattern || ')$') THEN
            RAISE EXCEPTION 'invalid value for option "%"', option.name USING
                ERRCODE = 'fdw_invalid_string_format',
                HINT = format('It must be %s.', option.meaning);
        END IF;
        IF option.superuser_only AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
            RAISE EXCEPTION 'permission denied to set option "%"', option.name USING
                ERRCODE = 'insufficient_privilege',
                HINT = 'Only superusers may set it, because it names a file or code on the server.';
        END IF;
    END LOOP;

    -- Options that exclude or require each other: all are given, also those that are not changed.
    given := (
        SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}') FROM pg_options_to_table(options) AS o
    );
    partner := (
        SELECT min(n.name) FROM unnest(ARRAY['user', 'password', 'password_file']) AS n (name) WHERE given ? n.name
    );
    IF given ? 'bearer_token' AND partner IS NOT NULL THEN
        RAISE EXCEPTION 'option "bearer_token" cannot be used together with option "%"', partner USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'A user mapping has either user and password, or a token.';
    END IF;
    IF given ?| ARRAY['password', 'password_file'] AND NOT given ? 'user' THEN
        RAISE EXCEPTION 'option "%" requires option "user"', partner USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'Set the option "user" in the same statement.';
    END IF;
    IF given ? 'sslrootcert' AND given ->> 'uri' !~ E'^\\w+\\+s://' THEN
        RAISE EXCEPTION 'option "sslrootcert" requires the option "uri" to begin with bolt+s:// or neo4j+s://' USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'With other schemes, no certificate is verified.';
    END IF;
    -- A query may read more than the graph: LOAD CSV opens files and addresses on Neo4j's host, and procedures may do
    -- anything.
    IF context = 'pg_foreign_table' AND given ? 'cypher' AND NOT EXISTS (
        SELECT FROM pg_roles AS r CROSS JOIN pg_extension AS e
        WHERE r.rolname = current_user AND e.extname = 'deal_sync' AND (r.rolsuper OR r.oid = e.extowner)
    ) THEN
        RAISE EXCEPTION 'permission denied to set option "cypher"' USING
            ERRCODE = 'insufficient_privilege',
            DETAIL = 'A query can read files and addresses from the host of Neo4j.',
            HINT = 'Have a superuser or the owner of the extension create the table and GRANT SELECT on it,'
                ' or use the option "label".';
    END IF;
    IF context = 'pg_foreign_table' AND given ? 'cypher' AND given ?| ARRAY['label', 'kind'] THEN
        RAISE EXCEPTION 'option "cypher" cannot be used together with options "label" and "kind"' USING
            ERRCODE = 'fdw_invalid_attribute_value',
            HINT = 'A foreign table has either a label or a query, and the sync reads labels only.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.validator(text[], oid) IS
'the validator of the foreign-data wrapper neo4j: names, values and places of options, and which only superusers may '
'set';
