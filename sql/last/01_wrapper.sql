-- In: the validator. Out: the foreign-data wrapper. In a file of its own: sqlfluff cannot parse the statement.
-- Without a handler: deal_sync.attach() sets Multicorn's if that is safe, and scan() reads the tables without one.

CREATE FOREIGN DATA WRAPPER neo4j NO HANDLER VALIDATOR _deal_sync.validator;
COMMENT ON FOREIGN DATA WRAPPER neo4j IS 'nodes of a Neo4j graph as foreign tables (deal_sync)';
