"""In: the properties of one node. Out: the columns that are made of several properties: two documents and two shares.

Pure. The rules are those of docs/internals/rules.md for opportunities and versions. The foreign tables, the MERGE by
hand and the sync all use this implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from math import isfinite
from typing import Any

import orjson

from neo4j_deals.mapping.defaults import CONFIDENCE_SUFFIX, DIMENSION_PREFIX
from neo4j_deals.rows.values import MAX_VALUE_BYTES, Misfit, converter, json_scalar, to_text

Properties = Mapping[str, Any]
Tell = Callable[[str, Misfit], None]
"""Called with each property whose value was a misfit."""

_EVIDENCE = "_evidence"

#: The keys of ai_workflow_metadata, and the property that each is filled from.
WORKFLOW_METADATA = {
    "deal_name": "name",
    "stage_assessment": "stage",
    "amount_estimate": "amount",
    "currency": "currency",
    "deal_ref": "deal_ref",
    "expected_close_date": "expected_close_date",
    "closed_at": "closed_at",
}

_integer, _number = converter("int8"), converter("float8")


def dimension_of(property_name: str) -> str | None:
    """The dimension whose score a property holds ("dim_x" → "x"), or None."""
    if not property_name.startswith(DIMENSION_PREFIX) or property_name.endswith((CONFIDENCE_SUFFIX, _EVIDENCE)):
        return None
    return property_name.removeprefix(DIMENSION_PREFIX)


def ontology_scores(properties: Properties, dimensions: Collection[str], tell: Tell) -> str | None:
    """The JSON document of those of `dimensions` that have a score or a confidence; None if there are none.

    For each one, score (an integer), confidence (a number) and evidence (a text), or null.
    """
    scores: dict[str, Any] = {}
    for dimension in dimensions:
        name, its_confidence, its_evidence = _names(dimension)
        score, confidence = properties.get(name), properties.get(its_confidence)
        if score is None and confidence is None:
            continue
        evidence = properties.get(its_evidence)
        # The usual types are checked here, because a call for each value would double the time.
        if type(score) is not int:
            score = _carried(name, score, _integer, tell)
        if type(confidence) is not float or not isfinite(confidence):
            confidence = _carried(its_confidence, confidence, _finite_number, tell)
        if evidence is not None:
            evidence = _carried(its_evidence, evidence, to_text, tell)
        scores[dimension] = {"score": score, "confidence": confidence, "evidence": evidence}
    return orjson.dumps(scores).decode() if scores else None


@cache
def _names(dimension: str) -> tuple[str, str, str]:
    name = DIMENSION_PREFIX + dimension
    return name, name + CONFIDENCE_SUFFIX, name + _EVIDENCE


def _finite_number(value: Any) -> int | float:
    return value if type(value) is int else float(_number(value))


def _carried(name: str, value: Any, convert: Callable[[Any], Any], tell: Tell) -> Any:
    if value is None:
        return None
    try:
        return convert(value)
    except Misfit as misfit:
        tell(name, misfit)
        return misfit.substitute


def ontology_completeness(properties: Properties, dimensions: Collection[str]) -> float | None:
    """The node's own figure, or else the share of `dimensions` that have a score. Raises Misfit."""
    own = properties.get("ontology_completeness")
    if own is not None:
        return float(_number(own))
    return _share((properties.get(DIMENSION_PREFIX + name) for name in dimensions), _is_number, len(dimensions))


def meddic_completeness(properties: Properties, fields: Collection[str]) -> float | None:
    """The node's own figure, or else the share of `fields` that have a text that is not empty. Raises Misfit."""
    own = properties.get("meddic_completeness")
    if own is not None:
        return float(_number(own))
    return _share((properties.get(name) for name in fields), _is_filled, len(fields))


def _share(values: Iterable[Any], counts: Callable[[Any], bool], total: int) -> float | None:
    return sum(map(counts, values)) / total if total else None


def _is_number(value: Any) -> bool:
    try:
        return value is not None and _integer(value) is not None
    except Misfit:
        return False


def _is_filled(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def workflow_metadata(properties: Properties, tell: Tell, limit: int = MAX_VALUE_BYTES) -> str:
    """The JSON document of the eight keys; a value that is not finite or not a scalar becomes null, and is a misfit.

    `limit` is the maximum length of a text in bytes.
    """

    def scalar(value: Any) -> Any:
        return json_scalar(value, limit)

    document = {key: _carried(name, properties.get(name), scalar, tell) for key, name in WORKFLOW_METADATA.items()}
    return orjson.dumps({"source": "deal_graph", **document}).decode()
