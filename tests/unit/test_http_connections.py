"""Which way a recording is fetched, by the variables of the environment. Nothing is connected."""

from __future__ import annotations

import base64
import http.client
import ssl

import httpx
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.checked_connections import answer_of
from livekit_backup.core.http_connections import (
    api_client,
    pool_for,
    proxied_scheme,
    refused_by_proxy,
    resolver_for,
    why_unanswered,
)
from livekit_backup.core.locations import Location
from livekit_backup.errors import ConfigurationError, RefusedError, SourceUnavailableError
from unit.fakes import signed

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")
HOST = "livekit-egress.s3.amazonaws.com"
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _clear(patch):
    for name in VARIABLES:
        patch.delenv(name, raising=False)
        patch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    _clear(monkeypatch)


def _chosen_by_httpx(url):
    """The same by httpx's own client, whose private parts are known to this test alone."""
    try:
        with httpx.Client(verify=CONTEXT) as client:
            transport = client._transport_for_url(httpx.URL(url))
            return "" if transport is client._transport else transport._pool._proxy_url.host.decode()
    except httpx.InvalidURL:
        return "unreadable"


def _chosen_here(url):
    try:
        return proxied_scheme(httpx.URL(url))
    except ConfigurationError:
        return "unreadable"


def _compare(url, proxies, entries, *, upper=False):
    with pytest.MonkeyPatch.context() as patch:
        _clear(patch)
        values = {f"{one}_proxy": f"http://{one}:3128" for one in proxies} | {"no_proxy": ",".join(entries)}
        for name, value in values.items():
            patch.setenv(name.upper() if upper else name, value)
        assert _chosen_here(url) == _chosen_by_httpx(url), values


HOSTS = ["example.com", "www.example.com", "wwwexample.com", "localhost", "a.localhost", "192.168.0.7", "192.168.0.0"]
HOSTS += ["[::1]", "[fe80::1]", "EXAMPLE.com", "xn--bcher-kva.example"]
ENTRIES = [
    "example.com",
    ".example.com",
    "*.example.com",
    "*example.com",
    "www.example.com",
    "com",
    "*",
    " ",
    "LOCALHOST",
]
ENTRIES += [
    "localhost",
    "192.168.0.7",
    "192.168.0.0/16",
    "::1",
    "fe80::1",
    "192.168.0.",
    "Example.COM",
    "bücher.example",
]
ENTRIES += [
    "example.com:8443",
    "example.com:443",
    "192.168.0.7:8443",
    "http://example.com",
    "https://",
    "all://",
    "http://",
]
ENTRIES += ["https://www.example.com:8443", "xn--bcher-kva.example", "https://*.example.com", "example.com."]


URLS = [
    f"{scheme}://{host}{port}/k" for scheme in ("http", "https") for host in HOSTS for port in ("", ":443", ":8443")
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_exception_is_read_as_httpx_reads_it(entry):
    for url in URLS:
        _compare(url, ("http", "https", "all"), [entry])


@given(
    st.sampled_from(URLS),
    st.sets(st.sampled_from(["http", "https", "all"])),
    st.lists(st.sampled_from(ENTRIES), max_size=3),
    st.booleans(),
)
def test_it_is_the_way_that_httpx_takes(url, proxies, entries, upper):
    _compare(url, proxies, entries, upper=upper)


def test_without_variables_the_way_is_direct():
    pool = pool_for(Location(signed("k")))
    assert type(pool) is urllib3.PoolManager
    assert pool.connection_pool_kw["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert pool.connection_pool_kw["ssl_context"].check_hostname
    assert pool_for(Location("http://127.0.0.1:9/k")).connection_pool_kw["ssl_context"] is None


def test_a_proxy_with_user_and_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://jo%40acme:p%3Aß@proxy.acme:3128")
    pool = pool_for(Location(signed("k")))
    assert isinstance(pool, urllib3.ProxyManager)
    assert str(pool.proxy) == "http://proxy.acme:3128"
    login = base64.b64encode("jo@acme:p:ß".encode()).decode()
    assert pool.proxy_headers == {"Proxy-Authorization": f"Basic {login}"}


@pytest.mark.parametrize("value", ["proxy.acme:3128", "http://proxy.acme:3128/", "https://[::1]:3128"])
def test_proxies_without_a_login(monkeypatch, value):
    monkeypatch.setenv("all_proxy", value)
    pool = pool_for(Location("http://127.0.0.1:9/k"))
    assert pool.proxy_headers == {}
    assert (pool.connection_pool_kw["ssl_context"] is None) is not value.startswith("https")


BAD_PROXIES = pytest.mark.parametrize(
    ("value", "text"),
    [
        ("socks5://jo:hush@proxy:1080", "SOCKS"),
        ("socks5h://jo:hush@proxy:1080", "SOCKS"),
        ("SOCKS4://jo:hush@proxy:1080", "SOCKS"),
        ("ftp://jo:hush@proxy", "not the URL of an HTTP proxy"),
        ("http://jo:hush@", "not the URL of an HTTP proxy"),
        ("http://jo:hush@proxy:port", "not the URL of an HTTP proxy"),
        ("hush://", "not the URL of an HTTP proxy"),
        ("hu\x7fsh", "not the URL of an HTTP proxy"),
    ],
)
NAMES = pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])


@NAMES
@BAD_PROXIES
def test_proxies_that_cannot_be_used(monkeypatch, name, value, text):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=text) as caught:
        pool_for(Location(signed("k")))
    assert str(caught.value).startswith(f"{name} ")
    assert HOST in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@NAMES
@BAD_PROXIES
def test_clients_that_cannot_be_made(monkeypatch, name, value, text):
    monkeypatch.setenv(name, value)
    if value == "http://jo:hush@":
        api_client().close()
        return
    with pytest.raises(ConfigurationError, match=text) as caught:
        api_client()
    assert str(caught.value).startswith(f"{name} ")
    assert str(caught.value).endswith("or remove it")
    assert "hush" not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_a_client_that_cannot_be_made_for_an_unknown_reason(monkeypatch):
    def fail(**_):
        raise ValueError("hush")

    monkeypatch.setattr(httpx, "Client", fail)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY or NO_PROXY cannot be used"):
        api_client()


@pytest.mark.parametrize("make", [lambda: pool_for(Location(signed("k"))), api_client], ids=["pool", "client"])
def test_a_list_of_exceptions_that_cannot_be_read(monkeypatch, make):
    monkeypatch.setenv("NO_PROXY", "exa\x7fmple.com")
    with pytest.raises(ConfigurationError, match="NO_PROXY"):
        make()


@pytest.mark.parametrize(("exceptions", "is_asked"), [("", False), (".amazonaws.com", True), ("acme.example", False)])
def test_a_name_is_left_to_the_proxy(monkeypatch, exceptions, is_asked):
    asked = []

    def resolver(host, port):
        asked.append(host)
        return ["52.218.1.1"]

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.acme:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert list(resolver_for(Location(signed("k")), resolver)(HOST, 443)) == (["52.218.1.1"] if is_asked else [])
    assert asked == [HOST] * is_asked
    assert list(resolver_for(Location("https://10.0.0.5/k"), resolver)("10.0.0.5", 443)) == ["10.0.0.5"]


def test_without_a_proxy_names_are_looked_up():
    assert resolver_for(Location(signed("k")), lambda host, port: [host])(HOST, 443) == [HOST]


def test_a_location_that_is_no_url():
    with pytest.raises(RefusedError, match="not a usable URL"):
        pool_for(Location("https://acme.s3.amazonaws.com/\x7f?X-Amz-Signature=00ff"))


@pytest.mark.parametrize("make", [lambda: pool_for(Location(signed("k"))), api_client], ids=["pool", "client"])
def test_a_ca_bundle_that_is_not_there(monkeypatch, make):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE is no CA bundle that can be used: No such file"):
        make()


@pytest.mark.parametrize("url", [signed("k"), "http://127.0.0.1:9/k"])
def test_connections_keep_the_answer_of_http_client(url):
    class Given(http.client.HTTPConnection):
        pass

    connection = pool_for(Location(url)).connection_from_url(url)._new_conn()
    assert isinstance(connection, http.client.HTTPConnection)
    connection.answer = object()
    response = urllib3.HTTPResponse(b"", connection=connection)
    assert answer_of(response) is connection.answer
    names = [kind.__name__ for kind in type(connection).__mro__]
    assert names.index("_KeepsAnswer") == len(names) - 3


def _raised(error, cause):
    error.__context__ = cause
    return error


def test_why_there_is_no_answer():
    location = Location(signed("k"))
    expired = ssl.SSLCertVerificationError(1, "x")
    expired.verify_message = "certificate has expired"
    failure = why_unanswered(location, _raised(urllib3.exceptions.SSLError(signed("k")), expired))
    assert type(failure) is SourceUnavailableError
    assert str(failure) == f"https://{HOST}/k did not answer: SSLError: certificate has expired"
    tunnel = _raised(urllib3.exceptions.ProtocolError(signed("k")), OSError("Tunnel connection failed: 502 Bad"))
    assert str(why_unanswered(location, tunnel)) == f"https://{HOST}/k did not answer: the proxy answered 502"
    tunnel = _raised(urllib3.exceptions.ProtocolError(signed("k")), OSError("Tunnel connection failed: 407 Who"))
    assert type(why_unanswered(location, tunnel)) is ConfigurationError
    assert "answered 407" in str(why_unanswered(location, tunnel))
    assert "HTTPS_PROXY" in str(refused_by_proxy(location, 403))
