"""What a run notes of the uploads that it opens: one document each, so that of two openers none hides the other's.

Kept in the ledger and not in Airflow's ``task_state_store``: that lives with one task instance, and the
report, a shifted map index and a person with a bucket browser need them too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from livekit_backup.core.ledger import Ledger
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import OpenUpload, RecordingFile, Upload


class UploadNotes:
    """The notes of one run."""

    def __init__(self, ledger: Ledger, attempt: Attempt) -> None:
        self._ledger = ledger
        self._folder = ledger.run_uri(attempt.dag_id, attempt.run_id, "uploads")

    def put(self, file: RecordingFile, upload: OpenUpload) -> None:
        """Note an upload, before it is opened too: whatever becomes of who opens it, the report knows where to look."""
        self._ledger.write_document(self._uri(file, upload.mark or upload.upload_id), upload)

    def put_result(self, file: RecordingFile, result: Upload) -> None:
        """Note what the download found: at the upload itself, and under the file's own name for the task that lands it.

        A listing may lag, so what the next task cannot do without is found without one.
        """
        noted = self.marked(file, result.mark)
        if noted is None:
            noted = OpenUpload(landing_uri=result.landing_uri, upload_id=result.upload_id or "", mark=result.mark)
        noted = noted.model_copy(update={"result": result})
        self.put(file, noted)
        self._ledger.write_document(self._handover_uri(file), noted)

    def result(self, file: RecordingFile) -> Upload | None:
        """Return what the download of a file found last, whatever became of its upload."""
        noted = self._ledger.document(OpenUpload, self._handover_uri(file))
        return noted.result if noted else None

    def marked(self, file: RecordingFile, mark: str) -> OpenUpload | None:
        """Return the upload with this mark, or None."""
        return self._ledger.document(OpenUpload, self._uri(file, mark))

    def of(self, file: RecordingFile) -> list[OpenUpload]:
        """Return the uploads that were opened where a file lands, whatever became of them; each once."""
        return _each_once(
            noted
            for noted in self._ledger.documents(OpenUpload, self._prefix(file))
            if noted.upload_id and noted.landing_uri == file.landing_uri
        )

    def all(self) -> tuple[list[OpenUpload], set[str]]:
        """Return all uploads of the run, each once, and the URIs where there may be one whose id nobody heard."""
        noted = self._ledger.documents(OpenUpload, f"{self._folder}/")
        return _each_once(note for note in noted if note.upload_id), {
            note.landing_uri for note in noted if not note.upload_id
        }

    def _uri(self, file: RecordingFile, mark: str) -> str:
        return f"{self._prefix(file)}-{hashlib.sha256(mark.encode()).hexdigest()[:16]}.json"

    def _handover_uri(self, file: RecordingFile) -> str:
        # That of the key that it should have must outlive that of the one beside.
        return f"{self._prefix(file)}{'-beside' if file.is_beside else ''}.json"

    def _prefix(self, file: RecordingFile) -> str:
        name = self._ledger.entry_uri(*file.key).rpartition("/")[2].removesuffix(".json")
        return f"{self._folder}/{file.egress_id}/{file.run}/{name}"


def _each_once(noted: Iterable[OpenUpload]) -> list[OpenUpload]:
    """An upload has a document of its own and, once all its bytes are up, perhaps the file's too."""
    return list({note.upload_id: note for note in noted}.values())
