"""What Airflow loads as a plugin, from the entry point or from the mounted folder.

Every process of Airflow imports this, so what the receiver needs is imported when its first request comes.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from livekit_backup.hooks import preloading
from livekit_backup.notifications.link_deadline import NearestLinkDeadline
from livekit_backup.operators.deadline_weight import NearestDeadlineWeight

if TYPE_CHECKING:
    from livekit_backup.receiver.airflow_mount import MountedReceiver


class WebhookReceiverApp:
    """The webhook receiver as an ASGI application. It asks for LiveKit's signature, never for a login."""

    def __init__(self) -> None:
        self._mounted: MountedReceiver | None = None
        self._importing = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._mounted is None:
            # In a thread: importing boto would keep the whole API server waiting.
            await asyncio.to_thread(self._import)
        assert self._mounted is not None
        await self._mounted(scope, receive, send)

    def _import(self) -> None:
        from livekit_backup.receiver.airflow_mount import MountedReceiver

        with self._importing:
            self._mounted = self._mounted or MountedReceiver()


class LivekitBackupPlugin(AirflowPlugin):
    """Serves the webhook receiver; operators, sensor and trigger are imported from their modules."""

    name = "livekit_backup"
    listeners = [preloading]  # noqa: RUF012 - Airflow declares it so
    priority_weight_strategies = [NearestDeadlineWeight]  # noqa: RUF012 - Airflow declares it so
    deadline_references = [NearestLinkDeadline]  # noqa: RUF012 - Airflow declares it so
    fastapi_apps = [  # noqa: RUF012 - Airflow declares it so
        {"app": WebhookReceiverApp(), "url_prefix": "/livekit-backup", "name": "LiveKit webhook receiver"}
    ]
