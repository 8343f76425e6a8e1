"""Flows in: a started instance. Flows out: a database with the extension, its application and the migration."""

from pathlib import Path

from .servers import CRON_DATABASE, Instance
from .state import CHECKOUT

# If no Neo4j was started, which is enough to create everything: only a sync connects.
NO_NEO4J = {"neo4j_uri": "bolt://127.0.0.1:7687", "neo4j_user": "neo4j", "neo4j_password": "none"}
DEMO = CHECKOUT / "tests/demo"


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def create(instance: Instance, database: str) -> None:
    """Recreate the database and set it up as a user would; the statements are the README's."""
    instance.psql("postgres", "-c", f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
    instance.psql("postgres", "-c", f'CREATE DATABASE "{database}"')
    if database == CRON_DATABASE:  # the drop has ended pg_cron's launcher, which starts with the server only
        instance.restart_postgresql()
    set_up(instance, database)


def empty(instance: Instance, database: str) -> None:
    """Remove what `set_up` and the application have created from a database that must not be dropped: pg_cron's
    launcher is connected to it. Nor must the extension, to whose next table the launcher may stay deaf.
    """
    statements = (
        "DROP EXTENSION IF EXISTS deal_sync CASCADE; DROP SCHEMA IF EXISTS neo4j CASCADE; DROP SCHEMA public CASCADE;"
        " CREATE SCHEMA public; CREATE EXTENSION IF NOT EXISTS pg_cron SCHEMA pg_catalog;"
        " SELECT cron.unschedule(jobid) FROM cron.job"
    )
    run_sql(instance, database, statements)


def set_up(instance: Instance, database: str) -> None:
    """The same in an existing, empty database."""
    facts = NO_NEO4J | instance.facts
    user, password, uri = (literal(facts[key]) for key in ("neo4j_user", "neo4j_password", "neo4j_uri"))
    run_sql(instance, database, "CREATE EXTENSION deal_sync CASCADE")
    instance.psql(database, "-f", CHECKOUT / "tests/application.sql")
    run_sql(instance, database, f"CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri {uri})")
    mapping = f'OPTIONS ("user" {user}, password {password})'
    run_sql(instance, database, f"CREATE USER MAPPING FOR CURRENT_USER SERVER neo4j {mapping}")
    run_sql(instance, database, "SELECT deal_sync.attach()")
    for migration in sorted((CHECKOUT / "sql/migration").glob("*.sql")):
        instance.psql(database, "-f", migration)
    run_sql(instance, database, "SELECT deal_sync.grant_sync('app_writer')")


def run_sql(instance: Instance, database: str, statement: str) -> None:
    instance.psql(database, "-c", f"SET client_min_messages = warning; {statement}")


def exists(instance: Instance, database: str) -> bool:
    """Whether the database was set up completely."""
    if instance.psql("postgres", "-c", f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}") == "":
        return False
    return instance.psql(database, "-c", "SELECT 1 FROM pg_extension WHERE extname = 'deal_sync'") != ""


def follow_neo4j(instance: Instance, database: str, of: Instance | None = None) -> None:
    """Neo4j has a new password, and perhaps a new port, since the database was set up; or it is another instance's."""
    uri, password = (literal((of or instance).facts[key]) for key in ("neo4j_uri", "neo4j_password"))
    run_sql(instance, database, f"ALTER SERVER neo4j OPTIONS (SET uri {uri})")
    run_sql(instance, database, f"ALTER USER MAPPING FOR CURRENT_USER SERVER neo4j OPTIONS (SET password {password})")


def load_graph(instance: Instance, file: Path) -> None:
    """Empty the graph, then run the file."""
    _run(instance, ["MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS"])
    run_cypher(instance, file)


def run_cypher(instance: Instance, file: Path) -> None:
    """Run the Cypher statements of a file, each ended by a semicolon at a line's end."""
    _run(instance, [statement for statement in file.read_text().split(";\n") if statement.strip()])


def _run(instance: Instance, statements: list[str]) -> None:
    from neo4j import GraphDatabase  # here, because set-up runs before any package is installed

    facts = instance.facts
    auth = (facts["neo4j_user"], facts["neo4j_password"])
    driver = GraphDatabase.driver(facts["neo4j_uri"], auth=auth, notifications_min_severity="OFF")
    with driver, driver.session() as session:
        for statement in statements:
            session.run(statement).consume()
