"""From stored objects to backups."""

from __future__ import annotations

import json
import logging

import pytest

from livekit_backup.core import json_documents
from livekit_backup.core.inbox import IntakeReader, load_backup_events, parse_event, read_object
from livekit_backup.errors import AccessDeniedError, UnreadableEventError
from livekit_backup.models.references import BackupRef, EventRef
from unit.fakes import MemoryStore, egress_ended

URI = "s3://b/in/1.json"


def _flagged(egress_id="EG_1", **info):
    return egress_ended(egress_id, backupStorageUsed=True, **info)


def _store(**objects):
    store = MemoryStore()
    for name, events in objects.items():
        body = events if isinstance(events, bytes) else b"".join(json.dumps(event).encode() + b"\n" for event in events)
        store.put(f"s3://b/in/{name}", body)
    return store


def _intake(store, **options):
    reader = IntakeReader(**options)
    reader.read(store, store.list_keys("s3://b/in/"))
    return reader.result()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "a JSON list"),
        ("text", "a JSON str"),
        (None, "a JSON NoneType"),
        ({}, "without 'event' or 'egress_id'"),
        ({"event": 5}, "without 'event'"),
        ({"payload": "egress_ended"}, "without 'event'"),
        ({"event": "egress_ended", "egressInfo": []}, "egressInfo"),
        ({"event": "egress_ended", "egressInfo": {}}, "egress"),
        (egress_ended("../x"), "egressId"),
        (egress_ended(startedAt="noon"), "int64"),
        (egress_ended(fileResults=[{"size": "1.5"}]), "fileResults.0.size"),
    ],
)
def test_what_is_no_event(value, reason):
    with pytest.raises(UnreadableEventError) as caught:
        parse_event(value)
    assert reason in str(caught.value)


def test_reasons_never_show_a_link():
    with pytest.raises(UnreadableEventError) as caught:
        parse_event(egress_ended(manifestLocation=["https://x/?X-Amz-Signature=secret"]))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_other_peoples_events_are_not_looked_into():
    assert parse_event({"event": "room_started", "room": 5, "egressInfo": "nonsense"}).egress_info is None


def test_the_payload_counts_before_what_stands_beside_it():
    event = parse_event({"id": "outer", "createdAt": "5", "payload": {**egress_ended(), "id": "inner"}})
    assert (event.id, event.created_at, event.egress.egress_id) == ("inner", 5, "EG_1")


def test_an_end_without_its_egress_is_not_passed_over():
    intake = _intake(_store(a=[{"event": "egress_ended", "egressId": "EG_1", "backupStorageUsed": True}]))
    assert intake.backups or intake.unreadable


def test_each_document_is_given_with_its_place():
    store = _store(a=[_flagged(), {"nothing": 1}, _flagged("EG_2")])
    assert [(type(item).__name__) for item in read_object(store, "s3://b/in/a")] == [
        "StoredEvent", "UnreadableDocument", "StoredEvent",
    ]  # fmt: skip


def test_unreadable_documents_may_be_backups_only_if_they_say_so():
    intake = _intake(_store(a=b'{"x": 1}\n{"backupStorageUsed": \n{"backup_storage_used": true}\n'))
    assert [document.may_be_backup for document in intake.unreadable] == [False, True, True]


def test_what_cannot_be_decompressed_may_be_a_backup():
    assert _intake(_store(a=b"\x1f\x8bnonsense")).unreadable[0].may_be_backup


def test_what_is_too_long_to_be_read_may_be_a_backup(monkeypatch):
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 2000)
    body = json.dumps({"event": "egress_ended", "padding": [0] * 1000, **_flagged()}).encode()
    [document] = _intake(_store(a=body)).unreadable
    assert document.may_be_backup


def test_the_newest_event_comes_first():
    store = _store(
        a=[_flagged(updatedAt="10", roomName="old")],
        b=[_flagged(updatedAt="30", roomName="new")],
        c=[_flagged(updatedAt="20", roomName="")],
    )
    [backup] = _intake(store).backups
    assert [ref.uri[-1] for ref in backup.events] == ["b", "c", "a"]
    assert backup.room_name == "new"


def test_a_room_name_is_kept_from_an_older_event():
    [backup] = _intake(_store(a=[_flagged(updatedAt="10", roomName="room")], b=[_flagged(updatedAt="20")])).backups
    assert backup.room_name == "room"


def test_a_flood_of_one_run_does_not_grow_its_reference():
    events = [_flagged(updatedAt=str(number)) for number in range(1, 101)]
    [backup] = _intake(_store(a=events)).backups
    assert [ref.position for ref in backup.events] == list(range(99, 83, -1))


def test_a_flood_of_garbage_is_counted():
    body = b'{"x": 1}\n' * 1002 + b'{"backupStorageUsed": 1}\n' * 2
    intake = _intake(_store(a=body))
    assert len(intake.unreadable) == 1002
    assert [(document.reason[:6], document.may_be_backup) for document in intake.unreadable[-2:]] == [
        ("2 more", False),
        ("2 more", True),
    ]


def test_egress_ids_narrow_the_intake():
    store = _store(a=[_flagged("EG_1"), _flagged("EG_2"), egress_ended("EG_3", status="EGRESS_FAILED")])
    assert [backup.egress_id for backup in _intake(store, egress_ids=["EG_2"]).backups] == ["EG_2"]
    assert _intake(store, egress_ids=["EG_2"]).failed_without_backup == ()
    assert _intake(store).failed_without_backup == ("EG_3",)


def test_an_object_that_vanished_may_have_been_a_backup(caplog):
    reader = IntakeReader()
    with caplog.at_level(logging.WARNING):
        reader.read(MemoryStore(), [URI])
    assert reader.has_found
    assert reader.result().unreadable[0].reason == "removed while being read"
    assert URI in caplog.text


def test_bodies_are_closed_even_when_reading_stops_early():
    store = _store(a=[_flagged(), _flagged()])
    body = store.open("s3://b/in/a")
    store.open = lambda uri: body
    reader = read_object(store, "s3://b/in/a")
    next(reader)
    reader.close()
    assert body.closed


@pytest.mark.parametrize("field", [{"roomName": "\ud800"}, {"fileResults": [{"filename": "\ud800.mp4"}]}])
def test_what_is_read_can_be_written(field):
    raw = json.dumps(_flagged(**field)).encode()
    intake = _intake(_store(a=raw))
    intake.model_dump_json()
    for backup in intake.backups:
        for event in load_backup_events(_store(a=raw), backup):
            event.egress_info.model_dump_json()


def _ref(*places, run=1732135319356232371):
    events = tuple(EventRef(uri=f"s3://b/in/{name}", position=position) for name, position in places)
    return BackupRef(egress_id="EG_1", run=run, events=events)


def test_events_are_found_again_wherever_they_moved():
    other = _flagged("EG_2")
    for stored in ([_flagged()], [other, other, other, _flagged()], [other, _flagged(), other]):
        assert len(load_backup_events(_store(a=stored), _ref(("a", 1)))) == 1


def test_another_run_is_not_this_one():
    with pytest.raises(UnreadableEventError, match=r"EG_1 is not in s3://b/in/a any more"):
        load_backup_events(_store(a=[_flagged()]), _ref(("a", 0), run=5))


def test_removed_objects_leave_the_others():
    assert len(load_backup_events(_store(b=[_flagged()]), _ref(("a", 0), ("b", 0)))) == 1


def test_loaded_events_come_newest_first():
    store = _store(a=[_flagged(updatedAt="10")], b=[_flagged(updatedAt="30")], c=[_flagged(updatedAt="20")])
    loaded = load_backup_events(store, _ref(("a", 0), ("b", 0), ("c", 0)))
    assert [event.backup.updated_at for event in loaded] == [30, 20, 10]


def test_loaded_events_without_an_update_time_come_newest_first():
    store = _store(a=[{**_flagged(), "createdAt": "10"}, {**_flagged(), "createdAt": "30"}])
    [backup] = _intake(store).backups
    assert [event.created_at for event in load_backup_events(store, backup)] == [30, 10]


@pytest.mark.parametrize(
    "body",
    [
        b"PK\x03\x04zip",
        b"BZh91AY",
        '{"event": "egress_ended"}'.encode("utf-16"),
        b"eyJldmVudCI6",
        b'{"event": "egress_en',
    ],
    ids=["zip", "bzip2", "utf-16", "base64", "cut before its flag"],
)
def test_what_is_no_json_may_be_a_backup(body):
    [document] = _intake(_store(a=body)).unreadable[:1]
    assert document.may_be_backup


@pytest.mark.parametrize(
    "event",
    [
        {"event": "livekit.webhook", "data": _flagged()},
        {**_flagged(), "event": "egress_ENDED"},
        {"event": "room_finished", "note": "backupStorageUsed"},
    ],
)
def test_a_flag_in_an_unknown_shape_is_not_passed_over(event):
    [document] = _intake(_store(a=[event])).unreadable
    assert document.may_be_backup


def test_a_status_not_known_here_can_only_be_an_ending():
    bare = {"egress_id": "EG_1", "status": 7, "backup_storage_used": True}
    assert [backup.egress_id for backup in _intake(_store(a=[bare])).backups] == ["EG_1"]
    assert _intake(_store(a=[{**bare, "status": "EGRESS_ENDING"}])).backups == ()


def test_an_object_that_may_not_be_read_stops_no_other():
    store = _store(a=[_flagged()], b=[_flagged("EG_2")])
    real = store.open

    def denied(uri):
        if uri.endswith("/a"):
            raise AccessDeniedError(f"{uri}: GetObject answered InvalidObjectState")
        return real(uri)

    store.open = denied
    intake = _intake(store)
    assert [backup.egress_id for backup in intake.backups] == ["EG_2"]
    assert [(document.uri, document.may_be_backup) for document in intake.unreadable] == [("s3://b/in/a", True)]


def test_a_nul_in_a_rooms_name_is_escaped():
    assert _intake(_store(a=[_flagged(roomName="a\x00b")])).backups[0].room_name == "a\\u0000b"
