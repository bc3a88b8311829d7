"""Servers and proxies that never come to the end of their headers, and those that do."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
import urllib3

from livekit_backup.core import checked_connections, manifest_client
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.errors import RefusedError, SourceUnavailableError

from .certificates import Authority
from .demanding_proxy import DemandingProxy

LIMIT = 0.6
TUNNEL = b"HTTP/1.1 200 Connection established\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
DATA = b"0123456789"

Act = Callable[["_Handler"], None]


class Server(ThreadingTCPServer):
    """Reads one request after the other, and answers as it is told."""

    daemon_threads = True

    def __init__(self, act: Act, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.act, self.asked = act, list[str]()
        self.place = f"127.0.0.1:{self.server_address[1]}"
        self.stopping = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


class _Handler(StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        while line := self.rfile.readline().decode("latin-1").rstrip():
            self.server.asked.append(line)
            while self.rfile.readline().rstrip():
                pass
            self.server.act(self)

    def drip(self, piece: bytes, seconds: float = 0.05) -> None:
        while not self.server.stopping.wait(seconds):
            self.wfile.write(piece)


def _headers(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.drip(b"X: y\r\n")


def _one_line(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    handler.drip(b"y")


def _status(handler: _Handler) -> None:
    handler.drip(b"H")


def _continue(handler: _Handler) -> None:
    handler.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


def _flood(handler: _Handler) -> None:
    handler.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0)


def _tunnel(handler: _Handler) -> None:
    handler.wfile.write(TUNNEL)
    handler.drip(b"X: y\r\n")


def _slow_body(handler: _Handler) -> None:
    handler.wfile.write(ANSWER)
    for byte in DATA:
        time.sleep(2 * LIMIT / len(DATA))
        handler.wfile.write(bytes([byte]))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    monkeypatch.setattr(checked_connections, "HEADERS_SECONDS", LIMIT)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(act: Act, tls: ssl.SSLContext | None = None) -> Server:
        server = Server(act, tls)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True, name="server").start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stopping.set()
        server.shutdown()
        server.server_close()


def _source(scheme: str, place: str) -> HttpSource:
    return HttpSource(Location(f"{scheme}://{place}/k?X-Amz-Signature=hush"), (place,))


def _give_up(source: HttpSource, text: str = "did not answer: ") -> None:
    """Open, and see that it ends in time and leaves no thread of ours."""
    began, before = time.monotonic(), set(threading.enumerate())
    with pytest.raises(SourceUnavailableError, match=text) as caught:
        source.open()
    assert LIMIT <= time.monotonic() - began < 5 * LIMIT
    assert "hush" not in repr(caught.value)
    started = [thread for thread in set(threading.enumerate()) - before if "process_request" not in thread.name]
    assert started == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("act", [_headers, _one_line, _status, _continue, _flood])
def test_headers_without_end(serve: Callable[..., Server], authority: Authority, scheme: str, act: Act) -> None:
    server = serve(act, authority.server("127.0.0.1") if scheme == "https" else None)
    _give_up(_source(scheme, server.place))


@pytest.mark.parametrize("act", [_headers, _one_line, _status, _continue, _flood])
def test_headers_of_a_manifest_without_end(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    monkeypatch.setattr(manifest_client, "ATTEMPTS", 1)
    server = serve(act)
    link = Location(f"http://{server.place}/m.json?X-Amz-Signature=hush")
    with (
        manifest_client.ManifestClient((server.place,)) as client,
        pytest.raises(SourceUnavailableError, match="did not answer") as caught,
    ):
        client.fetch(link)
    assert "hush" not in repr(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("act", [_headers, _flood])
def test_headers_without_end_behind_a_proxy(
    serve: Callable[..., Server],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    proxy_scheme: str,
    scheme: str,
    act: Act,
) -> None:
    server = serve(act, authority.server("127.0.0.1") if scheme == "https" else None)
    with DemandingProxy(authority.server("127.0.0.1") if proxy_scheme == "https" else None) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        _give_up(_source(scheme, server.place))


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("act", [_tunnel, _status])
def test_a_tunnel_that_is_never_open(
    serve: Callable[..., Server],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    over_tls: bool,
    act: Act,
) -> None:
    proxy = serve(act, authority.server("127.0.0.1") if over_tls else None)
    monkeypatch.setenv("HTTPS_PROXY", f"http{'s' * over_tls}://{proxy.place}")
    _give_up(_source("https", "127.0.0.1:9"))
    assert [line.split()[0] for line in proxy.asked] == ["CONNECT"]


def test_a_handshake_without_end(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's time-out for it is that of the whole handshake."""

    class Dripping(_Handler):
        def handle(self) -> None:
            # The header of a long record.
            self.wfile.write(b"\x16\x03\x03\x3f\xff")
            self.drip(b"\x02")

    server = serve(_status)
    server.RequestHandlerClass = Dripping
    timeout = urllib3.Timeout(connect=LIMIT, read=30.0)
    monkeypatch.setattr("livekit_backup.core.http_source._TIMEOUT", timeout)
    _give_up(_source("https", server.place))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_body_has_all_the_time_it_takes(serve: Callable[..., Server], authority: Authority, scheme: str) -> None:
    server = serve(_slow_body, authority.server("127.0.0.1") if scheme == "https" else None)
    source = _source(scheme, server.place)
    for _ in range(2):
        with closing(source.open()) as body:
            got, view = b"", memoryview(bytearray(100))
            while count := body.readinto(view):
                got += view[:count]
        assert got == DATA
    assert len(server.asked) == 2


def test_a_name_that_only_the_proxy_knows(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(lambda handler: handler.wfile.write(ANSWER + DATA))
    link = Location("http://recordings.acme.test/k?X-Amz-Signature=hush")
    with pytest.raises(SourceUnavailableError, match="does not resolve"):
        HttpSource(link, ("*.acme.test",)).open()
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.place}")
    with closing(HttpSource(link, ("*.acme.test",)).open()) as body:
        view = memoryview(bytearray(10))
        assert body.readinto(view) == 10
    assert proxy.asked == [f"GET {link.url} HTTP/1.1"]
    with pytest.raises(RefusedError, match="not a public address"):
        HttpSource(Location("http://10.0.0.5/k?X-Amz-Signature=hush"), ("*.0.5",)).open()
    assert len(proxy.asked) == 1
