"""Flows in: fields in PostgreSQL's binary COPY format. Flows out: what a real table holds after that COPY."""

from collections.abc import Iterable, Sequence
from typing import Any

from neo4j_deals.rows.copy_format import HEADER, NULL, TRAILER, encoder, row
from neo4j_deals.rows.values import Misfit, converter, landing

from support.database import Connection


def copied(
    oracle: Connection, types: Sequence[str], rows: Iterable[Sequence[bytes]], form: str = "{}"
) -> list[list[Any]]:
    """The rows of a new table with columns of these types, in their order, after COPY (FORMAT binary).

    `form` is the expression that is read of each column: "{}::text" reads texts.
    """
    columns = [f"c{number}" for number in range(len(types))]
    definition = ", ".join(f"{name} {type_}" for name, type_ in zip(columns, types, strict=True))
    with oracle.transaction(force_rollback=True), oracle.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE copied (place bigserial, {definition})")
        with cursor.copy(f"COPY copied ({', '.join(columns)}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(HEADER + b"".join(row(list(fields)) for fields in rows) + TRAILER)
        expressions = ", ".join(form.format(name) for name in columns)
        return [list(found) for found in cursor.execute(f"SELECT {expressions} FROM copied ORDER BY place")]


def modifier_of(oracle: Connection, type_: str) -> tuple[str, int]:
    """Name in pg_type and modifier of a type as SQL writes it: ("numeric", 196614) for numeric(3,2)."""
    with oracle.transaction(force_rollback=True):
        oracle.execute(f"CREATE TEMPORARY TABLE probe (c {type_})")
        found = oracle.execute(
            "SELECT t.typname, a.atttypmod FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid"
            " WHERE a.attrelid = 'probe'::regclass AND a.attnum = 1"
        ).fetchone()
    assert found is not None
    return str(found[0]), int(found[1])


def staged(oracle: Connection, foreign: str, target: str, values: Sequence[Any]) -> list[str | None]:
    """What the sync makes of graph values, with a foreign column of a type, in a column of the target's, as text."""
    name, modifier = modifier_of(oracle, target)
    convert, encode = landing(modifier_of(oracle, foreign)[0], name, modifier), encoder(name, modifier)

    def field(value: Any) -> bytes:
        try:
            landed = None if value is None else convert(value)
        except Misfit as misfit:
            landed = misfit.substitute
        return NULL if landed is None else encode(landed)

    return [text for (text,) in copied(oracle, [target], [[field(value)] for value in values], "{}::text")]


def convert_to(oracle: Connection, type_: str, value: Any) -> Any:
    """One graph value as `values` converts it to a type as SQL writes it. Raises Misfit."""
    return converter(*modifier_of(oracle, type_))(value)
