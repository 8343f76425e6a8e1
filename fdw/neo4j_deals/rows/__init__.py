"""A record of the graph becomes a row of a table. Pure; knows neither Neo4j nor PostgreSQL."""
