"""In: the properties of a node. Out: the two documents and the two shares, by the rules of docs/internals/rules.md."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neo4j import spatial
from neo4j import time as neo4j_time
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from neo4j_deals.rows.derived import (
    WORKFLOW_METADATA,
    dimension_of,
    meddic_completeness,
    ontology_completeness,
    ontology_scores,
    workflow_metadata,
)
from neo4j_deals.rows.values import Misfit
from support.properties import finite_floats, integers, neo4j_values

ONE, TWO = DIMENSIONS[:2]


class Losses(dict[str, str]):
    """What was lost: property and SQLSTATE."""

    def __call__(self, name: str, misfit: Misfit) -> None:
        self[name] = misfit.sqlstate


def scores(properties: dict[str, Any], dimensions: tuple[str, ...] = DIMENSIONS) -> tuple[Any, Losses]:
    losses = Losses()
    document = ontology_scores(properties, dimensions, losses)
    return (None if document is None else json.loads(document)), losses


def metadata(properties: dict[str, Any]) -> tuple[Any, Losses]:
    losses = Losses()
    return json.loads(workflow_metadata(properties, losses)), losses


# -- ontology_scores_json ----------------------------------------------------------------------------------------------


@given(
    found=st.dictionaries(
        st.sampled_from(DIMENSIONS),
        st.tuples(st.none() | integers(), st.none() | finite_floats() | integers(), st.none() | st.text(max_size=9)),
    )
)
@settings(deadline=None)
def test_every_dimension_with_a_score_or_a_confidence_is_in_the_document_and_no_other(
    found: dict[str, tuple[int | None, float | None, str | None]],
) -> None:
    properties = {"name": "Acme", "dim_unasked": 1}
    for dimension, (score, confidence, evidence) in found.items():
        parts = {"": score, "_confidence": confidence, "_evidence": evidence}
        properties |= {f"dim_{dimension}{ending}": part for ending, part in parts.items() if part is not None}
    expected = {
        dimension: {"score": score, "confidence": confidence, "evidence": evidence and evidence.replace("\0", "")}
        for dimension, (score, confidence, evidence) in found.items()
        if score is not None or confidence is not None
    }
    document, losses = scores(properties)
    assert document == (expected or None)
    assert set(losses.values()) <= {"22021"}  # a NUL character of an evidence


@pytest.mark.parametrize(
    ("score", "confidence", "evidence", "expected", "losses"),
    [
        (2, 0.5, None, (2, 0.5, None), {}),
        (0, None, None, (0, None, None), {}),
        (None, 0.25, None, (None, 0.25, None), {}),
        (2.0, 1, "said so", (2, 1, "said so"), {}),
        (2.5, 0.5, None, (None, 0.5, None), {"": "22P02"}),
        ("high", 0.5, None, (None, 0.5, None), {"": "2200G"}),
        (True, 0.5, None, (None, 0.5, None), {"": "2200G"}),
        (1, math.nan, None, (1, None, None), {"_confidence": "22003"}),
        (1, math.inf, None, (1, None, None), {"_confidence": "22003"}),
        (1, "0.5", None, (1, None, None), {"_confidence": "2200G"}),
        (1, 0.5, ["a"], (1, 0.5, None), {"_evidence": "2200G"}),
        (1, 0.5, "a\0b", (1, 0.5, "ab"), {"_evidence": "22021"}),
        ([1], {"a": 1}, None, (None, None, None), {"": "2200G", "_confidence": "2200G"}),
    ],
)
def test_a_part_that_does_not_fit_is_null_and_lost_under_its_own_name(
    score: Any, confidence: Any, evidence: Any, expected: tuple[Any, ...], losses: dict[str, str]
) -> None:
    parts = {f"dim_{ONE}": score, f"dim_{ONE}_confidence": confidence, f"dim_{ONE}_evidence": evidence}
    document, lost = scores({name: value for name, value in parts.items() if value is not None})
    assert document == {ONE: dict(zip(("score", "confidence", "evidence"), expected, strict=True))}
    assert lost == {f"dim_{ONE}{ending}": sqlstate for ending, sqlstate in losses.items()}


def test_an_evidence_alone_makes_no_entry_and_no_entry_makes_no_document() -> None:
    assert scores({f"dim_{ONE}_evidence": "said so"}) == (None, {})
    assert scores({}) == (None, {})


def test_a_dimension_without_a_column_is_in_the_document_when_it_is_asked_for() -> None:
    document, _ = scores({"dim_new": 3, f"dim_{ONE}": 1}, (ONE, "new"))
    assert document == {
        ONE: {"score": 1, "confidence": None, "evidence": None},
        "new": {"score": 3, "confidence": None, "evidence": None},
    }


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        (f"dim_{ONE}", ONE),
        (f"dim_{ONE}_confidence", None),
        (f"dim_{ONE}_evidence", None),
        ("dimension", None),
        ("name", None),
        ("DIM_x", None),
    ],
)
def test_a_dimension_is_what_follows_the_prefix_of_a_score(name: str, dimension: str | None) -> None:
    assert dimension_of(name) == dimension


# -- the two shares ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [ontology_completeness, meddic_completeness])
def test_the_nodes_own_figure_comes_first(share: Any) -> None:
    properties = {share.__name__: 0.25, **{f"dim_{name}": 1 for name in DIMENSIONS}, **dict.fromkeys(MEDDIC, "x")}
    assert share(properties, DIMENSIONS if share is ontology_completeness else MEDDIC) == 0.25
    assert share({share.__name__: 1}, ["a"]) == 1.0
    assert share({share.__name__: 0.0}, ["a"]) == 0.0


@pytest.mark.parametrize("share", [ontology_completeness, meddic_completeness])
@pytest.mark.parametrize(
    ("own", "sqlstate"), [(math.nan, "22003"), ("0.5", "2200G"), ([0.5], "2200G"), (True, "2200G")]
)
def test_a_figure_of_the_node_that_is_no_number_is_rejected(share: Any, own: Any, sqlstate: str) -> None:
    with pytest.raises(Misfit) as caught:
        share({share.__name__: own, f"dim_{ONE}": 1, MEDDIC[0]: "x"}, [ONE, MEDDIC[0]])
    assert caught.value.sqlstate == sqlstate


@given(scored=st.sets(st.sampled_from(DIMENSIONS)))
def test_an_absent_ontology_completeness_is_the_share_of_the_mapped_dimensions_that_are_scored(
    scored: set[str],
) -> None:
    properties: dict[str, Any] = {f"dim_{name}": 0 for name in scored}
    properties |= {f"dim_{name}_confidence": 0.5 for name in DIMENSIONS}
    properties |= {"dim_unmapped": 3}
    assert ontology_completeness(properties, DIMENSIONS) == len(scored) / 15


@pytest.mark.parametrize("score", ["high", 1.5, math.nan, [1], True])
def test_a_score_that_does_not_fit_is_none(score: Any) -> None:
    assert ontology_completeness({f"dim_{ONE}": score, f"dim_{TWO}": 2}, (ONE, TWO)) == 0.5


def test_where_no_dimension_is_mapped_there_is_no_share() -> None:
    assert ontology_completeness({}, ()) is None


@given(filled=st.sets(st.sampled_from(MEDDIC)))
def test_an_absent_meddic_completeness_is_the_share_of_the_six_that_are_filled(filled: set[str]) -> None:
    properties: dict[str, Any] = {name: "x" if name in filled else "" for name in MEDDIC}
    properties |= {f"{name}_confidence": 0.5 for name in MEDDIC} | {"meddic_competition": "x"}
    assert meddic_completeness(properties, MEDDIC) == len(filled) / 6


def test_filled_means_a_text_that_is_not_empty() -> None:
    assert meddic_completeness({"a": " ", "b": "", "c": 1, "d": ["x"]}, "abcd") == 0.25


# -- ai_workflow_metadata ----------------------------------------------------------------------------------------------


def test_all_eight_keys_are_there_always() -> None:
    keys = {"source", "deal_name", "stage_assessment", "amount_estimate", "currency", "deal_ref"}
    keys |= {"expected_close_date", "closed_at"}
    document, losses = metadata({})
    assert document == {**dict.fromkeys(keys), "source": "deal_graph"}
    assert losses == {}


def test_texts_pass_unchanged_dates_too_and_a_stage_outside_the_list_is_no_error() -> None:
    properties = {
        "name": "",
        "stage": "daydreaming",
        "amount": 150000,
        "currency": "EUR",
        "deal_ref": "deal_8000000000000001",
        "expected_close_date": "sometime in May",
        "closed_at": "2026-11-30T23:30:00-05:00",
    }
    document, losses = metadata(properties)
    assert document == {
        "source": "deal_graph",
        "deal_name": "",
        "stage_assessment": "daydreaming",
        "amount_estimate": 150000,
        "currency": "EUR",
        "deal_ref": "deal_8000000000000001",
        "expected_close_date": "sometime in May",
        "closed_at": "2026-11-30T23:30:00-05:00",
    }
    assert losses == {}


def test_temporal_values_are_iso_8601() -> None:
    document, losses = metadata(
        {"expected_close_date": neo4j_time.Date(2026, 5, 1), "closed_at": neo4j_time.DateTime(2026, 5, 1, 12)}
    )
    assert document["expected_close_date"] == "2026-05-01"
    assert document["closed_at"] == "2026-05-01T12:00:00.000000000"
    assert losses == {}


@pytest.mark.parametrize(
    ("value", "sqlstate"),
    [
        (math.nan, "22003"),
        (-math.inf, "22003"),
        ([1.0], "2200G"),
        ({"a": 1}, "2200G"),
        (spatial.CartesianPoint((1, 2)), "2200G"),
        (neo4j_time.Duration(days=1), "2200G"),
        (b"bytes", "2200G"),
    ],
)
def test_what_is_not_finite_or_no_scalar_is_null_and_lost(value: Any, sqlstate: str) -> None:
    document, losses = metadata({"amount": value, "name": "Acme"})
    assert document["amount_estimate"] is None
    assert document["deal_name"] == "Acme"
    assert losses == {"amount": sqlstate}


# -- whatever comes ----------------------------------------------------------------------------------------------------


@given(values=st.lists(neo4j_values(), min_size=7, max_size=7))
@settings(deadline=None)
def test_both_documents_are_valid_json_whatever_the_node_holds(values: list[Any]) -> None:
    losses = Losses()
    document = orjson.loads(workflow_metadata(dict(zip(WORKFLOW_METADATA.values(), values, strict=True)), losses))
    assert set(document) == {"source", *WORKFLOW_METADATA}
    names = [f"dim_{name}{ending}" for name in (ONE, TWO) for ending in ("", "_confidence", "_evidence")]
    of_scores = orjson.loads(ontology_scores(dict(zip(names, values, strict=False)), DIMENSIONS, losses) or "null")
    for entry in of_scores.values():
        assert type(entry["score"]) in (int, type(None))
        assert type(entry["confidence"]) in (int, float, type(None))
        assert type(entry["evidence"]) in (str, type(None))
