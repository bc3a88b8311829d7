"""Locations of a forger's: what checks them and what connects must read the same host in them."""

from __future__ import annotations

import random
import unicodedata

import pytest
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from livekit_backup.core.locations import MAX_URL, Location
from livekit_backup.core.recording_home import RecordingHome, check_reading
from livekit_backup.core.redaction import safe_url
from livekit_backup.errors import LivekitBackupError, RefusedError

HOSTS = ("*.amazonaws.com", "minio.acme:9000", "127.0.0.1:9000")
TIMEOUT = urllib3.Timeout(connect=0.01, read=0.01)

PIECES = st.sampled_from(
    [
        "http://", "https://", "HTTPS:", "//", "/", "\\", "@", ":", "#", "?", ";", "&", "%", "%2f", "%40", "%00", "\t", "\n",
        "\r", "\0", " ", ".", "..", "[", "]", "::1", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1", "2130706433", "0x7f.1",
        "169.254.169.254", "localhost", "evil.example", "b.s3.amazonaws.com", ".amazonaws.com", "minio.acme", ":9000",
        ":80", ":443", ":0", ":65536", "user", "user:pw@", "k.mp4", "X-Amz-Signature=hush", "\u3002", "\uff0e", "\u2024",
        "ⓛocalhost", "ｅvil", "\u00ad", "\u200b", "\u202e", "ß", "İ", "é", "e\u0301", "xn--", "xn--80ak6aa92e",
    ]
)  # fmt: skip
"""What parsers of URLs differ about. Source: the WHATWG and RFC 3986 readings of the same text."""
URLS = st.lists(PIECES, min_size=1, max_size=12).map("".join) | st.tuples(
    st.sampled_from(["http://", "https://"]), st.lists(PIECES, min_size=1, max_size=8).map("".join)
).map("".join)


class Connected(Exception):  # noqa: N818 - it is no error
    """Instead of a connection."""


def _can_be_shown(error):
    assert "hush" not in str(error)
    assert str(error).isprintable()


def _where_it_connects(monkeypatch, url):
    """Return the host and port that urllib3 would connect to; None where our code refuses before."""
    reached = []

    def connect(self):
        reached.append((self.host, self.port))
        raise Connected

    monkeypatch.setattr("livekit_backup.core.checked_connections._GoesWhereChecked._new_conn", connect)
    try:
        location = Location(url)
        RecordingHome(HOSTS, lambda host, port: ["52.218.1.1"]).ask(location, {}, TIMEOUT)
    except Connected:
        return location, reached
    except LivekitBackupError as error:
        _can_be_shown(error)
    assert reached == []
    return None


@given(URLS)
@example("https://b.s3.amazonaws.com\\@evil.example/k")
@example("https://evil.example\\.amazonaws.com/k")
@example("https://evil.example#@b.s3.amazonaws.com/")
@example("https://ev\til.amazonaws.com/k")
@example("https://b.s3.amazonaws.com:443:80/k")
@example("https://b.s3.amazonaws.com../k")
def test_it_connects_where_it_was_checked_or_nowhere(url):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        if found := _where_it_connects(patch, url):
            location, [(host, port)] = found
            assert host.rstrip(".").strip("[]") == location.host
            assert port == location.port
            assert location.host.endswith(".amazonaws.com") or (location.host, port) in (
                ("minio.acme", 9000),
                ("127.0.0.1", 9000),
            )


def test_the_attack_on_the_parsers_reaches_both_ends():
    """The property above says nothing where all is refused, or nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        assert _where_it_connects(patch, "https://b.s3.amazonaws.com/k?X-Amz-Signature=hush")
        assert _where_it_connects(patch, "http://minio.acme:9000/k?X-Amz-Signature=hush")
        assert not _where_it_connects(patch, "https://evil.example/k?X-Amz-Signature=hush")


@pytest.mark.parametrize(("field", "value"), [("host", "evil.example"), ("port", 8443), ("scheme", "http")])
def test_a_url_that_is_read_in_two_ways_is_refused(field, value):
    """No such URL is known: the property above finds none. Parsers change, and the check stays."""
    location = Location("https://b.s3.amazonaws.com/k?X-Amz-Signature=hush")
    check_reading(location)
    setattr(location, field, value)
    with pytest.raises(RefusedError, match="it can be read in two ways"):
        check_reading(location)


@pytest.mark.parametrize("length", [MAX_URL + 1, 1_000_000])
@pytest.mark.parametrize("piece", ["&a=1", "/", "%2e", "@", "a.", "é"])
def test_a_url_without_end_is_refused_before_it_is_read(length, piece):
    url = "https://b.s3.amazonaws.com/k?X-Amz-Signature=hush" + piece * (length // len(piece))
    with pytest.raises(RefusedError, match="characters, which no signed URL does") as caught:
        Location(url)
    assert len(str(caught.value)) < 1200
    assert "hush" not in str(caught.value)


def test_a_url_of_the_longest_session_is_taken():
    Location("https://b.s3.amazonaws.com/k?X-Amz-Security-Token=" + "a" * 4000 + "&X-Amz-Signature=" + "0" * 64)


def test_what_moves_a_terminals_cursor_is_not_shown():
    chosen = random.Random(5)
    odd = [chr(code) for code in range(0x2FFF) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")]
    for _ in range(200):
        path = "".join(chosen.choices(odd, k=3))
        assert safe_url(f"https://b.s3.amazonaws.com/a{path}b?X-Amz-Signature=hush").isprintable()
