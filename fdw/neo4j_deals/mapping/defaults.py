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


@dataclass(frozen=True)
class Definition:
    """A column of a foreign table as attach() creates it: name, PostgreSQL type, column options."""

    name: str
    type: str
    options: Mapping[str, str] = field(default_factory=dict)


def _column(name: str, type_: str, target: str | None = None, **options: str) -> Definition:
    """`target` "=" stands for a column of the same name in the application's table."""
    if target:
        options = {"target": name if target == "=" else target, **options}
    return Definition(name, type_, options)


def _with_confidence(name: str, type_: str) -> list[Definition]:
    return [_column(name, type_, "="), _column(name + CONFIDENCE_SUFFIX, "double precision", "=")]


DEALS: tuple[Definition, ...] = (
    _column("tenant_id", "text", "="),
    _column("opportunity_id", "text", "graph_opportunity_id"),
    _column("name", "text", "opportunity_name", write="insert", empty="null"),
    _column("stage", "text", "=", write="never"),
    _column("amount", "double precision", "=", write="never"),
    _column("currency", "text", "=", write="insert", default="USD"),
    _column("account_id", "text", "=", write="insert"),
    _column("deal_ref", "text", "="),
    _column("qualification_status", "text", "="),
    _column("opportunity_summary", "text", "latest_ai_summary", empty="null"),
    _column("evolution_summary", "text", "ai_evolution_summary", empty="null"),
    *(column for name in MEDDIC for column in _with_confidence(name, "text")),
    _column("meddic_completeness", "double precision", "=", derive="meddic_completeness", of=",".join(MEDDIC)),
    _column("meddic_paper_process", "text", "="),
    _column("meddic_competition", "text", "="),
    *(column for name in DIMENSIONS for column in _with_confidence(DIMENSION_PREFIX + name, "bigint")),
    _column("ontology_scores_json", "jsonb", "=", derive="ontology_scores"),
    _column("ontology_completeness", "double precision", "=", derive="ontology_completeness"),
    _column("ontology_version", "text", "="),
    _column("embedding", EMBEDDING, "extraction_embedding", on_misfit="keep"),
    _column("embedding_current", EMBEDDING, "extraction_embedding_current", on_misfit="keep"),
    _column("confidence", "double precision", "extraction_confidence"),
    _column("version", "bigint", "extraction_version"),
    _column("source_interaction_id", "text", "=", link="true"),
    _column("expected_close_date", "text"),
    _column("closed_at", "text", "actual_close_date", write="insert"),
    _column("ai_workflow_metadata", "jsonb", "=", derive="workflow_metadata"),
    _column("created_at", "timestamp with time zone"),
    _column("last_updated_at", "timestamp with time zone"),
    _column("element_id", "text", derive="element_id"),
    _column("conversion_errors", "jsonb", derive="conversion_errors"),
)

DEAL_VERSIONS: tuple[Definition, ...] = (
    _column("tenant_id", "text", "="),
    _column("version_id", "text", "id"),
    _column("deal_opportunity_id", "text", "opportunity_id"),
    _column("version", "bigint", "version_number"),
    _column("name", "text", "="),
    _column("stage", "text", "="),
    _column("amount", "double precision", "="),
    _column("opportunity_summary", "text", "="),
    _column("evolution_summary", "text", "="),
    *(_column(name, "text", "=") for name in MEDDIC),
    _column("meddic_completeness", "double precision", "=", derive="meddic_completeness", of=",".join(MEDDIC)),
    *(_column(DIMENSION_PREFIX + name, "bigint") for name in DIMENSIONS),
    *(_column(DIMENSION_PREFIX + name + CONFIDENCE_SUFFIX, "double precision") for name in DIMENSIONS),
    _column("ontology_scores_json", "jsonb", "=", derive="ontology_scores"),
    _column("ontology_completeness", "double precision", "=", derive="ontology_completeness"),
    _column("ontology_version", "text", "="),
    _column("change_summary", "text", "=", default=""),
    _column("changed_fields", "text[]", "=", default="[]"),
    _column("change_source_interaction_id", "text", "=", link="true"),
    _column("created_at", "timestamp with time zone", "=", fallback="valid_until"),
    _column("valid_from", "timestamp with time zone", "=", fallback="created_at"),
    _column("valid_until", "timestamp with time zone", "="),
    _column("element_id", "text", derive="element_id"),
    _column("conversion_errors", "jsonb", derive="conversion_errors"),
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
