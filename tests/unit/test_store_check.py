"""What the store check finds out of stores of every kind."""

from __future__ import annotations

import base64
import hashlib
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from awscrt import checksums

from livekit_backup.core.storage import NewUpload, ObjectHead, UploadedPart
from livekit_backup.core.store_check import check_store
from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    StorageUnavailableError,
    UploadGoneError,
)
from livekit_backup.models.store_abilities import STORE_CHECK_LIFETIME, StoreAbilities

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PROBES = "s3://bucket/warehouse/_probes"
ABILITIES = [name for name in StoreAbilities.model_fields if name not in ("checked_at", "store", "in_doubt")]


def _crc(data: bytes) -> str:
    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()


class PickyStore:
    """A store of one-part uploads that has every ability but those it lacks."""

    def __init__(self, lacks: str = "", *, fails: dict[str, Exception] | None = None) -> None:
        self.lacks, self.fails = lacks, fails or {}
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.uploads: dict[str, tuple[str, bytes, bool]] = {}
        self.tags: dict[str, str] = {}
        self.calls = 0
        self.looks = True
        self._ids = itertools.count(1)

    def place_name(self):
        return "http://picky.acme:9000"

    def _called(self, method: str) -> None:
        self.calls += 1
        if method in self.fails:
            raise self.fails[method]

    def create_upload(self, uri, *, content_type, metadata, crc64nvme=True):
        self._called("create_upload")
        if crc64nvme and self.lacks == "accepts_crc64nvme":
            raise ConfigurationError("InvalidRequest")
        upload_id = f"U{next(self._ids)}"
        self.uploads[upload_id] = (uri, b"", crc64nvme)
        return NewUpload(upload_id)

    def upload_part(self, uri, upload_id, number, body, *, crc64nvme="", md5=b""):
        self._called("upload_part")
        data = bytes(body)
        if crc64nvme not in ("", _crc(data)) and self.lacks != "refuses_wrong_crc64nvme":
            raise ChecksumMismatchError("BadDigest")
        if md5 not in (b"", hashlib.md5(data).digest()) and self.lacks != "refuses_wrong_md5":
            raise ChecksumMismatchError("BadDigest")
        at, _, declared = self.uploads[upload_id]
        assert (at, number) == (uri, 1)
        self.uploads[upload_id] = (uri, data, declared)
        return hashlib.md5(data).hexdigest()

    def list_parts(self, uri, upload_id):
        self._called("list_parts")
        _, data, _ = self.uploads[upload_id]
        return [UploadedPart(1, len(data), hashlib.md5(data).hexdigest())]

    def complete_upload(self, uri, upload_id, parts, *, size, crc64nvme=""):
        self._called("complete_upload")
        if upload_id not in self.uploads:
            raise UploadGoneError("NoSuchUpload")
        _, data, declared = self.uploads[upload_id]
        assert (size, [part.size for part in parts]) == (len(data), [len(data)])
        if uri in self.objects and (self.looks or self.lacks != "never_replaces"):
            return False
        if crc64nvme not in ("", _crc(data)) and self.lacks != "refuses_wrong_whole":
            raise ChecksumMismatchError("BadDigest")
        del self.uploads[upload_id]
        self.objects[uri] = (data, _crc(data) if declared and self.lacks != "gives_crc64nvme" else "")
        return True

    def put_new(self, uri, body, *, content_type, metadata):
        self._called("put_new")
        if uri in self.objects and (self.looks or self.lacks not in ("never_replaces", "never_replaces whole")):
            return False
        self.objects[uri] = (body, "")
        return True

    def head(self, uri):
        self._called("head")
        if uri not in self.objects:
            return None
        data, crc64nvme = self.objects[uri]
        etag = f"{hashlib.md5(hashlib.md5(data).digest()).hexdigest()}-1"
        return ObjectHead(len(data), etag[::-1] if self.lacks == "etags_are_md5" else etag, {}, crc64nvme)

    def add_tags(self, uri, tags):
        self._called("add_tags")
        self.tags.update(tags)
        return self.lacks != "tags"

    def abort_upload(self, uri, upload_id):
        self._called("abort_upload")
        self.uploads.pop(upload_id, None)

    def delete(self, uri):
        self._called("delete")
        self.objects.pop(uri, None)

    def without_looking(self):
        self.looks = False
        return self


def test_a_store_that_can_do_everything():
    store = PickyStore()
    assert check_store(store, PROBES, NOW) == StoreAbilities(
        checked_at=NOW, store="http://picky.acme:9000", **dict.fromkeys(ABILITIES, True)
    )


@pytest.mark.parametrize("lacks", ABILITIES)
def test_a_store_that_lacks_one(lacks):
    store = PickyStore(lacks)
    found = check_store(store, PROBES, NOW)
    absent = {name for name in ABILITIES if not getattr(found, name)}
    if lacks == "accepts_crc64nvme":
        assert absent == {lacks, "refuses_wrong_crc64nvme", "refuses_wrong_whole", "gives_crc64nvme"}
    else:
        assert absent == {lacks}
    assert (store.objects, store.uploads) == ({}, {}), "nothing is left"
    assert store.calls <= 45


def test_a_store_that_replaces_whole_objects_alone():
    assert not check_store(PickyStore("never_replaces whole"), PROBES, NOW).never_replaces


def test_a_store_whose_condition_cannot_be_tried():
    class Plain:
        def __init__(self):
            store = PickyStore()
            for name in ("create_upload", "upload_part", "list_parts", "complete_upload", "head", "add_tags"):
                setattr(self, name, getattr(store, name))
            self.abort_upload, self.delete, self.place_name = store.abort_upload, store.delete, store.place_name

    assert not check_store(Plain(), PROBES, NOW).never_replaces


@pytest.mark.parametrize("method", ["create_upload", "upload_part", "complete_upload", "head"])
@pytest.mark.parametrize(
    "error", [AccessDeniedError("denied"), StorageUnavailableError("away"), ConfigurationError("no")]
)
def test_what_would_stop_a_landing_too_is_raised(method, error):
    store = PickyStore(fails={method: error})
    with pytest.raises(type(error)) as caught:
        check_store(store, PROBES, NOW)
    assert caught.value is error
    assert (store.objects, store.uploads) == ({}, {}), "nothing is left"


@pytest.mark.parametrize("method", ["delete", "abort_upload", "add_tags"])
def test_what_a_landing_can_do_without(method):
    store = PickyStore(fails={method: AccessDeniedError("denied")})
    found = check_store(store, PROBES, NOW)
    assert [name for name in ABILITIES if not getattr(found, name)] == (["tags"] if method == "add_tags" else [])


def test_a_completion_that_was_refused_and_made_the_object_all_the_same():
    class Liar(PickyStore):
        def complete_upload(self, uri, upload_id, parts, *, size, crc64nvme=""):
            try:
                return super().complete_upload(uri, upload_id, parts, size=size, crc64nvme=crc64nvme)
            except ChecksumMismatchError:
                self.objects[uri] = (b"", "")
                raise

    assert not check_store(Liar(), PROBES, NOW).refuses_wrong_whole


class Echo(PickyStore):
    """Shows the checksum of the whole that it was told, and never looks at it."""

    def complete_upload(self, uri, upload_id, parts, *, size, crc64nvme=""):
        made = super().complete_upload(uri, upload_id, parts, size=size, crc64nvme=crc64nvme)
        self.objects[uri] = (self.objects[uri][0], crc64nvme)
        return made


def test_a_checksum_that_is_only_an_echo_is_not_the_stores():
    found = check_store(Echo("refuses_wrong_whole"), PROBES, NOW)
    assert [name for name in ABILITIES if not getattr(found, name)] == ["refuses_wrong_whole", "gives_crc64nvme"]
    assert not found.in_doubt


def test_a_store_that_computes_the_checksum_by_itself_gives_it():
    assert check_store(PickyStore("refuses_wrong_whole"), PROBES, NOW).gives_crc64nvme


def test_where_nobody_saw_whose_checksum_it_is_it_is_nobodys():
    class Away(PickyStore):
        def head(self, uri):
            if uri.endswith("-whole"):
                raise AccessDeniedError("denied")
            return super().head(uri)

    found = check_store(Away(), PROBES, NOW)
    assert not found.gives_crc64nvme
    assert not found.refuses_wrong_whole


class Hiccup(PickyStore):
    """Answers 503 to one call."""

    def __init__(self, method, call):
        super().__init__()
        self.method, self.left = method, call

    def _called(self, method):
        super()._called(method)
        self.left -= method == self.method
        if method == self.method and self.left == 0:
            raise StorageUnavailableError("answered SlowDown")


@pytest.mark.parametrize(
    ("method", "call", "absent"),
    [
        ("add_tags", 1, "tags"),
        ("create_upload", 2, "accepts_crc64nvme"),
        ("create_upload", 3, "refuses_wrong_whole"),
        ("create_upload", 4, "never_replaces"),
        ("complete_upload", 3, "refuses_wrong_whole"),
        ("upload_part", 1, "refuses_wrong_md5"),
        ("upload_part", 3, "refuses_wrong_crc64nvme"),
    ],
)
def test_what_was_absent_since_the_store_was_away_is_in_doubt(method, call, absent):
    found = check_store(Hiccup(method, call), PROBES, NOW)
    assert not getattr(found, absent)
    assert found.in_doubt
    assert found.describe().endswith("; it did not always answer")


class LosesThirdUpload(PickyStore):
    """Acknowledges the part of one upload, and shows none, or drops all of it; of nothing it makes no object."""

    left = ()

    def list_parts(self, uri, upload_id):
        return self.left if upload_id == "U3" else super().list_parts(uri, upload_id)

    def complete_upload(self, uri, upload_id, parts, **options):
        if not parts:
            raise ChecksumMismatchError("BadDigest")
        return super().complete_upload(uri, upload_id, parts, **options)


@pytest.mark.parametrize("left", [(), None], ids=["its part", "all of it"])
def test_that_nothing_was_made_an_object_is_no_refusal_of_a_wrong_checksum(left):
    store = LosesThirdUpload("refuses_wrong_whole")
    store.left = left
    found = check_store(store, PROBES, NOW)
    assert not found.refuses_wrong_whole
    assert found.in_doubt


def test_a_store_that_is_away_while_it_is_cleaned_up_is_not_in_doubt():
    assert not check_store(PickyStore(fails={"delete": StorageUnavailableError("away")}), PROBES, NOW).in_doubt


def test_two_checks_at_once_do_not_meet():
    store = PickyStore(fails={"delete": AccessDeniedError("denied")})
    check_store(store, PROBES, NOW)
    before = set(store.objects)
    check_store(store, PROBES, NOW)
    assert len(set(store.objects) - before) == len(before)
    assert all(uri.startswith(f"{PROBES}/") for uri in store.objects)


@pytest.mark.parametrize(
    ("age", "is_fresh"),
    [
        (timedelta(0), True),
        (STORE_CHECK_LIFETIME - timedelta(seconds=1), True),
        (STORE_CHECK_LIFETIME, False),
        (timedelta(hours=-1), False),
    ],
)
def test_findings_grow_old(age, is_fresh):
    assert StoreAbilities(checked_at=NOW - age).is_fresh(NOW) is is_fresh


def test_findings_in_one_line():
    found = StoreAbilities(checked_at=NOW, store="https://s3.acme:443", never_replaces=True, tags=True)
    assert found.describe() == (
        "the store https://s3.acme:443: never_replaces, tags; not: accepts_crc64nvme, refuses_wrong_crc64nvme, "
        "refuses_wrong_md5, refuses_wrong_whole, gives_crc64nvme, etags_are_md5"
    )
    assert StoreAbilities.model_validate_json(found.model_dump_json()) == found
