"""Alarms with the time moved by the test: each backup at each level once, at the right hours."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.alarm_digest import MAX_LOST_NAMED, MAX_NAMED, digest
from livekit_backup.core.alarms import AlarmWatch
from livekit_backup.core.ledger import Ledger
from livekit_backup.models.alarm_state import AlarmState
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind, RecordingFile
from livekit_backup.models.settings import Settings
from unit.fakes import MemoryStore, egress_ended, signed

ENDED = datetime(2026, 11, 20, 14, 7, tzinfo=UTC)
DEAD = ENDED + timedelta(days=7)
HOUR = timedelta(hours=1)
RUN = 1732135319356232371


def before(hours):
    """The moment with so many hours left."""
    return DEAD - hours * HOUR


class Site:
    """An inbox, a ledger and two listeners, hour by hour."""

    def __init__(self, **settings):
        self.store = MemoryStore()
        self.settings = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/ledger", **settings)
        self.ledger = Ledger(self.store, self.settings.ledger)
        self.told = []
        self.read = []

    def receive(self, egress_id="EG_1", at=ENDED, *, ended=ENDED, run=RUN, **info):
        event = egress_ended(
            egress_id,
            startedAt=str(run),
            endedAt=str(int(ended.timestamp()) * 10**9),
            backupStorageUsed=True,
            manifestLocation=signed(f"{egress_id}.json"),
            **info,
        )
        self.store.put(f"s3://b/in/{at:%Y/%m/%d/%H}/{egress_id}-{at:%M%S}.json", json.dumps(event).encode())

    def file(self, name="a.mp4", egress_id="EG_1", deadline=DEAD):
        fields = {"egress_id": egress_id, "run": RUN, "filename": name, "kind": FileKind.FILE}
        return RecordingFile(started=ENDED - HOUR, deadline=deadline, **fields)

    def list_files(self, *files):
        self.ledger.write_files(files[0].egress_id, RUN, files)

    def write(self, file, outcome, reason=""):
        entry = LedgerEntry(**file.identity(), outcome=outcome, reason=reason, recorded_at=ENDED)
        self.store.put(self.ledger.entry_uri(*file.key), entry.model_dump_json().encode())

    def run(self, now, *, deaf=(), listeners=("log",)):
        """One hourly run; what each listener was told is in ``told``, as hours left or LOST."""
        watch = AlarmWatch(self.ledger.read_alarms("d", "t"), self.settings, now)
        watch.look(self.store, self.ledger)
        for name in listeners:
            if (alarms := watch.due(name)) and name not in deaf:
                self.told += [(name, a.egress_id, "LOST" if a.is_lost else f"{a.level:g}", now) for a in alarms]
                watch.told(name, alarms)
        self.ledger.write_alarms("d", "t", watch.state(listeners))
        return watch

    def walk(self, start, stop, **how):
        """Run every hour, from so many hours left to so many."""
        for hours in range(start, stop - 1, -1):
            self.run(before(hours), **how)

    @property
    def levels(self):
        return [level for _, _, level, _ in self.told]

    @property
    def state(self):
        return self.ledger.read_alarms("d", "t")


@pytest.fixture
def site():
    return Site()


def test_one_backup_from_a_hundred_hours_left_to_its_end(site):
    site.receive()
    site.walk(100, -30)
    assert [(level, (DEAD - now) / HOUR) for _, _, level, now in site.told] == [
        ("72", 72.0),
        ("24", 24.0),
        ("6", 6.0),
        ("LOST", 0.0),
    ]


@pytest.mark.parametrize("minutes", [1, 29, 59])
def test_a_run_that_comes_between_two_hours_raises_the_level_that_was_crossed(site, minutes):
    site.receive()
    for hours in range(100, -3, -1):
        site.run(before(hours) + timedelta(minutes=minutes))
    assert site.levels == ["72", "24", "6", "LOST"]
    assert [int((DEAD - now) / HOUR) for *_, now in site.told[:3]] == [71, 23, 5]


def test_of_several_levels_that_were_crossed_only_the_most_urgent_is_raised(site):
    site.receive()
    site.walk(5, 1)
    assert site.levels == ["6"]
    assert site.told[0][-1] == before(5)


def test_an_alarm_dag_that_was_paused_goes_on_with_what_is_urgent_now(site):
    site.receive()
    site.run(before(80))
    site.run(before(20))
    site.run(before(19))
    assert site.levels == ["24"]


def test_what_is_safe_raises_nothing_and_is_not_looked_at_again(site, monkeypatch):
    site.receive()
    site.list_files(site.file())
    site.write(site.file(), Outcome.LANDED)
    site.run(ENDED + HOUR)
    asked = []
    read_files = site.ledger.read_files
    monkeypatch.setattr(site.ledger, "read_files", lambda *key: asked.append(key) or read_files(*key))
    site.walk(166, -1)
    assert (site.told, asked) == ([], [])
    assert site.state.open == site.state.settled == ()


def test_what_becomes_safe_raises_no_more(site):
    site.receive()
    site.walk(80, 60)
    site.list_files(site.file())
    site.write(site.file(), Outcome.LANDED)
    site.walk(59, -1)
    assert site.levels == ["72"]


def test_the_nearest_deadline_of_its_files_counts(site):
    site.receive()
    near = site.file("near.mp4", deadline=DEAD - 10 * HOUR)
    site.list_files(site.file(), near)
    site.write(site.file(), Outcome.LANDED)
    site.run(before(82))
    [alarm] = site.run(before(34)).due("somebody")
    assert alarm.deadline == near.deadline
    assert alarm.hours_left == 24.0
    assert (alarm.unsafe_files, alarm.files) == (1, 2)
    assert site.levels == ["72", "24"]


def test_a_link_that_outlives_seven_days_behind_the_end_does_not_count(site):
    site.receive()
    site.list_files(site.file(deadline=DEAD + 5 * HOUR))
    site.write(site.file(deadline=DEAD + 5 * HOUR), Outcome.FAILED, "broke off")
    [alarm] = site.run(before(6)).due("somebody")
    assert (alarm.deadline, alarm.level) == (DEAD, 6.0)


def test_a_part_is_lost_and_the_rest_goes_on(site):
    site.receive()
    dead, living = site.file("dead.mp4"), site.file("living.mp4")
    site.list_files(dead, living)
    site.write(dead, Outcome.MISSING, "404")
    site.write(living, Outcome.FAILED, "broke off")
    watch = site.run(before(100))
    assert site.levels == ["LOST"]
    assert watch.open_backups == 1
    site.walk(99, 20)
    assert site.levels == ["LOST", "72", "24"]
    [alarm] = site.run(before(19)).due("somebody else")[:1]
    assert "living.mp4" in alarm.reason
    site.write(living, Outcome.LANDED)
    site.walk(18, -2)
    assert site.levels == ["LOST", "72", "24"]


def test_a_first_run_names_what_has_died_within_the_last_day_once(site):
    site.receive()
    site.run(before(-3))
    site.walk(-4, -20)
    assert site.levels == ["LOST"]


def test_a_late_event_in_an_hour_that_was_read_before(site):
    site.run(ENDED + 2.5 * HOUR)
    site.receive(at=ENDED)
    site.run(ENDED + 3 * HOUR)
    assert [backup.egress_id for backup in site.state.open] == ["EG_1"]


def test_an_event_that_is_later_than_the_lookback_is_for_reconcile_to_find():
    site = Site(lookback=timedelta(0))
    site.run(ENDED + 3 * HOUR)
    site.receive(at=ENDED)
    site.run(ENDED + 4 * HOUR)
    assert site.state.open == ()
    site.receive(at=ENDED + 4 * HOUR)
    site.run(ENDED + 5 * HOUR)
    assert [backup.egress_id for backup in site.state.open] == ["EG_1"]


def test_only_the_hours_since_the_last_run_are_read(site, monkeypatch):
    listed = []
    list_keys = site.store.list_keys
    monkeypatch.setattr(site.store, "list_keys", lambda uri: listed.append(uri) or list_keys(uri))
    site.run(ENDED)
    first = [uri for uri in listed if uri.startswith("s3://b/in")]
    assert len(first) == 8 * 24 + 1
    listed.clear()
    site.run(ENDED + HOUR)
    assert [uri for uri in listed if uri.startswith("s3://b/in")] == [
        f"s3://b/in/2026/11/20/{hour}/" for hour in (11, 12, 13, 14, 15)
    ]


def test_an_event_that_is_filed_anew_after_the_end_is_not_named_again(site):
    site.receive()
    site.walk(30, -1)
    site.receive(at=DEAD + 2 * HOUR)
    site.walk(-2, -6)
    assert site.levels == ["72", "24", "6", "LOST"]


def test_a_persons_new_link_to_what_was_lost_is_watched_again(site):
    site.receive()
    site.walk(3, -3)
    new_link = site.file(deadline=DEAD + 100 * HOUR)
    site.list_files(new_link)
    site.write(new_link, Outcome.FAILED, "broke off")
    ended = str(int(ENDED.timestamp()) * 10**9)
    info = {"egress_id": "EG_1", "started_at": str(RUN), "ended_at": ended, "status": "EGRESS_COMPLETE"}
    body = json.dumps({**info, "backup_storage_used": True})
    at = DEAD + 10 * HOUR
    stored = {"livekit_backup_event": 1, "source": "link", "received_at": at.isoformat(), "body": body}
    site.store.put(f"s3://b/in/{at:%Y/%m/%d/%H}/link.json", json.dumps(stored).encode())
    site.walk(-4, -120)
    assert site.levels == ["6", "LOST", "72", "24", "6", "LOST"]


def test_a_damaged_state_is_found_out_again(site):
    site.receive()
    site.walk(80, 50)
    [uri] = [uri for uri in site.store.objects if "/alarms/" in uri]
    site.store.put(uri, b'{"open": [')
    site.walk(49, 40)
    assert site.levels == ["72", "72"], "told twice rather than never"
    assert site.told[1][-1] == before(49)


def test_each_level_is_told_to_everybody_who_was_not_there(site):
    site.receive()
    site.run(before(70), listeners=("log", "slack"), deaf=("slack",))
    site.run(before(69), listeners=("log", "slack"))
    site.run(before(68), listeners=("log", "slack"))
    assert [(name, level) for name, _, level, _ in site.told] == [("log", "72"), ("slack", "72")]


def test_what_is_lost_stays_until_everybody_knows(site):
    site.receive()
    site.run(before(100), listeners=("log", "slack"))
    for hours in (-1, -2, -3):
        site.run(before(hours), listeners=("log", "slack"), deaf=("slack",))
    site.run(before(-4), listeners=("log", "slack"))
    site.run(before(-5), listeners=("log", "slack"))
    assert [(name, level) for name, _, level, _ in site.told] == [("log", "LOST"), ("slack", "LOST")]
    assert site.state.open == ()


def test_who_listens_no_more_is_forgotten_and_keeps_nothing_open(site):
    site.receive()
    site.run(before(5), listeners=("log", "slack"))
    site.run(before(4), listeners=("log",))
    assert set(site.state.open[0].raised) == {"log"}
    site.run(before(-1), listeners=("log",))
    assert site.state.open == ()


def test_a_level_that_is_added_is_raised_by_what_is_below_it(site):
    site.receive()
    site.run(before(70))
    site.settings = site.settings.model_copy(update={"alarm_hours": (72.0, 48.0, 24.0, 6.0)})
    site.walk(69, 40)
    assert site.levels == ["72", "48"]


def test_without_an_end_it_is_watched_for_a_week(site):
    event = egress_ended("EG_1", backupStorageUsed=True)
    site.store.put(f"s3://b/in/{ENDED:%Y/%m/%d/%H}/x.json", json.dumps(event).encode())
    for hours in range(3, 24 * 7 + 5):
        site.run(ENDED + hours * HOUR)
    assert site.levels == ["72", "24", "6"]


def test_two_runs_of_one_egress_are_two_backups(site):
    site.receive()
    site.receive(run=RUN + 10**12, at=ENDED + HOUR)
    site.run(before(5))
    assert site.levels == ["6", "6"]


def test_a_clock_that_goes_back_reads_nothing_and_forgets_nothing(site):
    site.receive()
    site.run(before(70))
    before_it = site.state
    site.run(ENDED - timedelta(days=2))
    assert site.levels == ["72"]
    assert site.state.read_until == before_it.read_until


def test_nobody_is_told_of_what_has_many_hours_left_and_yet_it_is_counted(site):
    site.receive()
    watch = site.run(before(160))
    assert site.told == []
    assert watch.open_backups == 1
    assert watch.nearest_hours_left == 160.0


def alarms_of(count, now, **info):
    site = Site()
    for number in range(count):
        site.receive(f"EG_{number:04}", ended=ENDED + timedelta(seconds=number), roomName=f"room {number}", **info)
    watch = AlarmWatch(AlarmState(), site.settings, now)
    watch.look(site.store, site.ledger)
    return watch.due("log")


def test_a_flood_is_one_message_that_names_the_most_urgent_and_counts_the_rest():
    text = digest(alarms_of(200, before(5.5)), others=3)
    lines = text.splitlines()
    assert lines[0] == "LiveKit backups: 200 not safe; the nearest link dies in 5.5 h"
    assert [line.split(": ")[1].split(",")[0] for line in lines[1 : MAX_NAMED + 1]] == [
        f"EG_{number:04}" for number in range(MAX_NAMED)
    ]
    assert lines[MAX_NAMED + 1] == f"- and {200 - MAX_NAMED} more"
    assert lines[MAX_NAMED + 2].startswith("3 more backups are not safe yet")
    assert len(text) < 6000


def test_what_can_be_saved_stands_before_what_is_lost():
    alarms = [*alarms_of(50, before(-2)), *alarms_of(2, before(1))]
    lines = digest(alarms).splitlines()
    assert lines[0] == "LiveKit backups: 2 not safe, 50 lost; the nearest link dies in 1.0 h"
    assert ["LOST" in line for line in lines[1:4]] == [False, False, True]
    assert lines[3 + MAX_LOST_NAMED] == f"- and {50 - MAX_LOST_NAMED} more that are lost"


def test_a_digest_says_what_a_tired_person_needs(site):
    site.receive(roomName="stand\nup")
    site.list_files(site.file("a.mp4"), site.file("b.mp4"))
    site.write(site.file("a.mp4"), Outcome.FAILED, "host answered 503")
    site.write(site.file("b.mp4"), Outcome.LANDED)
    text = digest(site.run(before(5.25)).due("somebody"))
    assert text.splitlines()[1] == (
        r"- 5.2 h left (until 2026-11-27 14:07 UTC): EG_1, room 'stand\u000aup', 1 of 2 files not safe: "
        "failed: 'a.mp4': host answered 503"
    )
    assert "airflow livekit-backup status" in text


def test_neither_message_nor_memory_holds_a_link(site):
    site.receive()
    alarms = site.run(before(5)).due("somebody")
    remembered = next(body for uri, body in site.store.objects.items() if "/alarms/" in uri)
    assert "Signature" not in digest(alarms) + remembered.decode() + repr(alarms)
