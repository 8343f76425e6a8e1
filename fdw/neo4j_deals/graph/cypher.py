"""In: label, properties, tenant, keys. Out: Cypher text and its parameters.

Pure. Values travel as parameters only; names are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.defaults import DIMENSION_PREFIX
from neo4j_deals.mapping.model import Source


@dataclass(frozen=True)
class Query:
    """A Cypher text and its parameters. With `as_moments`, a DATETIME may come as a `Moment`, and a list of FLOATs in
    one of the places `floats_at` of a record as `Floats`.

    `names` are those of the columns, if the rows may be gathered into one record.
    """

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    as_moments: bool = False
    floats_at: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def gathered(self) -> Query:
        """The same rows as a list in one record, which is there or is not, and cannot end early."""
        return Query(f"CALL {{\n{self.text}\n}}\nRETURN collect([{', '.join(self.names)}])", self.parameters)

    def counted(self) -> Query:
        """How many rows it has."""
        return Query(f"CALL {{\n{self.text}\n}}\nRETURN count(*)", self.parameters)


def quoted(name: str) -> str:
    """A label or property name as Cypher takes it, whatever characters it has.

    A backtick is doubled; a backslash is written as its own escape, because Cypher replaces a backslash, `u` and four
    digits before it parses the text.
    """
    return "`" + name.replace("\\", "\\u005c").replace("`", "``") + "`"


def spellings(tenant: str) -> list[str]:
    """The forms of a tenant's id that count as its own: lower and upper case (docs/internals/graph.md, trap 7)."""
    return sorted({tenant.lower(), tenant.upper()})


CANONICAL = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}"


def is_a_tenant(value: Any) -> bool:
    """Whether this tenant_id is valid: a UUID in one of its two `spellings`."""
    return isinstance(value, str) and re.fullmatch(CANONICAL, value) is not None


def lines(source: Source, by: str | None = None) -> list[str]:
    """The beginning of a query, after which a node is `n`, and the columns of a table's query have their own names;
    `by`: the property by whose index the nodes are found.
    """
    if source.query is None:
        assert source.label is not None
        return [f"MATCH (n:{quoted(source.label)})" + ("" if by is None else by_index(source.label, by))]
    # The line break ends a comment at the end of the text.
    return ["CALL {", source.query.strip().rstrip(";"), "}"]


def identity(source: Source) -> str:
    """The node's element id; a row of a query has none."""
    return "elementId(n)" if source.query is None else "null"


def value(source: Source, name: str) -> str:
    """A property of the node, or a column of the query."""
    return f"n.{quoted(name)}" if source.query is None else quoted(name)


def rows(
    source: Source,
    properties: Sequence[str],
    *,
    elements: Sequence[str] | None = None,
    by: str | None = None,
    conditions: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    order: Sequence[str] = (),
    limit: int | None = None,
    labels: bool = False,
    dimensions_but: Sequence[str] | None = None,
    headed: bool = False,
    whole: bool = False,
) -> Query:
    """The rows of a source: the element id, then the properties in their order.

    `elements`: only nodes with these element ids. `by`: the property by whose index the nodes are found otherwise.
    `conditions` and `order` are Cypher, with `parameters`. With `labels` the node's labels follow, with
    `dimensions_but` a list of [name, value] of each property "dim_…" that is not among those named. `headed`: the
    first record has null for the node and, as its last column, the number of rows that follow; so an answer that was
    cut short shows. `whole`: Neo4j reads a node's properties at once, which is cheaper if nearly all their bytes are
    asked for. Raises DealSyncError if labels or dimensions are asked of a query, whose rows are not nodes.
    """
    if source.query is not None and (labels or dimensions_but is not None):
        raise DealSyncError(
            "HV024",
            "cannot derive labels or ontology_scores in a foreign table that is defined by a query",
            hint='Return them from the query, and DROP the option "derive" of the column.',
        )
    values = dict(parameters or {})
    text = lines(source, by if elements is None else None)
    if elements is not None:
        text += among(identity(source))
        values["elements"] = list(elements)
    if conditions:
        text.append(("WHERE " if source.query is None else "WITH * WHERE ") + " AND ".join(map(_bracketed, conditions)))
    after = [f"ORDER BY {', '.join(order)}"] if order else []
    if limit is not None:
        values["limit"] = limit
        after.append("LIMIT $limit")
    if after:
        text.append(" ".join(["WITH n" if source.query is None else "WITH *", *after]))
    if order and source.query is None:
        text.append(_ROW_ANEW)
    if headed:
        text += ["WITH collect(n) AS found", "UNWIND [null] + found AS n"]
    if whole:
        text.append("WITH *, properties(n) AS p")
    returned = [identity(source), *(f"p.{quoted(name)}" if whole else value(source, name) for name in properties)]
    if labels:
        returned.append("labels(n)")
    if dimensions_but is not None:
        values |= {"prefix": DIMENSION_PREFIX, "known": list(dimensions_but)}
        returned.append("[k IN keys(n) WHERE k STARTS WITH $prefix AND NOT k IN $known | [k, n[k]]]")
    if headed:
        returned.append("size(found)")
    text.append("RETURN " + ", ".join(f"{expression} AS c{number}" for number, expression in enumerate(returned)))
    return Query("\n".join(text), values, as_moments=True)


#: Else all that is read of a node stays in Neo4j's memory until the end of the query: docs/internals/graph.md, trap 11.
_ROW_ANEW = "WITH n AS sorted UNWIND [sorted] AS n"


def among(identity: str) -> list[str]:
    """Lines behind a MATCH: only the nodes whose identity is one of the $elements. DISTINCT keeps the planner from
    finding them by another condition, such as the tenant, whose index leads to all of its nodes.
    """
    return [f"WHERE {identity} IN $elements", "WITH DISTINCT n"]


def by_index(label: str, *names: str) -> str:
    """What follows a MATCH of nodes `n` that an index on these properties finds: docs/internals/graph.md, trap 10. If
    there is no such index, Neo4j passes over it.
    """
    return f" USING INDEX SEEK n:{quoted(label)}({', '.join(map(quoted, names))})"


def _bracketed(condition: str) -> str:
    return f"({condition})" if " AND " in condition or " OR " in condition else condition


def nodes(
    source: Source,
    properties: Sequence[str],
    *,
    equal: Mapping[str, Sequence[str]],
    elements: Sequence[str] | None = None,
    by: str | None = None,
    absent: Sequence[str] = (),
    present: Sequence[str] = (),
    order_by: str | None = None,
    labels: bool = False,
    dimensions_but: Sequence[str] | None = None,
    limit: int | None = None,
    headed: bool = False,
    whole: bool = False,
) -> Query:
    """The rows of a source, as of `rows`; `equal` maps a property to the values that it may have. `elements`: only
    nodes with these element ids; `absent`: only nodes that have none of these properties; `present`: all of these.
    """
    conditions, parameters = _equalities(source, equal)
    conditions += [f"{value(source, name)} IS NULL" for name in absent]
    conditions += [f"{value(source, name)} IS NOT NULL" for name in present]
    return rows(
        source,
        properties,
        elements=elements,
        by=by,
        conditions=conditions,
        parameters=parameters,
        order=[value(source, order_by)] if order_by else [],
        labels=labels,
        dimensions_but=dimensions_but,
        limit=limit,
        headed=headed,
        whole=whole,
    )


def count(label: str, equal: Mapping[str, Sequence[str]], by: str | None = None) -> Query:
    """How many nodes of a label have these values; `by`: the property by whose index they are found."""
    source = Source(label)
    conditions, parameters = _equalities(source, equal)
    where = [f"WHERE {' AND '.join(conditions)}"] if conditions else []
    return Query("\n".join([*lines(source, by), *where, "RETURN count(n)"]), parameters)


def element_ids(
    label: str, equal: Mapping[str, Sequence[str]], elements: Sequence[str] | None = None, by: str | None = None
) -> Query:
    """The element ids of the nodes that `count` counts; with `elements` only those that are in it."""
    source = Source(label)
    conditions, parameters = _equalities(source, equal)
    found = lines(source, by if elements is None else None)
    if elements is not None:
        found += among(identity(source))
        parameters["elements"] = list(elements)
    where = [f"WHERE {' AND '.join(conditions)}"] if conditions else []
    return Query("\n".join([*found, *where, f"RETURN {identity(source)} AS id"]), parameters, names=("id",))


def _equalities(source: Source, equal: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, Any]]:
    return (
        [f"{value(source, name)} IN $equal_{number}" for number, name in enumerate(equal)],
        {f"equal_{number}": list(values) for number, values in enumerate(equal.values())},
    )


def may_share(label: str, tenant: str, tenant_property: str, key: str) -> Query:
    """Whether nodes of a tenant may share a key: a text occurs twice, or one is not spelled as UUIDs usually are.

    An index is enough to answer it, while `duplicates` looks at each node.
    """
    text = f"n.{quoted(key)}"
    return Query(
        f"MATCH (n:{quoted(label)}){by_index(label, tenant_property, key)}\n"
        f"WHERE n.{quoted(tenant_property)} IN $tenant AND {text} IS NOT NULL\n"
        f"RETURN count({text}) > count(DISTINCT {text}) OR"
        f" count(CASE WHEN coalesce({text} =~ '{_USUAL}', true) THEN null ELSE 1 END) > 0",
        {"tenant": spellings(tenant)},
    )


_USUAL = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def duplicates(
    label: str,
    tenant: str,
    tenant_property: str,
    keys: Sequence[str],
    others: Sequence[str],
    elements: Sequence[str] | None = None,
) -> Query:
    """The nodes of a tenant that share their key with another one: element id, the values of the key and of `others`.

    Keys are compared as PostgreSQL compares UUIDs: without case, hyphens and braces. With `elements` only nodes with
    one of these element ids count.
    """
    normal = [normalised(f"n.{quoted(name)}") for name in keys]
    group = ", ".join(f"{expression} AS k{number}" for number, expression in enumerate(normal))
    present = " AND ".join(f"k{number} IS NOT NULL" for number in range(len(keys)))
    names = [f"c{number}" for number in range(len(keys) + len(others))]
    returned = ", ".join(f"n.{quoted(it)} AS {name}" for it, name in zip((*keys, *others), names, strict=True))
    source = Source(label)
    found = lines(source, tenant_property) if elements is None else [*lines(source), *among(identity(source))]
    return Query(
        "\n".join([*found, f"WHERE n.{quoted(tenant_property)} IN $tenant\n"]) + f"WITH {group}, collect(n) AS nodes\n"
        f"WHERE size(nodes) > 1 AND {present}\n"
        "UNWIND nodes AS n\n"
        f"RETURN elementId(n) AS id, {returned}",
        {"tenant": spellings(tenant)} | ({} if elements is None else {"elements": list(elements)}),
        names=("id", *names),
    )


#: The metadata of each of our transactions.
OURS = {"application": "deal_sync"}


def state(counted: Sequence[tuple[str, str, str]] = ()) -> Query:
    """The database's id and name and the graph's clock; and for each label, property and tenant in `counted` how many
    nodes of the label have the tenant's id in that property, in a list, with the milliseconds that counting took.
    """
    counts = [
        f"COUNT {{ MATCH (n:{quoted(label)}){by_index(label, property_)}"
        f" WHERE n.{quoted(property_)} IN $tenant_{number} }}"
        for number, (label, property_, _) in enumerate(counted)
    ]
    return Query(
        "CALL db.info() YIELD id, name\n"
        "WITH id, name, datetime.realtime() AS clock\n"
        f"WITH id, name, clock, [{', '.join(counts)}] AS counts\n"
        "RETURN id, name, clock, counts, datetime.realtime().epochMillis - clock.epochMillis",
        {f"tenant_{number}": spellings(tenant) for number, (_, _, tenant) in enumerate(counted)},
    )


def open_transactions(database: str, milliseconds: int) -> Query:
    """Transactions of others that have been open for longer: id and seconds."""
    return Query(
        "SHOW TRANSACTIONS YIELD transactionId, database, elapsedTime, metaData\n"
        "WHERE database = $database AND elapsedTime.milliseconds > $milliseconds"
        " AND coalesce(metaData.application, '') <> $ours\n"
        "RETURN collect([transactionId, elapsedTime.seconds])",
        {"database": database, "milliseconds": milliseconds, "ours": OURS["application"]},
    )


def newest(label: str, tenant: str, tenant_property: str, changed_by: str) -> Query:
    """The newest moments of a tenant's nodes that are not in the future: ZONED DATETIME, LOCAL DATETIME, text in UTC.

    In every Neo4j 5 a comparison of two types is null, so that each condition is true for its own type only.
    """
    name = f"n.{quoted(changed_by)}"
    now = "datetime.realtime()"
    past = (
        f"{name} <= {now}",
        f"{name} <= localdatetime({now})",
        f"{name} <= toString({now}) AND {name} =~ '{_TEXT_IN_UTC}'",
    )
    return Query(
        f"MATCH (n:{quoted(label)}){by_index(label, tenant_property, changed_by)}\n"
        f"WHERE n.{quoted(tenant_property)} IN $tenant AND {name} IS NOT NULL\n"
        f"RETURN {', '.join(f'max(CASE WHEN {condition} THEN {name} END)' for condition in past)}",
        {"tenant": spellings(tenant)},
    )


_TEXT_IN_UTC = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.][0-9]+)?(?:Z|[+]00:00)"


def normalised(expression: str) -> str:
    """A key as PostgreSQL compares UUIDs."""
    text = f"toLower(toStringOrNull({expression}))"
    for part in ("-", "{", "}", ".0"):  # 2.0 is the number 2; the reader separates what is grouped wrongly
        text = f"replace({text}, '{part}', '')"
    return text


def tenant_counts(label: str, tenant_property: str) -> Query:
    """How many nodes of a label have each value of the tenant's property, in a list; and the milliseconds to count
    them.
    """
    return Query(
        "WITH datetime.realtime() AS began\n"
        f"CALL {{ MATCH (n:{quoted(label)}) WITH n.{quoted(tenant_property)} AS tenant, count(*) AS nodes"
        " RETURN collect([tenant, nodes]) AS counts }\n"
        "RETURN counts, datetime.realtime().epochMillis - began.epochMillis"
    )
