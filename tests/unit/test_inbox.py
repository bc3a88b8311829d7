"""From stored objects to backups."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time

import pytest

from livekit_backup.core import inbox, json_documents
from livekit_backup.core.inbox import IntakeReader, load_backup_events, load_events, parse_event, raw_event
from livekit_backup.core.stored_events import InboxObject
from livekit_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    SourceChangedError,
    StorageUnavailableError,
    UnreadableEventError,
)
from livekit_backup.models.references import BackupRef, EventRef
from livekit_backup.models.stored_webhook import EventSource, StoredWebhook
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


def test_what_matters_is_given_with_its_place():
    store = _store(a=[_flagged(), {"nothing": 1}, _flagged("EG_2")])
    found = InboxObject(store, "s3://b/in/a")
    assert [(item.event.egress.egress_id, item.ref.position) for item in found] == [("EG_1", 0), ("EG_2", 2)]
    assert found.documents == 3


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
    body = b'{"x": 1}\n\n' * 1002 + b'{"backupStorageUsed": 1}\n' * 2
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
    reader = iter(InboxObject(store, "s3://b/in/a"))
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


# What this package stores itself.


def _evidence(event, source="webhook"):
    body = event if isinstance(event, str) else json.dumps(event, indent=1, ensure_ascii=False)
    return (
        StoredWebhook(source=source, received_at="2026-11-20T13:00:00Z", body=body).model_dump_json().encode() + b"\n"
    )


@pytest.mark.parametrize(
    "beside", [b"", json.dumps({"event": "room_started"}).encode() + b"\n"], ids=["alone", "lines"]
)
def test_an_evidence_is_its_body(beside):
    event = _flagged(roomName='Zoë "}{" room', endedAt="70", updatedAt="90")
    store = _store(a=beside + _evidence(event) + beside)
    [backup] = _intake(store).backups
    assert (backup.egress_id, backup.room_name, backup.ended_at) == ("EG_1", 'Zoë "}{" room', 70)
    assert load_backup_events(store, backup) == [parse_event(event)]
    assert raw_event(store, backup) == json.dumps(event, indent=1, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "the evidence's body: not JSON"),
        ('{"backupStorageUsed": NaN}', "the evidence's body: not JSON: NaN"),
        ('{"backupStorageUsed": 1, "backupStorageUsed": 2}', "the key 'backupStorageUsed' stands twice"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested too deeply"),
        ('["backupStorageUsed"]', "a JSON list"),
        (json.dumps(egress_ended("../x", backupStorageUsed=True)), "egressId"),
    ],
)
def test_an_evidence_with_a_bad_body_is_unreadable(body, reason):
    [document] = _intake(_store(a=_evidence(body))).unreadable
    assert reason in document.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"livekit_backup_event": 2}, "livekit_backup_event"),
        ({"source": "rumour"}, "source"),
        ({"received_at": "2026-11-20"}, "received_at"),
        ({"body": None}, "body"),
        ({"body": "\ud800"}, "body"),
    ],
)
def test_an_evidence_that_is_none_is_unreadable(change, reason):
    evidence = {**json.loads(_evidence(_flagged())), **change, "note": "backupStorageUsed"}
    [document] = _intake(_store(a=[evidence])).unreadable
    assert reason in document.reason
    assert document.may_be_backup


def test_a_webhook_among_its_events_brought_a_backup():
    old, new = _flagged(updatedAt="10"), _flagged(updatedAt="20")
    for bodies, brought in (
        ([_evidence(new, "reconcile")], EventSource.RECONCILE),
        ([_evidence(old, "reconcile"), _evidence(new, "link")], EventSource.LINK),
        ([_evidence(new, "link"), _evidence(old, "reconcile")], EventSource.LINK),
        ([_evidence(old), _evidence(new, "link")], EventSource.WEBHOOK),
        ([json.dumps(old).encode(), _evidence(new, "reconcile")], EventSource.WEBHOOK),
    ):
        store = _store(**{str(number): body for number, body in enumerate(bodies)})
        [backup] = _intake(store).backups
        assert backup.brought_by is brought
        [backup] = _intake(_store(a=b"\n".join(bodies))).backups
        assert backup.brought_by is brought


def test_a_backup_ended_when_its_newest_event_says():
    for events, ended in (
        ([_flagged()], 0),
        ([_flagged(updatedAt="9")], 9),
        ([_flagged(updatedAt="9", endedAt="7"), _flagged(updatedAt="8", endedAt="8")], 7),
    ):
        assert [backup.ended_at for backup in _intake(_store(a=events)).backups] == [ended]


# Reading again, by the place.


class CountingStore(MemoryStore):
    """Remembers what was opened."""

    def __init__(self):
        super().__init__()
        self.opened = []

    def open(self, uri, start=0, stop=None, etag=""):
        self.opened.append((uri, start, stop))
        return super().open(uri, start, stop, etag)


def _busy(packed=bytes, backups=300):
    store = CountingStore()
    events = [event for number in range(backups) for event in ({"event": "room_started"}, _flagged(f"EG_{number}"))]
    store.put(URI, packed(b"".join(json.dumps(event).encode() + b"\n" for event in events)))
    refs = _intake(store).backups
    store.opened.clear()
    return store, refs


def test_a_backup_is_read_again_alone():
    store, refs = _busy()
    for ref in refs[::50]:
        [event] = load_backup_events(store, ref)
        assert event.backup.egress_id == ref.egress_id
        assert json.loads(raw_event(store, ref))["egressInfo"]["egressId"] == ref.egress_id
    assert all(stop - start < 200 for _, start, stop in store.opened)


def test_a_compressed_object_is_read_once_for_many():
    store, refs = _busy(gzip.compress)
    loaded = load_events(store, refs)
    assert [[event.backup.egress_id for event in events] for events in loaded] == [[ref.egress_id] for ref in refs]
    assert len(store.opened) == 1
    assert raw_event(store, refs[7]).startswith(b'{"event"')


@pytest.mark.parametrize("stored", [[_flagged("EG_9"), _flagged()], [_flagged()], [{"event": "x"}] * 5 + [_flagged()]])
@pytest.mark.parametrize("hint", [{"offset": 0, "length": 5}, {"offset": 0, "length": 100}, {"offset": 9, "length": 7}])
def test_a_wrong_place_is_only_a_hint(stored, hint):
    ref = BackupRef(egress_id="EG_1", run=1732135319356232371, events=(EventRef(uri=URI, position=0, **hint),))
    store = _store(**{"1.json": stored})
    [event] = load_backup_events(store, ref)
    assert event.backup.egress_id == "EG_1"


@pytest.mark.parametrize("error", [SourceChangedError("shorter"), ConfigurationError("no ranges")])
def test_a_store_without_the_range_is_read_whole(error, monkeypatch):
    store, refs = _busy()
    whole = store.open

    def refuses(uri, start=0, stop=None, etag=""):
        if stop is not None:
            raise error
        return whole(uri)

    monkeypatch.setattr(store, "open", refuses)
    assert load_backup_events(store, refs[5])[0].backup.egress_id == refs[5].egress_id


def test_references_of_earlier_versions_still_work():
    store, refs = _busy()
    for ref in refs[:3]:
        dumped = ref.model_dump(mode="json", exclude={"ended_at", "brought_by"})
        dumped["events"] = [{"uri": event.uri, "position": event.position} for event in ref.events]
        assert load_backup_events(store, BackupRef.model_validate(dumped))[0].backup.egress_id == ref.egress_id


def test_a_flood_of_one_run_is_not_held_when_read_again():
    store = _store(
        a=gzip.compress(b"".join(json.dumps(_flagged(updatedAt=str(n))).encode() + b"\n" for n in range(99)))
    )
    events = load_backup_events(store, _ref(("a", 98)))
    assert [event.backup.updated_at for event in events] == list(range(98, 82, -1))


def test_the_event_of_a_removed_object_is_gone():
    store, refs = _busy()
    store.delete(URI)
    with pytest.raises(UnreadableEventError, match="any more"):
        raw_event(store, refs[0])


# Many objects side by side.


class SlowStore(MemoryStore):
    """Opens objects in any order, and remembers how many were open at once."""

    def __init__(self, *, delay=lambda uri: 0.0):
        super().__init__()
        self._delay = delay
        self._lock = threading.Lock()
        self.listed = 0
        self.opened = self.open_now = self.most_open = 0

    def list_keys(self, prefix_uri):
        for uri in super().list_keys(prefix_uri):
            self.listed += 1
            yield uri

    def open(self, uri, start=0, stop=None, etag=""):
        with self._lock:
            self.opened += 1
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        time.sleep(self._delay(uri))
        with self._lock:
            self.open_now -= 1
        return super().open(uri, start, stop, etag)


def _fill(store, count, event=lambda number: _flagged(f"EG_{number % 7}", updatedAt=str(number % 5))):
    for number in range(count):
        store.put(f"s3://b/in/{number:04}", json.dumps(event(number)).encode())
    return store


def _our_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("inbox")]


def test_what_is_found_does_not_depend_on_who_is_first():
    quick = _fill(SlowStore(), 200)
    uneven = _fill(SlowStore(delay=lambda uri: 0.004 if int(uri[-1]) % 3 == 0 else 0.0), 200)
    assert _intake(quick) == _intake(uneven)
    assert 1 < uneven.most_open <= inbox.WORKERS
    assert _our_threads() == []


def test_the_listing_does_not_run_far_ahead():
    store = _fill(SlowStore(), 500)
    seen = []
    reader = IntakeReader()

    def uris():
        for number, uri in enumerate(store.list_keys("s3://b/in/")):
            seen.append(number - reader.result().objects)
            yield uri

    reader.read(store, uris())
    assert max(seen) <= inbox.AHEAD


def test_reading_ends_with_the_first_backup():
    store = _fill(SlowStore(), 500, lambda number: _flagged() if number == 3 else {"event": "room_started"})
    reader = IntakeReader()
    reader.read(store, store.list_keys("s3://b/in/"), until_found=True)
    assert (reader.has_found, reader.result().objects) == (True, 4)
    assert store.opened <= inbox.AHEAD + 4
    assert _our_threads() == []


def test_a_store_that_does_not_answer_ends_the_reading():
    store = _fill(SlowStore(delay=lambda uri: 0.01), 300)
    whole = store.open

    def fails(uri):
        if uri.endswith("0005"):
            raise StorageUnavailableError(f"{uri}: the store did not answer")
        return whole(uri)

    store.open = fails
    with pytest.raises(StorageUnavailableError, match="0005"):
        _intake(store)
    assert store.opened <= inbox.AHEAD + 6
    assert _our_threads() == []


def test_a_long_object_does_not_hold_up_the_end():
    class Endless:
        def read(self, size=-1, /):
            time.sleep(0.001)
            return b'{"event": "room_started"}\n'

        def close(self):
            pass

    store = MemoryStore()

    def opens(uri):
        if uri.endswith("2"):
            return Endless()
        raise StorageUnavailableError(f"{uri}: the store did not answer")

    store.open = opens
    with pytest.raises(StorageUnavailableError):
        IntakeReader().read(store, ["s3://b/in/1", "s3://b/in/2"])
    assert _our_threads() == []


def test_a_listing_that_breaks_off_leaves_no_thread():
    store = _fill(SlowStore(), 20)

    def uris():
        yield from store.list_keys("s3://b/in/")
        raise StorageUnavailableError("the store did not answer")

    with pytest.raises(StorageUnavailableError):
        IntakeReader().read(store, uris())
    assert _our_threads() == []


def test_failures_without_a_backup_are_bounded(monkeypatch, caplog):
    monkeypatch.setattr(inbox, "MAX_FAILED", 3)
    failed = [egress_ended(f"EG_{number}", status="EGRESS_FAILED") for number in range(5)]
    store = _store(a=failed, b=[_flagged("EG_0")], c=failed)
    with caplog.at_level(logging.WARNING):
        intake = _intake(store)
    assert intake.failed_without_backup == ("EG_1", "EG_2")
    assert [backup.egress_id for backup in intake.backups] == ["EG_0"]
    assert "more events of egresses that failed" in caplog.text
