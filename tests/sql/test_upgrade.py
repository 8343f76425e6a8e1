"""In: the scripts of the extension's versions. Out: proof that a database that is updated is one that is new.

extension/deal_sync--0.1.0.sql is what `make` built from sql/ before commit 60691cf, and changes no more. What later
commits have corrected in 0.1.0's SQL stands on names that it does not have, and comes with 0.2.0.
"""

import re

from environment import upgrade
from environment.servers import Instance
from environment.state import CHECKOUT
from neo4j_deals import SERVES, __version__


def test_the_package_has_the_version_of_the_extension() -> None:
    control = (CHECKOUT / "extension/deal_sync.control").read_text()
    assert re.findall("^default_version = '(.*)'$", control, re.M) == [__version__]
    assert __version__ in SERVES


def test_the_files_of_sql_are_numbered_without_gaps_or_twins() -> None:
    for folder in ("tables", "functions", "last"):
        numbers = sorted(file.name[:3] for file in (CHECKOUT / "sql" / folder).iterdir())
        assert numbers == [f"{number:02}_" for number in range(1, len(numbers) + 1)]


def test_the_generated_parts_of_the_script_are_those_of_this_tree(servers: Instance) -> None:
    stale = [str(path) for path, text in upgrade.parts(servers).items() if path.read_text() != text]
    assert not stale, "run: make upgrade"
