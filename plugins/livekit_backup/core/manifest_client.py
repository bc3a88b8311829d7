"""Fetches manifests: checked hosts, no redirects, bounded size and time, retries for what passes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self

import urllib3
from pydantic import ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from livekit_backup.core.http_connections import refused_by_proxy
from livekit_backup.core.locations import Location, Resolver, system_resolver
from livekit_backup.core.manifest_bounds import why_too_much
from livekit_backup.core.recording_home import RecordingHome
from livekit_backup.core.redaction import redact_http_logs
from livekit_backup.core.source_answers import error_for_answer
from livekit_backup.core.wording import describe_validation
from livekit_backup.errors import RetryableError, SourceUnavailableError, UnresolvedError
from livekit_backup.models.manifest import Manifest

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""20,000 segments, each with a signed URL of some 600 bytes, make about 14 MB."""
ATTEMPTS = 4
"""With waits of up to 1, 2 and 4 s: what lasts longer is for Airflow's own retries."""
MAX_WAIT_SECONDS = 20.0
TOTAL_SECONDS = 60.0
"""For one whole answer: a read time-out never fires on a slow drip."""
MOST_HOMES = 16
"""Whose connections are kept. LiveKit's backup is one; events that name more are hardly LiveKit's."""
_ERROR_BODY_BYTES = 4096
_PIECE = 64 * 1024
_TIMEOUT = urllib3.Timeout(connect=10.0, read=20.0)


class ManifestClient:
    """Reads manifests over HTTP. Safe to share between threads."""

    def __init__(
        self,
        allowed_hosts: Sequence[str],
        *,
        resolver: Resolver = system_resolver,
        first_wait_seconds: float = 1.0,
    ) -> None:
        redact_http_logs()
        self._allowed_hosts = allowed_hosts
        self._resolver = resolver
        self._first_wait = first_wait_seconds
        self._homes: dict[tuple[str, str, int], RecordingHome] = {}
        self._choosing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._choosing:
            for home in self._homes.values():
                home.close()
            self._homes.clear()

    def fetch(self, location: Location) -> Manifest:
        """Return the manifest behind a signed URL.

        :raises RefusedError: the location may not be fetched.
        :raises LinkExpiredError: its time is over.
        :raises MissingError: nothing is there.
        :raises UnresolvedError: what is there is no manifest.
        :raises SourceUnavailableError: no answer after all attempts.
        :raises AccessDeniedError: denied before the link's time is over.
        :raises ConfigurationError: the environment names a proxy or a CA bundle that cannot be used.
        """
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=self._wait,
            retry=retry_if_exception_type(RetryableError),
            reraise=True,
        )
        return _parse(location, retrying(self._get, location))

    def _wait(self, state: RetryCallState) -> float:
        backoff = wait_random_exponential(multiplier=self._first_wait, max=MAX_WAIT_SECONDS)
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None) or 0.0
        return min(MAX_WAIT_SECONDS, max(asked, backoff(state)))

    def _home_of(self, location: Location) -> RecordingHome:
        place = location.scheme, location.host, location.port
        with self._choosing:
            home = self._homes.pop(place, None) or RecordingHome(self._allowed_hosts, self._resolver)
            # The last asked stands last; one that another thread still asks keeps what it has.
            self._homes[place] = home
            while len(self._homes) > MOST_HOMES:
                self._homes.pop(next(iter(self._homes))).close()
        return home

    def _get(self, location: Location) -> bytes:
        response = self._home_of(location).ask(location, {"Accept-Encoding": "identity"}, _TIMEOUT)
        try:
            return self._read(location, response)
        # urllib3's errors repeat the URL: they must not be chained.
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceUnavailableError(f"{location.name} broke off: {type(error).__name__}") from None
        finally:
            # Kept for the next where it was read to its end.
            response.release_conn() if response.closed else response.close()

    def _read(self, location: Location, response: urllib3.BaseHTTPResponse) -> bytes:
        until = time.monotonic() + TOTAL_SECONDS
        limit = MAX_MANIFEST_BYTES if response.status == HTTPStatus.OK else _ERROR_BODY_BYTES
        body = bytearray()
        while piece := response.read1(_PIECE, decode_content=False):
            body += piece
            if time.monotonic() > until:
                raise SourceUnavailableError(f"{location.name} took over {TOTAL_SECONDS:.0f} s to answer")
            if len(body) > limit:
                break
        if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise refused_by_proxy(location, response.status)
        error = error_for_answer(location, response.status, response.headers, bytes(body), datetime.now(UTC))
        if error:
            raise error
        if response.headers.get("content-type", "").startswith("text/html"):
            # A proxy or a gateway says so that it is not well; no store keeps a manifest as a page.
            raise SourceUnavailableError(f"{location.name} answered with a web page instead of the manifest")
        if len(body) > limit:
            raise UnresolvedError(f"the manifest at {location.name} is over {MAX_MANIFEST_BYTES} bytes")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise UnresolvedError(f"the manifest at {location.name} came with an encoding that was not asked for")
        return bytes(body)


def _parse(location: Location, body: bytes) -> Manifest:
    if reason := why_too_much(body):
        raise UnresolvedError(f"what is stored at {location.name} is no egress manifest: {reason}")
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise UnresolvedError(
            f"what is stored at {location.name} is no egress manifest: {describe_validation(error)}"
        ) from None
