"""Flows in: a command of the Makefile. Flows out: servers set up, started, opened or removed."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from . import citations, database, reference, upgrade
from .machine import BIN, set_up
from .servers import CRON_DATABASE, KINDS, Instance, claimed, remove_all
from .state import CHECKOUT, STATE, SetupError, locked, make_state

PLAYGROUND = CRON_DATABASE  # so that a person can schedule


def up() -> None:
    """The playground, with the demo graph, ready for sync_deals."""
    instance = Instance("playground")
    instance.start()
    if database.exists(instance, PLAYGROUND):
        database.follow_neo4j(instance, PLAYGROUND)
        return
    fill(instance)


def fill(instance: Instance) -> None:
    """The demo graph, and the playground's database recreated, as it is before the first sync."""
    database.load_graph(instance, database.DEMO / "graph.cypher")
    database.create(instance, PLAYGROUND)
    instance.psql(PLAYGROUND, "-f", database.DEMO / "application.sql")


def psql() -> None:
    dsn = Instance("playground").dsn(PLAYGROUND)
    os.execv(BIN / "psql", ["psql", "-X", "-d", dsn, *sys.argv[2:]])


def check_plpgsql() -> None:
    """plpgsql_check over every PL/pgSQL function of the extension; it has no SQL file of its own to lint."""
    with claimed("test", neo4j=False) as instance:
        database.create(instance, "plpgsql_check")
        instance.psql("plpgsql_check", "-c", "CREATE EXTENSION plpgsql_check")
        found = instance.psql("plpgsql_check", "-f", CHECKOUT / "tests/environment/plpgsql_check.sql")
        instance.psql("postgres", "-c", "DROP DATABASE plpgsql_check")
    if found:
        raise SetupError(f"plpgsql_check found:\n{found}")


def remove_state() -> None:
    if STATE.exists():
        make_state()  # rejects a directory that is not ours
        remove_all()
        shutil.rmtree(STATE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="environment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (
        "path",
        "setup",
        "up",
        "psql",
        "down",
        "check-plpgsql",
        "check-citations",
        "reference",
        "upgrade",
        "clean",
        "distclean",
    ):
        commands.add_parser(command)
    commands.add_parser("refill", help="the playground as it was in the beginning")
    commands.add_parser("cypher", help="run a file on the playground's graph").add_argument("file", type=Path)
    for command in ("start", "stop"):
        commands.add_parser(command).add_argument("instance", choices=KINDS)
    arguments, _ = parser.parse_known_args()
    match arguments.command:
        case "path":
            print(STATE)
        case "setup":
            with locked():
                set_up()
        case "up":
            up()
        case "psql":
            psql()
        case "down":
            Instance("playground").stop()
        case "check-plpgsql":
            check_plpgsql()
        case "check-citations":
            if found := citations.missing():
                raise SetupError("\n".join(["what these lines cite is not in the repository:", *found]))
        case "reference":
            reference.write()
        case "upgrade":
            upgrade.write()
        case "clean":
            remove_all()
        case "distclean":
            remove_state()
        case "refill":
            fill(Instance("playground"))
        case "cypher":
            database.run_cypher(Instance("playground"), arguments.file)
        case "start":
            Instance(arguments.instance).start()
        case "stop":
            Instance(arguments.instance).stop()


try:
    main()
except SetupError as error:
    sys.exit(f"deal_sync: {error}")
