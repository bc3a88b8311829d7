"""Part sizes and ETags, against S3's rules computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.etags import (
    MAX_PARTS,
    PART_SIZE,
    follows_livekit_rule,
    is_md5,
    livekit_part_size,
    multipart_etag,
    part_count,
)

TIB = 1024**4
SIZES = st.integers(1, 5 * TIB) | st.integers(1, 20 * PART_SIZE) | st.integers(52_428_799_990, 52_428_800_010)


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
    parts = [
        bytes.fromhex("0cc175b9c0f1b6a831c399e269772661"),
        bytes.fromhex("92eb5ffee6ae2fec3ad71c777531578f"),
    ]
    assert multipart_etag(parts) == "96e024ba2074fe77e8e965ba43a704be-2"
    assert multipart_etag(iter(parts[:1])).endswith("-1")


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


@given(SIZES)
def test_the_uploaders_own_number_of_parts_follows_its_rule(size):
    count = math.ceil(size / livekit_part_size(size))
    assert follows_livekit_rule(f"{'0' * 32}-{count}", size)
    assert not follows_livekit_rule(f"{'0' * 32}-{count + 1}", size)
    assert not follows_livekit_rule("0" * 32, size)
