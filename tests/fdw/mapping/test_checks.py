"""Flows in: a foreign table and a table of the application, as the catalog would have them.
Flows out: each setup error of neo4j_deals.mapping.checks, and that nothing else is one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping import checks
from neo4j_deals.mapping.application import Rule, TargetColumn, TargetTable
from neo4j_deals.mapping.checks import Check, Setup
from neo4j_deals.mapping.model import Column, Source, Table


class Sql:
    """PostgreSQL's quoting, as far as these names need it."""

    def quote_ident(self, name: str) -> str:
        return name if name.isidentifier() and name.islower() else f'"{name}"'

    def quote_literal(self, value: str) -> str:
        return "'" + value.replace("'", "''") + "'"


def column(name: str, target: str | None = None, **facts: Any) -> Column:
    """A text that fills a text, if it fills anything."""
    typed: dict[str, Any] = {"type_name": "text", "type_as": "text"}
    if target is not None:
        typed |= {"staged_as": "text", "staged_name": "text", "due_as": "text", "due_name": "text"}
        typed |= {"target_is_there": True, "target_family": "text"}
    return Column(name, name, target=target, **typed | facts)


def filled(name: str, type_family: str = "text", base_name: str = "text", **facts: Any) -> TargetColumn:
    """A column of the application."""
    return TargetColumn(name, type_family, base_name, facts.pop("base_as", type_family), **facts)


KEY = (column("tenant_id", "tenant_id"), column("opportunity_id", "graph_opportunity_id"))
OPPORTUNITIES = TargetTable(
    "public.opportunities",
    (
        filled("id", "uuid", "uuid", not_null=True),
        filled("tenant_id", "uuid", "uuid", not_null=True),
        filled("graph_opportunity_id", "uuid", "uuid"),
        filled("deal_ref"),
        filled("updated_at", "timestamp with time zone", "timestamptz", not_null=True),
    ),
)
LINKS = TargetTable(
    "public.interaction_links",
    (
        filled("tenant_id", "uuid", "uuid", not_null=True),
        filled("interaction_id", "uuid", "uuid", not_null=True),
        filled("entity_id", "uuid", "uuid", not_null=True),
        filled("entity_type", not_null=True),
        filled("id", "uuid", "uuid", not_null=True),
        filled("created_at", "timestamp with time zone", "timestamptz", not_null=True),
    ),
)


def deals(*columns: Column, key: tuple[Column, ...] = KEY, stamps: str | None = None, kind: str = "deal") -> Table:
    return Table("neo4j.deals", kind, Source("Deal"), (*key, *columns), stamps)


def setup(
    table: Table, target: TargetTable = OPPORTUNITIES, cast_error: Callable[..., str | None] = lambda *_: None
) -> Setup:
    return Setup(table, target, Sql(), cast_error, ["row_number"], 58)


def having(*columns: TargetColumn) -> TargetTable:
    return replace(OPPORTUNITIES, columns=(*OPPORTUNITIES.columns, *columns))


def found(check: Check, what: Setup) -> list[tuple[str, str, str | None, str | None]]:
    return [(error.sqlstate, error.message, error.detail, error.hint) for error in check(what)]


def hints(*columns: TargetColumn, table: Table | None = None) -> list[str | None]:
    """For columns that nothing fills."""
    return [hint for *_, hint in found(checks.columns_are_filled, setup(table or deals(), having(*columns)))]


def test_a_mapping_without_an_error_passes_each_check() -> None:
    right = setup(deals(column("deal_ref", "deal_ref"), column("stage")))
    checks.raise_first(checks.OF_A_TARGET, right)
    checks.raise_first(checks.OF_LINKS, replace(right, target=LINKS))
    checks.check_types(right.table, Sql())
    checks.check_shown(right.table, Sql())


def test_every_check_is_in_one_of_the_lists() -> None:
    made = {
        each
        for each in vars(checks).values()
        if callable(each) and getattr(each, "__annotations__", {}).get("return") == "Errors"
    }
    assert made == {*checks.OF_A_TARGET, *checks.OF_LINKS}
    assert all(check.__doc__ for check in made)


def test_the_first_error_is_raised_and_no_later_check_is_made() -> None:
    def fails(what: Setup) -> checks.Errors:
        yield DealSyncError("42703", "first")
        raise AssertionError("asked for more")

    def must_not_run(what: Setup) -> checks.Errors:
        raise AssertionError("made")

    with pytest.raises(DealSyncError, match="first"):
        checks.raise_first([checks.target_is_a_table, fails, must_not_run], setup(deals()))


@pytest.mark.parametrize(
    ("relkind", "what"), [("v", "a view"), ("m", "a materialized view"), ("f", "a foreign table"), ("S", "not a table")]
)
def test_a_target_is_a_table(relkind: str, what: str) -> None:
    assert found(checks.target_is_a_table, setup(deals(), replace(OPPORTUNITIES, relkind=relkind))) == [
        (
            "42809",
            f"public.opportunities is {what}, but the sync can only write to tables",
            'Option "target" of foreign table neo4j.deals names it.',
            "ALTER FOREIGN TABLE neo4j.deals OPTIONS (SET target 'schema.table');",
        )
    ]
    assert not found(checks.target_is_a_table, setup(deals(), replace(OPPORTUNITIES, relkind="p")))


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_target_has_no_rules_not_even_disabled_ones(is_enabled: bool) -> None:
    target = replace(OPPORTUNITIES, rules=(Rule("log", "4", is_enabled),))
    assert found(checks.target_has_no_rules, setup(deals(), target)) == [
        (
            "0A000",
            'table public.opportunities has rule "log", but MERGE does not support tables with rules',
            None,
            "Replace the rule with a trigger.",
        )
    ]


def test_a_key_has_a_column_for_each_of_its_targets() -> None:
    unwritten = replace(KEY[0], write="never")
    assert found(checks.key_is_written, setup(deals(key=(unwritten,)))) == [
        (
            "42703",
            f'no column of foreign table neo4j.deals has the target "{target}"',
            None,
            hint,
        )
        for target, hint in (
            ("tenant_id", "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN tenant_id OPTIONS (DROP write);"),
            (
                "graph_opportunity_id",
                "The key requires it. To add columns that are missing: SELECT deal_sync.attach();",
            ),
        )
    ]
    of_versions = found(checks.key_is_written, setup(deals(key=(), kind="version")))
    assert [message.rsplit(maxsplit=1)[1] for _, message, *_ in of_versions] == [
        '"tenant_id"',
        '"id"',
        '"opportunity_id"',
        '"version_number"',
    ]


def test_a_target_exists() -> None:
    own = column("ref", "Ref", target_is_there=False, type_as="character varying(3)")
    migrated = column("deal_ref", "deal_ref", target_is_there=False)
    key = column("opportunity_id", "graph_opportunity_id", target_is_there=False)
    drop = "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN {} OPTIONS (DROP target);"
    run = "Run the migration (sql/migration/deal_sync.sql)"
    errors = found(checks.targets_exist, setup(deals(own, migrated, replace(own, write="never"), key=(key,))))
    assert errors[1] == (
        "42703",
        'column "Ref" of table public.opportunities does not exist',
        'It is the target of column "ref" of foreign table neo4j.deals.',
        f'ALTER TABLE public.opportunities ADD COLUMN "Ref" character varying(3); or {drop.format("ref")}',
    )
    assert [hint for *_, hint in (errors[0], *errors[2:])] == [f"{run}.", f"{run}, or {drop.format('deal_ref')}"]


@pytest.mark.parametrize("name", ["row_number", "n" * 59, "ä" * 30])
def test_a_staged_column_has_a_name_of_its_own(name: str) -> None:
    assert found(checks.names_are_free, setup(deals(column(name, "deal_ref")))) == [
        (
            "42701",
            f'a column with a target cannot be named "{name}" in foreign table neo4j.deals',
            "The sync uses this name itself, or it is longer than 58 bytes.",
            f"ALTER FOREIGN TABLE neo4j.deals RENAME COLUMN {Sql().quote_ident(name)} TO ...;"
            f" ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN ... OPTIONS (ADD property '{name}');",
        )
    ]
    assert not found(checks.names_are_free, setup(deals(column(name), column("n" * 58, "deal_ref"))))


def test_a_target_is_not_generated() -> None:
    target = having(filled("shout", is_generated=True, has_default=True))
    assert found(checks.targets_are_not_generated, setup(deals(column("shout", "shout")), target)) == [
        (
            "428C9",
            'cannot write to generated column "shout" of table public.opportunities',
            None,
            "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN shout OPTIONS (DROP target);",
        )
    ]
    assert not found(checks.targets_are_not_generated, setup(deals(column("shout", "shout", write="never")), target))


def test_a_target_is_written_by_one_column() -> None:
    twice = [column("a", "deal_ref"), column("b", "deal_ref")]
    assert found(checks.targets_differ, setup(deals(*twice))) == [
        (
            "42701",
            'several columns of foreign table neo4j.deals have the target "deal_ref"',
            None,
            "Drop the target of one of them, or set its write policy to 'never'.",
        )
    ]
    assert not found(checks.targets_differ, setup(deals(twice[0], replace(twice[1], write="never"))))


def test_a_default_fits_its_target() -> None:
    asked = []

    def cast_error(*what: Any) -> str | None:
        asked.append(what)
        return "invalid value for type integer" if what[1] == "integer" else None

    wrong = column("rank", "rank", default="abc", target_family="integer")
    short = column("currency", "currency", default="DOLLARS", target_family="character varying", target_modifier=7)
    right = replace(short, default="USD")
    unread = [column("a", default="x"), column("b", "b", default="x", target_is_there=False)]
    errors = found(checks.defaults_fit, setup(deals(wrong, short, right, *unread), cast_error=cast_error))
    assert errors == [
        (
            "42804",
            f'option "default" of column "{name}" of foreign table neo4j.deals does not fit its target',
            why,
            f'ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN {name} OPTIONS (SET "default" ...);',
        )
        for name, why in (("rank", "It is an invalid value for type integer."), ("currency", "It is too long."))
    ]
    assert asked == [
        ("abc", "integer", -1),
        ("DOLLARS", "character varying", 7),
        ("USD", "character varying", 7),
    ]


def test_a_fallback_is_a_column_that_is_read() -> None:
    with_fallback = column("created_at", "created_at", fallback="seen_at")
    for others in ([], [column("seen_at")]):
        assert found(checks.fallbacks_exist, setup(deals(with_fallback, *others))) == [
            (
                "42703",
                'column "created_at" of foreign table neo4j.deals has fallback "seen_at", which is not a column that'
                " the sync reads",
                None,
                "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN created_at OPTIONS (SET fallback ...);",
            )
        ]
    assert not found(checks.fallbacks_exist, setup(deals(with_fallback, column("seen_at", "deal_ref"))))


def test_a_stamp_is_a_timestamp() -> None:
    detail, hint = (
        'Option "stamps" of foreign table neo4j.deals names it.',
        "ALTER FOREIGN TABLE neo4j.deals OPTIONS (DROP stamps);",
    )
    table = "of table public.opportunities"
    assert found(checks.stamps_are_times, setup(deals(stamps="changed"))) == [
        ("42703", f'column "changed" {table} does not exist', detail, hint)
    ]
    assert found(checks.stamps_are_times, setup(deals(stamps="deal_ref"))) == [
        ("42804", f'column "deal_ref" {table} is of type text, not a timestamp', detail, hint)
    ]
    assert not found(checks.stamps_are_times, setup(deals(stamps="updated_at")))
    assert not found(checks.stamps_are_times, setup(deals(stamps="changed", kind="version")))


def test_something_fills_each_column_that_requires_a_value() -> None:
    region = filled("region", not_null=True)
    [(sqlstate, message, detail, _)] = found(checks.columns_are_filled, setup(deals(), having(region)))
    assert (sqlstate, detail) == ("23502", None)
    assert message == (
        'column "region" of table public.opportunities is NOT NULL and has no default, and the sync does not write it'
    )
    assert hints(replace(region, has_default=True), replace(region, not_null=False)) == []
    assert hints(region, table=deals(column("region", "region"))) == []


def test_the_hint_for_a_column_that_nothing_fills_maps_it_with_a_value_that_says_nothing() -> None:
    add = "ALTER FOREIGN TABLE neo4j.deals ADD COLUMN x {} OPTIONS (target 'x', write 'insert', \"default\" '{}');"
    cases = [
        ("text", "text", "text", ""),
        ("character(3)", "bpchar", "text", ""),
        ("integer", "int4", "bigint", "0"),
        ("numeric(5,2)", "numeric", "double precision", "0"),
        ("boolean", "bool", "boolean", "false"),
        ("json", "json", "jsonb", "{}"),
    ]
    columns = [filled("x", spelled, name, not_null=True) for spelled, name, *_ in cases]
    columns.append(filled("x", "mood", "mood", not_null=True, first_label="calm"))
    assert hints(*columns) == [
        f"{add.format(type_name, value)} or give the column of the table a default."
        for type_name, value in [*(case[2:] for case in cases), ("text", "calm")]
    ]
    assert hints(filled("owner_id", "uuid", "uuid", not_null=True)) == [
        "Give the column a default, or map it: ALTER FOREIGN TABLE neo4j.deals ADD COLUMN owner_id text"
        " OPTIONS (target 'owner_id', write 'insert'); a node without this property is rejected then."
    ]


def test_the_hint_for_a_column_that_the_mapping_has_already_changes_that() -> None:
    alter = "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN {} OPTIONS ({} write 'insert'{});"
    stage = filled("stage", not_null=True)
    for mapped, hint in (
        (column("phase", "stage", write="never", write_is_given=True), alter.format("phase", "SET", "")),
        (column("stage"), alter.format("stage", "ADD", ", ADD target 'stage'")),
        (column("stage", write_is_given=True), alter.format("stage", "SET", ", ADD target 'stage'")),
    ):
        assert hints(stage, table=deals(mapped)) == [hint]


def test_the_hint_for_a_time_that_nothing_fills_is_a_stamp_or_a_default() -> None:
    def time(name: str, type_name: str = "timestamptz") -> TargetColumn:
        return filled(name, type_name, type_name, not_null=True)

    default = "ALTER TABLE public.opportunities ALTER COLUMN {} SET DEFAULT now();"
    without = replace(OPPORTUNITIES, columns=OPPORTUNITIES.columns[:-1])

    def hint(column: TargetColumn, stamps: str | None = None, kind: str = "deal") -> str | None:
        target = replace(without, columns=(*without.columns, column))
        [(*_, hint)] = found(checks.columns_are_filled, setup(deals(stamps=stamps, kind=kind), target))
        return hint

    assert hint(time("modifiedOn")) == "ALTER FOREIGN TABLE neo4j.deals OPTIONS (ADD stamps 'modifiedOn');"
    assert hint(time("Changed"), "x") == "ALTER FOREIGN TABLE neo4j.deals OPTIONS (SET stamps 'Changed');"
    assert hint(time("made")) == default.format("made")
    assert hint(time("changed", "date")) == default.format("changed")
    assert hint(time("changed"), kind="version") == default.format("changed")
    assert hints(time("changed")) == [default.format("changed")], "updated_at is there"


def test_a_table_of_links_has_no_rule_that_an_insert_meets() -> None:
    rules = (Rule("off", "3", False), Rule("gone", "4", True), Rule("log", "3", True), Rule("change", "2", True))
    assert found(checks.links_have_no_rules, setup(deals(), replace(LINKS, rules=rules))) == [
        (
            "0A000",
            f'table public.interaction_links has rule "{name}", but INSERT ... ON CONFLICT does not support tables with'
            " rules",
            None,
            "Replace the rule with a trigger.",
        )
        for name in ("log", "change")
    ]


def test_a_table_of_links_has_the_columns_of_a_link() -> None:
    number, text = filled("interaction_id", "bigint", "int8"), filled("entity_type", "character(9)", "bpchar")
    target = TargetTable("public.links", (filled("tenant_id", "uuid", "uuid"), number, text))
    hint = (
        "Run the migration (sql/migration), or, if the links are in another table,"
        " ALTER FOREIGN TABLE ... OPTIONS (SET links ...);"
    )
    assert found(checks.links_have_their_columns, setup(deals(), target)) == [
        (
            "42804",
            'column "interaction_id" of table public.links is of type bigint, but the sync writes a uuid',
            None,
            hint,
        ),
        ("42703", 'column "entity_id" of table public.links does not exist', None, hint),
    ]


def test_nothing_else_is_given_to_a_link_than_its_id_and_its_times() -> None:
    added = (filled("weight", "integer", "int4", not_null=True), filled("updated_at", "date", "date", not_null=True))
    target = replace(LINKS, columns=(*LINKS.columns, *added))
    alter = "ALTER TABLE public.interaction_links ALTER COLUMN {} SET DEFAULT ...;"
    assert [hint for *_, hint in found(checks.links_are_filled, setup(deals(), target))] == [
        alter.format("weight"),
        alter.format("updated_at"),
    ]


def typed(foreign: str, target: str, spelled: str, modifier: int = -1, **facts: Any) -> Table:
    """A column that fills one of another type, staged as itself."""
    due = {"staged_as": spelled, "staged_name": target, "due_as": spelled, "due_name": target, "due_modifier": modifier}
    return deals(column("v", "v", type_name=foreign, type_as=foreign, **due | facts), key=())


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        (typed("int8", "uuid", "uuid"), "TYPE text;"),
        (typed("bool", "timestamp", "timestamp without time zone"), "TYPE timestamp with time zone;"),
        (typed("vector", "vector", "vector(3)", 3, type_modifier=4), "TYPE vector(3);"),
        (typed("text", "interval", "interval", staged_name="text", text_of="interval"), "TYPE interval;"),
        (typed("int8", "mood", "mood", staged_name="text", derive="element_id"), None),
        (typed("jsonb", "int4", "integer", derive="ontology_scores"), "OPTIONS (DROP target);"),
    ],
)
def test_a_target_takes_the_type_of_its_column(table: Table, hint: str | None) -> None:
    if hint is None:
        return checks.check_types(table, Sql())
    with pytest.raises(DealSyncError) as raised:
        checks.check_types(table, Sql())
    [wrong] = table.columns
    assert raised.value.sqlstate == "42804"
    assert raised.value.message == (
        f'column "v" of foreign table neo4j.deals is of type {wrong.type_name},'
        f' but its target "v" requires {wrong.due_as}'
    )
    assert raised.value.detail is None
    assert raised.value.hint == f"ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN v {hint}"
    return None


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        (typed("text", "int4", "integer"), None),
        (typed("numeric", "numeric", "numeric(3,2)", 196614), None),
        (typed("numeric", "numeric", "numeric(3,2)", 196614, type_modifier=196614), None),
        (typed("numeric", "numeric", "numeric", type_modifier=196614), "double precision"),
        (typed("int8", "int2", "smallint"), None),
        (typed("int2", "int8", "bigint"), "bigint"),
        (typed("jsonb", "varchar", "character varying(5)", 9), None),
        (typed("timestamptz", "timestamptz", "timestamp with time zone", type_modifier=0), "timestamp with time zone"),
        (typed("varchar", "text", "text", type_modifier=9, derive="element_id"), None),
    ],
)
def test_for_a_merge_by_hand_a_foreign_column_shows_all_that_lands(table: Table, hint: str | None) -> None:
    if hint is None:
        return checks.check_shown(table, Sql())
    with pytest.raises(DealSyncError) as raised:
        checks.check_shown(table, Sql())
    [wrong] = table.columns
    assert raised.value.sqlstate == "42804"
    assert raised.value.message == 'column "v" of foreign table neo4j.deals cannot hold every value that the sync lands'
    assert raised.value.detail == (
        f"It is of type {wrong.type_as}, but the sync converts the graph's value to type {wrong.due_as}, that of its"
        " target, directly."
    )
    assert raised.value.hint == f"ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN v TYPE {hint};"
    return None
