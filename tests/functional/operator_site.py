"""Operators and commands in this process, over real buckets and a fake LiveKit: everything but a scheduler."""

from __future__ import annotations

import json
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from livekit_backup.commands import audit, recover, status
from livekit_backup.commands.doctor import checks
from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.core.examination import examine
from livekit_backup.models.finding import Finding
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.report import LANDED, ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from livekit_backup.sensors.backup_event import BackupEventSensor
from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.s3_endpoint import S3Endpoint

SECTION = "AIRFLOW__LIVEKIT_BACKUP__"
DAYS = "%Y/%m/%d/"
"""A folder a day in the inbox: a look back over eight days lists nine."""
S3_CHECKS = frozenset(
    {
        "settings",
        "inbox connection",
        "inbox",
        "inbox rights",
        "inbox layout",
        "hosts of backups",
        "warehouse connection",
        "warehouse",
        "upload options",
        "warehouse rights",
        "warehouse store",
        "warehouse lifecycle",
        "ledger",
        "primary connection",
        "primary",
    }
)


@dataclass
class OperatorSite:
    """Four buckets, a LiveKit and a configuration."""

    s3: S3Endpoint
    livekit: FakeLiveKit
    buckets: dict[str, str]
    states: dict[str, str] = field(default_factory=dict)
    extras: list[Any] = field(default_factory=list)
    """Of all asset events."""
    returned: list[Any] = field(default_factory=list)
    """What tasks gave to XCom."""
    errors: list[Exception] = field(default_factory=list)
    """What tasks raised."""
    operators: list[Any] = field(default_factory=list)

    def context(self, run_id: str) -> Any:
        now = datetime.now(UTC)
        ti = SimpleNamespace(
            dag_id="d",
            run_id=run_id,
            task_id="t",
            map_index=-1,
            try_number=1,
            max_tries=0,
            get_task_states=lambda dag_id, run_ids, task_ids=(): {run_ids[0]: self.states},
        )
        return {
            "ti": ti,
            "dag_run": SimpleNamespace(run_after=now + timedelta(minutes=10)),
            "params": {},
            "data_interval_start": now - timedelta(hours=1),
            "data_interval_end": now,
            "outlet_events": {LANDED: SimpleNamespace(add=lambda asset, extra: self.extras.append(extra))},
        }

    def run(self, operator: type, run_id: str, **arguments: Any) -> Any:
        made = operator(task_id="t", grace=0, **arguments)
        self.operators.append(made)
        try:
            self.returned.append(made.execute(self.context(run_id)))
        except Exception as error:
            self.errors.append(error)
            raise
        return self.returned[-1]

    def recover(self, run_id: str) -> Any:
        """The recovery DAG's tasks, one after the other; what a download raises stops only its own file."""
        self.run(BackupEventSensor, run_id, deferrable=False)
        intake = self.run(IngestEventsOperator, run_id)
        for bundle in self.run(ResolveManifestsOperator, run_id, intake=intake):
            for operator in (DownloadFilesOperator, VerifyAndLandOperator):
                try:
                    self.run(operator, run_id, bundle=bundle)
                except Exception:  # noqa: BLE001 - kept, and the report names it
                    break
        return self.run(ReportOperator, run_id)


@contextmanager
def operator_site(server: S3Endpoint, patch: pytest.MonkeyPatch, api_keys: dict[str, str]) -> Iterator[OperatorSite]:
    """Make the buckets, start LiveKit, and configure this process' Airflow for them."""
    mark = uuid.uuid4().hex[:8]
    names = ("acme_events", "acme_recordings", "acme_ledger", "acme_own")
    buckets = {name: f"{name}-{mark}".replace("_", "-") for name in names}
    for bucket in buckets.values():
        server.client().create_bucket(Bucket=bucket)
    patch.setattr(ExecutorSafeguard, "test_mode", True)
    connection = json.loads(server.airflow_connection())
    own = connection["extra"] | {"service_config": {"s3": {"bucket_name": buckets["acme_own"]}}}
    with FakeLiveKit(api_keys=api_keys) as livekit:
        for name, value in {
            f"{SECTION}INBOX": f"s3://{buckets['acme_events']}/livekit",
            f"{SECTION}INBOX_LAYOUT": DAYS,
            f"{SECTION}WAREHOUSE": f"s3://{buckets['acme_recordings']}/recovered",
            f"{SECTION}LEDGER": f"s3://{buckets['acme_ledger']}/livekit_backup",
            f"{SECTION}PRIMARY_CONN_ID": "aws_own",
            f"{SECTION}ALLOWED_HOSTS": f"*.amazonaws.com, {livekit.base_url.partition('://')[2]}",
            "AIRFLOW_CONN_AWS_DEFAULT": server.airflow_connection(),
            "AIRFLOW_CONN_AWS_OWN": json.dumps({**connection, "extra": own}),
            "AIRFLOW_CONN_LIVEKIT_DEFAULT": livekit.airflow_connection(),
        }.items():
            patch.setenv(name, value)
        for command in (status, recover, audit):
            patch.setattr(command, "use_connections_of_database", lambda: None)
        patch.setattr(recover, "_start_run", lambda conf, now: "run")
        patch.setattr(recover, "_is_paused", lambda: False)
        yield OperatorSite(server, livekit, buckets)


def exit_code(command: Callable[[Namespace], None], **arguments: Any) -> Any:
    """Run a command as Airflow does, and return what it ends with."""
    try:
        command(Namespace(verbose=True, **arguments))
    except SystemExit as end:
        return end.code
    return 0


def examined() -> list[Finding]:
    """What doctor finds of the stores."""
    setup = ExaminedSetup(may_fix=False)
    wanted = [check for check in checks(()) if check.name in S3_CHECKS]
    return examine(wanted, setup, seconds=100.0, safe=setup.safe)
