"""The sensor: defers, pokes, skips."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import PokeReturnValue
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from livekit_backup.core.ledger import Ledger
from livekit_backup.errors import ConfigurationError, RetryableError
from livekit_backup.operators import recovery_operator
from livekit_backup.sensors.backup_event import BackupEventSensor
from livekit_backup.triggers.inbox_window import InboxWindowTrigger
from unit.fakes import MemoryStore, egress_ended

HOUR = timedelta(hours=1)
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
PAST = START - 3 * HOUR


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://b/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://b/out")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX_CONN_ID", "events")
    store = MemoryStore()
    monkeypatch.setattr(recovery_operator, "_store", lambda conn_id, *options: store)
    return store


def _context(start=PAST, **params):
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)
    return {
        "ti": ti,
        "dag_run": SimpleNamespace(run_after=start + HOUR),
        "params": params,
        "data_interval_start": start,
        "data_interval_end": start + HOUR,
    }


def _put(store, *events, name="1"):
    body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    store.put(f"s3://b/in/{PAST:%Y/%m/%d/%H}/{name}", body)


def _sensor(**arguments):
    return BackupEventSensor(task_id="t", **{"deferrable": True, **arguments})


def test_an_open_window_defers(store):
    with pytest.raises(TaskDeferred) as caught:
        _sensor().execute(_context(START))
    trigger = caught.value.trigger
    assert isinstance(trigger, InboxWindowTrigger)
    assert datetime.fromisoformat(trigger.closes_at) == START + HOUR + timedelta(seconds=300)
    assert trigger.prefixes == [f"s3://b/in/{START:%Y/%m/%d/%H}/"]
    assert trigger.inbox_conn_id == "events"
    assert caught.value.method_name == "execute_complete"


def test_the_grace_belongs_to_the_window(store):
    with pytest.raises(TaskDeferred):
        _sensor(grace=10**6).execute(_context(PAST))


def test_a_closed_window_is_read_at_once(store):
    _put(store, {"event": "room_started"}, egress_ended(backupStorageUsed=True))
    assert _sensor().execute(_context()) == {"objects": 1, "events": 2, "backups": 1}


def test_it_looks_no_further_than_the_first_backup(store):
    for name in ("1", "2", "3"):
        _put(store, egress_ended(backupStorageUsed=True), name=name)
    assert _sensor().execute(_context())["objects"] == 1


def test_something_unreadable_that_may_be_a_backup_is_enough(store):
    _put(store, {"backupStorageUsed": True})
    assert _sensor().execute(_context())["backups"] == 0


def test_without_a_backup_it_skips_and_writes_down_what_it_saw(store):
    _put(store, egress_ended("EG_2", status="EGRESS_FAILED"), {"x": 1})
    with pytest.raises(AirflowSkipException, match="1 objects with 2 events"):
        _sensor().execute(_context())
    intake = Ledger(store, "s3://b/out/_livekit_backup").read_intake("d", "r")
    assert intake.failed_without_backup == ("EG_2",)


def test_only_wanted_egresses_count(store):
    _put(store, egress_ended("EG_1", backupStorageUsed=True))
    with pytest.raises(AirflowSkipException):
        _sensor().execute(_context(egress_ids=["EG_2"], start=PAST))


def test_poking(store):
    sensor = _sensor(deferrable=False)
    assert sensor.poke(_context(START)) is False
    _put(store, egress_ended(backupStorageUsed=True))
    done = sensor.poke(_context())
    assert isinstance(done, PokeReturnValue)
    assert (done.is_done, done.xcom_value["backups"]) == (True, 1)
    assert sensor.execute(_context())["backups"] == 1


def test_poking_a_closed_window_without_backups_skips(store):
    with pytest.raises(AirflowSkipException):
        _sensor(deferrable=False).poke(_context())


@pytest.mark.parametrize(
    "event", [None, "objects", [], {}, {"status": None}, {"status": "done"}, {"state": "objects"}, 5]
)
def test_an_event_of_no_known_form_is_tried_again(store, event):
    with pytest.raises(RetryableError, match="the trigger answered"):
        _sensor().execute_complete(_context(), event)


@pytest.mark.parametrize("status", ["objects", "unchecked"])
def test_going_on_where_the_trigger_ended(store, status):
    _put(store, egress_ended(backupStorageUsed=True))
    assert _sensor().execute_complete(_context(), {"status": status})["backups"] == 1


def test_an_empty_inbox_is_not_read_again(store):
    store.list_keys = lambda prefix: pytest.fail("read")
    with pytest.raises(AirflowSkipException, match="0 objects"):
        _sensor().execute_complete(_context(), {"status": "empty"})


def test_a_wrong_setting_fails_at_once(store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "nonsense")
    for call in (
        lambda: _sensor().execute(_context()),
        lambda: _sensor().poke(_context()),
        lambda: _sensor().execute_complete(_context(), {"status": "objects"}),
    ):
        with pytest.raises(ConfigurationError, match="inbox must be s3://"):
            call()


def test_a_wrong_param_fails_at_once(store):
    with pytest.raises(ConfigurationError, match="param start is 'noon'"):
        _sensor().execute(_context(start=PAST) | {"params": {"start": "noon"}})
