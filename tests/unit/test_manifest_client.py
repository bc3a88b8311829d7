"""How manifests are fetched, without a network."""

from __future__ import annotations

import io
import json

import pytest
import urllib3

from livekit_backup.core import manifest_client
from livekit_backup.core.locations import Location
from livekit_backup.core.manifest_client import ATTEMPTS, MAX_WAIT_SECONDS, ManifestClient
from livekit_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    LinkExpiredError,
    MissingError,
    RefusedError,
    SourceUnavailableError,
    UnresolvedError,
)
from unit.fakes import CORPUS, signed

LINK = signed("m.json").replace("20261120", "20990101")
MANIFEST = (CORPUS / "livekit_egress/m01_room_composite_mp4.json").read_bytes()


def _answer(status, content=b"", **headers):
    """An answer whose body is still to be read; given anew each time it is asked for."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: urllib3.HTTPResponse(io.BytesIO(content), named, status, preload_content=False)


class Bench:
    def __init__(self, monkeypatch, *answers):
        self.answers, self.asked = list(answers), []
        self.client = ManifestClient(
            ("livekit-egress.s3.amazonaws.com",),
            resolver=lambda host, port: ["52.218.1.1"],
            first_wait_seconds=0.0,
        )
        monkeypatch.setattr(urllib3.PoolManager, "request", self._answer)

    def _answer(self, method, url, **options):
        self.asked.append(url)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer()

    def fetch(self, link=LINK):
        with self.client as client:
            return client.fetch(Location(link))


def test_a_manifest(monkeypatch):
    assert Bench(monkeypatch, _answer(200, MANIFEST)).fetch().egress_id == "EG_roomComp01A"


PAGE = _answer(200, b"<html>Sorry</html>", Content_Type="text/html; charset=utf-8")
"""A gateway says so that it is not well."""


@pytest.mark.parametrize(
    "transient",
    [
        _answer(503),
        _answer(429),
        PAGE,
        urllib3.exceptions.NewConnectionError(None, "no"),
        urllib3.exceptions.ReadTimeoutError(None, "u", "no"),
    ],
)
def test_what_passes_is_tried_again(monkeypatch, transient):
    bench = Bench(monkeypatch, transient, _answer(200, MANIFEST))
    assert bench.fetch().files
    assert len(bench.asked) == 2


def test_not_for_ever(monkeypatch):
    bench = Bench(monkeypatch, *(_answer(503, Retry_After="0") for _ in range(9)))
    with pytest.raises(SourceUnavailableError, match="answered 503"):
        bench.fetch()
    assert len(bench.asked) == ATTEMPTS


@pytest.mark.parametrize("asked", ["1e9", "99999", "9" * 400])
def test_a_wait_has_a_limit(asked):
    state = type("State", (), {"attempt_number": 1, "outcome": type("Outcome", (), {})()})()
    state.outcome.exception = lambda: SourceUnavailableError("busy", float(asked))
    with ManifestClient(()) as client:
        assert client._wait(state) == MAX_WAIT_SECONDS


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (_answer(404), MissingError, "404"),
        (_answer(403), AccessDeniedError, "403"),
        (_answer(403, b"Request has expired"), LinkExpiredError, "expired"),
        (_answer(302, Location="http://169.254.169.254/"), RefusedError, "redirects"),
        (_answer(200, b"<html>"), UnresolvedError, "no egress manifest"),
        (_answer(200, b"{}"), UnresolvedError, "no egress manifest"),
        (_answer(200, b'{"files": ["https://x/?sig=secret"]}'), UnresolvedError, "files"),
        (_answer(200, b"x", Content_Encoding="br"), UnresolvedError, "encoding"),
    ],
)
def test_what_does_not_pass(monkeypatch, answer, error, text):
    bench = Bench(monkeypatch, answer)
    with pytest.raises(error, match=text) as caught:
        bench.fetch()
    assert type(caught.value) is error
    assert len(bench.asked) == 1
    assert "secret" not in str(caught.value)
    assert "X-Amz" not in str(caught.value)


def test_too_much_is_not_read(monkeypatch):
    monkeypatch.setattr(manifest_client, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(UnresolvedError, match="over 100 bytes"):
        Bench(monkeypatch, _answer(200, MANIFEST)).fetch()


def test_a_drip_is_given_up(monkeypatch):
    now = iter(range(0, 10**6, 40))
    monkeypatch.setattr(manifest_client.time, "monotonic", lambda: next(now))

    class Drip(io.BytesIO):
        def read1(self, size=-1):
            return super().read1(1)

    bench = Bench(
        monkeypatch, *[lambda: urllib3.HTTPResponse(Drip(MANIFEST), {}, 200, preload_content=False)] * ATTEMPTS
    )
    with pytest.raises(SourceUnavailableError, match="took over 60 s"):
        bench.fetch()


@pytest.mark.parametrize(
    ("link", "error"),
    [
        (signed("m", "20200101T000000Z"), LinkExpiredError),
        ("https://evil.example/m?Signature=s", RefusedError),
        ("/data/m.json", RefusedError),
        ("", RefusedError),
    ],
)
def test_what_is_not_even_asked(monkeypatch, link, error):
    bench = Bench(monkeypatch)
    with pytest.raises(error):
        bench.fetch(link)
    assert bench.asked == []


def test_a_url_that_cannot_be_used_is_refused(monkeypatch):
    with pytest.raises(RefusedError, match="not a usable URL") as caught:
        Bench(monkeypatch).fetch("https://livekit-egress.s3.amazonaws.com/a\x01b?Signature=secret")
    assert caught.value.__cause__ is None


def test_an_environment_that_no_client_can_be_made_for(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "ftp://jo:hush@proxy")
    monkeypatch.delenv("https_proxy", raising=False)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY is not the URL of an HTTP proxy") as caught:
        Bench(monkeypatch).fetch()
    assert "hush" not in repr(caught.value)


def test_behind_a_proxy_no_name_is_looked_up(monkeypatch):
    def resolver(host, port):
        pytest.fail("resolved")

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.acme:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    bench = Bench(monkeypatch, _answer(200, MANIFEST))
    bench.client._allowed_hosts, bench.client._resolver = ("*.amazonaws.com",), resolver
    assert bench.fetch().files


def test_the_manifest_of_20000_segments_fits():
    segment = {"filename": "x" * 100, "location": "y" * 600}
    assert len(json.dumps([segment] * 200)) * 100 < manifest_client.MAX_MANIFEST_BYTES
