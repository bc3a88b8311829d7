"""Which files share a task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.bundling import UNKNOWN_SIZE, bundle, capacity
from livekit_backup.core.planning import merge_plans
from livekit_backup.models.references import FileKind, Plan, RecordingFile
from livekit_backup.models.settings import Settings

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FILE, PLAYLIST, SEGMENT, IMAGE = FileKind.FILE, FileKind.PLAYLIST, FileKind.SEGMENT, FileKind.IMAGE


def settings(**changes):
    return Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/l", **changes)


def file(name, egress="EG_1", *, kind=SEGMENT, size=100, hours=24.0, **changes):
    return RecordingFile(
        egress_id=egress,
        run=1,
        filename=str(name),
        kind=kind,
        started=NOW,
        size=size,
        deadline=None if hours is None else NOW + hours * HOUR,
        label=f"label of {name}",
        **changes,
    )


def packed(files, most=1000, **changes):
    """The bundles, as names; files come as a plan gives them."""
    ordered = merge_plans([Plan(to_recover=tuple(files))], 10**6).to_recover
    return [[member.filename for member in made.files] for made in bundle(ordered, settings(**changes), most, NOW)]


def test_a_file_has_a_task_of_its_own():
    assert packed([file("a", kind=FILE, size=1), file("b", kind=FILE, size=1)]) == [["a"], ["b"]]


@pytest.mark.parametrize("kind", [SEGMENT, PLAYLIST, IMAGE])
def test_what_is_small_shares_one(kind):
    assert packed([file(n, kind=kind) for n in "abc"] + [file("z", kind=FILE)]) == [["a", "b", "c"], ["z"]]


def test_a_playlist_goes_with_its_segments():
    files = [file(f"{egress}/{n}", egress) for egress in ("EG_1", "EG_2") for n in range(3)]
    files += [file(f"{egress}/index", egress, kind=PLAYLIST) for egress in ("EG_1", "EG_2")]
    for members in packed(files, bundle_files=6):
        assert len({name.partition("/")[0] for name in members}) == 1
        assert len(members) == 4


def test_an_egress_is_not_cut_where_it_fits_into_one():
    files = [file(f"{egress}/{n}", egress) for egress in ("EG_1", "EG_2", "EG_3") for n in range(3)]
    assert [len(members) for members in packed(files, bundle_files=4)] == [3, 3, 3]
    assert [len(members) for members in packed(files, bundle_files=6)] == [6, 3]


def test_an_egress_that_fits_into_none_fills_them():
    assert [len(members) for members in packed([file(f"{n:02}") for n in range(10)], bundle_files=4)] == [4, 4, 2]


def test_bytes_bound_a_bundle_too():
    assert packed([file(n, size=40) for n in "abcde"], bundle_bytes=100) == [["a", "b"], ["c", "d"], ["e"]]
    assert packed([file(n, size=101) for n in "ab"], bundle_bytes=100) == [["a"], ["b"]], "one is always taken"


def test_a_file_of_unknown_size_counts_as_a_usual_segment():
    files = [file(n, size=None) for n in "abcd"]
    assert packed(files, bundle_bytes=2 * UNKNOWN_SIZE) == [["a", "b"], ["c", "d"]]
    assert packed([file(n, size=0) for n in "abcd"], bundle_bytes=1) == [["a", "b", "c", "d"]], "an empty one is known"


def test_one_file_a_bundle_turns_it_off():
    files = [file(n) for n in "abc"]
    assert packed(files, bundle_files=1) == [["a"], ["b"], ["c"]]
    assert len(packed(files, most=2, bundle_files=1)) <= 2, "Airflow's limit holds all the same"


def test_with_too_many_tasks_all_kinds_are_bundled():
    files = [file(f"{n:02}", f"EG_{n}", kind=FILE) for n in range(10)]
    assert len(packed(files, most=10, bundle_files=5)) == 10
    assert [len(members) for members in packed(files, most=9, bundle_files=5)] == [5, 5]


def test_where_tasks_are_scarce_number_alone_counts():
    files = [file(f"{n:02}", f"EG_{n}", kind=FILE, size=100) for n in range(10)]
    assert [len(members) for members in packed(files, most=3, bundle_files=5, bundle_bytes=100)] == [4, 4, 2]


def test_the_nearest_deadline_goes_first():
    files = [file(f"{n}", f"EG_{n}", kind=FILE, hours=hours) for n, hours in enumerate((9, None, 3, 6))]
    assert packed(files) == [["2"], ["3"], ["0"], ["1"]]
    soon = [file("s1", "EG_9", hours=50), file("s2", "EG_9", hours=5)]
    assert packed(files + soon)[:3] == [["2"], ["s2", "s1"], ["3"]], "by the first of a bundle's files"


def test_the_same_files_are_the_same_bundle_and_others_are_not():
    files = [file(n) for n in "abc"]
    first, again, other = (bundle(given, settings(), 9, NOW)[0] for given in (files, files, files[:2]))
    assert first == again
    assert first.bundle_id != other.bundle_id
    assert len(first.bundle_id) == 16


def test_a_label_says_what_a_person_knows():
    [alone] = bundle([file("a")], settings(), 9, NOW)
    assert alone.label == "label of a"
    [many] = bundle([file(n, room_name="Room\n1", size=1024) for n in "ab"], settings(), 9, NOW)
    assert many.label == "Room1 · 2 files · 2.0 KiB · 24 h left"
    [mixed] = bundle([file("a", "EG_1"), file("b", "EG_2", size=None)], settings(), 9, NOW)
    assert mixed.label == "2 recordings · 2 files · 24 h left"
    [unsigned] = bundle([file(n, hours=None) for n in "ab"], settings(), 9, NOW)
    assert unsigned.label == "EG_1 · 2 files · 200 B"


def test_nothing_is_no_bundle():
    assert bundle([], settings(), 9, NOW) == []


FILES = st.lists(
    st.builds(
        file,
        st.uuids(),
        st.sampled_from(["EG_1", "EG_2", "EG_3"]),
        kind=st.sampled_from([FILE, PLAYLIST, SEGMENT, IMAGE]),
        size=st.one_of(st.none(), st.integers(0, 500)),
        hours=st.one_of(st.none(), st.integers(1, 100)),
    ),
    max_size=120,
    unique_by=lambda one: one.key,
)


@given(files=FILES, most=st.integers(1, 30), bundle_files=st.integers(1, 20), bundle_bytes=st.integers(1, 2000))
def test_every_file_is_in_one_bundle_and_the_limits_hold(files, most, bundle_files, bundle_bytes):
    chosen = settings(bundle_files=bundle_files, bundle_bytes=bundle_bytes)
    ordered = merge_plans([Plan(to_recover=tuple(files))], capacity(chosen, most)).to_recover
    bundles = bundle(ordered, chosen, most, NOW)
    assert sorted(member.key for made in bundles for member in made.files) == sorted(one.key for one in ordered)
    assert len(bundles) <= most
    assert all(0 < len(made.files) <= bundle_files for made in bundles)
    assert len({made.bundle_id for made in bundles}) == len(bundles)
    deadlines = [min(one.deadline or NOW + 999 * HOUR for one in made.files) for made in bundles]
    assert deadlines == sorted(deadlines)
