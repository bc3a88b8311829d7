"""A large file whose key is taken: what a try that failed or died leaves is gone on with, and nothing is lost meanwhile."""

from __future__ import annotations

import pytest

from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.errors import LinkExpiredError, StorageUnavailableError, UploadLostError
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.settings import OnConflict
from unit.recording_bench import ATTEMPT
from unit.test_recovering import IN_PARTS, OTHER, Task

KEY = "s3://b/out/a"


class KilledError(BaseException):
    """No handler of a killed process runs."""


def _taken(**options):
    """A task whose file is up in an open upload, and whose key holds somebody else's."""
    task = Task("a")
    recovery = task.recovery(small=IN_PARTS, **options)
    recovery.download(task.files)
    task.store.put(KEY, OTHER)
    return task, recovery


def _once(call, error, *, after=False):
    """Let a call beside the key fail once, before or after it has its effect."""
    left = [error]

    def fails(uri, *rest, **options):
        if "~" not in uri or not left:
            return call(uri, *rest, **options)
        if after:
            call(uri, *rest, **options)
        raise left.pop()

    return fails


@pytest.mark.parametrize("has_landed", [False, True], ids=["before", "after"])
def test_a_completion_without_an_answer_is_gone_on_with(has_landed):
    task, recovery = _taken()
    error = StorageUnavailableError("503")
    task.store.complete_upload = _once(task.store.complete_upload, error, after=has_landed)
    with pytest.raises(StorageUnavailableError):
        recovery.land(task.files)
    task.broken["a"] = LinkExpiredError("dead: whatever is done next is done with what there is")
    [entry] = recovery.land(task.files)
    assert entry.landed_uri.startswith(f"{KEY}~")
    assert task.warehouse() == {KEY: OTHER, entry.landed_uri: task.data("a")}
    assert task.opened() == {"a": 2}, "for its key, and once more for the one beside"
    assert task.store.uploads == {}


def test_a_kill_while_the_bytes_come_again_loses_nothing_though_the_link_dies():
    task, recovery = _taken()
    [first] = task.store.uploads
    task.store.upload_part = _once(task.store.upload_part, KilledError())
    with pytest.raises(KilledError):
        recovery.land(task.files)
    task.broken["a"] = LinkExpiredError("dead")
    with pytest.raises(LinkExpiredError):
        recovery.land(task.files)
    drop_left_open(task.ledger, task.store, ATTEMPT, {KEY})
    assert list(task.store.uploads) == [first], "the report keeps the bytes that are all there"
    task.store.delete(KEY)
    [entry] = recovery.land(task.files)
    assert (entry.outcome, task.warehouse()) == (Outcome.LANDED, {KEY: task.data("a")})


def test_an_upload_beside_that_was_dropped_is_filled_again():
    task, recovery = _taken()
    task.store.complete_upload = _once(task.store.complete_upload, StorageUnavailableError("503"))
    with pytest.raises(StorageUnavailableError):
        recovery.land(task.files)
    drop_left_open(task.ledger, task.store, ATTEMPT, {KEY})
    [entry] = recovery.land(task.files)
    assert task.warehouse() == {KEY: OTHER, entry.landed_uri: task.data("a")}
    assert task.store.uploads == {}


def test_an_upload_that_was_to_replace_and_is_gone_is_no_conflict():
    task, recovery = _taken(on_conflict=OnConflict.OVERWRITE)
    task.store.uploads.clear()
    with pytest.raises(UploadLostError, match=r"that was to replace .* was dropped: clear the download task"):
        recovery.land(task.files)
    recovery.download(task.files)
    recovery.land(task.files)
    assert task.warehouse() == {KEY: task.data("a")}
