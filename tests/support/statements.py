"""In: chance, and the columns of a table. Out: statements that answer alike wherever the rows are.

The dimensions that a statement is drawn from, several at once:
- what is read: the table, a view with a WHERE, a view over it, a security barrier, a CTE (materialized or not), a
  subquery, arms of UNION ALL, each with clauses and a LIMIT outside
- joins: inner, left, right, full, lateral, semi, anti, with itself; by the key or another column; further clauses on
  either side or both, in ON and in WHERE; correlated subqueries in SELECT and WHERE
- writing: UPDATE ... FROM, DELETE ... USING, MERGE, INSERT ... SELECT into a local table, with all that it holds after
- a bound's type: the column's, or one that PostgreSQL compares with it; its origin: a constant, a subquery, a function
  that is called at run time, an expression, a parameter, a column of another table
- the plan: a simple query, or a prepared one run three times, with a plan for any value or for each; each kind of join
- operators, lists, patterns, NULL tests, booleans, OR and NOT; ORDER BY with NULLS and collations; LIMIT and OFFSET as
  constant, expression, parameter, NULL, WITH TIES; aggregates, DISTINCT, windows
- the session's time zone, DateStyle and digits; what the graph holds is `hostile`'s
"""

from dataclasses import dataclass
from random import Random

TYPES: tuple[str, ...] = ("text", "varchar(6)", "bigint", "integer", "smallint", "double precision", "real", "boolean")
TYPES += ("timestamp with time zone", "timestamp without time zone", "date", "jsonb", "character(6)")

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
    "enable_nestloop": ("on", "on", "off"),
    "enable_material": ("on", "off"),
    "enable_memoize": ("on", "off"),
    "join_collapse_limit": ("8", "1"),
    "plan_cache_mode": ("auto", "force_generic_plan", "force_custom_plan"),
}


#: The column of `local_values` that a column of a type is joined with.
_THEIRS = {"text": "x_text", "bigint": "x_int8", "double precision": "x_float8", "boolean": "x_bool"}
_THEIRS |= {"integer": "x_int4", "timestamp with time zone": "x_moment", "date": "x_date", "varchar": "x_text"}
_THEIRS |= {"smallint": "x_int4", "real": "x_float8", "character": "x_text", "timestamp without time zone": "x_date"}


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
    """A query with @table for the table; `total`: its order is total; `unlimited`: the same without LIMIT.

    All run in one transaction that is rolled back: `before` first, then the query, then what shows what it has done.
    """

    text: str
    ordered: int = 0  # columns of the result that come in a promised order
    total: bool = False
    unlimited: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Statements:
    """Random statements over a table with these columns and `element_id`, and over a local table `local_values`.

    `shown` are values of each column, as texts in ISO format: most literals are among them.
    """

    def __init__(self, random: Random, columns: list[Col], shown: dict[str, list[str]]) -> None:
        self.random, self.columns, self.shown = random, columns, shown
        self.parameters: list[str] | None = None  # of a prepared statement: literals with their types

    def settings(self) -> dict[str, str]:
        return {name: self.random.choice(values) for name, values in SETTINGS.items()}

    def one(self) -> Statement:
        """A statement of any form, prepared or not."""
        self.parameters = [] if self.random.random() < 0.3 else None
        forms = (self._plain_query, self._shaped, self._shaped, self._limited, self._write)
        statement = self.random.choice(forms)()
        return self._prepared(statement) if self.parameters else statement

    def _prepared(self, statement: Statement) -> Statement:
        """Run three times: for what the plan of the first one leaves behind."""
        assert self.parameters
        types = ", ".join(literal.rsplit("::", 1)[1] for literal in self.parameters)
        values = ", ".join(self.parameters)
        prepare = f"PREPARE asked ({types}) AS "
        execute = f"EXECUTE asked ({values})"
        before = (*statement.before, prepare + statement.text)
        if not statement.after:
            before += (execute, execute)
        unlimited = statement.unlimited
        if unlimited:
            for number in range(len(self.parameters), 0, -1):
                unlimited = unlimited.replace(f"${number}", self.parameters[number - 1])
        return Statement(execute, statement.ordered, statement.total, unlimited, before, statement.after)

    # -- what is read, and what it is joined with ---------------------------------------------------------------------

    def _source(self, name: str) -> tuple[str, str, tuple[str, ...]]:
        """What follows WITH, what stands in FROM and is called `t`, and what has to be made before."""
        random, parameters = self.random, self.parameters
        form = random.choice(("table", "table", "view", "view of view", "barrier", "cte", "subquery", "union"))
        if form in ("view", "view of view", "barrier"):
            self.parameters = None
        inner = self._where()
        self.parameters = parameters
        query = f"SELECT * FROM @table AS t{inner}"
        if form == "table":
            return "", "@table AS t", ()
        if form in ("view", "view of view", "barrier"):
            barrier = " WITH (security_barrier)" if form == "barrier" else ""
            made = [f"CREATE TEMPORARY VIEW {name}{barrier} AS {query}"]
            if form == "view of view":
                made.append(f"CREATE TEMPORARY VIEW {name}_over AS SELECT * FROM {name}")
                name += "_over"
            return "", f"{name} AS t", tuple(made)
        if form == "cte":
            return (
                f"WITH {name} AS {random.choice(('', 'MATERIALIZED ', 'NOT MATERIALIZED '))}({query}) ",
                f"{name} AS t",
                (),
            )
        if form == "union":
            query += f" UNION ALL SELECT * FROM @table AS t{self._where()}"
        return "", f"({query}) AS t", ()

    def _shaped(self) -> Statement:
        """A source with clauses, joined or not, counted or limited."""
        random = self.random
        with_, source, before = self._source("looked_at")
        where = self._where()
        columns = random.sample(self.columns, min(2, len(self.columns)))
        selected = ", ".join(["t.element_id", *(f"t.{column.quoted}::text" for column in columns)])
        form = random.random()
        if form < 0.1:
            rows = f"SELECT t.element_id, row_number() OVER (ORDER BY t.element_id) AS number FROM {source}{where}"
            return Statement(f"{with_}SELECT * FROM ({rows}) AS r WHERE number <= 3", before=before)
        if form < 0.35:
            column = random.choice(self.columns)
            aggregate = random.choice(
                (
                    "count(*)",
                    f"count({random.choice(('', 'DISTINCT '))}t.{column.quoted}::text)",
                    f'min(t.element_id), max(t.{column.quoted}::text COLLATE "C")',
                    f"string_agg(t.element_id, ',' ORDER BY t.element_id) FILTER (WHERE {self._atom()})",
                )
            )
            return Statement(f"{with_}SELECT {aggregate} FROM {source}{where}", before=before)
        if form < 0.55:
            on = (
                f"u.element_id = v.x_text AND {self._atom().replace('t.', 'u.')}"
                if random.random() < 0.7
                else "u.element_id = v.x_text"
            )
            correlated = random.choice(
                (
                    f"SELECT v.i, (SELECT count(*) FROM @table AS u WHERE {on}) FROM local_values AS v",
                    f"SELECT v.i FROM local_values AS v WHERE EXISTS (SELECT FROM @table AS u WHERE {on})",
                    f"SELECT v.i FROM local_values AS v WHERE NOT EXISTS (SELECT FROM @table AS u WHERE {on})",
                    f"SELECT v.i, (SELECT u.element_id FROM @table AS u WHERE {on} LIMIT 1) FROM local_values AS v",
                    "SELECT v.i FROM local_values AS v WHERE v.x_text NOT IN (SELECT u.element_id FROM @table AS u)",
                    'SELECT v.i, (SELECT count(*) FROM @table AS u WHERE u.element_id > v.x_text COLLATE "C" AND'
                    f" {self._atom().replace('t.', 'u.')}) FROM local_values AS v",
                )
            )
            return Statement(correlated)
        further = " AND ".join(
            ["t.element_id = v.x_text", *(self._further() for _ in range(random.choice((0, 1, 1, 2))))]
        )
        join = random.choice(("JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"))
        if join == "FULL JOIN":
            further = "t.element_id = v.x_text"
        also = self._further() if random.random() < 0.5 else ""
        if also:
            where = f"{where} AND {also}" if where else f" WHERE {also}"
        sides = (source, "local_values AS v") if random.random() < 0.5 else ("local_values AS v", source)
        text = f"{with_}SELECT {selected}, v.i FROM {sides[0]} {join} {sides[1]} ON {further}{where}"
        if random.random() < 0.2:
            return Statement(f"{text} LIMIT 2", 0, False, text, before)
        return Statement(text, before=before)

    def _limited(self) -> Statement:
        """A LIMIT over what has clauses of its own."""
        random = self.random
        with_, source, before = self._source("looked_at")
        where = self._where() if random.random() < 0.3 else ""
        key = random.choice([None, None, *(column for column in self.columns if column.family != "jsonb")])
        limits = [
            "LIMIT 1",
            "LIMIT 2",
            "LIMIT 3",
            "LIMIT 2 OFFSET 1",
            "LIMIT 50",
            "LIMIT 1 + 1",
            "LIMIT NULL",
            "LIMIT ALL",
        ]
        if self.parameters is not None and random.random() < 0.5:
            self.parameters.append("2::bigint")
            limits = [f"LIMIT ${len(self.parameters)}"]
        text = f"{with_}SELECT t.element_id FROM {source}{where}"
        if key is None or random.random() < 0.5:
            return Statement(f"{text} {random.choice(limits)}", 0, False, text, before)
        limit = random.choice([*limits, "FETCH FIRST 2 ROWS WITH TIES"])
        return Statement(f"{text} ORDER BY t.{key.quoted}, t.element_id {limit}", 1, True, text, before)

    def _further(self) -> str:
        """A clause beside a join's key: on one side, or on both."""
        column = self.random.choice(self.columns)
        other = _THEIRS.get(column.family)
        choices = [self._atom(), self._atom(), f"v.i {self.random.choice(RANGES)} {self.random.randint(0, 11)}"]
        if other:
            choices.append(f"t.{column.quoted} {self.random.choice(COMPARISONS)} v.{other}")
            choices.append(f"coalesce(t.{column.quoted} {self.random.choice(COMPARISONS)} v.{other}, v.i % 2 = 0)")
        choices.append(f"length(t.{column.quoted}::text) > v.i")
        return self.random.choice(choices)

    def _write(self) -> Statement:
        """Each local row has one node at most, by the node's id: what is written does not depend on an order."""
        random = self.random
        with_, source, before = self._source("looked_at")
        column = random.choice(self.columns)
        on = " AND ".join(["v.x_text = t.element_id", *(self._further() for _ in range(random.choice((0, 1, 1, 2))))])
        once = source.startswith("(") and " UNION ALL " in source
        if once:  # a node may be there twice
            with_, source, before = "", "@table AS t", ()
        form = random.choice(("update", "update", "delete", "merge", "merge", "insert"))
        if form == "update":
            changes = f"x_text = t.{column.quoted}::text, i = v.i + 100"
            text = f"{with_}UPDATE local_values AS v SET {changes} FROM {source} WHERE {on}"
        elif form == "delete":
            text = f"{with_}DELETE FROM local_values AS v USING {source} WHERE {on}"
        elif form == "insert":
            text = (
                f"{with_}INSERT INTO local_values (i, x_text)"
                f" SELECT v.i + 200, t.{column.quoted}::text FROM local_values AS v JOIN {source} ON {on}"
            )
        else:
            matched = random.choice(
                ("DELETE", f"UPDATE SET x_text = t.{column.quoted}::text, i = v.i + 100", "DO NOTHING")
            )
            also = random.choice(("", " AND v.i % 2 = 0"))
            text = (
                f"{with_}MERGE INTO local_values AS v USING {source} ON {on} WHEN MATCHED{also} THEN {matched}"
                f" WHEN NOT MATCHED THEN INSERT (i, x_text) VALUES (-1, t.element_id)"
            )
            if self.parameters:  # of a MERGE none is prepared by PREPARE before PostgreSQL 16
                for number in range(len(self.parameters), 0, -1):
                    text = text.replace(f"${number}", self.parameters[number - 1])
                self.parameters = None
        return Statement(text, before=before, after=("SELECT i, x_text, x_int8 FROM local_values",))

    def _plain_query(self) -> Statement:
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
        if column.family not in _THEIRS:
            return None
        other = _THEIRS[column.family]
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
            if column.family in ("date", "timestamp without time zone"):  # others kill the backend, says limits.md
                bare = [text_literal(random.choice(DAYS)) for _ in literals]
            return f"{name} {operator} (ARRAY[{', '.join(bare)}]::{self._plain(column)}[])"
        literal, operator = self._from_anywhere(column, literals[0]), random.choice(COMPARISONS)
        if operator in RANGES and column.family in ("text", "varchar") and random.random() < 0.5:
            return f'{name} {operator} {literal} COLLATE "C"'
        if random.random() < 0.15:
            return f"{literal} {operator} {name}"
        if random.random() < 0.1:
            return f"{name} BETWEEN {literal} AND {literals[-1]}"
        if random.random() < 0.08:
            return f"{name} IS {random.choice(('', 'NOT '))}DISTINCT FROM {literal}"
        if random.random() < 0.05:
            return f"{name} {operator} NULL"
        return f"{name} {operator} {literal}"

    def _from_anywhere(self, column: Col, literal: str) -> str:
        """A literal, or what is known at run time only: `later` gives back what it is given."""
        random = self.random
        origin = random.random()
        type_ = literal.rsplit("::", 1)[1]
        kept = not any(word in literal for word in ("infinity", "BC", "20000", "9999", "0001"))
        own = column.family != "date" or type_ == "date"  # others are an error, says limits.md
        if origin < 0.15 and kept and own:
            return f"later({literal})"
        if origin < 0.25:
            return f"(SELECT {literal})"
        if origin < 0.3 and kept and own:
            return f"coalesce(later({literal}), {literal})"
        if origin < 0.7 and self.parameters is not None:
            self.parameters.append(literal)
            return f"${len(self.parameters)}"
        return literal

    @staticmethod
    def _plain(column: Col) -> str:
        return "text" if column.family in ("varchar", "character") else column.type

    def literal(self, column: Col) -> str:
        """One of the column's type, or of a type that PostgreSQL compares with it."""
        random = self.random
        if self.shown[column.name] and random.random() < 0.6:
            return f"{text_literal(random.choice(self.shown[column.name]))}::{self._plain(column)}"

        def of(values: tuple[str, ...], *types: str) -> str:
            return f"{text_literal(random.choice(values))}::{random.choice(types)}"

        small = tuple(value for value in INTEGERS if abs(int(value)) < 1 << 31)
        match column.family:
            case "text" | "varchar" | "character":
                return of(TEXTS, "varchar", "text") if random.random() < 0.7 else of(("a", "ab", "5", ""), "char(4)")
            case "bigint" | "integer" | "smallint":
                tiny = tuple(value for value in small if abs(int(value)) < 1 << 15)
                mixed = random.random()
                if mixed < 0.4:
                    return of(INTEGERS, "bigint")
                if mixed < 0.7:
                    return of(small, "integer")
                return of(tiny, "smallint") if mixed < 0.8 else of((*INTEGERS, "5.5", "-0.5"), "numeric", "float8")
            case "double precision":
                mixed = random.random()
                if mixed < 0.6:
                    return of(FLOATS, "float8")
                reals = ("0.1", "5.5", "16777217", "-0", "NaN", "-1", "Infinity")
                return of(reals, "real") if mixed < 0.85 else of(small, "integer", "bigint", "numeric")
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
