"""In: this installation of the package. Out: its versions."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from neo4j_deals import __file__ as package_file
from neo4j_deals import __version__


def versions() -> str:
    """The versions of the package and of what it requires, and where it is."""
    needed = [re.split(r"[^\w-]", line)[0] for line in metadata.requires("deal-sync") or ()]
    listed = ", ".join(f"{name} {metadata.version(name)}" for name in needed)
    return f"neo4j_deals {__version__} in {Path(package_file).parent}; {listed}"
