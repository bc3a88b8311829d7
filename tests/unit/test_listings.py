"""Landed objects looked at by listing them."""

from __future__ import annotations

import pytest

from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.listings import FEWEST, listed_among
from livekit_backup.errors import AccessDeniedError
from livekit_backup.models.outcome import Outcome
from unit.fakes import MemoryStore
from unit.recording_bench import ATTEMPT, file_of


class CountingStore(MemoryStore):
    """Counts what it gives; its listing may lag behind or be forbidden."""

    def __init__(self):
        super().__init__()
        self.listed, self.headed, self.hidden, self.is_closed = 0, 0, set(), False

    def list_objects(self, prefix_uri, after="", page=1000):
        if self.is_closed:
            raise AccessDeniedError("no")
        for item in super().list_objects(prefix_uri, after, page):
            self.listed += 1
            if item.uri not in self.hidden:
                yield item

    def head(self, uri):
        self.headed += 1
        return super().head(uri)


def landed(store, count, folder="EG_1", start=0):
    entries = []
    for number in range(start, start + count):
        file = file_of(filename=f"{folder}-{number}", landing_uri=f"s3://b/out/{folder}/{number:05}.ts")
        store.put(file.landing_uri, b"x" * number)
        head = MemoryStore.head(store, file.landing_uri)
        made = {"landed_uri": file.landing_uri, "size": head.size, "etag": head.etag}
        entries.append(entry_for(file, Outcome.LANDED, "", ATTEMPT).model_copy(update=made))
    return entries


@pytest.fixture
def store():
    return CountingStore()


def standing(store, entries):
    return Ledger(store, "s3://b/_l").standing(entries)


def test_many_neighbours_are_looked_at_by_one_listing(store):
    entries = landed(store, 100)
    assert standing(store, entries) == {entry.key for entry in entries}
    assert (store.listed, store.headed) == (100, 0)


def test_a_bundle_lists_its_own_share_of_a_long_recording(store):
    entries = landed(store, 1000)[600:664]
    assert standing(store, entries) == {entry.key for entry in entries}
    assert store.listed <= 65
    assert store.headed == 0


def test_a_few_are_asked_for_one_by_one(store):
    entries = landed(store, FEWEST - 1)
    assert standing(store, entries) == {entry.key for entry in entries}
    assert (store.listed, store.headed) == (0, FEWEST - 1)


def test_far_apart_the_listing_is_given_up(store):
    landed(store, 500)
    store.put("s3://b/out/A", b"")
    entries = landed(store, 4, "A") + landed(store, 4, "Z")
    assert standing(store, entries) == {entry.key for entry in entries}
    assert store.listed <= 3 * len(entries)
    assert store.headed == 4, "those behind the strangers"


def test_what_a_listing_does_not_show_is_asked_for(store):
    entries = landed(store, 20)
    store.hidden = {entries[7].landed_uri}
    assert standing(store, entries) == {entry.key for entry in entries}
    assert store.headed == 1


def test_what_is_gone_or_another_does_not_stand(store):
    entries = landed(store, 20)
    store.delete(entries[3].landed_uri)
    store.put(entries[4].landed_uri, b"other")
    assert standing(store, entries) == {entry.key for entry in entries} - {entries[3].key, entries[4].key}


def test_what_never_landed_is_not_looked_for(store):
    entry = entry_for(file_of(), Outcome.FAILED, "no", ATTEMPT)
    assert standing(store, [entry] * 20) == set()
    assert (store.listed, store.headed) == (0, 0)


def test_rights_to_look_without_rights_to_list_are_enough(store):
    entries = landed(store, 20)
    store.is_closed = True
    assert standing(store, entries) == {entry.key for entry in entries}
    assert store.headed == 20


def test_objects_of_several_buckets(store):
    entries = landed(store, 10)
    elsewhere = entries[0].model_copy(update={"filename": "x", "landed_uri": "s3://a/out/EG_1/1.ts"})
    store.put(elsewhere.landed_uri, b"")
    elsewhere = elsewhere.model_copy(update={"size": 0, "etag": store.heads[elsewhere.landed_uri].etag})
    assert standing(store, [*entries, elsewhere]) == {entry.key for entry in [*entries, elsewhere]}


def test_nothing_is_no_listing(store):
    assert listed_among(store, []) == {}
