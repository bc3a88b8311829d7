"""Parts sent by us to real servers: sums that are right or wrong, refusals, a server that dies in between."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from awscrt.checksums import crc64nvme

from livekit_backup.core.checksums import PartChecksums
from livekit_backup.core.upload_sink import UploadSink
from livekit_backup.errors import AccessDeniedError, ChecksumMismatchError, UploadGoneError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.upload_options import UploadOptions
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.s3_endpoint import S3Endpoint

from ..conftest import ROOT

MIB = 1024 * 1024
BODY = memoryview(bytes(range(256)) * (5 * MIB // 256))
OTHER = "AAAAAAAAAAA="


def crc(data: Any) -> str:
    return base64.b64encode(crc64nvme(data).to_bytes(8, "big")).decode()


def md5(data: Any) -> bytes:
    return hashlib.md5(data).digest()


class Opened:
    """An upload of one connection."""

    def __init__(self, store: S3ObjectStore, bucket: str, *, crc64nvme: bool = True) -> None:
        self.store = store
        self.uri = f"s3://{bucket}/some folder/ünï+%20 #?.mp4"
        self.id = store.create_upload(self.uri, content_type="video/mp4", metadata={}, crc64nvme=crc64nvme).upload_id

    def send(self, number: int = 1, body: memoryview = BODY, **checks: Any) -> str:
        return self.store.upload_part(self.uri, self.id, number, body, **checks)

    def parts(self) -> Any:
        return self.store.list_parts(self.uri, self.id)


Connect = Callable[..., S3ObjectStore]


@pytest.fixture
def connect(any_s3: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> Connect:
    def make(secret: str = "", options: Any = None, **config: Any) -> S3ObjectStore:
        connection = json.loads(any_s3.airflow_connection())
        connection["password"] = secret or connection["password"]
        connection["extra"]["config_kwargs"].update(config)
        monkeypatch.setenv("AIRFLOW_CONN_PARTS", json.dumps(connection))
        return S3ObjectStore("parts", UploadOptions.model_validate(options or {}))

    return make


@pytest.fixture
def bucket(any_s3: S3Endpoint) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    any_s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def opened(connect: Connect, bucket: str) -> Iterator[Opened]:
    opened = Opened(connect(), bucket)
    yield opened
    opened.store.abort_upload(opened.uri, opened.id)


def test_no_sums(connect: Connect, bucket: str) -> None:
    opened = Opened(connect(), bucket, crc64nvme=False)
    assert opened.send() == opened.send(2, md5=md5(BODY)) == md5(BODY).hex()


@pytest.mark.parametrize("checks", [{"crc64nvme": crc(BODY)}, {"crc64nvme": crc(BODY), "md5": md5(BODY)}])
def test_right_sums(opened: Opened, checks: Any) -> None:
    assert opened.send(**checks) == md5(BODY).hex()
    [part] = opened.parts()
    assert (part.number, part.size, part.etag) == (1, len(BODY), md5(BODY).hex())


def test_options_of_every_call(connect: Connect, bucket: str) -> None:
    options = {"ExpectedBucketOwner": "000000000000", "RequestPayer": "requester"}
    opened = Opened(connect(options=options), bucket)
    assert opened.send(crc64nvme=crc(BODY)) == md5(BODY).hex()


@pytest.mark.parametrize(
    "config",
    [{"s3": {"addressing_style": "path", "payload_signing_enabled": True}}, {"parameter_validation": False}],
)
def test_connections_of_other_settings(connect: Connect, bucket: str, config: Any) -> None:
    opened = Opened(connect(**config), bucket)
    assert opened.send(crc64nvme=crc(BODY)) == md5(BODY).hex()


@pytest.mark.parametrize("wrong", [{"crc64nvme": OTHER}, {"crc64nvme": crc(BODY), "md5": md5(b"other")}])
def test_wrong_sums(opened: Opened, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ChecksumMismatchError, match="other bytes"):
        opened.send(**wrong)
    assert not opened.parts()
    assert "sent again" not in caplog.text


def test_a_bit_that_flips_once(opened: Opened) -> None:
    session = opened.store._client._endpoint.http_session
    send, flipped = session.send, []

    def flip(request: Any) -> Any:
        if not flipped:
            flipped.append(1)
            sent = b"".join(request.body)
            request.body = bytes([sent[0] ^ 1]) + sent[1:]
        return send(request)

    session.send = flip
    sink = UploadSink(opened.store, opened.uri, opened.id)
    assert sink.put_part(1, BODY, PartChecksums(crc(BODY))) == md5(BODY).hex()
    assert flipped


def test_an_aborted_upload(opened: Opened) -> None:
    assert opened.send(crc64nvme=crc(BODY))
    opened.store.abort_upload(opened.uri, opened.id)
    with pytest.raises(UploadGoneError):
        opened.send(2, crc64nvme=crc(BODY))


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)  # LocalStack checks no signature in a header
def test_a_wrong_secret(connect: Connect, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="urllib3")
    wrong = connect(secret="wrong-secret")
    with pytest.raises(AccessDeniedError, match="SignatureDoesNotMatch"):
        wrong.upload_part(opened.uri, opened.id, 1, BODY, crc64nvme=crc(BODY))
    assert "ignature=" not in caplog.text


def test_many_threads(opened: Opened) -> None:
    bodies = [BODY[n : n + MIB] for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        etags = list(pool.map(lambda n: opened.send(n + 1, bodies[n], crc64nvme=crc(bodies[n])), range(16)))
    assert etags == [md5(body).hex() for body in bodies]
    assert [part.etag for part in opened.parts()] == etags


def test_a_server_that_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedS3(tmp_path, venv_dir=ROOT / ".embedded-s3" / "venv") as server:
        monkeypatch.setenv("AIRFLOW_CONN_PARTS", server.airflow_connection())
        server.client().create_bucket(Bucket="bucket")
        opened = Opened(S3ObjectStore("parts"), "bucket")
        assert opened.send(1, crc64nvme=crc(BODY))
        # The connection that is kept is dead now.
        server.kill()
        server.start()
        assert opened.send(2, crc64nvme=crc(BODY)) == md5(BODY).hex()
        server.kill()
        starting = threading.Timer(0.5, server.start)
        starting.start()
        opened.store._parts._backoff = lambda _: 4.0
        assert opened.send(3, crc64nvme=crc(BODY)) == md5(BODY).hex()
        starting.join()
        assert [part.number for part in opened.parts()] == [1, 2, 3]
