"""Flows in: a Neo4j and the queries of a run, as JSON on standard input. Flows out: the seconds that it took to read
every record and throw it away, as any script with the driver would.
"""

import json
import sys
import time

from neo4j import READ_ACCESS, GraphDatabase


def main() -> None:
    task = json.load(sys.stdin)
    began = time.perf_counter()
    records = 0
    with (
        GraphDatabase.driver(task["uri"], auth=tuple(task["auth"]), notifications_min_severity="OFF") as driver,
        driver.session(default_access_mode=READ_ACCESS, fetch_size=task["fetch_size"]) as session,
        session.begin_transaction() as transaction,
    ):
        for query in task["queries"]:
            for _ in transaction.run(query["text"], query["parameters"]):
                records += 1
    json.dump({"seconds": time.perf_counter() - began, "records": records}, sys.stdout)


if __name__ == "__main__":
    main()
