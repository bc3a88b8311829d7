"""The signatures are botocore's, and the refusals S3's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from livekit_backup.testing.presigning import (
    WEEK,
    S3Error,
    SigningKey,
    _encode_path,
    check_presigned,
    host_of,
    presign,
)

KEY = SigningKey()
SIGNED = datetime(2024, 11, 20, 20, 43, 42, tzinfo=UTC)
PATHS = [
    "/bucket/egress/standup.mp4",
    "/bucket/ünïcode/会議 日本.mp4",
    "/bucket/with space/a+b%20c%.mp4",
    "/bucket/a=b&c?d#e;f,g:h@i$'()!*~.mp4",
]


def _sign(path: str = "/bucket/key.mp4", **options) -> str:
    return presign(KEY, "http://127.0.0.1:8090", path, **({"signed_at": SIGNED} | options))


def _check(url: str, *, method: str = "GET", now: datetime = SIGNED, **headers: str) -> None:
    parts = urlsplit(url)
    sent = {"host": parts.netloc} | {name.replace("_", "-"): value for name, value in headers.items()}
    check_presigned(KEY, method=method, target=f"{parts.path}?{parts.query}", headers=sent, now=now)


def _refusal(url: str, **options) -> S3Error:
    with pytest.raises(S3Error) as caught:
        _check(url, **options)
    return caught.value


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [{}, {"x-amz-checksum-mode": "ENABLED"}])
def test_signs_as_botocore_does(path, method, headers):
    base = "https://s3.us-west-2.amazonaws.com"
    request = AWSRequest(method, base + _encode_path(path) + "?x-amz-checksum-mode=ENABLED&x-id=GetObject")
    for name, value in headers.items():
        request.headers[name] = value
    signer = S3SigV4QueryAuth(Credentials(KEY.access_key, KEY.secret), "s3", KEY.region, expires=WEEK)
    signer.add_auth(request)
    theirs = dict(parse_qsl(urlsplit(request.url).query))

    ours = presign(
        KEY,
        base,
        path,
        signed_at=datetime.strptime(theirs["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        method=method,
        query={"x-amz-checksum-mode": "ENABLED", "x-id": "GetObject"},
        headers=headers,
    )

    assert dict(parse_qsl(urlsplit(ours).query)) == theirs
    assert urlsplit(ours).path == urlsplit(request.url).path


def test_url_has_the_shape_of_livekits():
    url = _sign(query={"x-amz-checksum-mode": "ENABLED", "x-id": "GetObject"})

    assert url.rpartition("=")[0] == (
        "http://127.0.0.1:8090/bucket/key.mp4?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20241120%2Fus-west-2%2Fs3%2Faws4_request"
        "&X-Amz-Date=20241120T204342Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host"
        "&x-amz-checksum-mode=ENABLED&x-id=GetObject&X-Amz-Signature"
    )


@pytest.mark.parametrize("path", PATHS)
def test_accepts_its_own_urls(path):
    _check(_sign(path))


def test_accepts_any_order_and_case_of_percent_encoding():
    url = _sign("/bucket/a b+c.mp4")
    head, _, query = url.partition("?")

    _check(head.replace("%2B", "+") + "?" + "&".join(reversed(query.split("&"))))


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (_sign().replace("key.mp4", "other.mp4"), {}),
        (_sign().replace("X-Amz-Expires=604800", "X-Amz-Expires=604799"), {}),
        (_sign() + "&response-content-type=text/html", {}),
        (_sign()[:-1] + "x", {}),
        (_sign().replace("SignedHeaders=host", "SignedHeaders="), {}),
        (_sign(), {"host": "elsewhere"}),
        (_sign(method="HEAD"), {}),
        (_sign(headers={"x-amz-checksum-mode": "ENABLED"}), {}),
        (
            presign(SigningKey(secret="another"), "http://127.0.0.1:8090", "/bucket/key.mp4", signed_at=SIGNED),
            {},
        ),
    ],
)
def test_refuses_what_was_not_signed(url, headers):
    refusal = _refusal(url, **headers)

    assert (refusal.status, refusal.code) == (403, "SignatureDoesNotMatch")


def test_signed_header_must_be_sent():
    _check(_sign(headers={"x-amz-checksum-mode": "ENABLED"}), x_amz_checksum_mode="ENABLED")


def test_refuses_an_unsigned_amz_header():
    refusal = _refusal(_sign(), x_amz_checksum_mode="ENABLED")

    assert (refusal.status, refusal.code) == (403, "AccessDenied")
    assert refusal.message == "There were headers present in the request which were not signed"
    assert refusal.details == {"HeadersNotSigned": "x-amz-checksum-mode"}


def test_lives_for_its_seven_days_only():
    end = SIGNED + timedelta(days=7)
    _check(_sign(), now=end - timedelta(seconds=1))

    refusal = _refusal(_sign(), now=end)

    assert (refusal.status, refusal.code, refusal.message) == (403, "AccessDenied", "Request has expired")
    assert b"<Expires>2024-11-27T20:43:42Z</Expires>" in refusal.xml("1")


def test_is_not_valid_before_it_was_signed():
    _check(_sign(), now=SIGNED - timedelta(minutes=14))

    assert _refusal(_sign(), now=SIGNED - timedelta(minutes=16)).message == "Request is not yet valid"


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://127.0.0.1:8090/bucket/key.mp4", 403, "AccessDenied"),
        (_sign().replace("AKIA", "AKIB"), 403, "InvalidAccessKeyId"),
        (_sign().replace("us-west-2", "eu-west-1"), 400, "AuthorizationQueryParametersError"),
        (_sign(expires=WEEK + 1), 400, "AuthorizationQueryParametersError"),
        (_sign().replace("X-Amz-Date=2024", "X-Amz-Date=x"), 400, "AuthorizationQueryParametersError"),
        (_sign().replace("X-Amz-Date", "X-Amz-Day"), 400, "AuthorizationQueryParametersError"),
    ],
)
def test_refuses_malformed_requests(url, status, code):
    refusal = _refusal(url)

    assert (refusal.status, refusal.code) == (status, code)


def test_error_is_escaped_and_holds_no_signature():
    text = S3Error(404, "NoSuchKey", "No <key> & no bucket").xml("REQ")

    assert text.endswith(b"<Message>No &lt;key&gt; &amp; no bucket</Message><RequestId>REQ</RequestId></Error>")
    url = _sign().replace("key.mp4", "other.mp4")
    assert b"Signature=" not in _refusal(url).xml("REQ")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example:443/x", "a.example"),
        ("http://a.example:80", "a.example"),
        ("http://a.example:443", "a.example:443"),
        ("http://[::1]:8090", "[::1]:8090"),
    ],
)
def test_host_leaves_default_ports_out(url, host):
    assert host_of(url) == host


def test_key_hides_its_secret():
    assert KEY.secret not in repr(KEY)
