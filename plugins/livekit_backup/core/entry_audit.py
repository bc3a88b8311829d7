"""Third part of an audit: each file's document in the ledger is the newest that a sealed report names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from livekit_backup.core.audit_bench import RESTORE, AuditBench, never_stops
from livekit_backup.core.audit_spool import LandedFile, SealedEntry
from livekit_backup.core.read_ahead import in_order
from livekit_backup.core.sealing import digest_of
from livekit_backup.core.wording import quoted
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE

ENTRIES = "entries"
READERS = 16
AT_ONCE_SECONDS = 60.0
"""Of two runs at once over a file, the clocks of whose machines may differ by so much, either's word may stand."""

_KNOWN = "if nobody here wrote it: {restore}; if a run did whose report never ran, clear that report task"


def audit_entries(bench: AuditBench) -> None:
    """Hold every document of a file against the sealed reports, and note what has to be in the warehouse."""
    entries = _EntryAudit(bench)
    for uris in (_uris(bench), bench.spool.unseen()):
        # What a listing does not show yet is asked for by its name before it is called removed.
        for uri, body in in_order(
            lambda uri: (uri, bench.store.get(uri)), uris, workers=READERS, ahead=4 * READERS, stop=never_stops
        ):
            entries.take(uri, body)
            bench.progress.tell(f"{entries.count} entries read")
    entries.sum_up()


def _uris(bench: AuditBench) -> Iterator[str]:
    """Give every file's document; with a beginning only those that reports since then name."""
    if bench.scope.since is None:
        yield from bench.store.list_keys(f"{bench.ledger.folder_uri('files')}/")


class _EntryAudit:
    def __init__(self, bench: AuditBench) -> None:
        self._bench = bench
        self.count = 0
        self._proven = 0
        self._older = 0
        self._under_way = 0

    def take(self, uri: str, body: bytes | None) -> None:
        """Judge one document, or that it is not there."""
        self.count += 1
        versions = self._bench.spool.versions(uri)
        self._bench.spool.mark_seen(uri)
        if body is None:
            if versions:
                self._wrong(f"{_named(uri, versions)} was removed", versions)
            return
        digest, entry = digest_of(body), _entry(body)
        sealed = next((version for version in versions if version.sha256 == digest), None)
        if sealed and sealed.recorded_at >= versions[0].recorded_at - AT_ONCE_SECONDS:
            self._proven += 1
        elif sealed:
            self._wrong(f"{_named(uri, versions)} was put back to what an earlier report said", versions)
            return
        elif versions and not self._is_newer(entry, versions[0]):
            self._wrong(f"{_named(uri, versions)} was altered after {versions[0].report} was sealed", versions)
            return
        elif not versions and not self._is_older(entry) and not self._is_fresh(entry):
            self._wrong(f"{_named(uri, versions, entry)} stands in no sealed report", versions)
            return
        elif versions or self._is_fresh(entry):
            self._under_way += 1
        else:
            self._older += 1
        if entry and entry.outcome in IN_WAREHOUSE:
            self._add(entry)

    def _is_newer(self, entry: LedgerEntry | None, last: SealedEntry) -> bool:
        """Whether a run that is under way may have written it since it was sealed."""
        return self._is_fresh(entry) and entry is not None and entry.recorded_at.timestamp() >= last.recorded_at

    def _is_fresh(self, entry: LedgerEntry | None) -> bool:
        return entry is not None and self._bench.may_be_under_way(entry.recorded_at)

    def _is_older(self, entry: LedgerEntry | None) -> bool:
        """Whether it was written before anything was sealed."""
        began = self._bench.spool.began_at()
        return began is None or (entry is not None and entry.recorded_at.timestamp() < began)

    def _wrong(self, what: str, versions: Sequence[SealedEntry]) -> None:
        """Name what is wrong; the object is judged by the sealed report then."""
        self._bench.findings.wrong(ENTRIES, what, _KNOWN.format(restore=RESTORE))
        if versions and versions[0].landed_uri:
            last = versions[0]
            landed = LandedFile(
                uri=last.landed_uri,
                size=last.size,
                etag="",
                sha256=last.content_sha256,
                filename=last.filename,
                egress_id=last.egress_id,
                recorded_at=last.recorded_at,
            )
            self._bench.spool.add_landed(landed)

    def _add(self, entry: LedgerEntry) -> None:
        landed = LandedFile(
            uri=entry.landed_uri,
            size=entry.size,
            etag=entry.etag,
            sha256=entry.sha256,
            filename=entry.filename,
            egress_id=entry.egress_id,
            recorded_at=entry.recorded_at.timestamp(),
        )
        self._bench.spool.add_landed(landed)

    def sum_up(self) -> None:
        """Say what was looked at."""
        findings = self._bench.findings
        findings.summary(ENTRIES, f"{self._proven} files' entries are as the newest sealed report of them says")
        if self._under_way:
            findings.remark(ENTRIES, f"{self._under_way} more were written within a day and await their run's report")
        if self._older:
            findings.remark(ENTRIES, f"{self._older} more are not chained: they were written before reports were")


def _entry(body: bytes) -> LedgerEntry | None:
    try:
        return LedgerEntry.model_validate_json(body)
    except ValidationError:
        return None


def _named(uri: str, versions: Sequence[SealedEntry], entry: LedgerEntry | None = None) -> str:
    """Name a document by whose it is."""
    known = versions[0] if versions else entry
    return f"{uri} ({known.egress_id} {quoted(known.filename)})" if known else uri
