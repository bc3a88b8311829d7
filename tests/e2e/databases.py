"""Airflow on PostgreSQL where that is installed, with tasks that are retried at once: for campaigns of faults."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_airflow import EmbeddedAirflow
from livekit_backup.testing.embedded_postgres import embedded_postgres, postgres_drivers, postgres_programs
from livekit_backup.testing.embedded_s3 import EmbeddedS3

from .conftest import DAG_ID, ROOT, Site

HEARTBEAT_TIMEOUT = 12


@dataclass(frozen=True)
class Database:
    """What Airflow needs in its environment for its database."""

    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    """Of PostgreSQL."""


@contextlib.contextmanager
def open_database() -> Iterator[Database]:
    """Run PostgreSQL; where it is not installed, Airflow takes SQLite."""
    programs = postgres_programs()
    drivers = postgres_drivers(ROOT / ".cache" / "compose-drivers") if programs else None
    if not programs or not drivers:
        print("database: SQLite")
        yield Database()
        return
    print("database: PostgreSQL")
    with embedded_postgres(programs) as server:
        environment = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url,
            "AIRFLOW__CORE__PARALLELISM": "8",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(drivers), os.environ.get("PYTHONPATH")])),
        }
        yield Database(environment, server.port)


@contextlib.contextmanager
def impatient_site(
    name: str,
    s3_server: EmbeddedS3,
    s3_client: Any,
    environment: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A site of its own, whose tasks are retried at once and whose scheduler soon misses a worker."""
    mark = uuid.uuid4().hex[:8]
    events, recordings = f"{name}-events-{mark}", f"{name}-recordings-{mark}"
    for bucket in (events, recordings):
        s3_client.create_bucket(Bucket=bucket)
    dags = tmp_path_factory.mktemp(f"{name}-dags")
    shutil.copy(Path(__file__).with_name("impatient_recovery.py"), dags)
    with FakeLiveKit(seed=mark) as livekit:
        airflow = EmbeddedAirflow(
            tmp_path_factory.mktemp(f"{name}-airflow"),
            dags=dags,
            environment={
                "SHIPPED_DAG": str(ROOT / "dags" / "livekit_backup_recovery.py"),
                "AIRFLOW_CONN_AWS_DEFAULT": s3_server.airflow_connection(),
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
                # What a killed scheduler had queued is seen to when it is known to be dead, five minutes apart.
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
                "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
                "AIRFLOW__LIVEKIT_BACKUP__INBOX": f"s3://{events}/livekit",
                "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE": f"s3://{recordings}/r",
                "AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS": livekit.base_url.removeprefix("http://"),
                "AIRFLOW__LIVEKIT_BACKUP__GRACE": "1",
                **environment,
            },
        )
        with airflow:
            airflow.await_dag(DAG_ID)
            airflow.unpause(DAG_ID)
            yield Site(airflow, livekit, s3_client, events, recordings)
