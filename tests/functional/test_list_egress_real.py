"""ListEgress against the fake's API over real HTTP: pages, filters, refusals, faults, clocks."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core import livekit_api
from livekit_backup.core.livekit_api import ATTEMPTS, LiveKitApi, failed_to_upload
from livekit_backup.errors import AccessDeniedError, ConfigurationError, SourceUnavailableError
from livekit_backup.models.egress import WebhookEvent
from livekit_backup.testing import ApiFault, FakeLiveKit
from livekit_backup.testing.fake_api import API_KEYS, LIST_EGRESS, STORAGE_SECRET

from .certificates import Authority

[(KEY, SECRET)] = API_KEYS.items()


def _api(livekit, **options) -> LiveKitApi:
    return LiveKitApi(livekit.base_url, KEY, SECRET, **{"first_wait_seconds": 0.0, **options})


def _sync(api, **asked):
    return list(api.list_egress(**asked))


def _async(api, **asked):
    async def collect():
        return [listed async for listed in api.alist_egress(**asked)]

    return asyncio.run(collect())


both = pytest.mark.parametrize("lister", [_sync, _async], ids=["sync", "async"])


def _posts(livekit) -> int:
    return sum(request.path == LIST_EGRESS for request in livekit.requests)


@pytest.fixture
def livekit():
    with FakeLiveKit() as fake:
        yield fake


def _failed(egress_id, error, **more):
    now = time.time_ns()
    return {
        "egressId": egress_id,
        "status": "EGRESS_FAILED",
        "startedAt": str(now - 10**9),
        "endedAt": str(now),
        "error": error,
        "errorCode": 400,
        **more,
    }


@both
def test_every_kind_of_recording_is_listed_as_its_webhook_tells_it(livekit, lister):
    recordings = [
        livekit.record_file("egress/standup.mp4"),
        livekit.record_track("tracks/alice.ogg"),
        livekit.record_hls("hls/webinar"),
        livekit.record_images("thumbs/webinar"),
        livekit.record_file("web.mp4", web_url="https://acme.example/stage"),
    ]
    listed = lister(_api(livekit))
    assert [one.info.egress_id for one in listed] == [recording.egress_id for recording in recordings]
    for one, recording in zip(listed, recordings, strict=True):
        told = WebhookEvent.model_validate(recording.event()).backup
        assert one.info == told
        assert WebhookEvent.model_validate({"egress_info": one.document}).egress_info == told
        assert one.error == ""


@both
def test_the_request_part_never_comes_through(livekit, lister):
    livekit.record_file("egress/standup.mp4")
    livekit.record_hls("hls/webinar")
    livekit.list_also(_failed("EG_own", "x", streamResults=[{"url": "rtmp://live/stream-key"}]))
    listed = lister(_api(livekit))
    assert len(listed) == 3
    for one in listed:
        assert STORAGE_SECRET not in json.dumps(one.document)
        assert "stream-key" not in json.dumps(one.document)
        assert not {"room_composite", "stream_results", "web", "track"} & set(one.document)
        assert "X-Amz-Signature" not in repr(one)


@both
@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 23])
def test_all_pages_of_the_cloud_are_read(lister, count):
    with FakeLiveKit(page_size=3) as livekit:
        recordings = [livekit.record_file(f"{number}.mp4", size=1) for number in range(count)]
        listed = lister(_api(livekit))
        assert [one.info.egress_id for one in listed] == [recording.egress_id for recording in recordings]
        assert _posts(livekit) == max(1, -(-count // 3))


@both
def test_a_server_that_ignores_the_page_token_is_asked_once_more_at_the_most(lister):
    with FakeLiveKit(cloud=False) as livekit:
        livekit.record_file("one.mp4", ended_at=datetime.now(UTC))
        livekit.fail_api(ApiFault.SAME_TOKEN, times=None)
        assert len(lister(_api(livekit))) == 1
        assert _posts(livekit) == 2


@both
def test_the_same_token_again_ends_the_listing(lister):
    with FakeLiveKit(page_size=2) as livekit:
        for number in range(5):
            livekit.record_file(f"{number}.mp4", size=1)
        livekit.fail_api(ApiFault.SAME_TOKEN, times=None)
        assert len(lister(_api(livekit))) == 2
        assert _posts(livekit) == 2


@both
def test_filters(livekit, lister):
    first = livekit.record_file("one.mp4", room_name="Standup")
    second = livekit.record_file("two.mp4", room_name="Retro")
    assert [one.info.egress_id for one in lister(_api(livekit), egress_id=second.egress_id)] == [second.egress_id]
    assert [one.info.egress_id for one in lister(_api(livekit), room_name="Standup")] == [first.egress_id]
    assert lister(_api(livekit), egress_id="EG_unknown") == []


@both
def test_an_open_source_server_keeps_a_day_and_knows_no_other_id(lister):
    now = datetime.now(UTC)
    with FakeLiveKit(cloud=False) as livekit:
        livekit.record_file("old.mp4", ended_at=now - timedelta(hours=25))
        young = livekit.record_file("young.mp4", ended_at=now - timedelta(hours=23))
        assert [one.info.egress_id for one in lister(_api(livekit))] == [young.egress_id]
        assert lister(_api(livekit), egress_id="EG_unknown") == []
        assert _posts(livekit) == 2, "what is not there is not asked for again"


def test_what_is_active_failed_or_went_well_is_listed_as_well(livekit):
    recording = livekit.record_file("one.mp4")
    livekit.list_also(recording.event(backup_storage_used=False)["egressInfo"])
    livekit.list_also({"egressId": "EG_live", "status": "EGRESS_ACTIVE", "startedAt": str(time.time_ns())})
    livekit.list_also(_failed("EG_refused", "S3 upload failed: operation error S3: PutObject, StatusCode: 403"))
    livekit.list_also(_failed("EG_broken", "pipeline frozen"))
    infos = [one.info for one in _sync(_api(livekit))]
    assert [(info.egress_id, info.backup_storage_used, failed_to_upload(info)) for info in infos] == [
        (recording.egress_id, False, False),
        ("EG_live", False, False),
        ("EG_refused", False, True),
        ("EG_broken", False, False),
    ]


@both
@pytest.mark.parametrize(
    ("fault", "options"),
    [(ApiFault.TOO_MANY_REQUESTS, {}), (ApiFault.SERVER_ERROR, {}), (ApiFault.GARBAGE, {})],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_passes_is_tried_again(lister, fault, options):
    with FakeLiveKit(page_size=1) as livekit:
        livekit.record_file("one.mp4")
        livekit.record_file("two.mp4")
        livekit.fail_api(fault, times=ATTEMPTS - 1, after=1, **options)
        assert len(lister(_api(livekit))) == 2
        assert _posts(livekit) == 1 + ATTEMPTS


@both
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ApiFault.TOO_MANY_REQUESTS, "answered 429 resource_exhausted: too many requests"),
        (ApiFault.SERVER_ERROR, "answered 500 internal: egress not connected (redis required)"),
        (ApiFault.GARBAGE, "answered what is no JSON"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_lasts_is_said(livekit, lister, fault, words):
    livekit.fail_api(fault, times=None)
    with pytest.raises(SourceUnavailableError) as caught:
        lister(_api(livekit))
    assert livekit.base_url in str(caught.value)
    assert words in str(caught.value)
    assert _posts(livekit) == ATTEMPTS


def test_how_long_to_wait_is_handed_on(livekit, monkeypatch):
    monkeypatch.setattr(livekit_api, "MAX_WAIT_SECONDS", 0.0)
    livekit.fail_api(ApiFault.TOO_MANY_REQUESTS, times=None, retry_after=77)
    with pytest.raises(SourceUnavailableError) as caught:
        _sync(_api(livekit))
    assert caught.value.retry_after == 77


@both
def test_a_server_that_says_nothing_is_left(livekit, lister, monkeypatch):
    monkeypatch.setattr(livekit_api, "ATTEMPTS", 1)
    livekit.fail_api(ApiFault.HANG, times=None)
    with pytest.raises(SourceUnavailableError, match="did not answer: ReadTimeout"):
        lister(_api(livekit, timeout_seconds=0.1))


@both
@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        ("APIother", SECRET, "invalid API key: APIother"),
        (KEY, "another-secret-of-more-than-32-characters", "invalid token: (the token), error:"),
    ],
)
def test_a_key_that_may_not_is_named_and_its_secret_is_not(livekit, lister, key, secret, words):
    api = LiveKitApi(livekit.base_url, key, secret)
    with pytest.raises(AccessDeniedError) as caught:
        lister(api)
    text = str(caught.value)
    assert f"{livekit.base_url} answered 401 {words}" in text
    assert f"API key {key} may not list egresses there: was it revoked" in text
    assert secret not in text
    assert "eyJ" not in text, "the server repeats the token"
    assert _posts(livekit) == 1, "asking again does not help"


@pytest.mark.parametrize("hours", [-2, 2])
@both
def test_a_wrong_clock_is_told(lister, hours):
    with FakeLiveKit(clock=lambda: datetime.now(UTC) + timedelta(hours=hours)) as livekit:
        api = _api(livekit)
        assert api.clock_skew is None
        with pytest.raises(AccessDeniedError) as caught:
            lister(api)
        assert abs(api.clock_skew - timedelta(hours=hours)) < timedelta(seconds=10)
        assert f"s {'behind' if hours > 0 else 'ahead of'} the server's" in str(caught.value)
        assert "NTP" in str(caught.value)


@pytest.mark.parametrize("minutes", [-9, 9])
def test_a_clock_that_is_some_minutes_wrong_stops_nothing(minutes):
    with FakeLiveKit(clock=lambda: datetime.now(UTC) + timedelta(minutes=minutes)) as livekit:
        livekit.record_file("one.mp4")
        api = _api(livekit)
        assert len(_sync(api)) == 1
        assert abs(api.clock_skew - timedelta(minutes=minutes)) < timedelta(seconds=10)


def test_a_token_without_the_grant_is_refused_by_the_fake(livekit):
    import httpx
    import jwt

    now = int(time.time())
    for claims in ({}, {"video": {"roomRecord": False}}, {"video": {"roomList": True}}):
        token = jwt.encode({"iss": KEY, "exp": now + 60, **claims}, SECRET, algorithm="HS256")
        answer = httpx.post(livekit.base_url + LIST_EGRESS, json={}, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    token = jwt.encode({"iss": KEY, "exp": now - 90, "video": {"roomRecord": True}}, SECRET, algorithm="HS256")
    answer = httpx.post(livekit.base_url + LIST_EGRESS, json={}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert "expired" in answer.text
    assert httpx.post(livekit.base_url + LIST_EGRESS, json={}, headers={"Authorization": token}).status_code == 401
    assert httpx.post(livekit.base_url + LIST_EGRESS, json={}).status_code == 401
    assert httpx.post(f"{livekit.base_url}/elsewhere", json={}).status_code == 405


@pytest.mark.parametrize("form", ["{scheme}://{rest}", "ws://{rest}", "{scheme}://{rest}/", " {scheme}://{rest}\n"])
def test_forms_of_the_address(livekit, form):
    scheme, rest = livekit.base_url.split("://")
    livekit.record_file("one.mp4")
    assert len(_sync(LiveKitApi(form.format(scheme=scheme, rest=rest), KEY, SECRET))) == 1


@both
def test_over_tls_by_a_trusted_certificate_only(tmp_path, monkeypatch, lister):
    authority = Authority(tmp_path)
    with FakeLiveKit(tls=authority.server("127.0.0.1")) as livekit:
        livekit.record_file("one.mp4")
        monkeypatch.setattr(livekit_api, "ATTEMPTS", 1)
        with pytest.raises(SourceUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            lister(_api(livekit))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        assert len(lister(LiveKitApi(livekit.base_url.replace("https", "wss"), KEY, SECRET))) == 1


@both
def test_where_no_livekit_is(lister, livekit):
    with pytest.raises(ConfigurationError, match="no LiveKit API is there"):
        lister(LiveKitApi(f"{livekit.base_url}/some/folder", KEY, SECRET))
    livekit.stop()
    with pytest.raises(SourceUnavailableError, match="did not answer: ConnectError"):
        lister(_api(livekit))


def test_one_client_serves_many_threads():
    with FakeLiveKit(page_size=5) as livekit:
        for number in range(30):
            livekit.record_file(f"{number}.mp4", size=1)
        api, counts = _api(livekit), []
        threads = [threading.Thread(target=lambda: counts.append(len(_sync(api)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [30] * 8


def test_triggers_are_not_held_up(livekit):
    """Another coroutine goes on while the server is waited for."""
    livekit.fail_api(ApiFault.HANG, times=None)

    async def race():
        listing = asyncio.ensure_future(anext(_api(livekit).alist_egress()))
        await asyncio.sleep(0.1)
        assert not listing.done()
        listing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listing

    asyncio.run(race())
