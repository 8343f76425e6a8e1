"""Flows in: the default definition of the foreign tables. Flows out: that it is the one list, with the policies of
docs/explanation/policies.md. That the migration has the same columns is tests/sql/migration/test_migration.py's.
"""

from collections import Counter

import pytest
from environment.state import CHECKOUT
from neo4j_deals.mapping.defaults import DEAL_VERSIONS, DEALS, DIMENSIONS, EMBEDDING, MEDDIC, TABLES, Definition

BOTH = {"deals": DEALS, "deal_versions": DEAL_VERSIONS}


def by_option(definitions: tuple[Definition, ...], option: str, value: str) -> set[str]:
    return {column.name for column in definitions if column.options.get(option) == value}


def test_there_are_fifteen_dimensions_and_six_meddic_fields() -> None:
    assert len(set(DIMENSIONS)) == len(DIMENSIONS) == 15
    assert len(set(MEDDIC)) == len(MEDDIC) == 6
    assert all(name.startswith("meddic_") for name in MEDDIC)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_dimension_is_named_in_one_source_file_and_in_the_migration(name: str) -> None:
    sources = [
        path for folder in ("fdw", "sql", "extension", "extra") for path in sorted((CHECKOUT / folder).rglob("*"))
    ]
    texts = [path for path in sources if path.suffix in (".py", ".sql", ".control", ".md") and "--" not in path.name]
    naming = [str(path.relative_to(CHECKOUT)) for path in texts if name in path.read_text()]
    assert naming == ["fdw/neo4j_deals/mapping/defaults.py", "sql/migration/deal_sync.sql"]


@pytest.mark.parametrize("table", BOTH)
def test_no_column_and_no_target_is_there_twice(table: str) -> None:
    names = Counter(column.name for column in BOTH[table])
    targets = Counter(target for column in BOTH[table] if (target := column.options.get("target")))
    assert names.most_common(1)[0][1] == 1
    assert targets.most_common(1)[0][1] == 1


@pytest.mark.parametrize("table", BOTH)
def test_a_column_has_a_type_of_the_graph_and_ids_are_text(table: str) -> None:
    types = {column.type for column in BOTH[table]}
    assert types <= {"text", "bigint", "double precision", "timestamp with time zone", "text[]", "jsonb", EMBEDDING}
    assert {column.type for column in BOTH[table] if column.name.endswith("_id")} == {"text"}


def test_a_deal_has_each_dimension_and_each_meddic_field_with_its_confidence_under_its_own_name() -> None:
    columns = {column.name: column for column in DEALS}
    for name in [*MEDDIC, *(f"dim_{dimension}" for dimension in DIMENSIONS)]:
        assert columns[name].type == ("bigint" if name.startswith("dim_") else "text")
        assert columns[f"{name}_confidence"].type == "double precision"
        for column in (columns[name], columns[f"{name}_confidence"]):
            assert column.options == {"target": column.name}


def test_the_policies_are_those_of_the_plan() -> None:
    assert by_option(DEALS, "write", "never") == {"stage", "amount"}
    assert by_option(DEALS, "write", "insert") == {"account_id", "name", "currency", "closed_at"}
    assert by_option(DEALS, "write", "fill") == set()
    assert by_option(DEALS, "default", "USD") == {"currency"}
    assert by_option(DEALS, "empty", "null") == {"name", "opportunity_summary", "evolution_summary"}
    assert {column.name for column in DEALS if "default" in column.options} == {"currency"}


def test_an_embedding_keeps_what_the_row_has_and_everything_else_becomes_null() -> None:
    assert by_option(DEALS, "on_misfit", "keep") == {"embedding", "embedding_current"}
    assert {column.name for column in DEALS if "on_misfit" in column.options} == {"embedding", "embedding_current"}
    assert {column.name for column in DEALS if column.type == EMBEDDING} == {"embedding", "embedding_current"}


def test_what_is_renamed_is_renamed_as_the_rules_say() -> None:
    renamed = {c.name: t for c in DEALS if (t := c.options.get("target")) and t != c.name}
    assert renamed == {
        "opportunity_id": "graph_opportunity_id",
        "name": "opportunity_name",
        "closed_at": "actual_close_date",
        "opportunity_summary": "latest_ai_summary",
        "evolution_summary": "ai_evolution_summary",
        "embedding": "extraction_embedding",
        "embedding_current": "extraction_embedding_current",
        "confidence": "extraction_confidence",
        "version": "extraction_version",
    }
    renamed = {c.name: t for c in DEAL_VERSIONS if (t := c.options.get("target")) and t != c.name}
    assert renamed == {"version_id": "id", "deal_opportunity_id": "opportunity_id", "version": "version_number"}


@pytest.mark.parametrize("table", BOTH)
def test_the_documents_and_the_shares_are_derived_by_the_reader(table: str) -> None:
    derived = {column.name: column.options["derive"] for column in BOTH[table] if "derive" in column.options}
    expected = {
        "meddic_completeness": "meddic_completeness",
        "ontology_scores_json": "ontology_scores",
        "ontology_completeness": "ontology_completeness",
        "element_id": "element_id",
        "conversion_errors": "conversion_errors",
    }
    assert derived == expected | ({"ai_workflow_metadata": "workflow_metadata"} if table == "deals" else {})
    (of,) = (column.options["of"] for column in BOTH[table] if "of" in column.options)
    assert tuple(of.split(",")) == MEDDIC


def test_a_version_has_no_embedding_and_stands_in_for_what_is_absent() -> None:
    assert not [column.name for column in DEAL_VERSIONS if column.type == EMBEDDING]
    stand_ins = {c.name: c.options.get("fallback", c.options.get("default")) for c in DEAL_VERSIONS}
    assert {name: value for name, value in stand_ins.items() if value is not None} == {
        "created_at": "valid_until",
        "valid_from": "created_at",
        "change_summary": "",
        "changed_fields": "[]",
    }


def test_the_interactions_of_a_deal_and_of_its_versions_are_linked() -> None:
    assert by_option(DEALS, "link", "true") == {"source_interaction_id"}
    assert by_option(DEAL_VERSIONS, "link", "true") == {"change_source_interaction_id"}


def test_source_user_id_has_no_column_until_a_team_adds_one() -> None:
    assert "source_user_id" not in {column.name for column in DEALS}


def test_the_tables_are_those_of_the_graph_and_of_the_application() -> None:
    assert [(t.name, t.label, t.kind, t.target) for t in TABLES] == [
        ("deals", "Deal", "deal", "opportunities"),
        ("deal_versions", "DealVersion", "version", "deal_versions"),
    ]
