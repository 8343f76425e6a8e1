"""Flows in: columns of a foreign table and records of the driver.
Flows out: what is asked for, and each record as a row of exactly those columns, with every loss by its name.
"""

import json
import math
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neo4j_deals.mapping.defaults import DEAL_VERSIONS, DEALS, DIMENSIONS, MEDDIC, Definition
from neo4j_deals.mapping.model import Column
from neo4j_deals.rows.projection import Projection, as_it_is, ready, to_foreign, to_staged
from neo4j_deals.rows.values import Misfit
from support.properties import neo4j_values

TYPE_NAMES = {
    "text": ("text", -1),
    "bigint": ("int8", -1),
    "double precision": ("float8", -1),
    "timestamp with time zone": ("timestamptz", -1),
    "jsonb": ("jsonb", -1),
    "text[]": ("_text", -1),
    "vector(1536)": ("vector", 1536),
}


def column(definition: Definition) -> Column:
    """A column as the catalog would give it after attach()."""
    name, modifier = TYPE_NAMES[definition.type]
    row = {
        "name": definition.name,
        "options": json.dumps(dict(definition.options)),
        "type_name": name,
        "type_modifier": modifier,
        "required": False,
        "not_null": False,
        "staged_as": None,
        "staged_name": None,
        "staged_modifier": None,
        "due_as": None,
        "due_name": None,
        "due_modifier": None,
        "type_family": "text",
        "type_as": "text",
        "staged_family": "text",
        "target_is_there": True,
        "target_family": "text",
        "target_as": "text",
        "target_modifier": -1,
        "target_default": None,
    }
    return Column.read(row)


DEAL = [column(definition) for definition in DEALS]
VERSION = [column(definition) for definition in DEAL_VERSIONS]


def selected(names: list[str], known: list[Column] = DEAL) -> Projection:
    """The projection of a SELECT of these columns."""
    wanted = [next(column for column in known if column.name == name) for name in names]
    return Projection([(column, to_foreign(column), ready, None) for column in wanted], known)


def record(projection: Projection, unknown: Any = None, **properties: Any) -> tuple[Any, ...]:
    """What the driver returns for a node with these properties."""
    last = (unknown or [],) if projection.wants_scores else ()
    return ("4:element:7", *(properties.get(name) for name in projection.properties), *last)


def row(names: list[str], unknown: Any = None, **properties: Any) -> tuple[dict[str, Any], Any]:
    """A node as a row of these columns, and what was lost: SQLSTATE, reason and value by column."""
    projection = selected(names)
    values, lost = projection.row(record(projection, unknown, **properties))
    return dict(zip([column.name for column in projection.columns], values, strict=True)), {
        name: (misfit.sqlstate, misfit.reason, value) for name, (misfit, value) in lost.items()
    }


# -- what is asked for -------------------------------------------------------------------------------------------------


def test_only_the_properties_of_the_columns_wanted_are_asked_for() -> None:
    assert selected(["name", "version"]).properties == ["name", "version"]
    assert selected(["element_id"]).properties == []
    assert not selected(["name"]).wants_scores


def test_a_renamed_property_is_asked_for_by_its_name_in_the_graph() -> None:
    renamed = Column("title", "name", "text")
    projection = Projection([(renamed, to_foreign(renamed), ready, None)], [renamed])
    assert projection.properties == ["name"]
    assert projection.row(("4:element:7", "Acme")) == (["Acme"], {})


def test_a_derived_column_asks_for_what_it_is_made_of_each_property_once() -> None:
    assert selected(["meddic_completeness"]).properties == ["meddic_completeness", *MEDDIC]
    assert set(selected(["ontology_completeness"]).properties) == {
        "ontology_completeness",
        *(f"dim_{name}" for name in DIMENSIONS),
    }
    metadata = ["name", "stage", "amount", "currency", "deal_ref", "expected_close_date", "closed_at"]
    assert selected(["ai_workflow_metadata", "name"]).properties == ["name", *metadata[1:]]
    scores = selected(["ontology_scores_json"])
    assert scores.wants_scores
    assert set(scores.properties) == {f"dim_{name}{ending}" for name in DIMENSIONS for ending in ("", "_confidence")}
    assert scores.known_dimensions == scores.properties


def test_the_embeddings_of_a_version_are_never_asked_for() -> None:
    everything = selected([column.name for column in VERSION], VERSION)
    assert not [name for name in everything.properties if name.startswith("embedding")]


# -- a row -------------------------------------------------------------------------------------------------------------


@given(names=st.lists(st.sampled_from([column.name for column in DEAL]), min_size=1, unique=True), data=st.data())
@settings(deadline=None, max_examples=50)
def test_a_row_has_the_columns_wanted_in_their_order_and_each_loss_by_the_name_of_one(
    names: list[str], data: st.DataObject
) -> None:
    projection = selected(names)
    some = data.draw(st.lists(st.sampled_from([*projection.properties, "not asked for"]), max_size=6))
    properties = {name: data.draw(neo4j_values()) for name in some}
    unknown = data.draw(st.lists(st.tuples(st.sampled_from(["dim_new", "dim_x_evidence"]), neo4j_values()).map(list)))
    values, lost = projection.row(record(projection, unknown, **properties))
    assert len(values) == len(names)
    assert set(lost) <= set(names)
    assert {column.name for column in projection.columns} == set(names)
    for name, value in zip([column.name for column in projection.columns], values, strict=True):
        if name in lost:
            assert value == lost[name][0].substitute or name in ("ai_workflow_metadata", "ontology_scores_json")
        elif properties.get(name) is None and name in properties:
            assert value is None or name.endswith("_completeness")


def test_absent_is_null_and_nothing_is_lost() -> None:
    plain = [column.name for column in DEAL if not column.derive]
    assert row(plain) == (dict.fromkeys(plain), {})


@pytest.mark.parametrize("empty", ["", "\0"])
def test_an_empty_name_or_summary_is_staged_as_null_and_another_empty_text_is_not(empty: str) -> None:
    names = ["name", "opportunity_summary", "evolution_summary", "deal_ref"]
    wanted = [replace(column, staged_as="text", staged_name="text") for column in DEAL if column.name in names]
    projection = Projection([(column, to_staged(column), ready, None) for column in wanted], DEAL)
    values, lost = projection.row(record(projection, **dict.fromkeys(names, empty)))
    assert {column.name: value for column, value in zip(wanted, values, strict=True)} == {
        "name": None,
        "opportunity_summary": None,
        "evolution_summary": None,
        "deal_ref": "",
    }
    assert set(lost) == (set(names) if empty else set())


def test_a_select_shows_an_empty_text_as_the_graph_has_it() -> None:
    assert row(["name"], name="") == ({"name": ""}, {})


def test_a_bad_value_is_null_and_lost_and_its_neighbours_land() -> None:
    values, lost = row(["version", "confidence", "name"], version="two", confidence=0.5, name="Acme")
    assert values == {"version": None, "confidence": 0.5, "name": "Acme"}
    assert lost == {"version": ("2200G", "expected a number, found a STRING", "two")}


def test_a_text_lands_without_its_nul_character_and_the_whole_value_is_reported() -> None:
    values, lost = row(["deal_ref"], deal_ref="a\0b")
    assert values == {"deal_ref": "ab"}
    assert lost["deal_ref"][2] == "a\0b"


def test_a_value_is_finished_after_its_conversion_and_null_is_not() -> None:
    name = next(column for column in DEAL if column.name == "version")
    projection = Projection([(name, to_foreign(name), repr, None)], DEAL)
    assert projection.row(("4:element:7", 3)) == (["3"], {})
    assert projection.row(("4:element:7", None)) == ([None], {})


# -- derived columns ---------------------------------------------------------------------------------------------------


def test_the_element_id_and_the_shares_are_made_from_the_record() -> None:
    properties = {f"dim_{name}": 1 for name in DIMENSIONS[:3]} | {MEDDIC[0]: "x"}
    values, lost = row(["element_id", "ontology_completeness", "meddic_completeness"], **properties)
    assert values == {"element_id": "4:element:7", "ontology_completeness": 3 / 15, "meddic_completeness": 1 / 6}
    assert lost == {}


@pytest.mark.parametrize("share", ["ontology_completeness", "meddic_completeness"])
def test_a_share_that_is_no_number_is_lost_under_its_own_name(share: str) -> None:
    values, lost = row([share], **{share: math.nan})
    assert values == {share: None}
    assert lost[share][0] == "22003"
    assert math.isnan(lost[share][2])


@pytest.mark.parametrize("share", ["ontology_completeness", "meddic_completeness"])
def test_a_share_that_its_target_cannot_hold_is_lost_and_the_deal_lands(share: str) -> None:
    def to_target(value: float) -> float:
        raise Misfit("22003", "out of range for type numeric(3,2)")

    derived = next(column for column in DEAL if column.name == share)
    name = next(column for column in DEAL if column.name == "name")
    projection = Projection([(derived, to_target, ready, None), (name, to_foreign(name), ready, None)], DEAL)
    values, lost = projection.row(record(projection, name="Acme", **{share: 1000.0}))
    assert values == ["Acme", None], "derived columns come last"
    assert [(misfit.sqlstate, value) for misfit, value in lost.values()] == [("22003", 1000.0)]


def test_a_dimension_without_a_column_lands_in_the_document() -> None:
    values, lost = row(
        ["ontology_scores_json"], [["dim_new", 3], ["dim_other_confidence", 0.5], ["dim_third_evidence", "x"]]
    )
    assert json.loads(values["ontology_scores_json"]) == {
        "new": {"score": 3, "confidence": None, "evidence": None},
        "other": {"score": None, "confidence": 0.5, "evidence": None},
    }
    assert lost == {}


def test_a_bad_dimension_is_one_loss_at_its_own_column_and_none_at_the_document() -> None:
    name = f"dim_{DIMENSIONS[0]}"
    values, lost = row([name, "ontology_scores_json"], [["dim_new", "three"]], **{name: "two"})
    assert values[name] is None
    assert set(lost) == {name, "ontology_scores_json"}  # the new one has no column of its own
    assert "dim_new" in lost["ontology_scores_json"][1]
    assert name not in lost["ontology_scores_json"][1]


def test_the_parts_of_the_metadata_that_are_lost_are_named_in_one_loss() -> None:
    values, lost = row(["ai_workflow_metadata"], amount=math.nan, stage=["a"], name="Acme")
    assert json.loads(values["ai_workflow_metadata"])["deal_name"] == "Acme"
    assert set(lost) == {"ai_workflow_metadata"}
    assert "amount" in lost["ai_workflow_metadata"][1]
    assert "stage" in lost["ai_workflow_metadata"][1]


def test_conversion_errors_say_what_was_lost_wherever_the_column_is() -> None:
    for names in (["conversion_errors", "version", "deal_ref"], ["version", "deal_ref", "conversion_errors"]):
        values, _ = row(names, version="two", deal_ref="a\0b")
        errors = orjson.loads(values["conversion_errors"])
        assert errors["version"] == {
            "sqlstate": "2200G",
            "message": "expected a number, found a STRING",
            "value": "two",
            "landed": False,
        }
        assert errors["deal_ref"]["landed"]
        assert errors["deal_ref"]["value"] == "a\ufffdb"


def test_conversion_errors_are_null_where_nothing_was_lost() -> None:
    assert row(["conversion_errors", "version"], version=2) == ({"conversion_errors": None, "version": 2}, {})


def test_a_document_longer_than_jsonb_takes_is_lost_and_its_neighbours_land(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo4j_deals.rows.projection._MAX_JSON", 1000)
    values, lost = row(["ai_workflow_metadata", "name"], name="x" * 2000)
    assert values == {"ai_workflow_metadata": None, "name": "x" * 2000}
    assert lost["ai_workflow_metadata"][0] == "54000"


def test_a_dimension_of_which_only_the_confidence_is_mapped_is_in_the_document() -> None:
    known = [*DEAL, Column("dim_zz_confidence", "dim_zz_confidence", "float8", target="zz")]
    scores = next(at for at in known if at.derive == "ontology_scores")
    projection = Projection([(scores, to_foreign(scores), ready, None)], known)
    values, lost = projection.row(record(projection, dim_zz_confidence=0.5))
    assert json.loads(values[0])["zz"] == {"score": None, "confidence": 0.5, "evidence": None}
    assert lost == {}


def test_a_score_that_its_own_column_takes_and_the_document_does_not_is_lost_from_the_document() -> None:
    half = Column("dim_half", "dim_half", "float8", target="half")
    known = [*DEAL, half]
    scores = next(at for at in known if at.derive == "ontology_scores")
    projection = Projection([(c, to_foreign(c), ready, None) for c in (half, scores)], known)
    values, lost = projection.row(record(projection, dim_half=2.5))
    assert values[0] == 2.5
    assert json.loads(values[1])["half"]["score"] is None
    misfit, value = lost[scores.name]
    assert (value, misfit.substitute is not None) == (2.5, True), "the rest of the document lands"


# -- values that a column shows as they are ----------------------------------------------------------------------------


_ODD = [
    "",
    "a\0b",
    "\ud800",
    "é",
    "x" * 50,
    0,
    2**63 - 1,
    True,
    1.5,
    -0.0,
    1.7e308,
    math.nan,
    math.inf,
    -math.inf,
    None,
]


@given(nodes=st.lists(st.lists(st.sampled_from(_ODD) | neo4j_values(), min_size=8, max_size=8), max_size=12))
def test_values_looked_at_together_are_the_row_that_each_makes_alone(nodes: list[list[Any]]) -> None:
    names = ["tenant_id", "name", "stage", "amount", "confidence", "version", "dim_responsiveness", "created_at"]
    wanted = [next(column for column in DEAL if column.name == name) for name in names]
    alone = Projection([(c, to_foreign(c), ready, None) for c in wanted], DEAL)
    together = Projection([(c, to_foreign(c), ready, as_it_is(c)) for c in wanted], DEAL)
    for values in nodes:
        found = [p.row(record(p, **dict(zip(names, values, strict=True)))) for p in (alone, together)]
        one, other = [
            (repr(row), {name: (m.sqlstate, m.reason, repr(m.substitute), repr(v)) for name, (m, v) in lost.items()})
            for row, lost in found
        ]
        assert one == other


def test_of_forms_beyond_those_that_are_planned_each_value_is_looked_at() -> None:
    names = [c.name for c in DEAL if c.type_name in ("text", "int8", "float8") and not c.derive][:12]
    wanted = [next(c for c in DEAL if c.name == name) for name in names]
    projection = Projection([(c, to_foreign(c), ready, as_it_is(c)) for c in wanted], DEAL)
    due = {"text": "a", "int8": 1, "float8": 0.5}
    for form in range(600):  # more than there is room for, each with its own columns absent
        values = [due[c.type_name] if form >> at & 1 else None for at, c in enumerate(wanted)]
        assert projection.row(("4:element:7", *values)) == (values, {})
