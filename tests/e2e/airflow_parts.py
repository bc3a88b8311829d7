"""Parts of a running Airflow, and of its database, killed with SIGKILL and started again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import psutil

from livekit_backup.testing.embedded_airflow import EmbeddedAirflow

SUPERVISED = ("scheduler", "dag-processor", "triggerer")
WAIT_SECONDS = 60.0


class AirflowParts:
    """The components of one Airflow; what is started here ends with the block."""

    def __init__(self, airflow: EmbeddedAirflow) -> None:
        self._airflow = airflow
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            for child in _family(process.pid):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait(WAIT_SECONDS)

    def kill(self, component: str) -> int:
        """SIGKILL a component with all its children, as when its machine dies; return how many processes that were."""
        killed = 0
        for process in self._processes(component):
            for one in _family(process.pid):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
                    killed += 1
        assert killed, f"no {component} was running"
        return killed

    def revive(self) -> None:
        """Start what does not run, as whatever supervises a deployment does; a database that goes ends them all."""
        for component in SUPERVISED:
            if not list(self._processes(component)):
                self._start(component)

    def _start(self, component: str) -> None:
        with self._airflow.log_file.open("ab") as log:
            self._started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "airflow", component],
                    env=self._airflow.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def _processes(self, component: str) -> Iterator[psutil.Process]:
        """Give the processes of this Airflow whose command is ``airflow component``."""
        home = str(self._airflow.home)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                if component in words[1:4] and process.environ().get("AIRFLOW_HOME") == home:
                    yield process


def crash_database(port: int) -> None:
    """SIGKILL one of PostgreSQL's own processes: it drops every connection, recovers and starts anew.

    :raises AssertionError: it is not back in time.
    """
    (server,) = [
        process
        for process in psutil.process_iter()
        if process.name() == "postgres" and str(port) in process.cmdline() and "-D" in process.cmdline()
    ]
    victim = next(filter(_is_wal_writer, server.children()))
    victim.kill()
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        if any(child.pid != victim.pid and _is_wal_writer(child) for child in server.children()):
            return
        time.sleep(0.1)
    raise AssertionError("the database did not come back")


def _is_wal_writer(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "walwriter" in " ".join(process.cmdline())
    return False


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
