"""How an answer with a recording is taken, without a network."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import urllib3

from livekit_backup.core import http_source
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    LinkExpiredError,
    MissingError,
    RefusedError,
    SourceChangedError,
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


class Stream(io.BytesIO):
    """A socket's buffered reader: gives a few bytes a read, takes its time, and breaks at the end if told to."""

    def __init__(self, data, each=None, seconds=0.0, clock=None, error=None):
        super().__init__(data)
        self.each, self.seconds, self.clock, self.error, self.reads = each, seconds, clock, error, 0

    def readinto1(self, view):
        self.reads += 1
        if self.clock:
            self.clock.now += self.seconds
        count = super().readinto(view[: self.each])
        if not count and self.error:
            raise self.error
        return count


def _answer(status=200, body=DATA, **headers):
    stream = body if isinstance(body, io.BytesIO) else Stream(body)
    headers = {
        "Content-Length": str(len(stream.getvalue())),
        "ETag": f'"{ETAG}"',
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    connection = SimpleNamespace(answer=SimpleNamespace(fp=stream, close=stream.close), close=lambda: None)
    return urllib3.HTTPResponse(
        stream,
        headers={name: value for name, value in headers.items() if value is not None},
        status=status,
        preload_content=False,
        decode_content=False,
        enforce_content_length=False,
        connection=connection,
    )


def _source(*answers, url=None):
    link = url or signed("k.mp4").replace("20261120", "20990101")
    source = HttpSource(Location(link), ("livekit-egress.s3.amazonaws.com",), lambda host, port: ["52.218.1.1"])
    source._home._pool = Pool(*answers)
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
    method, _, options = source._home._pool.asked[0]
    assert method == "GET"
    assert options["headers"] == {"Accept-Encoding": "identity"}
    assert (options["redirect"], options["retries"]) == (False, False)


def test_the_rest_of_a_recording():
    source = _source(_answer(206, DATA[4:], Content_Range="bytes 4-9/10"))
    body = source.open(4, etag=ETAG)
    assert (body.size, _read(body)) == (10, DATA[4:])
    assert source._home._pool.asked[0][2]["headers"] == {
        "Accept-Encoding": "identity",
        "Range": "bytes=4-",
        "If-Match": f'"{ETAG}"',
    }


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (0, 1), (2, 7), (9, 10)])
def test_a_range_of_a_recording(start, stop):
    source = _source(_answer(206, DATA[start:stop], Content_Range=f"bytes {start}-{stop - 1}/10"))
    body = source.open(start, stop)
    assert (body.size, body.etag, _read(body)) == (10, ETAG, DATA[start:stop])
    assert source._home._pool.asked[0][2]["headers"] == {
        "Accept-Encoding": "identity",
        "Range": f"bytes={start}-{stop - 1}",
    }


def test_a_version_is_asked_for_only_with_a_range():
    source = _source(_answer(), _answer(206, DATA[:3], Content_Range="bytes 0-2/10"))
    source.open(etag=ETAG)
    source.open(0, 3, ETAG)
    assert ["If-Match" in options["headers"] for _, _, options in source._home._pool.asked] == [False, True]


REST = DATA[4:]
RANGE = "bytes 4-9/10"


@pytest.mark.parametrize(
    ("answer", "asked", "error", "text"),
    [
        (_answer(Content_Length=None), (), TransferInterruptedError, "without the length"),
        (_answer(Content_Length="ten"), (), TransferInterruptedError, "without the length"),
        (_answer(Content_Length="9" * 5000), (), TransferInterruptedError, "without the length"),
        (_answer(Content_Length="10, 10"), (), TransferInterruptedError, "without the length"),
        (_answer(Transfer_Encoding="chunked"), (), TransferInterruptedError, "without the length"),
        (_answer(206, Content_Range="bytes 0-9/10"), (), TransferInterruptedError, "answered 206 without"),
        (_answer(206, REST[1:], Content_Range=RANGE), (4,), TransferInterruptedError, "without the length"),
        (_answer(206, REST, Content_Range=RANGE, Content_Length=None), (4,), TransferInterruptedError, "the length"),
        (_answer(200), (4,), SourceChangedError, "ignored the range"),
        (_answer(200), (0, 10), SourceChangedError, "ignored the range"),
        (_answer(206), (4,), SourceChangedError, "which range"),
        (_answer(206, REST, Content_Range="bytes 4-9/*"), (4,), SourceChangedError, "which range"),
        (_answer(206, REST, Content_Range="bytes 5-9/10"), (4,), SourceChangedError, "not asked for"),
        (_answer(206, REST, Content_Range="bytes 4-8/10"), (4,), SourceChangedError, "not asked for"),
        (_answer(206, REST, Content_Range=RANGE), (4, 9), SourceChangedError, "not asked for"),
        (_answer(206, REST, Content_Range=RANGE), (4, 11), SourceChangedError, "not asked for"),
        (_answer(206, REST, Content_Range=RANGE, ETag='"other"'), (4,), SourceChangedError, "changed"),
        (_answer(ETag='"other"'), (0, None, "old"), SourceChangedError, "changed"),
        (_answer(412), (4,), SourceChangedError, "changed"),
        (_answer(416), (4,), SourceChangedError, "changed"),
        (_answer(416), (0, 4), SourceChangedError, "changed"),
        (_answer(416), (), AccessDeniedError, "416"),
        (_answer(407), (), ConfigurationError, "the proxy .* answered 407"),
        (_answer(Content_Encoding="gzip"), (), TransferInterruptedError, "encoding"),
        (_answer(Content_Type="text/html; charset=utf-8"), (), SourceUnavailableError, "web page"),
        (_answer(302, Location="http://169.254.169.254/"), (), RefusedError, "redirects"),
        (_answer(Content_Length=str(51 * 1024**4)), (), RefusedError, "more than S3 stores"),
        (_answer(404), (), MissingError, "404"),
        (_answer(403, b"<Code>AccessDenied</Code>Request has expired"), (4,), LinkExpiredError, "expired"),
        (_answer(403, Stream(b"Request has expired", each=5)), (), LinkExpiredError, "expired"),
        (_answer(503, Retry_After="7"), (), SourceUnavailableError, "503"),
        (urllib3.exceptions.ProtocolError(f"x {signed('k')}"), (), SourceUnavailableError, "ProtocolError"),
        (urllib3.exceptions.MaxRetryError(None, signed("k")), (), SourceUnavailableError, "MaxRetryError"),
        (urllib3.exceptions.LocationParseError(signed("k")), (), RefusedError, "not a usable URL"),
        (ConnectionResetError("reset"), (), SourceUnavailableError, "ConnectionResetError"),
    ],
)
def test_answers_that_cannot_be_used(answer, asked, error, text):
    start, stop, etag = (*asked, *(0, None, ETAG if asked else "")[len(asked) :])
    with pytest.raises(error, match=text) as caught:
        _source(answer).open(start, stop, etag)
    assert type(caught.value) is error
    assert "X-Amz" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
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
    assert source._home._pool.asked == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "ended 4 bytes early"),
        (OSError(signed("k")), "broke off: OSError"),
        (TimeoutError("timed out"), "broke off: TimeoutError"),
    ],
)
def test_what_came_before_a_fault_is_handed_over(error, text):
    body = _source(_answer(body=Stream(DATA[:6], each=2, error=error), Content_Length="10")).open()
    view = memoryview(bytearray(10))
    assert body.readinto(view) == 6
    assert view[:6] == DATA[:6]
    for _ in range(2):
        with pytest.raises(TransferInterruptedError, match=text) as caught:
            body.readinto(view)
        assert "X-Amz" not in str(caught.value)
    body.close()
    assert body._response.closed


def test_a_connection_is_kept_only_behind_a_whole_answer(monkeypatch):
    for read, is_kept in ((3, False), (10, True)):
        closed = []
        answer = _answer()
        answer.connection.close = lambda: closed.append(1)  # noqa: B023
        body = _source(answer).open()
        body.readinto(memoryview(bytearray(read)))
        body.close()
        body.close()
        assert bool(closed) is not is_kept
        assert answer.connection.answer.fp.closed


def test_a_call_gathers_what_comes_at_once(monkeypatch):
    stream = Stream(DATA, each=3)
    body = _source(_answer(body=stream)).open()
    assert body.readinto(memoryview(bytearray(99))) == 10
    assert body.readinto(memoryview(bytearray(99))) == 0
    assert body.readinto(memoryview(b"")) == 0
    assert stream.reads == 4


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
    ("sent", "etag"),
    [
        (f'W/"{ETAG}"', ""),
        (f'w/"{ETAG}"', ""),
        (ETAG, ETAG),
        (None, ""),
        (f' "{ETAG}-3" ', f"{ETAG}-3"),
        ('"date:then"', ""),
    ],
)
def test_etags_without_their_dress(sent, etag):
    body = _source(_answer(ETag=sent)).open()
    assert (body.etag, body.version) == (etag, etag)
    assert body.etag_is_digest is bool(etag)


THEN = "Fri, 20 Nov 2026 20:43:42 GMT"


@pytest.mark.parametrize(
    ("etag", "date", "version"),
    [
        (f'"{ETAG}"', THEN, ETAG),
        (f'W/"{ETAG}"', THEN, f"date:{THEN}"),
        (None, f" {THEN} ", f"date:{THEN}"),
        (None, THEN.replace(" 20:", "\r\n 20:"), f"date:{THEN}"),
        (None, None, ""),
        (None, "0", ""),
        (None, "yesterday", ""),
        (None, "Mon, 01 Jan 99999999999 00:00:00 GMT", ""),
        (None, "Mon, 01 Jan 2024 00:00:00 +99999999999", ""),
    ],
)
def test_what_names_a_version(etag, date, version):
    assert _source(_answer(ETag=etag, Last_Modified=date)).open().version == version


@pytest.mark.parametrize("etag", [None, f'W/"{ETAG}"', f'"{ETAG}"'])
def test_a_version_that_is_named_by_its_date(etag):
    source = _source(_answer(206, DATA[4:], Content_Range="bytes 4-9/10", ETag=etag, Last_Modified=THEN))
    assert _read(source.open(4, etag=f"date:{THEN}")) == DATA[4:]
    assert source._home._pool.asked[0][2]["headers"] == {
        "Accept-Encoding": "identity",
        "Range": "bytes=4-",
        "If-Unmodified-Since": THEN,
    }


@pytest.mark.parametrize("date", [None, THEN.replace("42", "43")])
@pytest.mark.parametrize("start", [0, 4])
def test_another_date_is_another_version(date, start):
    answer = _answer(206 if start else 200, DATA[start:], Content_Range="bytes 4-9/10", Last_Modified=date)
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        _source(answer).open(start, etag=f"date:{THEN}")
    assert answer.closed


def test_an_etag_that_became_weak_is_another_version():
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        _source(_answer(206, DATA[4:], Content_Range="bytes 4-9/10", ETag=f'W/"{ETAG}"')).open(4, etag=ETAG)


def test_behind_a_proxy_no_name_is_looked_up(monkeypatch):
    def resolver(host, port):
        pytest.fail("resolved")

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.acme:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    source = HttpSource(Location(signed("k.mp4").replace("20261120", "20990101")), ("*.amazonaws.com",), resolver)
    source._home._pool = Pool(_answer())
    assert _read(source.open()) == DATA
    elsewhere = HttpSource(Location("https://10.0.0.5/k?Signature=s"), ("*.0.5",), resolver)
    with pytest.raises(RefusedError, match="not a public address"):
        elsewhere.open()


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(http_source, "time", clock)
    return clock


def test_a_call_does_not_wait_for_a_full_buffer(clock):
    stream = Stream(DATA, each=1, seconds=0.1, clock=clock)
    body = _source(_answer(body=stream)).open()
    assert body.readinto(memoryview(bytearray(10))) == 3
    assert clock.now < 0.4


def test_a_drip_is_given_up(clock):
    body = _source(_answer(body=Stream(bytes(9999), each=1, seconds=20.0, clock=clock))).open()
    view = memoryview(bytearray(9999))
    for _ in range(3):
        assert body.readinto(view) == 1
    with pytest.raises(TransferInterruptedError, match="gave 3 bytes in 60 s, too slow to end"):
        body.readinto(view)


def test_each_window_is_measured_by_itself(clock):
    stream = Stream(bytes(10_000_000), each=2_000_000, seconds=30.0, clock=clock)
    body = _source(_answer(body=stream)).open()
    view = memoryview(bytearray(1_000_000))
    assert [body.readinto(view) for _ in range(4)] == [io.DEFAULT_BUFFER_SIZE, *[1_000_000] * 3]
    stream.each = 9
    assert [body.readinto(view) for _ in range(2)] == [9, 9]
    with pytest.raises(TransferInterruptedError, match="gave 18 bytes in 60 s"):
        body.readinto(view)


def test_a_slow_end_is_an_end(clock):
    assert _read(_source(_answer(body=Stream(DATA, seconds=61.0, clock=clock))).open(), 10) == DATA


def test_a_slow_caller_is_no_drip(clock):
    body = _source(_answer(body=Stream(DATA, each=1, seconds=0.5, clock=clock))).open()
    read = 0
    while count := body.readinto(memoryview(bytearray(10))):
        read += count
        clock.now += 3600
    assert read == 10
