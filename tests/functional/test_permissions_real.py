"""Receiver, operators and commands with exactly the documented rights: none is missing, and none is never used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiobotocore.client
import botocore.client
import httpx
import pytest

from livekit_backup.commands import audit, recover, status
from livekit_backup.errors import NotSafeError
from livekit_backup.models.finding import Verdict
from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator
from livekit_backup.operators.reconcile import ReconcileOperator, ReconciliationReportOperator
from livekit_backup.operators.report import AllSafeOperator
from livekit_backup.receiver.__main__ import build_app
from livekit_backup.testing import Fault
from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, sign_webhook
from livekit_backup.triggers.inbox_window import InboxWindowTrigger

from .operator_site import DAYS, OperatorSite, examined, exit_code, operator_site
from .policy_gate import PolicyGate, policies
from .recovery_pipeline import MIB

API_KEYS = {"APIrights": "a-secret-of-the-rights'-test-that-is-long-enough"}
AIRFLOW = ("Inbox", "Warehouse", "Ledger", "Primary")


@contextmanager
def gated(gate: PolicyGate) -> Iterator[None]:
    """Every client that is made meanwhile, of boto and of its asynchronous sister, asks the gate."""
    with pytest.MonkeyPatch.context() as patch:
        sync, asynchronous = (
            botocore.client.ClientCreator.create_client,
            aiobotocore.client.AioClientCreator.create_client,
        )

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


@pytest.fixture
def site(strict_s3: EmbeddedLocalStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperatorSite]:
    with operator_site(strict_s3, monkeypatch, API_KEYS) as site:
        yield site


def test_the_documented_rights_are_enough_and_none_is_too_much(
    site: OperatorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_doctor_needs_none_of_its_own_rights(site: OperatorSite) -> None:
    gate = PolicyGate(policies(**site.buckets), *AIRFLOW)
    with gated(gate):
        verdicts = _examine()
    assert {action for action, _ in gate.denied} == {"s3:DeleteObject", "s3:GetLifecycleConfiguration"}
    assert Verdict.BROKEN not in verdicts.values(), verdicts


def test_the_gate_itself_denies(site: OperatorSite) -> None:
    """What no policy allows reaches no server: else the tests above could not fail."""
    gate = PolicyGate(policies(**site.buckets), "Inbox", "Ledger")
    with gated(gate):
        verdicts = _examine()
    assert verdicts["warehouse"] is Verdict.BROKEN
    assert ("s3:ListBucket", f"arn:aws:s3:::{site.buckets['acme_recordings']}") in gate.denied
    assert site.s3.client().list_objects_v2(Bucket=site.buckets["acme_recordings"])["KeyCount"] == 0


def _receive(site: OperatorSite, monkeypatch: pytest.MonkeyPatch) -> None:
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


def _work(site: OperatorSite) -> None:
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
    assert exit_code(recover.recover, egress_ids=[late.egress_id], link=False, filename=None) == 0
    assert exit_code(status.status, days=1.0, json=False) == 1
    assert exit_code(audit.audit, since=None, sample=None, full=True, seal=None, json=False) == 0
    assert [finding for finding in examined() if finding.verdict is Verdict.BROKEN] == []


def _store_one_of_the_primary(site: OperatorSite) -> None:
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


def _examine() -> dict[str, Verdict]:
    """What doctor finds of the stores; the worst of each check."""
    order = list(Verdict)
    worst: dict[str, Verdict] = {}
    for finding in examined():
        worst[finding.check] = max(worst.get(finding.check, Verdict.OK), finding.verdict, key=order.index)
    return worst
