"""The adapter over S3 against real servers: each method, and what the servers make of wrong checksums."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from awscrt.checksums import crc64nvme

from livekit_backup.core.locations import Location
from livekit_backup.core.storage import UploadedPart
from livekit_backup.core.store_check import check_store
from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    SourceChangedError,
    UploadGoneError,
)
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.upload_options import UploadOptions
from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack
from livekit_backup.testing.s3_endpoint import S3Endpoint

MIB = 1024 * 1024
FIRST = bytes(range(256)) * (5 * MIB // 256)
LAST = b"the last part"
WHOLE = FIRST + LAST


def crc(data: bytes) -> str:
    return base64.b64encode(crc64nvme(data).to_bytes(8, "big")).decode()


def md5(data: bytes) -> bytes:
    return hashlib.md5(data).digest()


@pytest.fixture
def client(any_s3: S3Endpoint) -> Any:
    """The tests' own eyes."""
    return any_s3.client()


@pytest.fixture
def is_strict(any_s3: S3Endpoint) -> bool:
    return isinstance(any_s3, EmbeddedLocalStack)


@pytest.fixture
def bucket(client: Any) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def connect(any_s3: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[..., S3ObjectStore]:
    def make(**options: Any) -> S3ObjectStore:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", any_s3.airflow_connection())
        return S3ObjectStore("aws_default", UploadOptions.model_validate(options))

    return make


@pytest.fixture
def store(connect: Callable[..., S3ObjectStore]) -> S3ObjectStore:
    return connect()


@pytest.fixture
def uri(bucket: str) -> str:
    return f"s3://{bucket}/some folder/ünï+%20 #?.mp4"


@pytest.fixture
def upload_id(store: S3ObjectStore, uri: str) -> Iterator[str]:
    new = store.create_upload(uri, content_type="video/mp4", metadata={"livekit-run": "1"})
    yield new.upload_id
    store.abort_upload(uri, new.upload_id)


def upload(store: S3ObjectStore, uri: str, upload_id: str, *, checked: bool = True) -> list[UploadedPart]:
    for number, part in enumerate((FIRST, LAST), 1):
        checks: Any = {"crc64nvme": crc(part), "md5": md5(part)} if checked else {}
        assert store.upload_part(uri, upload_id, number, memoryview(part), **checks) == md5(part).hex()
    parts = store.list_parts(uri, upload_id)
    assert parts
    return parts


def test_an_upload_from_opening_it_to_its_object(store: S3ObjectStore, uri: str, upload_id: str) -> None:
    assert store.list_uploads(uri) == [upload_id]
    assert store.list_uploads(uri.rpartition("/")[0]) == []
    parts = upload(store, uri, upload_id)
    assert [(part.number, part.size, part.etag) for part in parts] == [
        (1, len(FIRST), md5(FIRST).hex()),
        (2, len(LAST), md5(LAST).hex()),
    ]
    assert {part.crc64nvme for part in parts} <= {"", crc(FIRST), crc(LAST)}
    assert store.head(uri) is None
    assert store.complete_upload(uri, upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE)) is True
    head = store.head(uri)
    assert head
    assert head.size == len(WHOLE)
    assert head.etag == f"{md5(md5(FIRST) + md5(LAST)).hex()}-2"
    assert head.metadata == {"livekit-run": "1"}
    assert head.crc64nvme in ("", crc(WHOLE))
    assert store.get(uri) == WHOLE
    assert store.list_parts(uri, upload_id) is None
    assert store.list_uploads(uri) == []
    store.abort_upload(uri, upload_id)
    assert store.get(uri) == WHOLE
    assert list(store.list_keys(uri.rpartition("/")[0])) == [uri]
    store.delete(uri)
    store.delete(uri)
    assert store.head(uri) is None
    assert store.get(uri) is None


def test_an_upload_without_checksums(store: S3ObjectStore, uri: str) -> None:
    new = store.create_upload(uri, content_type="video/mp4", metadata={}, crc64nvme=False)
    assert new.etags_are_md5
    parts = upload(store, uri, new.upload_id, checked=False)
    assert store.complete_upload(uri, new.upload_id, parts, size=len(WHOLE))
    assert store.get(uri) == WHOLE


@pytest.mark.parametrize(
    "wrong", [{"crc64nvme": crc(b"other")}, {"crc64nvme": crc(FIRST), "md5": md5(b"other")}], ids=["crc64nvme", "md5"]
)
def test_a_part_that_arrives_as_other_bytes(store: S3ObjectStore, uri: str, upload_id: str, wrong: Any) -> None:
    with pytest.raises(ChecksumMismatchError, match="other bytes"):
        store.upload_part(uri, upload_id, 1, memoryview(FIRST), **wrong)
    assert not store.list_parts(uri, upload_id)


def test_a_part_that_is_another_than_was_listed(store: S3ObjectStore, uri: str, upload_id: str) -> None:
    parts = upload(store, uri, upload_id)
    store.upload_part(uri, upload_id, 2, memoryview(b"another part!"), crc64nvme=crc(b"another part!"))
    with pytest.raises(ChecksumMismatchError):
        store.complete_upload(uri, upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))
    assert store.head(uri) is None


def test_nothing_is_replaced(store: S3ObjectStore, uri: str, upload_id: str) -> None:
    assert store.put_new(uri, b"first", content_type="text/plain", metadata={"livekit-run": "7"})
    assert not store.put_new(uri, b"second", content_type="text/plain", metadata={})
    parts = upload(store, uri, upload_id)
    assert not store.complete_upload(uri, upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))
    assert store.get(uri) == b"first"
    head = store.head(uri)
    assert head
    assert head.metadata == {"livekit-run": "7"}


def test_an_upload_that_is_gone(store: S3ObjectStore, uri: str, upload_id: str) -> None:
    parts = upload(store, uri, upload_id)
    store.abort_upload(uri, upload_id)
    store.abort_upload(uri, upload_id)
    assert store.list_parts(uri, upload_id) is None
    with pytest.raises(UploadGoneError):
        store.upload_part(uri, upload_id, 1, memoryview(LAST))
    with pytest.raises(UploadGoneError):
        store.complete_upload(uri, upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 1), (0, 1000), (17, 4096), (300, None), (999, 1000)])
def test_ranges(store: S3ObjectStore, uri: str, start: int, stop: int | None) -> None:
    data = WHOLE[-1000:]
    store.put(uri, data)
    for etag in ("", md5(data).hex()):
        body = store.open(uri, start, stop, etag)
        assert body.read() == data[start:stop]
        body.close()


def test_an_object_that_was_replaced(store: S3ObjectStore, uri: str) -> None:
    store.put(uri, b"one")
    etag = md5(b"one").hex()
    store.put(uri, b"other")
    with pytest.raises(SourceChangedError, match="another version"):
        store.open(uri, 0, 2, etag)
    with pytest.raises(SourceChangedError, match="another version"):
        store.open(uri, etag=etag)
    with pytest.raises(SourceChangedError):
        store.open(uri, start=5)
    with pytest.raises(FileNotFoundError):
        store.open(uri + "x", etag=etag)


def test_a_range_of_nothing(store: S3ObjectStore, uri: str) -> None:
    with pytest.raises(ValueError, match="no bytes"):
        store.open(uri, 5, 5)


def test_parts_that_the_store_copies(store: S3ObjectStore, uri: str, bucket: str) -> None:
    source = f"s3://{bucket}/primary/ünï+%20 #?.mp4"
    store.put(source, WHOLE)
    etag = md5(WHOLE).hex()
    new = store.create_upload(uri, content_type="video/mp4", metadata={})
    got = [
        store.copy_part(uri, new.upload_id, 1, source, range(len(FIRST)), etag),
        store.copy_part(uri, new.upload_id, 2, source, range(len(FIRST), len(WHOLE)), etag),
    ]
    assert got == [md5(FIRST).hex(), md5(LAST).hex()]
    parts = store.list_parts(uri, new.upload_id)
    assert parts
    assert store.complete_upload(uri, new.upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))
    assert store.get(uri) == WHOLE


def test_a_source_of_a_copy_that_is_another_or_gone(
    store: S3ObjectStore, uri: str, upload_id: str, bucket: str
) -> None:
    source = f"s3://{bucket}/primary/a.mp4"
    with pytest.raises(FileNotFoundError, match=r"primary/a\.mp4"):
        store.copy_part(uri, upload_id, 1, source, range(3), md5(b"one").hex())
    store.put(source, b"other")
    with pytest.raises(SourceChangedError, match=r"primary/a\.mp4 is another version"):
        store.copy_part(uri, upload_id, 1, source, range(3), md5(b"one").hex())
    store.abort_upload(uri, upload_id)
    with pytest.raises(UploadGoneError):
        store.copy_part(uri, upload_id, 1, source, range(3), md5(b"other").hex())


def test_tags(store: S3ObjectStore, uri: str, client: Any, bucket: str, is_strict: bool) -> None:
    store.put(uri, b"one")
    assert store.add_tags(uri, {"a": "1", "b": "1"}) is is_strict
    assert store.add_tags(uri, {"b": "2", "c": "ü"}) is is_strict
    if is_strict:
        tags = client.get_object_tagging(Bucket=bucket, Key=uri.split("/", 3)[3])["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "2", "c": "ü"}


def test_a_whole_that_is_not_as_the_store_has_it(
    store: S3ObjectStore, uri: str, upload_id: str, is_strict: bool
) -> None:
    parts = upload(store, uri, upload_id)
    wrong: list[Any] = [{"size": len(WHOLE), "crc64nvme": crc(LAST)}, {"size": 5, "crc64nvme": crc(WHOLE)}]
    for claims in wrong if is_strict else ():
        with pytest.raises(ChecksumMismatchError):
            store.complete_upload(uri, upload_id, parts, **claims)
        assert store.head(uri) is None
    assert store.complete_upload(uri, upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))
    head = store.head(uri)
    assert head
    assert head.crc64nvme == (crc(WHOLE) if is_strict else "")


def test_what_was_asked_for_of_a_recording(
    connect: Callable[..., S3ObjectStore], uri: str, client: Any, bucket: str, is_strict: bool
) -> None:
    store = connect(
        **({"StorageClass": "STANDARD_IA"} if is_strict else {}),
        ACL="bucket-owner-full-control",
        Tagging={"cost centre": "a/b+c"},
        Metadata={"Owner": "video team"},
        RequestPayer="requester",
        ExpectedBucketOwner="000000000000",
    )
    new = store.create_upload(uri, content_type="video/mp4", metadata={"livekit-run": "1"})
    parts = upload(store, uri, new.upload_id)
    assert store.complete_upload(uri, new.upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))
    at = {"Bucket": bucket, "Key": uri.split("/", 3)[3]}
    head = client.head_object(**at)
    assert head["ContentType"] == "video/mp4"
    assert head["Metadata"] == {"owner": "video team", "livekit-run": "1"}
    assert head.get("StorageClass") == ("STANDARD_IA" if is_strict else None)
    if is_strict:
        [tag] = client.get_object_tagging(**at)["TagSet"]
        assert tag == {"Key": "cost centre", "Value": "a/b+c"}
    empty = f"{uri}.empty"
    assert store.put_new(empty, b"", content_type="video/mp4", metadata={"livekit-run": "1"})
    store.put(f"{uri}.json", b"{}")
    assert client.head_object(Bucket=bucket, Key=empty.split("/", 3)[3])["Metadata"]["owner"] == "video team"
    assert client.head_object(Bucket=bucket, Key=f"{at['Key']}.json")["Metadata"] == {}


@pytest.mark.parametrize("option", [{"StorageClass": "STANDARD_IA"}, {"ServerSideEncryption": "AES256"}])
def test_what_a_store_does_not_have_is_not_left_out(
    connect: Callable[..., S3ObjectStore], uri: str, is_strict: bool, option: Any
) -> None:
    """Of encryption only what needs no KMS, which neither server has: for the rest see the unit tests."""
    store = connect(**option, Tagging={"team": "video"})
    if not is_strict:
        with pytest.raises(ConfigurationError, match=r"InvalidStorageClass|NotImplemented"):
            store.create_upload(uri, content_type="video/mp4", metadata={})
        return
    new = store.create_upload(uri, content_type="video/mp4", metadata={})
    parts = upload(store, uri, new.upload_id)
    assert store.complete_upload(uri, new.upload_id, parts, size=len(WHOLE))
    head = store.head(uri)
    assert new.etags_are_md5
    assert head
    assert head.etag_is_md5
    assert head.etag == f"{md5(md5(FIRST) + md5(LAST)).hex()}-2"


def test_what_is_found_out_of_each(
    store: S3ObjectStore, any_s3: S3Endpoint, bucket: str, client: Any, is_strict: bool
) -> None:
    found = check_store(store, f"s3://{bucket}/warehouse/_livekit_backup/probes", datetime.now(UTC))
    assert (found.store, found.in_doubt) == (any_s3.endpoint_url, False)
    absent = {name for name, value in found if value is False} - {"in_doubt"}
    assert absent == (set() if is_strict else {"refuses_wrong_whole", "gives_crc64nvme", "tags"})
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_without_looking_the_stores_condition_holds_alone(store: S3ObjectStore, uri: str, upload_id: str) -> None:
    store.put(uri, b"first")
    parts = upload(store, uri, upload_id)
    blind = store.without_looking()
    assert not blind.complete_upload(uri, upload_id, parts, size=len(WHOLE), crc64nvme=crc(WHOLE))
    assert not blind.put_new(uri, b"second", content_type="text/plain", metadata={})
    assert store.get(uri) == b"first"


def test_where_a_location_lies(store: S3ObjectStore, any_s3: S3Endpoint, bucket: str, uri: str) -> None:
    store.put(uri, b"one")
    location = Location(f"{any_s3.endpoint_url}/{bucket}/some%20folder/%C3%BCn%C3%AF+%2520%20%23.mp4")
    assert store.uri_of(location) == f"s3://{bucket}/some folder/ünï+%20 #.mp4"
    assert store.uri_of(Location(f"https://{bucket}.s3.amazonaws.com/a")) is None
    assert store.shares_with(store)


def test_a_bucket_that_is_not_there(store: S3ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match="create the bucket"):
        store.create_upload(f"s3://no-{uuid.uuid4()}/k", content_type="video/mp4", metadata={})


def test_wrong_keys(s3_server: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = s3_server.airflow_connection().replace(s3_server.secret_key, "wrong-secret")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", wrong)
    with pytest.raises(AccessDeniedError, match="check the connection's keys"):
        S3ObjectStore("aws_default").head("s3://any-bucket/k")
