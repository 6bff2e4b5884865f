"""A PostgreSQL server of a test's own, from Debian's package, which `.ci/run` installs."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
USER, PASSWORD = "dagster", "s3cret/with?signs"


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """A server with an empty database; the settings by which deploy/aws/dagster.yaml finds it."""
    if not _INSTALLED:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    # The server does not run as root, and pytest's own folders let nobody else in.
    folder = Path(tempfile.mkdtemp(prefix="stedi-postgres-"))
    try:
        as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if _is_root() else {}
        if as_user:
            shutil.chown(folder, "nobody")
        data, secret, port = folder / "data", folder / "password", _free_port()
        secret.write_text(PASSWORD)
        secret.chmod(0o644)

        def run(program: str, *arguments: str) -> None:
            command = [str(_INSTALLED[-1].with_name(program)), "-D", str(data), *arguments]
            subprocess.run(
                command, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL, **as_user
            )

        run("initdb", "-U", USER, "-A", "scram-sha-256", "--pwfile", str(secret), "--no-sync")
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", settings, "start")
        try:
            yield {
                "DAGSTER_POSTGRES_HOST": "127.0.0.1",
                "DAGSTER_POSTGRES_PORT": str(port),
                "DAGSTER_POSTGRES_USER": USER,
                "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
                "DAGSTER_POSTGRES_DB": "postgres",
            }
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def rows(settings: dict[str, str], query: str) -> list[tuple[object, ...]]:
    """What a query gives."""
    connection = psycopg2.connect(
        host=settings["DAGSTER_POSTGRES_HOST"],
        port=settings["DAGSTER_POSTGRES_PORT"],
        user=USER,
        password=PASSWORD,
        dbname=settings["DAGSTER_POSTGRES_DB"],
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    finally:
        connection.close()


def _is_root() -> bool:
    return os.geteuid() == 0


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
