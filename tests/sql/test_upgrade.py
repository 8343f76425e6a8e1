"""In: the scripts of the extension's versions. Out: proof that a database that is updated is one that is new.

extension/deal_sync--0.1.0.sql is what `make` built from sql/ before commit 60691cf, and changes no more. What later
commits have corrected in 0.1.0's SQL stands on names that it does not have, and comes with 0.2.0.
"""

import re

from environment.state import CHECKOUT
from neo4j_deals import SERVES, __version__


def test_the_package_has_the_version_of_the_extension() -> None:
    control = (CHECKOUT / "extension/deal_sync.control").read_text()
    assert re.findall("^default_version = '(.*)'$", control, re.M) == [__version__]
    assert __version__ in SERVES
