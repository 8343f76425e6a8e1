"""Flows in: sql/functions/25_doctor.sql, without the package. Flows out: what doctor() reports nevertheless; the checks
are tested in tests/fdw/doctor.
"""

from support.database import Database
from support.doctor import doctor


def test_a_missing_package_is_named_and_what_needs_it_is_not_checked(database: Database) -> None:
    pg = database.connect()
    pg.execute("DO LANGUAGE plpython3u $$ import sys; sys.modules['neo4j_deals'] = None $$")
    checks = doctor(pg)
    assert not checks["package"].ok
    assert "could not import" in checks["package"].detail
    assert "reconnect" in str(checks["package"].hint)
    for name in ("graph", "target columns", "target types"):
        assert checks[name].detail == "not checked: package"
    assert doctor(database.connect())["package"].ok
