"""Flows in: a graph as the service writes it. Flows out: what a deal lands as, value by value of
docs/internals/rules.md; what cannot land is tested in test_misfits.py and test_rejects.py.
"""

import json
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from neo4j.time import Date, DateTime
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from support.database import Connection, Database
from support.deals import (
    PEOPLES,
    PIPELINES,
    AddNode,
    alter_mapping,
    full_deal,
    opportunity,
    row,
    rows,
)
from support.graph import Graph
from support.sync import clean, counts, sync

# -- a deal, whole -----------------------------------------------------------------------------------------------------


def test_a_deal_lands_with_every_property_at_its_column(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    properties = full_deal()
    node = deal(name="Acme renewal", stage="negotiation", **properties)

    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (1, 1, 0, 0, 0)
    landed = opportunity(pg, node)
    assert landed.pop("created_at") == landed.pop("updated_at")
    for column in ("extraction_embedding", "extraction_embedding_current"):
        landed[column] = json.loads(landed[column])
    two_places = Decimal("0.01")
    assert landed == {
        "id": node.id,
        "tenant_id": tenant,
        "graph_opportunity_id": node.id,
        "opportunity_name": "Acme renewal",
        "currency": "EUR",
        "account_id": uuid.UUID(properties["account_id"]),
        "actual_close_date": date(2026, 11, 30),  # the day as written
        "deal_ref": "deal_8000000000000001",
        "qualification_status": "qualified",
        "latest_ai_summary": "They renew for three years.",
        "ai_evolution_summary": "Moved from trial to negotiation.",
        **{name: f"what {name} says" for name in MEDDIC},
        **{f"{name}_confidence": Decimal(number + 1) / 10 for number, name in enumerate(MEDDIC)},
        "meddic_completeness": Decimal("0.90"),
        "meddic_paper_process": "legal has the draft",
        "meddic_competition": "one rival",
        **{f"dim_{name}": number % 4 for number, name in enumerate(DIMENSIONS)},
        **{
            f"dim_{name}_confidence": (Decimal(number) / 16).quantize(two_places, "ROUND_HALF_UP")
            for number, name in enumerate(DIMENSIONS)
        },
        "ontology_scores_json": {
            name: {"score": number % 4, "confidence": number / 16, "evidence": None}
            for number, name in enumerate(DIMENSIONS)
        },
        "ontology_completeness": Decimal("0.75"),
        "ontology_version": "2026.1",
        "extraction_embedding": properties["embedding"],
        "extraction_embedding_current": properties["embedding_current"],
        "extraction_confidence": Decimal("0.88"),
        "extraction_version": 3,
        "source_interaction_id": uuid.UUID(properties["source_interaction_id"]),
        "ai_workflow_metadata": {
            "source": "deal_graph",
            "deal_name": "Acme renewal",
            "stage_assessment": "negotiation",
            "amount_estimate": 150000.5,
            "currency": "EUR",
            "deal_ref": "deal_8000000000000001",
            "expected_close_date": "2026-12-01",
            "closed_at": "2026-11-30T23:30:00-05:00",
        },
        "source_user_id": None,
        **dict.fromkeys(PEOPLES),
        **dict.fromkeys(PIPELINES),
    }


def test_what_a_skeleton_lacks_is_null_and_no_stand_in(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(name="Skeleton", stage="prospecting")

    clean(sync(writer, tenant))

    landed = {name: value for name, value in opportunity(pg, node).items() if value is not None}
    del landed["created_at"], landed["updated_at"]
    assert landed == {
        "id": node.id,
        "tenant_id": tenant,
        "graph_opportunity_id": node.id,
        "opportunity_name": "Skeleton",
        "currency": "USD",
        "meddic_completeness": 0,
        "ontology_completeness": 0,
        "ai_workflow_metadata": {
            "source": "deal_graph",
            "deal_name": "Skeleton",
            "stage_assessment": "prospecting",
            "amount_estimate": None,
            "currency": None,
            "deal_ref": None,
            "expected_close_date": None,
            "closed_at": None,
        },
    }


def test_an_absent_property_of_a_not_null_column_takes_the_columns_default_on_insert(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE opportunities ALTER COLUMN extraction_version SET NOT NULL")
    node = deal(version=None)

    clean(sync(writer, tenant))

    assert opportunity(pg, node)["extraction_version"] == 1
    again = sync(writer, tenant)
    assert (again.status, again.deals_unchanged) == ("ok", 1), "what stands in for it stays"


def test_a_stage_outside_the_list_is_a_text_like_any_other(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(stage="a stage that nobody has listed anywhere")

    clean(sync(writer, tenant))

    assert (
        opportunity(pg, node)["ai_workflow_metadata"]["stage_assessment"] == "a stage that nobody has listed anywhere"
    )


# -- dimensions, documents, completeness -------------------------------------------------------------------------------


def test_a_dimension_without_columns_lands_in_the_document(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(dim_novelty=2, dim_novelty_confidence=0.5, dim_gut_feeling_confidence=0.25)
    version(node, dim_novelty=1)

    clean(sync(writer, tenant))

    assert opportunity(pg, node)["ontology_scores_json"] == {
        "novelty": {"score": 2, "confidence": 0.5, "evidence": None},
        "gut_feeling": {"score": None, "confidence": 0.25, "evidence": None},
    }
    assert row(pg, "deal_versions", tenant_id=tenant)["ontology_scores_json"] == {
        "novelty": {"score": 1, "confidence": None, "evidence": None}
    }


def test_a_dimension_is_added_by_alter_alone(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    known = deal(dim_novelty=2, dim_novelty_confidence=0.5)
    sync(writer, tenant)
    assert opportunity(pg, known)["ontology_completeness"] == 0

    pg.execute("ALTER TABLE opportunities ADD COLUMN dim_novelty smallint")
    pg.execute("ALTER TABLE opportunities ADD COLUMN dim_novelty_confidence numeric(3,2)")
    alter_mapping(pg, "ADD COLUMN dim_novelty bigint OPTIONS (target 'dim_novelty')")
    alter_mapping(pg, "ADD COLUMN dim_novelty_confidence double precision OPTIONS (target 'dim_novelty_confidence')")
    new = deal(dim_novelty=3)
    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (2, 1, 1, 0, 0)
    names = ("dim_novelty", "dim_novelty_confidence", "ontology_completeness")
    share = (Decimal(1) / (len(DIMENSIONS) + 1)).quantize(Decimal("0.01"))
    assert [opportunity(pg, known)[name] for name in names] == [2, Decimal("0.50"), share]
    assert [opportunity(pg, new)[name] for name in names] == [3, None, share]
    assert opportunity(pg, known)["ontology_scores_json"] == {
        "novelty": {"score": 2, "confidence": 0.5, "evidence": None}
    }


def test_the_scores_hold_every_dimension_that_has_a_score_or_a_confidence(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    scored, unsure, explained, silent, *_ = DIMENSIONS
    node = deal(
        **{
            f"dim_{scored}": 0,
            f"dim_{unsure}_confidence": 0.145,
            f"dim_{explained}": 3,
            f"dim_{explained}_confidence": 1,
            f"dim_{explained}_evidence": "They said so.",
            f"dim_{silent}_evidence": "evidence alone is no score",
        }
    )
    none = deal()

    clean(sync(writer, tenant))

    assert opportunity(pg, node)["ontology_scores_json"] == {
        scored: {"score": 0, "confidence": None, "evidence": None},
        unsure: {"score": None, "confidence": 0.145, "evidence": None},
        explained: {"score": 3, "confidence": 1, "evidence": "They said so."},
    }
    assert opportunity(pg, none)["ontology_scores_json"] is None


def test_completeness_is_the_nodes_own_figure_or_the_share_that_is_there(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """A confidence is no score, and an empty text is not filled."""
    partly = {
        **{f"dim_{name}": 0 for name in DIMENSIONS[:5]},
        f"dim_{DIMENSIONS[5]}_confidence": 1.0,
        "dim_without_a_column": 3,
        **dict.fromkeys(MEDDIC[:4], "filled"),
        MEDDIC[4]: "",
        f"{MEDDIC[5]}_confidence": 1.0,
    }
    counted = deal(**partly)
    own = deal(**partly, ontology_completeness=0.9, meddic_completeness=1)
    whole = deal(**dict.fromkeys(MEDDIC, "filled"), **{f"dim_{name}": 1 for name in DIMENSIONS})
    for node in (counted, own):
        figures = {"ontology_completeness": 0.9, "meddic_completeness": 1} if node is own else {}
        version(node, **partly, **figures)

    clean(sync(writer, tenant))

    def figures_of(found: dict[str, Any]) -> tuple[Decimal, Decimal]:
        return found["ontology_completeness"], found["meddic_completeness"]

    computed = (Decimal(5) / len(DIMENSIONS)).quantize(Decimal("0.01")), Decimal("0.67")
    assert figures_of(opportunity(pg, counted)) == computed
    assert figures_of(opportunity(pg, own)) == (Decimal("0.90"), Decimal("1.00"))
    assert figures_of(opportunity(pg, whole)) == (Decimal("1.00"), Decimal("1.00"))
    assert figures_of(row(pg, "deal_versions", opportunity_id=counted.id)) == computed
    assert figures_of(row(pg, "deal_versions", opportunity_id=own.id)) == (Decimal("0.90"), Decimal("1.00"))


def test_the_metadata_passes_texts_unchanged_and_temporal_values_as_iso_8601(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    texts = deal(name="", amount=3, expected_close_date="end of Q3, perhaps", closed_at="2026-02-01T10:00:00+0530")
    times = deal(
        amount=0.1,
        expected_close_date=Date(2026, 3, 4),
        closed_at=DateTime(2026, 3, 4, 5, 6, 7, 123456789, tzinfo=timezone(timedelta(hours=2))),
    )

    clean(sync(writer, tenant))

    absent = {"currency": None, "deal_ref": None, "source": "deal_graph", "stage_assessment": "proposal"}
    assert opportunity(pg, texts)["ai_workflow_metadata"] == {
        "deal_name": "",
        "amount_estimate": 3,
        "expected_close_date": "end of Q3, perhaps",
        "closed_at": "2026-02-01T10:00:00+0530",
        **absent,
    }
    assert opportunity(pg, times)["ai_workflow_metadata"] == {
        "deal_name": "Acme",
        "amount_estimate": 0.1,
        "expected_close_date": "2026-03-04",
        "closed_at": "2026-03-04T05:06:07.123456789+02:00",
        **absent,
    }


# -- values ------------------------------------------------------------------------------------------------------------


def test_an_empty_summary_or_name_is_null_and_other_empty_texts_are_texts(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(
        name="", opportunity_summary="", evolution_summary="", deal_ref="", meddic_competition="", account_id=None
    )

    clean(sync(writer, tenant))

    landed = opportunity(pg, node)
    names = ("opportunity_name", "latest_ai_summary", "ai_evolution_summary", "deal_ref", "meddic_competition")
    assert [landed[name] for name in names] == [None, None, None, "", ""]


def test_numbers_go_by_their_shortest_decimal_form(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    expected = {
        0.145: "0.15",  # as a double it is 0.14499999999999999
        0.285: "0.29",
        1.005: "1.01",
        0.995: "1.00",
        0.005: "0.01",
        0.00499: "0.00",
        0.1 + 0.2: "0.30",
        1e-9: "0.00",
        -0.145: "-0.15",
        9.994: "9.99",
        0.07: "0.07",
    }
    deals = {number: deal(confidence=number) for number in expected}
    integer = deal(confidence=1, version=2.0, embedding=[1] * 1536, embedding_current=[1e-50] * 1536)

    clean(sync(writer, tenant))

    landed = {number: str(opportunity(pg, node)["extraction_confidence"]) for number, node in deals.items()}
    assert landed == expected
    assert opportunity(pg, integer)["extraction_confidence"] == 1
    assert opportunity(pg, integer)["extraction_version"] == 2
    assert json.loads(opportunity(pg, integer)["extraction_embedding"]) == [1] * 1536
    assert json.loads(opportunity(pg, integer)["extraction_embedding_current"]) == [0] * 1536


def test_amounts_land_to_the_cent(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    alter_mapping(pg, "ALTER COLUMN amount OPTIONS (SET write 'always')")
    expected = {
        150000: "150000.00",
        150000.005: "150000.01",
        1.115: "1.12",
        9999999999999.99: "9999999999999.99",
        9999999999999: "9999999999999.00",
        1e12: "1000000000000.00",
        -0.5: "-0.50",
    }
    deals = {number: deal(amount=number) for number in expected}

    clean(sync(writer, tenant))

    assert {number: str(opportunity(pg, node)["amount"]) for number, node in deals.items()} == expected


def test_scalars_land_in_their_text_form_in_a_text_column(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    values = {17: "17", 0.1: "0.1", 3.0: "3", True: "true", Date(2026, 1, 2): "2026-01-02"}
    deals = {text: deal(deal_ref=value, meddic_competition=value) for value, text in values.items()}

    clean(sync(writer, tenant))

    for text, node in deals.items():
        assert (opportunity(pg, node)["deal_ref"], opportunity(pg, node)["meddic_competition"]) == (text, text)


CLOSED_AT = {
    "a date": ("2026-02-01", date(2026, 2, 1)),
    "a time in UTC": ("2026-02-01T23:30:00Z", date(2026, 2, 1)),
    "a time without an offset": ("2026-02-01T23:30:00", date(2026, 2, 1)),
    "a time without seconds": ("2026-02-01T23:30", date(2026, 2, 1)),
    "an offset to the west": ("2026-02-01T23:30:00-05:00", date(2026, 2, 1)),
    "an offset to the east": ("2026-02-01T00:30:00+0530", date(2026, 2, 1)),
    "an offset of hours": ("2026-02-01T00:30:00+02", date(2026, 2, 1)),
    "nanoseconds": ("2026-02-01T23:59:59.999999999Z", date(2026, 2, 1)),
    "nanoseconds and an offset": ("2026-02-01T23:59:59.999999999-00:01", date(2026, 2, 1)),
    "a named zone behind": ("2026-02-01T23:30:00-05:00[America/New_York]", date(2026, 2, 1)),
    "a blank instead of T": ("2026-02-01 23:30:00+00:00", date(2026, 2, 1)),
    "the last year": ("9999-12-31", date(9999, 12, 31)),
    "a DATE": (Date(2026, 2, 1), date(2026, 2, 1)),
    "a LOCAL DATETIME": (DateTime(2026, 2, 1, 23, 30), date(2026, 2, 1)),
    "a ZONED DATETIME": (DateTime(2026, 2, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5))), date(2026, 2, 1)),
}


def test_a_date_takes_the_day_as_written_in_every_form(
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, tenant: uuid.UUID
) -> None:
    deals = {form: deal(closed_at=value) for form, (value, _) in CLOSED_AT.items()}
    # Made in the graph: the driver dies (signal 11) on a ZoneInfo that is handed to it.
    named = deal()
    graph.run(
        "MATCH (d) WHERE elementId(d) = $id SET d.closed_at = datetime('2026-02-01T00:30:00[Asia/Kolkata]')",
        id=named.element_id,
    )

    clean(sync(writer, tenant))

    assert opportunity(pg, named)["actual_close_date"] == date(2026, 2, 1), "the day as written, in its own zone"
    landed = {form: opportunity(pg, node)["actual_close_date"] for form, node in deals.items()}
    assert landed == {form: day for form, (_, day) in CLOSED_AT.items()}


def test_times_of_versions_are_floored_to_the_microsecond(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal()
    expected = {
        1: ("2026-01-02T03:04:05.123456999Z", datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)),
        2: ("2026-01-02T03:04:05.9999999+02:00", datetime(2026, 1, 2, 1, 4, 5, 999999, UTC)),
        3: ("1969-12-31T23:59:59.9999999Z", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        4: (DateTime(2026, 1, 2, 3, 4, 5, 123456999), datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)),
        5: (
            DateTime(2026, 1, 2, 3, 4, 5, 999999999, tzinfo=timezone(timedelta(hours=-5))),
            datetime(2026, 1, 2, 8, 4, 5, 999999, UTC),
        ),
        6: ("2026-01-02T03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        7: (Date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),
    }
    for number, (value, _) in expected.items():
        version(node, version=number, created_at=value, valid_from=value, valid_until=value)

    clean(sync(writer, tenant))

    landed = rows(pg, "deal_versions", tenant_id=tenant)
    for name in ("created_at", "valid_from", "valid_until"):
        assert {found["version_number"]: found[name] for found in landed} == {
            number: moment for number, (_, moment) in expected.items()
        }


def test_rows_are_the_same_whatever_the_sessions_settings_are(
    database: Database, pg: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(**full_deal() | {"confidence": 0.145, "closed_at": DateTime(2026, 2, 1, 23, 30)})
    version(node, amount=0.145, created_at="2026-01-02T23:30:00", valid_until=DateTime(2026, 1, 2, 23, 30))
    deal(closed_at="2026-02-01T00:30:00", expected_close_date=DateTime(2026, 2, 1, 0, 30), dim_novelty_confidence=1e-7)

    landed = []
    for settings in (
        {},
        {"TimeZone": "Asia/Kolkata", "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard"},
        {"TimeZone": "America/New_York", "DateStyle": "German", "extra_float_digits": "-15", "bytea_output": "escape"},
        {"TimeZone": "Pacific/Kiritimati", "quote_all_identifiers": "on", "transform_null_equals": "on"},
        {"lc_numeric": "C", "lc_time": "C.UTF-8", "lc_monetary": "C", "array_nulls": "off", "xmloption": "document"},
        {"default_transaction_isolation": "serializable", "standard_conforming_strings": "off"},
    ):
        pg.execute("TRUNCATE opportunities, deal_versions, interaction_links")
        session = database.connect("app_writer")
        for name, value in settings.items():
            session.execute("SELECT set_config(%s, %s, false)", [name, value])
        clean(sync(session, tenant))
        landed.append([rows(pg, table, tenant_id=tenant) for table in ("opportunities", "deal_versions")])
        for found in landed[-1][0]:
            del found["created_at"], found["updated_at"]

    for rows_of_session in landed[1:]:
        assert rows_of_session == landed[0]
