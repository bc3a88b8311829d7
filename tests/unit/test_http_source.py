"""How an answer with a recording is taken, without a network."""

from __future__ import annotations

import io

import pytest
import urllib3

from livekit_backup.core import http_source
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.errors import (
    AccessDeniedError,
    LinkExpiredError,
    MissingError,
    RefusedError,
    SourceUnavailableError,
    TransferInterruptedError,
)
from unit.fakes import signed

ETAG = "0" * 32
DATA = b"0123456789"


class Pool:
    """Answers each request with the next answer, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def request(self, method, url, **options):
        self.asked.append((method, url, options))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def clear(self):
        self.answers = []


def _answer(status=200, body=DATA, **headers):
    headers = {
        "Content-Length": str(len(body)),
        "ETag": f'"{ETAG}"',
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    return urllib3.HTTPResponse(
        io.BytesIO(body),
        headers={name: value for name, value in headers.items() if value is not None},
        status=status,
        preload_content=False,
        decode_content=False,
        enforce_content_length=False,
    )


def _source(*answers, url=None):
    link = url or signed("k.mp4").replace("20261120", "20990101")
    source = HttpSource(Location(link), ("livekit-egress.s3.amazonaws.com",), lambda host, port: ["52.218.1.1"])
    source._pool = Pool(*answers)
    return source


def _read(body, size=4):
    read = b""
    while True:
        view = bytearray(size)
        count = body.readinto(memoryview(view))
        if not count:
            return read
        read += view[:count]


def test_a_whole_recording():
    source = _source(_answer())
    body = source.open()
    assert (body.size, body.etag, body.etag_is_digest) == (10, ETAG, True)
    assert _read(body) == DATA
    method, _, options = source._pool.asked[0]
    assert method == "GET"
    assert options["headers"] == {"Accept-Encoding": "identity"}
    assert (options["redirect"], options["retries"]) == (False, False)


def test_the_rest_of_a_recording():
    source = _source(_answer(206, DATA[4:], Content_Range="bytes 4-9/10"))
    body = source.open(4, ETAG)
    assert (body.size, _read(body)) == (10, DATA[4:])
    assert source._pool.asked[0][2]["headers"] == {
        "Accept-Encoding": "identity",
        "Range": "bytes=4-",
        "If-Match": f'"{ETAG}"',
    }


@pytest.mark.parametrize(
    ("answer", "start", "error", "text"),
    [
        (_answer(Content_Length=None), 0, TransferInterruptedError, "without the length"),
        (_answer(Content_Length="ten"), 0, TransferInterruptedError, "without the length"),
        (_answer(206, Content_Range="bytes 0-9/10"), 0, TransferInterruptedError, "answered 206 without"),
        (_answer(200), 4, TransferInterruptedError, "answered 200 without"),
        (_answer(206), 4, TransferInterruptedError, "range asked for"),
        (
            _answer(206, DATA[4:], Content_Range="bytes 5-9/10"),
            4,
            TransferInterruptedError,
            "range asked for",
        ),
        (
            _answer(206, DATA[4:], Content_Range="bytes 4-8/10"),
            4,
            TransferInterruptedError,
            "range asked for",
        ),
        (
            _answer(206, DATA[5:], Content_Range="bytes 4-9/10"),
            4,
            TransferInterruptedError,
            "range asked for",
        ),
        (_answer(206, DATA[4:], Content_Range="bytes 4-9/*"), 4, TransferInterruptedError, "range asked for"),
        (
            _answer(206, DATA[4:], Content_Range="bytes 4-9/10", ETag='"other"'),
            4,
            TransferInterruptedError,
            "changed",
        ),
        (_answer(412), 4, TransferInterruptedError, "changed"),
        (_answer(416), 4, TransferInterruptedError, "changed"),
        (_answer(416), 0, AccessDeniedError, "416"),
        (_answer(Content_Encoding="gzip"), 0, TransferInterruptedError, "encoding"),
        (_answer(Content_Type="text/html; charset=utf-8"), 0, SourceUnavailableError, "web page"),
        (_answer(302, Location="http://169.254.169.254/"), 0, RefusedError, "redirects"),
        (_answer(404), 0, MissingError, "404"),
        (_answer(403, b"<Code>AccessDenied</Code>Request has expired"), 4, LinkExpiredError, "expired"),
        (_answer(503, Retry_After="7"), 0, SourceUnavailableError, "503"),
        (urllib3.exceptions.ProtocolError(f"x {signed('k')}"), 0, SourceUnavailableError, "ProtocolError"),
        (urllib3.exceptions.MaxRetryError(None, signed("k")), 0, SourceUnavailableError, "MaxRetryError"),
        (ConnectionResetError("reset"), 0, SourceUnavailableError, "ConnectionResetError"),
    ],
)
def test_answers_that_cannot_be_used(answer, start, error, text):
    with pytest.raises(error, match=text) as caught:
        _source(answer).open(start, ETAG if start else "")
    assert type(caught.value) is error
    assert "X-Amz" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert isinstance(answer, Exception) or answer.closed


def test_how_long_to_wait_is_kept():
    with pytest.raises(SourceUnavailableError) as caught:
        _source(_answer(503, Retry_After="7")).open()
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (signed("k", "20200101T000000Z"), LinkExpiredError),
        ("https://evil.example/k?Signature=s", RefusedError),
        ("file:///etc/passwd", RefusedError),
    ],
)
def test_what_is_not_even_asked(url, error):
    source = _source(url=url)
    with pytest.raises(error):
        source.open()
    assert source._pool.asked == []


def test_a_body_that_ends_early_or_breaks_off():
    body = _source(_answer(body=DATA[:6], Content_Length="10")).open()
    with pytest.raises(TransferInterruptedError, match="ended 4 bytes early"):
        _read(body)
    body = _source(_answer()).open()
    body._response = type("Broken", (), {"read1": lambda *_, **__: (_ for _ in ()).throw(OSError(signed("k")))})()
    with pytest.raises(TransferInterruptedError, match="broke off: OSError") as caught:
        _read(body)
    assert "X-Amz" not in str(caught.value)


def test_more_than_was_announced_is_not_read():
    assert _read(_source(_answer(body=DATA * 2, Content_Length="10")).open()) == DATA


@pytest.mark.parametrize(
    ("headers", "is_digest"),
    [
        ({}, True),
        ({"x_amz_server_side_encryption": "AES256"}, True),
        ({"x_amz_server_side_encryption": "aws:kms"}, False),
        ({"x_amz_server_side_encryption": "aws:kms:dsse"}, False),
        ({"x_amz_server_side_encryption_customer_algorithm": "AES256"}, False),
        ({"X_Goog_Hash": "crc32c=x"}, False),
    ],
)
def test_where_etags_are_digests(headers, is_digest):
    assert _source(_answer(**headers)).open().etag_is_digest is is_digest


@pytest.mark.parametrize(
    ("sent", "etag"), [(f'W/"{ETAG}"', ETAG), (ETAG, ETAG), (None, ""), (f' "{ETAG}-3" ', f"{ETAG}-3")]
)
def test_etags_without_their_dress(sent, etag):
    assert _source(_answer(ETag=sent)).open().etag == etag


def test_a_drip_is_given_up(monkeypatch):
    now = 0.0
    monkeypatch.setattr(http_source.time, "monotonic", lambda: now)
    body = _source(_answer()).open()
    now = 61.0
    with pytest.raises(TransferInterruptedError, match="too slow"):
        _read(body)


def test_a_slow_end_is_an_end(monkeypatch):
    now = 0.0
    monkeypatch.setattr(http_source.time, "monotonic", lambda: now)
    body = _source(_answer()).open()
    now = 61.0
    assert _read(body, 10) == DATA


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.acme:3128")
    assert isinstance(http_source._pool_for(Location(signed("k"))), urllib3.ProxyManager)
    monkeypatch.setenv("no_proxy", ".amazonaws.com")
    assert not isinstance(http_source._pool_for(Location(signed("k"))), urllib3.ProxyManager)
