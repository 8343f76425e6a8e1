"""What tests share beside the fixtures of conftest.py."""

from pathlib import Path

import pytest

# An assertion that fails here shows its values, as those of the tests do.
pytest.register_assert_rewrite(*(f"support.{module.stem}" for module in Path(__file__).parent.glob("[a-z]*.py")))
