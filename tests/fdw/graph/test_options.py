"""Flows in: the options of a server and a user mapping. Flows out: whom to ask, without a word of the password."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.options import ServerOptions

SECRET = "s3cret!/@:word"


def options(mapping: dict[str, str] | None = None, **server: str) -> ServerOptions:
    return ServerOptions.read("graph", {"uri": "bolt://localhost:7687", **server}, "app_owner", mapping or {})


def test_what_is_not_set_has_its_default() -> None:
    read = options()
    assert (read.server, read.login, read.uri) == ("graph", "app_owner", "bolt://localhost:7687")
    assert (read.database, read.connect_timeout, read.query_timeout, read.fetch_size) == (None, 10.0, None, 100)
    assert (read.user, read.password()) == (None, None)
    assert (read.idle_timeout, read.keep_alive, read.max_rows) == (60.0, True, None)
    assert (read.sslrootcert, read.trusting(), read.bearer_token) == (None, None, None)


def test_what_is_set_is_read_in_seconds_and_records() -> None:
    read = options(database="deals", connect_timeout="2.5", query_timeout="60", fetch_size="50")
    assert (read.database, read.connect_timeout, read.query_timeout, read.fetch_size) == ("deals", 2.5, 60.0, 50)


def test_what_else_is_set_is_read_in_seconds_and_rows() -> None:
    read = options({"bearer_token": "t"}, idle_timeout="0.5", keep_alive="off", max_rows="10", sslrootcert="/root.crt")
    assert (read.idle_timeout, read.keep_alive, read.max_rows) == (0.5, False, 10)
    assert (read.sslrootcert, read.bearer_token) == ("/root.crt", "t")
    assert [options(keep_alive=word).keep_alive for word in ("true", "on", "false")] == [True, True, False]


def test_a_server_without_an_uri_is_a_setup_error_with_the_statement_that_fixes_it() -> None:
    with pytest.raises(DealSyncError) as caught:
        ServerOptions.read("graph", {}, "app_owner", {})
    assert caught.value.sqlstate == "HV00L"
    assert '"graph"' in caught.value.message
    assert "ALTER SERVER graph OPTIONS (ADD uri" in (caught.value.hint or "")


def test_the_options_cannot_be_changed_and_tell_two_logins_apart() -> None:
    read = options({"user": "neo4j", "password": "one"})
    with pytest.raises(FrozenInstanceError):
        read.uri = "bolt://elsewhere"  # type: ignore[misc]
    assert read == options({"user": "neo4j", "password": "one"})
    assert read != options({"user": "neo4j", "password": "two"})


# -- the password ------------------------------------------------------------------------------------------------------


def test_the_password_is_not_in_the_representation() -> None:
    read = options({"password": SECRET, "password_file": "/secret/place", "bearer_token": SECRET[::-1]})
    for text in (repr(read), str(read), f"{read}"):
        assert SECRET not in text
        assert "/secret/place" not in text
        assert SECRET[::-1] not in text


def test_a_password_file_comes_first_is_read_anew_and_loses_its_line_break(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first \n")
    read = options({"user": "neo4j", "password": "other", "password_file": str(file)})
    assert read.password() == "first "
    file.write_text("second\r\n")
    assert read.password() == "second"


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), (b"\xff\xfe", "it is not UTF-8 text")]
)
def test_a_password_file_that_cannot_be_read_says_why_without_its_content(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DealSyncError) as caught:
        options({"user": "neo4j", "password_file": str(file)}).password()
    assert (caught.value.sqlstate, caught.value.detail) == ("28P01", why)
    assert caught.value.hint
    assert caught.value.__cause__ is None
    assert str(file) not in caught.value.message + (caught.value.detail or "")


@given(before=st.text(), after=st.text())
def test_the_password_is_taken_out_of_what_the_driver_says(before: str, after: str) -> None:
    assert SECRET not in options({"password": SECRET}).redact(f"{before}{SECRET}{after}")


@given(before=st.text(), after=st.text())
def test_the_token_is_taken_out_too(before: str, after: str) -> None:
    assert SECRET not in options({"bearer_token": SECRET}).redact(f"{before}{SECRET}{after}")


def test_the_password_of_a_file_is_taken_out_too(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    read = options({"user": "neo4j", "password_file": str(file)})
    assert read.password() == SECRET
    assert SECRET not in read.redact(f"wrong password {SECRET}")


@pytest.mark.parametrize("password", ["word", "w@rd", "w/rd", "w:@/rd"])
def test_a_login_inside_an_address_is_taken_out(password: str) -> None:
    redacted = options().redact(f"cannot reach bolt://neo4j:{password}@db.example:7687, giving up")
    assert redacted == "cannot reach bolt://db.example:7687, giving up"


def test_an_address_without_a_login_stays_as_it_is() -> None:
    assert options().redact("bolt://db.example:7687/x, a@b") == "bolt://db.example:7687/x, a@b"
