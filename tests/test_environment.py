"""Flows in: tests/environment. Flows out: that servers which do not start say why, and that pg_cron works in a database
that is made anew.
"""

from pathlib import Path

import pytest
from environment import database as environment_database
from environment.servers import CRON_DATABASE, Instance, claimed
from environment.state import SetupError
from support.backend import await_true


def test_a_neo4j_that_does_not_start_shows_the_last_lines_of_its_own_log() -> None:
    instance = Instance("test-broken")
    try:
        instance.neo4j.mkdir(parents=True, exist_ok=True)
        (instance.neo4j / "data").write_text("a file in place of the directory")
        with pytest.raises(SetupError, match="Neo4j does not start") as failed:
            instance.start()
        said = str(failed.value)
        assert str(instance.neo4j / "server.log") in said
        assert "Exception" in said
    finally:
        instance.remove()
    assert not Path(instance.directory).exists()


def test_pg_cron_works_in_its_database_after_that_was_made_anew() -> None:
    launcher = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    with claimed("test", neo4j=False) as own:
        for _ in range(2):
            environment_database.create(own, CRON_DATABASE)
            assert await_true(lambda: own.psql(CRON_DATABASE, "-c", launcher) != "", seconds=10)
