"""LiveKit's server API as far as it is needed: ListEgress, over Twirp JSON.

Source: livekit/protocol ``livekit_egress.proto`` and ``auth``, livekit-server's ``pkg/service``, and the Twirp
protocol, v7.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from livekit_backup.core.egress_listing import EgressListing, ListedEgress, Page, read_page
from livekit_backup.core.http_connections import api_client, async_api_client
from livekit_backup.core.redaction import redact_http_logs, safe_url, without_query
from livekit_backup.core.twirp_answers import TOKEN_LIFE, date_of, error_for_api_answer, twirp_error
from livekit_backup.core.upload_failures import failed_to_upload
from livekit_backup.core.wording import escaped, quoted
from livekit_backup.errors import ConfigurationError, SourceUnavailableError

__all__ = ["ListedEgress", "LiveKitApi", "api_address", "failed_to_upload", "signed_token"]

MAX_PAGE_BYTES = 64 * 1024 * 1024
"""Of one page, once decompressed: an open-source server answers a whole day's egresses at once, 2 to 20 KiB each."""
ATTEMPTS = 4
"""With waits of up to 1, 2 and 4 s: what lasts longer is for Airflow's own retries."""
MAX_WAIT_SECONDS = 20.0
TOTAL_SECONDS = 120.0
"""For one whole answer: a read time-out never fires on a slow drip."""

_METHOD = "/twirp/livekit.Egress/ListEgress"
_ERROR_BODY_BYTES = 4096
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip"})
"""One chunk of another, or of two on top of each other, could unpack to gigabytes before its size is seen."""
_SCHEMES = {"https": "https", "wss": "https", "http": "http", "ws": "http"}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}(?:\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+)")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]*)*")


class LiveKitApi:
    """A LiveKit server's API, by one API key. Safe to share between threads.

    :param url: the server as a person writes it: ``https://acme.livekit.cloud``, ``wss://…`` or the bare host.
    :param timeout_seconds: to wait for a connection, and for each piece of an answer.
    :raises ConfigurationError: the URL, key or secret cannot be used.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        api_secret: str,
        *,
        timeout_seconds: float = 20.0,
        first_wait_seconds: float = 1.0,
    ) -> None:
        self.address = api_address(url)
        """Scheme, host, port and, behind some proxies, a path."""
        self.api_key = api_key.strip()
        self.clock_skew: timedelta | None = None
        """How much the server's clock is ahead of ours, to about a second; None before the first answer."""
        self._secret = api_secret.strip()
        self._timeout = httpx.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds))
        self._first_wait = first_wait_seconds
        if not self.api_key or not self._secret:
            raise ConfigurationError(f"LiveKit's API at {self.address} needs an API key and its secret")
        signed_token(self.api_key, self._secret)

    def __repr__(self) -> str:
        return f"LiveKitApi({self.address!r}, {self.api_key!r})"

    def list_egress(self, *, egress_id: str = "", room_name: str = "") -> Iterator[ListedEgress]:
        """List every egress that the server still knows, whatever its status; page by page, while it is iterated.

        An egress id that it does not know gives an empty list.

        :raises AccessDeniedError: the key may not.
        :raises ConfigurationError: no LiveKit API is there.
        :raises SourceUnavailableError: no usable answer after all attempts.
        """
        redact_http_logs()
        listing = EgressListing(self.address, egress_id=egress_id, room_name=room_name)
        with api_client(**self._options()) as client:
            while (request := listing.request) is not None:
                yield from listing.take(Retrying(**self._retrying())(self._post, client, request))

    async def alist_egress(self, *, egress_id: str = "", room_name: str = "") -> AsyncIterator[ListedEgress]:
        """The same for triggers: nothing in it blocks the event loop for long."""
        redact_http_logs()
        listing = EgressListing(self.address, egress_id=egress_id, room_name=room_name)
        async with async_api_client(**self._options()) as client:
            while (request := listing.request) is not None:
                page: Page = await AsyncRetrying(**self._retrying())(self._apost, client, request)
                for listed in listing.take(page):
                    yield listed

    def _options(self) -> dict[str, Any]:
        return {
            "timeout": self._timeout,
            "follow_redirects": False,
            "headers": {"Accept": "application/json", "Accept-Encoding": "gzip"},
        }

    def _retrying(self) -> dict[str, Any]:
        return {
            "stop": stop_after_attempt(ATTEMPTS),
            "wait": self._wait,
            "retry": retry_if_exception_type(SourceUnavailableError),
            "reraise": True,
        }

    def _wait(self, state: RetryCallState) -> float:
        backoff = wait_random_exponential(multiplier=self._first_wait, max=MAX_WAIT_SECONDS)
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None) or 0.0
        return min(MAX_WAIT_SECONDS, max(asked, backoff(state)))

    def _post(self, client: httpx.Client, request: dict[str, Any]) -> Page:
        sent = time.time()
        try:
            with client.stream("POST", self.address + _METHOD, json=request, headers=self._signed()) as response:
                body = self._begin(response, sent)
                for chunk in response.iter_bytes():
                    if not body.add(chunk):
                        break
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise self._unanswered(error) from None
        return self._page(request, response, bytes(body.data))

    async def _apost(self, client: httpx.AsyncClient, request: dict[str, Any]) -> Page:
        sent = time.time()
        try:
            async with client.stream("POST", self.address + _METHOD, json=request, headers=self._signed()) as response:
                body = self._begin(response, sent)
                async for chunk in response.aiter_bytes():
                    if not body.add(chunk):
                        break
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise self._unanswered(error) from None
        return self._page(request, response, bytes(body.data))

    def _signed(self) -> dict[str, str]:
        # Anew for each request: a long listing outlives a token.
        return {"Authorization": f"Bearer {signed_token(self.api_key, self._secret)}"}

    def _begin(self, response: httpx.Response, sent: float) -> _Body:
        if date := date_of(response.headers.get("date", "")):
            # HTTP dates are cut to seconds, and the server wrote it about half-way between.
            self.clock_skew = timedelta(seconds=date.timestamp() + 0.5 - (sent + time.time()) / 2)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in _ENCODINGS:
            raise SourceUnavailableError(
                f"{self.address} answered {response.status_code} in the encoding {quoted(encoding, 64)}, unasked"
            )
        return _Body(self.address, keeps_all=response.status_code == HTTPStatus.OK)

    def _page(self, request: dict[str, Any], response: httpx.Response, body: bytes) -> Page:
        if response.status_code == HTTPStatus.OK:
            return read_page(self.address, body)
        # Open-source servers answer so for an id that they do not know.
        if "egress_id" in request and twirp_error(body)[0] == "not_found":
            return Page([], "")
        raise error_for_api_answer(
            self.address, self.api_key, response.status_code, response.headers, body, self.clock_skew
        )

    def _unanswered(self, error: Exception) -> SourceUnavailableError:
        # Nothing of ours is in these texts but the address; a proxy's can be longer than is of use.
        return SourceUnavailableError(
            f"{self.address} did not answer: {type(error).__name__} {escaped(without_query(str(error)))}".rstrip()
        )


class _Body:
    """An answer's body while it comes in, bounded in size and time."""

    def __init__(self, source: str, *, keeps_all: bool) -> None:
        self.data = bytearray()
        self._source = source
        self._keeps_all = keeps_all
        self._until = time.monotonic() + TOTAL_SECONDS

    def add(self, chunk: bytes) -> bool:
        """Take in the next bytes; False when no more are wanted."""
        self.data += chunk
        if time.monotonic() > self._until:
            raise SourceUnavailableError(f"{self._source} took over {TOTAL_SECONDS:.0f} s to answer")
        if not self._keeps_all:
            return len(self.data) < _ERROR_BODY_BYTES
        if len(self.data) > MAX_PAGE_BYTES:
            raise SourceUnavailableError(f"{self._source} answered with a page of over {MAX_PAGE_BYTES} bytes")
        return True


def signed_token(api_key: str, api_secret: str, now: datetime | None = None) -> str:
    """Return a token that may list egresses, and nothing else, for some minutes.

    :raises ConfigurationError: the secret cannot sign.
    """
    moment = now or datetime.now(UTC)
    claims = {
        "iss": api_key,
        "nbf": int((moment - TOKEN_LIFE).timestamp()),
        "exp": int((moment + TOKEN_LIFE).timestamp()),
        "video": {"roomRecord": True},
    }
    try:
        return jwt.encode(claims, api_secret, algorithm="HS256")
    except jwt.InvalidKeyError:
        raise ConfigurationError(
            f"the secret of API key {escaped(api_key, 64)} is a PEM or SSH key, and none of LiveKit's"
        ) from None


def api_address(url: str) -> str:
    """Return where a server's API is, by its URL as a person writes it.

    :raises ConfigurationError: it is no server's URL.
    """
    given = url.strip()
    example = "give it as https://acme.livekit.cloud"
    try:
        parts = urlsplit(given if "://" in given else f"https://{given}")
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        raise ConfigurationError(f"the LiveKit host is a malformed URL: {example}") from None
    # What is not shown can be a password.
    shown = escaped(safe_url(parts.geturl()))
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"the LiveKit host {shown} has none of the schemes https, wss, http and ws: {example}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"the LiveKit host {shown} comes with a user, query or fragment: {example}")
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(parts.path):
        raise ConfigurationError(f"the LiveKit host {shown} is not the URL of a server: {example}")
    name = f"[{host}]" if ":" in host else host
    address = f"{_SCHEMES[parts.scheme]}://{name}{port}{parts.path.rstrip('/')}"
    try:
        # httpx decodes a name in punycode only when it is asked for it.
        _ = httpx.URL(address).host
    except (httpx.InvalidURL, UnicodeError):
        raise ConfigurationError(f"the LiveKit host {shown} is not the URL of a server: {example}") from None
    return address
