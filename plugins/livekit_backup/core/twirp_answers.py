"""What an answer of LiveKit's API that lists nothing means.

Source: the Twirp protocol, v7, and livekit-server's ``pkg/service/auth.go``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from livekit_backup.core.redaction import safe_url, without_query
from livekit_backup.core.wording import escaped
from livekit_backup.errors import AccessDeniedError, ConfigurationError, LivekitBackupError, SourceUnavailableError

MAX_CLOCK_SKEW = timedelta(minutes=1)
"""What LiveKit's servers let pass (go-jose's default leeway)."""
TOKEN_LIFE = timedelta(minutes=10)
"""Of our tokens, before and behind now: a clock that is some minutes wrong must not stop anything."""

_DENIED = frozenset({"unauthenticated", "permission_denied"})
_LATER = frozenset({"resource_exhausted", "unavailable", "deadline_exceeded", "canceled", "aborted"})
_LATER_STATUSES = frozenset({408, 425, 429})
_TOKEN = re.compile(r"eyJ[\w.=-]+")


def error_for_api_answer(
    source: str, api_key: str, status: int, headers: Mapping[str, str], body: bytes, skew: timedelta | None
) -> LivekitBackupError:
    """Return the error that an answer other than 200 stands for.

    :param source: what errors call the server.
    :param api_key: the id of the API key that was used.
    :param headers: the answer's headers; looked up by their lower-case names.
    :param body: the first bytes of the answer's body.
    :param skew: how much the server's clock is ahead of ours.
    """
    code, said = twirp_error(body)
    shown = f"{source} answered {status}{f' {said}' if said else ''}"
    if code in _DENIED or (status in (401, 403) and code not in _LATER):
        return AccessDeniedError(f"{shown}: {_why_denied(api_key, skew)}")
    if code in _LATER or status in _LATER_STATUSES or (status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED):
        return SourceUnavailableError(shown, retry_after_of(headers))
    if 300 <= status < 400:
        where = safe_url(headers.get("location", ""))
        return ConfigurationError(
            f"{shown}, a redirect to {escaped(where) or 'nowhere'}: redirects are not followed, "
            f"so put the address of LiveKit's API itself into the connection"
        )
    if status in (404, 405, 501):
        return ConfigurationError(f"{shown}: no LiveKit API is there; is the host the project's, as in its settings?")
    return ConfigurationError(f"{shown}: it does not understand what this client asks for")


def twirp_error(body: bytes) -> tuple[str, str]:
    """Return the Twirp code of an error's body, empty when it has none, and what can be shown of the body.

    LiveKit repeats a token that it refuses, in whole.
    """
    text = body.decode(errors="replace").strip()
    code = ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        code = document["code"] if isinstance(document.get("code"), str) else ""
        text = f"{code}: {document['msg']}" if isinstance(document.get("msg"), str) else code
    elif text.startswith("<"):
        text = "with an HTML page"
    return code, escaped(_TOKEN.sub("(the token)", without_query(text)))


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait."""
    value = headers.get("retry-after", "")
    if value.isdecimal() and len(value) < 10:
        return float(value)
    until = date_of(value)
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until else None


def date_of(value: str) -> datetime | None:
    """Return an HTTP date in UTC; None when it is none."""
    try:
        moment = parsedate_to_datetime(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def describe_skew(skew: timedelta) -> str:
    """Return a sentence's part such as ``the clock here is 90 s behind the server's``."""
    seconds = abs(skew.total_seconds())
    return f"the clock here is {seconds:.0f} s {'behind' if skew > timedelta(0) else 'ahead of'} the server's"


def _why_denied(api_key: str, skew: timedelta | None) -> str:
    if skew is not None and abs(skew) > TOKEN_LIFE:
        return f"{describe_skew(skew)}, so that tokens seem to be of another time; set it by NTP"
    return (
        f"API key {escaped(api_key, 64)} may not list egresses there: was it revoked, is its secret the right one, "
        f"and is it a key of this very project?"
    )
