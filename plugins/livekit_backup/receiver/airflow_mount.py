"""The webhook receiver inside Airflow's API server: configuration and keys are Airflow's."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.configuration import load_receiver_settings
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_client import S3Connection
from livekit_backup.receiver.inbox_writer import TUNING, InboxWriter
from livekit_backup.receiver.signing_keys import SigningKeys
from livekit_backup.receiver.webhook_app import RETRY_AFTER_SECONDS, WebhookReceiver

log = logging.getLogger(__name__)

_LOG_SECONDS = 60.0


def build_app() -> Starlette:
    """Build the application. :raises ConfigurationError: no inbox is configured."""
    settings, inbox_conn_id, livekit_conn_id = load_receiver_settings()

    def read_keys() -> Mapping[str, str]:
        from livekit_backup.hooks.livekit import LiveKitHook

        return LiveKitHook(livekit_conn_id).signing_keys()

    inbox = InboxWriter(lambda: S3ObjectStore(S3Connection(inbox_conn_id, tuning=TUNING)).without_looking())
    return WebhookReceiver(settings, SigningKeys(read_keys), inbox).app()


class MountedReceiver:
    """The application, built in a thread when it is first asked for anything."""

    def __init__(self) -> None:
        self._app: Starlette | None = None
        self._building = threading.Lock()
        self._logged_at = -_LOG_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; with 503 while the configuration does not say where the inbox is."""
        if self._app is None:
            try:
                await asyncio.to_thread(self._build)
            except ConfigurationError as error:
                self._log(error)
                if scope["type"] == "http":
                    answer = Response(status_code=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
                    await answer(scope, receive, send)
                return
        assert self._app is not None
        await self._app(scope, receive, send)

    def _build(self) -> None:
        with self._building:
            self._app = self._app or build_app()

    def _log(self, error: ConfigurationError) -> None:
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            log.warning("the webhook receiver cannot be used: %s", error)
