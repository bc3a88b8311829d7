"""The trigger that waits for a window to close."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk._shared.module_loading import import_string

from livekit_backup.errors import AccessDeniedError, StorageUnavailableError
from livekit_backup.triggers import inbox_window
from livekit_backup.triggers.inbox_window import LONGEST_SLEEP_SECONDS, InboxWindowTrigger

PREFIXES = ["s3://b/in/2026/11/20/13/"]


def _trigger(closes_at="2026-11-20T14:05:00+00:00"):
    return InboxWindowTrigger(closes_at=closes_at, prefixes=PREFIXES, inbox_conn_id="aws_default")


async def _events(trigger):
    return [event.payload async for event in trigger.run()]


def test_round_trip():
    path, arguments = _trigger().serialize()
    assert path == "livekit_backup.triggers.inbox_window.InboxWindowTrigger"
    assert arguments == {
        "closes_at": "2026-11-20T14:05:00+00:00",
        "prefixes": PREFIXES,
        "inbox_conn_id": "aws_default",
    }
    again = import_string(path)(**arguments)
    assert again.serialize() == (path, arguments)


def test_arguments_are_plain_values():
    trigger = InboxWindowTrigger(closes_at="2026-11-20T14:05:00+00:00", prefixes=tuple(PREFIXES), inbox_conn_id="x")
    assert type(trigger.serialize()[1]["prefixes"]) is list


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (True, "objects"),
        (False, "empty"),
        (StorageUnavailableError("no answer"), "unchecked"),
        (AccessDeniedError("denied"), "unchecked"),
    ],
)
def test_what_it_saw(monkeypatch, answer, status):
    from livekit_backup.hooks import object_store

    async def holds_any_object(conn_id, prefixes):
        assert (conn_id, prefixes) == ("aws_default", PREFIXES)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(object_store, "holds_any_object", holds_any_object)
    assert asyncio.run(_events(_trigger())) == [{"status": status}]


def test_it_sleeps_until_the_window_is_closed(monkeypatch):
    now = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
    slept = []

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return now + timedelta(seconds=sum(slept))

    async def sleep(seconds):
        slept.append(seconds)

    async def look(self):
        return "empty"

    monkeypatch.setattr(inbox_window, "datetime", Clock)
    monkeypatch.setattr(inbox_window.asyncio, "sleep", sleep)
    monkeypatch.setattr(InboxWindowTrigger, "_look", look)
    assert asyncio.run(_events(_trigger("2026-11-20T14:02:30+00:00"))) == [{"status": "empty"}]
    assert slept == [LONGEST_SLEEP_SECONDS, LONGEST_SLEEP_SECONDS, 30.0]
