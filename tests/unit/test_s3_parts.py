"""Parts sent by us are those that boto would send; what is sent again; what no log and no text may hold."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import socket
import struct
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.auth
import botocore.crt.auth
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    StorageUnavailableError,
    UploadGoneError,
)
from livekit_backup.hooks import s3_parts
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_bodies import PartBody
from livekit_backup.hooks.s3_parts import PartSender

URI = "s3://bucket/some folder/ünï+%20 #?.mp4"
AT = {"Bucket": "bucket", "Key": "some folder/ünï+%20 #?.mp4", "UploadId": "U+/="}
CRC = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": "AAAAAAAAAAA="}
MD5 = {"ContentMD5": "hBotaJrYa9FhFEdFPCLG/A=="}
BODY = memoryview(bytes(range(256)) * 64)
NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)


class Session:
    """boto's HTTP session, scripted."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answers: list[Any] = []

    def send(self, request: Any) -> AWSResponse:
        self.requests.append(request)
        status, headers, body = answer = self.answers.pop(0) if self.answers else (200, {"ETag": '"e"'}, "")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return AWSResponse(request.url, status, headers, _Raw(body.encode()))

    def then(self, status: int, code: str = "", **headers: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>" if code else ""
        self.answers.append((status, headers, text))

    def fail(self, error: Exception) -> None:
        self.answers.append((error, None, None))

    def header(self, name: str) -> list[str | None]:
        return [_headers(request).get(name) for request in self.requests]


class _Raw:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def stream(self) -> list[bytes]:
        return [self.data]


def _headers(request: Any) -> dict[str, str]:
    return {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }


@pytest.fixture
def connect(monkeypatch):
    def make(session: Session | None = None, **extra: Any) -> Any:
        extra = {"region_name": "eu-west-1", **extra}
        login = {"login": extra.pop("login", "AKIDEXAMPLE"), "password": "secretsecret"}
        monkeypatch.setenv("AIRFLOW_CONN_PARTS", json.dumps({"conn_type": "aws", **login, "extra": extra}))
        client = S3ObjectStore("parts").connection.client
        if session:
            client._endpoint.http_session = session
        return client

    return make


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def client(connect, session):
    return connect(session)


@pytest.fixture
def sender(client):
    return PartSender(client, first_wait_seconds=0)


def send(sender: PartSender, number: int = 3, body: memoryview = BODY, at: Any = AT, checks: Any = CRC) -> str:
    return sender.send(URI, number, body, at, checks)


S3 = "config_kwargs"
CONNECTIONS = {
    "aws": {},
    "path": {S3: {"s3": {"addressing_style": "path"}}},
    "accelerate": {S3: {"s3": {"use_accelerate_endpoint": True}}},
    "dualstack": {S3: {"s3": {"use_dualstack_endpoint": True}}},
    "us-east-1": {"region_name": "us-east-1"},
    "china": {"region_name": "cn-north-1"},
    "own endpoint": {"endpoint_url": "https://minio.acme.example:9000/s3"},
    "plain http": {"endpoint_url": "http://minio.acme.example:9000"},
    "signed payload": {S3: {"s3": {"payload_signing_enabled": True}}},
    "assumed role": {"aws_session_token": "a-session-token"},
    "own checksum": {S3: {"request_checksum_calculation": "when_supported"}},
    "signature 2": {"endpoint_url": "https://old.example", S3: {"signature_version": "s3"}},
    "anonymous": {S3: {"signature_version": "unsigned"}},
}


@pytest.mark.parametrize("extra", CONNECTIONS.values(), ids=list(CONNECTIONS))
@pytest.mark.parametrize("checks", [{}, CRC, MD5, CRC | MD5], ids=["none", "crc", "md5", "both"])
@pytest.mark.parametrize("owner", [{}, {"ExpectedBucketOwner": "012345678901", "RequestPayer": "requester"}])
def test_it_sends_what_boto_sends(connect, session, monkeypatch, extra, checks, owner):
    for module in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(
            module,
            "get_current_datetime",
            lambda remove_tzinfo=True: NOW.replace(tzinfo=None if remove_tzinfo else dt.UTC),
        )
    monkeypatch.setattr("botocore.auth.formatdate", lambda usegmt: "Mon, 23 Nov 2026 08:30:00 GMT")
    client = connect(session, **extra)
    at = AT | owner
    client.upload_part(**at, **checks, PartNumber=3, Body=PartBody(BODY), ContentLength=len(BODY))
    assert send(PartSender(client), at=at, checks=checks) == "e"
    botos, ours = session.requests
    assert (ours.method, ours.url) == (botos.method, botos.url)
    assert _stable(ours) == _stable(botos)
    assert "Signature=" not in ours.url
    if botos.headers.get("X-Amz-Trailer"):
        # What only boto can send, it sends.
        assert _headers(ours)["expect"] == "100-continue"
    else:
        assert _is_view(ours.body)
        assert "expect" not in _headers(ours)


def _is_view(body: Any, whole: memoryview = BODY) -> bool:
    """Whether a body is the part, and no copy of it."""
    return b"".join(body) == whole and all(view.obj is whole.obj for view in body)


def _stable(request: Any) -> dict[str, str]:
    """The headers but for the reservation, boto's bookkeeping of retries, and which of its features are in use."""
    headers = _headers(request)
    for name in ("expect", "amz-sdk-invocation-id", "amz-sdk-request"):
        headers.pop(name, None)
    headers["user-agent"] = " ".join(word for word in headers["user-agent"].split() if not word.startswith("m/"))
    return headers


def test_every_part_has_its_own_number_length_and_sums(sender, session, client):
    asked = []
    client.meta.events.register("before-parameter-build.s3.UploadPart", lambda **_: asked.append(1))
    for number in (1, 2, 10_000):
        send(sender, number, BODY[:number], checks=CRC | {"ChecksumCRC64NVME": f"sum {number}"})
    assert [request.url.rpartition("=")[2] for request in session.requests] == ["1", "2", "10000"]
    assert session.header("content-length") == ["1", "2", "10000"]
    assert session.header("x-amz-checksum-crc64nvme") == ["sum 1", "sum 2", "sum 10000"]
    assert len(set(session.header("authorization"))) == 3
    assert len(asked) == 1
    send(sender, at=AT | {"UploadId": "other"})
    assert "uploadId=other" in session.requests[-1].url
    for number in range(3 * s3_parts._MAX_KNOWN):
        send(sender, at=AT | {"UploadId": str(number)})
    assert len(sender._known) <= s3_parts._MAX_KNOWN


def test_renewed_keys_are_used(sender, session, client):
    send(sender)
    client._request_signer._credentials.access_key = "AKIDRENEWED"
    send(sender)
    assert ["AKIDRENEWED" in header for header in session.header("authorization")] == [False, True]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (502, ""),
        (503, "SlowDown"),
        (504, ""),
        (400, "RequestTimeout"),
        (403, "RequestTimeTooSkewed"),
        (429, "Throttled"),
    ],
)
def test_what_passes_is_sent_again(sender, session, status, code):
    session.then(status, code)
    assert send(sender) == "e"
    assert len(session.requests) == 2
    assert all(_is_view(request.body) for request in session.requests)
    # A store that refuses and closes is only heard if it is asked before.
    assert session.header("expect") == [None, "100-continue"]


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://e"),
        ReadTimeoutError(endpoint_url="https://e"),
        ConnectionClosedError(endpoint_url="https://e"),
    ],
)
def test_a_connection_that_fails(sender, session, error):
    session.fail(error)
    assert send(sender) == "e"
    for _ in range(s3_parts.ATTEMPTS):
        session.fail(error)
    with pytest.raises(StorageUnavailableError, match="did not answer"):
        send(sender)
    assert len(session.requests) == 2 + s3_parts.ATTEMPTS


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (403, "AccessDenied", AccessDeniedError),
        (403, "SignatureDoesNotMatch", AccessDeniedError),
        (403, "", AccessDeniedError),
        (404, "NoSuchUpload", UploadGoneError),
        (404, "NoSuchBucket", ConfigurationError),
        (400, "InvalidArgument", ConfigurationError),
        (501, "NotImplemented", ConfigurationError),
        # The sink sends it again, whichever way a part goes.
        (400, "BadDigest", ChecksumMismatchError),
        (400, "XAmzContentChecksumMismatch", ChecksumMismatchError),
    ],
)
def test_what_does_not_pass_is_said_at_once(sender, session, status, code, ours):
    session.then(status, code)
    with pytest.raises(ours) as caught:
        send(sender)
    assert type(caught.value) is ours
    assert str(caught.value).startswith(f"{URI}: UploadPart answered {code or status}")
    assert len(session.requests) == 1


def test_waits_grow(client, session, monkeypatch):
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    for _ in range(s3_parts.ATTEMPTS):
        session.then(503, "SlowDown")
    with pytest.raises(StorageUnavailableError, match="SlowDown"):
        send(PartSender(client))
    assert all(0 <= wait <= 2**n for n, wait in enumerate(waits))
    assert len(waits) == s3_parts.ATTEMPTS - 1


@pytest.mark.parametrize(("total", "sent"), [(1, 1), (2, 2), (9, s3_parts.ATTEMPTS)])
def test_the_connection_may_ask_for_fewer_attempts(connect, session, total, sent):
    sender = PartSender(
        connect(session, config_kwargs={"retries": {"total_max_attempts": total}}), first_wait_seconds=0
    )
    for _ in range(10):
        session.then(503, "SlowDown")
    with pytest.raises(StorageUnavailableError):
        send(sender)
    assert len(session.requests) == sent


def test_an_answer_without_an_etag(sender, session):
    for _ in range(s3_parts.ATTEMPTS):
        session.then(200)
    with pytest.raises(StorageUnavailableError, match="without an ETag"):
        send(sender)


def test_a_bucket_in_another_region_is_found_by_boto(sender, session):
    session.then(301, "PermanentRedirect", **{"x-amz-bucket-region": "us-west-2"})
    session.then(301, "PermanentRedirect", **{"x-amz-bucket-region": "us-west-2"})
    assert send(sender) == "e"
    assert send(sender) == "e"
    assert ["us-west-2" in request.url for request in session.requests] == [False, False, True, True]
    assert _is_view(session.requests[-1].body)


def test_without_keys(sender, client):
    client._request_signer._credentials = None
    with pytest.raises(AccessDeniedError, match="no credentials"):
        send(sender)


def test_threads_share_it(sender, session):
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda n: send(sender, n, BODY[:n]), range(1, 200))) == {"e"}
    sent = {(request.url.rpartition("=")[2], _headers(request)["content-length"]) for request in session.requests}
    assert sent == {(str(n), str(n)) for n in range(1, 200)}


def test_other_calls_of_the_client_go_out(sender, session, client):
    client.put_object(Bucket="bucket", Key="k", Body=b"x")
    client.upload_part(**AT, PartNumber=1, Body=b"x")
    assert len(session.requests) == 2


def test_no_signature_in_logs_and_texts(sender, session, caplog):
    caplog.set_level(logging.DEBUG)
    session.then(503, "SlowDown")
    session.fail(ConnectionClosedError(endpoint_url="https://e", request=object()))
    session.then(403, "AccessDenied")
    with pytest.raises(AccessDeniedError) as caught:
        send(sender)
    text = "".join(traceback.format_exception(caught.value)) + "".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("livekit_backup", "urllib3", "botocore.http"))
    )
    for secret in session.header("authorization"):
        assert secret and secret.rpartition("=")[2] not in text
    assert "Signature=" not in "".join(request.url for request in session.requests)
    assert [record.levelname for record in caplog.records if record.name.startswith("livekit_backup")] == [
        "WARNING"
    ] * 2


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0
    seen: list[int]
    refuses = False
    seconds_a_mib = 0.0

    def get_request(self):
        self.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_PUT(self) -> None:
        if self.server.refuses:
            self.close_connection = True
            if "Expect" not in self.headers:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self._say(403, b"<Error><Code>AccessDenied</Code><Message>m</Message></Error>")
            self.connection.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                self.server.seen.append(len(self.rfile.read1(10)))
            return
        length = int(self.headers["Content-Length"])
        while length:
            length -= len(self.rfile.read(min(length, 1024 * 1024)))
            time.sleep(self.server.seconds_a_mib)
        self.server.seen.append(length)
        self._say(200, b"x" * 100_000)

    def handle_expect_100(self) -> bool:
        return self.server.refuses or super().handle_expect_100()

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server():
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def real_sender(connect, server):
    client = connect(endpoint_url=f"http://127.0.0.1:{server.server_port}")
    yield PartSender(client, first_wait_seconds=0)
    client.close()


def test_connections_are_kept(real_sender, server, caplog):
    caplog.set_level(logging.DEBUG, logger="urllib3")
    for number in range(1, 20):
        assert send(real_sender, number) == "e"
    assert server.connections == 1
    assert len(server.seen) == 19
    logged = [record.getMessage() for record in caplog.records if "PUT" in record.getMessage()]
    assert len(logged) == 19
    assert not [line for line in logged if "ignature" in line]


def test_a_store_that_refuses_and_closes_is_heard(real_sender, server):
    server.refuses = True
    with pytest.raises(AccessDeniedError, match="AccessDenied"):
        send(real_sender, body=memoryview(bytes(16 * 1024 * 1024)))
    # It is asked before the bytes go out again.
    assert sum(server.seen) == 0


def test_a_part_may_take_longer_than_the_time_out(connect, server, caplog):
    client = connect(
        endpoint_url=f"http://127.0.0.1:{server.server_port}", config_kwargs={"connect_timeout": 1, "read_timeout": 3}
    )
    server.seconds_a_mib = 0.15
    # What the kernels hold is still to be read when all is sent, and the time-out runs by then: they shall hold little.
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    assert send(PartSender(client), body=memoryview(bytes(24 * 1024 * 1024))) == "e"
    assert "sent again" not in caplog.text
    client.close()
