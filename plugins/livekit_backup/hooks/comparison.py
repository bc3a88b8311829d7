"""One comparison over what Airflow's connections lead to: for the operator and for the commands."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.reconciling import Reconciler
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.windows import inbox_prefixes
from livekit_backup.hooks.livekit import LiveKitHook
from livekit_backup.models.reconciliation import Comparison
from livekit_backup.models.references import Intake
from livekit_backup.models.settings import BACKUP_LIFETIME, Settings
from livekit_backup.models.window import Window

log = logging.getLogger(__name__)


def compare_now(reconciler: Reconciler) -> Comparison:
    """Read the inbox, ask LiveKit's API, and return what both hold.

    :raises StorageUnavailableError, AccessDeniedError: the inbox or the ledger cannot be read.
    :raises SourceUnavailableError: of a patient one, LiveKit's API does not answer.
    """
    intake = read_inbox(reconciler.inbox, reconciler.settings, reconciler.window, reconciler.now)
    return reconciler.compare(LiveKitHook(reconciler.settings.livekit_conn_id).list_egress(), intake)


def read_inbox(inbox: ObjectStore, settings: Settings, window: Window, now: datetime, *egress_ids: str) -> Intake:
    """Read the inbox of a window, and of the days after it, in which events of it may have been filed anew."""
    reader = IntakeReader(egress_ids)
    end = min(max(now, window.end), window.end + BACKUP_LIFETIME) + timedelta(seconds=1)
    for prefix in inbox_prefixes(settings.inbox, settings.inbox_layout, Window(start=window.start, end=end)):
        reader.read(inbox, inbox.list_keys(prefix))
        log.debug("read %s", prefix)
    return reader.result()
