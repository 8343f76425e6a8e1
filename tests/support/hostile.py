"""Flows in: a graph. Flows out: nodes that hold every kind of value under every property, in some order."""

from random import Random
from typing import Any

from support.graph import Graph

#: Values as Cypher writes them; `$big` is a text of 1 MB, `$nul` a NUL character.
VALUES = (
    *(
        "''",
        "'a'",
        "'A'",
        "'b'",
        "'ab'",
        "'a%'",
        "'a_b'",
        "'a\\\\b'",
        "'%'",
        "'_'",
        "' '",
        "'a '",
        "'5'",
        "'5.0'",
        "'-0'",
    ),
    *(
        "'true'",
        "'f'",
        '"O\'Neil"',
        "'\"'",
        "'`'",
        "'é'",
        "'e\u0301'",
        "'ß'",
        "'İ'",
        "'👩‍👩‍👧‍👦'",
        "'\U0001f1fa\U0001f1e6'",
        "'\ufffd'",
        "'\uffee'",
    ),
    *("'a' + $nul + 'b'", "$nul", "'5' + $nul", "$big", "$big + 'z'", "'NaN'", "'null'", "'1e+15'", "'2026-01-02'"),
    *("0", "1", "-1", "5", "7", "32767", "32768", "-32769", "2147483647", "2147483648", "-2147483649"),
    *("9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993"),
    *("9223372036854775807", "9223372036854775806", "-9223372036854775807 - 1"),
    *("0.0", "-0.0", "0.1", "0.10000000149011612", "5.0", "5.5", "-1.0", "7.000000000000001", "1e15", "1e16", "1e22"),
    *(
        "9007199254740992.0",
        "9007199254740994.0",
        "9223372036854775807.0",
        "-9223372036854775808.0",
        "3.5e38",
        "16777217.0",
    ),
    *("5e-324", "1.7976931348623157e308", "-1.7976931348623157e308", "1.0/0.0", "-1.0/0.0", "0.0/0.0", "2.5", "0.145"),
    *("true", "false"),
    "datetime('2026-01-02T03:04:05.123456789Z')",
    "datetime('2026-01-02T03:04:05.123456Z')",
    "datetime('2026-01-02T03:04:05.1234569+05:45[Asia/Kathmandu]')",
    "datetime('2026-01-02T05:04:05.123456+02:00')",
    "datetime('2026-01-01T21:34:05-03:30[America/St_Johns]')",
    "datetime('2026-01-02T03:04:05+18:00')",
    "datetime('2026-01-02T03:04:05-18:00')",
    "datetime('0001-01-01T00:00:00Z')",
    "datetime('0001-01-01T00:00:00+14:00')",
    "datetime('9999-12-31T23:59:59.999999999Z')",
    "datetime('9999-12-31T23:59:59-14:00')",
    "datetime({year: 12345})",
    "datetime({year: -5})",
    "localdatetime('2026-01-02T03:04:05.123456')",
    "localdatetime('2026-01-02T00:00:00')",
    "localdatetime('9999-12-31T23:59:59.999999999')",
    "date('2026-01-02')",
    "date('2026-01-01')",
    "date('0001-01-01')",
    "date('9999-12-31')",
    "time('03:04:05.5+02:00')",
    "localtime('03:04:05')",
    *(
        "'2026-01-02T03:04:05.123456Z'",
        "'2026-01-02T03:04:05+02:00'",
        "'2026-01-02 03:04'",
        "'2026-01-03T09:00:00+18:00'",
    ),
    *(
        "'2025-12-31T23:59:59.9999999-17:59'",
        "'0001-01-01'",
        "'9999-12-31T23:59:59.9999999Z'",
        "'2026-02-30'",
        "'20260102'",
    ),
    *("'2026-01-02T03:04:05,5Z[Europe/Berlin]'", "'03:04:05'"),
    *("duration('P1M2DT3S')", "point({x: 1, y: 2})", "point({longitude: 1, latitude: 2})"),
    *("[1, 2]", "['a']", "[]", "[1.5, 2.5]", "[true]"),
)


def fill_pool(graph: Graph) -> None:
    """One node for each value: `fill` copies from there, so that no value has to travel through the driver."""
    for number, value in enumerate(VALUES):
        graph.run(f"CREATE (:Pool {{i: $i, v: {value}}})", i=number, big="x" * (1 << 20), nul="\0")


def fill(graph: Graph, random: Random, label: str, properties: list[str], nodes: int) -> None:
    """Nodes of a label, each with some of the properties; a property leans to few values, so that they recur."""
    favourites = {name: random.choices(range(len(VALUES)), k=random.choice((4, 25, 120))) for name in properties}

    def node() -> list[list[Any]]:
        return [[name, random.choice(favourites[name])] for name in properties if random.random() < 0.85]

    graph.run(
        "UNWIND $nodes AS row CREATE (n:$($label)) WITH n, row UNWIND row AS cell"
        " MATCH (p:Pool {i: cell[1]}) SET n[cell[0]] = p.v",
        nodes=[node() for _ in range(nodes)],
        label=label,
    )
