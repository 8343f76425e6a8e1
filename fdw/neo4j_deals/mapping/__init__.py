"""What lands where: tables, columns, sources, policies. Knows neither Neo4j nor rows nor the catalog."""
