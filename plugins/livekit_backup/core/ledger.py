"""The ledger: one small JSON document a file, and a run's plan and statement.

Keys are made from what a thing is: egress, run and filename for a file, DAG and run id
for a run. Nothing is ever removed, and nothing overwrites a landing whose object is still there.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from livekit_backup.core.listings import listed_among
from livekit_backup.core.sealing import CHAIN_FOLDER, SEALED, append_seal, digest_of, linked, sealed_copy
from livekit_backup.core.storage import ObjectStore, join_uri
from livekit_backup.models.alarm_state import AlarmState
from livekit_backup.models.bundle import Bundle
from livekit_backup.models.ledger_entry import HAD_LANDED, Attempt, LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.reconciliation import Comparison, Reconciliation
from livekit_backup.models.references import (
    BackupFiles,
    FileIdentity,
    Intake,
    Plan,
    RecordingFile,
)
from livekit_backup.models.statement import Statement
from livekit_backup.models.store_abilities import StoreAbilities, StoreProbe

WORKERS = 16
"""Documents are small, so a request's latency is all there is to hide."""

log = logging.getLogger(__name__)

_Document = TypeVar("_Document", bound=BaseModel)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Ledger:
    """The documents under the ledger's prefix."""

    def __init__(self, store: ObjectStore, base_uri: str) -> None:
        self._store = store
        self._base = base_uri

    def entry_uri(self, egress_id: str, run: int, filename: str) -> str:
        """Return where a file's document is, whatever characters its name has."""
        name = hashlib.sha256(filename.encode(errors="surrogatepass")).hexdigest()[:40]
        return join_uri(self._base, "files", egress_id, str(run), f"{name}.json")

    def read(self, file: FileIdentity) -> LedgerEntry | None:
        """Return what is known of a file, or None."""
        return self.document(LedgerEntry, self.entry_uri(*file.key))

    def read_with_digest(self, file: FileIdentity) -> tuple[LedgerEntry | None, str]:
        """Return what is known of a file, and the SHA-256 of the document that says so; None and "" without one."""
        uri = self.entry_uri(*file.key)
        body = self._store.get(uri)
        entry = None if body is None else _parsed(LedgerEntry, uri, body)
        return entry, digest_of(body) if entry and body else ""

    def entries(self, egress_id: str, run: int) -> list[LedgerEntry]:
        """Return what is known of all files of a backup that any run has written down."""
        uris = self._store.list_keys(f"{join_uri(self._base, 'files', egress_id, str(run))}/")
        return [entry for entry in in_parallel(lambda uri: self.document(LedgerEntry, uri), uris) if entry]

    def knows(self, egress_id: str, run: int) -> bool:
        """Whether any run has written down something of a backup."""
        if self.read_files(egress_id, run):
            return True
        return any(True for _ in self._store.list_keys(f"{join_uri(self._base, 'files', egress_id, str(run))}/"))

    def find_landed(self, file: RecordingFile) -> LedgerEntry | None:
        """Return the entry of a file that is in the warehouse as the ledger says, or None."""
        entry = self.read(file)
        return entry if entry and self.has_landed(entry) else None

    def find_all_landed(self, files: Sequence[RecordingFile]) -> list[LedgerEntry | None]:
        """Return for each file its entry, if it is in the warehouse as the ledger says, or None."""
        entries = in_parallel(self.read, files)
        standing = self.standing([entry for entry in entries if entry])
        return [entry if entry and entry.key in standing else None for entry in entries]

    def standing(self, entries: Sequence[LedgerEntry]) -> set[tuple[str, int, str]]:
        """Return the keys of the files that are in the warehouse as their entries say.

        Objects that lie close together are looked at by listing them; what a listing does not show as it
        should be is asked for by itself, since some stores' listings lag behind.
        """
        landed = [entry for entry in entries if entry.outcome in IN_WAREHOUSE]
        shown = listed_among(self._store, [entry.landed_uri for entry in landed])
        seen = {entry.key for entry in landed if shown.get(entry.landed_uri) == (entry.size, entry.etag)}
        others = [entry for entry in landed if entry.key not in seen]
        found = in_parallel(self.has_landed, others)
        return seen | {entry.key for entry, stands in zip(others, found, strict=True) if stands}

    def has_landed(self, entry: LedgerEntry) -> bool:
        """Whether a file is in the warehouse as its entry says."""
        if entry.outcome not in IN_WAREHOUSE:
            return False
        head = self._store.head(entry.landed_uri)
        if head is not None and (head.size, head.etag) == (entry.size, entry.etag):
            return True
        log.warning("the ledger says that %s landed, but it is not there as it was", entry.landed_uri)
        return False

    def record(self, entry: LedgerEntry, *, is_new: bool = False) -> LedgerEntry:
        """Store what became of a file and return what the ledger then holds: a landing stays.

        :param is_new: the ledger was read a moment ago, and had no entry of this file that has landed now.
        """
        uri = self.entry_uri(entry.egress_id, entry.run, entry.filename)
        present = None if is_new else self.document(LedgerEntry, uri)
        if present:
            if entry.outcome not in IN_WAREHOUSE and self.has_landed(present):
                return present
            entry = entry.model_copy(update={"first_seen": present.first_seen or present.recorded_at})
            if present.had_landed and not entry.had_landed:
                entry = entry.model_copy(update={"flags": (*entry.flags, HAD_LANDED)})
        # One line: Athena reads a record a line.
        body = f"{entry.model_dump_json()}\n".encode()
        if present or entry.outcome in IN_WAREHOUSE:
            self._store.put(uri, body)
        elif not self._store.put_new(uri, body, content_type="application/json", metadata={}):
            # Another run has written since: if that was a landing, it stays.
            present = self.document(LedgerEntry, uri)
            if present and self.has_landed(present):
                return present
            self._store.put(uri, body)
        return entry

    def run_uri(self, dag_id: str, run_id: str, name: str) -> str:
        """Return where a document of a DAG run is."""
        mark = hashlib.sha256(run_id.encode()).hexdigest()[:8]
        return join_uri(self._base, "runs", _UNSAFE.sub("_", dag_id), f"{_UNSAFE.sub('_', run_id)}-{mark}", name)

    def write_intake(self, dag_id: str, run_id: str, intake: Intake) -> None:
        """Store what a run found in its window."""
        self.write_document(self.run_uri(dag_id, run_id, "intake.json"), intake)

    def read_intake(self, dag_id: str, run_id: str) -> Intake | None:
        """Return what a run found in its window, or None when it never came that far."""
        return self.document(Intake, self.run_uri(dag_id, run_id, "intake.json"))

    def write_plan(self, dag_id: str, run_id: str, plan: Plan) -> None:
        """Store what a run sets out to do, without what only its tasks need."""

        def brief(file: RecordingFile) -> RecordingFile:
            return file.model_copy(update={"events": (), "label": ""})

        kept = Plan(
            to_recover=tuple(brief(file) for file in plan.to_recover),
            accounted=tuple(known.model_copy(update={"file": brief(known.file)}) for known in plan.accounted),
            made_at=plan.made_at,
        )
        self.write_document(self.run_uri(dag_id, run_id, "plan.json"), kept)

    def read_plan(self, dag_id: str, run_id: str) -> Plan | None:
        """Return what a run set out to do, or None when it never came that far."""
        return self.document(Plan, self.run_uri(dag_id, run_id, "plan.json"))

    def write_bundles(self, dag_id: str, run_id: str, bundles: Iterable[Bundle]) -> None:
        """Store what each mapped task of a run works on."""
        in_parallel(
            lambda bundle: self._store.put(
                self._bundle_uri(dag_id, run_id, bundle.bundle_id), bundle.model_dump_json().encode()
            ),
            bundles,
        )

    def read_bundle(self, dag_id: str, run_id: str, bundle_id: str) -> Bundle | None:
        """Return what a mapped task works on, or None when the run has no such bundle."""
        return self.document(Bundle, self._bundle_uri(dag_id, run_id, bundle_id))

    def _bundle_uri(self, dag_id: str, run_id: str, bundle_id: str) -> str:
        return self.run_uri(dag_id, run_id, f"bundles/{_UNSAFE.sub('_', bundle_id)}.json")

    def write_files(self, egress_id: str, run: int, files: Sequence[RecordingFile]) -> None:
        """Store the whole list of a backup's files, as its manifest gave it."""
        whole = BackupFiles(files=tuple(FileIdentity(**file.identity()) for file in files))
        self.write_document(self._files_uri(egress_id, run), whole)

    def read_files(self, egress_id: str, run: int) -> tuple[FileIdentity, ...]:
        """Return the whole list of a backup's files as an earlier run knew it; empty when none did."""
        whole = self.document(BackupFiles, self._files_uri(egress_id, run))
        return whole.files if whole else ()

    def _files_uri(self, egress_id: str, run: int) -> str:
        return join_uri(self._base, "backups", egress_id, f"{run}.json")

    def note_probe(self, attempt: Attempt, uris: Sequence[str]) -> None:
        """Remember that this run is about to try the store with objects there, so that its report clears up."""
        name = hashlib.sha256(uris[0].encode()).hexdigest()[:16]
        probe = StoreProbe(uris=tuple(uris))
        self._store.put(
            self.run_uri(attempt.dag_id, attempt.run_id, f"store_checks/{name}.json"), probe.model_dump_json().encode()
        )

    def probes(self, attempt: Attempt) -> list[StoreProbe]:
        """Return where a run has tried the store, whatever is left of it."""
        return self.documents(StoreProbe, f"{self.run_uri(attempt.dag_id, attempt.run_id, 'store_checks')}/")

    def write_document(self, uri: str, document: BaseModel) -> None:
        """Store a document of the ledger, replacing what is there."""
        self._store.put(uri, document.model_dump_json().encode())

    def document(self, model: type[_Document], uri: str) -> _Document | None:
        """Read a document. A damaged one counts as none: what it said is found out again."""
        body = self._store.get(uri)
        return None if body is None else _parsed(model, uri, body)

    def documents(self, model: type[_Document], prefix_uri: str) -> list[_Document]:
        """Read all documents that start with the prefix, in key order."""
        found = in_parallel(lambda uri: self.document(model, uri), self._store.list_keys(prefix_uri))
        return [document for document in found if document]

    def read_abilities(self, bucket: str) -> StoreAbilities | None:
        """Return what a bucket's store was last found to honour, or None when nobody looked."""
        return self.document(StoreAbilities, self._abilities_uri(bucket))

    def write_abilities(self, bucket: str, abilities: StoreAbilities) -> None:
        """Store what a bucket's store was found to honour."""
        self.write_document(self._abilities_uri(bucket), abilities)

    def _abilities_uri(self, bucket: str) -> str:
        return join_uri(self._base, "stores", f"{bucket}.json")

    def write_comparison(self, dag_id: str, run_id: str, comparison: Comparison) -> None:
        """Store what a reconciling run has compared."""
        self.write_document(self.run_uri(dag_id, run_id, "comparison.json"), comparison)

    def read_comparison(self, dag_id: str, run_id: str) -> Comparison | None:
        """Return what a reconciling run has compared, or None when it never came that far."""
        return self.document(Comparison, self.run_uri(dag_id, run_id, "comparison.json"))

    def write_alarms(self, dag_id: str, task_id: str, state: AlarmState) -> None:
        """Store what a task that raises alarms remembers."""
        self.write_document(self._alarms_uri(dag_id, task_id), state)

    def read_alarms(self, dag_id: str, task_id: str) -> AlarmState | None:
        """Return what a task that raises alarms remembers, or None before its first run."""
        return self.document(AlarmState, self._alarms_uri(dag_id, task_id))

    def _alarms_uri(self, dag_id: str, task_id: str) -> str:
        return join_uri(self._base, "alarms", _UNSAFE.sub("_", dag_id), f"{_UNSAFE.sub('_', task_id)}.json")

    def write_statement(self, statement: Statement | Reconciliation, text: str) -> str:
        """Store a run's statement, as JSON and as a table, and return the URI of the table."""
        if isinstance(statement, Statement):
            statement = linked(statement)
        as_json = self.run_uri(statement.dag_id, statement.run_id, "report.json")
        as_text = self.run_uri(statement.dag_id, statement.run_id, "report.txt")
        self._store.put(as_json, statement.model_dump_json(indent=1).encode())
        self._store.put(as_text, text.encode(), content_type="text/plain; charset=utf-8")
        return as_text

    def seal(self, dag_id: str, run_id: str) -> str:
        """Seal a run's documents as they stand in the ledger, and return the seal's digest.

        A copy of the digest kept elsewhere proves later that no link up to this one was made anew.

        :raises StorageUnavailableError: the store does not answer, or other reports always were faster.
        """
        uris = {name: self.run_uri(dag_id, run_id, name) for name in SEALED}
        bodies = {name: self._store.get(uri) for name, uri in uris.items()}
        documents = {name: digest_of(body) for name, body in bodies.items() if body is not None}
        if report := bodies["report.json"]:
            # A report that runs again replaces this one, and entries that only this one names stay.
            self._store.put(self.run_uri(dag_id, run_id, sealed_copy(documents["report.json"])), report)
        folder = self.chain_uri(dag_id)
        seal, digest = append_seal(self._store, folder, dag_id=dag_id, run_id=run_id, documents=documents)
        log.info("seal %d of %s: %s", seal.number, dag_id, digest)
        return digest

    def folder_uri(self, name: str) -> str:
        """Return a folder of the ledger, such as that of all files' documents."""
        return join_uri(self._base, name)

    def chain_uri(self, dag_id: str = "") -> str:
        """Return the folder of a DAG's seals, or of all DAGs'."""
        return join_uri(self._base, CHAIN_FOLDER, *([_UNSAFE.sub("_", dag_id)] if dag_id else ()))


def _parsed(model: type[_Document], uri: str, body: bytes) -> _Document | None:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        log.warning("%s is damaged and counts as absent: %d problems", uri, error.error_count())
        return None


def entry_for(file: RecordingFile, outcome: Outcome, reason: str, attempt: Attempt) -> LedgerEntry:
    """Return a ledger entry of a file as of now."""
    return LedgerEntry(
        **file.identity(),
        outcome=outcome,
        reason=reason,
        size=file.size,
        recorded_at=datetime.now(UTC),
        attempt=attempt,
    )


def in_parallel(call: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Return ``call`` of every item, in their order; the first error is raised once all have ended."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="ledger") as pool:
        return list(pool.map(call, items))
