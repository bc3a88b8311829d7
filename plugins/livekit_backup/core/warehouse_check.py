"""What the warehouse's store honours: looked up in the ledger, found out once a week, and for another store."""

from __future__ import annotations

from datetime import datetime

from livekit_backup.core.ledger import Ledger
from livekit_backup.core.storage import ObjectStore, join_uri, split_uri
from livekit_backup.core.store_check import check_store
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.settings import Settings
from livekit_backup.models.store_abilities import StoreAbilities

PROBES = "_livekit_backup/probes"
"""Under the warehouse, since a bucket's encryption and policy are part of what is found out."""


def warehouse_abilities(
    settings: Settings,
    store: ObjectStore,
    ledger: Ledger,
    now: datetime,
    attempt: Attempt | None = None,
    *,
    noted: StoreAbilities | None = None,
) -> StoreAbilities:
    """Return what is known of the warehouse's store; where nothing is, or it is old, find it out and write it down.

    :param attempt: whose run's report clears up, should this be killed.
    :param noted: what the run has found before.
    :raises AccessDeniedError, ConfigurationError, StorageUnavailableError: nothing can be landed there now.
    """
    bucket = split_uri(settings.warehouse)[0]

    def holds(known: StoreAbilities | None) -> bool:
        # A warehouse that was copied elsewhere, or a connection that was changed, brings another store's findings.
        return known is not None and known.store == store.place_name() and known.is_fresh(now)

    known = noted if holds(noted) else ledger.read_abilities(bucket)
    if known and holds(known):
        return known
    place = join_uri(settings.warehouse, PROBES)
    found = check_store(store, place, now, lambda uris: ledger.note_probe(attempt, uris) if attempt else None)
    ledger.write_abilities(bucket, found)
    return found
