-- In: CREATE EXTENSION. Out: the schemas of the extension's objects.
-- What is in this folder is created once; an upgrade changes it by statements of its own (extension/upgrades).

CREATE SCHEMA deal_sync;
CREATE SCHEMA _deal_sync;
COMMENT ON SCHEMA deal_sync IS 'deal_sync: copies the Deals of a Neo4j graph into opportunities and deal_versions';
COMMENT ON SCHEMA _deal_sync IS
'internal parts of deal_sync: only the functions and views of the schema deal_sync use them';
