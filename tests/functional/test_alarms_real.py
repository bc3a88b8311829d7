"""Alarms over a real S3 server, a fake LiveKit and the recovery's own steps: a week of hours, moved by the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from livekit_backup.core.ledger import Ledger
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.settings import Settings
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.operators import raise_alarms, recovery_operator
from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator
from livekit_backup.testing import FakeLiveKit, Fault, Recording

from .recovery_pipeline import Pipeline

HOUR = timedelta(hours=1)


class Clock(datetime):
    """What the operator takes for the time."""

    moment: datetime

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment


class Week:
    """A week behind now, in which alarms are raised every hour."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.messages: list[str] = []
        self.alarms: list[tuple[str, str]] = []
        """Egress and level."""
        self.step = 1
        self.dead = pipeline.now + timedelta(days=7)

    def store(self, recording: Recording) -> Recording:
        self.pipeline.store_event(recording.event())
        return recording

    def tell(self, context: Mapping[str, Any]) -> None:
        self.messages.append(context["livekit_alarm"])
        for alarm in context["livekit_alarms"]:
            self.alarms.append((alarm["egress_id"], "LOST" if alarm["is_lost"] else f"{alarm['level']:g}"))
            # By its own deadline: the hour's run that first has so few left tells of it.
            left = (datetime.fromisoformat(alarm["deadline"]) - Clock.moment) / HOUR
            assert (alarm["level"] - self.step < left <= alarm["level"]) or (alarm["is_lost"] and left <= 0)

    def walk(self, start: int, stop: int, step: int = 1) -> dict[str, Any]:
        """Raise alarms at so many hours left, every hour down to others; half past, as a schedule would have it."""
        result: dict[str, Any] = {}
        self.step = step
        for hours in range(start, stop - 1, -step):
            Clock.moment = self.dead - (hours - 0.5) * HOUR
            ti = SimpleNamespace(dag_id="alarms", run_id="r", task_id="raise", map_index=-1, try_number=1)
            result = RaiseAlarmsOperator(task_id="raise", notify=self.tell).execute({"ti": ti})  # type: ignore[typeddict-item]
        return result

    def levels(self, recording: Recording) -> list[str]:
        return [level for egress_id, level in self.alarms if egress_id == recording.egress_id]


@pytest.fixture
def week(
    store: S3ObjectStore,
    ledger: Ledger,
    settings: Settings,
    livekit: FakeLiveKit,
    known_abilities: StoreAbilities,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Week]:
    pipeline = Pipeline(store, ledger, settings, livekit)
    pipeline.known_abilities = known_abilities
    for key in ("inbox", "warehouse", "ledger"):
        monkeypatch.setenv(f"AIRFLOW__LIVEKIT_BACKUP__{key.upper()}", getattr(settings, key))
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setattr(recovery_operator, "_store", lambda *_: store)
    monkeypatch.setattr(raise_alarms, "datetime", Clock)
    return Week(pipeline)


def test_a_week_of_hours(week: Week, livekit: FakeLiveKit) -> None:
    good = week.store(livekit.record_file("good.mp4", size=1000))
    stubborn = week.store(livekit.record_file("stubborn.mp4", size=1000))
    late = week.store(livekit.record_file("late.mp4", size=1000))
    never = week.store(livekit.record_file("never.mp4", size=1000))
    for recording in (stubborn, late, never):
        livekit.break_(recording, Fault.WRONG_BYTES)
    week.pipeline.run()

    week.walk(168, 80, step=8)
    week.walk(79, 60)
    assert [week.levels(recording) for recording in (good, stubborn, late, never)] == [[], ["72"], ["72"], ["72"]]
    mend(week, late)
    week.walk(59, 32, step=8)
    week.walk(31, 10)
    mend(week, stubborn)
    result = week.walk(9, -6)

    assert week.levels(good) == []
    assert week.levels(late) == ["72"]
    assert week.levels(stubborn) == ["72", "24"]
    assert week.levels(never) == ["72", "24", "6", "LOST"]
    assert len(week.messages) == 4, "one message a run"
    assert result == {"raised": {"72": 0, "24": 0, "6": 0}, "lost": 0, "open": 0, "nearest_hours_left": None}
    assert "corrupt: 'never.mp4'" in week.messages[2]
    assert not any("Signature" in text or "X-Amz" in text for text in week.messages)


def mend(week: Week, recording: Recording) -> None:
    """Let the recording be what it is, and recover it as a cleared run would."""
    for stored in recording.files.values():
        stored.mend()
    week.pipeline.run()


def test_alarms_are_raised_where_no_recovery_ever_ran(week: Week, livekit: FakeLiveKit) -> None:
    recordings = [week.store(livekit.record_file(f"{number}.mp4", size=100)) for number in range(10)]
    week.walk(80, -4, step=6)
    for recording in recordings:
        assert week.levels(recording) == ["72", "24", "6", "LOST"]
    assert len(week.messages) == 4
    assert "10 not safe" in week.messages[0]


def test_an_event_that_comes_into_an_hour_that_was_read(week: Week, livekit: FakeLiveKit) -> None:
    week.walk(168, 167)
    late = week.store(livekit.record_file("late.mp4", size=100))
    week.walk(166, 70, step=16)
    week.walk(70, 70)
    assert week.levels(late) == ["72"]


def test_what_one_run_costs_does_not_grow_with_what_is_safe(week: Week, livekit: FakeLiveKit) -> None:
    for number in range(5):
        week.store(livekit.record_file(f"{number}.mp4", size=100))
    week.pipeline.run()
    week.walk(168, 163)
    client = week.pipeline.store
    asked: list[str] = []
    for name in ("get", "open", "head"):
        call = getattr(client, name)
        setattr(client, name, lambda uri, *args, _call=call, **how: asked.append(uri) or _call(uri, *args, **how))
    week.walk(162, 162)
    assert [uri for uri in asked if "/alarms/" not in uri] == []
