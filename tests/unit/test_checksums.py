"""Checksums of bytes that pass in order, whole or behind parts that are up."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.checksums import Checksums
from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.part_plan import PartPlan
from livekit_backup.core.storage import UploadedPart
from unit.fakes import crc64nvme_of


def _parts(data, part_size):
    return [data[start : start + part_size] for start in range(0, len(data), part_size)]


@given(st.binary(min_size=1, max_size=300), st.integers(1, 100))
def test_of_the_whole(data, part_size):
    checksums = Checksums(PartPlan(len(data), part_size, md5_part_sizes=(0, 7), with_part_md5=True))
    for part in _parts(data, part_size):
        own = checksums.add(memoryview(part))
        assert own.crc64nvme == crc64nvme_of(part)
        assert own.md5 == hashlib.md5(part).digest()
    assert checksums.size == len(data)
    assert checksums.sha256 == hashlib.sha256(data).hexdigest()
    assert checksums.crc64nvme == crc64nvme_of(data)
    assert checksums.etags() == (
        hashlib.md5(data).hexdigest(),
        multipart_etag(hashlib.md5(part).digest() for part in _parts(data, 7)),
    )
    assert checksums.own_etag() == multipart_etag(hashlib.md5(part).digest() for part in _parts(data, part_size))


@given(st.binary(min_size=3, max_size=300), st.integers(1, 100), st.booleans())
def test_behind_parts_that_are_up(data, part_size, listed):
    parts = _parts(data, part_size)
    up = len(parts) // 2 + 1
    checksums = Checksums(PartPlan(len(data), part_size, md5_part_sizes=(0,), with_part_md5=True))
    checksums.skip(
        [
            UploadedPart(number, len(part), "e", crc64nvme_of(part) if listed else "")
            for number, part in enumerate(parts[:up], 1)
        ]
    )
    for part in parts[up:]:
        checksums.add(memoryview(part))
    assert checksums.size == len(data)
    assert checksums.sha256 == ""
    assert (checksums.etags(), checksums.own_etag()) == ((), "")
    assert checksums.crc64nvme == (crc64nvme_of(data) if listed else "")


def test_no_part_that_is_up_is_the_beginning():
    checksums = Checksums(PartPlan(3, 5))
    checksums.skip([])
    checksums.add(memoryview(b"abc"))
    assert checksums.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_a_store_that_takes_no_crc64nvme_is_sent_none():
    checksums = Checksums(PartPlan(3, 5, with_crc64nvme=False))
    assert checksums.add(memoryview(b"abc")).crc64nvme == ""
    assert checksums.crc64nvme == ""
