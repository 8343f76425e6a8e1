"""Flows in: a directory. Flows out: a root certificate, and one for localhost that it has signed, with their keys."""

from pathlib import Path

from .state import as_server, run

ROOT, ROOT_KEY = "root.crt", "root.key"
CERTIFICATE, KEY = "public.crt", "private.key"  # the names that Neo4j looks for
HOST = "localhost"  # by no address: 127.0.0.1 is a wrong host name


def make(directory: Path) -> None:
    """For a month, as the servers' user, in a directory that is its own."""
    new: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "30"]
    root, root_key = directory / ROOT, directory / ROOT_KEY
    authority = ["-subj", "/CN=deal_sync test root", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run([*new, *authority, "-keyout", root_key, "-out", root], **as_server())
    signed: list[str | Path] = [
        "-CA",
        root,
        "-CAkey",
        root_key,
        "-subj",
        f"/CN={HOST}",
        "-addext",
        "basicConstraints=CA:FALSE",
    ]
    files: list[str | Path] = ["-keyout", directory / KEY, "-out", directory / CERTIFICATE]
    run([*new, *signed, "-addext", f"subjectAltName=DNS:{HOST}", *files], **as_server())
