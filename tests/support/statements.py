"""Flows in: chance, and the columns of a table. Flows out: statements that answer alike wherever the rows are."""

from dataclasses import dataclass
from random import Random

TYPES: tuple[str, ...] = ("text", "varchar(6)", "bigint", "integer", "smallint", "double precision", "real", "boolean")
TYPES += ("timestamp with time zone", "timestamp without time zone", "date", "jsonb")

#: Literals by type; those of one line are written with their type.
TEXTS: tuple[str, ...] = (
    "",
    "a",
    "A",
    "b",
    "ab",
    "a%",
    "a_b",
    "5",
    "5.0",
    "-0",
    "0",
    "true",
    "f",
    "é",
    "e\u0301",
    "ß",
    "\ufffd",
    "x",
    "NaN",
)
TEXTS += (
    "2026-01-02",
    "2026-01-02T03:04:05.123456Z",
    "2026-01-02T05:04:05.123456000+02:00",
    "03:04:05",
    "a ",
    " ",
    "O'Neil",
)
TEXTS += ("1e+15", "1e+16", "9007199254740993", "-1", "0.1", "1e+22", "9223372036854775807", "👩‍👩‍👧‍👦", "5e-324")
INTEGERS: tuple[str, ...] = (
    "0",
    "1",
    "-1",
    "5",
    "7",
    "32767",
    "32768",
    "-32769",
    "2147483647",
    "-2147483649",
    "9007199254740991",
)
INTEGERS += ("9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808")
FLOATS: tuple[str, ...] = (
    "0",
    "-0",
    "0.1",
    "5",
    "5.5",
    "-1",
    "7.000000000000001",
    "1e15",
    "1e16",
    "9007199254740992",
    "9007199254740993",
)
FLOATS += (
    "9223372036854775807",
    "3.5e38",
    "16777217",
    "5e-324",
    "1.7976931348623157e308",
    "NaN",
    "Infinity",
    "-Infinity",
)
FLOATS += ("0.10000000149011612", "2147483648", "0.145", "-9007199254740992")
MOMENTS: tuple[str, ...] = (
    "2026-01-02 03:04:05.123456+00",
    "2026-01-02 03:04:05.123457+00",
    "2026-01-02 00:00:00+00",
    "2026-01-01 09:04:05+00",
)
MOMENTS += (
    "0001-01-01 00:00:00+00",
    "0001-01-01 12:00:00+00",
    "9999-12-31 23:59:59.999999+00",
    "2026-01-02 08:49:05.123456+05:45",
)
MOMENTS += (
    "2026-01-02 03:04:00+00",
    "infinity",
    "0005-01-01 00:00:00+00 BC",
    "20000-01-01 00:00:00+00",
    "1999-12-31 23:59:59+00",
)
DAYS: tuple[str, ...] = ("2026-01-02", "2026-01-01", "2026-01-03", "0001-01-01", "9999-12-31", "1970-01-01")
LOCALS: tuple[str, ...] = (
    "2026-01-02 03:04:05.123456",
    "2026-01-02 00:00:00",
    "2026-01-02 03:04:05",
    "9999-12-31 23:59:59.999999",
)
PATTERNS: tuple[str, ...] = (
    "a%",
    "a",
    "%",
    "",
    "5%",
    "5",
    "a\\%%",
    "a_b",
    "%b",
    "t%",
    "2026-01-02%",
    "-%",
    "A%",
    "👩%",
    "é%",
    "x%",
    "a%b",
    "f",
    "\\_",
)
RANGES = ("<", "<=", ">", ">=")
COMPARISONS = ("=", "=", "<>", *RANGES)
SETTINGS = {
    "timezone": ("UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"),
    "datestyle": ("ISO, MDY", "ISO, MDY", "German", "SQL, DMY", "Postgres"),
    "extra_float_digits": ("1", "1", "0", "-5", "3"),
    "enable_hashjoin": ("on", "off"),
    "enable_mergejoin": ("on", "off"),
    "plan_cache_mode": ("auto", "force_generic_plan"),
}


@dataclass(frozen=True)
class Col:
    """A column of the table under test, as SQL writes it, and its type."""

    name: str
    type: str

    @property
    def quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'

    @property
    def family(self) -> str:
        return self.type.split("(")[0]


def text_literal(value: str) -> str:
    """As SQL writes it whatever the settings."""
    return "E'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class Statement:
    """A query with @table for the table; `total`: its order is total; `unlimited`: the same without LIMIT."""

    text: str
    ordered: int = 0  # columns of the result that come in a promised order
    total: bool = False
    unlimited: str = ""


class Statements:
    """Random statements over a table with these columns and `element_id`, and over a local table `local_values`.

    `shown` are values of each column, as texts in ISO format: most literals are among them.
    """

    def __init__(self, random: Random, columns: list[Col], shown: dict[str, list[str]]) -> None:
        self.random, self.columns, self.shown = random, columns, shown

    def settings(self) -> dict[str, str]:
        return {name: self.random.choice(values) for name, values in SETTINGS.items()}

    def one(self) -> Statement:
        """SELECT, JOIN, IN (SELECT …), an aggregate; with and without WHERE, ORDER BY, LIMIT and OFFSET."""
        random = self.random
        shown = random.sample(self.columns, random.randint(1, len(self.columns)))
        where = self._where()
        form = random.random()
        if form < 0.12:
            column = random.choice(self.columns)
            return Statement(f"SELECT count(*), count({column.quoted}) FROM @table AS t{where}")
        if form < 0.32 and (joined := self._join()):
            selected = ", ".join(f"t.{column.quoted}::text" for column in shown)
            return Statement(joined.replace("@selected", f"t.element_id, {selected}").replace("@where", where))
        keys = random.sample(self.columns, random.choice((0, 0, 1, 1, 2)))
        keys = [key for key in keys if key.family != "jsonb"]
        order, heads = [], []
        for key in keys:
            collation = ' COLLATE "C"' if key.family in ("text", "varchar") and random.random() < 0.5 else ""
            direction = random.choice(("", " ASC", " DESC", " NULLS FIRST", " DESC NULLS LAST", " DESC NULLS FIRST"))
            order.append(f"t.{key.quoted}{collation}{direction}")
            heads.append(f"t.{key.quoted}::text")
        total = random.random() < 0.6 and bool(order)
        if total:
            order.append("t.element_id")
        heads += ["t.element_id", *(f"t.{column.quoted}::text" for column in shown)]
        text = f"SELECT {', '.join(heads)} FROM @table AS t{where}"
        if order:
            text += " ORDER BY " + ", ".join(order)
        limit = random.choice((None, None, 0, 1, 3, 10, 1000))
        offset = random.choice((0, 0, 0, 1, 7)) if limit is not None or random.random() < 0.1 else 0
        limited = text + (f" LIMIT {limit}" if limit is not None else "") + (f" OFFSET {offset}" if offset else "")
        return Statement(limited, len(keys), total, text)

    def _join(self) -> str | None:
        column = self.random.choice(self.columns)
        theirs = {"text": "x_text", "bigint": "x_int8", "double precision": "x_float8", "boolean": "x_bool"}
        theirs |= {"integer": "x_int4", "timestamp with time zone": "x_moment", "date": "x_date", "varchar": "x_text"}
        theirs |= {"smallint": "x_int4", "real": "x_float8"}
        if column.family not in theirs:
            return None
        other = theirs[column.family]
        name = f"t.{column.quoted}"
        return self.random.choice(
            (
                f"SELECT @selected FROM @table AS t JOIN local_values AS v ON {name} = v.{other}@where",
                f"SELECT @selected, v.i FROM local_values AS v LEFT JOIN @table AS t ON {name} = v.{other}@where",
                f"SELECT @selected FROM (SELECT * FROM @table AS t@where) AS t"
                f" WHERE {name} IN (SELECT {other} FROM local_values)",
                f"SELECT @selected, w.i FROM (SELECT * FROM local_values WHERE i % 3 = 0) AS w,"
                f" LATERAL (SELECT * FROM @table AS u WHERE u.{column.quoted} = w.{other}) AS t@where",
                "SELECT @selected, v.i FROM @table AS t JOIN local_values AS v ON t.element_id = v.x_text@where",
                f"SELECT @selected FROM @table AS t JOIN @table AS u ON {name} = u.{column.quoted}@where",
                f"SELECT @selected FROM @table AS t JOIN (SELECT * FROM @table AS u ORDER BY element_id LIMIT 3) AS u"
                f" ON {name} = u.{column.quoted}@where",
            )
        )

    def _where(self) -> str:
        number = self.random.choice((0, 1, 1, 1, 2, 2, 3))
        return " WHERE " + " AND ".join(self._atom() for _ in range(number)) if number else ""

    def _atom(self, depth: int = 0) -> str:
        random = self.random
        if depth == 0 and random.random() < 0.12:
            return f"({self._atom(1)} OR {self._atom(1)})"
        if depth == 0 and random.random() < 0.08:
            return f"NOT ({self._atom(1)})"
        column = random.choice(self.columns)
        name = f"t.{column.quoted}"
        if random.random() < 0.15:
            return f"{name} IS {random.choice(('', 'NOT '))}NULL"
        if column.family == "boolean" and random.random() < 0.5:
            forms = (name, f"NOT {name}", f"{name} IS TRUE", f"{name} IS NOT TRUE", f"{name} IS FALSE")
            return random.choice((*forms, f"{name} IS NOT FALSE", f"{name} IS UNKNOWN", f"{name} IS NOT UNKNOWN"))
        if column.family in ("text", "varchar") and random.random() < 0.35:
            pattern = text_literal(random.choice(PATTERNS))
            return f"{name} {random.choice(('LIKE', 'LIKE', 'NOT LIKE', 'ILIKE', '^@', '~'))} {pattern}".replace(
                "~ " + pattern, "~ 'a'"
            )
        if column.family == "jsonb":
            return random.choice((f"{name} = '5'::jsonb", f"{name} <> '\"a\"'::jsonb", f"{name} ? 'a'"))
        literals = [self.literal(column) for _ in range(random.choice((1, 2, 4)))]
        if random.random() < 0.2:
            values = ", ".join([*literals, *(["NULL"] if random.random() < 0.2 else [])])
            return f"{name} {random.choice(('IN', 'IN', 'NOT IN'))} ({values})"
        if random.random() < 0.1:
            operator = random.choice(("= ANY", "<> ALL", "< ANY", ">= ALL"))
            bare = [literal.split("::")[0] for literal in literals]
            if column.family in ("date", "timestamp without time zone"):  # others kill the backend, says the README
                bare = [text_literal(random.choice(DAYS)) for _ in literals]
            return f"{name} {operator} (ARRAY[{', '.join(bare)}]::{self._plain(column)}[])"
        literal, operator = literals[0], random.choice(COMPARISONS)
        if operator in RANGES and column.family in ("text", "varchar") and random.random() < 0.5:
            return f'{name} {operator} {literal} COLLATE "C"'
        if random.random() < 0.15:
            return f"{literal} {operator} {name}"
        if random.random() < 0.15:
            return f"{name} {operator} (SELECT {literal})"
        if random.random() < 0.05:
            return f"{name} {operator} NULL"
        return f"{name} {operator} {literal}"

    @staticmethod
    def _plain(column: Col) -> str:
        return "text" if column.family == "varchar" else column.type

    def literal(self, column: Col) -> str:
        """One of the column's type, or of a type that PostgreSQL compares with it."""
        random = self.random
        if self.shown[column.name] and random.random() < 0.6:
            return f"{text_literal(random.choice(self.shown[column.name]))}::{self._plain(column)}"

        def of(values: tuple[str, ...], *types: str) -> str:
            return f"{text_literal(random.choice(values))}::{random.choice(types)}"

        small = tuple(value for value in INTEGERS if abs(int(value)) < 1 << 31)
        match column.family:
            case "text":
                return of(TEXTS, "text")
            case "varchar":
                return of(TEXTS, "varchar", "text") if random.random() < 0.8 else of(("a", "ab", "5"), "char(4)")
            case "bigint" | "integer" | "smallint":
                return of(INTEGERS, "bigint") if random.random() < 0.5 else of(small, "integer")
            case "double precision":
                return of(FLOATS, "float8") if random.random() < 0.7 else of(("0.1", "5.5", "16777217", "-0"), "real")
            case "real":
                return (
                    of(("0.1", "5.5", "16777217", "-0", "NaN"), "real")
                    if random.random() < 0.6
                    else of(FLOATS, "float8")
                )
            case "boolean":
                return of(("t", "f"), "boolean")
            case _:
                mixed = random.random()
                if mixed < 0.6:
                    own = {"date": DAYS, "timestamp without time zone": LOCALS}.get(column.family, MOMENTS)
                    return of(own, column.type)
                if mixed < 0.8:
                    return of(MOMENTS, "timestamptz")
                return of(DAYS, "date") if mixed < 0.9 else of(LOCALS, "timestamp")
