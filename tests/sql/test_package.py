"""Flows in: sql/functions/03_package.sql, if the Python package is missing, is another version, or would crash the
server. Flows out: an error with the remedy.
"""

import subprocess
import sys
from typing import LiteralString

import psycopg
import pytest
from environment.state import CHECKOUT
from support.database import Connection, Database
from support.sync import one

ENTRIES: tuple[LiteralString, ...] = (
    "SELECT * FROM sync_deals(gen_random_uuid())",
    "SELECT deal_sync.attach()",
    "SELECT * FROM deal_sync.scan(NULL::neo4j.deals)",
)


@pytest.mark.german
@pytest.mark.usefixtures("out_of_reach")
def test_a_package_of_another_version_is_named_with_the_remedy(pg: Connection) -> None:
    pg.execute("UPDATE pg_extension SET extversion = '99.1' WHERE extname = 'deal_sync'")
    for entry in ENTRIES:
        with pytest.raises(
            psycopg.errors.ObjectNotInPrerequisiteState, match=r"does not support deal_sync 99\.1"
        ) as raised:
            pg.execute(entry)
        assert "It supports" in str(raised.value.diag.message_detail)
        assert "99.1" in str(raised.value.diag.message_hint)
        assert "reconnect" in str(raised.value.diag.message_hint)


@pytest.mark.german
@pytest.mark.usefixtures("out_of_reach")
def test_a_missing_package_is_named_with_the_remedy(database: Database) -> None:
    for entry in ENTRIES:
        with database.connect() as session:
            session.execute("DO LANGUAGE plpython3u $$ import sys; sys.modules['neo4j_deals'] = None $$")
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="could not import") as raised:
                session.execute(entry)
        assert "Python is 3." in str(raised.value.diag.message_detail)
        assert "Install the package" in str(raised.value.diag.message_hint)


@pytest.mark.parametrize("missing", ["orjson", "neo4j", ""])
def test_the_import_leaves_the_sessions_python_as_it_was(missing: str) -> None:
    code = (
        "import gc, sys\n"
        f"sys.modules.update(dict.fromkeys({missing.split()}))\n"
        "try:\n"
        "    import neo4j_deals.entry\n"
        "except ImportError:\n"
        f"    assert {bool(missing)}\n"
        "assert gc.isenabled() and 'numpy' not in sys.modules\n"
        "import numpy"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(CHECKOUT / "fdw")}, check=True)


def test_the_parts_of_a_message_are_joined_without_a_second_full_stop_or_semicolon(pg: Connection) -> None:
    for parts, joined in (
        (["a cause", None, "", "nothing was written"], "a cause; nothing was written"),
        (["a cause", "Facts.", "SET a.b = 1;", "nothing"], "a cause. Facts. SET a.b = 1; nothing"),
        (["a cause; a part", "as the system says it", "Do this."], "a cause; a part; as the system says it. Do this"),
        ([None], None),
    ):
        assert one(pg, "SELECT _deal_sync.sentences(VARIADIC %s::text[])", parts) == joined
