"""HLS playlists: whole ones, ones with a hole, a turn or a stranger in them, live ones, and noise."""

from __future__ import annotations

import os
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_backup.core.playlist_check import PlaylistLook, look_at_playlist
from livekit_backup.testing.recordings import playlist_of

EXAMPLES = int(os.environ.get("LIVEKIT_BACKUP_EXAMPLES", "40"))
NAMES = [f"seg_{number:05d}.ts" for number in range(5)]


def playlist(names=NAMES, *, first=0, ended=True, times=None):
    """As livekit/egress writes it."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:4", "#EXT-X-PLAYLIST-TYPE:EVENT", "#EXT-X-ALLOW-CACHE:NO"]
    lines += ["#EXT-X-TARGETDURATION:6", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    for index, name in enumerate(names):
        time = (times or [f"2026-11-20T20:00:{6 * number:02d}.123Z" for number in range(len(names))])[index]
        lines += [f"#EXT-X-PROGRAM-DATE-TIME:{time}", "#EXTINF:6.006,", name]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else []), ""]).encode()


def test_a_whole_one_is_not_suspected():
    assert look_at_playlist(playlist(), NAMES, all_are_its=True) == PlaylistLook((), pytest.approx(30.03))
    assert look_at_playlist(playlist().replace(b"\n", b"\r\n"), NAMES).wrong == ()


def test_neither_is_the_fakes():
    assert look_at_playlist(playlist_of(0, 4).data, NAMES[:4], all_are_its=True).wrong == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it does not begin as a playlist does"),
        (b"<html>", "it does not begin as a playlist does"),
        (b"\0" * 500, "it does not begin as a playlist does"),
        (b"#EXTM3U\n#EXT-X-ENDLIST\n", "it names no segment"),
        (playlist(ended=False), "it was not ended: it has no EXT-X-ENDLIST"),
        (playlist()[:-40], "it was not ended: it has no EXT-X-ENDLIST"),
        (playlist([*NAMES[:3], NAMES[2]]), "1 segments stand in it twice"),
        (playlist([NAMES[1], NAMES[0], *NAMES[2:]]), "'seg_00000.ts' stands behind 'seg_00001.ts'"),
        (playlist(NAMES[:2], times=["2026-11-20T20:00:06Z", "2026-11-20T20:00:00Z"]), "its times run backwards"),
        (playlist().replace(b"#EXTINF:6.006,\nseg_00003.ts", b"seg_00003.ts"), "1 of 5 segments have no EXTINF"),
        (playlist([*NAMES, "seg_00005.ts"]), "the backup has not 1 of the segments it names, such as 'seg_00005.ts'"),
        (playlist(["https://elsewhere.example/seg_00000.ts"]), "the backup has not 1 of the segments it names"),
        (playlist(["../../etc/passwd"]), "the backup has not 1 of the segments it names"),
        (playlist([*NAMES[:2], *NAMES[3:]]), "it leaves out 1 segments of the backup, such as 'seg_00002.ts'"),
    ],
)
def test_each_damage_is_said(text, said):
    wrong = look_at_playlist(text, NAMES, all_are_its=True).wrong
    assert any(said in one for one in wrong), wrong


def test_a_live_one_names_only_the_newest():
    look = look_at_playlist(playlist(NAMES[2:], first=2, ended=False), NAMES, all_are_its=True)
    assert look == PlaylistLook((), None)


def test_where_the_backups_files_are_not_known_nothing_is_said_of_them():
    assert look_at_playlist(playlist(["other_1.ts"])).wrong == ()
    assert look_at_playlist(playlist(NAMES[:2]), NAMES, all_are_its=False).wrong == ()


def test_names_with_times_in_them_are_in_order_by_their_times():
    names = [f"room_20261120T2000{second:02d}123.ts" for second in (0, 6, 12)]
    assert look_at_playlist(playlist(names), names).wrong == ()
    assert look_at_playlist(playlist(names[::-1]), names).wrong != ()


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=3000))
def test_noise_is_looked_at_without_an_error(noise):
    look_at_playlist(noise, NAMES, all_are_its=True)
    look_at_playlist(b"#EXTM3U\n" + noise, NAMES, all_are_its=True)


@settings(max_examples=EXAMPLES)
@given(
    st.lists(
        st.sampled_from(
            [*NAMES, "#EXTINF:6,", "#EXTINF:9" * 40, "#EXT-X-MEDIA-SEQUENCE:" + "9" * 400, "#EXT-X-ENDLIST", "\u2028"]
            + ["#EXT-X-PROGRAM-DATE-TIME:" + text for text in ("", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00Z")]
            + ["9" * 5000 + ".ts", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
        ),
        max_size=30,
    )
)
def test_any_mixture_of_lines_is_looked_at(lines):
    look = look_at_playlist("\n".join(["#EXTM3U", *lines]).encode(), NAMES, all_are_its=True)
    assert all(len(wrong) < 400 for wrong in look.wrong)
    assert look.seconds is None or look.seconds >= 0


def test_every_order_but_the_right_one_is_suspected():
    for names in permutations(NAMES):
        assert bool(look_at_playlist(playlist(names), NAMES).wrong) is (list(names) != NAMES), names


def test_every_hole_is_suspected():
    for count in range(1, len(NAMES) + 1):
        for names in combinations(NAMES, count):
            wrong = look_at_playlist(playlist(names), NAMES, all_are_its=True).wrong
            assert bool(wrong) is (list(names) != NAMES), names


def test_a_playlist_of_100000_segments_is_looked_at_at_once():
    names = [f"seg_{number:06d}.ts" for number in range(100_000)]
    times = ["2026-11-20T20:00:00Z"] * len(names)
    assert look_at_playlist(playlist(names, times=times), names, all_are_its=True).wrong == ()
