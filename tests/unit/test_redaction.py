"""Signed URLs stay out of logs."""

from __future__ import annotations

import logging
import pickle

import pytest
import urllib3.connection

from livekit_backup.core.redaction import (
    QueryRedactingFilter,
    redact_http_logs,
    safe_url,
    without_query,
)

URL = "https://b.s3.amazonaws.com/k.mp4?X-Amz-Date=20241120T204342Z&X-Amz-Signature=secret"

LOGGERS = ("httpx", "httpcore.http11", "httpcore.connection", "urllib3.connection", "urllib3.connectionpool")


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        (URL, "https://b.s3.amazonaws.com/k.mp4"),
        ("https://user:secret@h:9000/p?secret#secret", "https://h:9000/p"),
        ("https://h/p#secret", "https://h/p"),
        ("https://h:99999/p?secret", "(a malformed URL)"),
        ("https://[::1/p?secret", "(a malformed URL)"),
        ("file:///data/a.mp4", "file:///data/a.mp4"),
    ],
)
def test_safe_urls(url, safe):
    assert safe_url(url) == safe


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"GET {URL} failed", "GET https://b.s3.amazonaws.com/k.mp4?… failed"),
        (f'"{URL}"', '"https://b.s3.amazonaws.com/k.mp4?…"'),
        (f"<{URL}> ({URL})", "<{0}> ({0}".format("https://b.s3.amazonaws.com/k.mp4?…")),
        ("What? Nothing.", "What? Nothing."),
        ("", ""),
    ],
)
def test_texts(text, redacted):
    assert without_query(text) == redacted


@pytest.mark.parametrize("mark", ["'", ")", "]", "}"])
def test_marks_do_not_end_a_query(mark):
    text = f"GET https://h/p?response-content-disposition=a{mark}b&X-Amz-Signature=secret HTTP/1.1"
    assert "secret" not in without_query(text)


def _record(name, message, *args):
    return logging.LogRecord(name, logging.INFO, "f.py", 1, message, args, None)


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ('HTTP Request: %s %s "%s %d %s"', ("GET", URL, "HTTP/1.1", 200, "OK")),
        ('%s://%s:%s "%s %s %s" %s %s', ("https", "h", 443, "GET", "/k.mp4?X-Amz-Signature=secret", "HTTP/1.1", 200, None)),
        ("Failed to parse headers (url=%s): %s", (URL, "defects")),
        ("receive_response_headers.complete return_value=%r", ([(b"Location", URL.encode())],)),
        (URL, ()),
        ("%s and too few " + URL, ()),
        ("%d " + URL, ("not a number",)),
    ],
)  # fmt: skip
def test_records(message, args):
    record = _record("httpx", message, *args)
    assert QueryRedactingFilter().filter(record)
    assert "secret" not in record.getMessage()
    assert "secret" not in str(pickle.loads(pickle.dumps(record)).__dict__)


def test_the_loggers_of_the_http_libraries_are_filtered_once(caplog):
    redact_http_logs()
    redact_http_logs()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        assert sum(isinstance(one, QueryRedactingFilter) for one in logger.filters) == 1
        with caplog.at_level(logging.DEBUG, logger=name):
            logger.debug('"GET %s HTTP/1.1" 200', URL)
    assert len(caplog.records) == len(LOGGERS)
    assert "secret" not in caplog.text


def test_the_logger_of_urllib3s_connections_is_filtered(caplog):
    redact_http_logs()
    urllib3.connection.log.warning("Failed to parse headers (url=%s): %s", URL, "defects")
    assert "secret" not in caplog.text
