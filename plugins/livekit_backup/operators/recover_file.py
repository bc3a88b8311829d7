"""The two tasks of one file: download into an open upload, then verify and land it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from livekit_backup.errors import ConfigurationError, LivekitBackupError
from livekit_backup.hooks.task_context import attempt_of, show_label
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.core.downloading import Download
    from livekit_backup.core.file_upload import FileUpload
    from livekit_backup.core.ledger import Ledger
    from livekit_backup.core.transfer_protocols import Source
    from livekit_backup.models.settings import Settings
    from livekit_backup.models.store_abilities import StoreAbilities

LABEL = "livekit_file"
"""The context key of a mapped task's label: a room, a filename, a size, the hours left."""


class FileOperator(RecoveryOperator):
    """Base of the two: knows its file, shows its label, and writes down how it failed.

    :param file: one entry of what :class:`ResolveManifestsOperator` returned.
    """

    template_fields: Sequence[str] = (*RecoveryOperator.template_fields, "file")

    def __init__(self, *, file: Any, **kwargs: Any) -> None:
        kwargs.setdefault("map_index_template", f"{{{{ {LABEL} }}}}")
        super().__init__(**kwargs)
        self.file = file

    def _label(self, context: Context) -> RecordingFile:
        file = RecordingFile.model_validate(self.file)
        context[LABEL] = file.label  # type: ignore[literal-required]
        return file

    @contextlib.contextmanager
    def _accounting(self, file: RecordingFile, ledger: Ledger, context: Context) -> Iterator[None]:
        """Write a failure into the ledger before it leaves: the report needs no log to name the reason."""
        from livekit_backup.core.ledger import entry_for

        with airflow_errors():
            try:
                yield
            except LivekitBackupError as error:
                ledger.record(entry_for(file, error.outcome, str(error), attempt_of(context)))
                raise
            except Exception as error:
                # A fault of our own: its text could hold anything, so only its kind is written down.
                reason = f"unexpected {type(error).__name__}: see the log of this task, and report it"
                ledger.record(entry_for(file, Outcome.FAILED, reason, attempt_of(context)))
                raise


class DownloadFileOperator(FileOperator):
    """Streams a recording into an uncompleted multipart upload at its landing key.

    Nothing is visible there, no disk is used, and memory does not grow with the file. Its
    own signed URL is read from the manifest again, here, and goes nowhere else. A retry goes on
    with what an earlier try has uploaded. The label in the UI shows how far it is.

    Returns the upload's id, size and checksums.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Download, unless the file has landed before."""
        from livekit_backup.core.downloading import Download
        from livekit_backup.core.warehouse_check import warehouse_abilities

        file = self._label(context)
        with airflow_errors():
            settings = self.settings()
            ledger = self.open_ledger(settings)
        with self._accounting(file, ledger, context):
            warehouse = self.warehouse_store(settings)
            abilities = warehouse_abilities(settings, warehouse, ledger, datetime.now(UTC))
            download = Download(
                file,
                warehouse,
                ledger,
                attempt_of(context),
                abilities,
                streams=settings.parallel_ranges,
                show=lambda progress: show_label(f"{file.label} · {progress}"),
            )
            if file.primary_uri:
                upload = self._from_primary(file, settings, abilities, download)
            else:
                upload = download.run(lambda: self._open_backup(file, settings))
        return upload.model_dump(mode="json")

    def _open_backup(self, file: RecordingFile, settings: Settings) -> Source:
        from livekit_backup.core.file_links import RenewedSource, find_location
        from livekit_backup.core.http_source import HttpSource
        from livekit_backup.core.manifest_client import ManifestClient

        def open_link() -> Source:
            with ManifestClient(settings.allowed_hosts) as client:
                location = find_location(self.inbox_store(settings), file, client.fetch)
            return HttpSource(location, settings.allowed_hosts)

        return RenewedSource(open_link)

    def _from_primary(
        self, file: RecordingFile, settings: Settings, abilities: StoreAbilities, download: Download
    ) -> Upload:
        from livekit_backup.core.primary_copy import StoreSource, copy_within_store

        primary = self.primary_store(settings)
        if primary is None:
            raise ConfigurationError(
                f"primary_conn_id is not set any more, and {file.primary_uri} was planned to be copied: set it again, "
                "or clear resolve_manifests and what follows it"
            )

        def copy(upload: FileUpload) -> Upload | None:
            if not primary.shares_with(self.warehouse_store(settings)):
                return None
            return copy_within_store(file.primary_uri, upload, abilities)

        return download.run(lambda: StoreSource(primary, file.primary_uri), copy)


class VerifyAndLandOperator(FileOperator):
    """Verifies an upload and completes it: completing is landing, atomic and without a copy.

    An upload whose bytes turn out wrong is dropped; one whose key is taken is kept until there is room. Run again
    after success it finds the landed object.

    :param upload: what :class:`DownloadFileOperator` returned.

    Returns where the file is, its outcome and its SHA-256.
    """

    template_fields: Sequence[str] = (*FileOperator.template_fields, "upload")

    def __init__(self, *, upload: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.upload = upload

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify and land."""
        from livekit_backup.core.landing import land
        from livekit_backup.core.warehouse_check import warehouse_abilities

        file = self._label(context)
        with airflow_errors():
            settings = self.settings()
            ledger = self.open_ledger(settings)
        with self._accounting(file, ledger, context):
            warehouse = self.warehouse_store(settings)
            abilities = warehouse_abilities(settings, warehouse, ledger, datetime.now(UTC))
            upload = Upload.model_validate(self.upload)
            entry = land(file, upload, warehouse, ledger, attempt_of(context), abilities)
        self.log.info(
            "%s at %s: sha256 %s, verified by %s",
            entry.outcome.value,
            entry.landed_uri,
            entry.sha256,
            ", ".join(entry.verified_by),
        )
        for gap in entry.unverified:
            self.log.warning("not verified: %s", gap)
        return entry.model_dump(mode="json", include={"outcome", "landed_uri", "size", "sha256"})
