"""The Airflow services of docker-compose.yaml, their commands run as written, without a container.

The database is a PostgreSQL where one is installed, else SQLite.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.testing.embedded_postgres import embedded_postgres, postgres_drivers, postgres_programs

ROOT = Path(__file__).resolve().parents[2]


def loaded(path: Path) -> Any:
    """A module by its path: the tests' directories are no packages of each other."""
    spec = importlib.util.spec_from_file_location(f"shared_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = loaded(ROOT / "tests" / "functional" / "test_compose.py")

LONG_RUNNING = ("api-server", "scheduler", "dag-processor", "triggerer")
DATABASE_IN_COMPOSE = "postgresql+psycopg2://airflow:made-up-postgres_password@postgres:5432/airflow"
DRIVERS = ROOT / ".cache" / "compose-drivers"


@pytest.fixture
def database(tmp_path: Path, record_property: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """A database's address, and what else the services need in their environment to reach it."""
    programs = postgres_programs()
    pins = re.findall(r'"((?:psycopg2-binary|asyncpg)==[\d.]+)"', (ROOT / "Dockerfile").read_text())
    assert len(pins) == 2
    drivers = postgres_drivers(DRIVERS, pins) if programs else None
    record_property("database", "PostgreSQL" if drivers else "SQLite")
    print("database:", "PostgreSQL" if drivers else "SQLite")
    if not programs or not drivers:
        yield f"sqlite:///{tmp_path / 'airflow.db'}", {}
        return
    with embedded_postgres(programs, shared.made_up()["POSTGRES_PASSWORD"]) as database:
        yield database.url, {"PYTHONPATH": str(drivers)}


def ask(url: str, token: str = "", body: Any = None) -> Any:
    """The JSON that the API answers."""
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def eventually(seconds: float, look: Any) -> Any:
    """What *look* returns as soon as it is true; its last answer if it never is."""
    deadline = time.monotonic() + seconds
    found = None
    while not found and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            found = look()
        if not found:
            time.sleep(0.5)
    return found


def test_the_services_come_up_healthy_and_show_the_dag(database: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, reached_by = database
    api, scheduler, worker_logs, trigger_logs = shared.free_ports(4)
    home = tmp_path / "airflow"
    (home / "auth").mkdir(parents=True)
    # The Fernet key is the one secret with a form of its own.
    variables = shared.made_up() | {"FERNET_KEY": "bGl2ZWtpdC1iYWNrdXAtbWFkZS11cC1mZXJuZXQta2U="}
    compose = shared.ComposeFile(
        variables,
        {
            DATABASE_IN_COMPOSE: address,
            "http://api-server:8080": f"http://127.0.0.1:{api}",
            '", 8080,': f'", {api},',
            '", 8974,': f'", {scheduler},',
            "/opt/airflow/dags": str(ROOT / "dags"),
            "/opt/airflow": str(home),
        },
    )
    machine = {
        "AIRFLOW_HOME": str(home),
        "HOME": str(home),
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(scheduler),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
    } | reached_by

    def environment(service: str) -> dict[str, str]:
        return compose.environment(service, **machine)

    def log(service: str) -> str:
        return (tmp_path / f"{service}.log").read_text()[-4000:]

    migrated = subprocess.run(
        compose.command("init"),
        env=environment("init"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr[-4000:]

    with contextlib.ExitStack() as stack:
        for service in LONG_RUNNING:
            options = shared.running(compose.command(service), environment(service), tmp_path / f"{service}.log")
            stack.enter_context(options)

        def states() -> dict[str, str]:
            parts = ask(f"http://127.0.0.1:{api}/api/v2/monitor/health")
            return {name: part["status"] for name, part in parts.items()}

        wanted = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
        assert eventually(60, lambda: {name for name, state in states().items() if state == "healthy"} == wanted), {
            service: log(service) for service in LONG_RUNNING
        }
        for service in LONG_RUNNING:
            healthy = shared.succeeds_within(20, compose.healthcheck(service), environment(service))
            assert healthy, f"{service}: {log(service)}"

        # As docs/compose.md tells people to sign in.
        password = json.loads((home / "auth" / "passwords.json").read_text())["admin"]
        token = ask(f"http://127.0.0.1:{api}/auth/token", body={"username": "admin", "password": password})[
            "access_token"
        ]
        dag = eventually(30, lambda: ask(f"http://127.0.0.1:{api}/api/v2/dags/livekit_backup_recovery", token))
        assert dag, log("dag-processor")
        assert dag["is_paused"]
        assert ask(f"http://127.0.0.1:{api}/api/v2/importErrors", token)["total_entries"] == 0
        assert ask(f"http://127.0.0.1:{api}/api/v2/plugins/importErrors", token)["total_entries"] == 0
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"http://127.0.0.1:{api}/api/v2/dags")

    for service in ("api-server", "scheduler"):
        assert not shared.succeeds_within(1, compose.healthcheck(service), environment(service)), service
