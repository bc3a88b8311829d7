"""A task's files: one or many, small or in parts, with a conflict, a failure, a dead link or another task beside it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from livekit_backup.core.file_links import RenewedSource
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.core.recovering import FileRecovery, Sources
from livekit_backup.core.small_files import SMALL
from livekit_backup.errors import (
    CorruptError,
    LandingConflictError,
    LinkExpiredError,
    MissingError,
    RetryableError,
    SourceUnavailableError,
    UploadLostError,
)
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind
from livekit_backup.models.settings import OnConflict
from unit.fakes import MemorySource, MemoryStore, abilities
from unit.recording_bench import ATTEMPT, file_of

IN_PARTS = -1
"""No file is small."""
SIZES = pytest.mark.parametrize("small", [SMALL, IN_PARTS], ids=["small", "in parts"])
OTHER = b"somebody else's"


class Task:
    """A warehouse, and a source for each file by name."""

    def __init__(self, *names, **found):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_l")
        self.found = abilities(**found)
        self.files = [self.file(name) for name in names]
        self.sources = {name: self.source(f"recording {name}".encode() * 100) for name in names}
        self.broken = {}
        self.landed, self.fetched = [], []

    def file(self, name, **changes):
        size = len(f"recording {name}") * 100
        given = {"filename": name, "size": size, "landing_uri": f"s3://b/out/{name}", "kind": FileKind.SEGMENT}
        return file_of(**{**given, **changes})

    def source(self, data):
        return MemorySource(data, etag=hashlib.md5(data).hexdigest())

    def open(self, file):
        if error := self.broken.get(file.filename):
            raise error
        return RenewedSource(lambda: self.sources[file.filename])

    def recovery(self, attempt=ATTEMPT, **options):
        sources = Sources(self.open, None, None)
        hooks = {"on_landed": self.landed.append, "on_fetched": lambda size, seconds: self.fetched.append(size)}
        return FileRecovery(self.store, self.ledger, attempt, lambda: self.found, sources, **{**hooks, **options})

    def run(self, **options):
        """Both tasks, as Airflow runs them."""
        recovery = self.recovery(**options)
        recovery.download(self.files)
        return recovery.land(self.files)

    def data(self, name):
        return self.sources[name].data

    def opened(self):
        return {name: len(source.opened) for name, source in self.sources.items()}

    def outcome(self, file):
        entry = self.ledger.read(file)
        return entry and entry.outcome

    def warehouse(self):
        return {uri: body for uri, body in self.store.objects.items() if "/_l/" not in uri}


@SIZES
def test_a_file_lands(small):
    task = Task("a")
    [entry] = task.run(small=small)
    assert task.warehouse() == {"s3://b/out/a": task.data("a")}
    assert entry.sha256 == hashlib.sha256(task.data("a")).hexdigest()
    assert task.store.uploads == {}
    assert [landed.filename for landed in task.landed] == ["a"]
    assert task.fetched == [len(task.data("a"))]


@SIZES
def test_many_files_land_each_with_an_entry(small):
    task = Task("a", "b", "c")
    assert {entry.filename for entry in task.run(small=small)} == {"a", "b", "c"}
    assert task.warehouse() == {f"s3://b/out/{name}": task.data(name) for name in "abc"}
    assert {task.outcome(file) for file in task.files} == {Outcome.LANDED}
    assert task.store.uploads == {}
    assert sorted(entry.filename for entry in task.landed) == ["a", "b", "c"], "said once, by the task that landed it"


@SIZES
def test_one_that_fails_stops_no_other_and_a_rerun_fetches_it_alone(small):
    task = Task("a", "b", "c")
    task.broken["b"] = SourceUnavailableError("livekit.example answered 503")
    with pytest.raises(SourceUnavailableError, match=r"1 of 3 files did not land, such as 'b': .* 503"):
        task.recovery(small=small).download(task.files)
    assert [task.outcome(file) for file in task.files] == [Outcome.LANDED, Outcome.FAILED, Outcome.LANDED]
    task.broken.clear()
    assert len(task.run(small=small)) == 3
    assert task.opened() == {"a": 1, "b": 1, "c": 1}
    assert {task.outcome(file) for file in task.files} == {Outcome.LANDED}


def test_of_many_errors_the_one_that_a_retry_can_help_is_raised():
    task = Task("a", "b", "c")
    task.broken = {"a": LinkExpiredError("dead"), "b": SourceUnavailableError("503"), "c": MissingError("404")}
    with pytest.raises(SourceUnavailableError, match="3 of 3 files did not land"):
        task.recovery().download(task.files)
    assert [task.outcome(file) for file in task.files] == [Outcome.EXPIRED, Outcome.FAILED, Outcome.MISSING]
    task.broken["b"] = LinkExpiredError("dead")
    with pytest.raises((LinkExpiredError, MissingError)):
        task.recovery().download(task.files)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_fault_of_our_own_is_raised_as_it_is_and_its_text_is_not_kept(names):
    task = Task(*names)
    task.broken["a"] = ZeroDivisionError("X-Amz-Signature=00ff")
    with pytest.raises(ZeroDivisionError):
        task.recovery().download(task.files)
    assert (
        task.ledger.read(task.files[0]).reason
        == "unexpected ZeroDivisionError: see the log of this task, and report it"
    )
    assert not any(b"Signature" in body for body in task.store.objects.values())
    assert [task.outcome(file) for file in task.files[1:]] == [Outcome.LANDED] * (len(names) - 1)


@SIZES
@pytest.mark.parametrize("names", ["a", "ab"])
def test_other_content_at_the_key_stays_and_the_recording_lands_beside(small, names):
    task = Task(*names)
    task.store.put("s3://b/out/a", OTHER)
    entry = next(entry for entry in task.run(small=small) if entry.filename == "a")
    assert entry.landed_uri == f"s3://b/out/a~{hashlib.sha256(task.data('a')).hexdigest()[:12]}"
    assert task.store.objects["s3://b/out/a"] == OTHER
    assert task.store.objects[entry.landed_uri] == task.data("a")
    assert task.store.uploads == {}
    before, opened = task.warehouse(), task.opened()
    assert len(task.run(small=small)) == len(names)
    assert (task.warehouse(), task.opened()) == (before, opened), "another run finds it there"


@SIZES
@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_conflict_can_fail(small, names):
    task = Task(*names)
    task.store.put("s3://b/out/a", OTHER)
    with pytest.raises(LandingConflictError, match="holds other content"):
        task.run(small=small, on_conflict=OnConflict.FAIL)
    assert task.store.objects["s3://b/out/a"] == OTHER
    assert task.outcome(task.files[0]) is Outcome.FAILED
    assert [task.outcome(file) for file in task.files[1:]] == [Outcome.LANDED] * (len(names) - 1)
    task.store.delete("s3://b/out/a")
    assert len(task.run(small=small, on_conflict=OnConflict.FAIL)) == len(names)
    assert task.store.objects["s3://b/out/a"] == task.data("a")


@SIZES
@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_conflict_can_overwrite(small, names):
    task = Task(*names)
    task.store.put("s3://b/out/a", OTHER)
    assert len(task.run(small=small, on_conflict=OnConflict.OVERWRITE)) == len(names)
    assert task.warehouse() == {f"s3://b/out/{name}": task.data(name) for name in names}


@SIZES
@pytest.mark.parametrize("on_conflict", OnConflict)
def test_the_same_content_is_no_conflict(small, on_conflict):
    task = Task("a")
    task.store.put("s3://b/out/a", task.data("a"))
    [entry] = task.run(small=small, on_conflict=on_conflict)
    assert entry.landed_uri == "s3://b/out/a"
    assert task.warehouse() == {"s3://b/out/a": task.data("a")}
    assert task.store.uploads == {}


@SIZES
def test_two_recordings_of_one_key_in_a_bundle_both_land(small):
    task = Task("a")
    task.files.append(task.file("b", landing_uri="s3://b/out/a"))
    task.sources["b"] = task.source(b"recording b" * 100)
    entries = {entry.filename: entry for entry in task.run(small=small)}
    assert sorted(task.warehouse().values()) == [task.data("a"), task.data("b")]
    assert {name: task.store.objects[entry.landed_uri] for name, entry in entries.items()} == {
        name: task.data(name) for name in "ab"
    }


def test_a_link_that_dies_before_the_bytes_came_again_leaves_what_there_is():
    task = Task("a")
    recovery = task.recovery(small=IN_PARTS)
    recovery.download(task.files)
    [upload] = task.store.uploads
    task.store.put("s3://b/out/a", OTHER)
    task.broken["a"] = LinkExpiredError("dead")
    for _ in range(2):
        with pytest.raises(LinkExpiredError):
            recovery.land(task.files)
        assert list(task.store.uploads) == [upload]
        assert task.outcome(task.files[0]) is Outcome.EXPIRED
    task.store.delete("s3://b/out/a")
    [entry] = recovery.land(task.files)
    assert (entry.outcome, task.store.objects["s3://b/out/a"]) == (Outcome.LANDED, task.data("a"))
    assert task.store.uploads == {}


def test_bytes_that_break_off_while_they_come_again_leave_the_first_upload():
    task = Task("a")
    recovery = task.recovery(small=IN_PARTS)
    recovery.download(task.files)
    [upload] = task.store.uploads
    task.store.put("s3://b/out/a", OTHER)
    task.sources["a"].refusals = [SourceUnavailableError("503")]
    with pytest.raises(SourceUnavailableError):
        recovery.land(task.files)
    assert upload in task.store.uploads
    [entry] = recovery.land(task.files)
    assert entry.landed_uri.startswith("s3://b/out/a~")
    assert task.store.objects[entry.landed_uri] == task.data("a")
    assert task.store.uploads == {}


@SIZES
def test_wrong_bytes_land_nowhere(small):
    task = Task("a", "b")
    task.sources["a"].data = b"x" + task.data("a")[1:]
    with pytest.raises(CorruptError, match=r"such as 'a'"):
        task.recovery(small=small).download(task.files)
    assert task.warehouse() == {"s3://b/out/b": task.data("b")}
    assert task.outcome(task.files[0]) is Outcome.CORRUPT
    assert task.store.uploads == {}
    assert len(task.sources["a"].opened) == 2, "they are fetched again before they are called corrupt"


def test_a_small_file_that_comes_right_the_second_time_lands():
    task = Task("a")
    right, source = task.data("a"), task.sources["a"]
    source.data = b"x" + right[1:]
    first = source.open

    def reopen(*args, **options):
        body = first(*args, **options)
        if len(source.opened) > 1:
            source.data = right
        return body

    source.open = reopen
    assert task.run()
    assert task.warehouse() == {"s3://b/out/a": right}


def test_another_size_than_the_event_says_lands_nowhere():
    task = Task("a")
    task.files = [task.file("a", size=5)]
    with pytest.raises(CorruptError, match="LiveKit's event says 5"):
        task.recovery().download(task.files)
    assert task.warehouse() == {}


@SIZES
@pytest.mark.parametrize("names", ["a", "ab"])
def test_an_empty_file_lands_and_says_so(small, names):
    task = Task(*names)
    task.sources["a"] = task.source(b"")
    task.files[0] = task.file("a", size=0)
    entry = next(entry for entry in task.run(small=small) if entry.filename == "a")
    assert task.store.objects["s3://b/out/a"] == b""
    assert (entry.size, entry.flags) == (0, ("empty",))


@SIZES
@pytest.mark.parametrize("names", ["a", "abcd"])
def test_two_tasks_at_once_land_each_file_once(small, names):
    task = Task(*names)
    together = threading.Barrier(2)
    find_landed = task.ledger.find_landed
    waiting = threading.local()

    def both_look(file):
        found = find_landed(file)
        if not getattr(waiting, "done", False):
            waiting.done = True
            together.wait(5)
        return found

    def run(run_id):
        recovery = task.recovery(Attempt(dag_id="d", run_id=run_id), small=small)
        for _ in range(5):
            # Who lands drops the other's upload; the other is tried again, and finds it landed.
            with contextlib.suppress(RetryableError, UploadLostError):
                recovery.download(task.files)
                return recovery.land(task.files)
        return []

    if len(names) == 1:
        task.ledger.find_landed = both_look
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, ["r1", "r2"]))
    assert task.warehouse() == {f"s3://b/out/{name}": task.data(name) for name in names}
    assert all(len(entries) == len(names) for entries in done)
    assert {task.outcome(file) for file in task.files} == {Outcome.LANDED}
    for run_id in ("r1", "r2"):
        # As each run's report does: who comes second leaves what it had open.
        drop_left_open(task.ledger, task.store, Attempt(dag_id="d", run_id=run_id), ())
    assert task.store.uploads == {}


@SIZES
def test_a_second_run_says_that_it_landed_before_and_fetches_nothing(small):
    task = Task("a", "b")
    task.run(small=small)
    opened = task.opened()
    task.landed.clear()
    again = task.recovery(Attempt(dag_id="d", run_id="r2"), small=small)
    for entries in (again.download(task.files), again.land(task.files)):
        assert {entry.outcome for entry in entries} == {Outcome.ALREADY_LANDED}
    assert task.opened() == opened
    assert task.landed == []


def test_landing_what_was_removed_since_says_what_to_clear():
    task = Task("a", "b")
    recovery = task.recovery()
    recovery.download(task.files)
    task.store.delete("s3://b/out/b")
    with pytest.raises(UploadLostError, match=r"'b'.*clear the download task"):
        recovery.land(task.files)
    assert [task.outcome(file) for file in task.files] == [Outcome.LANDED, Outcome.FAILED]
    assert len(task.run()) == 2
    assert task.opened() == {"a": 1, "b": 2}


def test_the_progress_of_many_is_how_many_are_done():
    task = Task("a", "b", "c")
    shown = []
    task.recovery(show=shown.append).download(task.files)
    assert shown == ["1 of 3", "2 of 3", "3 of 3"]
