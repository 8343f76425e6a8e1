"""Flows in: tests/environment. Flows out: that servers which do not start say why."""

from pathlib import Path

import pytest
from environment.servers import Instance
from environment.state import SetupError


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
