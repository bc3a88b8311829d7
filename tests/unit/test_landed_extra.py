"""What an asset event says of a run, and how a DAG below reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from livekit_backup.core.landed_extra import MAX_NAMED, landed_extra
from livekit_backup.errors import StorageUnavailableError
from livekit_backup.hooks import landed_recordings as reading
from livekit_backup.hooks.landed_recordings import landed_recordings
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.statement import Statement, StatementLine
from unit.fakes import MemoryStore

REPORT = "s3://b/out/_l/runs/d/r/report.json"


def _line(number, outcome=Outcome.LANDED, **changes):
    values = {
        "egress_id": f"EG_{number}",
        "run": 1,
        "filename": f"{number}.mp4",
        "room_name": f"Room {number % 3}",
        "outcome": outcome,
        "size": 10,
        "sha256": f"{number:064x}",
        "landed_uri": f"s3://b/out/{number}.mp4",
    }
    return StatementLine(**{**values, **changes})


def _statement(*lines):
    return Statement(dag_id="d", run_id="r", written_at=datetime(2026, 11, 20, tzinfo=UTC), lines=lines)


def _event(*lines):
    return SimpleNamespace(extra=landed_extra(_statement(*lines), REPORT))


@pytest.fixture
def store(monkeypatch):
    store = MemoryStore()
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://b/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://b/out")
    monkeypatch.setattr(reading, "_store", lambda conn_id: store)
    return store


def test_there_is_none_where_nothing_landed():
    others = [_line(number, outcome) for number, outcome in enumerate(Outcome) if outcome is not Outcome.LANDED]
    assert landed_extra(_statement(*others), REPORT) == {}


def test_it_names_what_landed_and_nothing_else():
    assert landed_extra(_statement(_line(1), _line(2, Outcome.FAILED), _line(4)), REPORT) == {
        "run_id": "r",
        "files": 2,
        "bytes": 20,
        "report": REPORT,
        "rooms": ["Room 1"],
        "egress_ids": ["EG_1", "EG_4"],
        "landed": [
            {
                "egress_id": f"EG_{number}",
                "room_name": "Room 1",
                "uri": f"s3://b/out/{number}.mp4",
                "key": f"out/{number}.mp4",
                "size": 10,
                "sha256": f"{number:064x}",
            }
            for number in (1, 4)
        ],
    }


def test_it_stays_small_in_a_flood():
    lines = [_line(number, room_name="r" * 128, landed_uri=f"s3://b/{'k' * 200}/{number}") for number in range(10_000)]
    extra = landed_extra(_statement(*lines), REPORT)
    assert extra["files"] == 10_000
    assert extra["bytes"] == 100_000
    assert [len(extra[key]) for key in ("landed", "egress_ids", "rooms")] == [MAX_NAMED, MAX_NAMED, 1]
    assert len(json.dumps(extra)) < 100_000


def test_a_dag_below_needs_no_store_for_what_the_event_names(store):
    store.get = None
    landed = list(landed_recordings([_event(_line(1)), _event(_line(2))]))
    assert [(one.egress_id, one.key, one.size) for one in landed] == [
        ("EG_1", "out/1.mp4", 10),
        ("EG_2", "out/2.mp4", 10),
    ]


def test_what_the_event_does_not_name_is_in_the_report(store):
    lines = [_line(number) for number in range(MAX_NAMED + 7)]
    store.put(REPORT, _statement(_line(500, Outcome.CORRUPT), *lines).model_dump_json().encode())
    landed = list(landed_recordings([_event(*lines)]))
    assert [one.egress_id for one in landed] == [f"EG_{number}" for number in range(MAX_NAMED + 7)]


def test_an_event_that_came_twice_is_handled_once(store):
    assert len(list(landed_recordings([_event(_line(1)), _event(_line(1), _line(2))]))) == 2


def test_an_event_without_an_extra_is_of_nothing(store):
    assert list(landed_recordings([SimpleNamespace(extra={}), SimpleNamespace(extra=None)])) == []


def test_a_report_that_is_gone_is_no_empty_one(store):
    with pytest.raises(StorageUnavailableError, match=r"report\.json is not there, and 1 recordings with it"):
        list(landed_recordings([_event(*(_line(number) for number in range(MAX_NAMED + 1)))]))
