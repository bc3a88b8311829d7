"""ListEgress without a network: what is asked and signed, what an answer means, and where a listing ends."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core import egress_listing, livekit_api
from livekit_backup.core.egress_listing import EgressListing, Page, listed_egress
from livekit_backup.core.livekit_api import ATTEMPTS, LiveKitApi, api_address, signed_token
from livekit_backup.core.twirp_answers import error_for_api_answer, twirp_error
from livekit_backup.core.upload_failures import failed_to_upload
from livekit_backup.errors import AccessDeniedError, ConfigurationError, SourceUnavailableError
from livekit_backup.models.egress import EgressInfo

KEY, SECRET = "APIkey", "the-secret-of-a-test-0123456789-0123456789"
HOST = "https://acme.livekit.cloud"


def _item(number, **more):
    return {"egress_id": f"EG_{number}", "started_at": "5", "status": "EGRESS_COMPLETE", **more}


def _page(*items, token=None):
    return json.dumps({"items": list(items), "next_page_token": token and {"token": token}}).encode()


class Bench:
    """A client of ours whose server is a list of answers, or a function of the request's number."""

    def __init__(self, monkeypatch, answers):
        self.asked, self._answers = [], answers
        transport = httpx.MockTransport(self._answer)
        monkeypatch.setattr(livekit_api, "api_client", lambda **of: httpx.Client(transport=transport, **of))
        monkeypatch.setattr(livekit_api, "async_api_client", lambda **of: httpx.AsyncClient(transport=transport, **of))
        self.api = LiveKitApi(HOST, KEY, SECRET, first_wait_seconds=0.0)

    def _answer(self, request):
        self.asked.append(request)
        answer = self._answers(len(self.asked)) if callable(self._answers) else self._answers[len(self.asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            answer = httpx.Response(200, content=answer)
        return answer

    def ids(self, **asked):
        return [listed.info.egress_id for listed in self.api.list_egress(**asked)]

    def bodies(self):
        return [json.loads(request.content) for request in self.asked]


@pytest.fixture
def bench(monkeypatch):
    return lambda answers: Bench(monkeypatch, answers)


# What is asked


def test_a_request_is_twirps_and_its_token_lists_egresses_only(bench):
    one = bench([_page()])
    assert one.ids() == []
    [request] = one.asked
    assert (request.method, str(request.url)) == ("POST", f"{HOST}/twirp/livekit.Egress/ListEgress")
    assert request.headers["content-type"] == "application/json"
    scheme, _, token = request.headers["authorization"].partition(" ")
    assert scheme == "Bearer"
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], issuer=KEY)
    assert claims["video"] == {"roomRecord": True}
    now = datetime.now(UTC).timestamp()
    assert now < claims["exp"] < now + 20 * 60
    assert now - 20 * 60 < claims["nbf"] < now
    assert set(claims) == {"iss", "nbf", "exp", "video"}


def test_filters_and_pages_are_asked_for_by_name(bench):
    one = bench([_page(_item(1), token="more"), _page(_item(2))])
    assert one.ids(room_name="Standup", egress_id="EG_1") == ["EG_1", "EG_2"]
    first = {"egress_id": "EG_1", "room_name": "Standup"}
    assert one.bodies() == [first, {**first, "page_token": {"token": "more"}}]
    two = bench([_page()])
    two.ids()
    assert two.bodies() == [{}]


def test_each_request_has_a_token_of_its_own_time(bench, monkeypatch):
    moments = iter([datetime(2026, 11, 20, 1, tzinfo=UTC), datetime(2026, 11, 20, 2, tzinfo=UTC)])
    one = bench([_page(_item(1), token="more"), _page(_item(2))])
    signed = livekit_api.signed_token
    monkeypatch.setattr(livekit_api, "signed_token", lambda key, secret: signed(key, secret, next(moments)))
    one.ids()
    tokens = [request.headers["authorization"].partition(" ")[2] for request in one.asked]
    ends = [jwt.decode(token, options={"verify_signature": False})["exp"] for token in tokens]
    assert ends[1] - ends[0] == 3600


# Where a listing ends


def test_a_page_is_asked_for_only_when_the_one_before_is_used_up(bench):
    one = bench(lambda number: _page(_item(number), token=f"to-{number}"))
    listing = one.api.list_egress()
    next(listing)
    assert len(one.asked) == 1
    next(listing)
    assert len(one.asked) == 2


@pytest.mark.parametrize(
    ("answers", "ids"),
    [
        ([_page(_item(1), token="a"), _page(_item(1), token="b")], ["EG_1"]),
        ([_page(_item(1), token="a"), _page(_item(2), token="a")], ["EG_1", "EG_2"]),
        (
            [_page(_item(1), token="a"), _page(_item(2), token="b"), _page(_item(3), token="a")],
            ["EG_1", "EG_2", "EG_3"],
        ),
        ([_page(_item(1), token="a"), _page(token="b"), _page(token="b")], ["EG_1"]),
        ([_page(_item(1), token="a"), _page(token="b"), _page(_item(2))], ["EG_1", "EG_2"]),
        ([_page(token="a"), _page(_item(1))], ["EG_1"]),
        ([_page(_item(1), token="")], ["EG_1"]),
        ([_page(_item(1), token="a"), _page(_item(1), _item(2), token="b"), _page()], ["EG_1", "EG_2"]),
        ([b'{"items": [], "next_page_token": "text"}'], []),
        ([b'{"items": [], "next_page_token": {"token": 5}}'], []),
        ([b'{"items": [{"egressId": "EG_1"}], "nextPageToken": {"token": "a"}}', b"{}"], ["EG_1"]),
        ([b"{}"], []),
        ([b'{"items": null}'], []),
    ],
)
def test_it_ends_where_nothing_new_comes(bench, answers, ids):
    one = bench(answers)
    assert one.ids() == ids
    assert len(one.asked) == len(answers)


def test_runs_of_one_id_are_several_egresses(bench):
    assert bench([_page(_item(1), _item(1, started_at="6"))]).ids() == ["EG_1", "EG_1"]


def test_an_egress_that_ended_meanwhile_is_listed_again(bench):
    live = _item(1, status="EGRESS_ACTIVE")
    ended = _item(1, backup_storage_used=True, ended_at="9")
    listed = list(bench([_page(live, _item(2), token="a"), _page(ended, _item(3))]).api.list_egress())
    assert [(one.info.egress_id, one.info.backup_storage_used) for one in listed] == [
        ("EG_1", False),
        ("EG_2", False),
        ("EG_1", True),
        ("EG_3", False),
    ]


def test_a_server_without_an_end_is_left(bench, monkeypatch):
    monkeypatch.setattr(egress_listing, "MAX_PAGES", 20)
    one = bench([_page(_item(number), token=f"to-{number}") for number in range(30)])
    with pytest.raises(SourceUnavailableError, match=f"^{HOST} goes on listing egresses behind 20 pages"):
        one.ids()
    assert len(one.asked) == 20


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(egress_listing, "MAX_REMEMBERED", 10)
    listing = EgressListing(HOST)
    given_ = [
        listed for page in range(5) for listed in listing.take(Page([_item(8 * page + n) for n in range(8)], f"{page}"))
    ]
    assert len(given_) == 40
    assert len(listing._seen) == 10


# What an item is


def test_a_document_holds_results_and_nothing_else():
    item = {
        **_item(1, error="x", error_code=5, details="d", source_type="s", retry_count=1, updated_at="7", ended_at="6"),
        "room_id": "RM_1",
        "roomName": "Standup",
        "manifestLocation": "https://x/m.json",
        "file_results": [{"filename": "a.mp4"}],
        "segmentResults": [],
        "image_results": [],
        "file": {"filename": "a.mp4"},
        "room_composite": {"file_outputs": [{"s3": {"secret": "hidden"}}]},
        "streamResults": [{"url": "rtmp://x/hidden"}],
        "stream": {"info": [{"url": "rtmp://x/hidden"}]},
        "replay": {"hidden": 1},
        "a_field_of_the_future": "hidden",
    }
    document = listed_egress(item).document
    assert "hidden" not in json.dumps(document)
    assert set(item) - set(document) == {"room_composite", "streamResults", "stream", "replay", "a_field_of_the_future"}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("text", "not a JSON object"),
        (None, "not a JSON object"),
        ([1], "not a JSON object"),
        ({"egress_id": "../up", "error": "hidden"}, "egress '../up': egress_id"),
        (_item(1, started_at="soon", error="hidden"), "egress 'EG_1': started_at"),
        (_item(1, file_results=[{"size": {"hidden": 1}}]), "egress 'EG_1': file_results.0.size"),
        ({"egressId": "EG\n1"}, "egress 'EG\\u000a1': egress"),
        ({}, "egress_id"),
    ],
)
def test_what_cannot_be_read_is_listed_with_its_reason(bench, item, words):
    one = bench([json.dumps({"items": [item, _item(7)]}).encode()])
    unreadable, readable = one.api.list_egress()
    assert unreadable.info is None
    assert words in unreadable.error
    assert "hidden" not in unreadable.error
    assert readable.info.egress_id == "EG_7"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*egress_listing._KEPT, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(items=st.lists(JSON, max_size=4))
def test_no_item_stops_a_listing(items):
    listing = EgressListing(HOST)
    listed = list(listing.take(egress_listing.read_page(HOST, json.dumps({"items": items}).encode())))
    assert all((one.info is None) == bool(one.error) for one in listed)
    assert listing.request is None


# What an answer means


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "what is no JSON"),
        (b"<html>", "what is no JSON"),
        (b"\xff\xfe", "what is no JSON"),
        (b"[" * 200_000, "JSON that is nested too deeply"),
        (b"[]", "JSON that is no list of egresses"),
        (b"5", "JSON that is no list of egresses"),
        (b'{"items": {}}', "JSON that is no list of egresses"),
        (b'{"status": "ok"}', "JSON that is no list of egresses"),
        (b'{"items": null, "error": "x"}', "JSON that is no list of egresses"),
    ],
)
def test_what_is_no_list_is_never_taken_for_an_empty_one(bench, body, words):
    one = bench([body] * ATTEMPTS)
    with pytest.raises(SourceUnavailableError) as caught:
        one.ids()
    assert str(caught.value).startswith(f"{HOST} answered {words}")


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, {"code": "unauthenticated", "msg": "permissions denied"}, AccessDeniedError, "401 unauthenticated: permissions denied: API key APIkey"),
        (403, {"code": "permission_denied", "msg": "no"}, AccessDeniedError, "403 permission_denied: no"),
        (500, {"code": "permission_denied", "msg": "no"}, AccessDeniedError, "500 permission_denied"),
        (401, "invalid API key: APIkey", AccessDeniedError, "401 invalid API key: APIkey"),
        (403, "<html>", AccessDeniedError, "403 with an HTML page"),
        (403, {"code": "resource_exhausted", "msg": "quota"}, SourceUnavailableError, "403 resource_exhausted: quota"),
        (429, "", SourceUnavailableError, "answered 429"),
        (500, {"code": "internal", "msg": "no redis"}, SourceUnavailableError, "500 internal: no redis"),
        (502, "<!DOCTYPE html>", SourceUnavailableError, "502 with an HTML page"),
        (503, "busy", SourceUnavailableError, "503 busy"),
        (408, {"code": "deadline_exceeded", "msg": "late"}, SourceUnavailableError, "late"),
        (404, {"code": "bad_route", "msg": "no handler"}, ConfigurationError, "404 bad_route: no handler: no LiveKit API is there"),
        (404, {"code": "not_found", "msg": "egress does not exist"}, ConfigurationError, "404 not_found"),
        (404, "404 page not found", ConfigurationError, "404 404 page not found: no LiveKit API is there"),
        (501, {"code": "unimplemented", "msg": "x"}, ConfigurationError, "no LiveKit API is there"),
        (400, {"code": "malformed", "msg": "x"}, ConfigurationError, "400 malformed: x"),
        (204, "", ConfigurationError, "answered 204"),
    ],
)  # fmt: skip
def test_what_another_status_means(bench, status, body, kind, words):
    text = body if isinstance(body, str) else json.dumps(body)
    one = bench(lambda _: httpx.Response(status, text=text))
    with pytest.raises(kind) as caught:
        one.ids()
    assert str(caught.value).startswith(f"{HOST} answered {status}")
    assert words in str(caught.value)
    assert len(one.asked) == (ATTEMPTS if kind is SourceUnavailableError else 1)


def test_an_egress_that_is_not_there_is_no_error_where_it_was_asked_for(bench):
    answer = httpx.Response(404, json={"code": "not_found", "msg": "egress does not exist"})
    assert bench([answer]).ids(egress_id="EG_1") == []


def test_redirects_are_told_and_not_followed(bench):
    one = bench([httpx.Response(301, headers={"Location": "https://elsewhere.example/x?token=hidden"})])
    with pytest.raises(
        ConfigurationError, match=r"301, a redirect to https://elsewhere\.example/x: redirects are not"
    ) as caught:
        one.ids()
    assert "hidden" not in str(caught.value)
    assert len(one.asked) == 1


@pytest.mark.parametrize(("minutes", "is_to_blame"), [(-9, False), (2, False), (-12, True), (12, True)])
def test_a_clock_is_blamed_only_where_tokens_do_not_make_up_for_it(minutes, is_to_blame):
    error = error_for_api_answer(HOST, KEY, 401, {}, b"invalid token", timedelta(minutes=minutes))
    assert ("NTP" in str(error)) == is_to_blame
    assert ("was it revoked" in str(error)) != is_to_blame


def test_texts_of_the_server_are_escaped_cut_and_without_tokens():
    token = signed_token(KEY, SECRET)
    code, said = twirp_error(f"invalid token: {token}, error: see https://x/?sig=hidden\x1b[31m{'x' * 500}".encode())
    assert code == ""
    assert said.startswith("invalid token: (the token), error: see https://x/?…\\u001b"[:45])
    assert "hidden" not in said
    assert "\x1b" not in said
    assert len(said) < 300
    assert twirp_error(b'{"code": 5, "msg": ["x"]}') == ("", "")
    assert twirp_error(b'{"code": "internal"}') == ("internal", "internal")
    cut = f"invalid token: {token}"[: 15 + len(token) // 2]
    assert "eyJ" not in twirp_error(cut.encode())[1]


@given(status=st.integers(201, 599), body=st.binary(max_size=200), after=st.text(max_size=20))
def test_every_answer_has_an_error(status, body, after):
    error = error_for_api_answer(HOST, KEY, status, {"retry-after": after}, body, None)
    assert str(error).startswith(HOST)
    assert str(error).isprintable()


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("0", 0), ("soon", None), ("-1", None), ("9" * 400, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)  # fmt: skip
def test_how_long_the_server_asks_to_wait(value, seconds):
    error = error_for_api_answer(HOST, KEY, 429, {"retry-after": value}, b"", None)
    assert error.retry_after == seconds


def test_it_waits_as_long_as_the_server_asks_within_bounds(bench, monkeypatch):
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    busy = [httpx.Response(429, headers={"Retry-After": seconds}) for seconds in ("3", "999")]
    assert bench([*busy, _page(_item(1))]).ids() == ["EG_1"]
    assert waits == [3, livekit_api.MAX_WAIT_SECONDS]


def test_no_answer_is_tried_again_and_then_said(bench):
    one = bench(lambda _: httpx.ConnectError("[Errno -2] Name or service not known"))
    with pytest.raises(
        SourceUnavailableError, match=r"did not answer: ConnectError \[Errno -2\] Name or service not known"
    ):
        one.ids()
    assert len(one.asked) == ATTEMPTS
    two = bench([httpx.ReadError(""), httpx.Response(503), _page(_item(1))])
    assert two.ids() == ["EG_1"]


def test_a_page_is_bounded(bench, monkeypatch):
    monkeypatch.setattr(livekit_api, "MAX_PAGE_BYTES", 10_000)
    monkeypatch.setattr(livekit_api, "ATTEMPTS", 1)
    bomb = gzip.compress(b" " * 5_000_000)
    for content, headers in ((b" " * 10_001, {}), (bomb, {"Content-Encoding": "gzip"})):
        one = bench([httpx.Response(200, content=content, headers=headers)])
        with pytest.raises(SourceUnavailableError, match="a page of over 10000 bytes"):
            one.ids()


def test_of_an_errors_body_only_the_beginning_is_read(bench):
    def endless():
        yield b"no "
        yield from itertools.repeat(b"x" * 1024)

    with pytest.raises(AccessDeniedError, match="answered 401 no xxx"):
        bench([httpx.Response(401, content=endless())]).ids()


def test_a_page_that_drips_is_left(bench, monkeypatch):
    monkeypatch.setattr(livekit_api, "TOTAL_SECONDS", 0.0)
    monkeypatch.setattr(livekit_api, "ATTEMPTS", 1)
    with pytest.raises(SourceUnavailableError, match="took over 0 s"):
        bench([httpx.Response(200, content=itertools.repeat(b" "))]).ids()


@pytest.mark.parametrize("encoding", ["gzip, gzip", "zstd", "br"])
@pytest.mark.parametrize("status", [200, 401])
def test_what_could_unpack_without_end_is_not_unpacked(bench, monkeypatch, encoding, status):
    monkeypatch.setattr(livekit_api, "ATTEMPTS", 1)
    bomb = gzip.compress(gzip.compress(b" " * 5_000_000))
    headers = {"Content-Encoding": encoding}
    # As a stream, else the bench's own httpx unpacks it beforehand.
    one = bench([httpx.Response(status, content=iter([bomb]), headers=headers)])
    with pytest.raises(SourceUnavailableError, match=f"answered {status} in the encoding '{encoding}'"):
        one.ids()


def test_a_compressed_page_is_read(bench):
    content = gzip.compress(_page(_item(1)))
    one = bench([httpx.Response(200, content=content, headers={"Content-Encoding": "gzip"})])
    assert one.ids() == ["EG_1"]


def test_in_a_trigger_it_is_the_same(bench):
    async def collect(one):
        return [listed.info.egress_id async for listed in one.api.alist_egress(egress_id="EG_1")]

    retried = bench([httpx.Response(503), _page(_item(1), token="a"), _page(_item(2))])
    assert asyncio.run(collect(retried)) == ["EG_1", "EG_2"]
    denied = bench([httpx.Response(401)])
    with pytest.raises(AccessDeniedError):
        asyncio.run(collect(denied))
    unanswered = bench(lambda _: httpx.ConnectTimeout(""))
    with pytest.raises(SourceUnavailableError, match="did not answer: ConnectTimeout"):
        asyncio.run(collect(unanswered))
    assert len(unanswered.asked) == ATTEMPTS


OUT_OF_RANGE = "Fri, 31 Dec 9999 23:59:59 -0500", "Sun, 06 Nov 99999999999 08:49:37 +0000"


@pytest.mark.parametrize("date", ["", "now", "Wed, 21 Oct 2015 07:28:00", *OUT_OF_RANGE])
def test_the_clocks_difference(bench, date):
    one = bench([httpx.Response(200, content=_page(), headers={"Date": date})])
    assert one.api.clock_skew is None
    one.ids()
    if "2015" in date:
        assert one.api.clock_skew < timedelta(days=-365)
    else:
        assert one.api.clock_skew is None


# Addresses and keys


@pytest.mark.parametrize(
    ("given_", "address"),
    [
        ("https://acme.livekit.cloud", HOST),
        ("https://acme.livekit.cloud/", HOST),
        ("wss://acme.livekit.cloud", HOST),
        ("acme.livekit.cloud", HOST),
        ("ACME.livekit.cloud\n", HOST),
        ("ws://localhost:7880", "http://localhost:7880"),
        ("10.0.0.7:7880", "https://10.0.0.7:7880"),
        ("http://[fd00::7]:7880/", "http://[fd00::7]:7880"),
        ("https://proxy.internal/livekit/", "https://proxy.internal/livekit"),
        ("https://my_host-1.internal.", "https://my_host-1.internal."),
    ],
)
def test_addresses(given_, address):
    assert api_address(given_) == address
    assert str(httpx.URL(address)).rstrip("/") == address, "httpx can use it"


@pytest.mark.parametrize(
    "given_",
    [
        "", "https://", "ftp://acme.livekit.cloud", "file:///etc/passwd", "https://acme.livekit.cloud:0x", "https://:443",
        "https://acme.livekit.cloud:99999", "https://user:hidden@acme.livekit.cloud", "https://a/?x=hidden",
        "https://a/#hidden", "https://a b", "https://acme..livekit.cloud", "https://a/b\r\nX: y", "https://[", "https://ä.de",
        f"https://{'a' * 64}.de", f"https://{'a.' * 130}de", "https://a/%2e%2e", "//", "https://a\\b",
        "https://xn--zzzzz-.livekit.cloud", "http://999.1.1.1:7880",
    ],
)  # fmt: skip
def test_what_is_no_address(given_):
    with pytest.raises(ConfigurationError) as caught:
        api_address(given_)
    assert "give it as https://acme.livekit.cloud" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text(max_size=60))
def test_every_address_can_be_used_or_is_refused(text):
    with contextlib.suppress(ConfigurationError):
        assert httpx.URL(api_address(text)).host


@pytest.mark.parametrize(("key", "secret"), [("", SECRET), (KEY, ""), (" ", SECRET), (KEY, "\n")])
def test_a_key_without_its_secret(key, secret):
    with pytest.raises(ConfigurationError, match="needs an API key and its secret") as caught:
        LiveKitApi(HOST, key, secret)
    assert SECRET not in str(caught.value)


def test_a_key_and_secret_are_taken_without_the_space_around_them(bench, monkeypatch):
    one = bench([_page()])
    one.api = LiveKitApi(HOST, f" {KEY}\n", f"{SECRET}\n")
    one.ids()
    token = one.asked[0].headers["authorization"].partition(" ")[2]
    assert jwt.decode(token, SECRET, algorithms=["HS256"], issuer=KEY)


def test_a_secret_is_in_no_repr_and_no_error(bench):
    one = bench([httpx.Response(401, text=SECRET[:0])])
    assert SECRET not in repr(one.api)
    with pytest.raises(AccessDeniedError) as caught:
        one.ids()
    assert SECRET not in repr(caught.value)


def test_the_clients_are_real_ones():
    """Where nothing replaces them, both are httpx clients that follow no redirect."""
    options = LiveKitApi(HOST, KEY, SECRET)._options()
    with livekit_api.api_client(**options) as client:
        assert client.follow_redirects is False

    async def in_a_loop():
        async with livekit_api.async_api_client(**options) as client:
            assert client.follow_redirects is False

    asyncio.run(in_a_loop())


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "SSL_CERT_FILE"])
def test_an_unusable_environment_is_said_in_triggers_too(monkeypatch, variable):
    monkeypatch.setenv(variable, "socks5://me:hidden@proxy" if variable == "HTTPS_PROXY" else "/nowhere")
    monkeypatch.delenv("https_proxy", raising=False)
    with pytest.raises(ConfigurationError, match=variable) as caught:
        asyncio.run(anext(LiveKitApi(HOST, KEY, SECRET).alist_egress()))
    assert "hidden" not in str(caught.value)


# Failed uploads


@pytest.mark.parametrize(
    "error",
    [
        "S3 upload failed: operation error S3: PutObject, exceeded maximum number of attempts, 3, StatusCode: 502",
        "GCP upload failed: googleapi: Error 403: denied",
        "Azure upload failed: x",
        "AliOSS upload failed: x",
        "primary: S3 upload failed: x\nbackup: S3 upload failed: y",
        "pipeline frozen\nS3 upload failed: x",
        "seg_00007.ts upload failed: segment upload job queue is full",
        "segments upload queue full (1000 pending): storage cannot keep up",
        "failed to retrieve upload bucket region: AccessDenied",
        "MultipartUpload: upload multipart failed\n\tupload id: AEZBB1",
        "twirp error: operation error S3: UploadPart, https response error StatusCode: 500",
    ],
)
def test_failed_uploads(error):
    for status in ("EGRESS_FAILED", "EGRESS_COMPLETE", "EGRESS_LIMIT_REACHED"):
        assert failed_to_upload(EgressInfo(egress_id="EG_1", status=status, error=error))
    assert not failed_to_upload(
        EgressInfo(egress_id="EG_1", status="EGRESS_FAILED", error=error, backup_storage_used=True)
    )
    assert not failed_to_upload(EgressInfo(egress_id="EG_1", status="EGRESS_ACTIVE", error=error))


@pytest.mark.parametrize(
    "error",
    [
        "",
        "pipeline frozen",
        "Start signal not received",
        "Session limit reached",
        "recording ended early: connection to room failed",
        "request has missing or invalid field: output",
        "page load error: net::ERR_NAME_NOT_RESOLVED",
        "template error: could not upload failed state",
        "stream rtmp://x/upload not found",
        "CPU exhausted: 9.00 cores used",
    ],
)
def test_other_failures(error):
    assert not failed_to_upload(EgressInfo(egress_id="EG_1", status="EGRESS_FAILED", error=error))
