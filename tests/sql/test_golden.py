"""Flows in: mappings, each changed in one way. Flows out: the statements of a run, as tests/golden has them.

Those of the default mapping are there in full, those of the others as a diff. DEAL_SYNC_GOLDEN=write rewrites the
files, for an intended change, which the diff shows.
"""

import difflib
import os
import re
from pathlib import Path
from typing import LiteralString

import pytest
from support.database import Connection

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
TENANT = "aaaaaaaa-0000-4000-8000-000000000001"

DEALS, VERSIONS = "ALTER FOREIGN TABLE neo4j.deals ", "ALTER FOREIGN TABLE neo4j.deal_versions "
OPPORTUNITIES = "ALTER TABLE opportunities "

#: By name, the statements that change the mapping.
MAPPINGS: dict[str, list[str]] = {
    "write_never": [DEALS + "ALTER deal_ref OPTIONS (ADD write 'never')"],
    "write_insert": [DEALS + "ALTER deal_ref OPTIONS (ADD write 'insert')"],
    "write_fill": [DEALS + "ALTER deal_ref OPTIONS (ADD write 'fill')"],
    "on_misfit_keep": [DEALS + "ALTER deal_ref OPTIONS (ADD on_misfit 'keep')"],
    "on_misfit_reject": [
        DEALS + "ALTER deal_ref OPTIONS (ADD on_misfit 'reject')",
        VERSIONS + "ALTER name OPTIONS (ADD on_misfit 'reject')",
    ],
    "on_misfit_error": [DEALS + "ALTER deal_ref OPTIONS (ADD on_misfit 'error')"],
    "default_and_fallback": [
        DEALS + "ALTER deal_ref OPTIONS (ADD \"default\" 'none')",
        DEALS + "ALTER opportunity_summary OPTIONS (ADD fallback 'deal_ref')",
    ],
    "fill_and_reject": [DEALS + "ALTER deal_ref OPTIONS (ADD write 'fill', ADD on_misfit 'reject')"],
    "empty_null": [DEALS + "ALTER deal_ref OPTIONS (ADD empty 'null')"],
    "domain": [
        "CREATE DOMAIN reference AS text CHECK (value <> 'bad')",
        OPPORTUNITIES + "ALTER deal_ref TYPE reference",
    ],
    "domain_reject": [
        "CREATE DOMAIN reference AS text CHECK (value <> 'bad')",
        OPPORTUNITIES + "ALTER deal_ref TYPE reference",
        DEALS + "ALTER deal_ref OPTIONS (ADD on_misfit 'reject')",
    ],
    "enum": [
        "CREATE TYPE reference AS ENUM ('good')",
        OPPORTUNITIES + "ALTER deal_ref TYPE reference USING NULL",
    ],
    "varchar": [OPPORTUNITIES + "ALTER deal_ref TYPE varchar(20)"],
    "char": [OPPORTUNITIES + "ALTER deal_ref TYPE char(20)"],
    "not_null": [
        OPPORTUNITIES + "ALTER deal_ref SET DEFAULT 'none'",
        OPPORTUNITIES + "ALTER deal_ref SET NOT NULL",
    ],
    "stamps": [
        OPPORTUNITIES + 'RENAME updated_at TO "updatedAt"',
        DEALS + "OPTIONS (ADD stamps 'updatedAt')",
    ],
    "without_stamps": [OPPORTUNITIES + "DROP COLUMN updated_at CASCADE"],
    "odd_names": [
        DEALS + 'RENAME deal_ref TO "deal""s %ref"',
        OPPORTUNITIES + 'RENAME deal_ref TO "it\'s {{ ref }}"',
        DEALS + "ALTER \"deal\"\"s %ref\" OPTIONS (SET target 'it''s {{ ref }}')",
        'ALTER SCHEMA neo4j RENAME TO "Graph\'s"',
    ],
    "links_with_keys": [
        "ALTER TABLE interaction_links ALTER COLUMN id DROP DEFAULT, ALTER COLUMN created_at DROP DEFAULT,"
        " ALTER COLUMN created_at SET NOT NULL"
    ],
}

STATEMENTS: LiteralString = """
    SELECT concat(k.kind, ': ', s.key), s.value
    FROM unnest(ARRAY['deal', 'version']) AS k (kind)
    CROSS JOIN LATERAL jsonb_each_text(to_jsonb(_deal_sync.statements_of(
        k.kind, %(tenant)s, CASE WHEN %(is_part)s THEN _deal_sync.embedding_columns(k.kind) ELSE '{}' END, %(completes)s
    ))) AS s
    WHERE s.value IS NOT NULL
    UNION ALL
    SELECT concat(k.kind, ': merge by hand'), _deal_sync.merge_by_hand(k.kind)
    FROM unnest(ARRAY['deal', 'version']) AS k (kind)
    UNION ALL
    SELECT 'deal: count of values', _deal_sync.count_of_values()
    UNION ALL
    SELECT 'tenant: comparison', _deal_sync.comparison_of_tenant()
"""


def statements(pg: Connection, completes: bool = False, is_part: bool = False) -> str:
    """All of them, each under its name; OIDs, which differ between databases, as the names of their objects."""
    found = pg.execute(STATEMENTS, {"tenant": TENANT, "completes": completes, "is_part": is_part}).fetchall()
    text = "\n\n".join(f"-- {name}\n{statement.strip(chr(10))}" for name, statement in sorted(found)) + "\n"
    for kind in ("deal", "version"):
        oid = pg.execute("SELECT _deal_sync.mapped(%s)::oid::text", [kind]).fetchone()
        assert oid is not None
        text = re.sub(rf"\b{oid[0]}\b", f"<oid of the {kind}s' foreign table>", text)
    return text


def agree(file: Path, found: str) -> None:
    if os.environ.get("DEAL_SYNC_GOLDEN") == "write":
        file.write_text(found)
    assert found == file.read_text()


def difference(default: str, other: str) -> str:
    """With a line as its context, and the name of the statement that it is in."""
    lines, heads = default.splitlines(), [""]
    for line in lines:
        heads.append(line if line.startswith("-- ") else heads[-1])
    said = []
    for line in difflib.unified_diff(lines, other.splitlines(), n=1, lineterm=""):
        if at := re.match(r"@@ -(\d+)", line):
            said += ["", heads[int(at[1])]]
        elif not line.startswith(("---", "+++")):
            said.append(line)
    return "\n".join(said).lstrip("\n") + "\n"


def test_the_statements_of_the_default_mapping_are_those_of_the_golden_file(pg: Connection) -> None:
    agree(GOLDEN / "default.sql", statements(pg))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_another_mapping_has_the_statements_of_its_golden_file(pg: Connection, mapping: str) -> None:
    for statement in MAPPINGS[mapping]:
        pg.execute(statement.encode())
    agree(GOLDEN / f"{mapping}.diff", difference((GOLDEN / "default.sql").read_text(), statements(pg)))


@pytest.mark.parametrize(("use", "completes", "is_part"), [("completion", True, False), ("comparison", True, True)])
def test_another_use_has_the_statements_of_its_golden_file(
    pg: Connection, use: str, completes: bool, is_part: bool
) -> None:
    found = statements(pg, completes, is_part)
    agree(GOLDEN / f"{use}.diff", difference((GOLDEN / "default.sql").read_text(), found))


def test_each_golden_file_is_of_a_mapping_or_a_use() -> None:
    files = {file.name for file in GOLDEN.iterdir()}
    assert files == {"default.sql", "completion.diff", "comparison.diff", *(f"{name}.diff" for name in MAPPINGS)}
