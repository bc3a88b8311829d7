"""A real S3 server and a fake LiveKit on loopback."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from livekit_backup.core.ledger import Ledger
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.settings import Settings
from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_s3 import EmbeddedS3


@pytest.fixture
def bucket(s3_client: object) -> str:
    """A bucket of the test's own."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)  # type: ignore[attr-defined]
    return name


@pytest.fixture
def store(s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> S3ObjectStore:
    """The product's own store, by an Airflow connection."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.airflow_connection())
    return S3ObjectStore("aws_default")


@pytest.fixture
def livekit() -> Iterator[FakeLiveKit]:
    """A fake LiveKit Cloud."""
    with FakeLiveKit() as fake:
        yield fake


@pytest.fixture
def settings(bucket: str, livekit: FakeLiveKit) -> Settings:
    """Settings whose inbox, warehouse and ledger lie in the test's bucket."""
    return Settings(
        inbox=f"s3://{bucket}/inbox",
        warehouse=f"s3://{bucket}/warehouse",
        ledger=f"s3://{bucket}/warehouse/_livekit_backup",
        allowed_hosts=(livekit.base_url.removeprefix("http://"), "*.amazonaws.com"),
    )


@pytest.fixture
def ledger(store: S3ObjectStore, settings: Settings) -> Ledger:
    """The ledger in the test's bucket."""
    return Ledger(store, settings.ledger)
