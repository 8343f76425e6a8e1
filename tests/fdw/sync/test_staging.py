"""Flows in: a run that lands its nodes batch by batch, by the test's own clock. Flows out: what it tells meanwhile.

What it stages is tested in tests/sql; that a scheduled run reports nothing, in tests/sql/test_status.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import pytest
from neo4j_deals.sync import staging
from neo4j_deals.sync.staging import Progress

TENANT = "7e4a4000-0000-4000-8000-000000000001"


class Told:
    """A `plpy` that records its calls."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.notices: list[str] = []

    def prepare(self, query: str, types: Sequence[str]) -> str:
        return query

    def execute(self, query: Any, arguments: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
        assert "set_config('application_name', $1, true)" in query
        self.names += arguments
        return []

    def notice(self, message: str, **fields: str | None) -> None:
        self.notices.append(message)

    def warning(self, message: str, **fields: str | None) -> NoReturn:
        raise AssertionError(message)

    def error(self, message: str, **fields: str | None) -> NoReturn:
        raise AssertionError(message)

    def quote_ident(self, name: str) -> NoReturn:
        raise AssertionError(name)


class Clock:
    """The module's `time`: it stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(staging, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("kind", "amount", "said"),
    [
        ("deal", 12, ["5 of 12 deals", "10 of 12 deals"]),
        ("version", 12, ["5 of 12 versions", "10 of 12 versions"]),
        ("deal", None, ["5 deals", "10 deals"]),  # an incremental run
    ],
)
def test_the_session_gets_a_notice_when_five_seconds_have_passed_since_the_last(
    clock: Clock, kind: str, amount: int | None, said: list[str]
) -> None:
    told = Told()
    progress = Progress(told, kind, TENANT, amount)
    progress.show(0)
    for landed in range(1, 13):  # a batch a second
        clock.now += 1
        progress.show(landed)
    assert told.notices == said


def test_a_run_of_less_than_five_seconds_sends_no_notice(clock: Clock) -> None:
    told = Told()
    progress = Progress(told, "deal", TENANT, 2)
    for landed in range(3):
        progress.show(landed)
        clock.now += 2.4
    assert told.notices == []


@pytest.mark.parametrize(("amount", "names"), [(2, ["0/2", "1/2", "2/2"]), (None, ["0", "1", "2"])])
def test_other_sessions_see_each_batch_at_once(clock: Clock, amount: int | None, names: list[str]) -> None:
    told = Told()
    progress = Progress(told, "version", TENANT, amount)
    for landed in range(3):
        progress.show(landed)
    assert told.names == [f"deal_sync 7e4a4000000040008000000000000001 v {name}" for name in names]
