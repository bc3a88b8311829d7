"""A PostgreSQL on loopback for an Airflow with LocalExecutor, from the server that the machine has installed.

::

    with embedded_postgres() as database:
        EmbeddedAirflow(home, dags=..., environment={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url, ...})
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_SECONDS = 30.0
DRIVERS = ("psycopg2-binary==2.9.13", "asyncpg==0.32.0")


@dataclass(frozen=True)
class EmbeddedDatabase:
    """An empty database of a server that is running."""

    url: str
    """As ``AIRFLOW__DATABASE__SQL_ALCHEMY_CONN`` takes it."""
    port: int
    password: str


def postgres_programs() -> Path | None:
    """Where initdb and postgres are; Debian keeps them off the path. None: no server is installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists() and (place / "initdb").exists()), None)


def postgres_drivers(folder: Path, pins: Sequence[str] = DRIVERS) -> Path | None:
    """Return a folder with Airflow's PostgreSQL drivers, for ``PYTHONPATH``; None if they cannot be had.

    :param folder: where they are kept for the next time.
    """
    target = folder / "-".join([*pins, f"py{sys.version_info.major}{sys.version_info.minor}"])
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder))
        tool = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*tool, "--no-deps", "--target", str(fresh), *pins], capture_output=True, timeout=120, check=False
        )
        if done.returncode:
            shutil.rmtree(fresh)
            return None
        fresh.rename(target)
    return target


@contextlib.contextmanager
def embedded_postgres(programs: Path, password: str = "") -> Iterator[EmbeddedDatabase]:
    """Run a server of its own with an empty database ``airflow``. :raises RuntimeError: it does not come up.

    :param programs: what :func:`postgres_programs` returned.
    """
    password = password or secrets.token_hex(16)
    account = _account()
    home = Path(tempfile.mkdtemp(prefix="livekit-backup-postgres-", dir="/tmp"))
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PGPASSWORD": password}
    try:
        secret = home / "password"
        secret.write_text(password)
        if account:
            for path in (home, secret):
                os.chown(path, account["user"], account["group"])
        data = str(home / "data")
        make = [str(programs / "initdb"), "-D", data, "-U", "airflow", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [*make, "--auth=scram-sha-256", f"--pwfile={secret}"],
            env=environment,
            cwd=home,
            check=True,
            capture_output=True,
            **account,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        options = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "max_connections=300"]
        with (home / "log").open("ab") as log:
            server = subprocess.Popen(
                [str(programs / "postgres"), *options],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **account,
            )
        try:
            client = ["-h", "127.0.0.1", "-p", str(port), "-U", "airflow"]
            _await([str(programs / "pg_isready"), *client], environment, home / "log")
            subprocess.run([str(programs / "createdb"), *client, "airflow"], env=environment, check=True)
            yield EmbeddedDatabase(f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/airflow", port, password)
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(10)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    owner = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _await(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL is not ready after {READY_SECONDS:.0f} s\n{log.read_text()[-2000:]}")
