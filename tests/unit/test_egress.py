"""EgressInfo and the webhook event."""

from __future__ import annotations

import pytest

from livekit_backup.models.egress import EGRESS_STATUSES, EgressInfo, WebhookEvent


def _info(**more):
    return EgressInfo.model_validate({"egressId": "EG_1", **more})


def _event(name, **info):
    return WebhookEvent.model_validate({"event": name, "egressInfo": {"egressId": "EG_1", **info}})


@pytest.mark.parametrize("egress_id", ["", "../x", "a/b", "EG 1", "EG_1\n", "\nEG_1", "ü", "x" * 129, "a.b", "?"])
def test_an_egress_id_is_made_of_its_alphabet(egress_id):
    with pytest.raises(ValueError, match="egressId"):
        _info(egressId=egress_id)


def test_statuses_are_those_of_the_protocol():
    assert [_info(status=number).status for number in range(7)] == list(EGRESS_STATUSES)
    assert [_info(status=name).is_final for name in EGRESS_STATUSES] == [False] * 3 + [True] * 4
    assert _info().status == "EGRESS_STARTING"


@pytest.mark.parametrize("status", EGRESS_STATUSES)
def test_the_flag_decides_alone_once_the_egress_has_ended(status):
    assert _event("egress_ended", status=status, backupStorageUsed=True).backup
    assert not _event("egress_ended", status=status, manifestLocation="https://x/m?Signature=1").backup


@pytest.mark.parametrize("name", ["egress_started", "egress_updated", "egress_new"])
def test_other_events_are_no_end(name):
    assert _event(name, status="EGRESS_COMPLETE", backupStorageUsed=True).egress is None


def test_a_bare_egress_ends_by_its_status():
    assert _event("", status=3, backupStorageUsed=True).backup
    assert _event("", status=1, backupStorageUsed=True).backup is None
    assert WebhookEvent(event="egress_ended").egress is None


def test_deprecated_results_count_only_where_the_lists_are_silent():
    single, other = {"filename": "single"}, {"filename": "other"}
    assert [file.filename for file in _info(file=single).file_results] == ["single"]
    assert [file.filename for file in _info(file=single, fileResults=[]).file_results] == ["single"]
    assert [file.filename for file in _info(file=single, fileResults=None).file_results] == ["single"]
    assert [file.filename for file in _info(file=single, fileResults=[other]).file_results] == ["other"]
    assert [file.filename for file in _info(file=single, file_results=[other]).file_results] == ["other"]
    assert _info(file=None).file_results == ()
    assert _info(segments={"playlistName": "p"}).segment_results[0].playlist_name == "p"


def test_the_request_part_is_never_read():
    info = _info(roomComposite={"fileOutputs": [{"s3": {"secret": "storage-key"}}]}, details="x")
    assert "storage-key" not in f"{info!r}{info.model_dump_json()}"


def test_locations_are_never_shown():
    info = _info(
        manifestLocation="https://x/m?Signature=secret",
        file={"filename": "a", "location": "https://x/a?sig=secret"},
    )
    assert "secret" not in f"{info!r}{info}{info.model_dump_json()}"


def test_negative_durations_and_missing_ends_do_not_matter():
    assert _info(file={"filename": "a", "duration": "-5"}, endedAt=None).ended_at == 0
