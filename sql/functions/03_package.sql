-- In: the Python that this server runs. Out: the extension's Python functions, each one call into neo4j_deals.entry.

CREATE OR REPLACE FUNCTION _deal_sync.load_package() RETURNS integer
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
import sys
try:
    from neo4j_deals import entry
except ImportError as error:
    plpy.error(
        "could not import the Python package neo4j_deals",
        sqlstate="55000",
        detail=f"{error}; the server's Python is {sys.version.split()[0]} of {sys.prefix}.",
        hint="Install the package deal-sync into it (docs/install.md), then reconnect.",
    )
version = plpy.execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'deal_sync'")
entry.check_version(plpy, version[0]["extversion"])
return sys.version_info.major * 100 + sys.version_info.minor
$$;
COMMENT ON FUNCTION _deal_sync.load_package() IS
'the body of check_package()';

CREATE OR REPLACE FUNCTION _deal_sync.check_package() RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    error _deal_sync.error;
BEGIN
    RETURN _deal_sync.load_package();
EXCEPTION
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS
            error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
            error.hint := PG_EXCEPTION_HINT;
        error := _deal_sync.raise_again(error);
END
$$;
COMMENT ON FUNCTION _deal_sync.check_package() IS
'the Python version, 311 for 3.11; raises if the Python package is missing or does not support this version of '
'deal_sync';

CREATE OR REPLACE FUNCTION _deal_sync.default_columns(
    OUT table_name text, OUT label text, OUT kind text, OUT target text,
    OUT place integer, OUT name text, OUT type text, OUT options jsonb, OUT comment text
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.default_columns()
$$;
COMMENT ON FUNCTION _deal_sync.default_columns() IS
'the columns of the foreign tables as attach() creates them: the default mapping';

-- With the owner's rights: it uses the owner's user mapping and loads spool files that have no name. The caller may
-- read and empty the staging table, and no more. No argument becomes SQL or a path: caller is a role, and the foreign
-- table is that of _deal_sync.mapped().
CREATE OR REPLACE FUNCTION _deal_sync.fill_staging(
    kind text, tenant_id uuid, caller regrole, selection jsonb, next_kind text DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_encoding = 'UTF8' -- COPY takes the spool's texts to be in it
AS $$
from neo4j_deals import entry
return entry.fill_staging(plpy, kind, tenant_id, caller, selection, next_kind)
$$;
COMMENT ON FUNCTION _deal_sync.fill_staging(text, uuid, regrole, jsonb, text) IS
'reads a tenant''s nodes, all or a selection (neo4j_deals.sync.selection), into pg_temp.deal_sync_<kind>s: one batch '
'per row fetched; the caller empties the table in between. next_kind: is read while the last batches of the first kind '
'land, and staged after a row that is NULL';

CREATE OR REPLACE FUNCTION _deal_sync.graph_state(
    tenant_id uuid DEFAULT NULL, counts boolean DEFAULT FALSE, with_newest boolean DEFAULT FALSE,
    late double precision DEFAULT NULL, since timestamptz DEFAULT NULL,
    OUT database_id text, OUT mapping text, OUT clock timestamptz,
    OUT ahead double precision, OUT unsure double precision, OUT boot text, OUT at_boot double precision,
    OUT deals bigint, OUT versions bigint, OUT count_ms bigint, OUT open text[], OUT newest timestamptz,
    OUT changed boolean
)
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
from neo4j_deals import entry
return entry.graph_state(plpy, tenant_id, counts, with_newest, late, since)
$$;
COMMENT ON FUNCTION _deal_sync.graph_state(uuid, boolean, boolean, double precision, timestamptz) IS
'database id and clock of the graph, counts and changes of a tenant''s nodes, and long open transactions '
'(neo4j_deals.sync.state)';

CREATE OR REPLACE FUNCTION _deal_sync.graph_keys(
    kind text, tenant_id uuid, OUT element_id text, OUT key uuid
) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.graph_keys(plpy, kind, tenant_id)
$$;
COMMENT ON FUNCTION _deal_sync.graph_keys(text, uuid) IS
'a tenant''s nodes of a kind, each with its key; NULL if that is not a UUID';

CREATE OR REPLACE FUNCTION _deal_sync.deal_keys(kind text, tenant_id uuid, after text, amount integer) RETURNS text[]
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.deal_keys(plpy, kind, tenant_id, after, amount)
$$;
COMMENT ON FUNCTION _deal_sync.deal_keys(text, uuid, text, integer) IS
'the next deal ids after one, in their order, of a tenant''s nodes of a kind';

CREATE OR REPLACE FUNCTION _deal_sync.check_source(VARIADIC kinds text[]) RETURNS void
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
entry.check_source(plpy, kinds)
$$;
COMMENT ON FUNCTION _deal_sync.check_source(text[]) IS
'raises if the server, the user mapping or the type of a column is a setup error';

-- With the caller's rights: a domain of the application checks the option default.
CREATE OR REPLACE FUNCTION _deal_sync.check_targets(shown text DEFAULT NULL) RETURNS void
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
entry.check_targets(plpy, shown)
$$;
COMMENT ON FUNCTION _deal_sync.check_targets(text) IS
'raises if a target of the mapping is missing, given twice, or cannot be filled; shown: also if the foreign table of '
'this kind cannot hold every value that the sync lands';

-- It checks the caller's rights itself: a role that may call scan() may call it, too.
CREATE OR REPLACE FUNCTION _deal_sync.scan_rows(
    relation regclass, tenant uuid, columns text[], row_limit bigint
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.scan_rows(plpy, relation, tenant, columns, row_limit)
$$;
COMMENT ON FUNCTION _deal_sync.scan_rows(regclass, uuid, text[], bigint) IS
'the rows of a foreign table; call deal_sync.scan()';

-- With the caller's rights and the caller's own user mapping.
CREATE OR REPLACE FUNCTION _deal_sync.import_statements(
    server name, schema name, limit_to text[], "except" text[], sample bigint, prefix text,
    OUT table_name text, OUT label text, OUT statement text, OUT columns integer
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
options = {"sample": None if sample is None else str(sample), "prefix": prefix}
given = {name: value for name, value in options.items() if value is not None}
return entry.import_statements(plpy, server, schema, limit_to, args[3], given)
$$;
COMMENT ON FUNCTION _deal_sync.import_statements(name, name, text[], text[], bigint, text) IS
'the foreign tables that import_schema() creates, as statements, with their comments';

CREATE OR REPLACE FUNCTION _deal_sync.statements_of(
    kind text, tenant_id uuid, without text[] DEFAULT '{}', completes boolean DEFAULT FALSE
) RETURNS _deal_sync.statements
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.statements(plpy, kind, tenant_id, without, completes)
$$;
COMMENT ON FUNCTION _deal_sync.statements_of(text, uuid, text[], boolean) IS
'the statements that land a batch of a tenant''s nodes of a kind; without: columns that were not read; completes: '
'landed versions get the values that they lack';

CREATE OR REPLACE FUNCTION _deal_sync.statements_of_comparison(
    kind text, tenant_id uuid, without text[], OUT nodes text, OUT differing text
)
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.comparison(plpy, kind, tenant_id, without)
$$;
COMMENT ON FUNCTION _deal_sync.statements_of_comparison(text, uuid, text[]) IS
'the statements that compare a batch with its rows: the nodes, each with its state, and the values that differ';

CREATE OR REPLACE FUNCTION _deal_sync.comparison_of_tenant() RETURNS text
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.comparison_of_tenant(plpy)
$$;
COMMENT ON FUNCTION _deal_sync.comparison_of_tenant() IS
'the statement that compares all nodes of a tenant with its rows, and its rows with the nodes';

CREATE OR REPLACE FUNCTION _deal_sync.merge_by_hand(kind text) RETURNS text
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.merge_by_hand(plpy, kind)
$$;
COMMENT ON FUNCTION _deal_sync.merge_by_hand(text) IS
'the MERGE from the foreign table of a kind, for the tenant in app.tenant_id';

CREATE OR REPLACE FUNCTION _deal_sync.link_columns() RETURNS SETOF text
LANGUAGE plpython3u IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.link_columns()
$$;
COMMENT ON FUNCTION _deal_sync.link_columns() IS 'the columns of interaction_links that make a link';

CREATE OR REPLACE FUNCTION _deal_sync.count_of_values() RETURNS text
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.count_of_values(plpy)
$$;
COMMENT ON FUNCTION _deal_sync.count_of_values() IS
'the statement that counts the values of a tenant ($1) in each column of opportunities that a run overwrites';

CREATE OR REPLACE FUNCTION _deal_sync.to_type(value text, type_name text) RETURNS text
LANGUAGE plpython3u IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.to_type(value, type_name)
$$;
COMMENT ON FUNCTION _deal_sync.to_type(text, text) IS
'a text as the reader converts it to date, timestamp or timestamptz, in UTC; NULL if it is a misfit';
