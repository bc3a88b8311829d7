"""LiveKit's own packages as the oracle: their client and ours, their messages in every form of JSON and ours."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timedelta

import hypothesis.strategies as st
import jwt
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from livekit import api as livekit_api
from livekit.protocol import egress as messages
from livekit.protocol import models as room_messages
from livekit.protocol import webhook as webhook_messages

from livekit_backup.core.egress_listing import listed_egress
from livekit_backup.core.livekit_api import LiveKitApi, signed_token
from livekit_backup.models.egress import EGRESS_STATUSES, EgressInfo, WebhookEvent
from livekit_backup.testing import ApiFault, FakeLiveKit
from livekit_backup.testing.fake_api import API_KEYS

[(KEY, SECRET)] = API_KEYS.items()
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ID = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)

FILES = st.builds(
    messages.FileInfo, filename=TEXT, started_at=INT64, ended_at=INT64, duration=INT64, size=INT64, location=TEXT
)
SEGMENTS = st.builds(
    messages.SegmentsInfo,
    playlist_name=TEXT,
    live_playlist_name=TEXT,
    duration=INT64,
    size=INT64,
    playlist_location=TEXT,
    live_playlist_location=TEXT,
    segment_count=INT64,
)
IMAGES = st.builds(messages.ImagesInfo, filename_prefix=TEXT, image_count=INT64)
S3 = st.builds(messages.S3Upload, access_key=TEXT, secret=TEXT, bucket=TEXT)
OUTPUTS = st.builds(messages.EncodedFileOutput, filepath=TEXT, s3=S3)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "room_composite": st.builds(messages.RoomCompositeEgressRequest, file_outputs=st.lists(OUTPUTS, max_size=2))
    },
)
SINGLE = st.one_of(st.just({}), st.fixed_dictionaries({"file": FILES}), st.fixed_dictionaries({"segments": SEGMENTS}))


@st.composite
def infos(draw):
    return messages.EgressInfo(
        egress_id=draw(ID),
        room_id=draw(TEXT),
        room_name=draw(TEXT),
        source_type=draw(st.integers(0, 1)),
        status=draw(st.integers(0, 6)),
        started_at=draw(INT64),
        ended_at=draw(INT64),
        updated_at=draw(INT64),
        details=draw(TEXT),
        error=draw(TEXT),
        error_code=draw(st.integers(-(2**31), 2**31 - 1)),
        manifest_location=draw(TEXT),
        backup_storage_used=draw(st.booleans()),
        retry_count=draw(st.integers(0, 9)),
        stream_results=draw(st.lists(st.builds(messages.StreamInfo, url=TEXT), max_size=1)),
        file_results=draw(st.lists(FILES, max_size=2)),
        segment_results=draw(st.lists(SEGMENTS, max_size=2)),
        image_results=draw(st.lists(IMAGES, max_size=2)),
        **draw(REQUESTS),
        **draw(SINGLE),
    )


FORMS = [
    {
        "preserving_proto_field_name": snake,
        "always_print_fields_with_no_presence": zeros,
        "use_integers_for_enums": numbers,
    }
    for snake in (False, True)
    for zeros in (False, True)
    for numbers in (False, True)
]
every_form = pytest.mark.parametrize(
    "form", FORMS, ids=lambda form: "-".join(k.split("_")[0] for k, v in form.items() if v) or "plain"
)
often = settings(
    deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


def _same(ours: EgressInfo, theirs) -> None:
    for name in ("egress_id", "started_at", "ended_at", "updated_at", "error", "error_code", "backup_storage_used"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("room_id", "room_name"):
        assert getattr(ours, name) == getattr(theirs, name).replace("\0", "\\u0000")
    assert ours.status == EGRESS_STATUSES[theirs.status] == messages.EgressStatus.Name(theirs.status)
    assert ours.manifest_location.get_secret_value() == theirs.manifest_location
    one = theirs.WhichOneof("result")
    files = list(theirs.file_results) or ([theirs.file] if one == "file" else [])
    segments = list(theirs.segment_results) or ([theirs.segments] if one == "segments" else [])
    assert [(f.filename, f.size, f.location.get_secret_value()) for f in ours.file_results] == [
        (f.filename, f.size, f.location) for f in files
    ]
    assert [
        (
            s.playlist_name,
            s.live_playlist_name,
            s.playlist_location.get_secret_value(),
            s.live_playlist_location.get_secret_value(),
            s.segment_count,
            s.size,
        )
        for s in ours.segment_results
    ] == [
        (s.playlist_name, s.live_playlist_name, s.playlist_location, s.live_playlist_location, s.segment_count, s.size)
        for s in segments
    ]
    assert [(i.filename_prefix, i.image_count) for i in ours.image_results] == [
        (i.filename_prefix, i.image_count) for i in theirs.image_results
    ]


@every_form
@often
@given(theirs=infos())
def test_their_egress_is_ours_field_by_field(form, theirs):
    text = json_format.MessageToJson(theirs, **form)
    _same(EgressInfo.model_validate_json(text), theirs)
    listed = listed_egress(json.loads(text))
    assert listed.error == ""
    _same(listed.info, theirs)


@every_form
@often
@given(theirs=infos())
def test_what_is_kept_of_a_listed_egress_is_theirs_without_request_and_streams(form, theirs):
    listed = listed_egress(json.loads(json_format.MessageToJson(theirs, **form)))
    read = json_format.ParseDict(listed.document, messages.EgressInfo())
    kept = messages.EgressInfo()
    kept.CopyFrom(theirs)
    kept.ClearField("room_composite")
    kept.ClearField("stream_results")
    assert read == kept


@every_form
@often
@given(theirs=infos(), name=st.sampled_from(["egress_started", "egress_updated", "egress_ended"]), at=INT64)
def test_their_webhook_event_is_ours(form, theirs, name, at):
    event = webhook_messages.WebhookEvent(
        event=name, id="EV_1", created_at=at, egress_info=theirs, room=room_messages.Room(sid="RM_1", name="Standup")
    )
    ours = WebhookEvent.model_validate_json(json_format.MessageToJson(event, **form))
    assert (ours.event, ours.id, ours.created_at) == (name, "EV_1", at)
    _same(ours.egress_info, theirs)
    assert (ours.backup is not None) == (name == "egress_ended" and theirs.backup_storage_used)


def test_every_status_of_theirs_is_known():
    assert tuple(messages.EgressStatus.keys()) == EGRESS_STATUSES


def test_our_token_is_theirs():
    claims = livekit_api.TokenVerifier(KEY, SECRET).verify(signed_token(KEY, SECRET))
    assert claims.video.room_record is True
    granted = {name for name, value in vars(claims.video).items() if value is True}
    usual = {name for name, value in vars(livekit_api.VideoGrants()).items() if value is True}
    assert granted - usual == {"room_record"}
    with pytest.raises(jwt.InvalidSignatureError):
        livekit_api.TokenVerifier(KEY, SECRET + "x").verify(signed_token(KEY, SECRET))
    with pytest.raises(jwt.InvalidIssuerError):
        livekit_api.TokenVerifier("APIother", SECRET).verify(signed_token(KEY, SECRET))


@pytest.mark.parametrize("minutes", [-9, 0, 9])
def test_our_token_survives_a_clock_that_is_some_minutes_wrong(minutes):
    now = datetime.fromtimestamp(time.time()).astimezone() + timedelta(minutes=minutes)
    assert livekit_api.TokenVerifier(KEY, SECRET).verify(signed_token(KEY, SECRET, now)).video.room_record


@pytest.fixture
def livekit():
    with FakeLiveKit(page_size=2) as fake:
        fake.record_file("egress/standup.mp4", room_name="Standup")
        fake.record_track("tracks/alice.ogg")
        fake.record_hls("hls/webinar")
        fake.record_images("thumbs/webinar")
        fake.record_file("web.mp4", web_url="https://acme.example/stage")
        fake.list_also({"egressId": "EG_live", "status": "EGRESS_ACTIVE", "startedAt": str(time.time_ns())})
        yield fake


async def _their_list(livekit, secret=SECRET, **asked):
    async with livekit_api.LiveKitAPI(livekit.base_url, KEY, secret, failover=False) as client:
        request = messages.ListEgressRequest(**asked)
        return await client.egress.list_egress(request)


def test_their_client_reads_the_fake_as_ours_does(livekit):
    async def their_pages():
        items, token = [], ""
        while True:
            page = await _their_list(livekit, page_token=room_messages.TokenPagination(token=token))
            items += page.items
            token = page.next_page_token.token
            if not token:
                return items

    theirs = asyncio.run(their_pages())
    ours = list(LiveKitApi(livekit.base_url, KEY, SECRET).list_egress())
    assert len(theirs) == len(ours) == 6
    for one, other in zip(ours, theirs, strict=True):
        _same(one.info, other)
        assert other.WhichOneof("request"), "as real servers, with the request"


def test_their_filters_and_errors(livekit):
    [active] = asyncio.run(_their_list(livekit, active=True)).items
    assert active.egress_id == "EG_live"
    [standup] = asyncio.run(_their_list(livekit, room_name="Standup")).items
    assert standup.file_results[0].filename == "egress/standup.mp4"
    livekit.fail_api(ApiFault.TOO_MANY_REQUESTS)
    with pytest.raises(livekit_api.TwirpError) as caught:
        asyncio.run(_their_list(livekit))
    assert (caught.value.status, caught.value.code) == (429, "resource_exhausted")
    with pytest.raises(livekit_api.TwirpError) as caught:
        asyncio.run(_their_list(livekit, secret="another-secret-of-more-than-32-characters"))
    assert caught.value.status == 401


def test_the_fakes_json_is_their_message(livekit):
    import httpx

    headers = {"Authorization": f"Bearer {signed_token(KEY, SECRET)}"}
    answer = httpx.post(f"{livekit.base_url}/twirp/livekit.Egress/ListEgress", json={}, headers=headers)
    page = json_format.Parse(answer.text, messages.ListEgressResponse())
    assert [item.egress_id for item in page.items] == [item["egress_id"] for item in answer.json()["items"]]
    for item in answer.json()["items"]:
        theirs = json_format.ParseDict(item, messages.EgressInfo())
        printed = json_format.MessageToDict(
            theirs, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        # What they print for the results, the fake prints; of the request part it leaves zero values out.
        names = set(printed) - {theirs.WhichOneof("request")}
        missing = {name for name in names if name not in item}
        assert missing <= {"replay"}, missing
        assert {name: item[name] for name in names - missing} == {name: printed[name] for name in names - missing}
