"""Flows in: a driver and Cypher. Flows out: rows, and an empty graph for each test."""

from typing import Any

from neo4j import Driver


class Graph:
    """The whole graph of the test instance."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def run(self, cypher: str, **parameters: Any) -> list[dict[str, Any]]:
        """Run one query in an auto-commit transaction."""
        with self.driver.session() as session:
            return session.run(cypher, parameters).data()

    def clear(self) -> None:
        """Remove all nodes, and the constraints and indexes that a test made."""
        self.run("MATCH (n) CALL { WITH n DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS")
        for constraint in self.run("SHOW CONSTRAINTS YIELD name"):
            self.run(f"DROP CONSTRAINT `{constraint['name']}`")
        for index in self.run("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'"):
            self.run(f"DROP INDEX `{index['name']}`")
