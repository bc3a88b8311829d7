"""What the HTTP answer of a recording's home means. Source: S3's, GCS's and Azure's error codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from livekit_backup.core.locations import Location
from livekit_backup.errors import (
    AccessDeniedError,
    LinkExpiredError,
    LivekitBackupError,
    MissingError,
    RefusedError,
    SourceUnavailableError,
)

CLOCK_SKEW = timedelta(minutes=10)
"""A link is called dead by our own clock only when it is over by more than a wrong clock explains."""

_CODE = re.compile(rb"<Code>\s*([A-Za-z]{1,64})\s*</Code>")
_EXPIRED_CODES = frozenset({b"ExpiredToken", b"TokenRefreshRequired", b"InvalidToken"})
_TRANSIENT = frozenset({408, 425, 429})


def error_for_answer(
    location: Location, status: int, headers: Mapping[str, str], body: bytes, now: datetime
) -> LivekitBackupError | None:
    """Return the error that an answer stands for, or None for 200 and 206.

    :param headers: the answer's headers; looked up in any case.
    :param body: the first bytes of an error's body. Never shown: it repeats signed requests.
    """
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return None
    code = match.group(1) if (match := _CODE.search(body)) else b""
    shown = f"{status}{f' {code.decode()}' if code else ''}"
    if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailableError(f"{location.name} answered {shown}", _retry_after(headers, now))
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return RefusedError(f"redirects are not followed: {location.name} answered {shown}")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return MissingError(f"nothing is stored there: {location.name} answered {shown}")
    deadline = location.deadline
    if b"has expired" in body or code in _EXPIRED_CODES or (deadline and now > deadline):
        return LinkExpiredError(f"{_expired(deadline, now)}: {location.name} answered {shown}")
    return AccessDeniedError(
        f"access is denied before the link's time is over; ask LiveKit's support with this text: {location.name} "
        f"answered {shown}"
    )


def _expired(deadline: datetime | None, now: datetime) -> str:
    if deadline is None:
        return "the link has expired"
    # Keys that last for a shorter time can have signed it.
    how = "expired" if now > deadline else "has expired before its own time,"
    return f"the link {how} {deadline:%Y-%m-%d %H:%M} UTC"


def has_expired(location: Location, now: datetime) -> bool:
    """Whether a link is surely dead by its own words."""
    return location.deadline is not None and now - CLOCK_SKEW > location.deadline


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    value = next((headers[name] for name in headers if name.lower() == "retry-after"), "")
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())
