"""A webhook receiver in memory: requests go straight into its ASGI application, in pieces where that matters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.receiver.inbox_writer import InboxWriter
from livekit_backup.receiver.signing_keys import SigningKeys
from livekit_backup.receiver.webhook_app import WebhookReceiver
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, sign_webhook

NOW = datetime(2026, 11, 23, 13, 59, 30, tzinfo=UTC)
SECRET = "a-secret-of-more-than-thirty-two-bytes"
INBOX = "s3://acme-events/livekit"
HOUR = f"{INBOX}/2026/11/23/13/"


class MemoryInbox:
    """The one thing that a receiver asks of a store."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_new(self, uri: str, body: bytes, *, content_type: str, metadata: Mapping[str, str]) -> bool:
        return self.objects.setdefault(uri, body) is body


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class ReceiverBed:
    """One receiver, its store and its clock."""

    store: Any = field(default_factory=MemoryInbox)
    settings: dict[str, Any] = field(default_factory=dict)
    keys: Callable[[], Mapping[str, str]] = lambda: {"APIone": SECRET}
    limits: dict[str, Any] = field(default_factory=dict)
    body_seconds: float = 10.0
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.writer = InboxWriter(lambda: self.store, **{"threads": 4, **self.limits})
        self.receiver = WebhookReceiver(
            ReceiverSettings(inbox=INBOX, **self.settings),
            SigningKeys(self.keys),
            self.writer,
            now=lambda: self.now,
            body_seconds=self.body_seconds,
        )
        self.app = self.receiver.app()

    async def ask(
        self,
        body: bytes | Iterable[bytes | None] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        path: str = "/webhook",
        method: str = "POST",
        root_path: str = "",
    ) -> Answer:
        """Send a request. A body in pieces is sent without a length; None waits for ever, as a sender that stalls."""
        is_whole = isinstance(body, bytes)
        own = {"content-length": str(len(body))} if is_whole else {"transfer-encoding": "chunked"}
        pieces = iter([body] if is_whole else [*body, b""])
        own |= {name.lower(): value for name, value in (headers or {}).items()}
        last = object()
        upcoming: Any = next(pieces, last)

        async def receive() -> dict[str, Any]:
            nonlocal upcoming
            piece, upcoming = upcoming, next(pieces, last)
            if piece is None or piece is last:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": piece, "more_body": upcoming is not last}

        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "root_path": root_path,
            "query_string": b"",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own.items() if value],
            "client": ("198.51.100.7", 40000),
            "server": ("127.0.0.1", 8070),
        }
        await self.app(scope, receive, send)
        start = sent[0]
        return Answer(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in sent[1:]),
        )

    async def deliver(self, body: bytes, at: datetime | None = None, **headers: str) -> Answer:
        """Send a body as LiveKit does."""
        own = {"content-type": CONTENT_TYPE, "authorization": self.token(body, at)}
        return await self.ask(body, {**own, **{name.replace("_", "-"): value for name, value in headers.items()}})

    def token(self, body: bytes, at: datetime | None = None, **claims: Any) -> str:
        return sign_webhook(body, "APIone", SECRET, at=at or self.now, **claims)

    def metric(self, name: str, **labels: str) -> float:
        return self.receiver.metrics.registry.get_sample_value(f"livekit_backup_{name}", labels) or 0.0


def event(kind: str = "egress_ended", egress_id: str = "EG_1", **fields: Any) -> bytes:
    return json.dumps(
        {
            "event": kind,
            "id": "EV_1",
            "createdAt": str(int(NOW.timestamp())),
            "egressInfo": {"egressId": egress_id},
            **fields,
        }
    ).encode()
