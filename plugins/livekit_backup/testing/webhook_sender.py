"""LiveKit's sender of webhooks: signs as LiveKit does, and tries again as often and as late as it does.

    sender = WebhookSender("http://127.0.0.1:8070/webhook", "APIkey", "secret")
    delivery = sender.send(recording.event())
    assert delivery.accepted

Source: livekit/protocol's ``webhook`` package, and go-retryablehttp, whose ``DefaultBackoff`` takes a ``Retry-After``
in place of its own wait, also where it is shorter. A retry carries the same body and the same token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx
import jwt

CONTENT_TYPE = "application/webhook+json"
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry."""
LIFETIME = timedelta(minutes=5)
"""Of a token."""
TIMEOUT_SECONDS = 10.0


def sign_webhook(
    body: bytes, api_key: str, secret: str, *, at: datetime | None = None, lifetime: timedelta = LIFETIME, **claims: Any
) -> str:
    """Return the token that LiveKit sends with a body.

    :param at: when it is signed; now unless given.
    :param claims: in place of its own; None leaves one out.
    """
    made = int((at or datetime.now(UTC)).timestamp())
    own: dict[str, Any] = {
        "iss": api_key,
        "nbf": made,
        "iat": made,
        "exp": made + int(lifetime.total_seconds()),
        "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
        **claims,
    }
    return jwt.encode({name: value for name, value in own.items() if value is not None}, secret, algorithm="HS256")


@dataclass(frozen=True)
class Delivery:
    """What became of one event."""

    statuses: tuple[int, ...]
    """Of each try; 0 where there was no answer."""
    body: bytes
    token: str

    @property
    def accepted(self) -> bool:
        """Whether the receiver has it."""
        return self.statuses[-1] in range(200, 300)

    @property
    def is_over(self) -> bool:
        """Whether LiveKit would count it as delivered: all that it does not try again, also a 4xx."""
        return not _is_tried_again(self.statuses[-1])


class WebhookSender:
    """Sends events to one receiver. Safe to share between threads.

    :param url: the receiver's.
    :param scale: of all waits; for tests that cannot wait for 15 seconds.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        secret: str,
        *,
        scale: float = 1.0,
        timeout: float = TIMEOUT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._secret = secret
        self._scale = scale
        self._sleep = sleep
        self._client = httpx.Client(timeout=timeout, trust_env=False, limits=httpx.Limits(max_connections=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(self, event: Mapping[str, Any] | bytes, *, at: datetime | None = None) -> Delivery:
        """Send an event until it counts as delivered, or LiveKit would give up.

        :param event: the event, or a body as it is.
        :param at: when it is signed; now unless given.
        """
        body = event if isinstance(event, bytes) else json.dumps(event, separators=(",", ":")).encode()
        token = sign_webhook(body, self._api_key, self._secret, at=at)
        statuses: list[int] = []
        for wait in (*WAITS, None):
            status, retry_after = self._try(body, token)
            statuses.append(status)
            if wait is None or not _is_tried_again(status):
                break
            self._sleep((wait if retry_after is None else retry_after) * self._scale)
        return Delivery(tuple(statuses), body, token)

    def _try(self, body: bytes, token: str) -> tuple[int, float | None]:
        """Send it once; return the status, and the seconds that the receiver asked to wait, if it did."""
        headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "LiveKit", "Authorization": token}
        try:
            answer = self._client.post(self._url, content=body, headers=headers)
        except httpx.TransportError:
            return 0, None
        asked = answer.headers.get("Retry-After", "") if answer.status_code in (429, 503) else ""
        return answer.status_code, float(asked) if asked.isdecimal() else None


def _is_tried_again(status: int) -> bool:
    return status in (0, 429) or (status >= 500 and status != 501)
