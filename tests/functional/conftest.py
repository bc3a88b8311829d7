"""A real S3 server and a fake LiveKit on loopback."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from livekit_backup.core.ledger import Ledger
from livekit_backup.core.store_check import check_store
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.settings import Settings
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.s3_endpoint import S3Endpoint

from .recovery_pipeline import Pipeline, Place, pipeline_at


@pytest.fixture(scope="session", params=["swift", "localstack"])
def any_s3(request: pytest.FixtureRequest) -> S3Endpoint:
    """Each of the two S3 servers in turn."""
    server = request.getfixturevalue({"swift": "s3_server", "localstack": "strict_s3"}[request.param])
    assert isinstance(server, S3Endpoint)
    return server


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
def ledger(store: S3ObjectStore, settings: Settings, bucket: str, known_abilities: StoreAbilities) -> Ledger:
    """The ledger in the test's bucket; it knows the server already, which takes a second to find out."""
    ledger = Ledger(store, settings.ledger)
    ledger.write_abilities(bucket, known_abilities)
    return ledger


@pytest.fixture(scope="session")
def known_abilities(s3_server: EmbeddedS3) -> StoreAbilities:
    """What the embedded server honours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.airflow_connection())
        s3_server.client().create_bucket(Bucket="known-abilities")
        return check_store(S3ObjectStore("aws_default"), "s3://known-abilities/probes", datetime.now(UTC))


@pytest.fixture(scope="session")
def any_store(any_s3: S3Endpoint) -> Iterator[S3ObjectStore]:
    """The product's own store on each server, by an Airflow connection of its name."""
    name = type(any_s3).__name__.lower()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"AIRFLOW_CONN_{name.upper()}", any_s3.airflow_connection())
        yield S3ObjectStore(name)


@pytest.fixture(scope="session")
def any_client(any_s3: S3Endpoint) -> Any:
    """The tests' own eyes on each server."""
    return any_s3.client()


@pytest.fixture(scope="session")
def any_abilities(any_store: S3ObjectStore, any_client: Any) -> StoreAbilities:
    """What each server honours."""
    name = f"any-abilities-{uuid.uuid4().hex[:12]}"
    any_client.create_bucket(Bucket=name)
    return check_store(any_store, f"s3://{name}/probes", datetime.now(UTC))


@pytest.fixture
def place(any_s3: S3Endpoint, any_client: Any) -> Place:
    """A bucket of the test's own on each server."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    any_client.create_bucket(Bucket=name)
    return Place(any_s3, any_client, name)


@pytest.fixture
def any_pipeline(
    place: Place, any_store: S3ObjectStore, any_abilities: StoreAbilities, livekit: FakeLiveKit
) -> Pipeline:
    """A recovery into each server. For one of them: ``parametrize("any_s3", ["swift"], indirect=True)``."""
    return pipeline_at(place, any_store, any_abilities, livekit)
