"""Flows in: neo4j_deals.graph.failures, with errors of the driver. Flows out: what the user is told of them."""

import psycopg
import pytest
from neo4j.exceptions import ServiceUnavailable
from neo4j_deals.graph.failures import explained
from neo4j_deals.graph.options import ServerOptions
from support.database import Connection
from support.doctor import set_uri
from support.proxy import closed_port


def test_a_broken_connection_is_told_without_the_drivers_own_spelling_of_addresses() -> None:
    options = ServerOptions.read("neo4j", {"uri": "bolt://127.0.0.1:44903"}, "postgres", {})
    for address in ("127.0.0.1', 44903", "::1', 44903, 0, 0"):
        version = 6 if ":" in address else 4
        noise = f"IPv{version}Address(('{address})) (ResolvedIPv{version}Address(('{address})))"
        error = explained(ServiceUnavailable(f"Failed to write to defunct connection {noise}"), options)
        assert error.detail == "Failed to write to defunct connection"
        assert error.message == (
            'could not connect to Neo4j server "neo4j" at bolt://127.0.0.1:44903, or the connection was lost'
        )


@pytest.mark.multicorn
def test_a_server_whose_name_multicorn_does_not_pass_is_told_by_its_address_once(pg: Connection) -> None:
    uri = closed_port()
    set_uri(pg, uri)
    with pytest.raises(psycopg.InternalError) as raised:
        pg.execute("SELECT count(*) FROM neo4j.deals")
    assert f"could not connect to Neo4j server at {uri}, or the connection was lost" in str(raised.value)
