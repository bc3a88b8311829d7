"""What becomes of each stored payload of the corpus: the table of its README, asserted."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.inbox import IntakeReader, load_backup_events
from livekit_backup.core.locations import Location
from livekit_backup.core.planning import plan_backup
from livekit_backup.core.resolution import resolve_backup
from livekit_backup.errors import UnresolvedError
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind, Intake, Plan
from livekit_backup.models.settings import Settings
from unit.fakes import CORPUS, MemoryStore

ENDED = datetime(2024, 11, 20, 20, 43, 27, tzinfo=UTC)
UPLOADED = datetime(2024, 11, 20, 20, 43, 42, tzinfo=UTC)
DEADLINE = datetime(2024, 11, 27, 20, 43, 42, tzinfo=UTC)
RUN = 1732135319356232371
SETTINGS = Settings(
    inbox="s3://events/livekit",
    warehouse="s3://recordings",
    ledger="s3://recordings/_livekit_backup",
    allowed_hosts=("*.amazonaws.com", "storage.googleapis.com", "*.aliyuncs.com", "*.blob.core.windows.net"),
)

RECOVERED = {
    "livekit_protocol/01_room_composite_mp4_backup.json": "EG_roomComp01A",
    "livekit_protocol/01b_room_composite_mp4_backup.compact.json": "EG_roomComp01A",
    "livekit_protocol/02_track_egress_ogg_backup.json": "EG_trackAudio02",
    "livekit_protocol/03_hls_segments_backup_mixed_locations.json": "EG_hlsSegments03",
    "livekit_protocol/04_images_backup.json": "EG_images04",
    "livekit_protocol/07_limit_reached_backup_web_no_room.json": "EG_limitBackup07",
    "livekit_protocol/08_failed_backup_used_no_manifest.json": "EG_failedWithBk08",
    "livekit_protocol/11_integers_as_numbers.json": "EG_roomComp01A",
    "livekit_protocol/12_snake_case.json": "EG_roomComp01A",
    "livekit_protocol/13_wrapper_timestamp_payload.json": "EG_roomComp01A",
    "livekit_protocol/18a_duplicate_first.json": "EG_roomComp01A",
    "livekit_protocol/18b_duplicate_second.json": "EG_roomComp01A",
    "own/e01_integers_in_exponent_form.json": "EG_e01",
    "own/e02_status_as_number.json": "EG_e02",
    "own/e03_unknown_status.json": "EG_e03",
    "own/e04_unknown_status_number.json": "EG_e04",
    "own/e05_wrapper_id_beside_payload.json": "EG_e05",
    "own/e06_bare_egress_info_camel.json": "EG_e06",
    "own/e07_bare_egress_info_snake_zero_values.json": "EG_e07",
    "own/e08_null_fields.json": "EG_e08",
    "own/e09_deprecated_file_only.json": "EG_e09",
    "own/e10_deprecated_segments_only.json": "EG_e10",
    "own/e11_complete_backup_no_manifest_no_location.json": "EG_e11",
    "own/e12a_run_1.json": "EG_e12",
    "own/e12b_run_2.json": "EG_e12",
    "own/e13a_flagged.json": "EG_e13",
    "own/e14_wrapper_of_bare_egress_info.json": "EG_e14",
    "own/e18_unknown_fields.json": "EG_e18",
}
FAILED_WITHOUT_BACKUP = {
    "livekit_protocol/06_failed_without_backup.json": "EG_failedNoBk06",
    "own/e13b_later_stale_failure.json": "EG_e13",
    "own/e15_aborted.json": "EG_e15",
}
IGNORED = (
    "livekit_protocol/09_complete_no_backup_ignore.json",
    "livekit_protocol/14_egress_updated_ending_backup_ignore.json",
    "own/e16_room_finished.json",
    "own/e17_bare_still_active.json",
)
UNREADABLE = {
    "livekit_page/99_node_console_dump.txt": "not JSON",
    "own/e19_bad_egress_id.json": "egressId",
}
NOT_EVENTS = {"livekit_protocol/01c_signed_request.json"}


def _names(pattern: str) -> set[str]:
    return {path.relative_to(CORPUS).as_posix() for path in CORPUS.glob(pattern)}


def _inbox(*names: str) -> MemoryStore:
    store = MemoryStore()
    for name in names:
        store.put(f"s3://events/{name}", (CORPUS / name).read_bytes())
    return store


def _intake(*names: str) -> Intake:
    store = _inbox(*names)
    reader = IntakeReader()
    reader.read(store, [f"s3://events/{name}" for name in names])
    return reader.result()


def _manifest(name: str) -> Manifest:
    return Manifest.model_validate_json((CORPUS / name).read_bytes())


def _no_manifest(location: Location) -> Manifest:
    raise UnresolvedError("no manifest in this test")


def _plan(event: str, manifest: str | None, now: datetime = UPLOADED) -> Plan:
    [ref] = _intake(event).backups
    fetch = (lambda _: _manifest(manifest)) if manifest else _no_manifest
    resolved = resolve_backup(load_backup_events(_inbox(event), ref), fetch)
    return plan_backup(ref, resolved, SETTINGS, lambda _: None, now)


def test_every_payload_has_its_line():
    events = {*RECOVERED, *FAILED_WITHOUT_BACKUP, *IGNORED, *UNREADABLE, *NOT_EVENTS}
    assert events == _names("livekit_protocol/*") | _names("own/e*") | _names("livekit_page/99*")


@pytest.mark.parametrize("name", sorted(RECOVERED))
def test_is_recovered(name):
    intake = _intake(name)
    [backup] = intake.backups
    assert backup.egress_id == RECOVERED[name]
    assert intake.unreadable == intake.failed_without_backup == ()
    assert (intake.objects, intake.events) == (1, 1)


@pytest.mark.parametrize("name", sorted(FAILED_WITHOUT_BACKUP))
def test_failed_without_a_backup_is_reported(name):
    intake = _intake(name)
    assert intake.failed_without_backup == (FAILED_WITHOUT_BACKUP[name],)
    assert intake.backups == intake.unreadable == ()


@pytest.mark.parametrize("name", IGNORED)
def test_is_ignored(name):
    intake = _intake(name)
    assert intake.backups == intake.unreadable == intake.failed_without_backup == ()
    assert intake.events == 1


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_is_kept_with_a_reason(name):
    intake = _intake(name)
    assert intake.backups == ()
    [document] = intake.unreadable
    assert UNREADABLE[name] in document.reason
    assert document.may_be_backup
    assert (document.uri, document.position) == (f"s3://events/{name}", 0)


def test_one_egress_under_two_event_ids_is_recovered_once():
    intake = _intake("livekit_protocol/18a_duplicate_first.json", "livekit_protocol/18b_duplicate_second.json")
    [backup] = intake.backups
    assert len(backup.events) == 2


def test_all_spellings_of_one_event_are_one_backup():
    names = [name for name, egress_id in RECOVERED.items() if egress_id == "EG_roomComp01A"]
    [backup] = _intake(*names).backups
    assert (backup.run, backup.room_name, len(backup.events)) == (RUN, "A LiveKit room", len(names))


def test_two_runs_of_one_egress_are_two_backups():
    backups = _intake("own/e12a_run_1.json", "own/e12b_run_2.json").backups
    assert [backup.run for backup in backups] == [1732135319000000000, 1732139999000000000]


@pytest.mark.parametrize(
    "order",
    [
        ("own/e13a_flagged.json", "own/e13b_later_stale_failure.json"),
        ("own/e13b_later_stale_failure.json", "own/e13a_flagged.json"),
    ],
)
def test_a_stale_failure_cancels_no_flag(order):
    intake = _intake(*order)
    assert [backup.egress_id for backup in intake.backups] == ["EG_e13"]
    assert intake.failed_without_backup == ()


def test_the_signed_request_carries_the_hash_of_its_body():
    request = json.loads((CORPUS / "livekit_protocol/01c_signed_request.json").read_text())
    body = (CORPUS / "livekit_protocol" / request["body_file"]).read_bytes()
    assert request["claims"]["sha256"] == base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_the_whole_corpus_in_one_inbox():
    names = sorted({*RECOVERED, *FAILED_WITHOUT_BACKUP, *IGNORED, *UNREADABLE})
    intake = _intake(*names)
    assert len(intake.backups) == len(set(RECOVERED.values())) + 1, "EG_e12 ran twice"
    assert len(intake.unreadable) == len(UNREADABLE)
    assert intake.failed_without_backup == ("EG_e15", "EG_failedNoBk06")


@pytest.mark.parametrize(
    ("event", "manifest", "filename", "size"),
    [
        ("01_room_composite_mp4_backup.json", "m01_room_composite_mp4.json", "egress/livekit-room.mp4", 61941096),
        (
            "02_track_egress_ogg_backup.json",
            "m02_track_ogg.json",
            "recordings/alice/TR_AMicrophone1-2024-11-20T204159.ogg",
            733184,
        ),
        ("08_failed_backup_used_no_manifest.json", None, "egress/livekit-room.mp4", 5242881),
    ],
)  # fmt: skip
def test_one_file_is_planned(event, manifest, filename, size):
    plan = _plan(f"livekit_protocol/{event}", f"livekit_egress/{manifest}" if manifest else None)
    [file] = plan.to_recover
    assert (file.filename, file.size, file.kind, file.run) == (filename, size, FileKind.FILE, RUN)
    assert file.deadline == ENDED + timedelta(days=7), "earlier than the URL's own end"
    assert file.landing_uri == f"s3://recordings/dt=2024-11-20/{file.egress_id}/{filename}"
    assert plan.accounted == ()


def test_hls_in_two_homes_recovers_the_backup_and_accounts_for_the_rest():
    plan = _plan(
        "livekit_protocol/03_hls_segments_backup_mixed_locations.json",
        "livekit_egress/m03_hls_mixed_primary_and_backup.json",
    )
    assert {file.filename: file.kind.value for file in plan.to_recover} == {
        "hls/room-a/index.m3u8": "playlist",
        "hls/room-a/live.m3u8": "playlist",
        "hls/room-a/seg_00002.ts": "segment",
        "hls/room-a/seg_00003.ts": "segment",
    }
    assert {known.file.filename: known.outcome for known in plan.accounted} == {
        "hls/room-a/seg_00000.ts": Outcome.IN_PRIMARY,
        "hls/room-a/seg_00001.ts": Outcome.IN_PRIMARY,
    }


def test_images_come_from_the_manifest_alone():
    plan = _plan("livekit_protocol/04_images_backup.json", "livekit_egress/m04_images_timestamped.json")
    assert [file.kind for file in plan.to_recover] == [FileKind.IMAGE] * 3
    assert plan.accounted == ()


def test_images_without_a_manifest_are_counted():
    [known] = _plan("livekit_protocol/04_images_backup.json", None).accounted
    assert (known.file.filename, known.outcome) == ("(3 images of thumbs/room-a)", Outcome.UNRESOLVED)


def test_a_week_later_everything_has_expired():
    late = datetime(2024, 11, 27, 21, tzinfo=UTC)
    plan = _plan(
        "livekit_protocol/01_room_composite_mp4_backup.json",
        "livekit_egress/m01_room_composite_mp4.json",
        late,
    )
    assert plan.to_recover == ()
    assert [known.outcome for known in plan.accounted] == [Outcome.EXPIRED]


def test_complete_with_backup_and_neither_manifest_nor_location():
    plan = _plan("own/e11_complete_backup_no_manifest_no_location.json", None)
    assert plan.to_recover == ()
    assert {known.file.filename: known.outcome for known in plan.accounted} == {
        "own/a.mp4": Outcome.UNRESOLVED,
        "(3 images of own/thumb)": Outcome.UNRESOLVED,
    }


def test_deprecated_segments_give_their_playlist():
    plan = _plan("own/e10_deprecated_segments_only.json", None)
    assert [file.filename for file in plan.to_recover] == ["own/index.m3u8"]
    assert [known.file.filename for known in plan.accounted] == ["(2 segments of own/index.m3u8)"]


def test_float_timestamps_are_read():
    manifest = _manifest("livekit_page/m06_float_timestamps.json")
    assert abs(manifest.started_at - 1732203049646670800) < 256


@pytest.mark.parametrize(
    ("name", "deadline"),
    [
        ("livekit_egress/m12_gcs_v2_signed.json", datetime(2024, 11, 27, 20, 43, 43, tzinfo=UTC)),
        ("own/m21_gcs_v4_signed.json", DEADLINE),
        ("own/m22_alioss_signed.json", DEADLINE),
        ("own/m23_azure_sas.json", DEADLINE),
        ("own/m24_security_token.json", DEADLINE),
    ],
)
def test_each_vendor_says_when_its_link_dies(name, deadline):
    location = Location(_manifest(name).files[0].link.get_secret_value())
    assert location.is_signed
    assert location.deadline == deadline


def test_the_presigned_url_is_read_where_there_are_two():
    manifest = _manifest("own/m20_presigned_url_beside_location.json")
    entries = [manifest.files[0], manifest.playlists[0], manifest.playlists[0].segments[0]]
    assert all("X-Amz-Signature" in entry.link.get_secret_value() for entry in entries)


def test_a_manifest_of_another_egress_is_not_used():
    plan = _plan("own/e11_complete_backup_no_manifest_no_location.json", "own/m25_another_egress.json")
    assert plan.to_recover == ()


def _files_of(name: str) -> list[str]:
    manifest = _manifest(name).model_copy(update={"egress_id": ""})
    [ref] = _intake("own/e14_wrapper_of_bare_egress_info.json").backups
    events = load_backup_events(_inbox("own/e14_wrapper_of_bare_egress_info.json"), ref)
    egress = events[0].egress_info.model_copy(
        update={"file_results": (), "manifest_location": events[0].egress_info.file_results[0].location}
    )
    event = events[0].model_copy(update={"egress_info": egress})
    return [file.filename for file in resolve_backup([event], lambda _: manifest).files]


def test_entries_of_one_name_and_key_are_one_file():
    assert _files_of("own/m26_duplicate_image_names.json") == ["own/thumb.jpeg"]


def test_one_name_at_two_keys_is_two_files():
    first, second = _files_of("own/m27_same_name_two_objects.json")
    assert first == "own/a.mp4"
    assert second.startswith("own/a~")
    assert second.endswith(".mp4")


def test_null_lists_are_empty():
    assert _manifest("own/m28_null_lists.json").files == ()


def test_any_json_object_is_not_a_manifest():
    with pytest.raises(ValueError, match="not an egress manifest"):
        _manifest("own/m29_not_a_manifest.json")


def test_no_payload_shows_its_signature():
    for name in RECOVERED:
        for event in load_backup_events(_inbox(name), _intake(name).backups[0]):
            assert "X-Amz-Signature" not in f"{event!r}{event}{event.model_dump_json()}"
