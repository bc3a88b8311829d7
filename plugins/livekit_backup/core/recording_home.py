"""Asks one host for recordings or manifests: the location is checked first, and what was checked is connected to."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import urllib3
from urllib3.connection import port_by_scheme

from livekit_backup.core.checked_connections import CheckedAddresses
from livekit_backup.core.http_connections import pool_for, resolver_for, why_unanswered
from livekit_backup.core.locations import Location, Resolver, check_location
from livekit_backup.core.source_answers import has_expired
from livekit_backup.errors import LinkExpiredError, RefusedError


class RecordingHome:
    """The scheme, host and port that locations have in common. Connections are kept and shared between threads.

    :param allowed_hosts: as the setting of this name has them.
    :param resolver: gives the addresses of a host; asked again by every request.
    """

    def __init__(self, allowed_hosts: Sequence[str], resolver: Resolver) -> None:
        self._allowed_hosts = allowed_hosts
        self._resolver = resolver
        self._checked = CheckedAddresses()
        self._pool: urllib3.PoolManager | None = None
        self._making = threading.Lock()

    def ask(self, location: Location, headers: Mapping[str, str], timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        """Send a GET and return the open answer, whatever its status. The caller reads, closes and releases it.

        :raises RefusedError: the location may not be fetched.
        :raises LinkExpiredError: its time is over.
        :raises ConfigurationError: the environment names a proxy or a CA bundle that cannot be used.
        :raises SourceUnavailableError: no answer.
        """
        if has_expired(location, datetime.now(UTC)):
            raise LinkExpiredError(f"the link expired {location.deadline:%Y-%m-%d %H:%M} UTC: {location.name}")
        resolver = resolver_for(location, self._resolver)
        self._checked.known = check_location(location, self._allowed_hosts, resolver)
        try:
            with self._making:
                # Two streams that begin at once share one pool, or each would keep connections of its own.
                pool = self._pool = self._pool or pool_for(location, self._checked)
            check_reading(location)
            return pool.request(
                "GET",
                location.url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=timeout,
            )
        # urllib3's errors repeat the URL: they must not be chained.
        except urllib3.exceptions.LocationValueError:
            raise RefusedError(f"{location.name} is not a usable URL; the event or manifest is malformed") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise why_unanswered(location, error) from None

    def close(self) -> None:
        """Drop the connections that are kept."""
        if self._pool:
            self._pool.clear()


def check_reading(location: Location) -> None:
    """Refuse a location in which urllib3, which connects, finds another host than was checked.

    :raises RefusedError: it does.
    """
    url = urllib3.util.parse_url(location.url)
    host = (url.host or "").strip("[]").rstrip(".").lower()
    if (url.scheme, host, url.port or port_by_scheme.get(url.scheme or "")) != (
        location.scheme,
        location.host,
        location.port,
    ) or url.auth:
        raise RefusedError(f"{location.name} is not a usable URL: it can be read in two ways")
