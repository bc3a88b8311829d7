"""Receiver, operators and commands with exactly the documented rights: none is missing, and none is never used."""

from __future__ import annotations

import asyncio
import json
import uuid
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiobotocore.client
import botocore.client
import httpx
import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from livekit_backup.commands import audit, recover, status
from livekit_backup.commands.doctor import checks
from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.core.examination import examine
from livekit_backup.errors import LivekitBackupError, NotSafeError
from livekit_backup.models.finding import Verdict
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator
from livekit_backup.operators.reconcile import ReconcileOperator, ReconciliationReportOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.report import LANDED, AllSafeOperator, ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from livekit_backup.receiver.__main__ import build_app
from livekit_backup.sensors.backup_event import BackupEventSensor
from livekit_backup.testing import FakeLiveKit, Fault
from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, sign_webhook
from livekit_backup.triggers.inbox_window import InboxWindowTrigger

from .policy_gate import PolicyGate, policies
from .recovery_pipeline import MIB

API_KEYS = {"APIrights": "a-secret-of-the-rights'-test-that-is-long-enough"}
SECTION = "AIRFLOW__LIVEKIT_BACKUP__"
DAYS = "%Y/%m/%d/"
"""A folder a day in the inbox: a look back over eight days lists nine."""
AIRFLOW = ("Inbox", "Warehouse", "Ledger", "Primary")
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


@contextmanager
def gated(gate: PolicyGate) -> Iterator[None]:
    """Every client that is made meanwhile, of boto and of its asynchronous sister, asks the gate."""
    with pytest.MonkeyPatch.context() as patch:
        sync, asynchronous = botocore.client.ClientCreator.create_client, aiobotocore.client.AioClientCreator.create_client

        def create(*args: Any, **kwargs: Any) -> Any:
            client = sync(*args, **kwargs)
            client.meta.events.register_first("before-send.s3", gate.judge)
            return client

        async def acreate(*args: Any, **kwargs: Any) -> Any:
            client = await asynchronous(*args, **kwargs)
            client.meta.events.register_first("before-send.s3", gate.judge)
            return client

        patch.setattr(botocore.client.ClientCreator, "create_client", create)
        patch.setattr(aiobotocore.client.AioClientCreator, "create_client", acreate)
        yield


class Outlet:
    def add(self, asset: Any, extra: Any) -> None:
        pass


@dataclass
class Site:
    """Four buckets, a LiveKit and a configuration, as the docs' policies have them."""

    s3: EmbeddedLocalStack
    livekit: FakeLiveKit
    buckets: dict[str, str]
    states: dict[str, str] = field(default_factory=dict)

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
            "data_interval_end": now + timedelta(minutes=1),
            "outlet_events": {LANDED: Outlet()},
        }

    def run(self, operator: type, run_id: str, **arguments: Any) -> Any:
        return operator(task_id="t", grace=0, **arguments).execute(self.context(run_id))

    def recover(self, run_id: str, *, again: bool = False) -> Any:
        """The recovery DAG's tasks, one after the other."""
        self.run(BackupEventSensor, run_id, deferrable=False)
        intake = self.run(IngestEventsOperator, run_id)
        for bundle in self.run(ResolveManifestsOperator, run_id, intake=intake):
            for operator in (DownloadFilesOperator, VerifyAndLandOperator):
                try:
                    self.run(operator, run_id, bundle=bundle)
                except LivekitBackupError:
                    break
        return self.run(ReportOperator, run_id)


@pytest.fixture
def site(strict_s3: EmbeddedLocalStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    mark = uuid.uuid4().hex[:8]
    buckets = {name: f"{name}-{mark}".replace("_", "-") for name in ("acme_events", "acme_recordings", "acme_ledger", "acme_own")}
    for bucket in buckets.values():
        strict_s3.client().create_bucket(Bucket=bucket)
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    connection = json.loads(strict_s3.airflow_connection())
    own = connection["extra"] | {"service_config": {"s3": {"bucket_name": buckets["acme_own"]}}}
    with FakeLiveKit(api_keys=API_KEYS) as livekit:
        for name, value in {
            f"{SECTION}INBOX": f"s3://{buckets['acme_events']}/livekit",
            f"{SECTION}INBOX_LAYOUT": DAYS,
            f"{SECTION}WAREHOUSE": f"s3://{buckets['acme_recordings']}/recovered",
            f"{SECTION}LEDGER": f"s3://{buckets['acme_ledger']}/livekit_backup",
            f"{SECTION}PRIMARY_CONN_ID": "aws_own",
            f"{SECTION}ALLOWED_HOSTS": f"*.amazonaws.com, {livekit.base_url.partition('://')[2]}",
            "AIRFLOW_CONN_AWS_DEFAULT": strict_s3.airflow_connection(),
            "AIRFLOW_CONN_AWS_OWN": json.dumps({**connection, "extra": own}),
            "AIRFLOW_CONN_LIVEKIT_DEFAULT": livekit.airflow_connection(),
        }.items():
            monkeypatch.setenv(name, value)
        for command in (status, recover, audit):
            monkeypatch.setattr(command, "use_connections_of_database", lambda: None)
        monkeypatch.setattr(recover, "_start_run", lambda conf, now: "run")
        monkeypatch.setattr(recover, "_is_paused", lambda: False)
        yield Site(strict_s3, livekit, buckets)


def test_the_documented_rights_are_enough_and_none_is_too_much(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    documented = policies(**site.buckets)
    receiver = PolicyGate(documented, "Receiver")
    with gated(receiver):
        _receive(site, monkeypatch)
    assert receiver.denied == []
    assert receiver.rights - receiver.used == set()

    _store_one_of_the_primary(site)
    gate = PolicyGate(documented, *AIRFLOW, "Doctor")
    with gated(gate):
        _work(site)
    assert gate.denied == []
    assert gate.rights - gate.used == set(), gate.seen


def test_doctor_needs_none_of_its_own_rights(site: Site) -> None:
    gate = PolicyGate(policies(**site.buckets), *AIRFLOW)
    with gated(gate):
        verdicts = _examine()
    assert {action for action, _ in gate.denied} == {"s3:DeleteObject", "s3:GetLifecycleConfiguration"}
    assert Verdict.BROKEN not in verdicts.values(), verdicts


def test_the_gate_itself_denies(site: Site) -> None:
    """What no policy allows reaches no server: else the tests above could not fail."""
    gate = PolicyGate(policies(**site.buckets), "Inbox", "Ledger")
    with gated(gate):
        verdicts = _examine()
    assert verdicts["warehouse"] is Verdict.BROKEN
    assert ("s3:ListBucket", f"arn:aws:s3:::{site.buckets['acme_recordings']}") in gate.denied
    assert site.s3.client().list_objects_v2(Bucket=site.buckets["acme_recordings"])["KeyCount"] == 0


def _receive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook, by the receiver that runs by itself, and what shows that it is ready."""
    for name, value in {
        "AWS_ENDPOINT_URL": site.s3.endpoint_url,
        "AWS_ACCESS_KEY_ID": site.s3.access_key,
        "AWS_SECRET_ACCESS_KEY": site.s3.secret_key,
        "AWS_DEFAULT_REGION": site.s3.region,
    }.items():
        monkeypatch.setenv(name, value)
    [(api_key, secret)] = API_KEYS.items()
    environment = {
        "LIVEKIT_BACKUP_INBOX": f"s3://{site.buckets['acme_events']}/livekit",
        "LIVEKIT_BACKUP_INBOX_LAYOUT": DAYS,
        "LIVEKIT_BACKUP_S3_ADDRESSING_STYLE": "path",
        "LIVEKIT_API_KEY": api_key,
        "LIVEKIT_API_SECRET": secret,
    }
    small = site.livekit.record_file("small.ogg", size=1000)
    long = site.livekit.record_file("long.mp4", size=12 * MIB)
    bad = site.livekit.record_file("bad.mp4", size=12 * MIB)
    site.livekit.break_(bad, Fault.TRUNCATED)
    hls = site.livekit.record_hls("hls/room", segments=12, segment_size=1000)
    app = build_app(environment)

    async def deliver() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://receiver") as client:
            statuses = [(await client.get("/ready")).status_code]
            for recording in (small, long, bad, hls, small):
                body = json.dumps(recording.event()).encode()
                headers = {"Content-Type": CONTENT_TYPE, "Authorization": sign_webhook(body, api_key, secret)}
                statuses.append((await client.post("/webhook", content=body, headers=headers)).status_code)
            return statuses

    assert asyncio.run(deliver()) == [200] * 6


def _work(site: Site) -> None:
    """Everything that Airflow does with buckets."""
    now = datetime.now(UTC)
    inbox = f"s3://{site.buckets['acme_events']}/livekit"
    # The day may have turned since the events were stored.
    prefixes = [f"{inbox}/{hour.strftime(DAYS)}" for hour in (now, now - timedelta(hours=1))]

    async def trigger() -> Any:
        waits = InboxWindowTrigger(closes_at=now.isoformat(), prefixes=prefixes, inbox_conn_id="aws_default")
        return [event.payload async for event in waits.run()]

    assert asyncio.run(trigger()) == [{"status": "objects"}]
    report = site.recover("r1")
    assert report["totals"] == {"landed": 17, "corrupt": 1}, report
    with pytest.raises(NotSafeError):
        site.run(AllSafeOperator, "r1", report=report)
    again = site.recover("r2")
    assert again["totals"] == {"already_landed": 17, "corrupt": 1}, again

    found = site.run(ReconcileOperator, "q1")
    assert found["filed"] >= 0
    with pytest.raises(NotSafeError):
        site.run(ReconciliationReportOperator, "q1")
    site.run(RaiseAlarmsOperator, "a1", notify=lambda context: None)

    late = site.livekit.record_file("late.mp4", size=1000)
    _end(recover.recover, 0, egress_ids=[late.egress_id], link=False, filename=None)
    _end(status.status, 1, days=1.0, json=False)
    _end(audit.audit, None, since=None, sample=None, full=True, seal=None, json=False)
    verdicts = _examine()
    assert Verdict.BROKEN not in verdicts.values(), verdicts


def _store_one_of_the_primary(site: Site) -> None:
    """A backup of which the file never left the customer's bucket, two parts long."""
    client, bucket = site.s3.client(), site.buckets["acme_own"]
    at = {"Bucket": bucket, "Key": "rec/own.mp4"}
    upload = client.create_multipart_upload(**at)["UploadId"]
    parts = []
    for number, size in enumerate((5 * MIB, 4 * MIB), 1):
        part = client.upload_part(**at, UploadId=upload, PartNumber=number, Body=bytes(size))
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})
    now = datetime.now(UTC)
    nanoseconds = str(int(now.timestamp()) * 10**9)
    location = f"{site.s3.endpoint_url}/{bucket}/rec/own.mp4"
    event = {
        "event": "egress_ended",
        "id": "EV_own",
        "egressInfo": {
            "egressId": "EG_own",
            "status": "EGRESS_COMPLETE",
            "startedAt": nanoseconds,
            "endedAt": nanoseconds,
            "backupStorageUsed": True,
            "fileResults": [{"filename": "rec/own.mp4", "size": str(9 * MIB), "location": location}],
        },
    }
    key = f"livekit/{now.strftime(DAYS)}own.json"
    client.put_object(Bucket=site.buckets["acme_events"], Key=key, Body=json.dumps(event).encode())


def _end(command: Any, code: Any, **arguments: Any) -> None:
    """Run a command as Airflow does, and compare how it ends."""
    try:
        command(Namespace(verbose=True, **arguments))
    except SystemExit as end:
        assert end.code == code, end.code
    else:
        assert code is None


def _examine() -> dict[str, Verdict]:
    """What doctor finds of the stores; the worst of each check."""
    setup = ExaminedSetup(may_fix=False)
    wanted = [check for check in checks(()) if check.name in S3_CHECKS]
    order = list(Verdict)
    worst: dict[str, Verdict] = {}
    for finding in examine(wanted, setup, seconds=100.0, safe=setup.safe):
        worst[finding.check] = max(worst.get(finding.check, Verdict.OK), finding.verdict, key=order.index)
    return worst
