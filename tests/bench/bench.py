"""Flows in: which parts to measure, and sizes. Flows out: tables of what a sync costs, and of the targets; everything
that it created is removed again. Without a part it measures the load.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench import growth, load, many
from bench.measures import Report, table, target_row
from bench.runs import Bench, opened
from environment.servers import claimed
from neo4j import GraphDatabase

Part = Callable[[Bench], Report]


def sizes(text: str) -> list[int]:
    found = sorted({int(size.replace("_", "")) for size in text.split(",")})
    if found[0] < 200:
        raise argparse.ArgumentTypeError("a size is at least 200")
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--deals", type=int, default=20_000, help="of the tenant; of the large one with --tenants")
    parser.add_argument("--rounds", type=int, default=3, help="each figure is the median of so many")
    parser.add_argument("--load", action="store_true", help="a load of one tenant, beside its parts and a script")
    parser.add_argument("--no-double", action="store_true", help="leave out the load of twice as many deals")
    parser.add_argument(
        "--scale",
        type=sizes,
        nargs="?",
        const=[20_000, 200_000, 1_000_000],
        metavar="SIZES",
        help="one tenant without embeddings, of each of these sizes: --scale 20000,200000",
    )
    parser.add_argument(
        "--beside", type=int, nargs="?", const=250_000, metavar="DEALS", help="a tenant beside so many of others"
    )
    parser.add_argument(
        "--tenants", type=int, nargs="?", const=300, metavar="TENANTS", help="so many small tenants, and a large one"
    )
    parser.add_argument("--small", type=int, default=100, help="deals of a small tenant")
    parser.add_argument("--minutes", type=float, default=10, help="how long changes are followed, with --tenants")
    parser.add_argument("--every", type=float, default=5, help="seconds from tick to tick meanwhile")
    return parser.parse_args()


def parts(given: argparse.Namespace) -> Iterator[Part]:
    """The parts that were asked for; each gets a graph and a database of its own."""
    if given.load or not (given.scale or given.beside or given.tenants):
        yield partial(load.measure, deals=given.deals, rounds=given.rounds, double=not given.no_double)
    if given.scale:
        yield partial(growth.scale, sizes=given.scale, rounds=given.rounds)
    if given.beside:
        yield partial(growth.beside, deals=given.deals, others=given.beside, rounds=given.rounds)
    if given.tenants:
        counts = many.Sizes(given.tenants, given.small, given.deals)
        yield partial(many.measure, sizes=counts, rounds=given.rounds, minutes=given.minutes, every=given.every)


def main() -> None:
    given, began = parsed(), time.perf_counter()
    reports = []
    with claimed("bench") as instance:
        facts = instance.facts
        auth = (facts["neo4j_user"], facts["neo4j_password"])
        with GraphDatabase.driver(facts["neo4j_uri"], auth=auth, notifications_min_severity="OFF") as driver:
            for part in parts(given):
                with opened(instance, driver) as bench:
                    reports.append(part(bench))
                print("\n".join([*reports[-1].lines, ""]), flush=True)
    targets = [target for report in reports for target in report.targets]
    print("\n".join(table([["target", "measured", "due", ""], *map(target_row, targets)])))
    print(f"\nthe whole took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
