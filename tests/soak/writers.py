"""Flows in: a graph with deals of some tenants. Flows out: changes without end, as the extraction service and people
make them, by clocks that are off and commits that are late; through every failure of Neo4j, until `stop`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from neo4j.exceptions import DriverError, Neo4jError
from support.deals import full_deal
from support.graph import Graph
from support.histories import FORMS, LATE, History, Properties

OPEN = (2.0, 8.0)  # seconds that a transaction stays open, at least and at the most
SLOWEST = LATE + OPEN[1]  # what a moment in the graph may lie before its commit, with a little more for the commit
AHEAD = 3600  # seconds that a clock may be ahead

SNAPSHOT = """
MATCH (d:Deal) WHERE elementId(d) = $deal
CREATE (d)-[:HAS_VERSION]->(v:DealVersion)
SET v = properties(d), v.version_id = $version_id, v.deal_opportunity_id = d.opportunity_id,
    v.change_summary = 'The stage changed.', v.changed_fields = ['stage'],
    v.change_source_interaction_id = $interaction, v.created_at = $at, v.valid_from = d.created_at, v.valid_until = $at
"""
CHANGE = """
MATCH (d:Deal) WHERE elementId(d) = $deal
SET d += $properties, d.version = coalesce(d.version, 0) + 1
"""
SOME_DEAL = """
MATCH (d:Deal {tenant_id: $tenant})
WHERE d.opportunity_id IS :: STRING AND size(d.opportunity_id) = 36 AND d.twin IS NULL
WITH d, rand() AS dice ORDER BY dice LIMIT 1
RETURN elementId(d) AS element, d.opportunity_id AS key
"""
ENRICH = """
MATCH (d:Deal {tenant_id: $tenant}) WHERE d.last_updated_at IS NULL AND d.version IS NULL AND d.embedding IS NULL
WITH d, rand() AS dice ORDER BY dice LIMIT 1
SET d += $properties
"""
MEND = """
MATCH (d:Deal {tenant_id: $tenant}) WHERE d.confidence IS :: STRING OR d.confidence > 1
WITH d LIMIT 3
SET d.confidence = 0.5, d.last_updated_at = $at
"""
DELETE = """
MATCH (d:Deal) WHERE elementId(d) = $deal
OPTIONAL MATCH (d)-[:HAS_VERSION]->(v)
DETACH DELETE d, v
"""


@dataclass
class Service(History):
    """One of those who write a tenant's graph: a history with the frequencies of real life.

    `done` counts what has succeeded, `failed` the errors by their class.
    """

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    _due: float = 0.0

    def step(self) -> None:
        self.told.clear()
        if self._open and time.monotonic() >= self._due:
            self.end_late()
        often: dict[Callable[[], None], float] = {
            self.extract: 9,
            self.change_deal: 3,
            self.create_deal: 1,
            self.create_skeleton: 1,
            self.enrich: 1,
            self.spoil_value: 0.8,
            self.fix_values: 0.5,
            self.begin_late: 0.7,
            self.add_version: 0.3,
            self.create_duplicate: 0.2,
            self.delete_duplicate: 0.2,
            self.create_without_key: 0.2,
            self.fix_key: 0.2,
            self.delete_deal: 0.4,
        }
        [what] = self.random.choices(list(often), list(often.values()))
        what()
        self.done[what.__name__] += 1

    def extract(self) -> None:
        """An interaction changes a deal: a version keeps what it was, in a transaction of its own that comes first."""
        if deal := self._some_deal():
            moment = FORMS["zoned"](self._now_or_behind())
            self._run(SNAPSHOT, deal=deal, version_id=_id(), interaction=_id(), at=moment)
            time.sleep(self.random.uniform(0, 1))
            stage = self.random.choice(["proposal", "negotiation", "closed_won"])
            properties: Properties = {"opportunity_summary": self._text(), "stage": stage}
            if self.random.random() < 0.3:
                properties["embedding_current"] = [self.random.uniform(-1, 1)] * 1536
            self._run(CHANGE, deal=deal, properties=properties | {"last_updated_at": self._moment(self._form())})

    def create_skeleton(self) -> None:
        """A deal of which nothing is known yet, the time of its change included."""
        properties = {"tenant_id": str(self.tenant), "opportunity_id": _id(), "name": "Acme", "stage": "prospecting"}
        if self.random.random() < 0.5:
            properties |= {"account_id": _id(), "created_at": FORMS["zoned"](self._now_or_behind())}
        self._run("CREATE (d:Deal) SET d = $properties", properties=properties)

    def enrich(self) -> None:
        """A skeleton gets everything."""
        properties = full_deal() | {
            "opportunity_summary": self._text(),
            "source_interaction_id": _id(),
            "version": 1,
            "last_updated_at": self._moment(self.random.choice(["zoned", "text", "text east"])),
        }
        self._run(ENRICH, tenant=str(self.tenant), properties=properties)

    def fix_values(self) -> None:
        """Values that did not fit do."""
        self._run(MEND, tenant=str(self.tenant), at=self._moment("text"))

    def delete_deal(self) -> None:
        """With the versions that hang on it."""
        if deal := self._some_deal():
            self._run(DELETE, deal=deal)

    def begin_late(self) -> None:
        """One at a time, so that none stays open for longer than `OPEN`."""
        if not self._open:
            super().begin_late()
            self._due = time.monotonic() + self.random.uniform(*OPEN)

    def _some_deal(self, what: str = "elementId(d)", but: str = "twin") -> str | None:
        found = self.graph.run(SOME_DEAL, tenant=str(self.tenant))
        return found[0]["element" if what == "elementId(d)" else "key"] if found else None

    def _form(self) -> str:
        """Mostly what the service writes, a DATETIME or a text; now and then anything."""
        return self.random.choice(["zoned", "text"]) if self.random.random() < 0.8 else super()._form()

    def _behind(self) -> float:
        dice = self.random.random()
        if dice < 0.7:
            return 0
        return self.random.uniform(0, LATE) if dice < 0.97 else -self.random.uniform(0, AHEAD)

    def _now_or_behind(self) -> Any:
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=self._behind())


class Writers:
    """Threads that write: so many for each tenant, each with about so many steps a second."""

    def __init__(self, graph: Graph, tenants: Sequence[uuid.UUID], each: int, per_second: float, seed: int) -> None:
        self._stopped = threading.Event()
        self._services = [
            Service(graph, tenant, Random(seed * 1000 + number))
            for number, tenant in enumerate(tenant for tenant in tenants for _ in range(each))
        ]
        self._threads = [
            threading.Thread(target=self._write, args=(service, per_second), daemon=True) for service in self._services
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> int:
        """All that is open commits. Returns how many threads had ended before, by an error that is none of Neo4j's."""
        ended = sum(not thread.is_alive() for thread in self._threads)
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
        return ended

    @property
    def done(self) -> Counter[str]:
        """What has been written, by kind."""
        return sum((service.done for service in self._services), Counter())

    @property
    def failed(self) -> Counter[str]:
        """What went wrong and was tried again as something else, by the error's class."""
        return sum((service.failed for service in self._services), Counter())

    def _write(self, service: Service, per_second: float) -> None:
        while not self._stopped.wait(service.random.expovariate(per_second)):
            try:
                service.step()
            except (DriverError, Neo4jError) as error:
                service.failed[type(error).__name__] += 1
                self._stopped.wait(0.5)
        with contextlib.suppress(DriverError, Neo4jError):
            service.end()


def _id() -> str:
    return str(uuid.uuid4())
