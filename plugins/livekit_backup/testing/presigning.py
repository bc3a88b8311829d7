"""Presigned S3 URLs (Signature Version 4 in the query): made, and checked as S3 checks them.

Source: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" in
Amazon's S3 API reference. Standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape

ALGORITHM = "AWS4-HMAC-SHA256"
WEEK = 7 * 24 * 3600
"""The longest life S3 allows a presigned URL, and the one LiveKit gives its backups."""

CLOCK_SKEW = timedelta(minutes=15)
"""How far ahead of its own clock S3 accepts a signing time."""

_STAMP = "%Y%m%dT%H%M%SZ"
_SIGNATURE = "X-Amz-Signature"
_REQUIRED = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """What a URL is signed with. The defaults are the example keys of Amazon's documentation."""

    access_key: str = "AKIAIOSFODNN7EXAMPLE"
    secret: str = field(default="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", repr=False)
    region: str = "us-west-2"

    def scope(self, signed_at: datetime) -> str:
        """The credential scope of a day."""
        return f"{signed_at:%Y%m%d}/{self.region}/s3/aws4_request"

    def sign(self, text: str, signed_at: datetime) -> str:
        """The signature of a string to sign."""
        key = f"AWS4{self.secret}".encode()
        for step in self.scope(signed_at).split("/"):
            key = hmac.digest(key, step.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


class S3Error(Exception):
    """An answer of S3 that is an error: a status, a code and a message in XML."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def xml(self, request_id: str) -> bytes:
        """The body, with the elements in S3's order."""
        elements = {"Code": self.code, "Message": self.message, **self.details, "RequestId": request_id}
        inside = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode()


def presign(
    key: SigningKey,
    base_url: str,
    path: str,
    *,
    signed_at: datetime,
    method: str = "GET",
    expires: int = WEEK,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Sign a URL.

    Args:
        base_url: scheme and host, without a path.
        path: ``/bucket/key`` as plain text; it is percent-encoded here.
        signed_at: when the URL's life begins (``X-Amz-Date``).
        expires: the length of its life in seconds.
        query: further parameters, in the order in which they are to stand in the URL.
        headers: request headers, beside ``Host``, that a client then has to send exactly so.
    """
    signed_at = signed_at.astimezone(UTC)
    signed = {name.lower(): value for name, value in (headers or {}).items()} | {"host": host_of(base_url)}
    parameters = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{key.access_key}/{key.scope(signed_at)}",
        "X-Amz-Date": signed_at.strftime(_STAMP),
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": ";".join(sorted(signed)),
        **(query or {}),
    }
    signature = _signature(key, method, path, parameters, signed, signed_at)
    pairs = "&".join(f"{_encode(name)}={_encode(value)}" for name, value in parameters.items())
    return f"{base_url}{_encode_path(path)}?{pairs}&{_SIGNATURE}={signature}"


def check_presigned(key: SigningKey, *, method: str, target: str, headers: Mapping[str, str], now: datetime) -> None:
    """Raise the :class:`S3Error` with which S3 answers a request that its URL does not allow.

    Args:
        target: the request's path and query, as they came over the wire.
        headers: the request's headers with names in lower case.
    """
    path, _, query = target.partition("?")
    parameters = _parse_query(query)
    if _SIGNATURE not in parameters:
        raise S3Error(403, "AccessDenied", "Access Denied")
    claimed = parameters.pop(_SIGNATURE)
    signed_at, expires = _read_life(parameters)
    _check_life(signed_at, expires, now)
    _check_credential(key, parameters["X-Amz-Credential"], signed_at)
    names = parameters["X-Amz-SignedHeaders"].split(";")
    _check_headers(headers, names)
    signed = {name: headers.get(name, "") for name in names}
    expected = _signature(key, method, unquote(path), parameters, signed, signed_at)
    # The right signature stays out of the answer: it would be a gift to whoever guesses.
    if "host" not in names or not hmac.compare_digest(expected.encode(), claimed.encode()):
        raise S3Error(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        )


def host_of(url: str) -> str:
    """The ``Host`` header that a client sends for a URL: a scheme's default port is left out."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def _read_life(parameters: Mapping[str, str]) -> tuple[datetime, int]:
    missing = [name for name in _REQUIRED if name not in parameters]
    if missing or parameters["X-Amz-Algorithm"] != ALGORITHM:
        needed = ", ".join(_REQUIRED)
        raise _malformed(f"Query-string authentication version 4 requires the {needed} parameters")
    try:
        signed_at = datetime.strptime(parameters["X-Amz-Date"], _STAMP).replace(tzinfo=UTC)
        expires = int(parameters["X-Amz-Expires"])
    except ValueError:
        raise _malformed("X-Amz-Date and X-Amz-Expires must be a date and a number") from None
    if not 0 <= expires <= WEEK:
        raise _malformed("X-Amz-Expires must be less than a week (in seconds)")
    return signed_at, expires


def _check_life(signed_at: datetime, expires: int, now: datetime) -> None:
    if now < signed_at - CLOCK_SKEW:
        raise S3Error(403, "AccessDenied", "Request is not yet valid")
    if now >= signed_at + timedelta(seconds=expires):
        raise expired(signed_at, expires, now)


def expired(signed_at: datetime, expires: int, now: datetime) -> S3Error:
    """S3's answer to a URL whose time is over."""
    ends = signed_at + timedelta(seconds=expires)
    return S3Error(
        403,
        "AccessDenied",
        "Request has expired",
        details={
            "X-Amz-Expires": str(expires),
            "Expires": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            "ServerTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        },
    )


def _check_credential(key: SigningKey, credential: str, signed_at: datetime) -> None:
    access_key, _, scope = credential.partition("/")
    if access_key != key.access_key:
        raise S3Error(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    if scope != key.scope(signed_at):
        raise _malformed("Error parsing the X-Amz-Credential parameter; the scope is wrong")


def _check_headers(headers: Mapping[str, str], signed: list[str]) -> None:
    unsigned = sorted(name for name in headers if name.startswith("x-amz-") and name not in signed)
    if unsigned:
        raise S3Error(
            403,
            "AccessDenied",
            "There were headers present in the request which were not signed",
            details={"HeadersNotSigned": ", ".join(unsigned)},
        )


def _malformed(message: str) -> S3Error:
    return S3Error(400, "AuthorizationQueryParametersError", message)


def _signature(
    key: SigningKey,
    method: str,
    path: str,
    parameters: Mapping[str, str],
    headers: Mapping[str, str],
    signed_at: datetime,
) -> str:
    query = sorted((_encode(name), _encode(value)) for name, value in parameters.items())
    request = "\n".join(
        [
            method,
            _encode_path(path),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)),
            "",
            ";".join(sorted(headers)),
            "UNSIGNED-PAYLOAD",
        ]
    )
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([ALGORITHM, signed_at.strftime(_STAMP), key.scope(signed_at), digest])
    return key.sign(text, signed_at)


def _parse_query(query: str) -> dict[str, str]:
    # Not parse_qsl: a plus sign in a signed URL is a plus sign.
    pairs = (item.partition("=") for item in query.split("&") if item)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")


def _encode_path(path: str) -> str:
    return quote(path, safe="/-_.~")
