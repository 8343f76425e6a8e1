"""In: label, properties, tenant, keys. Out: Cypher text and its parameters.

Pure. Values only ever travel as parameters; names are quoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neo4j_deals.derived import DIMENSION_PREFIX


@dataclass(frozen=True)
class Query:
    """A Cypher text and its parameters."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def quoted(name: str) -> str:
    """A label or property name as Cypher takes it, whatever it holds.

    A backtick is doubled; a backslash is written as the escape of itself, since Cypher replaces a backslash, `u` and
    four digits before it reads the text.
    """
    return "`" + name.replace("\\", "\\u005c").replace("`", "``") + "`"


def spellings(tenant: str) -> list[str]:
    """The forms of a tenant's id that count as its own: lower and upper case (sync-rules.md)."""
    return sorted({tenant.lower(), tenant.upper()})


def nodes(
    label: str,
    properties: Sequence[str],
    *,
    equal: Mapping[str, Sequence[str]],
    order_by: str | None = None,
    labels: bool = False,
    dimensions_but: Sequence[str] | None = None,
    limit: int | None = None,
) -> Query:
    """The nodes of a label: elementId, then the properties in their order.

    `equal` maps a property to the values it may have. With `labels` the node's labels follow. With `dimensions_but` a
    last column follows: a list of [name, value] of each property "dim_…" that is not among those named.
    """
    lines, parameters = _match(label, equal)
    if order_by:
        lines.append(f"WITH n ORDER BY n.{quoted(order_by)}")
    returned = ["elementId(n)", *(f"n.{quoted(name)}" for name in properties)]
    if labels:
        returned.append("labels(n)")
    if dimensions_but is not None:
        parameters |= {"prefix": DIMENSION_PREFIX, "known": list(dimensions_but)}
        returned.append("[k IN keys(n) WHERE k STARTS WITH $prefix AND NOT k IN $known | [k, n[k]]]")
    lines.append("RETURN " + ", ".join(f"{expression} AS c{number}" for number, expression in enumerate(returned)))
    if limit is not None:
        lines.append("LIMIT $limit")
        parameters["limit"] = limit
    return Query("\n".join(lines), parameters)


def count(label: str, equal: Mapping[str, Sequence[str]]) -> Query:
    """How many nodes of a label have these values."""
    lines, parameters = _match(label, equal)
    return Query("\n".join([*lines, "RETURN count(n)"]), parameters)


def _match(label: str, equal: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, Any]]:
    parameters: dict[str, Any] = {}
    conditions = []
    for number, (name, values) in enumerate(equal.items()):
        parameters[f"equal_{number}"] = list(values)
        conditions.append(f"n.{quoted(name)} IN $equal_{number}")
    lines = [f"MATCH (n:{quoted(label)})"]
    if conditions:
        lines.append("WHERE " + " AND ".join(conditions))
    return lines, parameters


def duplicates(label: str, tenant: str, tenant_property: str, keys: Sequence[str], others: Sequence[str]) -> Query:
    """The nodes of a tenant that share their key with another one: elementId, the values of the key and of others.

    Texts of a key are compared as PostgreSQL compares UUIDs: without case, hyphens and braces.
    """
    normal = [_normalised(f"n.{quoted(name)}") for name in keys]
    group = ", ".join(f"{expression} AS k{number}" for number, expression in enumerate(normal))
    present = " AND ".join(f"k{number} IS NOT NULL" for number in range(len(keys)))
    returned = ", ".join(f"n.{quoted(name)} AS c{number}" for number, name in enumerate((*keys, *others)))
    return Query(
        f"MATCH (n:{quoted(label)})\n"
        f"WHERE n.{quoted(tenant_property)} IN $tenant\n"
        f"WITH {group}, collect(n) AS nodes\n"
        f"WHERE size(nodes) > 1 AND {present}\n"
        "UNWIND nodes AS n\n"
        f"RETURN elementId(n), {returned}",
        {"tenant": spellings(tenant)},
    )


def _normalised(expression: str) -> str:
    text = f"toLower(toStringOrNull({expression}))"
    for part in ("-", "{", "}", ".0"):  # 2.0 is the number 2; what is brought together wrongly, the reader parts again
        text = f"replace({text}, '{part}', '')"
    return text


def tenant_counts(label: str, tenant_property: str) -> Query:
    """How many nodes of a label each value of the tenant's property has."""
    return Query(f"MATCH (n:{quoted(label)}) RETURN n.{quoted(tenant_property)} AS tenant, count(*) AS nodes")
