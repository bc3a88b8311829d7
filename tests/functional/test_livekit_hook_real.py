"""The connection of type LiveKit against the fake's API: listing, testing, and Airflow's own ways to test it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib import import_module

import jwt
import pytest

from livekit_backup.errors import AccessDeniedError
from livekit_backup.hooks.livekit import LiveKitHook
from livekit_backup.testing import ApiFault, FakeLiveKit
from livekit_backup.testing.fake_api import API_KEYS

[(KEY, SECRET)] = API_KEYS.items()


@pytest.fixture
def livekit():
    with FakeLiveKit() as fake:
        yield fake


@pytest.fixture
def hook(livekit, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LIVEKIT_HERE", livekit.airflow_connection())
    return LiveKitHook("livekit_here")


def test_listing_by_the_hook_and_by_the_hook_in_a_trigger(hook, livekit):
    recording = livekit.record_file("one.mp4", room_name="Standup")
    livekit.record_file("two.mp4", room_name="Retro")
    assert len(list(hook.list_egress())) == 2
    assert [one.info.egress_id for one in hook.list_egress(room_name="Standup")] == [recording.egress_id]

    async def in_a_trigger():
        return [one.info.egress_id async for one in hook.alist_egress(egress_id=recording.egress_id)]

    assert asyncio.run(in_a_trigger()) == [recording.egress_id]


def test_a_trigger_fetches_its_connection_without_blocking(hook, monkeypatch):
    monkeypatch.setattr(LiveKitHook, "get_connection", lambda *_: pytest.fail("this call blocks the event loop"))

    async def in_a_trigger():
        return [one async for one in hook.alist_egress()]

    assert asyncio.run(in_a_trigger()) == []


def test_the_test_asks_for_one_egress_and_says_as_whom(hook, livekit):
    livekit.record_file("one.mp4")
    worked, message = hook.test_connection()
    assert worked
    assert f"{livekit.base_url} lists egresses to API key '{KEY}'." in message
    assert "backup storage on per project" in message
    assert "ask LiveKit" in message
    assert SECRET not in message
    [asked] = [request for request in livekit.requests if request.method == "POST"]
    token = asked.headers["authorization"].removeprefix("Bearer ")
    assert jwt.decode(token, SECRET, algorithms=["HS256"])["video"] == {"roomRecord": True}


def test_the_test_works_on_an_open_source_server(monkeypatch):
    with FakeLiveKit(cloud=False) as livekit:
        monkeypatch.setenv("AIRFLOW_CONN_LIVEKIT_OWN", livekit.airflow_connection())
        assert LiveKitHook("livekit_own").test_connection()[0] is True


def test_the_test_fails_with_what_to_do(hook, livekit):
    livekit.fail_api(ApiFault.DENIED)
    worked, message = hook.test_connection()
    assert not worked
    assert f"{livekit.base_url} answered 401" in message
    assert "was it revoked" in message
    assert SECRET not in message
    livekit.fail_api(ApiFault.DENIED)
    with pytest.raises(AccessDeniedError):
        list(hook.list_egress())


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
@pytest.mark.parametrize("kind", ["airflow.models.connection", "airflow.sdk"])
@pytest.mark.usefixtures("hook")
def test_airflow_tests_the_connection_by_the_hook(livekit, kind):
    """As the button of the UI does, and as a worker does."""
    connection = import_module(kind).Connection(
        conn_id="livekit_here", conn_type="livekit", login=KEY, password=SECRET, host=livekit.base_url
    )
    worked, message = connection.test_connection()
    assert worked, message
    assert livekit.base_url in message


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize("works", [True, False])
def test_airflows_command_tests_it(livekit, works):
    if not works:
        livekit.fail_api(ApiFault.DENIED)
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "connections", "test", "livekit_here"],
        env={**os.environ, "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode == 0) is works, done.stderr
    assert ("Connection success" if works else "was it revoked") in " ".join(done.stdout.split())
    assert SECRET not in done.stdout + done.stderr
    assert sum(request.method == "POST" for request in livekit.requests) == 1
