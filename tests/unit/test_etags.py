"""ETag rules, against S3's computed by hand."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.etags import (
    MAX_PARTS,
    MIB,
    MIN_PART_SIZE,
    USUAL_PART_SIZES,
    WHOLE,
    EtagRule,
    RunningEtag,
    etag_of_parts,
    etag_rule,
    is_md5,
    livekit_part_size,
    multipart_etag,
    part_count,
)

TIB = 1024**4
SIZES = st.integers(1, 5 * TIB) | st.integers(1, 20 * MIN_PART_SIZE) | st.integers(52_428_799_990, 52_428_800_010)


@given(SIZES)
def test_parts_are_neither_too_many_nor_too_small(size):
    part = livekit_part_size(size)
    assert part >= 5 * 1024 * 1024
    assert math.ceil(size / part) <= MAX_PARTS
    assert part <= 5 * 1024**3


@pytest.mark.parametrize(
    ("size", "part"),
    [
        (1, 5_242_880),
        (5_242_880, 5_242_880),
        (52_428_799_999, 5_242_880),
        (52_428_800_000, 5_242_881),
        (100_000_000_000, 10_000_001),
        (5 * TIB, 549_755_814),
    ],
)
def test_part_sizes_of_the_uploader(size, part):
    assert livekit_part_size(size) == part


def test_a_multipart_etag_by_hand():
    """The MD5s of b"a" and b"b", joined and hashed again."""
    parts = ["0cc175b9c0f1b6a831c399e269772661", "92eb5ffee6ae2fec3ad71c777531578f"]
    assert multipart_etag(map(bytes.fromhex, parts)) == "96e024ba2074fe77e8e965ba43a704be-2"
    assert etag_of_parts(parts) == "96e024ba2074fe77e8e965ba43a704be-2"
    assert etag_of_parts(parts[:1]).endswith("-1")
    assert etag_of_parts([*parts, "kms"]) == ""


@pytest.mark.parametrize(
    ("etag", "md5", "parts"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e", True, None),
        ("d41d8cd98f00b204e9800998ecf8427e-1", False, 1),
        ("d41d8cd98f00b204e9800998ecf8427e-10000", False, 10000),
        ("d41d8cd98f00b204e9800998ecf8427e-0", False, None),
        ("d41d8cd98f00b204e9800998ecf8427e-01", False, None),
        ("D41D8CD98F00B204E9800998ECF8427E", False, None),
        ("d41d8cd98f00b204e9800998ecf8427", False, None),
        ("0x8DCB4A2E2D4E5F6", False, None),
        ("", False, None),
    ],
)
def test_kinds_of_etag(etag, md5, parts):
    assert is_md5(etag) is md5
    assert part_count(etag) == parts


def _of(count):
    return f"{'0' * 32}-{count}"


@given(SIZES)
def test_the_uploaders_own_number_of_parts_is_its_rule(size):
    count = math.ceil(size / livekit_part_size(size))
    rule = etag_rule(_of(count), size)
    assert rule.is_certain
    assert rule.part_sizes[0] == (livekit_part_size(size) if count > 1 else size)


@given(SIZES, st.sampled_from(USUAL_PART_SIZES))
def test_every_usual_size_that_fits_is_tried(size, part_size):
    count = math.ceil(size / part_size)
    if not 1 < count <= MAX_PARTS:
        return
    rule = etag_rule(_of(count), size)
    assert part_size in rule.part_sizes
    assert all(math.ceil(size / possible) == count for possible in rule.part_sizes)
    assert len(set(rule.part_sizes)) == len(rule.part_sizes)


def test_another_writers_part_size_is_a_guess():
    rule = etag_rule(_of(8), 64 * MIB)
    assert (rule.part_sizes, rule.is_certain) == ((8 * MIB,), False)


def test_no_guess_fits():
    assert etag_rule(_of(99), 700 * MIB) == EtagRule((), is_certain=False)


@pytest.mark.parametrize("etag", ["", "0x8DCB", _of(101), _of(0), "0" * 31])
def test_what_proves_nothing(etag):
    assert etag_rule(etag, 100) == EtagRule()


def test_what_the_store_says_is_no_digest_proves_nothing():
    assert etag_rule("0" * 32, 100, is_digest=False) == EtagRule()


def test_one_put_and_one_part_are_certain():
    assert etag_rule("0" * 32, 10**10) == EtagRule((WHOLE,), is_certain=True)
    assert etag_rule(_of(1), 10**10) == EtagRule((10**10,), is_certain=True)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 310), st.integers(1, 40))
def test_a_running_etag_is_that_of_the_parts(data, part_size, step):
    running = RunningEtag(part_size)
    for start in range(0, len(data), step):
        running.update(memoryview(data)[start : start + step])
    if part_size == WHOLE:
        assert running.value() == hashlib.md5(data).hexdigest()
    else:
        parts = [data[start : start + part_size] for start in range(0, len(data), part_size)]
        assert running.value() == multipart_etag(hashlib.md5(part).digest() for part in parts)
