"""Neo4j: whom to ask, what to ask, and how to wait for the answer. Knows neither PostgreSQL nor rows."""
