"""Where a recording lies, when its link dies, and whether it may be fetched."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.locations import Location, check_location, literal_addresses, system_resolver
from livekit_backup.errors import RefusedError, SourceUnavailableError

PUBLIC, PRIVATE = "52.218.1.1", "10.0.0.5"
DEFAULT = ("*.amazonaws.com", "storage.googleapis.com")
DEADLINE = datetime(2024, 11, 27, 20, 43, 42, tzinfo=UTC)
EPOCH = int(DEADLINE.timestamp())


def _check(url: str, hosts=DEFAULT, address: str = PUBLIC) -> None:
    check_location(Location(url), hosts, lambda host, port: [address])


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://b.s3.amazonaws.com/k", DEFAULT),
        ("HTTPS://B.S3.AmazonAWS.com/k", DEFAULT),
        ("https://b.s3.us-west-2.amazonaws.com:443/k", DEFAULT),
        ("https://b.s3.amazonaws.com./k", DEFAULT),
        ("http://b.s3.amazonaws.com/k", DEFAULT),
        ("http://b.s3.amazonaws.com:80/k", DEFAULT),
        ("https://storage.googleapis.com/b/k", DEFAULT),
        ("https://minio.acme:9000/k", ("minio.acme:9000",)),
        ("https://b.minio.acme:9000/k", ("*.minio.acme:9000",)),
        ("https://[2001:db8::1]:9000/k", ("[2001:db8::1]:9000",)),
        ("https://[::1]/k", ("[::1]",)),
        ("https://127.0.0.1/k", ("127.0.0.1",)),
        ("https://my_bucket.s3.amazonaws.com/k", DEFAULT),
        (" https://b.s3.amazonaws.com/k\n", DEFAULT),
    ],
)
def test_allowed(url, hosts):
    _check(url, hosts)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "b/k.mp4",
        "/data/recordings/k.mp4",
        "file:///data/recordings/k.mp4",
        "file://b.s3.amazonaws.com/k",
        "ftp://b.s3.amazonaws.com/k",
        "s3://b/k",
        "gopher://b.s3.amazonaws.com/k",
        "javascript:alert(1)",
        "data:text/plain,x",
        "//b.s3.amazonaws.com/k",
        "https:///k",
        "https://amazonaws.com/k",
        "https://amazonaws.com.evil.example/k",
        "https://evilamazonaws.com/k",
        "https://b.s3.amazonaws.com.evil.example/k",
        "https://b.s3.amazonaws.com:8443/k",
        "https://b.s3.amazonaws.com:80/k",
        "http://b.s3.amazonaws.com:443/k",
        "https://storage.googleapis.com:9000/k",
        "https://x.storage.googleapis.com/k",
        "https://evil.example/b.s3.amazonaws.com",
        "https://evil.example?.s3.amazonaws.com/k",
        "https://evil.example#.s3.amazonaws.com/k",
        "https://evil.example\\.s3.amazonaws.com/k",
        "https://evil.example%2f.s3.amazonaws.com/k",
        "https://evil.example%00.s3.amazonaws.com/k",
        "https://evil.example .s3.amazonaws.com/k",
        "https://-b.s3.amazonaws.com/k",
        "https://é.s3.amazonaws.com/k",
        "https://localhost/k",
        "https://127.0.0.1/k",
        "https://2130706433/k",
        "https://0177.0.0.1/k",
        "https://0x7f000001/k",
        "https://127.1/k",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/k",
        "https://[::ffff:127.0.0.1]/k",
        "https://[::ffff:7f00:1]/k",
        "https://[fe80::1%25eth0]/k",
    ],
)
def test_refused(url):
    with pytest.raises(RefusedError):
        _check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user@b.s3.amazonaws.com/k",
        "https://user:secret@b.s3.amazonaws.com/k",
        "https://b.s3.amazonaws.com@evil.example/k",
        "https://b.s3.amazonaws.com\\@evil.example/k",
        "https://b.s3.amazonaws.com:99999/k?sig=secret",
        "https://b.s3.amazonaws.com:port/k?sig=secret",
        "https://[::1/k?sig=secret",
        "https://b\u2100.amazonaws.com/k?sig=secret",
    ],
)
def test_not_even_a_location(url):
    with pytest.raises(RefusedError) as caught:
        Location(url)
    assert "secret" not in str(caught.value)
    assert "user" not in str(caught.value).replace("user name", "")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5", "127.0.0.1", "169.254.169.254", "172.16.3.4", "192.168.1.1", "100.64.0.1", "0.0.0.0", "::1", "::",
        "fe80::1", "fe80::1%eth0", "fd00::5", "::ffff:127.0.0.1", "::ffff:10.0.0.5", "240.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
def test_a_name_that_only_matches_a_pattern_may_not_be_private(address):
    with pytest.raises(RefusedError, match="not a public address"):
        _check("https://b.s3.amazonaws.com/k", address=address)


def test_one_private_address_is_enough():
    with pytest.raises(RefusedError, match=r"10\.0\.0\.5"):
        check_location(Location("https://b.s3.amazonaws.com/k"), DEFAULT, lambda host, port: [PUBLIC, PRIVATE])


def test_a_full_name_may_be_private():
    hosts = ("*.acme.internal", "minio.acme.internal")
    _check("https://minio.acme.internal/k", hosts, PRIVATE)
    with pytest.raises(RefusedError):
        _check("https://other.acme.internal/k", hosts, PRIVATE)


def test_a_full_name_is_not_even_resolved():
    def resolver(host, port):
        pytest.fail("resolved")

    check_location(Location("https://minio/k"), ("minio",), resolver)


@pytest.mark.parametrize("entry", ["b?.s3.amazonaws.com", "b[0-9].s3.amazonaws.com"])
def test_every_pattern_is_one(entry):
    with pytest.raises(RefusedError):
        _check("https://b1.s3.amazonaws.com/k", (entry,), PRIVATE)


def test_a_bare_ipv6_address_is_a_host():
    _check("https://[fd00::5]/k", ("fd00::5",))


def test_a_name_that_does_not_resolve_may_later():
    def resolver(host, port):
        raise OSError(-2, "Name or service not known")

    with pytest.raises(SourceUnavailableError, match=r"b\.s3\.amazonaws\.com does not resolve: Name or service"):
        check_location(Location("https://b.s3.amazonaws.com/k?sig=secret"), DEFAULT, resolver)


@pytest.mark.parametrize("host", [f"{'a' * 64}.amazonaws.com", "a..amazonaws.com"])
def test_a_name_that_cannot_be_one_is_refused(host):
    try:
        check_location(Location(f"https://{host}/k"), DEFAULT, system_resolver)
    except (RefusedError, SourceUnavailableError):
        return
    except UnicodeError as error:
        pytest.fail(f"{error!r}")


def test_the_refusal_says_what_to_do():
    with pytest.raises(RefusedError) as caught:
        _check("https://minio.acme:9000/b/k.mp4?X-Amz-Signature=secret")
    assert str(caught.value) == (
        "https://minio.acme:9000/b/k.mp4: host 'minio.acme' (port 9000) is not in allowed_hosts; add it if you know it"
    )


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Date=20241120T204342Z&X-Amz-Expires=604800&X-Amz-Signature=s",
        "x-amz-signature=s&x-amz-expires=604800&x-amz-date=20241120T204342Z",
        "X-Goog-Date=20241120T204342Z&X-Goog-Expires=604800&X-Goog-Signature=s",
        "x-oss-date=20241120T204342Z&x-oss-expires=604800&x-oss-signature=s",
        f"GoogleAccessId=a&Expires={EPOCH}&Signature=s",
        f"OSSAccessKeyId=a&Expires={EPOCH}&Signature=s",
        f"AWSAccessKeyId=a&Expires={EPOCH}&Signature=s",
        "sv=2023-11-03&se=2024-11-27T20%3A43%3A42Z&sig=s",
        "se=2024-11-27T20%3A43%3A42&sig=s",
        "se=2024-11-27T21%3A43%3A42%2B01%3A00&sig=s",
    ],
)
def test_deadlines(query):
    location = Location(f"https://b.s3.amazonaws.com/k?{query}")
    assert location.deadline == DEADLINE
    assert location.is_signed


@pytest.mark.parametrize(
    "query",
    [
        "",
        "X-Amz-Date=20241120T204342Z",
        "X-Amz-Expires=604800",
        "X-Amz-Date=yesterday&X-Amz-Expires=604800",
        "X-Amz-Date=20241120T204342Z&X-Amz-Expires=week",
        f"X-Amz-Date=20241120T204342Z&X-Amz-Expires={'9' * 30}",
        f"Expires={'9' * 30}",
        f"Expires={'9' * 5000}",
        "Expires=never",
        "Expires=",
        "se=2024-11-27T20%3A43%3A42Z",
        "se=soon&sig=s",
    ],
)
def test_no_deadline(query):
    assert Location(f"https://b.s3.amazonaws.com/k?{query}").deadline is None


@given(st.text(max_size=80))
def test_any_query_has_a_deadline_or_none(text):
    for key in ("Expires", "X-Amz-Date=20241120T204342Z&X-Amz-Expires", "sig=s&se"):
        deadline = Location(f"https://b.s3.amazonaws.com/k?{key}={text.replace('#', '')}").deadline
        assert deadline is None or deadline.tzinfo


@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{1,20}/.{0,30}", fullmatch=True))
def test_any_text_is_a_location_or_refused(text):
    try:
        location = Location(text)
        check_location(location, DEFAULT, lambda host, port: [PUBLIC])
    except RefusedError:
        return
    assert location.host.endswith(".amazonaws.com") or location.host == "storage.googleapis.com"


@given(st.text("abcXYZ019-_%+/=&;,'()!*~:@", min_size=1, max_size=40))
def test_its_text_never_holds_the_query(query):
    location = Location(f"https://b.s3.amazonaws.com/k?{query}&X-Amz-Signature=secret")
    for text in (repr(location), str(location), f"{location}", location.name):
        assert "secret" not in text
        assert "?" not in text
    assert location.url.endswith("secret")


def test_the_fragment_is_not_shown_either():
    assert "secret" not in str(Location("https://b.s3.amazonaws.com/k#?sig=secret"))


@pytest.mark.parametrize("query", ["", "versionId=5", "x-id=GetObject", "X-Amz-Date=20241120T204342Z"])
def test_without_a_signature_it_is_in_ones_own_bucket(query):
    assert not Location(f"https://acme.s3.amazonaws.com/k?{query}").is_signed


def test_resolving_an_address_gives_it_back():
    assert system_resolver("127.0.0.1", 80) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("10.0.0.5", ["10.0.0.5"]),
        ("127.1", ["127.0.0.1"]),
        ("0x7f000001", ["127.0.0.1"]),
        ("2130706433", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("b.s3.amazonaws.com", []),
        ("localhost", []),
    ],
)
def test_the_address_that_a_host_is(host, addresses):
    assert literal_addresses(host, 443) == addresses


@pytest.mark.parametrize("host", [f"{'a' * 64}.amazonaws.com", "a..amazonaws.com"])
def test_a_name_that_cannot_be_one_is_no_fault_of_ours(host):
    with contextlib.suppress(RefusedError):
        check_location(Location(f"https://{host}/k"), DEFAULT, literal_addresses)


@pytest.mark.parametrize("host", ["10.0.0.5", "10.5"])
def test_a_private_address_is_refused_without_asking(host):
    with pytest.raises(RefusedError, match="not a public address"):
        check_location(Location(f"https://{host}/k"), ("*.5",), literal_addresses)


@pytest.mark.parametrize(
    "url",
    [
        "https://h/k?X-Amz-Signature=",
        "https://h/k&amp;X-Amz-Signature=secret",
        "https://h/k%3FX-Amz-Signature=secret",
        "https://h/k?token=secret",
    ],
)
def test_what_may_carry_a_credential_is_not_shown_and_not_called_plain(url):
    location = Location(url)
    assert "secret" not in location.name
    assert location.is_signed or not location.is_plain


def test_a_name_is_not_endless():
    assert len(Location(f"https://h/{'x' * 15_000}").name) <= 1000
