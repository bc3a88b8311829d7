"""Keeps signed URLs out of texts and logs.

httpx logs every URL at INFO and urllib3 at DEBUG, query string included, and the query
string of a signed URL is a bearer credential for a recording.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit

from livekit_backup.core.wording import escaped

_LIBRARIES = ("httpx", "httpcore", "urllib3")
_LOGGERS = ("httpx", "httpcore.http11", "httpcore.connection", "urllib3.connection", "urllib3.connectionpool")
"""Those known to log URLs, in case they have not logged yet."""

MAX_SHOWN = 1000
"""Characters of a URL in a text; S3 keys have at most 1024 bytes."""

_HIDING = r"%(?:25)*3f|&|;"
"""What a query can begin with that lost its question mark: encoded, or escaped for HTML."""
_QUERY = re.compile(rf"(?:\?|(?:{_HIDING})(?=[^\s\"<>]*=))[^\s\"<>]+", re.IGNORECASE)
_HIDDEN = re.compile(rf"(?:{_HIDING}).*=.*", re.IGNORECASE | re.DOTALL)


def without_query(text: str) -> str:
    """Return a text with every query string replaced by ``?…``."""
    return _QUERY.sub("?…", text)


def without_hidden_query(path: str) -> str:
    """Return a URL's path without the query that may hide in it; its question mark was encoded, or is lost."""
    return _HIDDEN.sub("", path)


def safe_url(url: str) -> str:
    """Return scheme, host, port and path of a URL, without user info, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(a malformed URL)"
    path = re.split(_HIDING, parts.path, maxsplit=1, flags=re.IGNORECASE)[0]
    shown = f"{parts.scheme}://{host}{port}{path}"[:MAX_SHOWN]
    # A path from an event may hold what moves a terminal's cursor or turns the reading direction.
    return shown if shown.isprintable() else escaped(shown, MAX_SHOWN)


class QueryRedactingFilter(logging.Filter):
    """Rewrites a record so that no query string is left in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place and let it pass."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        record.msg = without_query(message)
        record.args = ()
        return True


_FILTER = QueryRedactingFilter()


def redact_http_logs() -> None:
    """Attach the filter to every logger of the HTTP libraries; calling again changes nothing.

    Loggers do not inherit filters, so each has to have it.
    """
    present = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LIBRARIES]
    for name in {*present, *_LIBRARIES, *_LOGGERS}:
        logging.getLogger(name).addFilter(_FILTER)
