"""A real Airflow, a real S3 server and a fake LiveKit, shared by all end-to-end tests."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_airflow import EmbeddedAirflow
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.recordings import Recording

from .metrics_listener import MetricsListener

ROOT = Path(__file__).resolve().parents[2]
DAG_ID = "livekit_backup_recovery"
ALARMS_DAG_ID = "livekit_backup_alarms"
RECONCILE_DAG_ID = "livekit_backup_reconcile"
GRACE_SECONDS = 5


@dataclass
class Site:
    """Everything a customer has, running."""

    airflow: EmbeddedAirflow
    livekit: FakeLiveKit
    s3: Any
    events: str
    recordings: str
    metrics: MetricsListener | None = None
    stored: list[Recording] = field(default_factory=list)

    def store(self, recording: Recording, when: datetime, **kwargs: Any) -> None:
        """Store a recording's event into the inbox's hour."""
        self.stored.append(recording)
        self.put_event(recording.event(), when, **kwargs)

    def put_event(self, event: Any, when: datetime, **kwargs: Any) -> None:
        def put(key: str, body: bytes) -> None:
            self.s3.put_object(Bucket=self.events, Key=f"livekit/{key}", Body=body)

        self.livekit.store_event(put, event, when=when, **kwargs)

    def run(self, start: datetime, end: datetime, **conf: Any) -> tuple[str, str]:
        """Trigger a run over a window and wait; return its id and state."""
        run_id = self.airflow.trigger(DAG_ID, conf={"start": start.isoformat(), "end": end.isoformat(), **conf})
        return run_id, self.airflow.wait(DAG_ID, run_id)

    def states(self, run_id: str) -> dict[str, str]:
        """State by task, mapped ones as ``task[index]``."""
        return {
            task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else ""): task["state"]
            for task in self.airflow.task_instances(DAG_ID, run_id)
        }

    def landed(self) -> dict[str, tuple[str, Any]]:
        """Keys in the warehouse outside the ledger, with ETag and time."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.recordings)
        return {
            item["Key"]: (item["ETag"], item["LastModified"])
            for page in pages
            for item in page.get("Contents", ())
            if "_livekit_backup" not in item["Key"]
        }

    def ledger_objects(self) -> Iterator[tuple[str, bytes]]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.recordings, Prefix="r/_livekit_backup")
        for page in pages:
            for item in page.get("Contents", ()):
                yield item["Key"], self.s3.get_object(Bucket=self.recordings, Key=item["Key"])["Body"].read()

    def report(self, run_id: str) -> dict[str, Any]:
        """The stored statement of a run."""
        import json

        for key, body in self.ledger_objects():
            if key.endswith("report.json") and json.loads(body)["run_id"] == run_id:
                return dict(json.loads(body))
        raise AssertionError(f"{run_id} stored no report")


@pytest.fixture(scope="session")
def site(s3_server: EmbeddedS3, s3_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    mark = uuid.uuid4().hex[:8]
    events, recordings = f"events-{mark}", f"recordings-{mark}"
    for bucket in (events, recordings):
        s3_client.create_bucket(Bucket=bucket)
    with FakeLiveKit(seed=mark) as livekit, MetricsListener() as metrics:
        airflow = EmbeddedAirflow(
            tmp_path_factory.mktemp("airflow"),
            dags=_dags(tmp_path_factory.mktemp("dags")),
            environment={
                "AIRFLOW_CONN_AWS_DEFAULT": s3_server.airflow_connection(),
                "AIRFLOW_CONN_LIVEKIT_DEFAULT": livekit.airflow_connection(),
                "AIRFLOW__LIVEKIT_BACKUP__INBOX": f"s3://{events}/livekit",
                "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE": f"s3://{recordings}/r",
                "AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS": livekit.base_url.removeprefix("http://"),
                "AIRFLOW__LIVEKIT_BACKUP__GRACE": str(GRACE_SECONDS),
                "AIRFLOW__LIVEKIT_BACKUP__ALARM_HOURS": "168",
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
                **metrics.environment,
            },
        )
        with airflow:
            for dag_id in (DAG_ID, RECONCILE_DAG_ID):
                airflow.await_dag(dag_id)
            airflow.unpause(DAG_ID)
            yield Site(airflow, livekit, s3_client, events, recordings, metrics)


def _dags(folder: Path) -> Path:
    """The shipped DAG, and the tests' own."""
    for source in [*(ROOT / "dags").glob("*.py"), *Path(__file__).parent.glob("dag_*.py")]:
        shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="session")
def hours() -> Iterator[datetime]:
    """Past full hours, one for each test that asks."""
    return iter_hours()


def iter_hours() -> Iterator[datetime]:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
    while True:
        hour -= timedelta(hours=2)
        yield hour
