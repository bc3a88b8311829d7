"""Fetches manifests: checked hosts, no redirects, bounded size and time, retries for what passes."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from livekit_backup.core.http_connections import manifest_client, resolver_for
from livekit_backup.core.locations import Location, Resolver, check_location, system_resolver
from livekit_backup.core.redaction import redact_http_logs
from livekit_backup.core.source_answers import error_for_answer, has_expired
from livekit_backup.core.wording import describe_validation
from livekit_backup.errors import (
    LinkExpiredError,
    RefusedError,
    RetryableError,
    SourceUnavailableError,
    UnresolvedError,
)
from livekit_backup.models.manifest import Manifest

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""20,000 segments, each with a signed URL of some 600 bytes, make about 14 MB."""
ATTEMPTS = 4
"""With waits of up to 1, 2 and 4 s: what lasts longer is for Airflow's own retries."""
MAX_WAIT_SECONDS = 20.0
TOTAL_SECONDS = 60.0
"""For one whole answer: a read time-out never fires on a slow drip."""
_ERROR_BODY_BYTES = 4096
_TIMEOUT = httpx.Timeout(20.0, connect=10.0)


class ManifestClient:
    """Reads manifests over HTTP. Safe to share between threads.

    :raises ConfigurationError: the environment names a proxy or a CA bundle that cannot be used.
    """

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
        self._client = manifest_client(
            timeout=_TIMEOUT, follow_redirects=False, headers={"Accept-Encoding": "identity"}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def fetch(self, location: Location) -> Manifest:
        """Return the manifest behind a signed URL.

        :raises RefusedError: the location may not be fetched.
        :raises LinkExpiredError: its time is over.
        :raises MissingError: nothing is there.
        :raises UnresolvedError: what is there is no manifest.
        :raises SourceUnavailableError: no answer after all attempts.
        :raises AccessDeniedError: denied before the link's time is over.
        """
        if has_expired(location, datetime.now(UTC)):
            raise LinkExpiredError(f"the link expired {location.deadline:%Y-%m-%d %H:%M} UTC: {location.name}")
        check_location(location, self._allowed_hosts, resolver_for(location, self._resolver))
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

    def _get(self, location: Location) -> bytes:
        try:
            with self._client.stream("GET", location.url) as response:
                return self._read(location, response)
        # The originals carry the signed URL in text or request: they must not be chained.
        except httpx.InvalidURL:
            raise RefusedError(f"{location.name} is not a usable URL; the event is malformed") from None
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise SourceUnavailableError(f"{location.name} did not answer: {type(error).__name__}") from None

    def _read(self, location: Location, response: httpx.Response) -> bytes:
        until = time.monotonic() + TOTAL_SECONDS
        limit = MAX_MANIFEST_BYTES if response.status_code == httpx.codes.OK else _ERROR_BODY_BYTES
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if time.monotonic() > until:
                raise SourceUnavailableError(f"{location.name} took over {TOTAL_SECONDS:.0f} s to answer")
            if len(body) > limit:
                break
        error = error_for_answer(location, response.status_code, response.headers, bytes(body), datetime.now(UTC))
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
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise UnresolvedError(
            f"what is stored at {location.name} is no egress manifest: {describe_validation(error)}"
        ) from None
