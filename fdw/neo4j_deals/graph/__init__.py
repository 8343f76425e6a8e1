"""Neo4j: how to connect, what to ask, and how to wait for the answer. Knows neither PostgreSQL nor rows."""
