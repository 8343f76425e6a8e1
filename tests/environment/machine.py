"""Flows in: Debian's packages, pip's, Maven's. Flows out: PostgreSQL, two virtual environments and Neo4j in STATE."""

import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .state import CHECKOUT, DEV, LOCALES, NEO4J, STATE, VENV, SetupError, fingerprint, is_current, run, say

POSTGRESQL_OF_DEBIAN = {"bookworm": "15", "trixie": "17", "forky": "18"}  # testing has no VERSION_ID


def os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def postgresql_version() -> str:
    release = os_release()
    try:
        return POSTGRESQL_OF_DEBIAN[release["VERSION_CODENAME"]]
    except KeyError:
        found = release.get("PRETTY_NAME", "something else")
        raise SetupError(f"needs Debian 12, 13 or testing, this is {found}") from None


PG = postgresql_version()
TREE = STATE / "pgtree"
BIN = TREE / "lib/postgresql" / PG / "bin"
PG_CONFIG = BIN / "pg_config"
LIB = TREE / "lib/postgresql" / PG / "lib"
EXTENSIONS = TREE / "share/postgresql" / PG / "extension"


def needed_packages() -> list[str]:
    packages = [
        f"postgresql-{PG}",
        f"postgresql-plpython3-{PG}",
        f"postgresql-{PG}-cron",
        f"postgresql-{PG}-plpgsql-check",
        "locales",
        "python3-venv",
        "make",
        "mount",
        "maven",
        "default-jdk-headless",
        "shellcheck",
    ]
    if os_release()["VERSION_CODENAME"] == "bookworm":  # has no pgvector package, see build_pgvector
        return [*packages, f"postgresql-server-dev-{PG}", "gcc", "libc6-dev", "dpkg-dev"]
    return [*packages, f"postgresql-{PG}-pgvector"]


def installed(package: str) -> bool:
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package], capture_output=True, text=True, check=False
    )
    if package == "default-jdk-headless":  # any JDK will do
        return shutil.which("javac") is not None
    return query.stdout == "installed"


def install_packages() -> None:
    missing = [package for package in needed_packages() if not installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise SetupError(f"packages are missing; as root: apt-get install --no-install-recommends {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    # Debian would start a cluster on port 5432 that nobody asked for.
    no_cluster = Path("/etc/postgresql-common/createcluster.d/deal_sync.conf")
    no_cluster.parent.mkdir(parents=True, exist_ok=True)
    no_cluster.write_text("create_main_cluster = false\n")
    try:
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "-qq", "update"])
        run(["apt-get", "-qq", "install", "--no-install-recommends", *missing], env=quiet)
    finally:
        no_cluster.unlink()


def copy_postgresql() -> None:
    """PostgreSQL finds its files relative to themselves: extensions go into a copy, the system's is not changed."""
    sources = [Path("/usr/lib/postgresql") / PG, Path("/usr/share/postgresql") / PG]
    listing = "".join(
        f"{file} {file.lstat().st_mtime_ns}\n" for source in sources for file in sorted(source.rglob("*"))
    )
    stamp = TREE / "copied"
    if is_current(stamp, listing):
        return
    say(f"copying PostgreSQL {PG}")
    for source in sources:
        target = TREE / source.relative_to("/usr").parent
        target.mkdir(parents=True, exist_ok=True)
        # A library that a running server has mapped must be replaced, not written into.
        run(["cp", "-a", "--update", "--remove-destination", source, target])
    stamp.write_text(listing)


def make_german() -> None:
    """The translations of PostgreSQL's messages, where the copy looks for them, and a locale that asks for them."""
    stamp = LOCALES / "made"
    if is_current(stamp, PG):
        return
    say("making the locale de_DE.UTF-8")
    messages = TREE / "share/locale/de/LC_MESSAGES"
    messages.mkdir(parents=True, exist_ok=True)
    for part in ("postgres", "plpgsql", "plpython"):
        run(["cp", f"/usr/share/locale/de/LC_MESSAGES/{part}-{PG}.mo", messages])
    LOCALES.mkdir(exist_ok=True)
    run(["localedef", "--no-archive", "-i", "de_DE", "-f", "UTF-8", LOCALES / "de_DE.utf8"])
    run(["cp", "-r", "/usr/lib/locale/C.utf8", LOCALES])  # with LOCPATH, nothing is looked for elsewhere
    stamp.write_text(PG)


def build_pgvector() -> None:
    """Debian 12: the source package of Debian 13, from the mirror that the machine uses, without touching /etc/apt."""
    if os_release()["VERSION_CODENAME"] != "bookworm" or (EXTENSIONS / "vector.control").exists():
        return
    say("building pgvector")
    targets = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    release = os_release()["VERSION_CODENAME"]
    mirrors = [uri for suite, uri in (line.split() for line in run(targets).splitlines()) if suite == release]
    if not mirrors:
        raise SetupError("apt has no package lists; as root: apt-get update")
    work = STATE / "pgvector"
    shutil.rmtree(work, ignore_errors=True)
    for directory in ("lists/partial", "cache/archives/partial"):
        (work / directory).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb-src {mirrors[0]} trixie main\n")
    options = [
        f"-oDir::Etc::SourceList={work}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={work}/lists",
        f"-oDir::Cache={work}/cache",
        "-oAPT::Sandbox::User=root",
    ]
    run(["apt-get", "-qq", *options, "update"])
    run(["apt-get", "-qq", *options, "source", "--only-source", "pgvector"], cwd=work)
    (source,) = (path for path in work.glob("pgvector-*") if path.is_dir())
    # OPTFLAGS: no -march=native, the tree may be copied to another machine. No clang is needed without the bitcode.
    headers = f"PG_CPPFLAGS=-I/usr/include/postgresql/{PG}/server"  # the tree has no copy of them
    make: list[str | Path] = ["make", "-s", "-C", source, f"PG_CONFIG={PG_CONFIG}", "OPTFLAGS=", "with_llvm=no"]
    run([*make, headers, "-j2"], env=outer_environment())
    run([*make, "install"], env=outer_environment())
    shutil.rmtree(work)


def outer_environment() -> dict[str, str]:
    """Our environment without what the calling make passes to its own children."""
    return {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def make_environments() -> None:
    """Pinned requirements from pyproject.toml into the server's and the developer's virtual environment."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    runtime = list(project["project"]["dependencies"])
    build = list(project["build-system"]["requires"])
    # /usr/bin/python3 is the one that PL/Python embeds; the system's packages have Multicorn's Python half.
    at_once(
        partial(make_environment, VENV, ["--system-site-packages"], runtime),
        # Much of what its packages hold is never imported; what is, is compiled then.
        partial(make_environment, DEV, [], runtime + build + list(project["dependency-groups"]["dev"]), "--no-compile"),
    )


def make_environment(path: Path, options: list[str], requirements: list[str], *pip_options: str) -> None:
    stamp = path / "requirements"
    if is_current(stamp, "\n".join(requirements)):
        return
    say(f"making {path}")
    shutil.rmtree(path, ignore_errors=True)
    run(["/usr/bin/python3", "-m", "venv", *options, path])
    run([path / "bin/pip", "install", "-q", *pip_options, *requirements])
    stamp.write_text("\n".join(requirements))


def get_neo4j() -> None:
    sources = CHECKOUT / "tests/neo4j"
    stamp = NEO4J / "stamp"
    wanted = fingerprint(sources)
    if is_current(stamp, wanted):
        return
    say("getting Neo4j")
    for part in ("lib", "classes"):
        shutil.rmtree(NEO4J / part, ignore_errors=True)
    get = "dependency:copy-dependencies"
    run(["mvn", "-q", "-B", "-f", sources / "pom.xml", get, "-DincludeScope=runtime", f"-DoutputDirectory={NEO4J}/lib"])
    run(["javac", "-cp", f"{NEO4J}/lib/*", "-d", NEO4J / "classes", sources / "Neo4jServer.java"])
    stamp.write_text(wanted)


def install_package() -> None:
    """The Python package into the server's environment, as a copy: user postgres cannot read every checkout."""
    sources = [CHECKOUT / name for name in ("pyproject.toml", "README.md", "LICENSE", "fdw")]
    stamp = VENV / "package"
    wanted = fingerprint(*sources)
    if is_current(stamp, wanted):
        return
    say("installing the Python package")
    build = STATE / "build"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    for source in sources:  # setuptools writes next to what it builds
        run(["cp", "-r", source, build])
    run([DEV / "bin/pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", build, build])
    run([VENV / "bin/pip", "install", "-q", "--no-deps", "--force-reinstall", *build.glob("*.whl")])
    shutil.rmtree(build)
    stamp.write_text(wanted)


def install_extension() -> None:
    run(["make", "-s", "-C", CHECKOUT, "install", f"PG_CONFIG={PG_CONFIG}"], env=outer_environment())


def at_once(*steps: Callable[[], None]) -> None:
    """Takes the steps beside each other, each of which waits for other programs; raises what one of them raises."""
    with ThreadPoolExecutor(len(steps)) as pool:
        for step in [pool.submit(step) for step in steps]:
            step.result()


def set_up() -> None:
    """Installs what is missing; takes seconds if nothing is."""
    install_packages()
    copy_postgresql()
    at_once(make_german, build_pgvector, make_environments, get_neo4j)
    install_package()
    install_extension()
