"""A real Airflow on loopback: scheduler, API server, DAG processor and triggerer, on SQLite.

For demos and end-to-end tests::

    with EmbeddedAirflow(home, dags=Path("dags"), environment={...}) as airflow:
        run_id = airflow.trigger("my_dag", conf={...})
        state = airflow.wait("my_dag", run_id)

Everybody who reaches its port is an administrator: it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

READY_SECONDS = 240.0
"""22 to 35 s on an idle machine, 80 s and more on a busy one."""
_TRIES = 5
_STOP_SECONDS = 20.0
_FINAL = frozenset({"success", "failed"})


class AirflowApiError(RuntimeError):
    """The API answered with an error; the text says which."""


class EmbeddedAirflow:
    """Airflow's standalone command in a home of its own.

    :param home: AIRFLOW_HOME; kept, so that a later start finds the runs again.
    :param dags: the DAGs folder.
    :param environment: further variables, such as connections and configuration.
    :param port: of the API server and UI; 0 chooses a free one.
    """

    def __init__(self, home: Path, *, dags: Path, environment: Mapping[str, str] | None = None, port: int = 0) -> None:
        self.home = home
        self.port = port or _free_port()
        self._dags = dags
        self._extra = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the UI and the API are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """What all components print."""
        return self.home / "standalone.log"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every component; use it for the ``airflow`` command too."""
        secrets_file = self.home / "secrets.json"
        if not secrets_file.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            secrets_file.write_text(json.dumps([secrets.token_hex(32), secrets.token_hex(32)]))
        jwt_secret, secret_key = json.loads(secrets_file.read_text())
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        # Without bytecode every process compiles all of Airflow again.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.home / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            # SQLite answers "database is locked" to more.
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secret_key,
            "AIRFLOW__API_AUTH__JWT_SECRET": jwt_secret,
            # The default of 5 s kills the first task on a cold API server.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **self._extra,
        }

    def start(self) -> None:
        """Start all components and wait until they are healthy. :raises RuntimeError: they are not in time."""
        if self._process:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # SIGINT leaves children behind: the whole group is stopped instead.
                start_new_session=True,
            )
        try:
            self._await_health()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all components."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            until = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < until and _group_lives(process):
                time.sleep(0.1)
        process.wait(timeout=_STOP_SECONDS)

    def log_tail(self, size: int = 4000) -> str:
        """Return the end of what the components printed."""
        with contextlib.suppress(OSError):
            return self.log_file.read_bytes()[-size:].decode(errors="replace")
        return "(no log)"

    def _await_health(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:
                    health = json.load(answer)
                parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
                if all((health.get(part) or {}).get("status") == "healthy" for part in parts):
                    return
            time.sleep(0.5)
        raise RuntimeError(f"Airflow is not healthy after {READY_SECONDS:.0f} s\n{self.log_tail()}")

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API under ``/api/v2``; a path that begins with a slash is of the server's root.

        :raises AirflowApiError: it answers with an error.
        """
        if not self._token:
            with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:
                self._token = json.load(answer)["access_token"]
        request = urllib.request.Request(
            f"{self.url}{path}" if path.startswith("/") else f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                reason = error.read(2000)
                # SQLite has one writer, and does not always wait for its turn. Nothing has changed then.
                if error.code != 500 or b"Database error" not in reason or not tries_left:
                    raise AirflowApiError(f"{method} {path} answered {error.code}: {reason!r}") from None
                time.sleep(1)
        raise AssertionError("the last try returns or raises")

    def await_dag(self, dag_id: str, seconds: float = 120.0) -> None:
        """Wait until a DAG file has been read. :raises RuntimeError: it has not in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(AirflowApiError, OSError):
                self.api("GET", f"dags/{dag_id}")
                return
            time.sleep(1)
        raise RuntimeError(f"{dag_id} is not there after {seconds:.0f} s: {self.api('GET', 'importErrors')}")

    def unpause(self, dag_id: str) -> None:
        """Let a DAG's runs go."""
        self.api("PATCH", f"dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, **fields: Any) -> str:
        """Start a run, without a logical date unless one is given, and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {}), **fields}
        return str(self.api("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, seconds: float = 600.0) -> str:
        """Wait until a run has ended and return its state. :raises RuntimeError: it has not in time."""
        until = time.monotonic() + seconds
        path = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"
        while time.monotonic() < until:
            state = str(self.api("GET", path)["state"])
            if state in _FINAL:
                return state
            time.sleep(0.5)
        raise RuntimeError(f"{dag_id} {run_id} has not ended after {seconds:.0f} s\n{self.log_tail()}")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run."""
        path = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}/taskInstances?limit=1000"
        return list(self.api("GET", path)["task_instances"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
