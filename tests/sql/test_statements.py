"""In: random nodes with hostile values, random tables over them, random statements.
Out: the foreign table answers as a local table does that was filled from a full scan.

DEAL_SYNC_STATEMENTS says how many, DEAL_SYNC_SEED which ones; a failure names its own seed and statement.
"""

import os
from collections import Counter
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support import hostile
from support.database import Connection
from support.graph import Graph
from support.statements import FLOATS, INTEGERS, MOMENTS, TEXTS, TYPES, Col, Statement, Statements

pytestmark = pytest.mark.multicorn

SEED = int(os.environ.get("DEAL_SYNC_SEED", "5"))
STATEMENTS = int(os.environ.get("DEAL_SYNC_STATEMENTS", "300"))
A_GRAPH = 25  # statements before nodes and table are made anew
NAMES = [
    "plain",
    "Mixed Case",
    'quo"te',
    "back`tick",
    "dollar$p0",
    "per%cent",
    "brace{0}",
    "ünï",
    "semi;colon",
    "n",
    "c1",
]


@pytest.mark.timeout(3600)
def test_random_statements_answer_as_over_a_local_copy(pg: Connection, graph: Graph) -> None:
    pg.prepare_threshold = None
    hostile.fill_pool(graph)
    pg.execute(
        "CREATE TABLE local_values (i int, x_text text, x_int8 bigint, x_int4 int, x_float8 float8, x_bool bool,"
        " x_moment timestamptz, x_date date)"
    )
    pg.execute("CREATE FUNCTION later(anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END'")
    for number in range(0, STATEMENTS, A_GRAPH):
        seed = SEED * 1_000_000 + number
        over(pg, graph, seed, min(A_GRAPH, STATEMENTS - number))


def over(pg: Connection, graph: Graph, seed: int, statements: int) -> None:
    """One graph, one table, some statements."""
    random = Random(seed)
    label = random.choice(["Hostile", "a`b", "\\u0060", 'x"y', "semi;colon", "n) DETACH DELETE n //"]) + str(seed)
    names = random.sample(NAMES, random.randint(3, 8))
    hostile.fill(graph, random, label, names, random.choice((5, 40, 80)))
    columns = [Col(f"c {name[:20]}", random.choice(TYPES)) for name in names]
    pg.execute("RESET ALL")
    pg.execute("DROP FOREIGN TABLE IF EXISTS far")
    pg.execute("DROP TABLE IF EXISTS near")
    definitions: list[sql.Composable] = [
        sql.SQL("{} {} OPTIONS (property {})").format(sql.Identifier(column.name), sql.SQL(column.type), name)
        for column, name in zip(columns, names, strict=True)
    ]
    definitions.append(sql.SQL("element_id text OPTIONS (derive 'element_id')"))
    pg.execute(
        sql.SQL("CREATE FOREIGN TABLE far ({}) SERVER neo4j OPTIONS (label {})").format(
            sql.SQL(", ").join(definitions), label
        )
    )
    pg.execute("CREATE TABLE near AS SELECT * FROM far")
    pg.execute("TRUNCATE local_values")
    ids = [row[0] for row in pg.execute("SELECT element_id FROM near ORDER BY 1 LIMIT 5")]
    for i in range(12):
        pg.execute(
            "INSERT INTO local_values VALUES (%s, %s, %s, %s, %s::float8, %s, %s, '2026-01-02'::date + %s)",
            [
                i,
                random.choice([*random.sample(TEXTS, 3), *ids]),
                random.choice(INTEGERS),
                random.choice(INTEGERS[:8]),
                random.choice(FLOATS),
                random.choice((True, False, None)),
                random.choice(MOMENTS),
                i % 4 - 2,
            ],
        )
    pg.execute("ANALYZE local_values")
    shown = {
        column.name: [
            row[0]
            for row in pg.execute(
                sql.SQL("SELECT DISTINCT {0}::text FROM near WHERE length({0}::text) < 100 ORDER BY 1").format(
                    sql.Identifier(column.name)
                )
            )
        ]
        for column in columns
    }
    source = Statements(random, columns, shown)
    for _ in range(statements):
        settings, statement = source.settings(), source.one()
        for name, value in settings.items():
            pg.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), value))
        compare(pg, statement, f"seed {seed}: {statement.text}\nwith {settings}\nover {columns}")


def compare(pg: Connection, statement: Statement, told: str) -> None:
    """Whether both tables give the same answer, or the same error."""
    far, near = (answer(pg, statement, table) for table in ("far", "near"))
    if isinstance(near, str) or isinstance(far, str) or statement.total or not statement.unlimited:
        unordered = not statement.total and not isinstance(near, str) and not isinstance(far, str)
        assert (Counter(far), len(far)) == (Counter(near), len(near)) if unordered else far == near, told
        return
    keys = [[row[: statement.ordered] for row in rows] for rows in (far, near)]
    assert keys[0] == keys[1], told
    everything = answer(pg, Statement(statement.unlimited, before=statement.before), "near")
    assert not isinstance(everything, str)
    assert len(far) == len(near), told
    assert not Counter(far) - Counter(everything), told


def answer(pg: Connection, statement: Statement, table: str) -> list[tuple[Any, ...]] | str:
    """The rows, and what is there afterwards; or the SQLSTATE."""
    texts = [text.replace("@table", table) for text in (*statement.before, statement.text, *statement.after)]
    last = len(statement.before)
    rows: list[tuple[Any, ...]] = []
    try:
        for number, text in enumerate(texts):
            if not number:
                pg.execute("BEGIN")
            cursor = pg.execute(text.encode())
            if number >= last and cursor.description:
                rows += cursor.fetchall()
        return rows
    except psycopg.errors.DataError as error:
        return str(error.sqlstate)
    finally:
        pg.execute("ROLLBACK")
        pg.execute("DEALLOCATE ALL")
