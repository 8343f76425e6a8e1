"""Flows in: neo4j_deals.graph.failures, with errors of the driver. Flows out: what the user is told of them."""

from neo4j.exceptions import ServiceUnavailable
from neo4j_deals.graph.failures import explained
from neo4j_deals.graph.options import ServerOptions


def test_a_broken_connection_is_told_without_the_drivers_own_spelling_of_addresses() -> None:
    options = ServerOptions.read("neo4j", {"uri": "bolt://127.0.0.1:44903"}, "postgres", {})
    for address in ("127.0.0.1', 44903", "::1', 44903, 0, 0"):
        version = 6 if ":" in address else 4
        noise = f"IPv{version}Address(('{address})) (ResolvedIPv{version}Address(('{address})))"
        error = explained(ServiceUnavailable(f"Failed to write to defunct connection {noise}"), options)
        assert error.detail == "Failed to write to defunct connection"
        assert error.message == 'no connection to Neo4j server "neo4j" at bolt://127.0.0.1:44903, or it broke'
