"""In: a template of fdw/neo4j_deals/sync/sql, as sqlfluff renders it. Out: SQL to be linted."""

SQLFLUFF_JINJA_FILTERS = {
    "ident": str,
    "literal": lambda value: f"'{value}'",
    "sql": lambda value, indent=0: str(value),
}
