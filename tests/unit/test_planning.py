"""What a run does with each file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.found_files import ResolvedFile
from livekit_backup.core.locations import Location
from livekit_backup.core.planning import merge_plans, plan_backup
from livekit_backup.core.resolution import ResolvedBackup
from livekit_backup.core.wording import hours_left, readable_size
from livekit_backup.errors import AccessDeniedError, LinkExpiredError, RefusedError, SourceUnavailableError
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import BackupRef, EventRef, FileKind, Plan, RecordingFile
from livekit_backup.models.settings import Settings
from livekit_backup.models.stored_webhook import EventSource
from unit.fakes import OWN, backup_event, signed

SETTINGS = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
DEADLINE = datetime(2026, 11, 27, 20, 43, 42, tzinfo=UTC)
REF = BackupRef(egress_id="EG_1", run=1732135319356232371, events=(EventRef(uri="s3://b/in/e", position=0),))


def _file(name="a.mp4", link=None, **changes):
    location = None if "error" in changes else Location(signed(name) if link is None else link)
    return ResolvedFile(**{"filename": name, "kind": FileKind.FILE, "location": location, **changes})


def _plan(*files, check=lambda _: None, now=NOW, **info):
    egress = backup_event(roomName="Room", **info).egress_info
    backup = ResolvedBackup(egress, datetime(2026, 11, 20, tzinfo=UTC), files)
    plan = plan_backup(REF, backup, SETTINGS, check, now)
    assert len(plan.to_recover) + len(plan.accounted) == len(files)
    return plan


def test_a_signed_file_is_recovered():
    [file] = _plan(_file(size=3 * 1024**2)).to_recover
    assert file.landing_uri == "s3://b/out/dt=2026-11-20/EG_1/a.mp4"
    assert (file.egress_id, file.run, file.deadline, file.events) == ("EG_1", REF.run, DEADLINE, REF.events)
    assert file.label == "Room · a.mp4 · 3.0 MiB · 165 h left"


def test_an_unsigned_file_was_never_lost():
    [known] = _plan(_file(link=f"{OWN}a.mp4")).accounted
    assert (known.outcome, known.file.deadline) == (Outcome.IN_PRIMARY, None)


def test_a_dead_link_is_accounted_for_with_its_landing_key():
    [known] = _plan(_file(), now=DEADLINE + timedelta(hours=1)).accounted
    assert known.outcome is Outcome.EXPIRED
    assert "2026-11-27 20:43 UTC" in known.reason
    assert known.file.landing_uri


def test_the_host_of_a_dead_link_is_asked_nothing():
    def check(location):
        pytest.fail("asked")

    [known] = _plan(_file(), check=check, now=DEADLINE + timedelta(hours=1)).accounted
    assert known.outcome is Outcome.EXPIRED


def test_a_link_that_died_this_minute_is_tried_all_the_same():
    assert _plan(_file(), now=DEADLINE + timedelta(minutes=5)).to_recover


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (LinkExpiredError("dead"), Outcome.EXPIRED),
        (RefusedError("no"), Outcome.REFUSED),
        (AccessDeniedError("denied"), Outcome.FAILED),
    ],
)
def test_an_error_decides_its_outcome(error, outcome):
    [known] = _plan(_file(error=error)).accounted
    assert (known.outcome, known.reason) == (outcome, str(error))


def _raise(error):
    def check(location):
        raise error

    return check


def test_a_refused_location_is_accounted_for():
    plan = _plan(_file(), _file("b", f"{OWN}b"), check=_raise(RefusedError("not allowed")))
    assert [known.outcome for known in plan.accounted] == [Outcome.REFUSED] * 2


def test_a_name_that_does_not_resolve_now_is_tried_later():
    assert _plan(_file(), check=_raise(SourceUnavailableError("no DNS"))).to_recover


@pytest.mark.parametrize("name", ["../a.mp4", "a\nb.mp4", "x" * 1200, "a\u202egpj.mp4"])
def test_one_hostile_name_stops_no_other(name):
    plan = _plan(_file(name, signed("x")), _file("good.mp4"))
    assert [file.filename for file in plan.to_recover] == ["good.mp4"]
    assert [known.outcome for known in plan.accounted] == [Outcome.REFUSED]
    assert plan.accounted[0].file.landing_uri == ""


@pytest.mark.parametrize(
    ("info", "deadline"),
    [
        ({"endedAt": "1732135407895557840"}, datetime(2024, 11, 27, 20, 43, 27, tzinfo=UTC)),
        ({"updatedAt": "1732135422466498851"}, datetime(2024, 11, 27, 20, 43, 42, tzinfo=UTC)),
        ({}, NOW + timedelta(days=7)),
    ],
)
def test_a_signed_link_without_a_deadline_has_seven_days(info, deadline):
    [file] = _plan(_file(link="https://b.s3.amazonaws.com/a?Signature=s"), **info).to_recover
    assert file.deadline == deadline


def test_labels_are_short_and_printable():
    egress = backup_event(roomName="r\n\u202e" + "x" * 300).egress_info
    backup = ResolvedBackup(egress, NOW, (_file("d/" + "y" * 300 + ".mp4", signed("y"), size=5 * 1024**4),))
    [file] = plan_backup(REF, backup, SETTINGS, lambda _: None, NOW).to_recover
    assert len(file.label) <= 250
    assert file.label.isprintable()
    assert "y" * 70 in file.label


@pytest.mark.parametrize("earlier", [timedelta(hours=-5), timedelta(hours=5)])
def test_of_the_link_and_seven_days_behind_the_end_the_earlier_counts(earlier):
    ended = DEADLINE - timedelta(days=7) - earlier
    [file] = _plan(_file(), endedAt=str(int(ended.timestamp()) * 10**9)).to_recover
    assert file.deadline == min(DEADLINE, DEADLINE - earlier)


def test_a_link_that_outlives_seven_days_is_tried_until_it_is_dead_by_its_own_words():
    ended = str(int((DEADLINE - timedelta(days=7, hours=5)).timestamp()) * 10**9)
    assert _plan(_file(), now=DEADLINE - timedelta(hours=1), endedAt=ended).to_recover
    [known] = _plan(_file(), now=DEADLINE + timedelta(hours=1), endedAt=ended).accounted
    assert "2026-11-27 20:43 UTC" in known.reason


def test_a_persons_new_link_to_an_old_egress_has_its_own_time():
    egress = backup_event(endedAt=str(int((DEADLINE - timedelta(days=20)).timestamp()) * 10**9)).egress_info
    backup = ResolvedBackup(egress, datetime(2026, 11, 20, tzinfo=UTC), (_file(),))
    by_person = REF.model_copy(update={"brought_by": EventSource.LINK})
    [file] = plan_backup(by_person, backup, SETTINGS, lambda _: None, NOW).to_recover
    assert file.deadline == DEADLINE


def _recording(name, deadline):
    return RecordingFile(egress_id="EG_1", run=1, filename=name, kind=FileKind.FILE, started=NOW, deadline=deadline)


def test_the_nearest_deadline_comes_first_and_none_last():
    soon, late = _recording("soon", NOW), _recording("late", DEADLINE)
    never, also_soon = _recording("never", None), _recording("also soon", NOW)
    plan = merge_plans([Plan(to_recover=(never, late)), Plan(to_recover=(soon, also_soon))], most=10)
    assert [file.filename for file in plan.to_recover] == ["also soon", "soon", "late", "never"]


def test_over_the_limit_the_latest_deadlines_wait_and_are_accounted_for():
    files = tuple(_recording(str(number), NOW + timedelta(hours=number)) for number in range(5))
    plan = merge_plans((Plan(to_recover=(file,)) for file in files), most=3)
    assert plan.to_recover == files[:3]
    assert [known.file for known in plan.accounted] == list(files[3:])
    assert {known.outcome for known in plan.accounted} == {Outcome.FAILED}
    assert "max_map_length" in plan.accounted[0].reason


def test_hours_left():
    assert hours_left(NOW + timedelta(minutes=90), NOW) == 1.5
    assert hours_left(NOW - timedelta(days=1), NOW) == 0.0
    assert hours_left(None, NOW) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (61941096, "59.1 MiB"), (5 * 1024**3, "5.0 GiB"),
     (5 * 1024**4, "5.0 TiB"), (5000 * 1024**4, "5000.0 TiB")],
)  # fmt: skip
def test_readable_sizes(size, text):
    assert readable_size(size) == text
