"""In: the package's templates. Out: the same as Python, in what is installed: a session need not compile them."""

import sys
from pathlib import Path

from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))

from neo4j_deals.sync import statements


class BuildPy(build_py):
    """The command of setuptools, with this step at its end."""

    def run(self) -> None:
        super().run()
        statements.compile_templates(Path(self.build_lib, "neo4j_deals", "sync", statements.COMPILED))
