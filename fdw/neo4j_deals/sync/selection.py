"""In: what a run reads of a tenant. Out: Cypher that finds those nodes, using indexes if there are any.

Pure. Why: docs/internals/graph.md, traps 1 to 6; what: docs/explanation/incremental.md. A query may find more
nodes than needed, never fewer: for the MERGE it makes no difference if a node is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

from neo4j_deals.graph import cypher
from neo4j_deals.graph.cypher import Query, quoted, spellings

# Texts of these forms sort in the order of the instants that they stand for; a node with another text is read by every
# run. They are part of the query's text, since Neo4j compiles a pattern only once if it is a literal.
_DAY = (
    r"(?:\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|2000)-02-29)"
)
_CLOCK = r"[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.]\d{1,9})?)?"
_OFFSET = r"(?:Z|[+-](?:0\d|1[0-7])(?::?[0-5]\d)?)?"
_INSTANT = f"(?!000[01]){_DAY}(?:{_CLOCK}{_OFFSET})?"
_LOCAL = r".{10}T\d\d:\d\d:\d\d(?:[.]\d+)?"  # the writer's local time, whatever its time zone
_IN_UTC = f"{_LOCAL}(?:Z|[+]00:?00)?"
_FURTHEST = timedelta(hours=24)  # from UTC: more than any offset
_FURTHEST_LOCAL = timedelta(hours=14)  # that local time is behind UTC: in use are 12
# A range that is open at one end omits the last 36 hours of the type, and with a composite index also the first 36:
# Neo4j takes the limit of one offset for the limit of all.
_FIRST_ZONED = "datetime('-999999999-01-01T00:00:00+18:00')"
_LAST_ZONED = "datetime('+999999999-12-31T23:59:59.999999999-18:00')"
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)  # the reader may be unable to represent earlier moments
_NUL = "\0"


@dataclass(frozen=True)
class Selection:
    """What is read. Without `since`, `graph_ids` and `rest`: everything except the `barred` deals.

    `since`: nodes that changed at this moment or later, or may have; `elements`: nodes with these element ids;
    `graph_ids`: deals with these ids, or the versions of these deals; `rest`: nodes whose id (a version's: that of its
    deal) `keys` does not list; `without`: columns that are not read, and are NULL. `undated`: with `since`, the nodes
    without a timestamp that differ from these digests, by element id; None: no nodes without a timestamp.
    """

    since: datetime | None = None
    elements: tuple[str, ...] = ()
    graph_ids: tuple[str, ...] | None = None
    rest: bool = False
    barred: frozenset[UUID] = frozenset()
    without: frozenset[str] = frozenset()
    undated: Mapping[str, str] | None = None

    @classmethod
    def read(cls, text: str | None) -> Selection:
        """From the JSON passed to `_deal_sync.fill_staging`, without digests; None: everything."""
        given = json.loads(text or "{}")
        since, graph_ids = given.get("since"), given.get("graph_ids")
        return cls(
            since=None if since is None else datetime.fromisoformat(since).astimezone(UTC),
            elements=tuple(given.get("elements") or ()),
            graph_ids=None if graph_ids is None else tuple(graph_ids),
            rest=bool(given.get("rest")),
            barred=frozenset(map(UUID, given.get("barred") or ())),
            without=frozenset(given.get("without") or ()),
            undated={} if given.get("undated") else None,
        )

    @property
    def is_everything(self) -> bool:
        """Whether all nodes of the tenant are read."""
        return self.since is None and self.graph_ids is None and not self.rest


@dataclass(frozen=True)
class TenantsNodes:
    """Nodes of a label and a tenant; the names are properties."""

    label: str
    tenant_property: str
    tenant: str

    def where(self, *conditions: str, tenant: str = "$tenant", by: str | None = None) -> str:
        """The beginning of a query: the nodes `n` that meet the conditions; `tenant`: the forms of its id; `by`: the
        property by which an index finds those of a tenant.
        """
        conditions = f"n.{quoted(self.tenant_property)} IN {tenant}", *conditions
        hint = cypher.by_index(self.label, self.tenant_property, *([] if by is None else [by]))
        return f"MATCH (n:{quoted(self.label)}){hint} WHERE {' AND '.join(conditions)}"

    def among(self) -> str:
        """The beginning of a query: the nodes `n` with one of the $elements as their element id."""
        found = " ".join(cypher.among("elementId(n)"))
        return f"MATCH (n:{quoted(self.label)}) {found} WHERE n.{quoted(self.tenant_property)} IN $tenant"


def changed(nodes: TenantsNodes, changed_by: Sequence[str], key: str, since: datetime, unclear: bool = True) -> Query:
    """Element id and key of the nodes that changed at `since` or later; `unclear`: or may have.

    `changed_by` are the properties with the timestamp; the first that a node has counts. Nodes that have none of them
    are not found. It is unclear whether a node has changed if its timestamp cannot be compared, and which nodes lack
    the first property: to find these takes all of the tenant's nodes, to find the others an index on it.

    Each type is compared with a parameter of that type, since a comparison between types is null and would skip the
    node. A timestamp without a time zone may be local time west of UTC, so the search goes back 14 hours more.
    """
    conditions = [(each, changed_by[0]) for each in _since(f"n.{quoted(changed_by[0])}")]
    if unclear:
        conditions += _unclear(changed_by, key)
    parts = [nodes.where(condition, by=by) for condition, by in conditions]
    return _union(parts, key, _moments(nodes.tenant, since) | _ENDS)


def latest(label: str, tenant_property: str, changed_by: str, since: Mapping[str, datetime]) -> Query:
    """The tenants, of those that have a moment in `since`, whose latest timestamp in a node of the label is not before
    it; each with whether that is sure. It is unsure of a timestamp that is neither a ZONED DATETIME nor a number: see
    `changed_among`.

    A seek for each, since an index has the timestamps of a tenant by their types: behind ZONED DATETIME come all others
    that can be compared, and numbers, which say nothing, are the last.
    """
    nodes = TenantsNodes(label, tenant_property, "")
    moment = f"n.{quoted(changed_by)}"
    found = nodes.where(f"{moment} IS NOT NULL", tenant="[spelling]", by=changed_by)
    order = f"ORDER BY n.{quoted(tenant_property)} DESC, {moment} DESC LIMIT 1"  # as the index has them, from its end
    tenants = [{"id": tenant, "spellings": spellings(tenant), "since": since[tenant]} for tenant in since]
    return Query(
        "UNWIND $tenants AS t\n"
        "UNWIND t.spellings AS spelling\n"
        f"WITH t, COLLECT {{ {found} RETURN {moment} {order} }}[0] AS latest\n"
        "WITH t, latest, latest IS :: ZONED DATETIME OR coalesce(latest >= $least, false) AS sure\n"
        "WHERE latest >= t.since OR latest >= $least OR NOT sure\n"
        "RETURN t.id AS id, sure",
        {"tenants": tenants, "least": _LEAST},
        names=("id", "sure"),
    )


def changed_among(label: str, tenant_property: str, changed_by: str, since: Mapping[str, datetime]) -> Query:
    """The tenants, of those that have a moment in `since`, with a node of the label that has changed since then. A
    timestamp of the first year, which may be one that the reader cannot represent, is not found.
    """
    nodes = TenantsNodes(label, tenant_property, "")
    parts = [nodes.where(each, tenant="t.tenant", by=changed_by) for each in _newer(f"n.{quoted(changed_by)}", "t.")]
    tenants = [{"id": tenant, **_moments(tenant, moment)} for tenant, moment in since.items()]
    exists = "\nOR ".join(f"EXISTS {{ {part} }}" for part in parts)
    return Query(f"UNWIND $tenants AS t\nWITH t WHERE {exists}\nRETURN t.id AS id", {"tenants": tenants}, names=("id",))


def strangers(label: str, tenant_property: str, changed_by: str, known: Sequence[str]) -> Query:
    """A row if a node of the label that has a timestamp belongs to a tenant that is not among `known`.

    Each gap between two spellings that are known costs a seek in the index, however many nodes there are.
    """
    name = f"n.{quoted(tenant_property)}"
    spelled = sorted(spelling for tenant in known for spelling in spellings(tenant))
    gaps = [list(gap) for gap in pairwise(["", *spelled, "~"])]
    conditions = f"{name} > gap[0] AND {name} < gap[1] AND n.{quoted(changed_by)} IS NOT NULL AND {name} =~ $valid"
    hint = cypher.by_index(label, tenant_property, changed_by)
    return Query(
        "UNWIND $gaps AS gap\n"
        f"WITH gap WHERE EXISTS {{ MATCH (n:{quoted(label)}){hint} WHERE {conditions} }}\n"
        "RETURN true AS found LIMIT 1",
        {"gaps": gaps, "valid": cypher.CANONICAL},
        names=("found",),
    )


def _unclear(changed_by: Sequence[str], key: str) -> Iterator[tuple[str, str]]:
    """Conditions for nodes that may have changed, but that no part of an index has; each with the index's property."""
    first, *others = (f"n.{quoted(name)}" for name in changed_by)
    yield from ((condition, changed_by[0]) for condition in _incomparable(first))
    absent = [f"n.{quoted(key)} IS NOT NULL", f"{first} IS NULL"]  # an index on the key has these, too
    for moment in others:
        some = " OR ".join(f"({condition})" for condition in (*_since(moment), *_incomparable(moment)))
        yield " AND ".join([*absent, f"({some})"]), key
        absent.append(f"{moment} IS NULL")


def _moments(tenant: str, since: datetime) -> dict[str, object]:
    """What the conditions compare with, in each type; and the forms of the tenant's id."""
    widest, local = since - _FURTHEST, (since - _FURTHEST_LOCAL).replace(tzinfo=None)
    return {
        "tenant": spellings(tenant),
        "zoned": since,
        "local": local,
        "date": widest.date(),  # whatever the writer's time zone
        "day": widest.date().isoformat(),
        "second": since.isoformat(timespec="seconds")[:19],
        "local_second": local.isoformat(timespec="seconds"),
    }


_LEAST = float("-inf")
#: What every moment is compared with.
_ENDS = {
    "earliest_zoned": _EARLIEST,
    "earliest_local": _EARLIEST.replace(tzinfo=None),
    "earliest_date": _EARLIEST.date(),
    "least": _LEAST,
}


def _since(moment: str) -> tuple[str, ...]:
    """Conditions, each for its own part of an index; at least one is true if a moment is `since` or later, in whatever
    time zone, or if it does not say when.
    """
    return (
        *_newer(moment, "$"),
        f"{moment} < $earliest_zoned AND {moment} >= {_FIRST_ZONED}",
        *(f"{moment} < $earliest_{kind}" for kind in ("local", "date")),
        f"{moment} >= $least",  # any number, which says nothing, but has its part of the index
    )


def _newer(moment: str, given: str) -> tuple[str, ...]:
    """Those of `_since` for a moment that says when. `given` stands before the names of `_moments`."""
    return (
        f"{moment} >= {given}zoned AND {moment} <= {_LAST_ZONED}",
        *(f"{moment} >= {given}{kind}" for kind in ("local", "date")),
        f"{moment} >= {given}day AND ({moment} >= {given}second OR NOT {moment} =~ '{_literal(_IN_UTC)}'"
        f" OR {moment} >= {given}local_second AND {moment} =~ '{_literal(_LOCAL)}')",
    )


def _incomparable(moment: str) -> tuple[str, ...]:
    """Conditions; one is true if a value is no moment, or not one that sorts as the others of its type do."""
    return (
        f"{moment} < $day AND NOT {moment} =~ '{_literal(_INSTANT)}'",
        f"{moment} IS NOT NULL AND NOT {moment} IS :: STRING AND NOT {moment} IS :: ZONED DATETIME"
        f" AND NOT {moment} IS :: LOCAL DATETIME AND NOT {moment} IS :: DATE",
    )


def _literal(pattern: str) -> str:
    """A pattern as the text between the quotes of a Cypher literal."""
    return pattern.replace("\\", "\\\\")


def having(nodes: TenantsNodes, name: str, ids: Iterable[str], key: str) -> Query:
    """Element id and key of the nodes whose property is one of these ids, in any of the usual forms of a UUID."""
    forms = sorted({form for id in ids for form in _forms(id)})
    parts = [nodes.where(f"n.{quoted(name)} IN $ids", by=name)]
    return _union(parts, key, {"tenant": spellings(nodes.tenant), "ids": forms})


def _forms(id: str) -> set[str]:
    bare = id.strip("{}").replace("-", "")
    dashed = "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))
    texts = {id, bare, dashed, f"{{{dashed}}}", f"{{{bare}}}"}
    return {form for text in texts for form in (text, text.lower(), text.upper())}


def among(nodes: TenantsNodes, elements: Sequence[str], key: str) -> Query:
    """Element id and key of the elements that are still nodes of the tenant."""
    parameters = {"tenant": spellings(nodes.tenant), "elements": list(elements)}
    return _union([nodes.among()], key, parameters)


def everyone(nodes: TenantsNodes, key: str) -> Query:
    """Element id and key of all the nodes."""
    return _union([nodes.where()], key, {"tenant": spellings(nodes.tenant)})


def ids(nodes: TenantsNodes, elements: Sequence[str], names: Sequence[str]) -> Query:
    """The values of these properties of these nodes, a list for each property."""
    returned = ", ".join(f"collect(DISTINCT n.{quoted(name)})" for name in names)
    parameters = {"tenant": spellings(nodes.tenant), "elements": list(elements)}
    return Query(f"{nodes.among()} RETURN {returned}", parameters)


def keys(nodes: TenantsNodes, name: str, after: str | None, size: int) -> Query:
    """The next distinct texts of a property, in order: `size` of those that are greater than `after`.

    Texts with a NUL character are skipped, since PostgreSQL cannot store them.
    """
    expression = f"n.{quoted(name)}"
    listed = f"{expression} {'>=' if after is None else '>'} $after", f"NOT {expression} CONTAINS $nul"
    return Query(
        f"{nodes.where(*listed, by=name)} WITH DISTINCT {expression} AS key ORDER BY key LIMIT $size RETURN key",
        {"tenant": spellings(nodes.tenant), "after": after or "", "size": size, "nul": _NUL},
        names=("key",),
    )


def rest(nodes: TenantsNodes, name: str, key: str) -> Query:
    """Element id and key of the nodes that `keys` skips: the property is absent, not a text, or has a NUL character."""
    expression = f"n.{quoted(name)}"
    unlisted = f"({expression} IS NULL OR NOT {expression} IS :: STRING OR {expression} CONTAINS $nul)"
    return _union([nodes.where(unlisted)], key, {"tenant": spellings(nodes.tenant), "nul": _NUL})


def _union(parts: Sequence[str], key: str, parameters: Mapping[str, object]) -> Query:
    returned = f" RETURN elementId(n) AS id, n.{quoted(key)} AS key"
    return Query("\nUNION\n".join(part + returned for part in parts), parameters, names=("id", "key"))
