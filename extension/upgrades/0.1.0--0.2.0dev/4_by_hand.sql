-- In: the servers whose tables Multicorn2 reads. Out: they name the module of the wrapper by its new place.

DO $$
DECLARE
    server name;
BEGIN
    FOR server IN
        SELECT s.srvname
        FROM pg_foreign_server AS s
        INNER JOIN pg_foreign_data_wrapper AS w ON s.srvfdw = w.oid
        WHERE w.fdwname = 'neo4j' AND 'wrapper=neo4j_deals.wrapper.Neo4jForeignDataWrapper' = ANY (s.srvoptions)
    LOOP
        EXECUTE format(
            'ALTER SERVER %I OPTIONS (SET wrapper %L)', server, 'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper'
        );
    END LOOP;
END
$$;
