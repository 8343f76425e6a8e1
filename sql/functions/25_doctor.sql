-- In: the server's Python, and a role. Out: what neo4j_deals.doctor finds, or why it cannot look.

-- It does not use the package, which may be missing.
CREATE OR REPLACE FUNCTION _deal_sync.python_version(OUT number integer, OUT said text)
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
import sys
return sys.version_info.major * 100 + sys.version_info.minor, f"{sys.version.split()[0]} of {sys.prefix}"
$$;
COMMENT ON FUNCTION _deal_sync.python_version() IS 'the Python that this server runs, 311 for 3.11, and where it is';

CREATE OR REPLACE FUNCTION _deal_sync.package_versions() RETURNS text
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.package_versions()
$$;
COMMENT ON FUNCTION _deal_sync.package_versions() IS
'versions of the Python package and of what it requires, and where it is';

-- With the caller's rights.
CREATE OR REPLACE FUNCTION _deal_sync.examine(
    role regrole, OUT name text, OUT ok boolean, OUT detail text, OUT hint text
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.examine(plpy, role)
$$;
COMMENT ON FUNCTION _deal_sync.examine(regrole) IS
'the checks of doctor() that the package makes: all but the first three';

-- With the owner's rights: the sync uses the owner's user mapping, and only superusers may see where the data directory
-- is. No text comes in.
CREATE OR REPLACE FUNCTION _deal_sync.examine_graph(
    is_mapped boolean, OUT name text, OUT ok boolean, OUT detail text, OUT hint text
) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.examine_graph(plpy, is_mapped)
$$;
COMMENT ON FUNCTION _deal_sync.examine_graph(boolean) IS
'the checks of doctor() that need the owner''s user mapping, or the server''s files';

-- The first three checks tell whether Python can make the others. If it cannot, one row "graph" stands for those of the
-- graph, two for those of the mapping.
CREATE OR REPLACE FUNCTION deal_sync.doctor(role regrole DEFAULT NULL)
RETURNS TABLE (name text, ok boolean, detail text, hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    whose CONSTANT regrole := coalesce(role, quote_ident(current_user)::regrole);
    lost text;
    newest text;
    error _deal_sync.error;
BEGIN
    FOREACH name IN ARRAY ARRAY['python', 'package', 'extension', 'graph', 'target columns', 'target types'] LOOP
        ok := true;
        hint := NULL;
        BEGIN
            IF name = 'extension' THEN
                SELECT e.extversion, a.default_version INTO detail, newest
                FROM pg_extension AS e
                LEFT JOIN pg_available_extensions AS a ON a.name = e.extname
                WHERE e.extname = 'deal_sync';
                IF newest IS DISTINCT FROM detail THEN
                    ok := false;
                    detail := format('%s, but the installed files are of %s', detail, coalesce(newest, 'no version'));
                    hint := 'ALTER EXTENSION deal_sync UPDATE;';
                END IF;
            ELSIF lost IS NOT NULL THEN
                ok := NULL;
                detail := format('not checked: %s', lost);
            ELSIF name = 'python' THEN
                SELECT p.number >= 311, p.said INTO ok, detail FROM _deal_sync.python_version() AS p;
                hint := CASE WHEN NOT ok THEN 'PL/Python must use Python 3.11 or later.' END;
            ELSIF name = 'package' THEN
                PERFORM _deal_sync.check_package();
                detail := _deal_sync.package_versions();
            ELSE
                RETURN QUERY SELECT e.* FROM _deal_sync.examine(whose) AS e;
                RETURN;
            END IF;
        EXCEPTION
            WHEN OTHERS OR query_canceled THEN
                GET STACKED DIAGNOSTICS
                    error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
                    error.hint := PG_EXCEPTION_HINT;
                IF _deal_sync.is_cancel(error.code) THEN
                    error := _deal_sync.raise_again(error);
                END IF;
                error := _deal_sync.as_meant(error);
                ok := false;
                detail := concat_ws(': ', error.message, error.detail);
                hint := error.hint;
        END;
        RETURN NEXT;
        IF ok IS NOT TRUE AND name IN ('python', 'package') THEN
            lost := name;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.doctor(regrole) IS
'checks everything that the sync depends on: one row per check, with what to do; role: whose rights are checked, yours '
'by default';
