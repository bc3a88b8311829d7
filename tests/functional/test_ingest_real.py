"""Reading the inbox from real S3 servers: keys, errors, ranges, and backups read again by their place."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from typing import Any

import pytest

from livekit_backup.core.inbox import IntakeReader, load_backup_events, load_events, raw_event
from livekit_backup.errors import ConfigurationError, UnreadableEventError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.references import Intake
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.s3_endpoint import S3Endpoint


@pytest.fixture
def inbox(any_s3: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> S3ObjectStore:
    """The inbox of a connection to each server."""
    monkeypatch.setenv("AIRFLOW_CONN_INBOX", any_s3.airflow_connection())
    return S3ObjectStore("inbox")


@pytest.fixture
def prefix(any_s3: S3Endpoint) -> str:
    """In a bucket of the test's own."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    any_s3.client().create_bucket(Bucket=name)
    return f"s3://{name}/in"


def ended(egress_id: str, **info: Any) -> dict[str, Any]:
    return {"event": "egress_ended", "egressInfo": {"egressId": egress_id, "startedAt": "5", **info}}


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def intake(store: S3ObjectStore, prefix: str) -> Intake:
    reader = IntakeReader()
    reader.read(store, store.list_keys(f"{prefix}/"))
    return reader.result()


def test_every_key_and_packing(inbox: S3ObjectStore, prefix: str) -> None:
    body = lines({"event": "room_started"}, ended("EG_1", backupStorageUsed=True))
    for number, key in enumerate(("plain", "with space", "ünï+%20 #?~", "a/b//c", "=&;:@")):
        inbox.put(f"{prefix}/{key}", gzip.compress(body) if number % 2 else body)
    [backup] = intake(inbox, prefix).backups
    assert len(backup.events) == 5
    assert len(load_backup_events(inbox, backup)) == 5
    assert json.loads(raw_event(inbox, backup)) == ended("EG_1", backupStorageUsed=True)


def test_ten_thousand_backups_in_one_object_are_read_again_alone(inbox: S3ObjectStore, prefix: str) -> None:
    events = [ended(f"EG_{number}", backupStorageUsed=True) for number in range(10_000)]
    for name, body in (("plain", lines(*events)), ("packed", gzip.compress(lines(*events)))):
        inbox.put(f"{prefix}-{name}/events", body)
        found = intake(inbox, f"{prefix}-{name}").backups
        assert [backup.egress_id for backup in found] == [f"EG_{number}" for number in range(10_000)]
        some = found[::2500]
        assert [[event.backup and event.backup.egress_id for event in loaded] for loaded in load_events(inbox, some)] == [
            [backup.egress_id] for backup in some
        ]  # fmt: skip


def test_an_object_that_is_gone_or_shorter_is_told(inbox: S3ObjectStore, prefix: str) -> None:
    inbox.put(f"{prefix}/1", lines({"event": "room_started"}, ended("EG_1", backupStorageUsed=True)))
    [backup] = intake(inbox, prefix).backups
    inbox.put(f"{prefix}/1", lines(ended("EG_1", backupStorageUsed=True)))
    assert len(load_backup_events(inbox, backup)) == 1
    inbox.put(f"{prefix}/1", lines(ended("EG_2", backupStorageUsed=True)))
    with pytest.raises(UnreadableEventError):
        load_backup_events(inbox, backup)
    inbox.delete(f"{prefix}/1")
    with pytest.raises(UnreadableEventError):
        load_backup_events(inbox, backup)
    reader = IntakeReader()
    reader.read(inbox, [f"{prefix}/1"])
    assert [document.reason for document in reader.result().unreadable] == ["removed while being read"]


def test_a_bucket_that_is_not_there_ends_the_run(inbox: S3ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match="create the bucket"):
        IntakeReader().read(inbox, ["s3://there-is-no-such-bucket/in/1"])
    assert [thread for thread in threading.enumerate() if thread.name.startswith("inbox")] == []


def test_an_object_that_may_not_be_read_is_listed(
    s3_server: EmbeddedS3, store: S3ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"s3://{bucket}/in/1", lines(ended("EG_1", backupStorageUsed=True)))
    connection = {**json.loads(s3_server.airflow_connection()), "password": "wrong-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(connection))
    reader = IntakeReader()
    reader.read(S3ObjectStore("wrong"), [f"s3://{bucket}/in/1"])
    [document] = reader.result().unreadable
    assert "SignatureDoesNotMatch" in document.reason
    assert document.may_be_backup
