"""In: this installation of the package. Out: which it is."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from neo4j_deals import __file__ as package_file
from neo4j_deals import __version__


def versions() -> str:
    """The package, what it needs, and where they lie."""
    needed = [re.split(r"[^\w-]", line)[0] for line in metadata.requires("deal-sync") or ()]
    listed = ", ".join(f"{name} {metadata.version(name)}" for name in needed)
    return f"neo4j_deals {__version__} in {Path(package_file).parent}; {listed}"
