"""What an HTTP answer means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.locations import Location
from livekit_backup.core.source_answers import CLOCK_SKEW, error_for_answer, has_expired
from livekit_backup.errors import (
    AccessDeniedError,
    LinkExpiredError,
    MissingError,
    RefusedError,
    SourceUnavailableError,
)
from unit.fakes import signed

LOCATION = Location(signed("k.mp4"))
DEADLINE = datetime(2026, 11, 27, 20, 43, 42, tzinfo=UTC)
BEFORE, AFTER = DEADLINE - timedelta(days=1), DEADLINE + timedelta(seconds=1)


def _xml(code: str, message: str = "") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.mark.parametrize("status", [200, 206])
def test_no_error(status):
    assert error_for_answer(LOCATION, status, {}, _xml("AccessDenied"), AFTER) is None


@pytest.mark.parametrize(
    ("status", "body", "now", "error"),
    [
        (301, b"", BEFORE, RefusedError),
        (302, b"", BEFORE, RefusedError),
        (307, _xml("TemporaryRedirect"), BEFORE, RefusedError),
        (404, _xml("NoSuchKey"), BEFORE, MissingError),
        (404, _xml("NoSuchBucket"), AFTER, MissingError),
        (410, b"", BEFORE, MissingError),
        (403, _xml("AccessDenied", "Request has expired"), BEFORE, LinkExpiredError),
        (403, _xml("AccessDenied"), AFTER, LinkExpiredError),
        (403, b"", AFTER, LinkExpiredError),
        (403, _xml("AccessDenied"), BEFORE, AccessDeniedError),
        (403, _xml("SignatureDoesNotMatch"), BEFORE, AccessDeniedError),
        (400, _xml("ExpiredToken"), BEFORE, LinkExpiredError),
        (400, _xml("InvalidToken"), BEFORE, LinkExpiredError),
        (400, _xml("TokenRefreshRequired"), BEFORE, LinkExpiredError),
        (400, b"<Error><Code>\n ExpiredToken \n</Code></Error>", BEFORE, LinkExpiredError),
        (400, _xml("AuthorizationQueryParametersError"), BEFORE, AccessDeniedError),
        (401, b"", BEFORE, AccessDeniedError),
        (408, b"", AFTER, SourceUnavailableError),
        (425, b"", BEFORE, SourceUnavailableError),
        (429, b"", BEFORE, SourceUnavailableError),
        (500, _xml("InternalError"), AFTER, SourceUnavailableError),
        (503, _xml("SlowDown"), BEFORE, SourceUnavailableError),
        (599, b"", BEFORE, SourceUnavailableError),
    ],
)
def test_answers(status, body, now, error):
    found = error_for_answer(LOCATION, status, {}, body, now)
    assert type(found) is error
    assert str(status) in str(found)
    assert "X-Amz" not in str(found)


def test_the_code_is_named_and_the_body_never_shown():
    body = (
        b"<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>X-Amz-Signature=secret</CanonicalRequest></Error>"
    )
    text = str(error_for_answer(LOCATION, 403, {}, body, BEFORE))
    assert "403 SignatureDoesNotMatch" in text
    assert "secret" not in text


def test_without_a_deadline_a_denial_is_a_denial():
    found = error_for_answer(Location("https://b.s3.amazonaws.com/k?Signature=s"), 403, {}, b"", AFTER)
    assert type(found) is AccessDeniedError
    assert "the link expired 2026-" in str(error_for_answer(LOCATION, 403, {}, b"", AFTER))


def test_a_link_whose_signing_keys_ended_first_is_not_said_to_have_lasted():
    text = str(error_for_answer(LOCATION, 403, {}, _xml("ExpiredToken"), BEFORE))
    assert text.startswith("the link has expired before its own time, 2026-")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Fri, 27 Nov 2026 20:44:12 GMT", 30.0),
        ("Fri, 27 Nov 2026 20:00:00 GMT", 0.0),
        ("Fri, 27 Nov 2026 20:44:12", 30.0),
        ("soon", None),
        ("", None),
        ("-5", None),
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "Retry-After", "RETRY-AFTER"])
def test_how_long_the_source_asks_to_wait(name, value, seconds):
    assert error_for_answer(LOCATION, 503, {name: value}, b"", DEADLINE).retry_after == seconds


@given(st.text(max_size=40), st.binary(max_size=60), st.integers(100, 599))
def test_no_answer_breaks_the_table(value, body, status):
    error = error_for_answer(LOCATION, status, {"Retry-After": value}, body, BEFORE)
    assert (error is None) is (status in (200, 206))


def test_a_link_is_dead_only_when_no_wrong_clock_explains_it():
    assert not has_expired(LOCATION, DEADLINE + CLOCK_SKEW)
    assert has_expired(LOCATION, DEADLINE + CLOCK_SKEW + timedelta(seconds=1))
    assert not has_expired(Location("https://b.s3.amazonaws.com/k"), AFTER)


@pytest.mark.parametrize("query", ["se=9999-12-31T23%3A59%3A59Z&sig=s", "Expires=253402300799&Signature=s"])
def test_a_link_that_never_dies(query):
    assert not has_expired(Location(f"https://own.blob.core.windows.net/k?{query}"), AFTER)
