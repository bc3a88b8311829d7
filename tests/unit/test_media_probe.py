"""A probe from landing to ledger, report and status: it names what seems damaged, and fails and holds back nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core import media_probe
from livekit_backup.core.backup_accounts import MOST_SUSPECTS, backup_accounts
from livekit_backup.core.media_probe import MediaProbe
from livekit_backup.core.media_shape import Shape
from livekit_backup.core.reconciliation_statement import headline as headline_of_status
from livekit_backup.core.reconciliation_statement import reconciled
from livekit_backup.core.reconciliation_statement import render as render_status
from livekit_backup.core.resolution import resolve_backup
from livekit_backup.core.statements import headline, is_safe, make_statement, render
from livekit_backup.errors import StorageUnavailableError
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.reconciliation import BackupState, Comparison, KnownBackup
from livekit_backup.models.references import BackupRef, FileKind, Intake, Plan
from livekit_backup.models.settings import Settings
from livekit_backup.models.window import Window
from media_samples import FORMATS, SECONDS, damaged, media, picture
from unit.fakes import MemoryStore, backup_event, signed
from unit.recording_bench import ATTEMPT, Bench, file_of

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
WITHOUT_EXTRA = {("mp3", how) for how in ("cut in half", "cut at 99 percent", "one byte short", "its first 1000 bytes")}
WITH_EXTRA = {("mp3", "one byte short"), ("mp3", "cut at 99 percent")}
"""What is not seen: 0.06 s of an MP3 are less than the event's own duration is off."""


@pytest.fixture(scope="module")
def deep():
    with MediaProbe(MemoryStore(), None) as probe:
        assert probe._process, "the extra is installed here"
        yield probe._process


def land(data, name, probe=True, process=None, small=1 << 30, **changes):
    """Recover one file, and return its entry and the bench."""
    bench = Bench(data=data, etag=hashlib.md5(data).hexdigest())
    given = {"filename": name, "size": len(data) or None, "landing_uri": f"s3://b/out/{name}", "seconds": None}
    bench.file = file_of(**{**given, **changes})
    looking = MediaProbe(bench.store, bench.ledger)
    looking._process = process
    recovery = bench.recovery(small=small, probe=looking if probe else None)
    recovery.download([bench.file])
    recovery.land([bench.file])
    return bench.ledger.read(bench.file), bench


@pytest.mark.parametrize("small", [1 << 30, -1], ids=["small", "in parts"])
@pytest.mark.parametrize("extra", [False, True], ids=["without the extra", "with it"])
@pytest.mark.parametrize("ending", FORMATS)
def test_of_each_kind_the_good_one_is_not_suspect_and_the_damaged_ones_are(ending, extra, small, deep):
    process, unseen = (deep, WITH_EXTRA) if extra else (None, WITHOUT_EXTRA)
    entry, _ = land(media(ending), f"a.{ending}", process=process, small=small, seconds=SECONDS + 1.5)
    assert (entry.suspect, entry.unverified) == ((), ())
    assert entry.verified_by[-1] == "probe"
    for how, data in damaged(media(ending)).items():
        entry, bench = land(data, f"a.{ending}", process=process, small=small, seconds=SECONDS + 1.5)
        assert entry.outcome is Outcome.LANDED, how
        assert bench.store.objects[bench.file.landing_uri] == data
        assert bool(entry.suspect) is ((ending, how) not in unseen), how


def test_without_a_probe_only_what_its_size_tells_is_said():
    entry, _ = land(b"", "a.mp4", probe=False)
    assert (entry.suspect, entry.flags) == (("it is empty",), ("empty",))
    entry, _ = land(bytes(10_000), "a.mp4", probe=False)
    assert entry.suspect == ()
    assert "probe" not in entry.verified_by


@pytest.mark.parametrize(("told", "suspect"), [(6.0, False), (10.9, False), (12.0, True), (0.5, True), (None, False)])
def test_the_duration_is_held_against_the_events(told, suspect):
    entry, _ = land(media("mp4"), "a.mp4", seconds=told)
    assert entry.suspect == ((f"it plays 6.0 s, LiveKit's event says {told:.1f} s",) if suspect else ())


def test_the_events_duration_reaches_the_file_and_a_wrong_one_costs_nothing():
    def seconds_of(duration):
        result = {"filename": "a.mp4", "duration": duration, "location": signed("a.mp4")}
        [file] = resolve_backup([backup_event(fileResults=[result])], lambda location: None).files
        return file.seconds

    assert seconds_of("6500000000") == 6.5
    assert [seconds_of(wrong) for wrong in ("-5", 0, None, "soon", 1e400, {}, True, "9" * 50)] == [None] * 8


def test_images_are_looked_at():
    assert land(picture(), "a.jpeg", kind=FileKind.IMAGE)[0].suspect == ()
    assert "it does not end as a JPEG does" in land(picture()[:-1], "a.jpg", kind=FileKind.IMAGE)[0].suspect[0]


def playlist(*names):
    lines = [line for name in names for line in ("#EXTINF:6.0,", name)]
    return "\n".join(["#EXTM3U", "#EXT-X-MEDIA-SEQUENCE:0", *lines, "#EXT-X-ENDLIST", ""]).encode()


def test_a_playlist_is_held_against_its_backups_files():
    def look(data, folder="hls/", **changes):
        bench = Bench(data=data, etag=hashlib.md5(data).hexdigest())
        kinds = {f"{folder}x.m3u8": FileKind.PLAYLIST, "hls/s_0.ts": FileKind.SEGMENT, "hls/s_1.ts": FileKind.SEGMENT}
        files = [
            file_of(filename=name, kind=kind, landing_uri=f"s3://b/out/{name}", size=None, **changes)
            for name, kind in {**kinds, "other/s_7.ts": FileKind.SEGMENT}.items()
        ]
        bench.ledger.write_files(files[0].egress_id, files[0].run, files)
        [entry] = bench.recovery(probe=MediaProbe(bench.store, bench.ledger)).download([files[0]])
        return entry.suspect

    assert look(playlist("s_0.ts", "s_1.ts"), seconds=12.0) == ()
    assert look(playlist("s_0.ts")) == ("it leaves out 1 segments of the backup, such as 's_1.ts'",)
    assert look(playlist("s_0.ts", "s_1.ts", "s_2.ts"))[0].startswith("the backup has not 1 of the segments it names")
    assert look(playlist("s_0.ts", "s_1.ts"), seconds=60.0) == ("it plays 12.0 s, LiveKit's event says 60.0 s",)
    assert look(playlist("elsewhere_0.ts"), folder="by/its/link/") == (), "nothing is known of that folder"
    assert look(bytes(100)) == ("it does not begin as a playlist does",)


def test_what_cannot_be_looked_into_is_landed_and_says_so(monkeypatch):
    for error, said in (
        (StorageUnavailableError("the store answered 503"), "probe: the store answered 503"),
        (RuntimeError("https://secret.example/?sig=1"), "probe: unexpected RuntimeError"),
        (RecursionError(), "probe: unexpected RecursionError"),
        (media_probe.ProbeGivenUpError("too much"), "probe: too much"),
    ):

        def fails(*args, error=error):
            raise error

        monkeypatch.setattr(media_probe, "look_at_shape", fails)
        entry, bench = land(media("ogg"), "a.ogg")
        assert entry.outcome is Outcome.LANDED
        assert entry.unverified[-1].startswith(said)
        assert "secret" not in entry.model_dump_json()
        assert "probe" not in entry.verified_by
        assert bench.store.objects[bench.file.landing_uri] == media("ogg")


def test_media_that_ends_what_looks_into_it_is_suspect():
    class Crashing:
        def look_into(self, reader, ending):
            raise media_probe.MediaCrashedError

    entry, _ = land(media("mp4"), "a.mp4", process=Crashing())
    assert entry.suspect == ("what looks into media ended over it: it may be made to do harm",)


def test_a_ledger_that_fails_over_it_fails_nothing():
    bench = Bench(data=media("ogg"), etag=hashlib.md5(media("ogg")).hexdigest())
    bench.file = file_of(filename="a.ogg", size=len(media("ogg")))
    probe = MediaProbe(bench.store, bench.ledger)
    probe._process = None
    look_at = probe.look_at
    put = bench.store.put

    def broken(*args, **kwargs):
        raise StorageUnavailableError("503")

    def looking(*args):
        bench.store.put = broken
        try:
            return look_at(*args)
        finally:
            bench.store.put = put

    probe.look_at = looking
    [entry] = bench.recovery(probe=probe).download([bench.file])
    assert entry.outcome is Outcome.LANDED
    assert bench.ledger.read(bench.file).outcome is Outcome.LANDED, "it was written down before"


def test_it_is_written_down_as_landed_before_it_is_looked_into():
    """A process that dies over hostile media has landed it: its next try does not meet it again."""
    bench = Bench(data=media("ogg"), etag=hashlib.md5(media("ogg")).hexdigest())
    bench.file = file_of(filename="a.ogg", size=len(media("ogg")))

    class Killed:
        asked = 0

        def look_at(self, *args):
            self.asked += 1
            raise KeyboardInterrupt

    killed = Killed()
    with pytest.raises(KeyboardInterrupt):
        bench.recovery(probe=killed).download([bench.file])
    [entry] = bench.recovery(probe=killed).download([bench.file])
    assert entry.outcome is Outcome.ALREADY_LANDED
    assert killed.asked == 1


def test_findings_are_few_and_can_be_shown(monkeypatch):
    wrong = tuple(f"{number}\n\x1b[31m" + "x" * 900 for number in range(100))
    monkeypatch.setattr(media_probe, "look_at_shape", lambda *args: Shape(wrong))
    entry, _ = land(media("ogg"), "a.ogg")
    assert len(entry.suspect) == media_probe.MOST_NAMED
    assert all(text.isprintable() and len(text) <= 320 for text in entry.suspect)


def run_of(bench):
    """The report of the run that recovered a bench's file."""
    plan = Plan(to_recover=(bench.file,), made_at=NOW)
    bench.ledger.write_plan(ATTEMPT.dag_id, ATTEMPT.run_id, plan)
    ref = BackupRef(egress_id=bench.file.egress_id, run=bench.file.run, events=bench.file.events)
    bench.ledger.write_intake(ATTEMPT.dag_id, ATTEMPT.run_id, Intake(backups=(ref,)))
    window = Window(start=NOW - timedelta(hours=1), end=NOW)
    return make_statement(bench.ledger, bench.store, ATTEMPT, window, [], NOW), ref, window


def test_the_report_names_it_and_the_run_is_safe():
    _, bench = land(media("mp4")[:-9], "d/a.mp4")
    statement, _, _ = run_of(bench)
    assert is_safe(statement)
    assert headline(statement).endswith("1 landed; 1 SUSPECT")
    text = render(statement)
    assert "SUSPECT (1; landed as LiveKit has them, and seem damaged)" in text
    assert "EG_1 'd/a.mp4': it was cut: its moov box ends at byte" in text
    assert "SAFE (1)" in text
    assert type(statement).model_validate_json(statement.model_dump_json()) == statement


def test_the_report_of_a_good_one_says_nothing_of_it():
    _, bench = land(media("mp4"), "d/a.mp4")
    assert "SUSPECT" not in render(run_of(bench)[0])


def test_status_names_it_and_is_settled():
    _, bench = land(media("mp4")[:-9], "d/a.mp4")
    _, ref, window = run_of(bench)
    bench.ledger.write_files(ref.egress_id, ref.run, [bench.file])
    comparison = Comparison(window=window, compared_at=NOW, backups=(KnownBackup(ref=ref, in_inbox=True, in_api=True),))
    settings = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l")
    statement = reconciled(comparison, bench.ledger, settings, NOW)
    [line] = statement.backups
    assert line.state is BackupState.SAFE
    assert statement.is_settled
    assert line.suspects[0].startswith("'d/a.mp4': it was cut")
    assert "1 with suspect files" in headline_of_status(statement)
    assert "SUSPECT (1; they landed as LiveKit has them, and seem damaged)" in render_status(statement)


def test_of_many_suspects_the_first_are_named():
    bench = Bench()
    files = [file_of(filename=f"{number:03}.ts", size=None) for number in range(MOST_SUSPECTS + 5)]
    bench.ledger.write_files(files[0].egress_id, files[0].run, files)
    for file in files:
        bench.ledger.record(land(b"", file.filename)[0])
    [account] = backup_accounts(bench.ledger, [BackupRef(egress_id=files[0].egress_id, run=files[0].run, events=())])
    assert len(account.suspects) == MOST_SUSPECTS
