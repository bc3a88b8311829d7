"""Backups that a person asks for by egress id."""

from __future__ import annotations

import json

import pytest

from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.livekit_api import ListedEgress
from livekit_backup.core.requested_backups import check_egress_ids, find_backups
from livekit_backup.errors import AccessDeniedError, ConfigurationError
from livekit_backup.models.egress import EgressInfo
from unit.fakes import MemoryStore, egress_ended, signed


class Desk:
    def __init__(self):
        self.store = MemoryStore()
        self.listing = {}
        self.asked_inbox_for = []

    def list(self, egress_id, **fields):
        document = {"egress_id": egress_id, "status": "EGRESS_COMPLETE", "started_at": "5", **fields}
        self.listing.setdefault(egress_id, []).append(ListedEgress(document, EgressInfo.model_validate(document)))

    def store_event(self, egress_id, **fields):
        body = json.dumps(egress_ended(egress_id, backupStorageUsed=True, **fields)).encode()
        self.store.put(f"s3://b/in/{egress_id}", body)

    def read(self, egress_ids):
        self.asked_inbox_for = list(egress_ids)
        reader = IntakeReader(egress_ids)
        reader.read(self.store, self.store.list_keys("s3://b/in/"))
        return reader.result()

    def find(self, *egress_ids, ask=None):
        return find_backups(
            egress_ids, ask or (lambda egress_id: self.listing.get(egress_id, ())), self.read, self.store
        )


@pytest.fixture
def desk():
    return Desk()


def test_what_livekit_lists_is_taken_from_there(desk):
    desk.list("EG_1", backup_storage_used=True)
    desk.list("EG_1", backup_storage_used=True, started_at="6")
    found, problems = desk.find("EG_1", "EG_1")
    assert [(item.ref.egress_id, item.ref.run) for item in found] == [("EG_1", 5), ("EG_1", 6)]
    assert json.loads(found[0].body)["egress_id"] == "EG_1"
    assert (problems, desk.asked_inbox_for) == ([], [])


@pytest.mark.parametrize("argument", [signed("a.mp4"), "EG_1\n", "", "../EG_1"])
def test_what_is_no_egress_id_is_refused_and_not_repeated(argument):
    with pytest.raises(ConfigurationError, match="argument 2 is no egress id") as caught:
        check_egress_ids(["EG_1", argument])
    assert "Signature" not in str(caught.value)


def test_what_livekit_has_forgotten_is_taken_from_the_inbox(desk):
    desk.store_event("EG_1", roomName="Room")
    [item], problems = desk.find("EG_1")
    assert item.ref.room_name == "Room"
    assert json.loads(item.body)["egressInfo"]["egressId"] == "EG_1"
    assert problems == []


def test_the_flag_of_a_stored_event_outlives_a_listing_without_it(desk):
    desk.list("EG_1", status="EGRESS_FAILED")
    desk.store_event("EG_1")
    [item], _ = desk.find("EG_1")
    assert item.ref.egress_id == "EG_1"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (None, "LiveKit does not list it"),
        ({"status": "EGRESS_ACTIVE"}, "still running"),
        ({"status": "EGRESS_COMPLETE"}, "EGRESS_COMPLETE, without a backup"),
    ],
)
def test_what_is_nowhere_is_said_with_what_livekit_answers(desk, fields, said):
    desk.list("EG_2", backup_storage_used=True)
    if fields:
        desk.list("EG_1", **fields)
    found, [problem] = desk.find("EG_1", "EG_2")
    assert [item.ref.egress_id for item in found] == ["EG_2"]
    assert problem.startswith("EG_1: ")
    assert said in problem
    assert "the inbox has no backup event" in problem


def test_an_api_that_cannot_be_asked_leaves_the_inbox(desk):
    def ask(egress_id):
        raise AccessDeniedError("wrong secret")

    desk.store_event("EG_1")
    found, problems = desk.find("EG_1", "EG_2", ask=ask)
    assert [item.ref.egress_id for item in found] == ["EG_1"]
    assert problems == ["EG_2: LiveKit could not be asked (wrong secret), and the inbox has no backup event of it"]
