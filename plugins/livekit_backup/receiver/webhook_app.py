"""The webhook receiver as an ASGI application: for Airflow's API server and to run by itself.

It answers 200 only for what is durable in the inbox, and what it cannot store with 503, which LiveKit sends again:
any other 4xx than 429 counts there as delivered, so none is given for a fault of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from livekit_backup.core.webhook_tokens import Refusal, WebhookToken, read_token
from livekit_backup.errors import LivekitBackupError, UnreadableEventError, WebhookRefusedError
from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.receiver.event_filing import ReceivedEvent, file_event, read_event
from livekit_backup.receiver.inbox_writer import FullError, InboxWriter, Slot
from livekit_backup.receiver.receiver_metrics import ReceiverMetrics
from livekit_backup.receiver.signing_keys import SigningKeys

URL_PREFIX = "/livekit-backup"
"""Where Airflow's API server has it; by itself it answers there too."""
CONTENT_TYPES = frozenset({"application/webhook+json", "application/json"})
RETRY_AFTER_SECONDS = 5
"""LiveKit waits so before each of its four retries, in place of its own 1, 2, 4 and 8 seconds: a smaller number would
have it give up sooner. Its next event of the same egress waits meanwhile, and is dropped after 30 seconds."""
BODY_SECONDS = 10.0
"""For a body to arrive: LiveKit's, of some KiB, come with the head."""
READY_SECONDS = 5.0
"""For which an answer about readiness holds: anybody can ask."""
_UNREAD = frozenset({"too_large", "too_slow"})


class AnswerError(Exception):
    """Ends a request with a status that is not 200."""

    def __init__(self, status: int, reason: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.reason = reason


class _Endpoint:
    """The webhook's own ASGI application: Starlette wraps a function in two more layers for each request."""

    def __init__(self, receiver: WebhookReceiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._receiver.answer(Request(scope, receive))
        await answer(scope, receive, send)


class WebhookReceiver:
    """Takes LiveKit's webhooks into one inbox."""

    def __init__(
        self,
        settings: ReceiverSettings,
        keys: SigningKeys,
        inbox: InboxWriter,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.inbox = inbox
        self.metrics = ReceiverMetrics()
        self.metrics.in_flight.set_function(lambda: inbox.in_flight)
        self._now = now
        self._body_seconds = body_seconds
        self._ready = (False, -READY_SECONDS)
        self._checking: asyncio.Task[None] | None = None

    def app(self) -> Starlette:
        """Return the application; its lifespan, where there is one, waits for the last writes."""
        routes = [
            Route("/webhook", _Endpoint(self), methods=["POST"]),
            Route("/webhook/", _Endpoint(self), methods=["POST"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/ready", self._readiness, methods=["GET"]),
            Route("/metrics", self._show_metrics, methods=["GET"]),
        ]
        # The prefix works by itself too, so that LiveKit's side need not change with the way of serving.
        app = Starlette(routes=[*routes, Mount(URL_PREFIX, routes=routes)], lifespan=self._lifespan)
        app.router.redirect_slashes = False
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.inbox.close)

    async def answer(self, request: Request) -> Response:
        """Take one webhook, and answer for it."""
        began = time.perf_counter()
        try:
            await self._take(request)
        except AnswerError as answer:
            return self._refuse(request, answer)
        else:
            self.metrics.accepted.inc()
            return Response()
        finally:
            self.metrics.seconds.observe(time.perf_counter() - began)

    def _refuse(self, request: Request, answer: AnswerError) -> Response:
        # What is left of a body that is too long, too slow or without an end is not waited for.
        is_unread = answer.reason in _UNREAD or "content-length" not in request.headers
        headers = {"Connection": "close"} if is_unread else {}
        if answer.status == 503:
            self.metrics.failed(answer.reason, str(answer))
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        else:
            self.metrics.refused(answer.reason, str(answer))
        return Response(status_code=answer.status, headers=headers)

    async def _take(self, request: Request) -> None:
        """Verify, read and store one event; the cheapest checks come first. :raises AnswerError: it is not stored."""
        received_at = self._now()
        size = self._announced_size(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in CONTENT_TYPES:
            raise AnswerError(415, "content_type", "its content type is not that of a webhook")
        # Before its body is read: only what LiveKit signed can take room.
        authorization, token = await self._token(request, received_at)
        try:
            with self.inbox.slot(size) as slot:
                body = await self._body(request, slot)
                event = self._event(body, token)
                if self.settings.webhook_events == "egress" and not event.is_of_an_egress:
                    self.metrics.ignored.inc()
                    return
                await self._store(slot, event, token, authorization, received_at)
        except FullError:
            raise AnswerError(503, "full", "as many events as there is room for are being stored") from None

    def _announced_size(self, request: Request) -> int:
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
        if size > self.settings.webhook_max_bytes or len(announced) >= 20:
            raise self._too_large()
        return size

    def _too_large(self) -> AnswerError:
        return AnswerError(413, "too_large", f"its body is over {self.settings.webhook_max_bytes} bytes")

    async def _token(self, request: Request, at: datetime) -> tuple[str, WebhookToken]:
        # The first: Airflow's simple auth manager, where everybody is an administrator, appends one of its own.
        authorization = request.headers.get("authorization", "")
        try:
            keys = await self.keys.current()
            try:
                return authorization, read_token(authorization, keys, at)
            except WebhookRefusedError as refused:
                if refused.reason != Refusal.UNKNOWN_KEY:
                    raise
                return authorization, read_token(authorization, await self.keys.current(unknown_key=True), at)
        except WebhookRefusedError as refused:
            raise AnswerError(401, refused.reason, str(refused)) from None
        except LivekitBackupError as error:
            raise AnswerError(503, "keys", str(error)) from None

    async def _body(self, request: Request, slot: Slot) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self.settings.webhook_max_bytes:
                        raise self._too_large()
                    slot.hold(len(body))
        except TimeoutError:
            why = f"its body did not arrive in {self._body_seconds:.0f} s"
            # Not 408: it is signed, so it is LiveKit's, and would be lost by that.
            raise AnswerError(503, "too_slow", why) from None
        except ClientDisconnect:
            raise AnswerError(400, "disconnected", "its sender left") from None
        return bytes(body)

    @staticmethod
    def _event(body: bytes, token: WebhookToken) -> ReceivedEvent:
        try:
            token.check_body(body)
            return read_event(body)
        except WebhookRefusedError as refused:
            raise AnswerError(401, refused.reason, str(refused)) from None
        except UnreadableEventError as error:
            raise AnswerError(400, "no_event", str(error)) from None

    async def _store(
        self, slot: Slot, event: ReceivedEvent, token: WebhookToken, authorization: str, received_at: datetime
    ) -> None:
        try:
            uri, stored = file_event(self.settings, event, token, authorization, received_at)
            is_new = await self.inbox.store(slot, uri, stored)
        except LivekitBackupError as error:
            raise AnswerError(503, "inbox", str(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, LiveKit shall send it again
            raise AnswerError(503, "inbox", type(error).__name__) from None
        (self.metrics.stored if is_new else self.metrics.already_stored).inc()

    async def _health(self, _: Request) -> Response:
        return Response("alive\n", media_type="text/plain")

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _readiness(self, _: Request) -> Response:
        if time.monotonic() - self._ready[1] >= READY_SECONDS:
            # One check, however many ask; it goes on when the one who asked first has left.
            if self._checking is None or self._checking.done():
                self._checking = asyncio.create_task(self._check())
            await asyncio.shield(self._checking)
        is_ready = self._ready[0]
        return Response("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503, media_type="text/plain")

    async def _check(self) -> None:
        try:
            await self.keys.current()
            await self.inbox.check(self.settings.inbox)
        except Exception as error:  # noqa: BLE001 - the answer is no; why stands in the log
            self._ready = (False, time.monotonic())
            why = str(error) if isinstance(error, LivekitBackupError) else type(error).__name__
            self.metrics.log("ready", "this receiver is not ready", why)
        else:
            self._ready = (True, time.monotonic())
