"""Flows in: neo4j_deals.doctor, what no real server can be made to show here. Flows out: what counts as sound."""

from itertools import groupby

import pytest
from neo4j_deals.doctor.connection import clock, sees_others, transactions, version
from neo4j_deals.doctor.indexes import index
from neo4j_deals.doctor.runner import CHECKS
from neo4j_deals.doctor.server import disk, tls


def test_a_check_has_a_name_of_its_own_asks_a_question_and_needs_only_checks_before_it() -> None:
    names = ["python", "package", "extension"]  # those that SQL makes
    for check in CHECKS:
        assert check.name not in names
        assert set(check.needs) <= set(names), check.name
        assert "?" in str(check.find.__doc__), check.name
        names.append(check.name)


def test_the_checks_with_the_owners_rights_are_made_in_one_go() -> None:
    assert [whose for whose, _ in groupby(check.with_owners_rights for check in CHECKS)] == [False, True, False]


@pytest.mark.parametrize(
    ("number", "ok"),
    [("5.0.0", True), ("5.26.28", True), ("2025.01.0", True), ("2026.08.1", True), ("4.4.40", False), ("6.0", False)],
)
def test_neo4j_5_and_the_calendar_line_are_sound(number: str, ok: bool) -> None:
    found = version(number, "community")
    assert found.ok is ok
    assert number in found.detail
    assert (found.hint is None) is ok


@pytest.mark.parametrize(
    ("ahead", "ok", "said"),
    [
        (0.2, True, "agree"),
        (-0.9, True, "agree"),
        (59.0, True, "59 s ahead of"),
        (61.0, False, "61 s ahead of"),
        (-3600.0, False, "3600 s behind"),
    ],
)
def test_clocks_may_differ_by_a_minute(ahead: float, ok: bool, said: str) -> None:
    found = clock(ahead)
    assert found.ok is ok
    assert said in found.detail
    assert (found.hint is None) is ok


@pytest.mark.parametrize(("free", "ok"), [(1 << 30, True), ((1 << 30) - 1, False), (0, False)])
def test_there_must_be_room_for_a_gigabyte(free: int, ok: bool) -> None:
    assert disk(free).ok is ok


@pytest.mark.parametrize(
    ("uri", "ok", "change"),
    [
        ("bolt+s://graph.example.com:7687", True, None),
        ("neo4j+s://graph.example.com", True, None),
        ("bolt://localhost:7687", True, None),
        ("bolt://[::1]:7687", True, None),
        ("bolt://127.9.9.9", True, None),
        ("bolt://graph.example.com:7687", False, "SET uri 'bolt+s://graph.example.com:7687'"),
        ("neo4j+ssc://10.0.0.1", False, "SET uri 'neo4j+s://10.0.0.1'"),
        ("bolt://localhost.example.com", False, "SET uri 'bolt+s://localhost.example.com'"),
        ("bolt://it's.example.com", False, "SET uri 'bolt+s://it''s.example.com'"),
        ("bolt://somebody:secret@graph.example.com", False, "SET uri 'bolt+s://graph.example.com'"),
    ],
)
def test_what_leaves_the_machine_is_to_be_encrypted(uri: str, ok: bool, change: str | None) -> None:
    found = tls('"my server"', uri)
    assert found.ok is ok
    assert found.hint == (f'ALTER SERVER "my server" OPTIONS ({change});' if change else None)
    assert "secret" not in repr(found)


def row(properties: list[str], state: str = "ONLINE", label: str = "Deal") -> tuple[object, ...]:
    return "known", [label], properties, state, None


@pytest.mark.parametrize(
    ("found", "ok", "said"),
    [
        ([row(["a", "b"])], True, 'index "known"'),
        ([row(["b"])], True, 'index "known"'),
        ([row(["b", "a"]), row(["a", "b"], "FAILED")], True, 'index "known"'),
        ([row(["a"])], False, "none on (a, b)"),
        ([row(["a", "b", "c"])], False, "none on (a, b)"),
        ([row(["a", "b"], label="Other")], False, "none on (a, b)"),
        ([row(["a", "b"], "POPULATING")], False, "still being built"),
        ([row(["a", "b"], "FAILED")], False, "is FAILED"),
    ],
)
def test_an_index_serves_when_it_is_online_and_of_these_properties(
    found: list[tuple[object, ...]], ok: bool, said: str
) -> None:
    looked = index(found, "Deal", "made", [["a", "b"], ["b", "a"], ["b"]])
    assert looked.ok is ok
    assert said in looked.detail
    assert (looked.hint is None) is ok


@pytest.mark.parametrize(
    ("privileges", "sees"),
    [
        ([("GRANTED", "access"), ("GRANTED", "match")], False),
        ([("DENIED", "show_transaction")], False),
        ([("GRANTED", "show_transaction")], True),
        ([("GRANTED", "transaction_management")], True),
        ([], False),
    ],
)
def test_a_login_without_the_right_sees_its_own_transactions_only(
    privileges: list[tuple[str, str]], sees: bool
) -> None:
    found = transactions([], "10min", sees_others(privileges))
    assert found.ok is (True if sees else None)
    assert ("may not see the transactions of other logins" in found.detail) is not sees
    assert transactions(None, "10min", False).ok is None
    assert transactions([("neo4j-transaction-7", 700)], "10min", sees_others(privileges)).ok is False
    assert "as far as the login may see them" in transactions([], "10min", None).detail
