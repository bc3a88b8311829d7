"""Keeps events in the inbox: one object an event, keyed by its hour and by what it says."""

from __future__ import annotations

import hashlib
from datetime import datetime

from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.windows import hour_prefix
from livekit_backup.models.stored_webhook import EventSource, StoredWebhook


def evidence_uri(inbox: str, layout: str, hour: datetime, name: str, stored: StoredWebhook) -> str:
    """Return where an event is kept: the same body in the same hour is the same object.

    :param hour: any moment of the hour whose run shall take it up.
    :param name: what a person recognises, of letters, digits, ``_`` and ``-``.
    """
    digest = hashlib.sha256(stored.body.encode()).hexdigest()
    source = "" if stored.source is EventSource.WEBHOOK else f"{stored.source}-"
    return f"{hour_prefix(inbox, layout, hour)}{name}-{source}{digest}.json"


def keep(store: ObjectStore, uri: str, stored: StoredWebhook) -> bool:
    """Store an event where none is; False when this very body is there already. Durable once it returns.

    The first evidence of a body stays: a repeated delivery adds nothing to it.
    """
    body = f"{stored.model_dump_json()}\n".encode()
    return store.put_new(uri, body, content_type="application/json", metadata={})
