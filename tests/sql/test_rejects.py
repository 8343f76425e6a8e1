"""Flows in: deals, versions and links that cannot land at all.
Flows out: a reject of each, for as long as it is true.
"""

import uuid
from typing import Any

import pytest
from neo4j_deals.mapping.defaults import MEDDIC
from support.database import Connection
from support.deals import AddNode, alter_mapping, insert, opportunity, row, rows
from support.misfits import BAD_VERSIONS, DURATION, NAN, POINT, BadVersion, healed, rejected
from support.sync import add_tenant, one, rejects, sync

# -- a row that cannot land at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "sqlstate", "says", "shown"),
    [
        ("deal-17", "22P02", "not a UUID", "deal-17"),
        ("", "22P02", "not a UUID", ""),
        (None, "23502", 'no property "opportunity_id"', None),
        (17, "2200G", "expected a UUID, found an INTEGER", "17"),
        (["a"], "2200G", "expected a UUID, found a LIST", "['a']"),
        (POINT, "2200G", "expected a UUID, found a POINT", "point({"),
    ],
    ids=["not a UUID", "empty", "missing", "a number", "a list", "a point"],
)
def test_a_deal_whose_key_is_no_uuid_is_rejected_and_the_others_land(
    key: Any,
    sqlstate: str,
    says: str,
    shown: str | None,
    pg: Connection,
    writer: Connection,
    deal: AddNode,
    tenant: uuid.UUID,
) -> None:
    good, bad = deal(), deal(opportunity_id=key, confidence="high")

    run = sync(writer, tenant)

    rejected(run, 1, 0)  # not the confidence beside it: nothing of the deal landed
    assert (run.deals_read, run.deals_inserted) == (2, 1)
    assert [found["id"] for found in rows(pg, "opportunities", tenant_id=tenant)] == [good.id]
    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.column_name) == ("deal", "row", "opportunity_id")
    assert reject.sqlstate == sqlstate
    assert says in reject.message
    assert (reject.value is None) == (shown is None)
    assert shown is None or shown in (reject.value or "")
    assert (reject.graph_id is None) == (key is None)
    # The only name of a node without a key.
    assert one(pg, "SELECT element_id FROM deal_sync.rejects") == bad.element_id

    id = uuid.uuid4()
    bad.set(opportunity_id=str(id), confidence=None)
    healed(sync(writer, tenant), pg, tenant)
    assert row(pg, "opportunities", id=id)


@pytest.mark.parametrize("bad", BAD_VERSIONS, ids=lambda bad: bad.name)
def test_a_version_that_cannot_land_is_rejected_and_the_others_land(
    bad: BadVersion, pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal()
    good = version(node, version=7)
    rejected_one = version(node, **{"version": 8} | bad.properties)

    run = sync(writer, tenant)

    rejected(run, 1, 0)
    assert (run.deals_inserted, run.versions_inserted) == (1, 1)
    assert [found["id"] for found in rows(pg, "deal_versions", tenant_id=tenant)] == [good.id]
    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.graph_id) == ("version", "row", rejected_one.key)
    assert (reject.column_name, reject.sqlstate, reject.value) == (bad.column, bad.sqlstate, bad.value)
    assert bad.says in reject.message

    rejected_one.set(
        version_id=str(uuid.uuid4()),
        deal_opportunity_id=node.key,
        version=8,
        name="",
        stage="",
        created_at="2026-01-01T00:00:00Z",
        valid_from=None,
    )
    run = sync(writer, tenant)
    healed(run, pg, tenant)
    assert run.versions_inserted == 1


def test_a_version_without_an_id_is_rejected_by_its_element_id(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = version(deal(), version_id=None)

    rejected(sync(writer, tenant), 1, 0)

    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.column_name, reject.graph_id) == ("version", "row", "version_id", None)
    assert (reject.sqlstate, reject.value) == ("23502", None)
    assert one(pg, "SELECT element_id FROM deal_sync.rejects") == node.element_id


@pytest.mark.parametrize(
    ("property", "value", "column", "sqlstate", "lands"),
    [
        ("amount", NAN, "amount", "22003", None),
        ("amount", 1e13, "amount", "22003", None),
        ("amount", "a lot", "amount", "2200G", None),
        ("ontology_version", "v" * 65, "ontology_version", "22001", None),
        ("ontology_completeness", 1000, "ontology_completeness", "22003", None),
        ("change_source_interaction_id", "mail-17", "change_source_interaction_id", "22P02", None),
        ("valid_until", "later", "valid_until", "22007", None),
        ("change_summary", POINT, "change_summary", "2200G", None),
        ("change_summary", "a\0b", "change_summary", "22021", "ab"),
        ("name", "a\0b", "name", "22021", "ab"),
        ("changed_fields", "stage", "changed_fields", "2200G", None),
        ("changed_fields", [1, 2], "changed_fields", "2200G", None),
        ("changed_fields", ["a\0b", "c"], "changed_fields", "22021", ["ab", "c"]),
        (MEDDIC[0], DURATION, MEDDIC[0], "2200G", None),
    ],
)
def test_a_version_lands_without_the_value_that_does_not_fit(
    property: str,
    value: Any,
    column: str,
    sqlstate: str,
    lands: Any,
    pg: Connection,
    writer: Connection,
    deal: AddNode,
    version: AddNode,
    tenant: uuid.UUID,
) -> None:
    """NULL and not the stand-in, which is for an absent property."""
    node = version(deal(), **{property: value})

    run = sync(writer, tenant)

    rejected(run, 0, 1)
    assert run.versions_inserted == 1
    assert row(pg, "deal_versions", id=node.id)[column] == lands
    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.column_name, reject.sqlstate) == ("version", "value", column, sqlstate)
    assert ("set it by hand" in reject.message) == (lands is None)

    # Append-only: the row stays as it is, and the reject until the graph has no such value.
    node.set(**{property: None if lands is None else "fine"})
    if property == "changed_fields" and lands is not None:
        node.set(changed_fields=["fine"])
    healed(sync(writer, tenant), pg, tenant)
    assert row(pg, "deal_versions", id=node.id)[column] == lands


@pytest.mark.german
def test_what_the_application_rejects_is_one_rows_matter(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """A trigger that raises, in a code of its own too, one that suppresses the row, a check, a unique constraint."""
    pg.execute(
        "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.opportunity_name = 'raise' THEN RAISE EXCEPTION 'not % please', new.opportunity_name;"
        " ELSIF new.opportunity_name = 'own code' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'AB123';"
        " ELSIF new.opportunity_name = 'suppress' THEN RETURN NULL; END IF; RETURN new; END $$"
    )
    pg.execute("CREATE TRIGGER object BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION object()")
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT cheap CHECK (extraction_version < 100)")
    pg.execute("CREATE UNIQUE INDEX one_reference ON opportunities (deal_ref) WHERE deal_ref = 'taken'")
    pg.execute("ALTER TABLE opportunities ALTER COLUMN account_id SET NOT NULL")
    account = {"account_id": str(uuid.uuid4())}
    insert(pg, "opportunities", tenant_id=tenant, deal_ref="taken", account_id=uuid.uuid4())
    good = [deal(**account) for _ in range(20)]
    bad = {
        "P0001": deal(name="raise", **account),
        "AB123": deal(name="own code", **account),
        "09000": deal(name="suppress", **account),
        "23514": deal(version=100, **account),
        "23505": deal(deal_ref="taken", **account),
        "23502": deal(account_id=None),
        "22P02": deal(account_id="ACC-17"),
    }
    for node in bad.values():
        version(node)
    version(good[0])

    run = sync(writer, tenant)

    rejected(run, 2 * len(bad), 0)
    assert (run.deals_read, run.deals_inserted, run.versions_inserted) == (len(good) + len(bad), len(good), 1)
    found = {reject.sqlstate: reject for reject in rejects(pg, tenant) if reject.kind == "deal"}
    assert {sqlstate: (reject.level, reject.graph_id) for sqlstate, reject in found.items()} == {
        sqlstate: ("row", node.key) for sqlstate, node in bad.items()
    }
    assert 'in trigger "object" of table public.opportunities: the row was rejected' in found["P0001"].message
    assert "not raise please" in (found["P0001"].server_text or "")
    assert "raise" not in found["P0001"].message
    assert 'in trigger "object" of table public.opportunities: the row was rejected' in found["AB123"].message
    assert "a trigger of the table returned NULL" in found["09000"].message
    assert 'constraint "cheap"' in found["23514"].message
    assert 'constraint "one_reference"' in found["23505"].message
    assert '"account_id"' in found["23502"].message
    assert (found["23502"].column_name, found["23502"].value) == ("account_id", None)
    assert (found["22P02"].column_name, found["22P02"].value) == ("account_id", "ACC-17")

    pg.execute("DROP TRIGGER object ON opportunities")
    pg.execute("ALTER TABLE opportunities DROP CONSTRAINT cheap, ALTER COLUMN account_id DROP NOT NULL")
    pg.execute("DROP INDEX one_reference")
    bad["22P02"].set(account_id=None)
    run = sync(writer, tenant)
    healed(run, pg, tenant)
    assert (run.deals_inserted, run.versions_inserted) == (len(bad), len(bad))


def test_a_rejected_update_leaves_the_row_as_it_was(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """Rejected by a check, suppressed by a trigger: the row has the old values, all of them."""
    checked, suppressed, good = (deal(version=1, opportunity_summary="old") for _ in range(3))
    sync(writer, tenant)
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT cheap CHECK (extraction_version < 100)")
    pg.execute(
        "CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.extraction_version = 50 THEN RETURN NULL; END IF; RETURN new; END $$"
    )
    pg.execute("CREATE TRIGGER suppress BEFORE UPDATE ON opportunities FOR EACH ROW EXECUTE FUNCTION suppress()")
    before = opportunity(pg, checked), opportunity(pg, suppressed)
    for node, number in ((checked, 100), (suppressed, 50), (good, 99)):
        node.set(version=number, opportunity_summary="new")

    run = sync(writer, tenant)

    rejected(run, 2, 0)
    assert (run.deals_read, run.deals_updated, run.deals_unchanged) == (3, 1, 0)
    assert (opportunity(pg, checked), opportunity(pg, suppressed)) == before
    assert opportunity(pg, good)["latest_ai_summary"] == "new"
    assert {(reject.graph_id, reject.sqlstate) for reject in rejects(pg, tenant)} == {
        (checked.key, "23514"),
        (suppressed.key, "09000"),
    }


def test_a_reject_hides_behind_no_note(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    """A deal with a CRM row beside its own row gets a note; if it was rejected, it gets a reject instead."""
    node = deal(version=100)
    insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id)
    insert(pg, "opportunities", tenant_id=tenant, id=node.id)
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT cheap CHECK (extraction_version < 100)")

    rejected(sync(writer, tenant), 1, 0)

    assert [(reject.level, reject.sqlstate) for reject in rejects(pg, tenant)] == [("row", "23514")]


@pytest.mark.german
def test_a_link_that_the_application_rejects_is_the_links_matter(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """Deal and version land, and so do the other links."""
    pg.execute("CREATE TABLE interactions (id uuid PRIMARY KEY)")
    pg.execute("ALTER TABLE interaction_links ADD FOREIGN KEY (interaction_id) REFERENCES interactions (id)")
    known, unknown = uuid.uuid4(), uuid.uuid4()
    pg.execute("INSERT INTO interactions VALUES (%s)", [known])
    good, bad = deal(source_interaction_id=str(known)), deal(source_interaction_id=str(unknown))
    change = version(good, change_source_interaction_id=str(unknown))

    run = sync(writer, tenant)

    rejected(run, 2, 0)
    assert (run.deals_inserted, run.versions_inserted, run.links_inserted) == (2, 1, 1)
    assert {(reject.kind, reject.level, reject.sqlstate, reject.graph_id) for reject in rejects(pg, tenant)} == {
        ("link", "row", "23503", bad.key),
        ("link", "row", "23503", change.key),
    }

    pg.execute("INSERT INTO interactions VALUES (%s)", [unknown])
    run = sync(writer, tenant)
    healed(run, pg, tenant)
    assert run.links_inserted == 2


def test_a_column_that_keeps_what_it_has_keeps_it_where_it_takes_no_null(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """A new row has nothing to keep: it is rejected."""
    pg.execute("ALTER TABLE opportunities ALTER COLUMN deal_ref SET NOT NULL")
    alter_mapping(pg, "ALTER COLUMN deal_ref OPTIONS (ADD on_misfit 'keep')")
    node = deal(deal_ref="deal_1")
    sync(writer, tenant)
    node.set(deal_ref="x" * 51, opportunity_summary="new")
    new = deal(deal_ref="x" * 51)

    run = sync(writer, tenant)

    rejected(run, 1, 1)
    landed = opportunity(pg, node)
    assert (landed["deal_ref"], landed["latest_ai_summary"]) == ("deal_1", "new")
    assert {(reject.graph_id, reject.level, reject.column_name, reject.sqlstate) for reject in rejects(pg, tenant)} == {
        (node.key, "value", "deal_ref", "22001"),
        (new.key, "row", "deal_ref", "22001"),
    }


# -- how long a reject stays -------------------------------------------------------------------------------------------


def test_a_reject_is_seen_once_a_run_and_keeps_when_it_was_first_seen(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    deal(confidence="high", deal_ref=POINT)
    times = "SELECT first_seen, last_seen, times_seen, run_id FROM deal_sync.rejects ORDER BY column_name"
    runs = [sync(writer, tenant)]
    at_first = pg.execute(times).fetchall()

    runs += [sync(writer, tenant), sync(writer, tenant)]

    now = pg.execute(times).fetchall()
    assert [times_seen for *_, times_seen, _ in at_first] == [1, 1, 1]
    assert [times_seen for *_, times_seen, _ in now] == [3, 3, 3]
    assert [found[0] for found in now] == [found[0] for found in at_first]
    assert all(last > first for first, last, *_ in now)
    assert {found[3] for found in now} == {runs[-1].run_id}
    assert [(run.status, run.values_rejected) for run in runs] == [("partial", 3)] * 3


def test_a_reject_leaves_when_its_node_is_no_more(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    good = deal()
    gone = [
        deal(opportunity_id="deal-17"),
        deal(confidence="high"),
        version(good, name=None),
        version(good, version=2, amount="x"),
    ]
    rejected(sync(writer, tenant), 2, 2)
    for node in gone:
        node.delete()

    healed(sync(writer, tenant), pg, tenant)


def test_a_reject_of_one_tenant_is_not_settled_by_a_run_of_another(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    deal(confidence="high")
    rejected(sync(writer, tenant), 0, 1)

    other = sync(writer, add_tenant(pg))

    assert (other.status, other.values_rejected) == ("ok", 0)
    assert len(rejects(pg, tenant)) == 1


def test_a_reject_that_changes_its_reason_says_the_new_one(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(confidence="high")
    sync(writer, tenant)
    node.set(confidence=11)

    rejected(sync(writer, tenant), 0, 1)

    (reject,) = rejects(pg, tenant)
    assert (reject.sqlstate, reject.value, reject.times_seen) == ("22003", "11", 2)
