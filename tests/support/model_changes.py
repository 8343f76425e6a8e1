"""Flows in: nothing. Flows out: the small universe of tests/test_model.py: keys, and what properties, rows and rules
may be.
"""

import math
import uuid
from collections.abc import Iterable
from datetime import date, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from neo4j.spatial import WGS84Point
from neo4j.time import Date, DateTime, Duration

from support.model import Gate
from support.model_columns import Vector

# The universe is small, so that keys meet: the tenants share their deals, versions and interactions.

A, B = (uuid.UUID(f"{digit * 8}-aaaa-4aaa-8aaa-{digit * 12}") for digit in "ab")
TENANTS = (A, B)
DEALS = tuple(uuid.UUID(f"dea1dea1-0000-4000-8000-00000000000{n}") for n in range(6))
VERSIONS = tuple(uuid.UUID(f"0e5510e5-0000-4000-8000-00000000000{n}") for n in range(6))
INTERACTIONS = tuple(uuid.UUID(f"1a7e1ac7-0000-4000-8000-00000000000{n}") for n in range(3))
ACCOUNTS = tuple(uuid.UUID(f"acc0acc0-0000-4000-8000-00000000000{n}") for n in range(2))

NOON = DateTime(2026, 3, 1, 12, 0, 0, 123456789, tzinfo=timezone(timedelta(hours=2)))
LATER = DateTime(2026, 3, 2, 23, 30, 0, 0, tzinfo=timezone(timedelta(hours=-5)))
LOCAL = DateTime(2026, 3, 3, 1, 2, 3, 4000)
POINT = WGS84Point((1.0, 2.0))
DURATION = Duration(days=1)


def spellings(key: uuid.UUID) -> list[str]:
    """One uuid as PostgreSQL reads it."""
    return [str(key), str(key).upper(), key.hex, f"{{{key}}}"]


TENANT_SPELLINGS: list[Any] = [str(A), str(A), str(A).upper(), str(A), str(B)]
FOREIGN_SPELLINGS: list[Any] = [A.hex, f"{{{A}}}", str(A).title(), "", "nobody", 17, [str(A)], None]

# What a property may hold; None is an absent one. The first value is the one that shrinking arrives at.

TEXTS = (None, "plain", "", "a\0b", "\N{SNOWMAN} \u2028 \\ ' \" $1", 42, True, ["list"], POINT, DURATION)
LONG_TEXTS = ("x" * 20, "x" * 21, "x" * 20 + "\0", "x" * 50, "x" * 51, "x" * 64, "x" * 65, "x" * 50 + "   ")
FRACTIONS = (None, 0.145, 0.5, 0, 1, 9.994, 9.995, 12.5, -0.004, "n/a", math.nan, math.inf, True, [0.5], DURATION)
WHOLES = (None, 0, 3, 2.0, 2.5, 32768, -32768, 2**31, 2**40, "high", math.nan, True, [1], POINT)
AMOUNTS = (None, 1000, 99.995, 1e15, -1e13, "much", math.nan, -math.inf, [1.0], POINT, True)
LINKED = str(INTERACTIONS[0])
IDS: tuple[Any, ...] = (None, *spellings(INTERACTIONS[0]), str(INTERACTIONS[1]), "no uuid", "", 42, [LINKED])
ACCOUNT_IDS: tuple[Any, ...] = (None, *spellings(ACCOUNTS[0]), str(ACCOUNTS[1]), "acme.com", "", 42, POINT)
DATES = (
    *(None, "2026-03-01", "2026-03-01T23:30:00-05:00", "2026-03-01T00:30:00", "2026-03-01T00:30:00Z", NOON, LATER),
    *(LOCAL, Date(2026, 3, 4), "2026-03-01T12:00:00.123456789Z", "soon", "", "2026-02-30", "12026-01-01"),
    *("9999-12-31T23:30:00-05:00", 42, ["2026-03-01"]),
)
MOMENTS = (*DATES, DURATION)
EMBEDDINGS = (
    *(None, Vector(0.5), Vector(0.1), Vector(1), Vector(0.5, 3), Vector(0.5, 1537), Vector(0.5, 0), Vector(math.nan)),
    *(Vector(1e39), Vector("x"), Vector(True), 0.5, "0.5"),
)


Change = tuple[str, Any]


def offers(names: Iterable[str], values: Iterable[Any]) -> st.SearchStrategy[Change]:
    values = list(values)
    return st.sampled_from([(name, value) for name in names for value in values])


MEDDIC_OFFER = ("meddic_metrics", "meddic_champion")
DIMENSION_OFFER = ("dim_champion_strength", "dim_change_readiness", "dim_not_mapped")
CONFIDENCES = tuple(f"{name}_confidence" for name in (*MEDDIC_OFFER, *DIMENSION_OFFER))


COMMON_CHANGES = (
    offers(("name",), (*TEXTS, "rejected", "suppressed")),
    offers(("stage",), (*TEXTS, "closed_won", "x" * 20, "x" * 21)),
    offers(("opportunity_summary", "evolution_summary", *MEDDIC_OFFER), TEXTS),
    offers(("ontology_version",), (*TEXTS, *LONG_TEXTS)),
    offers(("meddic_completeness", "ontology_completeness", *CONFIDENCES), FRACTIONS),
    offers(DIMENSION_OFFER, WHOLES),
    offers(("dim_champion_strength_evidence", "dim_not_mapped_evidence"), (None, "said so", "a\0b")),
    offers(("amount",), AMOUNTS),
)
DEAL_CHANGES = st.one_of(
    *COMMON_CHANGES,
    offers(("deal_ref", "qualification_status"), (*TEXTS, *LONG_TEXTS)),
    offers(("currency",), (None, "EUR", "", "EURO", "E\0UR", 42, ["EUR"])),
    offers(("account_id",), ACCOUNT_IDS),
    offers(("meddic_paper_process", "meddic_competition"), TEXTS),
    offers(("confidence",), FRACTIONS),
    offers(("version",), WHOLES),
    offers(("source_interaction_id",), IDS),
    offers(("expected_close_date", "closed_at"), DATES),
    offers(("embedding", "embedding_current"), EMBEDDINGS),
    offers(("last_updated_at",), (None, NOON, LATER, LOCAL, "2026-03-01T11:00:00+02:00", "2026-03-04", "soon", 1)),
)
VERSION_CHANGES = st.one_of(
    *COMMON_CHANGES,
    offers(("version",), (*WHOLES, 1, 1, 2, 2)),
    offers(("change_summary",), TEXTS),
    offers(("changed_fields",), (None, ["stage"], [], ["a\0b", ""], "stage", [1], 1)),
    offers(("change_source_interaction_id",), IDS),
    offers(("created_at", "valid_from", "valid_until"), MOMENTS),
)


SERVICE: dict[str, Any] = {
    "name": "Acme",
    "stage": "proposal",
    "amount": 1000.5,
    "currency": "EUR",
    "account_id": str(ACCOUNTS[0]),
    "deal_ref": "deal_0123456789abcdef",
    "qualification_status": "qualified",
    "opportunity_summary": "summary",
    "evolution_summary": "",
    "meddic_metrics": "30 %",
    "meddic_metrics_confidence": 0.85,
    "meddic_economic_buyer": "",
    "meddic_champion": "James",
    "meddic_completeness": 0.33,
    "dim_champion_strength": 2,
    "dim_champion_strength_confidence": 0.855,
    "dim_responsiveness_confidence": 0.4,
    "dim_technical_fit": 0,
    "dim_not_mapped": 3,
    "ontology_completeness": 0.13,
    "ontology_version": "v1",
    "embedding": Vector(0.1),
    "embedding_current": Vector(0.2),
    "confidence": 0.9,
    "version": 2,
    "source_interaction_id": str(INTERACTIONS[0]),
    "forecast_score": 0.7,
    "expected_close_date": "2026-06-30",
    "closed_at": "2026-06-01T22:00:00-05:00",
    "created_at": NOON,
    "last_updated_at": NOON,
}
FORMS: dict[str, dict[str, Any]] = {
    "key": {},
    "skeleton": {"name": "Acme", "stage": "prospecting", "account_id": "acme.com", "amount": 1000, "created_at": NOON},
    "created": SERVICE,
    "updated": SERVICE | {"last_updated_at": "2026-03-02T11:00:00.5+00:00", "amount": 2000, "embedding": Vector(0.3)},
}
VERSION_FORMS: dict[str, dict[str, Any]] = {
    "key": {},
    "skeleton": FORMS["skeleton"] | {"valid_until": LATER, "valid_from": NOON},
    "snapshot": SERVICE
    | {
        "version": 1,
        "change_summary": "stage moved",
        "changed_fields": ["stage", "amount"],
        "change_source_interaction_id": str(INTERACTIONS[1]),
        "valid_from": "2026-03-01T10:00:00.123456Z",
        "created_at": LATER,
        "valid_until": LATER,
    },
}

# An application's rules that come and go. NOT VALID and triggers: rows that stand already are not looked at.


def trigger(name: str, table: str, timing: str, body: str, when: str = "") -> tuple[str, str]:
    create = (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$; "
        f"CREATE {timing} ON {table} {when} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )
    return create, f"DROP FUNCTION {name}() CASCADE"


def gate(table: str, column: str, value: Any, sqlstate: str, statements: tuple[str, str]) -> Gate:
    return Gate(table, column, value, sqlstate, *statements)


GATES = {
    "raises": gate(
        *("opportunities", "opportunity_name", "rejected", "P0"),
        trigger(
            *("gate_raises", "opportunities", "TRIGGER raises BEFORE INSERT OR UPDATE"),
            "IF new.opportunity_name = 'rejected' THEN RAISE 'not this one'; END IF; RETURN new;",
        ),
    ),
    "raises at commit": gate(
        *("opportunities", "meddic_paper_process", "plain", "P0"),
        trigger(
            *("gate_deferred", "opportunities", "CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE"),
            "IF new.meddic_paper_process = 'plain' THEN RAISE 'not this one'; END IF; RETURN NULL;",
            "DEFERRABLE INITIALLY DEFERRED",
        ),
    ),
    "suppresses": gate(
        *("opportunities", "latest_ai_summary", "plain", "09"),
        trigger(
            *("gate_suppresses", "opportunities", "TRIGGER suppresses BEFORE INSERT OR UPDATE"),
            "IF new.latest_ai_summary = 'plain' THEN RETURN NULL; END IF; RETURN new;",
        ),
    ),
    "check": gate(
        *("opportunities", "meddic_champion", "plain", "23"),
        (
            "ALTER TABLE opportunities ADD CONSTRAINT gate_check CHECK (meddic_champion <> 'plain') NOT VALID",
            "ALTER TABLE opportunities DROP CONSTRAINT gate_check",
        ),
    ),
    "version raises": gate(
        *("deal_versions", "name", "rejected", "P0"),
        trigger(
            *("gate_version", "deal_versions", "TRIGGER raises BEFORE INSERT"),
            "IF new.name = 'rejected' THEN RAISE 'not this one'; END IF; RETURN new;",
        ),
    ),
    "version suppresses": gate(
        *("deal_versions", "name", "suppressed", "09"),
        trigger(
            *("gate_version_suppresses", "deal_versions", "TRIGGER suppresses BEFORE INSERT"),
            "IF new.name = 'suppressed' THEN RETURN NULL; END IF; RETURN new;",
        ),
    ),
    "link raises": gate(
        *("interaction_links", "interaction_id", INTERACTIONS[1], "P0"),
        trigger(
            *("gate_link", "interaction_links", "TRIGGER raises BEFORE INSERT"),
            f"IF new.interaction_id = '{INTERACTIONS[1]}' THEN RAISE 'not this one'; END IF; RETURN new;",
        ),
    ),
}

# People's values, by column of opportunities.
EDITS: tuple[tuple[str, Any], ...] = (
    *(("opportunity_name", value) for value in (None, "edited", "rejected")),
    *(("account_id", value) for value in (None, ACCOUNTS[1])),
    *(("currency", value) for value in (None, "CHF")),
    *(("actual_close_date", value) for value in (None, date(2020, 1, 1))),
    *(("stage", value) for value in (None, "won")),
    *(("amount", value) for value in (None, Decimal("7.00"))),
    *(("deal_status", value) for value in (None, "open")),
    *(("meddic_champion", value) for value in (None, "plain", "edited")),
    *(("dim_champion_strength", value) for value in (None, 3)),
    *(("ontology_scores_json", value) for value in (None, {"old": 1})),
    *(("source_user_id", value) for value in (None, "auth0|1")),
    *(("extraction_version", value) for value in (None, 7)),
)
POLICY_COLUMNS = (
    *("name", "stage", "amount", "currency", "account_id", "closed_at", "deal_ref", "meddic_champion", "confidence"),
    *("dim_champion_strength", "embedding", "ontology_scores_json", "ai_workflow_metadata", "opportunity_summary"),
    *("meddic_completeness", "source_interaction_id"),
)
SESSIONS: tuple[dict[str, str], ...] = (
    {},
    {"TimeZone": "Pacific/Auckland", "DateStyle": "SQL, DMY"},
    {"TimeZone": "America/Lima", "extra_float_digits": "-10", "IntervalStyle": "sql_standard"},
)
