-- In: the connections to Neo4j that this session keeps. Out: a view of them, and a function that closes them.

CREATE OR REPLACE FUNCTION _deal_sync.kept_connections(
    OUT server name, OUT login name, OUT uri text, OUT state text, OUT idle_seconds double precision, OUT valid boolean
) RETURNS SETOF record
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.kept_connections(plpy)
$$;
COMMENT ON FUNCTION _deal_sync.kept_connections() IS 'the rows of deal_sync.connections';

CREATE OR REPLACE VIEW deal_sync.connections AS
SELECT
    c.server,
    c.login,
    c.uri,
    c.state,
    c.idle_seconds,
    c.valid
FROM _deal_sync.kept_connections() AS c;
COMMENT ON VIEW deal_sync.connections IS 'the connections to Neo4j that this session keeps';
COMMENT ON COLUMN deal_sync.connections.server IS
'the foreign server; NULL if no server has the options any more that the connection was made with';
COMMENT ON COLUMN deal_sync.connections.login IS 'the role whose user mapping was used';
COMMENT ON COLUMN deal_sync.connections.uri IS 'the address that it was made to';
COMMENT ON COLUMN deal_sync.connections.state IS 'in use (by a scan or an open cursor) or idle';
COMMENT ON COLUMN deal_sync.connections.idle_seconds IS 'how long it has been idle';
COMMENT ON COLUMN deal_sync.connections.valid IS
'false if options have changed, so that the next statement makes a new connection; NULL if you may not see the user '
'mapping';

CREATE OR REPLACE FUNCTION _deal_sync.close_connections(server name, OUT closed bigint, OUT busy bigint)
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.close_connections(plpy, server)
$$;
COMMENT ON FUNCTION _deal_sync.close_connections(name) IS 'the body of disconnect()';

CREATE OR REPLACE FUNCTION deal_sync.disconnect(server name) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_foreign_server AS s WHERE s.srvname = server) THEN
        RAISE EXCEPTION 'server "%" does not exist', server USING
            ERRCODE = 'undefined_object',
            HINT = 'The servers of this session''s connections: SELECT server FROM deal_sync.connections;';
    END IF;
    result := _deal_sync.close_connections(server);
    IF result.busy > 0 THEN
        RAISE WARNING 'connections to server "%" that are in use remain open', server USING
            HINT = 'An open cursor of this session uses them: CLOSE it.';
    END IF;
    RETURN result.closed > 0;
END
$$;
COMMENT ON FUNCTION deal_sync.disconnect(name) IS
'closes this session''s connections to a server, except those in use; returns true if it closed any';
