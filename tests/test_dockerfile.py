"""Flows in: Dockerfile.postgres. Flows out: proof that its steps do here what they are to do in the image.

The image cannot be built without its base. Its own steps can run: the files that it copies, and the commands.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from environment.machine import EXTENSIONS, PG_CONFIG, outer_environment
from environment.servers import Instance
from environment.state import CHECKOUT
from neo4j_deals import __version__
from support.database import new_database

DOCKERFILE = (CHECKOUT / "Dockerfile.postgres").read_text()
BUILT = f"*--{__version__}.sql"
COPIES = re.findall(r"^COPY (.+) (\S+)$", DOCKERFILE, re.M)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What the image has of the checkout: the files that the Dockerfile copies, and no others."""
    for sources, target in COPIES:
        for source in map(CHECKOUT.joinpath, sources.split()):
            destination = tmp_path / Path(target).name if target.startswith("/") else tmp_path / source.name
            if source.is_dir():
                shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__", BUILT))
            else:
                shutil.copy(source, destination)
    return tmp_path


def step(pattern: str, **here: str) -> list[str]:
    """The command of the Dockerfile that starts so, with the image's paths replaced by those of this machine."""
    (command,) = re.findall(rf"({pattern}[^\\\n]*)", DOCKERFILE)
    for there, replacement in here.items():
        assert there in command
        command = command.replace(there, replacement)
    return shlex.split(command)


def run(command: list[str], directory: Path, **variables: str) -> None:
    environment = outer_environment() | variables
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_extension_is_installed_from_the_files_that_are_copied(context: Path) -> None:
    command = step("make install PG_CONFIG=", **{"/usr/lib/postgresql/$PG_MAJOR/bin/pg_config": str(PG_CONFIG)})
    run([*command, f"DESTDIR={context}/image"], context)
    installed = {path.name for path in (context / "image" / EXTENSIONS.relative_to("/")).iterdir()}
    scripts = {f"deal_sync--{versions}.sql" for versions in (__version__, "0.1.0", f"0.1.0--{__version__}")}
    assert {"deal_sync.control", *scripts} <= installed


def test_the_package_is_installed_from_the_files_that_are_copied(context: Path) -> None:
    environment = str(context / "environment")
    run(step("/usr/bin/python3 -m venv", **{"/opt/deal_sync": environment}), context)
    command = step("make install-python", **{"/opt/deal_sync": environment})
    run(command, context, PIP_NO_DEPS="1")  # make setup has fetched what the package needs
    found = subprocess.run(
        [f"{environment}/bin/python", "-c", "import neo4j_deals; print(neo4j_deals.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(environment)


def test_a_new_cluster_gets_the_extension_and_the_home_of_the_jobs(servers: Instance) -> None:
    with new_database(servers) as database:
        try:
            servers.psql(database.name, "-f", CHECKOUT / "extra/initdb.sql")
            set_for_the_next_start = servers.psql(
                database.name,
                "-c",
                "SELECT setting FROM pg_file_settings WHERE name = 'cron.database_name' ORDER BY seqno DESC LIMIT 1",
            )
            assert set_for_the_next_start.strip() == database.name
            assert servers.psql(database.name, "-c", "SELECT _deal_sync.check_package() >= 311").strip() == "t"
        finally:
            servers.psql("postgres", "-c", "ALTER SYSTEM RESET cron.database_name")
