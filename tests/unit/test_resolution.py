"""From events to files."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from livekit_backup.core.resolution import resolve_backup
from livekit_backup.errors import (
    AccessDeniedError,
    LinkExpiredError,
    MissingError,
    RefusedError,
    SourceUnavailableError,
    UnresolvedError,
)
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.references import FileKind
from unit.fakes import BACKUP, OWN, backup_event, signed

LINK = signed("m.json")


def _resolve(events, manifest=None, **manifests):
    fetched = []

    def fetch(location):
        fetched.append(location.path)
        answer = manifests.get(location.path.strip("/").partition(".")[0], manifest)
        if isinstance(answer, Exception):
            raise answer
        return Manifest.model_validate(answer)

    resolved = resolve_backup(events if isinstance(events, list) else [events], fetch)
    assert len(fetched) == len(set(fetched)), "a link is fetched once"
    return resolved


def _files(events, manifest=None, **manifests):
    return {file.filename: file for file in _resolve(events, manifest, **manifests).files}


def _entry(name, link=None):
    return {"filename": name, "location": signed(name) if link is None else link}


def _manifest(**content):
    return {"egress_id": "EG_1", **content}


def test_files_of_the_manifest_with_sizes_of_the_event():
    event = backup_event(manifestLocation=LINK, fileResults=[{"filename": "a.mp4", "size": "7", "location": ""}])
    files = _files(event, _manifest(files=[_entry("a.mp4"), _entry("b.mp4")]))
    assert {name: file.size for name, file in files.items()} == {"a.mp4": 7, "b.mp4": None}
    assert all(file.location.is_signed and file.error is None for file in files.values())


def test_the_live_playlist_comes_from_the_event():
    event = backup_event(
        manifestLocation=LINK,
        segmentResults=[
            {
                "playlistName": "hls/i.m3u8",
                "playlistLocation": signed("hls/i.m3u8"),
                "livePlaylistName": "hls/live.m3u8",
                "livePlaylistLocation": signed("hls/live.m3u8"),
                "segmentCount": "1",
            }
        ],
    )
    manifest = _manifest(playlists=[{"location": signed("hls/i.m3u8"), "segments": [_entry("hls/0.ts")]}])
    assert {name: file.kind.value for name, file in _files(event, manifest).items()} == {
        "hls/i.m3u8": "playlist",
        "hls/0.ts": "segment",
        "hls/live.m3u8": "playlist",
    }


def test_a_playlist_is_named_by_the_event_else_by_its_path():
    path_style = "https://minio.example/bucket/hls/i.m3u8?Signature=s"
    manifest = _manifest(playlists=[{"location": path_style}])
    known = backup_event(manifestLocation=LINK, segmentResults=[{"playlistName": "hls/i.m3u8"}])
    assert list(_files(known, manifest)) == ["hls/i.m3u8"]
    assert list(_files(backup_event(manifestLocation=LINK), manifest)) == ["bucket/hls/i.m3u8"]


def test_playlists_with_spaces_in_their_names():
    names = ["my room/a.m3u8", "my room/b.m3u8"]
    links = [signed(name.replace(" ", "%20")) for name in names]
    results = [{"playlistName": name, "playlistLocation": link} for name, link in zip(names, links, strict=True)]
    event = backup_event(manifestLocation=LINK, segmentResults=results)
    assert list(_files(event, _manifest(playlists=[{"location": link} for link in links]))) == names


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (LinkExpiredError("dead"), LinkExpiredError),
        (RefusedError("no"), RefusedError),
        (UnresolvedError("no manifest"), UnresolvedError),
        (SourceUnavailableError("busy"), UnresolvedError),
        (AccessDeniedError("denied"), UnresolvedError),
        (MissingError("gone"), UnresolvedError),
    ],
)
def test_without_its_manifest_everything_is_accounted_for(error, outcome):
    event = backup_event(
        manifestLocation=LINK,
        fileResults=[{"filename": "a.mp4", "size": "7"}, {"filename": "b.mp4", "location": signed("b.mp4")}],
        segmentResults=[{"playlistName": "i.m3u8", "segmentCount": "5"}],
        imageResults=[{"filenamePrefix": "thumb", "imageCount": "3"}],
    )
    files = _files(event, error)
    assert list(files) == ["b.mp4", "a.mp4", "i.m3u8", "(5 segments of i.m3u8)", "(3 images of thumb)"]
    assert files.pop("b.mp4").location
    assert {type(file.error) for file in files.values()} == {outcome}
    assert files["a.mp4"].size == 7


def test_of_a_backup_that_names_nothing_all_is_unresolved():
    [file] = _resolve(backup_event()).files
    assert (file.filename, file.kind) == ("(all files)", FileKind.UNKNOWN)
    assert isinstance(file.error, UnresolvedError)


def test_an_empty_manifest_leaves_all_unresolved():
    assert _resolve(backup_event(manifestLocation=LINK), _manifest()).files


@pytest.mark.parametrize(
    "results",
    [
        {"fileResults": [{"filename": "b.ogg", "size": "4"}]},
        {"segmentResults": [{"playlistName": "b.m3u8"}]},
    ],
)
def test_a_file_that_the_manifest_leaves_out_is_accounted_for(results):
    files = _files(backup_event(manifestLocation=LINK, **results), _manifest(files=[_entry("a.mp4")]))
    assert len(files) == 2


def test_a_manifest_of_another_egress_is_not_believed():
    files = _files(backup_event(manifestLocation=LINK), {"egress_id": "EG_other", "files": [_entry("a.mp4")]})
    assert "belongs to another egress" in str(files["(all files)"].error)


def test_an_older_manifest_stands_in():
    events = [
        backup_event(manifestLocation=signed("new.json"), updatedAt="2"),
        backup_event(manifestLocation=signed("old.json"), updatedAt="1"),
    ]
    assert list(_files(events, new=LinkExpiredError("x"), old=_manifest(files=[_entry("a.mp4")]))) == ["a.mp4"]
    error = _files(events, new=LinkExpiredError("dead"), old=MissingError("x"))["(all files)"].error
    assert str(error) == "dead", "why the newest cannot be read"


def test_a_shortfall_is_a_file_of_its_own():
    event = backup_event(
        manifestLocation=LINK,
        segmentResults=[{"playlistName": "i.m3u8", "segmentCount": "5"}],
        imageResults=[{"imageCount": "2"}, {"imageCount": "1"}],
    )
    manifest = _manifest(
        playlists=[{"location": signed("i.m3u8"), "segments": [_entry(f"{n}.ts") for n in range(3)]}],
        images=[_entry("thumb.jpeg")],
    )
    files = _files(event, manifest)
    assert {name for name, file in files.items() if file.error} == {"(2 of 5 segments)", "(2 of 3 images)"}


def test_more_than_was_counted_is_no_shortfall():
    manifest = _manifest(images=[_entry("1.jpeg"), _entry("2.jpeg")])
    event = backup_event(manifestLocation=LINK, imageResults=[{"imageCount": "1"}])
    assert set(_files(event, manifest)) == {"1.jpeg", "2.jpeg"}


def test_one_name_at_one_place_keeps_the_link_that_lives_longest():
    long, short = signed("a.mp4"), signed("a.mp4", "20261115T204342Z")
    for links in ((long, short), (short, long)):
        manifest = _manifest(files=[_entry("a.mp4", link) for link in links])
        [file] = _files(backup_event(manifestLocation=LINK), manifest).values()
        assert file.location.deadline == datetime(2026, 11, 27, 20, 43, 42, tzinfo=UTC)


def test_one_name_at_two_places_is_two_files():
    manifest = _manifest(
        files=[_entry("d/a.mp4", signed("one/a.mp4")), _entry("d/a.mp4", signed("two/a.mp4")), _entry("e", signed("3/e")),
               _entry("e", signed("4/e"))]
    )  # fmt: skip
    names = list(_files(backup_event(manifestLocation=LINK), manifest))
    assert names[0] == "d/a.mp4"
    assert names[1].startswith("d/a~")
    assert names[1].endswith(".mp4")
    assert names[2] == "e"
    assert names[3].startswith("e~")
    assert list(_files(backup_event(manifestLocation=LINK), manifest)) == names, "the same names in every run"


def test_the_second_of_two_places_keeps_the_link_that_lives_longest():
    links = [signed("one/a"), signed("two/a"), signed("two/a", "20261115T204342Z")]
    manifest = _manifest(files=[_entry("a", link) for link in links])
    deadlines = [file.location.deadline for file in _files(backup_event(manifestLocation=LINK), manifest).values()]
    assert deadlines == [datetime(2026, 11, 27, 20, 43, 42, tzinfo=UTC)] * 2


def test_a_location_of_the_event_mends_a_bad_one_of_the_manifest():
    event = backup_event(manifestLocation=LINK, fileResults=[{"filename": "a.mp4", "location": signed("a.mp4")}])
    for bad in ("", "https://user@h/a.mp4"):
        [file] = _files(event, _manifest(files=[_entry("a.mp4", bad)])).values()
        assert file.location
        assert file.error is None


def test_an_unsigned_location_of_the_event_replaces_nothing():
    event = backup_event(manifestLocation=LINK, fileResults=[{"filename": "a.mp4", "location": f"{OWN}a.mp4"}])
    [file] = _files(event, _manifest(files=[_entry("a.mp4")])).values()
    assert file.location.is_signed
    [alone] = _files(event, MissingError("x")).values()
    assert not alone.location.is_signed


def test_a_file_without_location_or_with_a_bad_one_carries_its_error():
    manifest = _manifest(files=[_entry("a", ""), _entry("b", "https://user@h/b"), _entry("", signed("dir/c.mp4"))])
    files = _files(backup_event(manifestLocation=LINK), manifest)
    assert isinstance(files["a"].error, UnresolvedError)
    assert isinstance(files["b"].error, RefusedError)
    assert files["dir/c.mp4"].location


def test_files_without_a_name_are_all_accounted_for():
    manifest = _manifest(images=[_entry("", "https://user@h/1"), _entry("", "https://user@h/2")])
    assert len(_resolve(backup_event(manifestLocation=LINK), manifest).files) == 2


def test_the_newest_event_speaks_and_older_ones_add():
    events = [
        backup_event(updatedAt="2", roomName="new", fileResults=[{"filename": "a", "size": "2", "location": signed("a")}]),
        backup_event(updatedAt="1", roomName="old", fileResults=[{"filename": "a", "size": "1", "location": signed("a")},
                                                                 {"filename": "b", "size": "5", "location": signed("b")}]),
    ]  # fmt: skip
    resolved = _resolve(events)
    assert resolved.egress.room_name == "new"
    assert {file.filename: file.size for file in resolved.files} == {"a": 2, "b": 5}


@pytest.mark.parametrize(
    ("info", "created", "started"),
    [
        ({"startedAt": "1732135319356232371"}, 5, datetime(2024, 11, 20, 20, 41, 59, tzinfo=UTC)),
        (
            {"startedAt": None, "endedAt": "1732135407895557840"},
            5,
            datetime(2024, 11, 20, 20, 43, 27, tzinfo=UTC),
        ),
        (
            {"startedAt": None, "updatedAt": "1732135422466498851"},
            5,
            datetime(2024, 11, 20, 20, 43, 42, tzinfo=UTC),
        ),
        ({"startedAt": None}, 1732135423, datetime(2024, 11, 20, 20, 43, 43, tzinfo=UTC)),
        ({"startedAt": None}, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        ({"startedAt": None}, 2**62, datetime(1970, 1, 1, tzinfo=UTC)),
        ({"startedAt": str(2**63 - 1)}, 0, datetime(2262, 4, 11, 23, 47, 16, tzinfo=UTC)),
    ],
)
def test_when_it_started(info, created, started):
    event = backup_event(**info).model_copy(update={"created_at": created})
    assert _resolve(event).started == started


def test_errors_never_hold_a_query():
    event = backup_event(manifestLocation=f"{BACKUP}m:json?X-Amz-Signature=secret", fileResults=[{"filename": "a"}])
    for bad in ("https://user:secret@h/a?sig=secret", "https://h:99999/a?sig=secret"):
        for file in _resolve(event, _manifest(files=[_entry("a", bad)])).files:
            assert "secret" not in repr(file)
