"""In: the members of the extension as the version before made them, and as this one does. Out: the parts of the script
that leads from the one to the other which follow from that.

A folder of extension/upgrades has four parts, and `make` puts sql/functions between the second and the third:

1_generated.sql  what went, or has another signature, is dropped; what has another schema, moves; new types
2_by_hand.sql    what becomes of tables, and columns that get another name
3_generated.sql  what is new is nobody's to call; comments of what is created once
4_by_hand.sql    what stands on the new functions
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .servers import Instance, claimed
from .state import CHECKOUT, SetupError

UPGRADES = CHECKOUT / "extension/upgrades"
QUERY = Path(__file__).with_suffix(".sql")
BEFORE, BY_HAND, AFTER = "1_generated.sql", "2_by_hand.sql", "3_generated.sql"
RENAMED = re.compile(r"^ALTER (TABLE|VIEW) _?deal_sync\.(\w+) RENAME COLUMN (\w+) TO (\w+);$", re.M)
HEAD = "-- In: the members of {}. Out: {}\n-- Written by `make upgrade`, from the catalogs of the two versions.\n"
WIDTH = 120
KINDS = ("ROUTINE", "VIEW", "TABLE", "TYPE")  # what stands in a schema: the types last, which the others name
OWNER = """
-- A new function of another owner would look for another user mapping.
DO $$
DECLARE
    extension_owner CONSTANT regrole := (SELECT e.extowner FROM pg_extension AS e WHERE e.extname = 'deal_sync');
BEGIN
    IF extension_owner <> quote_ident(current_user)::regrole THEN
        RAISE EXCEPTION 'extension "deal_sync" must be updated by its owner' USING
            ERRCODE = 'insufficient_privilege',
            HINT = format('SET ROLE %s;', extension_owner);
    END IF;
END
$$;
"""


@dataclass(frozen=True, eq=False)
class Member:
    """A schema, routine, view, table, type or wrapper. `needs`: OIDs of what it depends on; `comments`: by column."""

    oid: int
    kind: str
    schema: str
    name: str
    arguments: str | None
    signature: dict[str, Any]
    needs: tuple[int, ...]
    comments: dict[str, str]

    @property
    def called(self) -> str:
        qualified = f"{self.schema}.{self.name}" if self.schema else self.name
        return qualified if self.arguments is None else f"{qualified}({self.arguments})"

    @property
    def unplaced(self) -> tuple[str, str, str]:
        """What it is called in any schema of the extension."""
        return self.kind, self.name, _unplaced(self.arguments or "")

    def is_replaced_by(self, new: "Member") -> bool:
        """Whether CREATE OR REPLACE makes it the new one; what is created once, is the other's equal."""
        old, other = (json.loads(_unplaced(json.dumps(member.signature))) for member in (self, new))
        match self.kind:
            case "VIEW":
                return bool(other["columns"][: len(old["columns"])] == old["columns"])
            case "ROUTINE":
                return bool(old.pop("defaults") <= other.pop("defaults") and old == other)
            case "TYPE":
                return bool(old == other)
        return True  # of a table by hand

    def renamed(self, column: str, name: str) -> "Member":
        """The same with another name of a column."""
        columns = [re.sub(rf"^{column} ", f"{name} ", text) for text in self.signature["columns"]]
        comments = {name if of == column else of: text for of, text in self.comments.items()}
        return replace(self, signature=self.signature | {"columns": columns}, comments=comments)


def with_new_names(before: list[Member], by_hand: str) -> list[Member]:
    """The members, with the names of columns that the part by hand gives them."""
    for kind, relation, column, name in RENAMED.findall(by_hand):
        before = [m.renamed(column, name) if (m.kind, m.name) == (kind, relation) else m for m in before]
    return before


def _unplaced(text: str) -> str:
    return re.sub(r"\b_?deal_sync\.", "", text)


def members(instance: Instance, version: str) -> list[Member]:
    """Those that a version's own script creates."""
    name = "upgrade_members"
    create = f"SET client_min_messages = warning; CREATE EXTENSION deal_sync VERSION '{version}' CASCADE"
    try:
        instance.psql("postgres", "-c", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "-c", f"CREATE DATABASE {name}")
        instance.psql(name, "-c", create)
        listed = instance.psql(name, "-c", "SET search_path = pg_catalog", "-f", QUERY)
    finally:
        instance.psql("postgres", "-c", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    return [Member(**member | {"needs": tuple(member["needs"])}) for member in json.loads(listed)]


def generated(before: list[Member], after: list[Member], version: str) -> dict[str, str]:
    """The text of each part that is not written by hand, by its name."""
    kept = dict(_pairs(before, after))
    dropped = _dropped([m for m in before if m not in kept and m.kind in ("ROUTINE", "VIEW", "TYPE")], before)
    kept = {old: new for old, new in kept.items() if old not in dropped}
    added = [member for member in after if member not in kept.values()]
    statements = [f"DROP {member.kind} {member.called};" for member in dropped]
    statements += [f"CREATE SCHEMA {member.name};" for member in added if member.kind == "SCHEMA"]
    statements += [
        _broken(f"ALTER {kind} {old.called}", f"SET SCHEMA {new.schema};")
        for kind in KINDS
        for old, new in kept.items()
        if old.kind == kind and old.schema != new.schema
    ]
    statements += [_created(member) for member in added if member.kind == "TYPE"]
    rights = [
        _broken(f"REVOKE EXECUTE ON ROUTINE {member.called}", "FROM PUBLIC;")
        for member in added
        if member.kind == "ROUTINE"
    ]
    comments = list(_comments(after, {new: old for old, new in kept.items()}))
    moved = HEAD.format(version, "what has gone, moved or got another signature; never by CASCADE.")
    nobodys = HEAD.format(version, "the rights of what is new, and comments.")
    return {BEFORE: moved + OWNER + _lines(statements), AFTER: nobodys + _lines(rights + comments)}


def _lines(statements: list[str]) -> str:
    return "".join(f"\n{line}" for line in statements) + "\n" if statements else ""


def _broken(head: str, tail: str) -> str:
    """A statement, on two lines if it is too long for one."""
    return f"{head} {tail}" if len(head) + len(tail) < WIDTH else f"{head}\n    {tail}"


def _literal(text: str) -> str:
    """A text literal, broken at the maximal length of a line."""
    lines = textwrap.wrap(text.replace("'", "''"), WIDTH - 3, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*(f"'{line} '" for line in lines[:-1]), f"'{lines[-1]}'"])


def _pairs(before: list[Member], after: list[Member]) -> Iterator[tuple[Member, Member]]:
    """What stays, with what becomes of it: first by its full name, then in another schema of the extension."""
    places = {(member.kind, member.called): member for member in after}
    elsewhere = {member.unplaced: member for member in after}
    for old in before:
        new = places.get((old.kind, old.called)) or elsewhere.get(old.unplaced)
        if new is not None and old.is_replaced_by(new):
            yield old, new


def _dropped(unfit: list[Member], before: list[Member]) -> list[Member]:
    """What cannot stay and what depends on it, the latter first. Raises if that is a table, which is done by hand."""
    found: dict[int, Member] = {}

    def visit(member: Member) -> None:
        for other in before:
            if member.oid in other.needs and other.oid not in found:
                visit(other)
        found.setdefault(member.oid, member)

    for member in sorted(unfit, key=lambda member: KINDS.index(member.kind)):
        visit(member)
    if tables := [member.called for member in found.values() if member.kind not in ("TYPE", "VIEW", "ROUTINE")]:
        raise SetupError(f"what an update drops is needed by {', '.join(tables)}")
    return list(found.values())


def _created(member: Member) -> str:
    columns, labels = member.signature["columns"], member.signature["labels"]
    lines = ",\n    ".join(columns or labels)
    return f"CREATE TYPE {member.called} AS {'' if columns else 'ENUM '}(\n    {lines}\n);"


def _comments(after: Iterable[Member], before: dict[Member, Member]) -> Iterator[str]:
    """Of what sql/functions does not recreate; and those that are no longer there, of what is."""
    for member in after:
        old = before[member].comments if member in before else {}
        replaced = member.kind in ("ROUTINE", "VIEW")
        there = {"", *(column.split()[0].strip('"') for column in member.signature.get("columns") or ())}
        for column in sorted({*old, *member.comments}):
            comment = member.comments.get(column)
            if comment is None and column not in there:
                continue  # gone, with its comment
            if comment != old.get(column) and (comment is None or not replaced):
                what = f"COLUMN {member.called}.{column}" if column else f"{member.kind} {member.called}"
                yield f"COMMENT ON {what} IS\n{'NULL' if comment is None else _literal(comment)};"


def parts(instance: Instance) -> dict[Path, str]:
    """What the folder of this version is to hold, by the file's path."""
    (folder,) = UPGRADES.glob(f"*--{current()}")
    source, _, _ = folder.name.partition("--")
    before = with_new_names(members(instance, source), (folder / BY_HAND).read_text())
    texts = generated(before, members(instance, current()), source)
    return {folder / name: text for name, text in texts.items()}


def current() -> str:
    """The version of the checkout."""
    (version,) = re.findall("^default_version = '(.*)'$", (CHECKOUT / "extension/deal_sync.control").read_text(), re.M)
    return str(version)


def write() -> None:
    with claimed("test", neo4j=False) as instance:
        for path, text in parts(instance).items():
            path.write_text(text)
