"""What goes over the wire and how answers become ours, with scripted answers; what servers do is tested with them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from livekit_backup.core.locations import Location
from livekit_backup.core.storage import ConditionalStore, ObjectStore, UploadedPart
from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    RetryableError,
    SourceChangedError,
    StorageUnavailableError,
    UploadGoneError,
)
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_bodies import PartBody
from livekit_backup.hooks.s3_errors import store_errors
from livekit_backup.hooks.s3_places import S3Place
from livekit_backup.models.upload_options import UploadOptions

URI = "s3://bucket/some/key"
PART = UploadedPart(1, 4, "e" * 32)
OPTIONS = {
    "ServerSideEncryption": "aws:kms",
    "StorageClass": "STANDARD_IA",
    "ACL": "bucket-owner-full-control",
    "Tagging": {"team": "video"},
    "Metadata": {"owner": "us"},
    "ExpectedBucketOwner": "012345678901",
    "RequestPayer": "requester",
}


def _client_error(code, status, operation="PutObject", message="as the store says"):
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (_client_error("AccessDenied", 403), AccessDeniedError),
        (_client_error("403", 403), AccessDeniedError),
        (_client_error("InvalidAccessKeyId", 403), AccessDeniedError),
        (_client_error("SignatureDoesNotMatch", 403), AccessDeniedError),
        (_client_error("ExpiredToken", 400), AccessDeniedError),
        (_client_error("NoSuchBucket", 404), ConfigurationError),
        (_client_error("InvalidArgument", 400), ConfigurationError),
        (_client_error("NotImplemented", 501), ConfigurationError),
        (_client_error("NoSuchUpload", 404), UploadGoneError),
        (_client_error("SlowDown", 503), StorageUnavailableError),
        (_client_error("Throttled", 429), StorageUnavailableError),
        (_client_error("500", 500), StorageUnavailableError),
        (_client_error("BadDigest", 400), ChecksumMismatchError),
        (_client_error("InvalidDigest", 400), ChecksumMismatchError),
        (_client_error("XAmzContentChecksumMismatch", 400), ChecksumMismatchError),
        (_client_error("BadDigest", 500), ChecksumMismatchError),
        (_client_error("InvalidPart", 400, "CompleteMultipartUpload"), ChecksumMismatchError),
        (_client_error("InvalidPart", 400, "UploadPart"), ConfigurationError),
        (
            _client_error("InvalidRequest", 400, "CompleteMultipartUpload", "The provided 'x-amz-mp-object-size' header"),
            ChecksumMismatchError,
        ),
        (_client_error("InvalidRequest", 400, "CompleteMultipartUpload"), ConfigurationError),
        (EndpointConnectionError(endpoint_url="http://s3.acme"), StorageUnavailableError),
        (NoCredentialsError(), AccessDeniedError),
    ],
)  # fmt: skip
def test_errors_are_ours_and_name_the_object(error, ours):
    with pytest.raises(ours) as caught, store_errors(URI):
        raise error
    assert type(caught.value) is ours
    assert str(caught.value).startswith(f"{URI}: ")
    assert caught.value.__cause__ is None


def test_what_may_pass_is_retried():
    assert issubclass(StorageUnavailableError, RetryableError)
    assert issubclass(ChecksumMismatchError, RetryableError)


def test_other_errors_pass():
    with pytest.raises(FileNotFoundError), store_errors(URI):
        raise FileNotFoundError(URI)


def test_it_is_a_store_and_connects_to_nothing_by_itself():
    assert issubclass(S3ObjectStore, ObjectStore)
    assert issubclass(S3ObjectStore, ConditionalStore)
    assert S3ObjectStore("no_such_connection").aws_conn_id == "no_such_connection"


def test_a_part_is_a_file_of_views():
    part = memoryview(bytes(range(200)))
    body = PartBody(part)
    assert len(body) == 200
    assert body.read(50).obj is part.obj
    assert body.tell() == 50
    assert body.read() == part[50:]
    assert body.read(10) == b""
    assert body.seek(0) == 0
    assert body.read(None) == part
    assert body.seek(-10, io.SEEK_END) == 190
    assert body.seek(5, io.SEEK_CUR) == 195
    assert body.read(100) == part[195:]
    assert body.seek(-1) == 0


class Script:
    """Answers requests before they would be sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.default: Callable[[Any], tuple[int, dict[str, str], str]] = lambda request: (404, {}, "")

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        self.requests.append(request)
        status, headers, body = self.answers.pop(0) if self.answers else self.default(request)
        return AWSResponse(request.url, status, headers, _Raw(body.encode()))

    def then(self, status: int, body: str = "", **headers: str) -> None:
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, body))

    def sent(self, name: str) -> list[str | None]:
        """A header of all requests."""
        return [_text(request.headers.get(name)) for request in self.requests]


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


class _Raw(io.BytesIO):
    def stream(self, *_: Any, **__: Any) -> Any:
        yield self.read()


def _error(code: str, message: str = "m") -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def connect(script, monkeypatch):
    def make(options=None, **extra):
        extra = {"region_name": "eu-west-1", "config_kwargs": {"retries": {"total_max_attempts": 1}}, **extra}
        connection = {"conn_type": "aws", "login": "AKIDEXAMPLE", "password": "secretsecret", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps(connection))
        store = S3ObjectStore("scripted", UploadOptions.model_validate(options or {}))
        store.connection.client.meta.events.register("before-send.s3", script)
        return store

    return make


@pytest.fixture
def store(connect):
    return connect()


def _complete(store: S3ObjectStore) -> bool:
    return store.complete_upload(URI, "U", [PART], size=4, crc64nvme="AAAAAAAAAAA=")


COMPLETED = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
OPENED = "<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>"


def test_a_part_goes_out_with_its_checksums_and_unsigned(store, script):
    script.then(200, ETag='"abc"')
    md5 = hashlib.md5(b"body").digest()
    assert store.upload_part(URI, "U", 3, memoryview(b"body"), crc64nvme="AAAAAAAAAAA=", md5=md5) == "abc"
    [request] = script.requests
    assert request.url.endswith("/some/key?uploadId=U&partNumber=3")
    assert request.body.read() == b"body"
    for name, value in {
        "Content-Length": "4",
        "Content-MD5": base64.b64encode(md5).decode(),
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=",
        "x-amz-sdk-checksum-algorithm": "CRC64NVME",
        "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD",
        "X-Amz-Trailer": None,
    }.items():
        assert script.sent(name) == [value], name


def test_a_part_without_checksums_gets_none(store, script):
    script.then(200, ETag='"abc"')
    store.upload_part(URI, "U", 3, memoryview(b"body"))
    assert not [name for name in script.requests[0].headers if "checksum" in name.lower() or "md5" in name.lower()]


def test_a_part_is_rewound_before_it_is_sent_again(connect, script):
    store = connect(config_kwargs={"retries": {"mode": "standard", "total_max_attempts": 3}})
    bodies = []

    def read(request):
        bodies.append(bytes(request.body.read()))
        return (503, {}, _error("SlowDown")) if len(bodies) < 2 else (200, {"ETag": '"abc"'}, "")

    script.default = read
    assert store.upload_part(URI, "U", 3, memoryview(b"body")) == "abc"
    assert bodies == [b"body", b"body"]


def test_a_completion_states_what_it_makes_and_on_what_condition(store, script):
    script.then(404)
    script.then(200, COMPLETED)
    assert _complete(store)
    look, complete = script.requests
    assert (look.method, complete.method) == ("HEAD", "POST")
    for name, value in {
        "If-None-Match": "*",
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=",
        "x-amz-checksum-type": "FULL_OBJECT",
        "x-amz-mp-object-size": "4",
    }.items():
        assert script.sent(name)[1] == value, name


@pytest.mark.parametrize(
    ("code", "ours"), [("InternalError", StorageUnavailableError), ("BadDigest", ChecksumMismatchError)]
)
def test_an_error_in_a_200(store, script, code, ours):
    script.then(404)
    script.then(200, _error(code))
    with pytest.raises(ours):
        _complete(store)


@pytest.mark.parametrize("status", [200, 412])
def test_a_completion_that_came_second(store, script, status):
    script.then(404)
    script.then(status, _error("PreconditionFailed"))
    assert not _complete(store)


def test_a_store_that_knows_neither_condition_nor_checksum(store, script):
    script.then(404)
    for _ in range(3):
        script.then(501, _error("NotImplemented"))
    script.then(200, COMPLETED)
    assert _complete(store)
    assert script.sent("If-None-Match") == [None, "*", "*", None, None]
    assert script.sent("x-amz-checksum-crc64nvme") == [None, "AAAAAAAAAAA=", None, "AAAAAAAAAAA=", None]


def test_a_store_that_can_complete_nothing(store, script):
    script.default = lambda request: (404, {}, "") if request.method == "HEAD" else (501, {}, _error("NotImplemented"))
    with pytest.raises(ConfigurationError, match="NotImplemented"):
        _complete(store)
    assert len(script.requests) == 5


def test_without_looking_only_the_condition_holds(store, script):
    script.then(200, COMPLETED)
    assert _complete(store.without_looking())
    assert [request.method for request in script.requests] == ["POST"]
    script.then(200, Content_Length="1", ETag='"x"')
    assert not _complete(store)


def test_a_new_object_where_the_condition_is_unknown(store, script):
    script.then(404)
    script.then(501, _error("NotImplemented"))
    script.then(200)
    assert store.put_new(URI, b"", content_type="video/mp4", metadata={"livekit-run": "1"})
    assert script.sent("If-None-Match") == [None, "*", None]
    assert script.sent("x-amz-meta-livekit-run") == [None, "1", "1"]


def test_an_upload_is_opened_with_its_checksum_declared(store, script):
    script.then(200, OPENED)
    script.then(200, OPENED)
    assert store.create_upload(URI, content_type="video/mp4", metadata={}).etags_are_md5
    store.create_upload(URI, content_type="video/mp4", metadata={}, crc64nvme=False)
    assert script.sent("x-amz-checksum-algorithm") == ["CRC64NVME", None]
    assert script.sent("x-amz-checksum-type") == ["FULL_OBJECT", None]


@pytest.mark.parametrize(
    ("headers", "is_md5"),
    [
        ({}, True),
        ({"x-amz-server-side-encryption": "AES256"}, True),
        ({"x-amz-server-side-encryption": "aws:kms"}, False),
        ({"x-amz-server-side-encryption": "aws:kms:dsse"}, False),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, False),
    ],
)
def test_encryption_under_which_etags_are_no_md5s(store, script, headers, is_md5):
    script.answers = [(200, headers, OPENED), (200, {**headers, "Content-Length": "1", "ETag": '"x"'}, "")]
    assert store.create_upload(URI, content_type="video/mp4", metadata={}).etags_are_md5 is is_md5
    assert store.head(URI).etag_is_md5 is is_md5


def test_a_store_without_tags(connect, script, caplog):
    store = connect({"Tagging": {"team": "video"}})
    script.then(501, _error("NotImplemented"))
    script.then(200, OPENED)
    assert store.create_upload(URI, content_type="video/mp4", metadata={}).upload_id == "U"
    assert script.sent("x-amz-tagging") == ["team=video", None]
    assert [record.message for record in caplog.records if record.name.startswith("livekit_backup")] == [
        f"{URI}: the store does not know Tagging, so it was left out"
    ]


@pytest.mark.parametrize("status", [400, 403, 501])
def test_a_head_that_may_not_show_the_checksum(store, script, status):
    def answer(request):
        return (status, {}, "") if "x-amz-checksum-mode" in request.headers else (200, found, "")

    found = {"Content-Length": "1", "ETag": '"x"'}
    script.default = answer
    assert store.head(URI).size == 1
    assert script.sent("x-amz-checksum-mode")[0] == "ENABLED"


def test_a_head_with_its_checksum(store, script):
    script.then(200, Content_Length="1", ETag='"x"', x_amz_checksum_crc64nvme="AAAAAAAAAAA=", x_amz_meta_a="b")
    head = store.head(URI)
    assert (head.size, head.etag, head.crc64nvme, dict(head.metadata)) == (1, "x", "AAAAAAAAAAA=", {"a": "b"})


def test_a_head_that_is_denied_or_finds_nothing(store, script):
    script.default = lambda request: (403, {}, "")
    with pytest.raises(AccessDeniedError):
        store.head(URI)
    script.default = lambda request: (404, {}, "")
    assert store.head(URI) is None


def test_a_part_of_an_object(store, script):
    script.then(206, "cde", ETag='"x"', Content_Range="bytes 2-4/9", Content_Length="3")
    body = store.open(URI, 2, 5, "x")
    assert body.read() == b"cde"
    assert (script.sent("Range"), script.sent("If-Match")) == (["bytes=2-4"], ['"x"'])


def test_a_store_that_ignores_ranges_or_conditions(store, script):
    script.then(200, "abcdefghi", ETag='"x"', Content_Length="9")
    with pytest.raises(ConfigurationError, match="range"):
        store.open(URI, 2, 5)
    script.then(206, "cde", ETag='"y"', Content_Range="bytes 2-4/9", Content_Length="3")
    with pytest.raises(SourceChangedError):
        store.open(URI, 2, 5, "x")


@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (416, "InvalidRange")])
def test_an_object_that_is_another_now(store, script, status, code):
    script.then(status, _error(code))
    script.then(status, _error(code))
    with pytest.raises(SourceChangedError, match=f"^{URI} is another version"):
        store.open(URI, 2, 5, "x")
    with pytest.raises(SourceChangedError, match=r"^s3://primary/k is another"):
        store.copy_part(URI, "U", 1, "s3://primary/k", range(5), "x")


def test_a_copied_part(store, script):
    script.then(200, '<CopyPartResult><ETag>"abc"</ETag></CopyPartResult>')
    assert store.copy_part(URI, "U", 2, "s3://primary/a b+ü.mp4", range(5, 10), "x") == "abc"
    assert script.sent("x-amz-copy-source") == ["primary/a%20b%2B%C3%BC.mp4"]
    assert script.sent("x-amz-copy-source-range") == ["bytes=5-9"]
    assert script.sent("x-amz-copy-source-if-match") == ['"x"']


def test_a_copy_that_is_denied_names_both_places(store, script):
    script.then(403, _error("AccessDenied"))
    with pytest.raises(AccessDeniedError, match=f"{URI} from s3://primary/k"):
        store.copy_part(URI, "U", 2, "s3://primary/k", range(5), "x")


TAGS = "<Tagging><TagSet>{}</TagSet></Tagging>"
TAG = "<Tag><Key>{}</Key><Value>v</Value></Tag>"


def test_tags_are_added_to_those_that_are_there(store, script):
    script.then(200, TAGS.format(TAG.format("theirs")))
    script.then(200)
    assert store.add_tags(URI, {"ours": "1"})
    body = script.requests[1].body.decode()
    assert "<Key>theirs</Key><Value>v</Value>" in body
    assert "<Key>ours</Key><Value>1</Value>" in body


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (403, "AccessDenied"), (405, "MethodNotAllowed")]
)
def test_tags_that_cannot_be_added(store, script, status, code):
    script.then(status, _error(code))
    assert not store.add_tags(URI, {"ours": "1"})


def test_more_tags_than_s3_allows(store, script):
    script.then(200, TAGS.format("".join(TAG.format(f"t{n}") for n in range(10))))
    assert not store.add_tags(URI, {"ours": "1"})
    assert len(script.requests) == 1


def _plausible(request: Any) -> tuple[int, dict[str, str], str]:
    if request.method == "HEAD":
        return 404, {}, ""
    if request.method == "POST":
        return 200, {}, COMPLETED if "uploadId" in request.url else OPENED
    if "x-amz-copy-source" in request.headers:
        return 200, {}, "<CopyPartResult><ETag>x</ETag></CopyPartResult>"
    return 200, {"ETag": '"x"'}, ""


def test_every_call_carries_owner_and_payer(connect, script):
    store = connect(OPTIONS)
    script.default = _plausible
    store.create_upload(URI, content_type="video/mp4", metadata={"livekit-run": "1"})
    store.put_new(URI, b"", content_type="video/mp4", metadata={"livekit-run": "1"})
    store.put(URI, b"{}")
    creates = [request for request in script.requests if "x-amz-server-side-encryption" in request.headers]
    store.upload_part(URI, "U", 1, memoryview(b"body"))
    store.copy_part(URI, "U", 1, "s3://primary/k", range(5), "x")
    store.list_parts(URI, "U")
    _complete(store)
    store.abort_upload(URI, "U")
    store.list_uploads(URI)
    list(store.list_keys(URI))
    store.get(URI)
    store.head(URI)
    store.delete(URI)
    store.add_tags(URI, {"ours": "1"})
    assert set(script.sent("x-amz-expected-bucket-owner")) == {"012345678901"}
    assert set(script.sent("x-amz-request-payer")) == {"requester"}
    recording = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-acl": "bucket-owner-full-control",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-tagging": "team=video",
        "x-amz-meta-owner": "us",
        "x-amz-meta-livekit-run": "1",
    }
    document = dict(list(recording.items())[:2])
    sent = [{name: _text(request.headers.get(name)) for name in recording} for request in creates]
    assert sent == [
        recording,
        recording,
        {**dict.fromkeys(recording), **document},
    ]
    assert [request for request in script.requests if "x-amz-storage-class" in request.headers] == creates[:2]


AWS = S3Place("https://s3.eu-west-1.amazonaws.com")
ONE_BUCKET = S3Place("https://s3.eu-west-1.amazonaws.com", bucket="acme")
CHINA = S3Place("https://s3.cn-north-1.amazonaws.com.cn", "aws-cn")
GOVERNMENT = S3Place("https://s3.us-gov-west-1.amazonaws.com", "aws-us-gov")
VPC = S3Place("https://bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com")
MINIO = S3Place("http://minio.acme.internal:9000", access_key="one")
GATEWAY = S3Place("https://gw.acme.example/s3/", access_key="one")
GOOGLE = S3Place("https://storage.googleapis.com", access_key="one")


@pytest.mark.parametrize(
    ("place", "url", "uri"),
    [
        (AWS, "https://acme.s3.amazonaws.com/a/b.mp4", "s3://acme/a/b.mp4"),
        (AWS, "https://acme.s3.us-east-2.amazonaws.com/a%20b%2Fc+d.mp4", "s3://acme/a b/c+d.mp4"),
        (AWS, "https://acme.s3-us-west-2.amazonaws.com/a", "s3://acme/a"),
        (AWS, "https://acme.s3.dualstack.us-east-2.amazonaws.com/a", "s3://acme/a"),
        (AWS, "https://acme.s3-accelerate.amazonaws.com/a", "s3://acme/a"),
        (AWS, "https://my.dotted.bucket.s3.eu-west-1.amazonaws.com/a", "s3://my.dotted.bucket/a"),
        (AWS, "https://s3.eu-west-1.amazonaws.com/my.dotted.bucket/a/b", "s3://my.dotted.bucket/a/b"),
        (AWS, "https://s3.amazonaws.com/acme//a/", "s3://acme//a/"),
        (AWS, "https://s3.dualstack.eu-west-1.amazonaws.com/acme/a", "s3://acme/a"),
        (AWS, "https://acme.s3.amazonaws.com/%C3%BC", "s3://acme/ü"),
        (AWS, "https://acme.s3.amazonaws.com/%FF", None),
        (AWS, "https://acme.s3.amazonaws.com/", None),
        (AWS, "https://acme.s3.amazonaws.com", None),
        (AWS, "https://s3.eu-west-1.amazonaws.com/acme", None),
        (AWS, "https://s3.eu-west-1.amazonaws.com//acme/a", None),
        (AWS, "https://acme.s3.amazonaws.com:8443/a", None),
        (AWS, "https://acme.s3.cn-north-1.amazonaws.com.cn/a", None),
        (AWS, "https://acme.s3.us-gov-west-1.amazonaws.com/a", None),
        (CHINA, "https://acme.s3.cn-north-1.amazonaws.com.cn/a", "s3://acme/a"),
        (GOVERNMENT, "https://acme.s3.us-gov-west-1.amazonaws.com/a", "s3://acme/a"),
        (AWS, "https://acme.s3-website.eu-west-1.amazonaws.com/a", None),
        (AWS, "https://acme.s3.eu-west-1.amazonaws.com.evil.example/a", None),
        (AWS, "https://evil-s3.amazonaws.com/acme/a", None),
        (AWS, "https://ec2.eu-west-1.amazonaws.com/acme/a", None),
        (AWS, "https://storage.googleapis.com/acme/a", None),
        (AWS, "s3://acme/a", None),
        (AWS, "https://acme.s3.amazonaws.com/a?X-Amz-Signature=1", None),
        (AWS, "https://acme.s3.amazonaws.com/a?versionId=1", None),
        (VPC, "https://acme.s3.eu-west-1.amazonaws.com/a", "s3://acme/a"),
        (MINIO, "http://minio.acme.internal:9000/acme/a%20b", "s3://acme/a b"),
        (MINIO, "http://acme.minio.acme.internal:9000/a", "s3://acme/a"),
        (MINIO, "http://minio.acme.internal/acme/a", None),
        (MINIO, "http://evil-minio.acme.internal:9000/acme/a", None),
        (MINIO, "http://other.internal:9000/acme/a", None),
        (MINIO, "https://acme.s3.amazonaws.com/a", None),
        (GATEWAY, "https://gw.acme.example/s3/acme/a", "s3://acme/a"),
        (GATEWAY, "https://gw.acme.example/acme/a", None),
        (GOOGLE, "https://storage.googleapis.com/acme/a", "s3://acme/a"),
        (GOOGLE, "https://acme.storage.googleapis.com/a", "s3://acme/a"),
        (ONE_BUCKET, "https://acme.s3.amazonaws.com/a", "s3://acme/a"),
        (ONE_BUCKET, "https://s3.amazonaws.com/other/a", None),
        (ONE_BUCKET, "https://other.s3.amazonaws.com/a", None),
    ],
)  # fmt: skip
def test_the_object_that_a_location_names(place, url, uri):
    assert place.uri_of(Location(url)) == uri


def test_places_that_share_their_objects():
    for place in (AWS, CHINA, MINIO):
        assert [other for other in (AWS, CHINA, GOVERNMENT, MINIO, GATEWAY) if place.can_copy_from(other)] == [place]
    assert AWS.can_copy_from(S3Place("https://s3.amazonaws.com", bucket="other"))
    assert VPC.can_copy_from(AWS)
    assert MINIO.can_copy_from(S3Place("http://MINIO.acme.internal:9000/", access_key="one"))
    assert not MINIO.can_copy_from(S3Place("http://minio.acme.internal:9000", access_key="two"))
    assert GOOGLE.can_copy_from(S3Place("https://storage.googleapis.com:443", access_key="one"))


def test_the_place_of_a_connection(connect):
    here = connect(service_config={"s3": {"bucket_name": "acme"}}).connection.place
    assert here == S3Place("https://s3.eu-west-1.amazonaws.com", "aws", bucket="acme")
    there = connect(endpoint_url="http://minio.acme.internal:9000").connection.place
    assert there == S3Place("http://minio.acme.internal:9000", "aws", access_key="AKIDEXAMPLE")


def test_stores_that_share_their_objects(connect):
    here = connect()
    assert here.uri_of(Location("https://acme.s3.amazonaws.com/a")) == "s3://acme/a"
    assert here.shares_with(connect(region_name="us-east-1"))
    assert not here.shares_with(connect(endpoint_url="http://minio.acme.internal:9000"))
    assert not here.shares_with(object())
