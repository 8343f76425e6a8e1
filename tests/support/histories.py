"""Flows in: a seed. Flows out: the history of a graph, written by clocks that are off, by commits that are late.

Its dimensions: the form of a moment (type, offset, precision, zone of the writer's wall, unreadable, absent) and what
it says (now, late, ahead, long ago); what happens: a node comes, new or with an old time, with a key that is there, or
is not, or none; changes, loses a value's fit, has a property renamed, gets a key; leaves for another tenant and comes
back; is deleted; whether it is visible at once; whether anything else has changed since the last run, or all is long
ago.
Those of who syncs (`test_histories`): the kind of run, killed or not, batch size; the graph's clock when it ran.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from neo4j import Session
from neo4j.time import DateTime

from support.database import Connection
from support.graph import Graph

OVERLAP = 60  # seconds: more than a writer's clock is behind and its commit late, and more than a history takes
LATE = 40  # seconds that a moment in the graph may lie before its commit, at the most
LONG_AGO = 2 * 86400
ELSEWHERE = "e15e0000-0000-4000-8000-000000000001"  # the tenant that deals leave for
DEALS = 6  # of a tenant at the beginning

Properties = dict[str, Any]

#: The forms of a moment in the graph: each shows the moment, or an earlier one by less than a second, or a day of it.
FORMS: dict[str, Callable[[dt.datetime], Any]] = {
    "zoned": lambda at: DateTime.from_native(at),
    "zoned elsewhere": lambda at: DateTime.from_native(at.astimezone(_zone(330))),
    "local": lambda at: DateTime.from_native(at.replace(tzinfo=None)),
    "local west": lambda at: DateTime.from_native(at.astimezone(_zone(-720)).replace(tzinfo=None)),
    "local east": lambda at: DateTime.from_native(at.astimezone(_zone(840)).replace(tzinfo=None)),
    "text west without offset": lambda at: at.astimezone(_zone(-660)).replace(tzinfo=None).isoformat(),
    "text": lambda at: at.isoformat().replace("+00:00", "Z"),
    "text without offset": lambda at: at.replace(tzinfo=None).isoformat(),
    "text east": lambda at: at.astimezone(_zone(14 * 60)).isoformat(),
    "text west": lambda at: at.astimezone(_zone(-570)).isoformat(timespec="milliseconds"),
    "text in seconds": lambda at: at.isoformat(timespec="seconds"),
    "day": lambda at: at.date().isoformat(),
    "unreadable": lambda at: at.strftime("%d/%m/%Y"),
    "another type": lambda at: int(at.timestamp()),
    "absent": lambda at: None,
}


def _zone(minutes: int) -> dt.timezone:
    return dt.timezone(dt.timedelta(minutes=minutes))


@dataclass
class History:
    """One tenant's graph and what happens to it, step by step; `told` are the steps, for who reads a failure."""

    graph: Graph
    tenant: uuid.UUID
    random: Random
    told: list[str] = field(default_factory=list)
    _open: list[tuple[Session, Any]] = field(default_factory=list)
    clock_moved: bool = False
    _came_old: bool = False  # since the last run, and
    _went: bool = False  # both at once may leave the number of nodes as it was: what only a full run finds

    def begin(self) -> None:
        """Deals with a version each, all of them long unchanged."""
        for _ in range(DEALS):
            deal = str(uuid.uuid4())
            self._run("CREATE (d:Deal) SET d = $properties", properties=self._deal(deal, LONG_AGO, "zoned"))
            self._version(deal, LONG_AGO, "zoned", number=1)
        self.told.clear()

    def step(self) -> None:
        """Something happens."""
        steps = [
            self.create_deal,
            self.change_deal,
            self.change_deal,
            self.spoil_value,
            self.add_version,
            self.add_version,
            self.create_duplicate,
            self.delete_duplicate,
            self.create_without_key,
            self.create_old,
            self.create_old,
            self.rename_property,
            self.leave,
            self.come_back,
            self.fix_key,
            self.begin_late,
            self.end_late,
        ]
        self.random.choice(steps)()

    def create_deal(self) -> None:
        """With a timestamp in some form, or none, and perhaps a version."""
        deal, form = str(uuid.uuid4()), self._form()
        self._run("CREATE (d:Deal) SET d = $properties", properties=self._deal(deal, self._behind(), form))
        if self.random.random() < 0.4:
            self._version(deal, self._behind(), self._form())

    def synced(self) -> None:
        """A run has counted the nodes."""
        self._came_old = self._went = False

    def age(self) -> None:
        """All that a run has just read was written long ago: time has passed, and what comes next comes alone."""
        for label, name in (("Deal", "last_updated_at"), ("DealVersion", "valid_until"), ("DealVersion", "created_at")):
            self._run(  # but for what no watermark tells, and what was recorded as no moment
                f"MATCH (n:{label} {{tenant_id: $tenant}}) WHERE n.{name} IS :: ZONED DATETIME NOT NULL"
                f" OR n.{name} IS :: LOCAL DATETIME NOT NULL OR n.{name} IS :: STRING NOT NULL"
                f" AND n.{name} =~ '[0-9]{{4}}-[0-9]{{2}}-.*' SET n.{name} = $long_ago",
                tenant=str(self.tenant),
                long_ago=DateTime.from_native(_now() - dt.timedelta(seconds=LONG_AGO)),
            )

    def create_old(self) -> None:
        """A deal, a version or a second node of one, with the time of long ago that its source had."""
        if self._went:
            return
        self._came_old = True
        behind, form = self.random.choice([1, 3]) * LONG_AGO, self.random.choice(["zoned", "local", "text", "day"])
        deal = self.some_key()
        match self.random.choice(["deal", "version", "twin"]):
            case "version":
                self._version(deal or str(uuid.uuid4()), behind, form)
            case "twin" if deal:
                properties = self._deal(self.random.choice([deal, deal.upper()]), behind, form) | {"twin": True}
                self._run("CREATE (d:Deal) SET d = $properties", properties=properties)
            case _:
                self._run("CREATE (d:Deal) SET d = $properties", properties=self._deal(str(uuid.uuid4()), behind, form))

    def leave(self) -> None:
        """A deal goes to another tenant, by hand: its timestamp stays. One without a recorded value: that only a full
        run removes.
        """
        if not self._came_old and (deal := self._some_deal(but="spoiled")):
            self._went = True
            self._run("MATCH (d:Deal) WHERE elementId(d) = $deal SET d.tenant_id = $other", deal=deal, other=ELSEWHERE)

    def come_back(self) -> None:
        """Such a deal is there again, as it was."""
        if not self._went:
            self._came_old = True
            self._run(
                "MATCH (d:Deal {tenant_id: $other}) WITH d ORDER BY elementId(d) LIMIT 1 SET d.tenant_id = $tenant",
                other=ELSEWHERE,
                tenant=str(self.tenant),
            )

    def rename_property(self) -> None:
        """Of a deal whose timestamp changes with it; or back."""
        if deal := self._some_deal():
            old, new = self.random.sample(["deal_ref", "dealRef"], 2)
            self._run(
                f"MATCH (d:Deal) WHERE elementId(d) = $deal SET d.{new} = coalesce(d.{old}, d.{new}),"
                f" d.last_updated_at = $moment REMOVE d.{old}",
                deal=deal,
                moment=self._moment(self._form()),
            )

    def change_deal(self) -> None:
        """And its timestamp."""
        if deal := self._some_deal():
            self._run(
                "MATCH (d:Deal) WHERE elementId(d) = $deal SET d += $properties",
                deal=deal,
                properties={"opportunity_summary": self._text(), "last_updated_at": self._moment(self._form())},
            )

    def spoil_value(self) -> None:
        """A value that does not fit, or fits again."""
        if deal := self._some_deal():
            self._run(
                "MATCH (d:Deal) WHERE elementId(d) = $deal SET d += $properties",
                deal=deal,
                properties={
                    "spoiled": True,
                    "confidence": self.random.choice(["high", 0.25, 1e9, None]),
                    "last_updated_at": self._moment(self._form()),
                },
            )

    def add_version(self) -> None:
        """Of a deal that stays as it was: the change follows, or never comes."""
        if deal := self.some_key():
            self._version(deal, self._behind(), self._form())
        elif self.random.random() < 0.3:
            self._version(str(uuid.uuid4()), self._behind(), self._form())  # whose deal may never come

    def create_duplicate(self) -> None:
        """A second node with a deal's key, in another spelling perhaps; either may be the newer one."""
        if deal := self.some_key():
            key = self.random.choice([deal, deal.upper()])
            twin = self._deal(key, self._behind(), self._form()) | {"twin": True}
            self._run("CREATE (d:Deal) SET d = $properties", properties=twin)

    def delete_duplicate(self) -> None:
        """One of two nodes with one key goes."""
        if self._came_old:
            return
        self._went = True
        self._run(
            "MATCH (d:Deal {tenant_id: $tenant, twin: true}) WITH d ORDER BY d.opportunity_id LIMIT 1 DETACH DELETE d",
            tenant=str(self.tenant),
        )

    def create_without_key(self) -> None:
        """A deal whose key is no UUID, no text, or absent."""
        key = self.random.choice([None, "OPP-17", 17, ""])
        self._run("CREATE (d:Deal) SET d = $properties", properties=self._deal(key, self._behind(), self._form()))

    def fix_key(self) -> None:
        """Such a deal gets a key, by hand: its timestamp stays."""
        self._run(
            "MATCH (d:Deal {tenant_id: $tenant}) WHERE d.opportunity_id IS NULL OR size(toString(d.opportunity_id)) < 9"
            " WITH d LIMIT 1 SET d.opportunity_id = $key",
            tenant=str(self.tenant),
            key=str(uuid.uuid4()),
        )

    def begin_late(self) -> None:
        """A transaction writes, and commits when others have read."""
        session = self.graph.driver.session()
        transaction = session.begin_transaction()
        properties = self._deal(str(uuid.uuid4()), self._behind(), self._form())
        transaction.run("CREATE (d:Deal) SET d = $properties", properties=properties).consume()
        self._open.append((session, transaction))
        self.told.append(f"begins {properties}")

    def end_late(self) -> None:
        """The oldest open transaction commits."""
        if self._open:
            session, transaction = self._open.pop(0)
            transaction.commit()
            session.close()
            self.told.append("commits the oldest")

    def end(self) -> None:
        """All that is open commits."""
        while self._open:
            self.end_late()

    def _run(self, cypher: str, **parameters: Any) -> None:
        self.graph.run(cypher, **parameters)
        self.told.append(f"{cypher} {parameters}")

    def _deal(self, key: Any, behind: float, form: str) -> Properties:
        return {
            "tenant_id": str(self.tenant),
            "opportunity_id": key,
            "name": "Acme",
            "stage": "proposal",
            "opportunity_summary": self._text(),
            "deal_ref": self._text(),
            "last_updated_at": FORMS[form](_now() - dt.timedelta(seconds=behind)),
        }

    def _version(self, deal: str, behind: float, form: str, number: int | None = None) -> None:
        at = _now() - dt.timedelta(seconds=behind)
        moments = {"created_at": DateTime.from_native(at), "valid_until": FORMS[form](at)}
        if form == "absent" and self.random.random() < 0.5:
            moments["created_at"] = FORMS[self._form()](at)
        properties = {
            "tenant_id": str(self.tenant),
            "version_id": str(uuid.uuid4()),
            "deal_opportunity_id": deal,
            "version": self.random.randint(1, 6) if number is None else number,
            "name": "Acme",
            "stage": "proposal",
            "last_updated_at": DateTime.from_native(_now() - dt.timedelta(seconds=LONG_AGO)),  # its deal's from before
            "change_source_interaction_id": str(uuid.uuid4()),
        }
        self._run("CREATE (v:DealVersion) SET v = $properties", properties=properties | moments)

    def some_key(self) -> str | None:
        """The key of a deal, as the graph spells it."""
        return self._some_deal("opportunity_id")

    def _some_deal(self, what: str = "elementId(d)", but: str = "twin") -> str | None:
        """A deal with a usual key, no twin and not marked `but`: its element id or its key."""
        name = "elementId(d)" if what == "elementId(d)" else f"d.{what}"
        found = self.graph.run(
            f"MATCH (d:Deal {{tenant_id: $tenant}}) WHERE d.opportunity_id IS :: STRING AND size(d.opportunity_id) = 36"
            f" AND d.twin IS NULL AND d.{but} IS NULL RETURN {name} AS it ORDER BY elementId(d)",
            tenant=str(self.tenant),
        )
        return self.random.choice(found)["it"] if found else None

    def _moment(self, form: str) -> Any:
        return FORMS[form](_now() - dt.timedelta(seconds=self._behind()))

    def _form(self) -> str:
        return self.random.choice(list(FORMS))

    def _behind(self) -> float:
        """Seconds that a moment lies before its commit; less than none where a clock is ahead."""
        return self.random.choice([0, self.random.uniform(0, LATE), -self.random.uniform(0, 86400)])

    def _text(self) -> str:
        """Often one that was there before."""
        return f"summary {self.random.randrange(self.random.choice([2, 10**9]))}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def counting_is_quick(pg: Connection) -> None:
    """Also on a busy machine: else nodes are counted once an hour."""
    pg.execute(
        "CREATE FUNCTION quick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " new.facts := CASE WHEN new.facts ? 'count_ms' THEN new.facts || '{\"count_ms\": 1}' ELSE new.facts END;"
        " RETURN new; END $$;"
        "CREATE TRIGGER quick BEFORE INSERT OR UPDATE ON deal_sync.watermarks FOR EACH ROW"
        " WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION quick()"
    )


def moved_then(pg: Connection, tenant: uuid.UUID, ahead: dt.timedelta) -> None:
    """The last run was made while the graph's clock was so far ahead: what it would have left."""
    pg.execute(
        "UPDATE deal_sync.watermarks SET watermark = watermark + %s,"
        " facts = facts || jsonb_build_object('ahead', (facts ->> 'ahead')::float8 + %s) WHERE tenant_id = %s",
        [ahead, ahead.total_seconds(), tenant],
    )
