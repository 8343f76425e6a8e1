"""In: the nodes of the mapping's labels. Out: whether runs can read them, and whether the mapping fits them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

from neo4j_deals import catalog
from neo4j_deals.doctor.case import Finding, OwnersCase, check_of_nodes
from neo4j_deals.graph import cypher
from neo4j_deals.graph.cypher import Query, is_a_tenant, quoted
from neo4j_deals.graph.results import rows_of
from neo4j_deals.mapping.defaults import DIMENSION_PREFIX, TABLES
from neo4j_deals.mapping.model import Table
from neo4j_deals.quoting import literal
from neo4j_deals.tables import imports

_FUTURE = "PT10M"  # writers' clocks may be ahead
_WITHOUT_MOMENT = 0.1  # share of nodes; in a real graph about one in twenty is a skeleton, which has no timestamp
_SAYS_A_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}.*"  # a text with a date, and perhaps a time
_SAYS_NO_ZONE = ".{10}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?"


@check_of_nodes("duplicates")
def duplicates(case: OwnersCase, table: Table) -> Finding:
    """Is each key unique, over all tenants? The application's tables can have an id only once."""
    key = f"n.{quoted(table.key.property)}"
    group = f"MATCH (n:{quoted(table.label)})\nWITH {cypher.normalised(key)} AS key, "
    some = "WHERE key IS NOT NULL AND "
    keys, nodes = case.row(
        Query(f"{group}count(*) AS nodes\n{some}nodes > 1\nRETURN count(*), coalesce(sum(nodes), 0)"), int, int
    )
    if not keys:
        return Finding(True, f"each {table.key.property} is unique")
    shown = f"{group}collect(n) AS nodes {some}size(nodes) > 1 UNWIND nodes AS n RETURN elementId(n), {key}"
    return Finding(
        False,
        f"values of {table.key.property} shared by several nodes: {keys}, on {nodes} nodes; one node of each lands",
        "Delete the superfluous nodes, which are among: " + shown.replace("\n", " "),
    )


@check_of_nodes("tenants")
def tenants(case: OwnersCase, table: Table) -> Finding:
    """Does each node belong to a tenant?"""
    property_ = table.tenant.property
    found, _ = case.row(cypher.tenant_counts(table.label, property_), list, int)
    counts = rows_of(found, object, int)
    absent = sum(nodes for value, nodes in counts if value is None)
    odd = sum(nodes for value, nodes in counts if value is not None and not is_a_tenant(value))
    if not absent and not odd:
        return Finding(True, f"nodes: {sum(nodes for _, nodes in counts)}, tenants: {len(counts)}")
    name = f"n.{quoted(property_)}"
    return Finding(
        False,
        f"nodes of no tenant: {absent + odd}; {property_} is absent on {absent}, not a UUID in its usual form on {odd}",
        "Set it to the tenant's id, a UUID in lower case. They are among:"
        f" MATCH (n:{quoted(table.label)}) WITH {name} AS tenant, collect(elementId(n)) AS nodes"
        " RETURN tenant, size(nodes), nodes[..5]",
    )


@check_of_nodes("timestamps")
def timestamps(case: OwnersCase, table: Table) -> Finding:
    """Do nodes say when they were changed?"""
    first = f"coalesce({', '.join(f'n.{quoted(name)}' for name in table.changed_by)})"
    is_a_time = " OR ".join(f"{first} IS :: {type_} NOT NULL" for type_ in ("ZONED DATETIME", "LOCAL DATETIME", "DATE"))
    unreadable = f"NOT ({is_a_time} OR {first} IS :: STRING NOT NULL AND {first} =~ '{_SAYS_A_DAY}')"
    match = f"MATCH (n:{quoted(table.label)})"
    epochs = _epochs(table)
    no_zone = f"{first} IS :: LOCAL DATETIME NOT NULL OR {first} IS :: STRING NOT NULL AND {first} =~ '{_SAYS_NO_ZONE}'"
    nodes, absent, wrong, local, *of_epochs = case.row(
        Query(
            f"{match}\nRETURN count(n), count(CASE WHEN {first} IS NULL THEN 1 END),"
            f" count(CASE WHEN {first} IS NOT NULL AND {unreadable} THEN 1 END), count(CASE WHEN {no_zone} THEN 1 END)"
            + "".join(f", count(CASE WHEN {condition} THEN 1 END)" for condition, _ in epochs)
        ),
        *[int] * (4 + len(epochs)),
    )
    said = f"nodes without {' and '.join(table.changed_by)}: {absent} of {nodes}"
    if local:
        said += f"; with a time without a zone: {local} (it counts as UTC, and runs look 14 hours further back for it)"
    if not wrong and absent <= nodes * _WITHOUT_MOMENT:
        return Finding(True, said)
    remedies = [
        f"{match} WHERE {condition} SET {change}"
        for (condition, change), found in zip(epochs, of_epochs, strict=True)
        if found
    ]
    if wrong > sum(of_epochs):
        remedies.append(_set_moment(case, table, f"{first} IS NOT NULL AND {unreadable}"))
    if absent > nodes * _WITHOUT_MOMENT:
        remedies.append(_set_moment(case, table, f"{first} IS NULL", keeping=False))
    return Finding(False, f"{said}; with an invalid time, so that every run reads them: {wrong}", "; ".join(remedies))


def _epochs(table: Table) -> list[tuple[str, str]]:
    """For times stored as integers since 1970: a condition for such nodes, and an assignment that converts them.

    Seconds and milliseconds are distinguished by the years that they would mean: from 2000 until now.
    """
    return [
        (
            f"n.{quoted(name)} IS :: INTEGER NOT NULL AND {since_2000} <= n.{quoted(name)} <= datetime().{unit}",
            f"n.{quoted(name)} = datetime({{{unit}: n.{quoted(name)}}})",
        )
        for name in table.changed_by
        for unit, since_2000 in (("epochSeconds", 946_684_800), ("epochMillis", 946_684_800_000))
    ]


@check_of_nodes("future")
def future(case: OwnersCase, table: Table) -> Finding:
    """Is no timestamp in the future?

    Times are compared with the graph's clock; texts by their date, because they may have any offset.
    """
    name = f"n.{quoted(table.changed_by[0])}"
    day = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    condition = " OR ".join(
        [
            *(f"{name} > {clock}() + duration('{_FUTURE}')" for clock in ("datetime", "localdatetime")),
            f"{name} >= '{day}' AND {name} =~ '{_SAYS_A_DAY}'",
        ]
    )
    (nodes,) = case.row(Query(f"MATCH (n:{quoted(table.label)}) WHERE {condition} RETURN count(n)"), int)
    if not nodes:
        return Finding(True, "no timestamp is in the future")
    return Finding(
        False,
        f"nodes with a {table.changed_by[0]} in the future: {nodes}; every run reads them",
        _set_moment(case, table, f"({condition})"),
    )


def _set_moment(case: OwnersCase, table: Table, condition: str, *, keeping: bool = True) -> str:
    """What to do with the nodes that satisfy it: a deal may be marked as changed now, a version's times are a fact.

    The old value is kept in another property whose name no node has, because it may be all that is known. The statement
    skips nodes that have this property by now, so that it destroys nothing if it is run again.
    """
    match, moment = f"MATCH (n:{quoted(table.label)}) WHERE {condition}", f"n.{quoted(table.changed_by[0])}"
    if table.kind != "deal":
        return f"Set it to the time of the change, a ZONED DATETIME. They are: {match} RETURN elementId(n), {moment}"
    if not keeping:
        return f"{match} SET {moment} = datetime()"
    kept = f"n.{quoted(_free_name(case, table, f'{table.changed_by[0]}_before'))}"
    return f"{match} AND {kept} IS NULL SET {kept} = {moment}, {moment} = datetime()"


def _free_name(case: OwnersCase, table: Table, name: str) -> str:
    """A name that no property of the label's nodes has: this one, or one with a number at its end."""
    match = f"MATCH (n:{quoted(table.label)}) UNWIND keys(n) AS name"
    query = Query(f"{match} WITH name WHERE name STARTS WITH $name RETURN collect(DISTINCT name)", {"name": name})
    (taken,) = case.row(query, list)
    return next(free for number in count(1) if (free := name if number == 1 else f"{name}_{number}") not in taken)


@check_of_nodes("unmapped")
def unmapped(case: OwnersCase, table: Table) -> Finding:
    """Does each property in a sample have a column?

    A version is a copy of its deal: properties that only the deals' table maps are left out there on purpose. A
    dimension without a column is part of the document of all dimensions.
    """
    columns = [column for one in (table, case.table("deal")) for column in one.columns]
    in_documents = any(column.derive == "ontology_scores" for column in columns)
    match = f"MATCH (n:{quoted(table.label)})\nWITH n LIMIT $sample\n"
    names = Query(
        f"{match}UNWIND keys(n) AS name\nWITH DISTINCT name\n"
        "WHERE NOT name IN $known AND NOT ($in_documents AND name STARTS WITH $prefix)\nRETURN name ORDER BY name",
        {
            "sample": imports.SAMPLE,
            "known": sorted({column.property for column in columns}),
            "in_documents": in_documents,
            "prefix": DIMENSION_PREFIX,
        },
    )
    found = [name for (name,) in case.rows(names, str)]
    if not found:
        return Finding(True, f"each property of the first {imports.SAMPLE} nodes has a column")
    vector = catalog.vector_type(case.plpy)
    wish = imports.Wish(only=[table.label], sample=imports.SMALL_SAMPLE)
    _, named, labels = case.ask(lambda ask: imports.found(ask, wish, {}))
    types = {
        options.get("property", name): type_
        for made in imports.tables(wish, named, labels, vector).tables
        for name, type_, options in made.columns
    }
    used = {column.name for column in table.columns} | imports.SYSTEM_COLUMNS
    added: list[imports.Column] = []
    for name in found:
        free = imports.free_name(name, used)
        added.append((free, types.get(name, "text"), {} if free == name else {"property": name}))
    return Finding(
        False,
        f"no column shows {', '.join(found[:5])}" + (f" and {len(found) - 5} more" if len(found) > 5 else ""),
        f"ALTER FOREIGN TABLE {table.name} "
        + ", ".join(f"ADD COLUMN {imports.as_definition(column)}" for column in added)
        + ";",
    )


@check_of_nodes("absent")
def absent(case: OwnersCase, table: Table) -> Finding:
    """Does the property of each column exist on some node? A graph need not have all that attach() maps."""
    shown = {column.property: column for column in table.columns if column.derive is None}
    match = f"MATCH (n:{quoted(table.label)})"
    keys = f"{match} WITH n LIMIT $sample UNWIND keys(n) AS name RETURN DISTINCT name ORDER BY name"
    found = [name for (name,) in case.rows(Query(keys, {"sample": imports.SAMPLE}), str)]
    rest = sorted(set(shown) - set(found))
    if not found or not rest:
        return Finding(True, "the property of each column exists on some node" if found else "there are no nodes yet")
    counts = case.row(
        Query(f"{match} RETURN {', '.join(f'count(n.{quoted(name)})' for name in rest)}"), *[int] * len(rest)
    )
    absent = [name for name, nodes in zip(rest, counts, strict=True) if not nodes]
    unshown = {_folded(name): name for name in found if name not in shown}
    alike = {name: unshown[_folded(name)] for name in absent if _folded(name) in unshown}
    by_default = {column.name for one in TABLES if one.kind == table.kind for column in one.columns}
    wrong = [name for name in absent if name in alike or shown[name].name not in by_default]
    if not wrong:
        return Finding(True, f"no node has these properties of the default mapping: {', '.join(absent) or 'none'}")
    has_option = catalog.query(
        case.plpy,
        "SELECT m.name FROM _deal_sync.mapping_columns(_deal_sync.mapped($1)) AS m"
        " WHERE pg_catalog.jsonb_exists(m.options, 'property')",
        ["text"],
        [table.kind],
    )
    set_before = {row["name"] for row in has_option}
    return Finding(
        False,
        "no node has "
        + ", ".join(f"{name} (but some have {alike[name]})" if name in alike else name for name in wrong[:5])
        + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
        "Map the column to a property that the nodes have: "
        + " ".join(
            f"ALTER FOREIGN TABLE {table.name} ALTER COLUMN {case.ident(shown[name].name)} OPTIONS"
            f" ({'SET' if shown[name].name in set_before else 'ADD'} property {literal(alike.get(name, '…'))});"
            for name in wrong
        ),
    )


def _folded(name: str) -> str:
    """The same for all spellings of a name: nextStep, nextstep, next_step."""
    return name.replace("_", "").casefold()
