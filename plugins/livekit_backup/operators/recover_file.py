"""The two tasks of one file: download into an open upload, then verify and land it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.task_context import attempt_of
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.core.ledger import Ledger

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
    own signed URL is read from the manifest again, here, and goes nowhere else.

    Returns the upload's id, size and checksums.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Download, unless the file has landed before."""
        from livekit_backup.core.downloading import download, find_location
        from livekit_backup.core.http_source import HttpSource
        from livekit_backup.core.manifest_client import ManifestClient

        file = self._label(context)
        with airflow_errors():
            settings = self.settings()
            ledger = self.open_ledger(settings)

        def open_source() -> HttpSource:
            with ManifestClient(settings.allowed_hosts) as client:
                location = find_location(self.inbox_store(settings), file, client.fetch)
            return HttpSource(location, settings.allowed_hosts)

        with self._accounting(file, ledger, context):
            upload = download(file, open_source, self.warehouse_store(settings), ledger, attempt_of(context))
        return upload.model_dump(mode="json")


class VerifyAndLandOperator(FileOperator):
    """Verifies an upload and completes it: completing is landing, atomic and without a copy.

    If a check fails it drops the upload. Run again after success it finds the landed object.

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

        file = self._label(context)
        with airflow_errors():
            settings = self.settings()
            ledger = self.open_ledger(settings)
        with self._accounting(file, ledger, context):
            upload = Upload.model_validate(self.upload)
            entry = land(file, upload, self.warehouse_store(settings), ledger, attempt_of(context))
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
