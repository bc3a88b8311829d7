"""The way to a recording: a real proxy that demands a user and a password, and certificates."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.errors import ConfigurationError, SourceUnavailableError
from livekit_backup.testing import MIB, FakeLiveKit, StoredObject

from .certificates import Authority
from .demanding_proxy import PASSWORD, DemandingProxy

SIZE = 2 * MIB + 5


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))


@pytest.fixture(params=["http", "https"])
def livekit(request: pytest.FixtureRequest, authority: Authority) -> Iterator[FakeLiveKit]:
    with FakeLiveKit(tls=authority.server("127.0.0.1") if request.param == "https" else None) as fake:
        yield fake


@pytest.fixture
def stored(livekit: FakeLiveKit) -> StoredObject:
    return _stored(livekit)


@pytest.fixture(params=["http", "https"])
def proxy(request: pytest.FixtureRequest, authority: Authority) -> Iterator[DemandingProxy]:
    with DemandingProxy(authority.server("127.0.0.1") if request.param == "https" else None) as proxy:
        yield proxy


def _place(livekit: FakeLiveKit) -> str:
    return livekit.base_url.partition("://")[2]


def _stored(livekit: FakeLiveKit) -> StoredObject:
    [stored] = livekit.record_file("a.mp4", size=SIZE).files.values()
    return stored


def _whole(stored: StoredObject) -> bytes:
    return b"".join(stored.content.pieces())


def _read(livekit: FakeLiveKit, stored: StoredObject, start: int = 0, stop: int | None = None) -> bytes:
    source = HttpSource(Location(stored.url()), (_place(livekit),))
    body, got, view = source.open(start, stop), b"", memoryview(bytearray(900_000))
    while count := body.readinto(view):
        got += view[:count]
    body.close()
    return got


@pytest.mark.parametrize("name", ["HTTP{}_PROXY", "http{}_proxy", "ALL_PROXY", "all_proxy"])
def test_through_the_proxy_with_its_login(
    livekit: FakeLiveKit,
    stored: StoredObject,
    proxy: DemandingProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    is_tls = livekit.base_url.startswith("https")
    s = "s" if name[0] == "h" else "S"
    monkeypatch.setenv(name.format(s if is_tls else ""), proxy.url())
    whole = _whole(stored)
    assert _read(livekit, stored) == whole
    assert _read(livekit, stored, 5, 9) == whole[5:9]
    assert proxy.asked == [("CONNECT" if is_tls else "GET", _place(livekit), True)] * 2
    assert "proxy-authorization" not in livekit.requests[0].headers
    for secret in ("X-Amz", PASSWORD, "hush", proxy.login):
        assert secret not in caplog.text


@pytest.mark.parametrize("password", [None, "wrong-hush"])
def test_a_login_that_the_proxy_does_not_take(
    livekit: FakeLiveKit,
    stored: StoredObject,
    proxy: DemandingProxy,
    monkeypatch: pytest.MonkeyPatch,
    password: str | None,
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url(password))
    with pytest.raises(ConfigurationError, match=r"the proxy in front of 127\.0\.0\.1 answered 407") as caught:
        _read(livekit, stored)
    assert "hush" not in repr(caught.value)
    assert "X-Amz" not in repr(caught.value)
    assert len(proxy.asked) == 1
    assert livekit.requests == []


@pytest.mark.parametrize("exceptions", ["127.0.0.1", "example.com, 127.0.0.1", "*"])
def test_past_the_proxy(
    livekit: FakeLiveKit,
    stored: StoredObject,
    proxy: DemandingProxy,
    monkeypatch: pytest.MonkeyPatch,
    exceptions: str,
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url())
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert len(_read(livekit, stored)) == SIZE
    assert proxy.asked == []


def test_a_proxy_that_is_not_there(livekit: FakeLiveKit, stored: StoredObject, monkeypatch: pytest.MonkeyPatch) -> None:
    with DemandingProxy() as gone:
        pass
    monkeypatch.setenv("ALL_PROXY", gone.url())
    with pytest.raises(SourceUnavailableError, match="did not answer: ProxyError") as caught:
        _read(livekit, stored)
    assert "hush" not in repr(caught.value)


def test_a_proxy_whose_certificate_nobody_trusts(
    stored: StoredObject,
    livekit: FakeLiveKit,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    with DemandingProxy(stranger.server("127.0.0.1")) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        with pytest.raises(SourceUnavailableError, match="unable to get local issuer certificate"):
            _read(livekit, stored)
        assert proxy.asked == []


def test_a_home_that_the_proxy_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with DemandingProxy() as proxy, FakeLiveKit() as livekit:
        [stored] = livekit.record_file("a.mp4", size=5).files.values()
        livekit.stop()
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        with pytest.raises(SourceUnavailableError, match="did not answer"):
            _read(livekit, stored)


def test_httpx_takes_the_same_way(livekit: FakeLiveKit, stored: StoredObject, monkeypatch: pytest.MonkeyPatch) -> None:
    with DemandingProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        assert len(httpx.get(stored.url()).content) == SIZE == len(_read(livekit, stored))
        assert len(set(proxy.asked)) == 1


# --- certificates --------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_bundle_of_ones_own(authority: Authority, host: str) -> None:
    with FakeLiveKit(host=host, tls=authority.server(host)) as livekit:
        stored = _stored(livekit)
        assert _read(livekit, stored) == _whole(stored)
        assert _read(livekit, stored, 7, 9) == _whole(stored)[7:9]


def test_a_folder_of_certificates(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl names the files of such a folder")
    command = [openssl, "x509", "-hash", "-noout", "-in", str(authority.bundle)]
    name = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    folder = tmp_path_factory.mktemp("certificates")
    (folder / f"{name}.0").write_bytes(authority.bundle.read_bytes())
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with FakeLiveKit(tls=authority.server("127.0.0.1")) as livekit:
        stored = _stored(livekit)
        assert _read(livekit, stored) == _whole(stored)


def test_a_bundle_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = tmp_path_factory.mktemp("bundle") / "ca.pem"
    bundle.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    source = HttpSource(Location("https://127.0.0.1:9/k?X-Amz-Signature=00ff"), ("127.0.0.1:9",))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE is no CA bundle"):
        source.open()


@pytest.mark.parametrize(
    ("names", "days", "trusted", "text"),
    [
        (("127.0.0.1",), 1, False, "unable to get local issuer certificate"),
        (("127.0.0.1",), -1, True, "certificate has expired"),
        (("localhost",), 1, True, "IP address mismatch"),
    ],
)
def test_certificates_that_prove_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, names: tuple[str], days: int, trusted: bool, text: str
) -> None:
    if not trusted:
        monkeypatch.delenv("SSL_CERT_FILE")
    with FakeLiveKit(tls=authority.server(*names, days=days)) as livekit:
        with pytest.raises(SourceUnavailableError, match=text) as caught:
            _read(livekit, _stored(livekit))
        assert "X-Amz" not in repr(caught.value)
        assert livekit.requests == []
