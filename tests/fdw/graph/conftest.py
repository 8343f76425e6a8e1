"""Flows in: a test's database and graph. Flows out: the same, with a proxy between them."""

from collections.abc import Iterator

import pytest
from environment.servers import Instance
from support.database import Connection, Database
from support.graph import Graph
from support.proxied import BATCH, DEALS, VERSIONS, World, load
from support.proxy import Proxy
from support.sync import add_tenant


@pytest.fixture
def world(database: Database, pg: Connection, graph: Graph, servers: Instance) -> Iterator[World]:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        world = World(database, pg, proxy, add_tenant(pg))
        world.set_uri(proxy.uri)
        world.set_option("fetch_size", str(BATCH))
        load(graph, world.tenant, DEALS, VERSIONS)
        yield world
