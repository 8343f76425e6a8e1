"""In: the catalog. Out: the first setup error of the mapping or of the application's tables."""

from __future__ import annotations

from functools import partial

from neo4j_deals import catalog
from neo4j_deals.catalog import QuotingPlpy
from neo4j_deals.mapping import checks
from neo4j_deals.mapping.application import TargetTable
from neo4j_deals.mapping.model import Table
from neo4j_deals.sync import names


def check_targets(plpy: QuotingPlpy, shown: str | None = None) -> None:
    """Raises DealSyncError, or PostgreSQL's error if a table does not exist. `shown`: the kind whose foreign table must
    be able to hold every value that the sync lands.
    """
    tables = {}
    for kind in ("deal", "version"):
        tables[kind] = catalog.mapping(plpy, kind)
        checks.raise_first(checks.OF_A_TARGET, _setup(plpy, tables[kind], catalog.target(plpy, kind)))
    checks.raise_first(checks.OF_LINKS, _setup(plpy, tables["deal"], catalog.target(plpy, "deal", "links")))
    if shown is not None:
        checks.check_shown(tables[shown], plpy)


def _setup(plpy: QuotingPlpy, table: Table, target: TargetTable) -> checks.Setup:
    reserved, longest = names.reserved()
    return checks.Setup(table, target, plpy, partial(catalog.cast_error, plpy), reserved, longest)
