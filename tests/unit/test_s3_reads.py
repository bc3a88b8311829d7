"""Objects are read by the requests that boto would send; what is not simply answered is left to boto."""

from __future__ import annotations

import datetime as dt
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.auth
import botocore.crt.auth
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ConnectionClosedError

from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_reads import ObjectReader

AT = {"Bucket": "bucket", "Key": "some folder/ünï+%20 #?~.json"}
NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)
NOT_THERE = (404, b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>m</Message></Error>")


class Raw:
    """An answer's bytes, as urllib3 has them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, amt: int | None = None) -> bytes:
        amt = len(self._data) if amt is None else amt
        data, self._data = self._data[:amt], self._data[amt:]
        return data

    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        return [self.read()]

    def drain_conn(self) -> None:
        pass


class Session:
    """boto's HTTP session, scripted."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answers: list[Any] = []
        self._lock = threading.Lock()

    def send(self, request: Any) -> AWSResponse:
        with self._lock:
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else (200, b"body")
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return AWSResponse(request.url, status, {"content-length": str(len(body))}, Raw(body))


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def connect(monkeypatch, session):
    def make(**extra: Any) -> Any:
        extra = {"region_name": "eu-west-1", **extra}
        login = {"login": "AKIDEXAMPLE", "password": "secretsecret"}
        monkeypatch.setenv("AIRFLOW_CONN_READS", json.dumps({"conn_type": "aws", **login, "extra": extra}))
        client = S3ObjectStore("reads").connection.client
        client._endpoint.http_session = session
        return client

    return make


S3 = "config_kwargs"
CONNECTIONS = {
    "aws": {},
    "path": {S3: {"s3": {"addressing_style": "path"}}},
    "dualstack": {S3: {"s3": {"use_dualstack_endpoint": True}}},
    "us-east-1": {"region_name": "us-east-1"},
    "own endpoint": {"endpoint_url": "https://minio.acme.example:9000/s3"},
    "plain http": {"endpoint_url": "http://minio.acme.example:9000"},
    "assumed role": {"aws_session_token": "a-session-token"},
    "checked": {S3: {"response_checksum_validation": "when_supported"}},
    "signature 2": {"endpoint_url": "https://old.example", S3: {"signature_version": "s3"}},
    "anonymous": {S3: {"signature_version": "unsigned"}},
}


def _stable(request: Any) -> dict[str, str]:
    """The headers but for boto's bookkeeping of retries, and which of its features are in use."""
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    for name in ("amz-sdk-invocation-id", "amz-sdk-request"):
        headers.pop(name, None)
    headers["user-agent"] = " ".join(word for word in headers["user-agent"].split() if not word.startswith("m/"))
    return headers


@pytest.mark.parametrize("extra", CONNECTIONS.values(), ids=list(CONNECTIONS))
@pytest.mark.parametrize("owner", [{}, {"ExpectedBucketOwner": "012345678901", "RequestPayer": "requester"}])
def test_it_sends_what_boto_sends(connect, session, monkeypatch, extra, owner):
    for module in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(
            module,
            "get_current_datetime",
            lambda remove_tzinfo=True: NOW.replace(tzinfo=None if remove_tzinfo else dt.UTC),
        )
    monkeypatch.setattr("botocore.auth.formatdate", lambda usegmt: "Mon, 23 Nov 2026 08:30:00 GMT")
    client = connect(**extra)
    reader = ObjectReader(client)
    for key in (AT["Key"], "a", "a//b/../c", "livekit-backup-key"):
        session.requests.clear()
        at = {**AT, "Key": key, **owner}
        client.get_object(**at)
        assert reader.open(at).read() == b"body"
        botos, ours = session.requests
        assert (ours.method, ours.url, ours.stream_output) == (botos.method, botos.url, botos.stream_output)
        assert _stable(ours) == _stable(botos)


def test_each_key_is_its_own_request(connect, session):
    reader = ObjectReader(connect())
    for key in ("a", "b", "a"):
        reader.open({**AT, "Key": key})
    assert [request.url.rpartition("/")[2] for request in session.requests] == ["a", "b", "a"]
    signatures = [str(request.headers["Authorization"]) for request in session.requests]
    assert signatures[0] != signatures[1]


@pytest.mark.parametrize("trouble", [(503, b"busy"), (500, b""), ConnectionClosedError(endpoint_url="https://x")])
def test_what_is_not_answered_is_asked_of_boto(connect, session, trouble):
    session.answers = [trouble, (200, b"body")]
    assert ObjectReader(connect()).open(AT).read() == b"body"
    assert len(session.requests) == 2


def test_an_error_is_botos_own(connect, session):
    session.answers = [NOT_THERE, NOT_THERE]
    with pytest.raises(ClientError) as caught:
        ObjectReader(connect()).open(AT)
    assert caught.value.response["Error"]["Code"] == "NoSuchKey"


def test_botos_own_calls_are_sent(connect, session):
    client = connect()
    reader = ObjectReader(client)
    reader.open(AT)
    client.get_object(Bucket="bucket", Key="livekit-backup-key")
    assert session.requests[-1].url.endswith("/livekit-backup-key")


def test_threads_share_a_reader(connect, session):
    reader = ObjectReader(connect())
    keys = [f"key-{number}" for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda key: reader.open({**AT, "Key": key}).read(), keys))
    assert bodies == [b"body"] * 100
    assert sorted(request.url.rpartition("/")[2] for request in session.requests) == sorted(keys)
