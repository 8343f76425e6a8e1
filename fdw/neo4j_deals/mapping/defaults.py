"""In: nothing. Out: the default definition of the foreign tables `deals` and `deal_versions`.

The one list of the dimensions and the MEDDIC fields. `deal_sync.attach()` creates the foreign tables from it; from
then on the catalog holds the mapping, and people change it there (ALTER FOREIGN TABLE). The names and types are those
of docs/internals/graph.md, the targets and policies those of docs/internals/rules.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The prefix of the properties that hold the score of a dimension.
DIMENSION_PREFIX = "dim_"
#: Of the property with the confidence of another one.
CONFIDENCE_SUFFIX = "_confidence"

DIMENSIONS = (
    # qualification
    "champion_strength",
    "economic_buyer_access",
    "identified_pain",
    "metrics_business_case",
    "decision_criteria_alignment",
    "decision_process_clarity",
    # competitive
    "competitive_position",
    "incumbent_displacement_risk",
    # commercial
    "pricing_alignment",
    "procurement_legal_progress",
    # engagement
    "responsiveness",
    # timeline
    "close_date_credibility",
    # technical
    "technical_fit",
    "integration_security_risk",
    # organizational
    "change_readiness",
)

MEDDIC = tuple(
    f"meddic_{field}"
    for field in (
        "metrics",
        "economic_buyer",
        "decision_criteria",
        "decision_process",
        "identified_pain",
        "champion",
    )
)

EMBEDDING = "vector(1536)"


#: Of the columns that any foreign table may have.
ELEMENT_ID = "Neo4j's element id of the node; it does not survive a restore of the graph"


@dataclass(frozen=True)
class Definition:
    """A column of a foreign table as attach() creates it: name, PostgreSQL type, comment, column options."""

    name: str
    type: str
    comment: str
    options: Mapping[str, str] = field(default_factory=dict)


def _column(name: str, type_: str, comment: str, target: str | None = None, **options: str) -> Definition:
    """`target` "=" stands for a column of the same name in the application's table."""
    if target:
        options = {"target": name if target == "=" else target, **options}
    return Definition(name, type_, comment, options)


def _with_confidence(name: str, type_: str, comment: str) -> list[Definition]:
    return [
        _column(name, type_, comment, "="),
        _column(name + CONFIDENCE_SUFFIX, "double precision", f"confidence in {name}, from 0 to 1", "="),
    ]


def _words(name: str) -> str:
    """A field's or a dimension's name, as text."""
    return name.replace("_", " ")


def _meddic(name: str) -> list[Definition]:
    return _with_confidence(name, "text", _words(name).replace("meddic", "MEDDIC:"))


def _dimension(name: str) -> list[Definition]:
    comment = f"score of the dimension {_words(name)}, from 0 to 3"
    return _with_confidence(DIMENSION_PREFIX + name, "bigint", comment)


DEALS: tuple[Definition, ...] = (
    _column("tenant_id", "text", "the tenant that the deal belongs to", "="),
    _column("opportunity_id", "text", "the deal's id; unique within the tenant", "graph_opportunity_id"),
    _column("name", "text", "the deal's name", "opportunity_name", write="insert", empty="null"),
    _column("stage", "text", "stage of the sales process, such as proposal or closed_won", "=", write="never"),
    _column("amount", "double precision", "the deal's amount, in its currency", "=", write="never"),
    _column("currency", "text", "currency of the amount", "=", write="insert", default="USD"),
    _column("account_id", "text", "id of the account; not always a UUID", "=", write="insert"),
    _column("deal_ref", "text", "short reference to the deal", "="),
    _column("qualification_status", "text", "how far the deal is qualified", "="),
    _column("opportunity_summary", "text", "summary of the deal, written by AI", "latest_ai_summary", empty="null"),
    _column(
        "evolution_summary",
        "text",
        "summary of how the deal has evolved, written by AI",
        "ai_evolution_summary",
        empty="null",
    ),
    *(column for name in MEDDIC for column in _meddic(name)),
    _column(
        "meddic_completeness",
        "double precision",
        "share of the MEDDIC fields that are filled, from 0 to 1; computed if the node does not have it",
        "=",
        derive="meddic_completeness",
        of=",".join(MEDDIC),
    ),
    _column("meddic_paper_process", "text", "MEDDIC: paper process", "="),
    _column("meddic_competition", "text", "MEDDIC: competition", "="),
    *(column for name in DIMENSIONS for column in _dimension(name)),
    _column(
        "ontology_scores_json",
        "jsonb",
        "score, confidence and evidence of each dimension that has any of them",
        "=",
        derive="ontology_scores",
    ),
    _column(
        "ontology_completeness",
        "double precision",
        "share of the dimensions that have a score; computed if the node does not have it",
        "=",
        derive="ontology_completeness",
    ),
    _column("ontology_version", "text", "version of the ontology that defines the dimensions", "="),
    _column("embedding", EMBEDDING, "embedding of the deal", "extraction_embedding", on_misfit="keep"),
    _column(
        "embedding_current",
        EMBEDDING,
        "embedding of the deal in its current state",
        "extraction_embedding_current",
        on_misfit="keep",
    ),
    _column("confidence", "double precision", "confidence in the extraction, from 0 to 1", "extraction_confidence"),
    _column("version", "bigint", "number of the deal's current version", "extraction_version"),
    _column("source_interaction_id", "text", "the interaction that created the deal", "=", link="true"),
    _column("expected_close_date", "text", "when the deal is expected to close"),
    _column("closed_at", "text", "when the deal was closed", "actual_close_date", write="insert"),
    _column(
        "ai_workflow_metadata",
        "jsonb",
        "the deal's name, stage, amount, currency, reference and dates in one document",
        "=",
        derive="workflow_metadata",
    ),
    _column("created_at", "timestamp with time zone", "when the deal was created"),
    _column("last_updated_at", "timestamp with time zone", "when the deal was last changed; not every deal has it"),
    _column("element_id", "text", ELEMENT_ID, derive="element_id"),
    _column(
        "conversion_errors",
        "jsonb",
        "the misfits of the node, by column: SQLSTATE, message and value",
        derive="conversion_errors",
    ),
)

_OF_A_DEAL = {column.name: column for column in DEALS}


def _copied(name: str, target: str | None = None, **options: str) -> Definition:
    """What a version has of its deal: a copy, or computed as the deal's is."""
    of_deal = _OF_A_DEAL[name]
    computed = {option: value for option, value in of_deal.options.items() if option in ("derive", "of")}
    return _column(name, of_deal.type, of_deal.comment, target, **computed, **options)


DEAL_VERSIONS: tuple[Definition, ...] = (
    _copied("tenant_id", "="),
    _column("version_id", "text", "the version's id; unique within the tenant", "id"),
    _column("deal_opportunity_id", "text", "the id of its deal", "opportunity_id"),
    _column("version", "bigint", "the deal's version number before the change", "version_number"),
    *(_copied(name, "=") for name in ("name", "stage", "amount", "opportunity_summary", "evolution_summary")),
    *(_copied(name, "=") for name in (*MEDDIC, "meddic_completeness")),
    *(_copied(DIMENSION_PREFIX + name) for name in DIMENSIONS),
    *(_copied(DIMENSION_PREFIX + name + CONFIDENCE_SUFFIX) for name in DIMENSIONS),
    *(_copied(name, "=") for name in ("ontology_scores_json", "ontology_completeness", "ontology_version")),
    _column("change_summary", "text", "summary of the change", "=", default=""),
    _column("changed_fields", "text[]", "names of the properties that changed", "=", default="[]"),
    _column("change_source_interaction_id", "text", "the interaction that caused the change", "=", link="true"),
    _column("created_at", "timestamp with time zone", "when the version was created", "=", fallback="valid_until"),
    _column(
        "valid_from",
        "timestamp with time zone",
        "when the deal was created: the periods of a deal's versions overlap",
        "=",
        fallback="created_at",
    ),
    _column("valid_until", "timestamp with time zone", "when the deal was changed", "="),
    _copied("element_id"),
    _copied("conversion_errors"),
)


@dataclass(frozen=True)
class TableDefinition:
    """A foreign table as attach() creates it: its name, its label in the graph, the application's table it fills."""

    name: str
    label: str
    kind: str
    target: str
    columns: tuple[Definition, ...]


TABLES = (
    TableDefinition("deals", "Deal", "deal", "opportunities", DEALS),
    TableDefinition("deal_versions", "DealVersion", "version", "deal_versions", DEAL_VERSIONS),
)
