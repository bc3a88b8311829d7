"""A right object of which nobody wrote down that it landed is told as landed; a wrong one of ours goes; others' stay."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.adopting import UNSAID, adopt
from livekit_backup.core.ledger import entry_for
from livekit_backup.core.object_metadata import MARK, SHA256, is_of, new_mark, provenance
from livekit_backup.core.small_files import SMALL
from livekit_backup.core.statements import make_statement
from livekit_backup.errors import LandingConflictError, LinkExpiredError, StorageUnavailableError
from livekit_backup.models.ledger_entry import HAD_LANDED, Attempt
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import Intake, Plan
from livekit_backup.models.settings import OnConflict, Verify
from livekit_backup.models.window import Window
from unit.recording_bench import ATTEMPT, DATA, NO_MD5, URI, Bench, file_of

NOW = datetime.now(UTC)
IN_PARTS = -1
SIZES = pytest.mark.parametrize("small", [SMALL, IN_PARTS], ids=["small", "in parts"])
WRONG = b"x" + DATA[1:]


class KilledError(BaseException):
    """No handler of a killed process runs."""


def _bench(**options):
    bench = Bench(**options)
    bench.ledger.write_intake("d", "r1", Intake())
    bench.ledger.write_plan("d", "r1", Plan(to_recover=(bench.file,), made_at=NOW - timedelta(hours=1)))
    return bench


def _line(bench, attempt=ATTEMPT, **options):
    window = Window(start=NOW - timedelta(hours=1), end=NOW)
    [line] = make_statement(bench.ledger, bench.store, attempt, window, [], NOW, **options).lines
    return line


def _killed_before_it_looked(bench, small, attempt=ATTEMPT, **options):
    """Let a task die between making the object visible and looking at it."""
    head = bench.store.head

    def dies(uri):
        if "/_l/" not in uri and uri in bench.store.objects:
            raise KilledError
        return head(uri)

    bench.store.head = dies
    recovery = bench.recovery(attempt, small=small, **options)
    with pytest.raises(KilledError):
        recovery.download([bench.file]) or recovery.land([bench.file])
    bench.store.head = head
    return bench


def _alter(bench, content=WRONG, uri=URI):
    """Let other bytes stand there, under the same metadata, as of a store that checks nothing."""
    metadata = bench.store.head(uri).metadata
    bench.store.put_new(uri, content, content_type="video/mp4", metadata=metadata, replace=True)


def _expire(bench, small):
    bench.source.refusals = [LinkExpiredError("dead")]
    with pytest.raises(LinkExpiredError):
        bench.recovery(small=small).download([bench.file])
    assert bench.ledger.read(bench.file).outcome is Outcome.EXPIRED


@SIZES
@pytest.mark.parametrize("is_expired", [False, True], ids=["without a word", "expired"])
def test_what_landed_unheard_of_is_told_as_landed(small, is_expired, caplog):
    bench = _killed_before_it_looked(_bench(), small)
    if is_expired:
        _expire(bench, small)
    line = _line(bench)
    entry = bench.ledger.read(bench.file)
    assert (line.outcome, line.landed_uri, line.sha256) == (Outcome.LANDED, URI, hashlib.sha256(DATA).hexdigest())
    assert (entry.outcome, entry.etag) == (Outcome.LANDED, bench.store.head(URI).etag)
    assert line.entry_sha256 == bench.ledger.read_with_digest(bench.file)[1], "what is sealed is what stands there"
    assert "nobody wrote that down" in caplog.text
    if small == IN_PARTS:
        assert "source_etag" in entry.verified_by, "its download had noted what it found"
    else:
        assert entry.verified_by == ("event_size", "read_back")
        assert [UNSAID in gap for gap in entry.unverified] == [True, True]


def test_of_an_unknown_size_no_more_is_said_than_is_known():
    bench = _bench()
    bench.file = bench.file.model_copy(update={"size": None})
    _killed_before_it_looked(bench, SMALL)
    adopted = adopt(bench.file, bench.store, bench.ledger, ATTEMPT, bench.found, at_its_word=True)
    assert adopted.verified_by == ("read_back",)
    assert len(adopted.unverified) == 3


def test_a_failure_that_took_the_place_of_another_runs_landing_is_put_right_by_the_report():
    bench = _bench()
    other = Attempt(dag_id="d", run_id="r2")
    bench.recovery(other).download([bench.file])
    entry_uri = bench.ledger.entry_uri(*bench.file.key)
    late = entry_for(bench.file, Outcome.EXPIRED, "the link expired", ATTEMPT)
    bench.store.put(entry_uri, late.model_dump_json().encode())
    assert _line(bench).outcome is Outcome.LANDED
    assert bench.ledger.read(bench.file).landed_uri == URI


@SIZES
def test_what_landed_beside_unheard_of_is_told_as_landed(small):
    bench = _bench()
    bench.store.put(URI, b"somebody else's")
    head = bench.store.head

    def dies(uri):
        if "~" in uri and uri in bench.store.objects:
            raise KilledError
        return head(uri)

    bench.store.head = dies
    recovery = bench.recovery(small=small)
    with pytest.raises(KilledError):
        recovery.download([bench.file]) or recovery.land([bench.file])
    bench.store.head = head
    line = _line(bench)
    assert (line.outcome, bench.store.objects[line.landed_uri]) == (Outcome.LANDED, DATA)
    assert "~" in line.landed_uri


@SIZES
def test_a_wrong_object_that_an_earlier_try_left_makes_way(small):
    bench = _killed_before_it_looked(_bench(**NO_MD5), small)
    _alter(bench)
    recovery = bench.recovery(small=small, on_conflict=OnConflict.FAIL)
    [entry] = recovery.download([bench.file]) or recovery.land([bench.file])
    assert (entry.landed_uri, bench.store.objects[URI]) == (URI, DATA)


def test_a_wrong_object_of_an_upload_before_the_last_makes_way_too():
    bench = _killed_before_it_looked(_bench(**NO_MD5), IN_PARTS)
    _alter(bench)
    opened = len(bench.source.opened)
    recovery = bench.recovery(small=IN_PARTS, on_conflict=OnConflict.FAIL)
    recovery.download([bench.file])
    [entry] = recovery.land([bench.file])
    assert (entry.landed_uri, bench.store.objects[URI]) == (URI, DATA)
    assert len(bench.source.opened) == opened + 1, "what was up already is landed then, and not fetched once more"
    assert bench.store.uploads == {}


@SIZES
def test_the_report_removes_a_wrong_object_that_a_try_of_its_run_left(small):
    bench = _killed_before_it_looked(_bench(**NO_MD5), small)
    _alter(bench)
    assert _line(bench).outcome is Outcome.FAILED
    assert URI not in bench.store.objects


def test_what_somebody_made_of_a_landed_recording_stays_whatever_its_metadata_says():
    bench = _bench()
    recovery = bench.recovery()
    recovery.download([bench.file])
    _alter(bench, b"cut by a person, with a tool that keeps metadata")
    for _ in range(2):
        line = _line(bench)
        assert line.outcome is Outcome.FAILED
        assert bench.ledger.read(bench.file).flags == (HAD_LANDED,)
    with pytest.raises(LandingConflictError):
        bench.recovery(on_conflict=OnConflict.FAIL).download([bench.file])
    assert bench.store.objects[URI].startswith(b"cut by a person")


def test_clearing_its_landing_removes_nothing_that_somebody_made_of_a_landed_recording():
    bench = _bench()
    recovery = bench.recovery(small=IN_PARTS, on_conflict=OnConflict.FAIL)
    recovery.download([bench.file])
    recovery.land([bench.file])
    _alter(bench, b"cut by a person")
    with pytest.raises(LandingConflictError):
        recovery.land([bench.file])
    assert bench.store.objects[URI] == b"cut by a person"


def test_a_wrong_object_of_another_run_stays():
    bench = _bench(**NO_MD5)
    _killed_before_it_looked(bench, SMALL, Attempt(dag_id="d", run_id="r2"))
    _alter(bench)
    assert _line(bench).outcome is Outcome.FAILED
    assert bench.store.objects[URI] == WRONG


def test_an_object_that_says_nothing_of_its_bytes_is_adopted_by_its_own_run_alone():
    other = Attempt(dag_id="d", run_id="r2")
    data = DATA * 2000
    bench = _killed_before_it_looked(_bench(data=data, etag="0x8DCB"), IN_PARTS, other)
    assert SHA256 not in bench.store.head(URI).metadata
    assert _line(bench).outcome is Outcome.FAILED
    bench.ledger.write_plan("d", "r2", Plan(to_recover=(bench.file,), made_at=NOW - timedelta(hours=1)))
    assert _line(bench, other).outcome is Outcome.LANDED


@pytest.mark.parametrize("change", [{"egress_id": "EG_2"}, {"run": 7}, {"filename": "d/other.mp4"}])
def test_an_object_of_another_file_is_not_adopted(change):
    bench = _bench()
    metadata = provenance(file_of(**change), NOW, hashlib.sha256(DATA).hexdigest())
    bench.store.put_new(URI, DATA, content_type="video/mp4", metadata=metadata)
    assert _line(bench).outcome is Outcome.FAILED


def test_right_bytes_in_hand_are_not_given_up_for_what_an_object_says_of_itself():
    bench = _bench()
    planted = b"whoever may write there"
    metadata = provenance(bench.file, NOW, hashlib.sha256(planted).hexdigest(), new_mark(ATTEMPT))
    bench.store.put_new(URI, planted, content_type="video/mp4", metadata=metadata)
    [entry] = bench.recovery().download([bench.file])
    assert "~" in entry.landed_uri
    assert (bench.store.objects[entry.landed_uri], bench.store.objects[URI]) == (DATA, planted)


@pytest.mark.parametrize(("small", "outcome"), [(SMALL, Outcome.FAILED), (IN_PARTS, Outcome.LANDED)])
def test_where_verify_is_strict_an_objects_own_word_will_not_do(small, outcome):
    bench = _killed_before_it_looked(_bench(), small)
    assert _line(bench, verify=Verify.STRICT).outcome is outcome
    assert bench.store.objects[URI] == DATA


def test_names_that_are_cut_off_tell_nothing():
    one, other = file_of(filename="a" * 600), file_of(filename="a" * 601)
    assert not is_of(one, provenance(one, NOW))
    assert not is_of(one, provenance(other, NOW))


def test_a_store_that_does_not_answer_the_report_leaves_it_as_it_was(caplog):
    bench = _killed_before_it_looked(_bench(), SMALL)
    bench.store.open = lambda *_: (_ for _ in ()).throw(StorageUnavailableError("503"))
    assert _line(bench).outcome is Outcome.FAILED
    assert "is not known" in caplog.text
    assert bench.store.objects[URI] == DATA


def test_what_is_gone_while_it_is_looked_at_is_no_landing():
    bench = _killed_before_it_looked(_bench(), SMALL)
    heads = iter([bench.store.head(URI), None])
    bench.store.head = lambda uri: next(heads)
    assert adopt(bench.file, bench.store, bench.ledger, ATTEMPT, bench.found, at_its_word=True) is None


def test_an_object_without_a_mark_is_nobodys_to_remove():
    bench = _killed_before_it_looked(_bench(**NO_MD5), SMALL)
    head = bench.store.heads[URI]
    metadata = {name: value for name, value in head.metadata.items() if name != MARK}
    bench.store.heads[URI] = dataclasses.replace(head, metadata=metadata)
    _alter(bench)
    assert _line(bench).outcome is Outcome.FAILED
    assert bench.store.objects[URI] == WRONG
