"""The fake against real HTTP clients: recordings, events, refusals, and every fault."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import urllib3
import zstandard

from livekit_backup.testing import MIB, FakeLiveKit, Fault, SigningKey, SyntheticBytes
from livekit_backup.testing.synthetic_bytes import (
    Flipped,
    LiteralBytes,
    Shortened,
    etag_of,
    part_size,
    sha256_of,
)

from .certificates import Authority

NOW = datetime(2024, 11, 20, 20, 43, 43, tzinfo=UTC)
SIZE = 300_000


@pytest.fixture
def livekit():
    with FakeLiveKit() as fake:
        yield fake


@pytest.fixture
def recording(livekit):
    return livekit.record_file("egress/standup.mp4", size=SIZE, room_name="Standup")


@pytest.fixture
def stored(recording):
    return recording.files["egress/standup.mp4"]


@pytest.fixture
def client():
    with httpx.Client(timeout=5, verify=False, headers={"Accept-Encoding": "identity"}) as client:
        yield client


def _whole(stored) -> bytes:
    return b"".join(stored.content.pieces())


def _read_into(got: bytearray, client: httpx.Client, stored) -> None:
    with client.stream("GET", stored.url()) as response:
        for piece in response.iter_raw():
            got += piece


def _code(response: httpx.Response) -> str:
    return re.search("<Code>(.*)</Code>", response.text)[1]


# --- bytes ---------------------------------------------------------------------------------


def test_bytes_are_the_same_wherever_one_starts():
    content = SyntheticBytes("seed", 3 * MIB + 17)
    whole = b"".join(content.pieces())

    assert len(whole) == content.size
    for start, stop in [
        (0, 1),
        (MIB - 1, MIB + 1),
        (5, 2 * MIB + 9),
        (3 * MIB, None),
        (9, 9),
        (9 * MIB, None),
    ]:
        assert b"".join(content.pieces(start, stop)) == whole[start:stop]
    assert whole == b"".join(SyntheticBytes("seed", 3 * MIB + 17).pieces())
    assert whole[:MIB] != b"".join(SyntheticBytes("other", MIB).pieces())


def test_no_two_blocks_are_alike_even_far_in():
    content = SyntheticBytes("seed", 20 * 1024 * MIB)
    blocks = {hashlib.sha256(next(content.pieces(at * MIB))).digest() for at in (0, 1, 2, 1000, 20 * 1024 - 1)}

    assert len(blocks) == 5


@pytest.mark.parametrize("size", [0, 1, 5 * MIB])
def test_etag_of_one_part_is_the_md5(size):
    content = SyntheticBytes("seed", size)

    assert etag_of(content) == hashlib.md5(b"".join(content.pieces())).hexdigest()
    assert sha256_of(content) == hashlib.sha256(b"".join(content.pieces())).hexdigest()


def test_etag_of_more_parts_is_the_md5_of_their_md5s():
    content = SyntheticBytes("seed", 10 * MIB + 1)
    whole = b"".join(content.pieces())
    digests = [hashlib.md5(whole[at : at + 5 * MIB]).digest() for at in (0, 5 * MIB, 10 * MIB)]

    assert etag_of(content) == hashlib.md5(b"".join(digests)).hexdigest() + "-3"


@pytest.mark.parametrize(
    ("upload_part_size", "cuts"),
    [(8 * MIB, [0, 8 * MIB, 10 * MIB + 1]), (16 * MIB, [0, 10 * MIB + 1]), (10 * MIB + 1, [0, 10 * MIB + 1])],
)
def test_etag_of_another_uploader(upload_part_size, cuts):
    content = SyntheticBytes("seed", 10 * MIB + 1)
    whole = b"".join(content.pieces())
    digests = [hashlib.md5(whole[start:stop]).digest() for start, stop in itertools.pairwise(cuts)]

    assert etag_of(content, upload_part_size) == f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"
    assert etag_of(content, 0) == hashlib.md5(whole).hexdigest()


def test_etag_of_nothing_in_one_part():
    nothing = hashlib.md5(b"").digest()

    assert etag_of(LiteralBytes(b""), MIB) == f"{hashlib.md5(nothing).hexdigest()}-1"


def test_part_size_is_the_uploaders():
    assert part_size(52_428_799_999) == 5_242_880
    assert part_size(52_428_800_000) == 5_242_881


def test_derived_contents():
    content = LiteralBytes(b"abcdef")

    assert b"".join(Shortened(content, 4).pieces(1)) == b"bcd"
    assert b"".join(Flipped(content, 3).pieces(2)) == b"c" + bytes([ord("d") ^ 0xFF]) + b"ef"


# --- what S3 answers -----------------------------------------------------------------------


def test_serves_the_whole(client, livekit, recording, stored):
    response = client.get(stored.url())

    assert response.status_code == 200
    assert hashlib.sha256(response.content).hexdigest() == recording.sha256("egress/standup.mp4")
    headers = response.headers
    assert headers["ETag"] == f'"{stored.etag}"'
    assert headers["Content-Length"] == str(SIZE)
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Last-Modified"].endswith(" GMT")
    assert headers["x-amz-server-side-encryption"] == "AES256"
    assert re.fullmatch("[0-9A-F]{16}", headers["x-amz-request-id"])
    [request] = livekit.requests
    assert (request.method, request.path, request.range) == (
        "GET",
        "/livekit-backup/egress/standup.mp4",
        None,
    )
    assert (request.status, request.bytes_sent) == (200, SIZE)
    assert request.headers["accept-encoding"] == "identity"
    assert "X-Amz" not in repr(livekit.requests)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, SIZE),
        ("bytes=10-19", 10, 20),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=5-{SIZE * 2}", 5, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
    ],
)
def test_serves_ranges(client, livekit, stored, asked, start, stop):
    response = client.get(stored.url(), headers={"Range": asked, "If-Match": f'"{stored.etag}"'})

    assert response.status_code == 206
    assert response.content == _whole(stored)[start:stop]
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert (livekit.requests[0].range, livekit.requests[0].bytes_sent) == (asked, stop - start)


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=-", "bytes=9-3", "lines=1-2"])
def test_ignores_ranges_that_s3_ignores(client, stored, asked):
    assert client.get(stored.url(), headers={"Range": asked}).status_code == 200


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0"])
def test_refuses_a_range_beyond_the_end(client, stored, asked):
    response = client.get(stored.url(), headers={"Range": asked})

    assert (response.status_code, _code(response)) == (416, "InvalidRange")
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"


def test_refuses_another_etag(client, stored):
    response = client.get(stored.url(), headers={"If-Match": '"other"', "Range": "bytes=5-"})

    assert (response.status_code, _code(response)) == (412, "PreconditionFailed")


def test_head_needs_a_url_of_its_own(client, stored):
    refused = client.head(stored.url())
    response = client.head(stored.url("HEAD"))

    assert (refused.status_code, refused.content) == (403, b"")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == str(SIZE)
    assert client.get(stored.url("HEAD")).status_code == 403


def test_refuses_wrong_and_missing_signatures(client, stored):
    forged = stored.url()[:-4] + "0000"

    assert _code(client.get(forged)) == "SignatureDoesNotMatch"
    assert client.get(stored.url().partition("?")[0]).status_code == 403
    assert _code(client.get(stored.url(), headers={"x-amz-checksum-mode": "ENABLED"})) == "AccessDenied"
    assert client.put(stored.url(), content=b"x").status_code == 405


def test_missing_key(client, livekit, stored):
    livekit._server.objects.clear()
    response = client.get(stored.url())

    assert (response.status_code, _code(response)) == (404, "NoSuchKey")
    assert "<Key>egress/standup.mp4</Key>" in response.text


def test_old_uploads_have_expired(client, livekit):
    late = livekit.record_file("egress/late.mp4", uploaded_at=datetime.now(UTC) - timedelta(days=8))
    response = client.get(late.event()["egressInfo"]["manifestLocation"])

    assert response.status_code == 403
    assert "<Message>Request has expired</Message>" in response.text


def test_time_can_be_told(client):
    times = [NOW]
    with FakeLiveKit(clock=lambda: times[-1]) as livekit:
        url = livekit.record_file("a.mp4", size=1, uploaded_at=NOW).manifest_object.url()
        assert client.get(url).status_code == 200
        times.append(NOW + timedelta(days=7))
        assert client.get(url).status_code == 403


@pytest.mark.parametrize("name", ["ünï/会議 1.mp4", "a+b%20c%.mp4", "a=b&c?d#e'().mp4"])
def test_difficult_names(client, livekit, name):
    stored = livekit.record_file(name, size=10).files[name]

    assert client.get(stored.url()).content == _whole(stored)
    assert urllib3.request("GET", stored.url()).data == _whole(stored)
    assert livekit.requests[0].path == stored.path


def test_hostile_filename_with_a_harmless_key(client, livekit):
    recording = livekit.record_file("../../etc/passwd", key="x/passwd", size=10)
    [entry] = recording.manifest()["files"]

    assert entry["filename"] == "../../etc/passwd"
    assert client.get(entry["location"]).status_code == 200
    assert recording.manifest_object.path.startswith("/livekit-backup/x/EG_")


def test_empty_object(client, livekit):
    recording = livekit.record_file("empty.mp4", size=0)
    url = recording.files["empty.mp4"].url()

    assert client.get(url).content == b""
    assert client.get(url, headers={"Range": "bytes=0-"}).status_code == 416
    assert "size" not in recording.event()["egressInfo"]["fileResults"][0]


def test_kms_makes_the_etag_meaningless(client):
    with FakeLiveKit(encryption="aws:kms") as livekit:
        stored = livekit.record_file("a.mp4", size=10).files["a.mp4"]
        headers = client.get(stored.url()).headers

    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["ETag"] != f'"{stored.etag}"'


def test_one_connection_serves_many_requests(livekit, stored):
    with urllib3.PoolManager(maxsize=1) as pool:
        for _ in range(3):
            pool.request("GET", stored.url())
        assert pool.connection_from_url(livekit.base_url).num_connections == 1


def test_base_url_is_what_others_call_it():
    with FakeLiveKit(host="0.0.0.0", base_url="http://fake-livekit:8090/") as livekit:
        url = livekit.record_file("a.mp4", size=10).manifest_object.url()
        parts = urlsplit(url)
        real = f"http://127.0.0.1:{livekit._server.server_port}"
        there = f"{real}{parts.path}?{parts.query}"

        assert url.startswith("http://fake-livekit:8090/livekit-backup/EG_")
        assert httpx.get(there, headers={"Host": "fake-livekit:8090"}).status_code == 200
        assert httpx.get(there).status_code == 403
        assert httpx.get(f"{real}/healthz").text == "ok\n"
        assert len(livekit.requests) == 2


@pytest.mark.parametrize(
    ("host", "base_url"),
    [("::1", r"http://\[::1\]:\d+"), ("::", r"http://\[::1\]:\d+"), ("localhost", r"http://localhost:\d+")],
)
def test_other_addresses(client, host, base_url):
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no ::1")
    with FakeLiveKit(host=host) as livekit:
        stored = livekit.record_file("a.mp4", size=10).files["a.mp4"]

        assert re.fullmatch(base_url, livekit.base_url)
        assert client.get(stored.url()).content == _whole(stored)


def test_https(tmp_path):
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.bundle)
    with FakeLiveKit(tls=authority.server("127.0.0.1")) as livekit:
        stored = livekit.record_file("a.mp4", size=3 * MIB).files["a.mp4"]
        livekit.break_(stored, Fault.CUT_SHORT, after=1, times=1)
        livekit.break_(stored, Fault.STALL)

        assert stored.url().startswith(f"https://127.0.0.1:{livekit._server.server_port}/livekit-backup/a.mp4?")
        assert httpx.get(stored.url(), verify=trusting).content == _whole(stored)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(stored.url(), verify=trusting)
        with pytest.raises(httpx.ReadTimeout), httpx.stream("GET", stored.url(), verify=trusting, timeout=0.2) as body:
            body.read()
        _until(lambda: not livekit._server.connections)
        with pytest.raises(httpx.ConnectError):
            httpx.get(stored.url())


def test_https_stops_at_once(tmp_path):
    authority = Authority(tmp_path)
    livekit = FakeLiveKit(tls=authority.server("localhost"), host="localhost").start()
    stored = livekit.record_file("a.mp4", size=64 * MIB).files["a.mp4"]
    trusting = ssl.create_default_context(cafile=authority.bundle)
    with httpx.stream("GET", stored.url(), verify=trusting) as response:
        body = response.iter_raw()
        next(body)
        livekit.stop()
        with pytest.raises(httpx.HTTPError):
            list(body)
    assert not livekit._server.connections


@pytest.mark.parametrize("upload_part_size", [0, 16 * MIB])
def test_objects_of_other_uploaders(client, livekit, upload_part_size):
    recording = livekit.record_file("a.mp4", size=6 * MIB, upload_part_size=upload_part_size)
    [stored] = recording.files.values()
    digest = hashlib.md5(_whole(stored))
    etag = f"{hashlib.md5(digest.digest()).hexdigest()}-1" if upload_part_size else digest.hexdigest()

    assert client.get(stored.url()).headers["ETag"] == f'"{etag}"'
    livekit.break_(stored, Fault.TRUNCATED, at=5)
    assert ("-1" in client.get(stored.url()).headers["ETag"]) is bool(upload_part_size)


def test_bytes_are_counted_while_they_are_sent(livekit):
    recording = livekit.record_file("a.mp4", size=64 * MIB)
    [stored] = recording.files.values()
    with httpx.stream("GET", stored.url()) as response:
        body = response.iter_raw()
        received = len(next(body))
        _until(lambda: livekit.bytes_sent(recording) > received)
        time.sleep(0.1)
        # The client does not read on: what is out fits into the sockets' buffers.
        assert livekit.bytes_sent(stored) < 64 * MIB
        received += sum(len(piece) for piece in body)
    livekit.break_(stored, Fault.NOT_FOUND)
    httpx.get(stored.url())

    assert livekit.bytes_sent(stored.path) == received == 64 * MIB
    assert livekit.bytes_sent("/livekit-backup/other") == 0


# --- faults --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "details", "status", "code"),
    [
        (Fault.EXPIRED, {}, 403, "AccessDenied"),
        (Fault.NOT_FOUND, {}, 404, "NoSuchKey"),
        (Fault.SERVER_ERROR, {}, 500, "InternalError"),
        (Fault.SERVER_ERROR, {"status": 503}, 503, "SlowDown"),
        (Fault.TOO_MANY_REQUESTS, {"retry_after": 7}, 429, "TooManyRequests"),
    ],
)
def test_faults_that_refuse(client, livekit, recording, stored, fault, details, status, code):
    livekit.break_(recording, fault, times=1, **details)
    assert stored.fault is fault
    response = client.get(stored.url())

    assert (response.status_code, _code(response)) == (status, code)
    assert response.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert client.get(stored.url()).status_code == 200
    assert stored.fault is None


def test_faults_of_a_recording_leave_its_manifest_alone(client, livekit, recording, stored):
    livekit.break_(recording, Fault.NOT_FOUND)

    assert client.get(recording.manifest_object.url()).json() == recording.manifest()
    stored.mend()
    assert client.get(stored.url()).status_code == 200


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.CUT_SHORT, httpx.RemoteProtocolError), (Fault.RESET, httpx.ReadError)]
)
def test_broken_connections(client, livekit, stored, fault, error):
    livekit.break_(stored, fault, at=1000)
    got = bytearray()
    with pytest.raises(error):
        _read_into(got, client, stored)

    assert _whole(stored).startswith(bytes(got))
    assert (livekit.requests[0].status, livekit.requests[0].bytes_sent) == (200, 1000)


def test_cut_short_can_be_resumed(client, livekit, stored):
    livekit.break_(stored, Fault.CUT_SHORT, times=1)
    got = bytearray()
    with pytest.raises(httpx.RemoteProtocolError):
        _read_into(got, client, stored)
    assert len(got) == SIZE // 2

    got += client.get(stored.url(), headers={"Range": f"bytes={len(got)}-"}).content

    assert hashlib.sha256(got).hexdigest() == stored.sha256


def test_stall_lasts_until_the_client_leaves(livekit, stored):
    livekit.break_(stored, Fault.STALL, at=0.25)
    with pytest.raises(httpx.ReadTimeout), httpx.stream("GET", stored.url(), timeout=0.2) as response:
        response.read()

    _until(lambda: not livekit._server.connections)
    assert livekit.requests[0].bytes_sent == SIZE // 4


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.SLOW])
def test_stop_does_not_wait(fault):
    livekit = FakeLiveKit().start()
    stored = livekit.record_file("a.mp4", size=SIZE).files["a.mp4"]
    livekit.break_(stored, fault)
    with httpx.stream("GET", stored.url()) as response:
        body = response.iter_raw()
        next(body)
        began = time.monotonic()
        livekit.stop()
        assert time.monotonic() - began < 0.5
        with pytest.raises(httpx.HTTPError):
            list(body)
    assert not livekit._server.connections


def test_slow(client, livekit, stored):
    livekit.break_(stored, Fault.SLOW, bytes_per_second=SIZE * 5)
    began = time.monotonic()

    assert client.get(stored.url()).content == _whole(stored)
    assert 0.15 < time.monotonic() - began < 1


def test_wrong_bytes(client, livekit, stored):
    livekit.break_(stored, Fault.WRONG_BYTES, at=1000)
    response = client.get(stored.url())
    tail = client.get(stored.url(), headers={"Range": "bytes=999-1001"}).content
    right = _whole(stored)

    assert [at for at in range(SIZE) if right[at] != response.content[at]] == [1000]
    assert response.headers["ETag"] == f'"{stored.etag}"'
    assert tail == response.content[999:1002]


def test_no_length(client, livekit, stored):
    livekit.break_(stored, Fault.NO_LENGTH)
    response = client.get(stored.url())

    assert "Content-Length" not in response.headers
    assert response.content == _whole(stored)


def test_no_length_hides_a_cut(client, livekit, stored):
    livekit.break_(stored, Fault.NO_LENGTH, at=0.5)

    assert len(client.get(stored.url()).content) == SIZE // 2


def test_no_length_in_chunks(client, livekit, stored):
    livekit.break_(stored, Fault.NO_LENGTH, chunked=True, times=1)
    livekit.break_(stored, Fault.NO_LENGTH, chunked=True, at=0.5)
    response = client.get(stored.url())

    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.content == _whole(stored)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(stored.url())


def test_changed_etag_meets_a_resume(client, livekit, stored):
    livekit.break_(stored, Fault.CUT_SHORT, times=1)
    livekit.break_(stored, Fault.CHANGED_ETAG)
    with client.stream("GET", stored.url()) as response:
        etag = response.headers["ETag"]

    resumed = client.get(stored.url(), headers={"Range": "bytes=9-", "If-Match": etag})

    assert resumed.status_code == 412
    assert client.get(stored.url()).headers["ETag"] != etag


def test_ignored_range(client, livekit, stored):
    livekit.break_(stored, Fault.IGNORE_RANGE)
    response = client.get(stored.url(), headers={"Range": "bytes=9-"})

    assert (response.status_code, len(response.content)) == (200, SIZE)


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("bytes=9-", f"bytes 8-{SIZE - 2}/{SIZE}"),
        ("bytes=9-19", f"bytes 10-20/{SIZE}"),
        ("bytes=0-", f"bytes 0-{SIZE - 2}/{SIZE}"),
        (None, None),
    ],
)
def test_wrong_range(client, livekit, stored, asked, served):
    livekit.break_(stored, Fault.WRONG_RANGE)
    response = client.get(stored.url(), headers={"Range": asked} if asked else {})

    assert response.headers.get("Content-Range") == served
    assert response.status_code == (206 if asked else 200)
    assert response.content in _whole(stored)


def test_longer(livekit, stored):
    livekit.break_(stored, Fault.LONGER, times=1)
    host, port = livekit._server.server_address[:2]
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(f"GET {stored.url().removeprefix(livekit.base_url)} HTTP/1.1\r\n".encode())
        connection.sendall(f"Host: {host}:{port}\r\n\r\n".encode())
        got = b""
        while got.count(b"\xff" * 1024) == 0:
            got += connection.recv(MIB)
        head, _, body = got.partition(b"\r\n\r\n")

        assert f"Content-Length: {SIZE}".encode() in head
        assert body == _whole(stored) + b"\xff" * 1024
        assert livekit._server.connections


def test_faults_that_begin_later(client, livekit, recording, stored):
    livekit.break_(recording, Fault.EXPIRED, after=2, times=1)
    livekit.break_(recording, Fault.NOT_FOUND, after=1)
    assert [(stored.fault, client.get(stored.url()).status_code) for _ in range(6)] == [
        (None, 200),
        (None, 200),
        (Fault.EXPIRED, 403),
        (None, 200),
        (Fault.NOT_FOUND, 404),
        (Fault.NOT_FOUND, 404),
    ]


def test_html_instead(client, livekit, stored):
    livekit.break_(stored, Fault.HTML_ERROR)
    response = client.get(stored.url())

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")


def test_redirect(client, livekit, stored):
    livekit.break_(stored, Fault.REDIRECT, location="http://169.254.169.254/latest")
    response = client.get(stored.url())

    assert (response.status_code, response.headers["Location"]) == (302, "http://169.254.169.254/latest")


def test_gzip(client, livekit, stored):
    livekit.break_(stored, Fault.GZIP)
    with client.stream("GET", stored.url()) as response:
        raw = b"".join(response.iter_raw())

    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == _whole(stored)


def test_manifest_that_is_no_json(client, livekit, recording):
    livekit.break_(recording.manifest_object, Fault.NOT_JSON)
    response = client.get(recording.manifest_object.url())

    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()


def test_truncated_is_consistent_but_for_the_event(client, livekit, recording, stored):
    livekit.break_(stored, Fault.TRUNCATED, at=100)
    response = client.get(stored.url())

    assert response.headers["Content-Length"] == "100"
    assert response.headers["ETag"] == f'"{hashlib.md5(response.content).hexdigest()}"'
    assert recording.event()["egressInfo"]["fileResults"][0]["size"] == str(SIZE)


def test_every_fault_is_covered():
    source = Path(__file__).read_text(encoding="utf-8")

    assert [fault.name for fault in Fault if f"Fault.{fault.name}" not in source] == []


# --- what LiveKit says ---------------------------------------------------------------------


@pytest.fixture
def frozen():
    fake = FakeLiveKit(clock=lambda: NOW)
    yield fake
    fake.stop()


def test_event_of_a_file(frozen):
    recording = frozen.record_file("egress/a.mp4", size=61_941_096, egress_id="EG_a", room_id="RM_a")
    location, result = (
        recording.files["egress/a.mp4"].url(),
        {
            "filename": "egress/a.mp4",
            "startedAt": "1732128225000000371",
            "endedAt": "1732131823000000371",
            "size": "61941096",
            "duration": "3598000000000",
        },
    )
    result["location"] = location

    assert recording.event(event_id="EV_1") == {
        "event": "egress_ended",
        "room": {"sid": "RM_a", "name": "A LiveKit room"},
        "id": "EV_1",
        "createdAt": "1732131824",
        "egressInfo": {
            "egressId": "EG_a",
            "roomId": "RM_a",
            "status": "EGRESS_COMPLETE",
            "roomComposite": {
                "roomName": "A LiveKit room",
                "fileOutputs": [
                    {
                        "filepath": "egress/a.mp4",
                        "s3": {
                            "accessKey": "{access_key}",
                            "secret": "{secret}",
                            "region": "eu-central-1",
                            "bucket": "acme-recordings",
                        },
                    }
                ],
            },
            "file": result,
            "startedAt": "1732128223000000371",
            "endedAt": "1732131823000000371",
            "roomName": "A LiveKit room",
            "fileResults": [result],
            "updatedAt": "1732131823466499222",
            "details": "End reason: StopEgress API",
            "manifestLocation": recording.manifest_object.url(),
            "backupStorageUsed": True,
        },
    }
    assert recording.manifest() == {
        "egress_id": "EG_a",
        "room_id": "RM_a",
        "room_name": "A LiveKit room",
        "started_at": 1732128223000000371,
        "ended_at": 1732131823000000371,
        "files": [{"filename": "egress/a.mp4", "location": location}],
    }
    assert recording.manifest_object.filename == "egress/EG_a.json"


def test_event_of_a_track(frozen):
    recording = frozen.record_track("recordings/alice/TR_x.ogg", track_id="TR_x")
    info = recording.event()["egressInfo"]

    assert info["track"]["trackId"] == "TR_x"
    assert info["sourceType"] == "EGRESS_SOURCE_TYPE_SDK"
    assert info["details"] == "End reason: Source closed"
    assert info["file"] == info["fileResults"][0]
    manifest = recording.manifest()
    assert {name: manifest[name] for name in manifest if name.startswith(("track", "publisher"))} == {
        "publisher_identity": "alice",
        "track_id": "TR_x",
        "track_kind": "audio",
        "track_source": "microphone",
    }
    assert recording.manifest_object.path == f"/livekit-backup/recordings/alice/{recording.egress_id}.json"


def test_hls_in_two_homes(client, livekit):
    recording = livekit.record_hls("hls/room-a", segments=6, segment_size=1000, in_primary=2)
    info = recording.event()["egressInfo"]
    [result] = info["segmentResults"]
    [playlist] = recording.manifest()["playlists"]
    names = [segment["filename"] for segment in playlist["segments"]]

    assert info["segments"] == result
    assert (result["segmentCount"], result["size"]) == ("6", "6000")
    assert (result["playlistName"], result["livePlaylistName"]) == (
        "hls/room-a/index.m3u8",
        "hls/room-a/live.m3u8",
    )
    assert sorted(names) == [f"hls/room-a/seg_{index:05d}.ts" for index in range(6)] != names
    assert [s["location"] for s in playlist["segments"][:2]] == [
        f"https://acme-recordings.s3.amazonaws.com/hls/room-a/seg_{index:05d}.ts" for index in range(2)
    ]
    assert [file.in_primary for file in recording.files.values()] == [True] * 2 + [False] * 6
    for segment in playlist["segments"][2:]:
        assert len(client.get(segment["location"]).content) == 1000
    text = client.get(playlist["location"]).text
    assert re.findall(r"^seg_\d+\.ts$", text, re.MULTILINE) == [f"seg_{index:05d}.ts" for index in range(6)]
    assert client.get(result["livePlaylistLocation"]).headers["Content-Type"] == "application/x-mpegurl"
    dates = [re.search(r"X-Amz-Date=(\w+)", s["location"])[1] for s in playlist["segments"][2:]]
    assert dates == sorted(set(dates))


def test_images_have_no_location_in_the_event(frozen):
    recording = frozen.record_images("thumbs/room-a", count=3)
    [result] = recording.event()["egressInfo"]["imageResults"]

    assert set(result) == {"imageCount", "startedAt", "endedAt", "filenamePrefix"}
    assert (result["imageCount"], result["filenamePrefix"]) == ("3", "thumbs/room-a")
    images = recording.manifest()["images"]
    assert images[0]["filename"] == "thumbs/room-a_20241120190342666.jpeg"
    assert images[0]["timestamp"] == "2024-11-20T19:03:42.666667789Z"
    assert len(recording.files) == 3
    assert recording.manifest_object.filename == f"thumbs/{recording.egress_id}.json"


def test_images_that_overwrite_each_other(frozen):
    recording = frozen.record_images("thumbs/last", count=3, overwrite=True)

    assert [image["filename"] for image in recording.manifest()["images"]] == ["thumbs/last.jpeg"] * 3
    assert list(recording.files) == ["thumbs/last.jpeg"]


@pytest.mark.parametrize(
    ("status", "error", "code", "manifest"),
    [
        ("EGRESS_FAILED", "pipeline frozen", 500, False),
        ("EGRESS_LIMIT_REACHED", "Session limit reached", 413, True),
        ("EGRESS_COMPLETE", None, None, True),
    ],
)
def test_endings(frozen, status, error, code, manifest):
    info = frozen.record_file("a.mp4").event(status=status)["egressInfo"]

    assert (info["status"], info.get("error"), info.get("errorCode")) == (status, error, code)
    assert ("manifestLocation" in info) is manifest
    assert info["backupStorageUsed"] is True
    assert "X-Amz-Signature" in info["fileResults"][0]["location"]


def test_manifest_can_be_told_otherwise(frozen):
    recording = frozen.record_file("a.mp4")

    assert "manifestLocation" in recording.event(status="EGRESS_FAILED", with_manifest=True)["egressInfo"]
    assert "manifestLocation" not in recording.event(with_manifest=False)["egressInfo"]


def test_events_without_backup(frozen):
    recording = frozen.record_file("egress/a.mp4", size=1000)
    well = recording.event(backup_storage_used=False)["egressInfo"]
    lost = recording.event(status="EGRESS_FAILED", backup_storage_used=False)["egressInfo"]

    assert "backupStorageUsed" not in well | lost
    assert well["fileResults"][0]["location"] == "https://acme-recordings.s3.amazonaws.com/egress/a.mp4"
    assert well["manifestLocation"] == f"https://acme-recordings.s3.amazonaws.com/egress/{recording.egress_id}.json"
    assert set(lost["fileResults"][0]) == {"filename", "startedAt", "endedAt", "duration"}
    assert "size" in recording.event()["egressInfo"]["file"]


def test_update_is_not_final(frozen):
    event = frozen.record_hls("hls/a").event("egress_updated", status="EGRESS_ENDING")

    assert event["event"] == "egress_updated"
    assert {"endedAt", "manifestLocation"}.isdisjoint(event["egressInfo"])
    assert event["egressInfo"]["backupStorageUsed"] is True


def test_web_egress_has_no_room(frozen):
    recording = frozen.record_file("board.mp4", web_url="https://example.com/board")
    event = recording.event()

    assert "room" not in event
    assert {"roomId", "roomName", "roomComposite"}.isdisjoint(event["egressInfo"])
    assert event["egressInfo"]["web"]["url"] == recording.manifest()["url"] == "https://example.com/board"


def test_everything_is_the_same_again():
    def made(seed: int):
        fake = FakeLiveKit(clock=lambda: NOW, base_url="http://fake", seed=seed)
        recording = fake.record_hls("hls/a")
        fake.stop()
        return recording.event(), recording.manifest(), recording.sha256("hls/a/seg_00001.ts")

    assert made(1) == made(1)
    assert all(one != other for one, other in zip(made(1), made(2), strict=True))


def test_answers_cannot_be_spoiled_by_their_reader(frozen):
    recording = frozen.record_file("a.mp4")
    recording.event()["egressInfo"]["file"].clear()
    recording.manifest()["files"].clear()

    assert recording.event()["egressInfo"]["file"]
    assert recording.manifest()["files"]


@pytest.mark.parametrize(
    ("format", "suffix", "read"),
    [
        ("json", ".json", json.loads),
        ("pretty", ".json", json.loads),
        ("jsonl", ".jsonl", json.loads),
        ("array", ".json", lambda body: json.loads(body)[0]),
        ("gzip", ".json.gz", lambda body: json.loads(gzip.decompress(body))),
        ("zstd", ".json.zst", lambda body: json.loads(zstandard.ZstdDecompressor().decompress(body))),
    ],
)
def test_stored_events(frozen, format, suffix, read):
    inbox: dict[str, bytes] = {}
    event = frozen.record_file("ünï.mp4", egress_id="EG_a").event()

    first = frozen.store_event(inbox.__setitem__, event, datetime(2026, 1, 2, 3, 4, tzinfo=UTC), format=format)
    second = frozen.store_event(inbox.__setitem__, event)

    assert first == f"2026/01/02/03/EG_a-1{suffix}"
    assert second == "2024/11/20/20/EG_a-2.json"
    assert read(inbox[first]) == event


def test_several_events_in_one_object(frozen):
    inbox: dict[str, bytes] = {}
    events = [frozen.record_file(name).event() for name in ("a.mp4", "b.mp4")]

    key = frozen.store_event(inbox.__setitem__, events, format="jsonl")

    assert [json.loads(line) for line in inbox[key].splitlines()] == events


# --- around it -----------------------------------------------------------------------------


def test_names_load_on_first_use():
    code = (
        "import sys, livekit_backup.testing as t; "
        "assert not [m for m in sys.modules if m.startswith('livekit_backup.testing.')]; "
        # The sender of webhooks is a client, and has httpx to send them.
        "[getattr(t, name) for name in t.__all__ if name not in ('WebhookSender', 'Delivery')]; "
        "assert not {'httpx', 'boto3', 'airflow', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=20)
    assert SigningKey().region == "us-west-2"


def test_stop_without_start_closes_the_port():
    livekit = FakeLiveKit()
    port = livekit._server.server_port
    livekit.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_command_line(tmp_path):
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "livekit_backup.testing.fake_livekit_cli",
        "serve",
        "--port",
        "0",
    ]
    with subprocess.Popen([*command, "--events-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "fake LiveKit at" in line:
                break
        events = [json.loads(path.read_bytes()) for path in tmp_path.rglob("*.json")]
        by_status = sorted(event["egressInfo"]["status"] for event in events)
        info = next(e["egressInfo"] for e in events if e["room"]["name"] == "Interview")
        assert httpx.get(info["manifestLocation"]).json()["files"]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=5) == 0

    assert by_status == ["EGRESS_COMPLETE"] * 5 + ["EGRESS_FAILED"]


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def _until(condition) -> None:
    deadline = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
