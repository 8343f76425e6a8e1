"""In: what rows lost. Out: one WARNING that names columns and counts and no value, or an error that names the node."""

import pytest
from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.model import Column
from neo4j_deals.rows.values import Misfit
from neo4j_deals.rows.warning import MisfitCount

COLUMNS = [Column("b", "b", "int8"), Column("a", "a", "text"), Column("c", "c", "int8", strict=True)]


def lost(*names: str) -> dict[str, tuple[Misfit, object]]:
    return {name: (Misfit("22003", f"reason of {name}"), "secret") for name in names}


def test_nothing_lost_is_nothing_said() -> None:
    assert MisfitCount("x", COLUMNS).warning(COLUMNS) is None


def test_columns_are_named_in_the_tables_order_with_count_and_first_reason() -> None:
    count = MisfitCount("foreign table x", COLUMNS)
    count.add("4:x:1", lost("a", "b"))
    count.add("4:x:2", lost("b"))

    warning = count.warning(COLUMNS)

    assert warning is not None
    assert warning.message == '3 misfits in foreign table x: "b" 2, "a" 1'
    assert warning.detail.endswith("First of each column: b: reason of b; a: reason of a")
    assert "on_misfit" in warning.hint
    assert "secret" not in str(warning)


def test_a_single_value_is_one_value() -> None:
    count = MisfitCount("x", COLUMNS)
    count.add("4:x:1", lost("a"))
    warning = count.warning(COLUMNS)
    assert warning is not None
    assert warning.message == '1 misfit in x: "a" 1'


def test_a_strict_column_is_an_error_with_the_misfits_sqlstate() -> None:
    with pytest.raises(DealSyncError) as raised:
        MisfitCount("x", COLUMNS).add("4:x:7", lost("c"))
    assert raised.value.sqlstate == "22003"
    assert raised.value.message == 'misfit in column "c" of node "4:x:7"'
    assert raised.value.detail == "reason of c"
    assert "secret" not in f"{raised.value.message}{raised.value.detail}{raised.value.hint}"
