"""HttpSource against a real server: whole and ranged reads, every broken body."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from livekit_backup.core import http_source
from livekit_backup.core.http_source import HttpBody, HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.errors import (
    LinkExpiredError,
    MissingError,
    RefusedError,
    SourceChangedError,
    SourceUnavailableError,
    TransferInterruptedError,
)
from livekit_backup.testing import MIB, FakeLiveKit, Fault, StoredObject

from .certificates import Authority

SIZE = 3 * MIB + 17


@pytest.fixture
def livekit() -> Iterator[FakeLiveKit]:
    with FakeLiveKit() as fake:
        yield fake


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def stored(livekit: FakeLiveKit) -> StoredObject:
    return _stored(livekit)


@pytest.fixture
def source(livekit: FakeLiveKit, stored: StoredObject) -> HttpSource:
    return _source(livekit, stored)


def _stored(livekit: FakeLiveKit, size: int = SIZE) -> StoredObject:
    [stored] = livekit.record_file("egress/ünï 1.mp4", size=size).files.values()
    return stored


def _source(livekit: FakeLiveKit, stored: StoredObject) -> HttpSource:
    return HttpSource(Location(stored.url()), (livekit.base_url.partition("://")[2],))


def _whole(stored: StoredObject) -> bytes:
    return b"".join(stored.content.pieces())


def _read(body: HttpBody, got: bytearray | None = None, buffer: int = 700_000) -> bytearray:
    """Read to the end; ``got`` keeps what came before an error."""
    got = bytearray() if got is None else got
    view = memoryview(bytearray(buffer))
    try:
        while count := body.readinto(view):
            got += view[:count]
    finally:
        body.close()
    return got


@pytest.fixture
def accepted(livekit: FakeLiveKit, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses from which connections came."""
    addresses: list[Any] = []
    accept = livekit._server.get_request

    def get_request() -> Any:
        connection, address = accept()
        addresses.append(address)
        return connection, address

    monkeypatch.setattr(livekit._server, "get_request", get_request)
    return addresses


# --- what goes well ------------------------------------------------------------------------


def test_a_whole_recording(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    body = source.open()
    assert (body.size, body.etag, body.etag_is_digest) == (SIZE, stored.etag, True)
    assert _read(body) == _whole(stored)
    [request] = livekit.requests
    assert (request.range, request.headers["accept-encoding"], request.bytes_sent) == (None, "identity", SIZE)
    assert "if-match" not in request.headers


@pytest.mark.parametrize("buffer", [1, 4096, 8192, 8193, 70_000])
def test_buffers_of_any_size(livekit: FakeLiveKit, buffer: int) -> None:
    stored = _stored(livekit, size=20_000)
    assert _read(_source(livekit, stored).open(), buffer=buffer) == _whole(stored)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, SIZE), (MIB - 1, MIB + 1), (5, None), (SIZE - 1, SIZE)])
def test_ranges(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource, start: int, stop: int | None) -> None:
    body = source.open(start, stop, stored.etag)
    assert body.size == SIZE
    assert _read(body) == _whole(stored)[start:stop]
    [request] = livekit.requests
    assert request.range == f"bytes={start}-{'' if stop is None else stop - 1}"
    assert request.headers["if-match"] == f'"{stored.etag}"'


def test_an_empty_recording(livekit: FakeLiveKit, accepted: list[Any]) -> None:
    source = _source(livekit, _stored(livekit, size=0))
    body = source.open()
    assert (body.size, _read(body)) == (0, b"")
    assert _read(source.open()) == b""
    assert len(accepted) == 1


def test_ranges_one_after_the_other_share_a_connection(
    stored: StoredObject, source: HttpSource, accepted: list[Any]
) -> None:
    got = b"".join(
        _read(source.open(start, min(start + 99_999, SIZE), stored.etag)) for start in range(0, SIZE, 99_999)
    )
    assert got == _whole(stored)
    assert len(accepted) == 1


def test_ranges_side_by_side(stored: StoredObject, source: HttpSource, accepted: list[Any]) -> None:
    with ThreadPoolExecutor(6) as pool:
        starts = range(0, SIZE, 100_000)
        got = list(pool.map(lambda start: _read(source.open(start, min(start + 100_000, SIZE), stored.etag)), starts))
    assert b"".join(got) == _whole(stored)
    assert len(accepted) <= 6


def test_a_body_that_is_left_drops_its_connection(source: HttpSource, accepted: list[Any]) -> None:
    body = source.open()
    body.readinto(memoryview(bytearray(9)))
    body.close()
    body.close()
    assert len(_read(source.open(0, 5))) == 5
    assert len(accepted) == 2


def test_a_source_leaves_no_connection_behind(livekit: FakeLiveKit, stored: StoredObject) -> None:
    source = _source(livekit, stored)
    _read(source.open())
    del source
    gc.collect()
    until = time.monotonic() + 2
    while livekit._server.connections:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_connection_that_the_server_dropped_meanwhile(stored: StoredObject, livekit: FakeLiveKit) -> None:
    source = _source(livekit, stored)
    _read(source.open(0, 5))
    for connection in list(livekit._server.connections):
        connection.shutdown(socket.SHUT_RDWR)
    assert _read(source.open(5, 9)) == _whole(stored)[5:9]


def test_a_recording_on_ipv6() -> None:
    try:
        livekit = FakeLiveKit(host="::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    with livekit:
        stored = _stored(livekit)
        assert stored.url().startswith("http://[::1]:")
        source = _source(livekit, stored)
        assert source.name.startswith("http://")
        assert _read(source.open()) == _whole(stored)
        assert _read(source.open(5, 9)) == _whole(stored)[5:9]


# --- how a broken body shows (shared/facts/s3.md) ------------------------------------------


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("at", [0, 1000, 0.5])
def test_closed_early(authority: Authority, monkeypatch: pytest.MonkeyPatch, over_tls: bool, at: float) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    with FakeLiveKit(tls=authority.server("127.0.0.1") if over_tls else None) as livekit:
        stored = _stored(livekit)
        livekit.break_(stored, Fault.CUT_SHORT, at=at, times=1)
        source = _source(livekit, stored)
        got = bytearray()
        sent = int(SIZE * at) if isinstance(at, float) else at
        with pytest.raises(TransferInterruptedError, match=f"ended {SIZE - sent} bytes early"):
            _read(source.open(), got)
        assert got == _whole(stored)[:sent]
        _read(source.open(len(got), etag=stored.etag), got)
        assert got == _whole(stored)


def test_reset(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    livekit.break_(stored, Fault.RESET, at=2 * MIB)
    got = bytearray()
    with pytest.raises(TransferInterruptedError, match="broke off: ConnectionResetError"):
        _read(source.open(), got)
    assert _whole(stored).startswith(got)


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
def test_stalled(authority: Authority, monkeypatch: pytest.MonkeyPatch, over_tls: bool) -> None:
    monkeypatch.setattr(http_source, "_TIMEOUT", urllib3.Timeout(connect=1.0, read=0.2))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    with FakeLiveKit(tls=authority.server("127.0.0.1") if over_tls else None) as livekit:
        stored = _stored(livekit)
        livekit.break_(stored, Fault.STALL, at=1000)
        got = bytearray()
        with pytest.raises(TransferInterruptedError, match="broke off: TimeoutError"):
            _read(_source(livekit, stored).open(), got)
        assert got == _whole(stored)[:1000]


@pytest.mark.parametrize("at", [0.5, 1.0])
@pytest.mark.parametrize("chunked", [False, True])
def test_without_a_length(
    livekit: FakeLiveKit, stored: StoredObject, source: HttpSource, chunked: bool, at: float
) -> None:
    livekit.break_(stored, Fault.NO_LENGTH, chunked=chunked, at=at)
    with pytest.raises(TransferInterruptedError, match="answered 200 without the length"):
        source.open()
    with pytest.raises(TransferInterruptedError, match="answered 206 without the length"):
        source.open(5)


def test_slow_drip(
    livekit: FakeLiveKit, stored: StoredObject, source: HttpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_source, "RATE_WINDOW_SECONDS", 0.5)
    livekit.break_(stored, Fault.SLOW, bytes_per_second=2000)
    got = bytearray()
    with pytest.raises(TransferInterruptedError, match="too slow to end"):
        _read(source.open(), got)
    assert 0 < len(got) < 5000
    assert _whole(stored).startswith(got)


def test_a_drip_that_is_fast_enough(livekit: FakeLiveKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "RATE_WINDOW_SECONDS", 0.3)
    stored = _stored(livekit, size=40_000)
    livekit.break_(stored, Fault.SLOW, bytes_per_second=50_000)
    assert _read(_source(livekit, stored).open()) == _whole(stored)


def test_longer_than_announced(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    livekit.break_(stored, Fault.LONGER)
    assert _read(source.open()) == _whole(stored)
    for start in range(20):
        try:
            body = source.open(start, start + 9, stored.etag)
        except SourceUnavailableError:
            # The surplus stood where the next answer should; that connection is not used again.
            body = source.open(start, start + 9, stored.etag)
        assert _read(body) == _whole(stored)[start : start + 9]


def test_compressed(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    livekit.break_(stored, Fault.GZIP)
    with pytest.raises(TransferInterruptedError, match="encoding that was not asked for"):
        source.open()


def test_redirected(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    with FakeLiveKit() as elsewhere:
        livekit.break_(stored, Fault.REDIRECT, location=_stored(elsewhere).url())
        with pytest.raises(RefusedError, match=r"redirects are not followed: .* answered 302"):
            source.open()
        assert elsewhere.requests == []


def test_a_web_page(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    livekit.break_(stored, Fault.HTML_ERROR)
    with pytest.raises(SourceUnavailableError, match="web page"):
        source.open()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault.CHANGED_ETAG, "answered 412"),
        (Fault.IGNORE_RANGE, "ignored the range"),
        (Fault.WRONG_RANGE, f"sent bytes 4 to 7 of {SIZE}, which were not asked for"),
        (Fault.TRUNCATED, "answered 412"),
    ],
)
def test_another_recording(
    livekit: FakeLiveKit, stored: StoredObject, source: HttpSource, fault: Fault, text: str
) -> None:
    livekit.break_(stored, fault, times=1)
    with pytest.raises(SourceChangedError, match=text):
        source.open(3, 7, stored.etag)
    assert _read(source.open(3, 7, stored.etag)) == _whole(stored)[3:7]


def test_another_version_without_if_match(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    livekit.break_(stored, Fault.CHANGED_ETAG)
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        source.open(etag=stored.etag)


@pytest.mark.parametrize("asked", [(SIZE,), (SIZE, SIZE + 1), (0, SIZE + 1)])
def test_a_range_beyond_the_end(source: HttpSource, asked: tuple[int, ...]) -> None:
    with pytest.raises(SourceChangedError):
        source.open(*asked)


@pytest.mark.parametrize(
    ("fault", "details", "error"),
    [
        (Fault.SERVER_ERROR, {}, SourceUnavailableError),
        (Fault.SERVER_ERROR, {"status": 503}, SourceUnavailableError),
        (Fault.TOO_MANY_REQUESTS, {}, SourceUnavailableError),
        (Fault.NOT_FOUND, {}, MissingError),
        (Fault.EXPIRED, {}, LinkExpiredError),
    ],
)
def test_a_link_that_dies_in_the_middle_is_asked_once(
    livekit: FakeLiveKit,
    stored: StoredObject,
    source: HttpSource,
    fault: Fault,
    details: dict[str, Any],
    error: type[Exception],
) -> None:
    livekit.break_(stored, fault, after=2, times=1, **details)
    for start in (0, 10):
        _read(source.open(start, start + 10, stored.etag))
    with pytest.raises(error) as caught:
        source.open(20, 30, stored.etag)
    assert "X-Amz" not in repr(caught.value)
    assert len(livekit.requests) == 3


def test_nobody_there(livekit: FakeLiveKit, stored: StoredObject, source: HttpSource) -> None:
    livekit.stop()
    with pytest.raises(SourceUnavailableError, match="did not answer: NewConnectionError") as caught:
        source.open()
    assert "X-Amz" not in repr(caught.value)
