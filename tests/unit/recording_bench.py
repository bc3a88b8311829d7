"""A bench for one recording: a source, a store in memory and a ledger in it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from livekit_backup.core.downloading import Download
from livekit_backup.core.file_links import RenewedSource
from livekit_backup.core.landing import land
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.recovering import FileRecovery, Sources
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import EventRef, FileKind, RecordingFile
from unit.fakes import MemorySource, MemoryStore, abilities

URI = "s3://b/out/d/ä.mp4"
DATA = b"recording" * 1000
MD5 = hashlib.md5(DATA).hexdigest()
ATTEMPT = Attempt(dag_id="d", run_id="r1")


def file_of(**changes):
    values = {
        "egress_id": "EG_1",
        "run": 1732135319356232371,
        "filename": "d/ä.mp4",
        "kind": FileKind.FILE,
        "room_name": "Räum",
        "started": datetime(2026, 1, 1, tzinfo=UTC),
        "size": len(DATA),
        "landing_uri": URI,
        "events": (EventRef(uri="s3://b/in/e", position=0),),
    }
    return RecordingFile(**{**values, **changes})


class Bench:
    def __init__(self, *, data=DATA, etag=MD5, found=None, store=None, **options):
        self.store = MemoryStore(**(store or {}))
        self.ledger = Ledger(self.store, "s3://b/out/_l")
        self.source = MemorySource(data, etag=etag, **options)
        self.file = file_of(size=len(data))
        self.found = abilities(**(found or {}))

    def download(self, **options):
        download = Download(self.file, self.store, self.ledger, ATTEMPT, self.found, **options)
        return download.run(lambda: RenewedSource(lambda: self.source))

    def recovery(self, attempt=ATTEMPT, **options):
        sources = Sources(lambda file: RenewedSource(lambda: self.source), None, None)
        return FileRecovery(self.store, self.ledger, attempt, lambda: self.found, sources, **options)

    @property
    def notes(self):
        return UploadNotes(self.ledger, ATTEMPT)

    def land(self, upload):
        return land(self.file, upload, self.store, self.ledger, ATTEMPT, self.found)


NO_MD5 = {"store": {"md5_etags": False}, "found": {"etags_are_md5": False, "refuses_wrong_crc64nvme": False}}
"""A store whose ETags prove nothing and that echoes any checksum."""
