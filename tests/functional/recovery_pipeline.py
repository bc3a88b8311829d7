"""The DAG's steps, called one after the other without Airflow."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from livekit_backup.core.downloading import Download
from livekit_backup.core.file_links import RenewedSource, find_location
from livekit_backup.core.file_upload import FileUpload
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.landing import land
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.core.planning import FindPrimary
from livekit_backup.core.primary_copy import StoreSource, copy_within_store
from livekit_backup.core.recovering import FileRecovery, Sources
from livekit_backup.core.run_plan import account_for, plan_run
from livekit_backup.core.statements import make_statement
from livekit_backup.core.storage import split_uri
from livekit_backup.core.transfer_protocols import Source
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.core.warehouse_check import warehouse_abilities
from livekit_backup.core.windows import inbox_prefixes
from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.references import BackupRef, EventRef, Intake, OpenUpload, Plan, RecordingFile, Upload
from livekit_backup.models.settings import Settings
from livekit_backup.models.statement import Statement
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.models.window import Window
from livekit_backup.testing import FakeLiveKit, Recording, Request
from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack
from livekit_backup.testing.s3_endpoint import S3Endpoint

MIB = 1024 * 1024
SOCKETS = sum(int(Path("/proc/sys/net/ipv4", name).read_text().split()[2]) for name in ("tcp_rmem", "tcp_wmem"))
"""Bytes that both ends of a connection may hold at most."""
ATTEMPT = Attempt(dag_id="d", run_id="r1")


@dataclass(frozen=True)
class Place:
    """A bucket of its own on one of the S3 servers, looked at with the tests' own eyes."""

    server: S3Endpoint
    client: Any
    bucket: str

    @property
    def is_strict(self) -> bool:
        """Whether it is the server that keeps checksums and tags."""
        return isinstance(self.server, EmbeddedLocalStack)

    def sha256(self, uri: str) -> str:
        bucket, key = split_uri(uri)
        digest = hashlib.sha256()
        for chunk in self.client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(MIB):
            digest.update(chunk)
        return digest.hexdigest()

    def head(self, uri: str) -> dict[str, Any]:
        bucket, key = split_uri(uri)
        head: dict[str, Any] = self.client.head_object(Bucket=bucket, Key=key)
        return head

    def tags(self, uri: str) -> dict[str, str]:
        bucket, key = split_uri(uri)
        return {tag["Key"]: tag["Value"] for tag in self.client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]}

    def landed(self) -> list[str]:
        """The names of all objects that anybody can see in the warehouse, but for the ledger's."""
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix="warehouse/dt=").get("Contents", [])
        return [item["Key"].rpartition("/")[2] for item in listed]

    def open_uploads(self) -> list[str]:
        """The ids of all uploads that are open in the bucket."""
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["UploadId"] for upload in uploads]

    def parts(self, upload: OpenUpload | Upload) -> dict[int, int]:
        """The sizes of an open upload's parts by their numbers; none once it is dropped."""
        bucket, key = split_uri(upload.landing_uri)
        try:
            listed = self.client.list_parts(Bucket=bucket, Key=key, UploadId=upload.upload_id)
        except self.client.exceptions.NoSuchUpload:
            return {}
        return {part["PartNumber"]: part["Size"] for part in listed.get("Parts", [])}


def requests_for(livekit: FakeLiveKit, recording: Recording) -> list[Request]:
    """What was asked for a recording's one file, without its manifest."""
    ((_, stored),) = recording.files.items()
    return [request for request in list(livekit.requests) if request.path == stored.path]


def ranges_of(requests: list[Request]) -> list[str | None]:
    return [request.range.removeprefix("bytes=") if request.range else None for request in requests]


class Pipeline:
    """The DAG's steps, called one after the other."""

    def __init__(self, store: S3ObjectStore, ledger: Ledger, settings: Settings, livekit: FakeLiveKit) -> None:
        self.store, self.ledger, self.settings, self.livekit = store, ledger, settings, livekit
        self.attempt = ATTEMPT
        self.streams = 1
        self.known_abilities: StoreAbilities | None = None
        self.primary: S3ObjectStore | None = None
        self.find_primary: FindPrimary = lambda _: None
        self.streamed_from_primary = 0
        self.now = datetime.now(UTC)
        self.window = Window(start=self.now - timedelta(hours=1), end=self.now + timedelta(hours=1))

    def store_event(self, event: Any, **kwargs: Any) -> str:
        return self.livekit.store_event(
            lambda key, body: self.store.put(f"{self.settings.inbox}/{key}", body),
            event,
            when=self.now,
            **kwargs,
        )

    def ingest(self) -> Intake:
        reader = IntakeReader()
        for prefix in inbox_prefixes(self.settings.inbox, self.settings.inbox_layout, self.window):
            reader.read(self.store, self.store.list_keys(prefix))
        intake = reader.result()
        self.ledger.write_intake(self.attempt.dag_id, self.attempt.run_id, intake)
        return intake

    def plan(self, intake: Intake, most: int = 1024, *, patient: bool = False) -> Plan:
        with ManifestClient(self.settings.allowed_hosts, first_wait_seconds=0.01) as client:
            plan = plan_run(
                intake.backups,
                inbox=self.store,
                ledger=self.ledger,
                settings=self.settings,
                fetch=client.fetch,
                most=most,
                now=datetime.now(UTC),
                patient=patient,
                find_primary=self.find_primary,
            )
        account_for(plan, self.ledger, self.attempt)
        self.ledger.write_plan(self.attempt.dag_id, self.attempt.run_id, plan)
        return plan

    def planned(self, recording: Recording) -> RecordingFile:
        """The one file of a recording, as its two tasks get it; the inbox is not searched for its event."""
        event = recording.event()
        at = EventRef(uri=f"{self.settings.inbox}/{self.store_event(event)}", position=0)
        run = int(event["egressInfo"]["startedAt"])
        backup = BackupRef(egress_id=recording.egress_id, run=run, events=(at,))
        (file,) = self.plan(Intake(backups=(backup,))).to_recover
        return file

    def source(self, file: RecordingFile) -> Source:
        return RenewedSource(lambda: self.link(file))

    def link(self, file: RecordingFile) -> HttpSource:
        with ManifestClient(self.settings.allowed_hosts, first_wait_seconds=0.01) as client:
            location = find_location(self.store, file, client.fetch)
        return HttpSource(location, self.settings.allowed_hosts)

    def download(self, file: RecordingFile) -> Any:
        download = Download(file, self.store, self.ledger, self.attempt, self.abilities(), streams=self.streams)
        if file.primary_uri:
            return download.run(lambda: self._primary_source(file), lambda upload: self._copy(file, upload))
        return download.run(lambda: self.source(file))

    def _primary_source(self, file: RecordingFile) -> StoreSource:
        assert self.primary
        self.streamed_from_primary += 1
        return StoreSource(self.primary, file.primary_uri)

    def _copy(self, file: RecordingFile, upload: FileUpload) -> Upload | None:
        assert self.primary
        if not self.primary.shares_with(self.store):
            return None
        return copy_within_store(file.primary_uri, upload, self.abilities())

    def opened(self, file: RecordingFile) -> OpenUpload | None:
        """The last of the uploads that were opened where a file lands, whatever became of it."""
        return next(reversed(UploadNotes(self.ledger, self.attempt).of(file)), None)

    def land(self, file: RecordingFile, upload: Upload) -> LedgerEntry:
        return land(file, upload, self.store, self.ledger, self.attempt, self.abilities())

    def abilities(self) -> StoreAbilities:
        return self.known_abilities or warehouse_abilities(self.settings, self.store, self.ledger, datetime.now(UTC))

    def recovery(self, **options: Any) -> FileRecovery:
        """What the two tasks of a bundle work with."""
        sources = Sources(self.source, self._primary_source, self._copy)
        options = {"streams": self.streams, **options}
        return FileRecovery(self.store, self.ledger, self.attempt, self.abilities, sources, **options)

    def recover(self, *files: RecordingFile, **options: Any) -> None:
        with contextlib.suppress(LivekitBackupError):
            self.recovery(**options).download(files)
            self.recovery(**options).land(files)

    def statement(self) -> Statement:
        return make_statement(self.ledger, self.store, self.attempt, self.window, [], datetime.now(UTC))

    def run(self) -> Statement:
        for file in self.plan(self.ingest()).to_recover:
            self.recover(file)
        return self.statement()


def pipeline_at(place: Place, store: S3ObjectStore, abilities: StoreAbilities, livekit: FakeLiveKit) -> Pipeline:
    """A pipeline whose inbox, warehouse and ledger lie in a place; what its server can do is known."""
    settings = Settings(
        inbox=f"s3://{place.bucket}/inbox",
        warehouse=f"s3://{place.bucket}/warehouse",
        ledger=f"s3://{place.bucket}/warehouse/_livekit_backup",
        allowed_hosts=(livekit.base_url.partition("://")[2], "*.amazonaws.com"),
    )
    pipeline = Pipeline(store, Ledger(store, settings.ledger), settings, livekit)
    pipeline.known_abilities = abilities
    return pipeline
