"""Part plans of 1 byte to 5 TiB."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.etags import MAX_PARTS, MIB, MIN_PART_SIZE, WHOLE, EtagRule, etag_rule, multipart_etag
from livekit_backup.core.part_plan import BUFFER_BUDGET, MAX_PART_SIZE, default_part_size, plan_parts
from livekit_backup.errors import RefusedError
from unit.fakes import abilities

TIB = 1024**4
GIB = 1024**3
SIZES = st.integers(1 * MIB, 5 * TIB) | st.integers(1, 40 * MIB) | st.integers(52_428_799_990, 52_428_800_010)
RULES = st.sampled_from(["none", "md5", "livekit", "one part"]) | st.integers(1, 600).map(lambda mib: mib * MIB)


def _rule(size, kind):
    if kind == "none":
        return EtagRule()
    if kind == "md5":
        return etag_rule("0" * 32, size)
    if kind == "one part":
        return etag_rule(f"{'0' * 32}-1", size)
    part_size = kind if isinstance(kind, int) else MIN_PART_SIZE if size < 52_428_800_000 else size // 10_000 + 1
    return etag_rule(f"{'0' * 32}-{min(99_999, math.ceil(size / part_size))}", size)


@given(size=SIZES, kind=RULES, md5=st.booleans(), thorough=st.booleans())
def test_no_part_is_too_small_or_too_large_or_one_too_many(size, kind, md5, thorough):
    plan = plan_parts(size, _rule(size, kind), abilities(etags_are_md5=md5), thorough=thorough)
    assert 1 <= plan.count <= MAX_PARTS
    spans = [plan.span(number) for number in (1, plan.count)]
    assert spans[0].start == 0
    assert spans[1].stop == size
    assert 1 <= len(spans[1]) <= plan.part_size
    if plan.count > 1:
        assert MIN_PART_SIZE <= plan.part_size <= MAX_PART_SIZE
        assert plan.span(plan.count - 1).stop == spans[1].start
        assert len(spans[0]) == plan.part_size
    assert plan.buffers >= 2
    if size <= 600 * GIB:
        assert plan.buffers * min(plan.part_size, size) <= 2 * BUFFER_BUDGET


@given(size=SIZES)
def test_livekits_recordings_prove_themselves_without_md5(size):
    """Up to 1 TiB its part size, size/10000+1, stays small enough to be held in memory twice."""
    rule = _rule(size, "md5" if size <= MIN_PART_SIZE else "livekit")
    plan = plan_parts(size, rule, abilities())
    if plan.proves_source:
        assert plan.md5_part_sizes == ()
    else:
        assert size > TIB


@pytest.mark.parametrize(
    ("size", "part_size"),
    [(1, 16 * MIB), (150 * GIB, 16 * MIB), (150 * GIB + 1, 64 * MIB), (600 * GIB + 1, 65 * MIB), (5 * TIB, 552 * MIB)],
)
def test_default_part_sizes(size, part_size):
    assert default_part_size(size) == part_size


def test_more_than_an_object_can_hold_is_refused():
    with pytest.raises(RefusedError, match="more than S3 stores"):
        default_part_size(50 * TIB)


@pytest.mark.parametrize(
    ("size", "etag", "store", "part_size", "proves", "md5"),
    [
        (MIB, "0" * 32, {}, MIB, True, ()),
        (16 * MIB, "0" * 32, {}, 16 * MIB, True, ()),
        (17 * MIB, "0" * 32, {}, 16 * MIB, False, (WHOLE,)),
        (20 * MIB, f"{'0' * 32}-4", {}, 5 * MIB, True, ()),
        (64 * MIB, f"{'0' * 32}-8", {}, 8 * MIB, True, ()),
        (640 * MIB, f"{'0' * 32}-5", {}, 16 * MIB, False, (128 * MIB,)),
        (20 * MIB, f"{'0' * 32}-4", {"etags_are_md5": False}, 16 * MIB, False, (5 * MIB,)),
        (20 * MIB, "weird", {}, 16 * MIB, False, ()),
    ],
)
def test_plans(size, etag, store, part_size, proves, md5):
    plan = plan_parts(size, etag_rule(etag, size), abilities(**store))
    assert (plan.part_size, plan.proves_source, plan.md5_part_sizes) == (part_size, proves, md5)


def test_after_a_free_proof_failed_every_reading_is_computed():
    plan = plan_parts(9 * MIB, etag_rule(f"{'0' * 32}-2", 9 * MIB), abilities(), thorough=True)
    assert (plan.part_size, plan.md5_part_sizes) == (5 * MIB, (5 * MIB, 8 * MIB))


def test_what_a_store_checks_is_sent():
    plan = plan_parts(MIB, EtagRule(), abilities())
    assert (plan.with_crc64nvme, plan.with_part_md5) == (True, False)
    plan = plan_parts(MIB, EtagRule(), abilities(refuses_wrong_crc64nvme=False))
    assert (plan.with_crc64nvme, plan.with_part_md5) == (True, True)
    plan = plan_parts(MIB, EtagRule(), abilities(accepts_crc64nvme=False, refuses_wrong_crc64nvme=False))
    assert (plan.with_crc64nvme, plan.with_part_md5) == (False, True)


def test_the_warehouses_etags_say_what_the_sources_must_be():
    md5s = [hashlib.md5(body).digest() for body in (b"one", b"two")]
    etags = [md5.hex() for md5 in md5s]
    two = plan_parts(10 * MIB, etag_rule(f"{'0' * 32}-2", 10 * MIB), abilities())
    assert two.source_etag(etags) == multipart_etag(md5s)
    assert two.source_etag(["kms", etags[1]]) == ""
    one = plan_parts(MIB, etag_rule("0" * 32, MIB), abilities())
    assert one.source_etag(etags[:1]) == etags[0]
    blind = plan_parts(10 * MIB, EtagRule(), abilities())
    assert blind.source_etag(etags) == ""
