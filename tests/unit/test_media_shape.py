"""What media files say by their own bytes: real ones, damaged ones, hostile ones and noise."""

from __future__ import annotations

import contextlib
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_backup.core.bounded_reader import BLOCK, MOST_BLOCKS, MOST_REQUESTS, BoundedReader, ProbeGivenUpError
from livekit_backup.core.media_shape import MOST_BOXES, Shape, look_at_shape
from media_samples import FORMATS, SECONDS, boxes, damaged, media, picture
from unit.fakes import Body, MemoryStore

ENDINGS = ("mp4", "ogg", "webm", "ts", "mp3", "jpg", "png", "m4a", "mkv", "txt", "")
EXAMPLES = int(os.environ.get("LIVEKIT_BACKUP_EXAMPLES", "40"))
UNSEEN = {
    ("mp3", "cut in half"),
    ("mp3", "cut at 99 percent"),
    ("mp3", "one byte short"),
    ("mp3", "its first 1000 bytes"),
}
"""An MP3 is a row of frames, and says nowhere how many."""


def sample(ending):
    return picture() if ending == "jpg" else media(ending)


def look(data, ending):
    return look_at_shape(ending.rpartition(".")[2], len(data), lambda offset, count: data[offset : offset + count])


@pytest.mark.parametrize("ending", [*FORMATS, "jpg"])
def test_a_good_one_is_not_suspected(ending):
    shape = look(sample(ending), ending)
    assert shape.wrong == ()
    if ending in ("mp4", "faststart.mp4", "m4a", "ogg", "webm"):
        assert shape.seconds == pytest.approx(SECONDS, abs=0.1)
    else:
        assert shape.seconds is None


@pytest.mark.parametrize("ending", [*FORMATS, "jpg"])
def test_a_damaged_one_is(ending):
    for how, data in damaged(sample(ending)).items():
        assert bool(look(data, ending).wrong) is ((ending, how) not in UNSEEN), how


@pytest.mark.parametrize(
    ("ending", "how", "said"),
    [
        ("mp4", "empty", "it is empty"),
        ("mp4", "all zero", "its first and last 4096 bytes are all zero"),
        ("mp4", "zero at the end", "the 4096 bytes at its end are all zero"),
        ("mp4", "cut in half", "it has no moov box, without which no player opens it"),
        ("faststart.mp4", "one byte short", "it was cut: its mdat box ends at byte"),
        ("ogg", "one byte short", "it was not ended: its last Ogg page is not marked as the last"),
        ("webm", "one byte short", "it was cut: its segment ends at byte"),
        ("ts", "one byte short", "are no whole number of packets of 188"),
        ("jpg", "one byte short", "it was cut: it does not end as a JPEG does"),
        ("mp3", "another kind of file", "it does not begin as an MP3 does"),
    ],
)
def test_it_says_what(ending, how, said):
    assert any(said in wrong for wrong in look(damaged(sample(ending))[how], ending).wrong)


def test_a_file_of_an_unknown_kind_is_held_against_zeros_alone():
    assert look(b"anything", "xyz") == Shape()
    assert look(bytes(9000), "xyz").wrong == ("its first and last 4096 bytes are all zero",)
    assert look(bytes(9), "xyz").wrong == ("it is all zero",)


def test_an_mp4_of_over_4_gib_is_walked_over():
    size = 5 << 30
    mdat = struct.pack(">I4sQ", 1, b"mdat", size - 16 - 8)

    def read_at(offset, count):
        places = {0: struct.pack(">I4s8x", 16, b"ftyp"), 16: mdat, size - 8: struct.pack(">I4s", 8, b"moov")}
        return places.get(offset, b"\1" * count)[:count]

    assert look_at_shape("mp4", size, read_at) == Shape()


def test_a_last_box_may_leave_its_length_open():
    data = bytearray(media("mp4"))
    (start,) = [start for kind, start, _ in boxes(bytes(data)) if kind == "moov"]
    data[start : start + 4] = bytes(4)
    assert look(bytes(data), "mp4").wrong == ()


@pytest.mark.parametrize("size", [1, 7, 2**32 - 1], ids=str)
def test_a_box_of_a_hostile_length_ends_the_walk(size):
    data = struct.pack(">I4s8xI4s", 16, b"ftyp", size, b"moov") + b"x" * 100
    assert look(data, "mp4").wrong


def test_a_thousand_tiny_boxes_are_given_up():
    with pytest.raises(ProbeGivenUpError, match=f"within {MOST_BOXES} boxes"):
        look(struct.pack(">I4s", 8, b"free") * (MOST_BOXES + 1), "mp4")


def test_marks_by_chance_are_no_ogg_pages():
    good = media("ogg")
    assert look(good[:-200] + b"OggS\0" * 40, "ogg").wrong
    assert look(good[:100] + b"OggS\0" + good[100:], "ogg").wrong == (), "it is the two ends that are looked at"


def test_webm_of_a_live_writer_leaves_its_length_open():
    data = bytearray(media("webm"))
    at = data.index(b"\x18\x53\x80\x67") + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    assert look(bytes(data), "webm").wrong == ()


@settings(max_examples=EXAMPLES)
@given(ending=st.sampled_from(ENDINGS), data=st.binary(max_size=2000))
def test_noise_is_looked_at_without_an_error(ending, data):
    shape = look(data, ending)
    assert all(isinstance(wrong, str) and len(wrong) < 200 for wrong in shape.wrong)
    assert shape.seconds is None or 0 < shape.seconds < 1e9


@settings(max_examples=EXAMPLES)
@given(
    ending=st.sampled_from([*FORMATS, "jpg"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=12)), max_size=4),
    cut=st.floats(0, 1),
)
def test_a_mutilated_one_is_looked_at_within_bounds(ending, changes, cut):
    data = bytearray(sample(ending))
    for place, value in changes:
        # Most of what a parser believes stands at the ends.
        at = int(place**4 * (len(data) - len(value)))
        data[at : at + len(value)] = value
    del data[max(1, int(len(data) * (1 - cut**8))) :]
    asked = []

    def read_at(offset, count):
        assert offset >= 0
        assert 0 <= count <= 200_000
        asked.append(offset)
        return bytes(data[offset : offset + count])

    with contextlib.suppress(ProbeGivenUpError):
        look_at_shape(ending.rpartition(".")[2], len(data), read_at)
    assert len(asked) <= 2 * MOST_BOXES


class Counting(MemoryStore):
    def __init__(self, data, give=1 << 30):
        super().__init__()
        self.give = give
        self.put("s3://b/o", data)
        self.spans = []

    def open(self, uri, start=0, stop=None, etag=""):
        self.spans.append((start, stop))
        assert etag == self.heads[uri].etag, "one version"
        return Body(self.objects[uri][start:stop], [self.give])

    def reader(self, **options):
        head = self.heads["s3://b/o"]
        return BoundedReader(self, "s3://b/o", head.size, head.etag, **options)


NUMBERS = Counting(b"".join(struct.pack(">I", number) for number in range(300_000)), give=100_000)


@given(st.lists(st.tuples(st.integers(0, 1_400_000), st.integers(0, 600_000)), max_size=6))
def test_a_reader_gives_the_bytes_that_are_there(reads):
    reader = NUMBERS.reader()
    for offset, count in reads:
        assert reader.read_at(offset, count) == NUMBERS.objects["s3://b/o"][offset : offset + count]


def test_a_reader_holds_a_few_blocks_and_asks_a_bounded_number_of_times():
    store = Counting(bytes(BLOCK * (MOST_BLOCKS + 4)))
    reader = store.reader()
    reader.read_at(0, store.heads["s3://b/o"].size)
    assert len(reader._blocks) == MOST_BLOCKS
    for _ in range(MOST_REQUESTS - len(store.spans)):
        reader._blocks.clear()
        reader.read_at(0, 1)
    reader._blocks.clear()
    with pytest.raises(ProbeGivenUpError, match="within 64 MiB"):
        reader.read_at(0, 1)
    assert len(store.spans) == MOST_REQUESTS


def test_a_reader_ends_with_its_time_and_with_a_store_that_gives_too_little():
    with pytest.raises(ProbeGivenUpError, match="within 60 s"):
        Counting(b"12345").reader(ends=0.0).read_at(0, 5)
    store = Counting(b"12345")
    reader = store.reader()
    store.objects["s3://b/o"] = b"123"
    with pytest.raises(ProbeGivenUpError, match="fewer bytes than it has"):
        reader.read_at(0, 5)


def test_what_is_in_memory_is_not_asked_for():
    store = Counting(b"12345")
    assert store.reader(content=b"12345").read_at(3, 9) == b"45"
    assert store.spans == []
