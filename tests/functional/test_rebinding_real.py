"""A forger's name server answers differently the second time: what was checked is connected to, and nothing else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from livekit_backup.core import checked_connections, locations
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.errors import LivekitBackupError, RefusedError, SourceUnavailableError
from livekit_backup.testing import FakeLiveKit

from .certificates import Authority

NAME = "recordings.acme.example"
"""Reserved, so that no name server knows it: whoever looks it up by himself gets nowhere."""
PUBLIC = "52.218.1.1"
Fetch = Callable[[Location, tuple[str, ...], locations.Resolver], object]


def _manifest(location: Location, hosts: tuple[str, ...], resolver: locations.Resolver) -> object:
    with ManifestClient(hosts, resolver=resolver, first_wait_seconds=0.0) as client:
        return client.fetch(location).egress_id


def _bytes(location: Location, hosts: tuple[str, ...], resolver: locations.Resolver) -> object:
    body, view = HttpSource(location, hosts, resolver).open(), memoryview(bytearray(100_000))
    whole = b""
    while count := body.readinto(view):
        whole += view[:count]
    body.close()
    return json.loads(whole)["egress_id"]


both = pytest.mark.parametrize("fetch", [_manifest, _bytes], ids=["manifest", "bytes"])


class Names:
    """A resolver whose answers change, one a question."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that anybody asks the machine's own resolver for, from here on."""
    names: list[str] = []
    ask = socket.getaddrinfo

    def listen(host: str, *args: object, **options: object) -> object:
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        except OSError:
            names.append(host)
        return ask(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", listen)
    return names


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the attacker's public server has to stand on loopback here."""
    monkeypatch.setattr(locations, "is_public", lambda text: text in ("127.0.0.1", "127.0.0.2", PUBLIC))


@pytest.fixture(params=["http", "https"])
def livekit(request: pytest.FixtureRequest, authority: Authority) -> Iterator[FakeLiveKit]:
    with FakeLiveKit(tls=authority.server(NAME) if request.param == "https" else None) as fake:
        yield fake


def _named(livekit: FakeLiveKit, name: str = NAME) -> tuple[Location, tuple[str, ...]]:
    """The signed URL of a manifest under a name that only a pattern allows."""
    # The signature is of the name.
    livekit._server.base_url = livekit.base_url.replace("127.0.0.1", name)
    location = Location(livekit.record_file("a.mp4", size=5).manifest_object.url())
    return location, (f"*.acme.example:{location.port}",)


@both
@pytest.mark.usefixtures("loopback_is_public")
def test_a_name_is_asked_once_and_its_checked_address_connected_to(
    livekit: FakeLiveKit, looked_up: list[str], fetch: Fetch
) -> None:
    location, hosts = _named(livekit)
    names = Names(["127.0.0.1"])
    assert str(fetch(location, hosts, names)).startswith("EG_")
    assert names.asked == 1
    assert looked_up == []
    # The certificate is for the name alone, and the request goes to the name.
    assert livekit.requests[-1].headers["host"] == f"{NAME}:{location.port}"


@both
@pytest.mark.usefixtures("loopback_is_public")
def test_the_second_answer_is_not_used(livekit: FakeLiveKit, looked_up: list[str], fetch: Fetch) -> None:
    location, hosts = _named(livekit)
    names = Names(["127.0.0.1"], ["10.0.0.5"])
    assert str(fetch(location, hosts, names)).startswith("EG_")
    assert looked_up == []


@both
@pytest.mark.usefixtures("loopback_is_public")
def test_a_second_request_is_checked_anew(livekit: FakeLiveKit, fetch: Fetch) -> None:
    location, hosts = _named(livekit)
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    fetch(location, hosts, names)
    before = len(livekit.requests)
    with pytest.raises(RefusedError, match=r"169\.254\.169\.254, which is not a public address"):
        fetch(location, hosts, names)
    assert len(livekit.requests) == before


@both
@pytest.mark.usefixtures("loopback_is_public")
def test_every_checked_address_is_tried(livekit: FakeLiveKit, fetch: Fetch) -> None:
    location, hosts = _named(livekit)
    assert str(fetch(location, hosts, Names(["127.0.0.2", "127.0.0.1"]))).startswith("EG_")


@both
@pytest.mark.usefixtures("loopback_is_public")
def test_a_certificate_of_another_name_proves_nothing(authority: Authority, fetch: Fetch) -> None:
    with FakeLiveKit(tls=authority.server("127.0.0.1")) as livekit:
        location, hosts = _named(livekit)
        with pytest.raises(SourceUnavailableError, match="Hostname mismatch"):
            fetch(location, hosts, Names(["127.0.0.1"]))
        assert livekit.requests == []


@both
def test_no_more_addresses_are_tried_than_a_home_has(monkeypatch: pytest.MonkeyPatch, fetch: Fetch) -> None:
    tried: list[str] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(checked_connections, "create_connection", connect)
    many = [f"52.218.1.{number}" for number in range(200)]
    with pytest.raises(SourceUnavailableError):
        fetch(Location(f"http://{NAME}/m?X-Amz-Signature=hush"), ("*.acme.example",), Names(many))
    assert set(tried) == set(many[: checked_connections.MOST_ADDRESSES])


@both
def test_a_redirect_inside_is_not_followed(fetch: Fetch) -> None:
    """Whatever the address, the scheme or the kind of redirect: the answer is an error, and no second request."""
    with _Redirecting() as server:
        for status in (301, 302, 303, 307, 308, 300):
            for target in ("http://169.254.169.254/", "//127.0.0.1/", "/k", "file:///etc/passwd", "gopher://x"):
                server.answer = f"HTTP/1.1 {status} Go\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
                before = server.asked
                with pytest.raises(LivekitBackupError, match="redirects are not followed"):
                    fetch(Location(f"http://{server.place}/k?X-Amz-Signature=hush"), (server.place,), Names([]))
                assert server.asked == before + 1


class _Redirecting:
    """Answers every request with the same bytes."""

    def __init__(self) -> None:
        self.answer, self.asked = b"", 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread, which a mere close would leave in accept().
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65_536)):
                    head += more
                if head:
                    self.asked += 1
                    connection.sendall(self.answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


@pytest.mark.usefixtures("loopback_is_public")
def test_manifests_of_one_home_share_a_connection(livekit: FakeLiveKit, monkeypatch: pytest.MonkeyPatch) -> None:
    first, hosts = _named(livekit)
    more = [Location(livekit.record_file(f"{n}.mp4", size=5).manifest_object.url()) for n in range(3)]
    connected: list[object] = []
    connect = socket.socket.connect

    def count(self: socket.socket, address: object) -> None:
        connected.append(address)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", count)
    with ManifestClient(hosts, resolver=Names(["127.0.0.1"])) as client:
        for location in (first, *more):
            assert client.fetch(location).files
    assert len(connected) == 1
