"""Ours, as the bench calls it: what the two tasks of a file do, without the tasks around it."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

from engines import Job, Move
from livekit_backup.core.downloading import Download
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.landing import land
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.locations import Location
from livekit_backup.core.store_check import check_store
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import FileKind, RecordingFile
from livekit_backup.models.store_abilities import StoreAbilities

ALL_CHECKS = frozenset({"length", "event_size", "source_etag", "destination_crc64nvme", "destination_etag"})
"""What must have passed for a landing to count here; its SHA-256 is taken besides."""


def open_engine(abilities: StoreAbilities, wanted: frozenset[str] = ALL_CHECKS) -> Move:
    """Return what recovers one file, and fails when a wanted check was not made.

    :param abilities: of the store. A DAG finds them out once a week, so that is no part of a transfer.
    """
    store = S3ObjectStore("aws_default")
    ledger = Ledger(store, "s3://ledger")
    attempt = Attempt(dag_id="bench", run_id="bench")

    def move(job: Job) -> None:
        file = RecordingFile(
            egress_id="EG_bench",
            run=1,
            filename=job.destination,
            kind=FileKind.FILE,
            started=datetime.now(UTC),
            size=job.size,
            landing_uri=job.destination,
        )
        source = HttpSource(Location(job.url), [urlsplit(job.url).netloc])
        upload = Download(file, store, ledger, attempt, abilities).run(lambda: source)
        entry = land(file, upload, store, ledger, attempt, abilities)
        missing = wanted - set(entry.verified_by)
        assert not missing, f"not checked: {missing}"
        assert entry.sha256, "no SHA-256"

    return move


def abilities_of_sink() -> StoreAbilities:
    """What the discarding sink honours: everything, as ``transfers`` checks beforehand."""
    found = {name: True for name, field in StoreAbilities.model_fields.items() if field.annotation is bool}
    return StoreAbilities(checked_at=datetime.now(UTC), **found)


def abilities_found() -> StoreAbilities:
    """What the store at hand honours, by trying."""
    return check_store(S3ObjectStore("aws_default"), "s3://warehouse/probes", datetime.now(UTC))


if __name__ == "__main__":
    print(abilities_found().model_dump_json())
