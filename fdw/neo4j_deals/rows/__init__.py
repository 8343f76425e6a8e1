"""A record of the graph becomes a row of a table. Pure; knows neither server."""
