"""Fourth part of an audit: every backup that the inbox tells of is in a report, and no reported event has gone.

The inbox is another place than the ledger, and LiveKit has signed what the receiver keeps there: a list of all
backups that nobody can make who has only the ledger.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import cast

from pydantic import ValidationError

from livekit_backup.core.audit_bench import AuditBench
from livekit_backup.core.backup_accounts import ended_of
from livekit_backup.core.inbox import IntakeReader, load_events, why_gone
from livekit_backup.core.reconciling import is_due
from livekit_backup.core.storage import ObjectStore, ReadableBody
from livekit_backup.core.webhook_tokens import Refusal, verify_stored
from livekit_backup.core.windows import MAX_SPAN, inbox_prefixes
from livekit_backup.errors import WebhookRefusedError
from livekit_backup.models.references import BackupRef
from livekit_backup.models.settings import LOOKBACK
from livekit_backup.models.stored_webhook import EVIDENCE_MARK, StoredWebhook
from livekit_backup.models.window import Window

INBOX = "inbox"
BATCH = 64
"""Backups whose events are looked for at a time."""
_RESTORE_LEDGER = "look for the ledger's documents in the bucket's versions"

_DIGEST = re.compile(r"-([0-9a-f]{64})\.json$")


def audit_evidence(bench: AuditBench) -> None:
    """Read the inbox, and hold its backups against the sealed reports."""
    evidence = _EvidenceReader(bench)
    window = _window(bench)
    for prefix in inbox_prefixes(bench.settings.inbox, bench.settings.inbox_layout, window):
        reader = IntakeReader()
        # Of a store the reader only opens objects.
        reader.read(cast("ObjectStore", evidence), bench.inbox.list_keys(prefix))
        bench.progress.tell(f"{prefix} read")
        for ref in reader.result().backups:
            bench.spool.add_event(ref.egress_id, ref.run, ref.model_dump_json(), found=True)
    forgotten = sum(_judge_unreported(bench, ref) for ref in map(_ref, bench.spool.unreported()))
    _find_removed(bench)
    bench.findings.summary(
        INBOX, f"{bench.spool.count_found()} backups by their events since {window.start:%Y-%m-%d %H:%M} UTC"
    )
    evidence.sum_up()
    if forgotten:
        bench.findings.remark(INBOX, f"{forgotten} backups stand in no sealed report, but in the ledger, or are due")


def _window(bench: AuditBench) -> Window:
    """From the first hour that any chained report can have read."""
    began = bench.spool.began_at()
    start = bench.scope.since or (datetime.fromtimestamp(began, UTC) if began else bench.now) - LOOKBACK
    return Window(start=max(start, bench.now - MAX_SPAN), end=bench.now + timedelta(seconds=1))


def _ref(text: str) -> BackupRef:
    return BackupRef.model_validate_json(text)


def _judge_unreported(bench: AuditBench, ref: BackupRef) -> bool:
    """Name a backup that no report names; False then, and True where that has its reason."""
    ended = ended_of(ref)
    if is_due(ended, bench.settings.grace, bench.now) or bench.ledger.knows(ref.egress_id, ref.run):
        return True
    bench.findings.wrong(
        INBOX,
        f"{ref.egress_id} is a backup by {ref.events[0].uri}, but no sealed report names it, and the ledger knows "
        "nothing of it: no run took it up, or what told of that was removed",
        f"airflow livekit-backup recover {ref.egress_id}, while its links live; else {_RESTORE_LEDGER}",
    )
    return False


def _find_removed(bench: AuditBench) -> None:
    unfound = map(_ref, bench.spool.unfound())
    while batch := list(islice(unfound, BATCH)):
        for ref, events in zip(batch, load_events(bench.inbox, batch), strict=True):
            if not events:
                bench.findings.wrong(
                    INBOX,
                    f"{why_gone(ref)}: it was removed or altered after a run had read it",
                    "restore it from the bucket's versions; where a lifecycle rule removes old events, audit with "
                    "--since a later day",
                )


class _EvidenceReader:
    """The inbox, whose evidence is verified on its way to who reads it. For many threads."""

    def __init__(self, bench: AuditBench) -> None:
        self._bench = bench
        self._inbox: ObjectStore = bench.inbox
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()

    def open(self, uri: str) -> ReadableBody:
        """Give an object; what is evidence by its name is read whole and verified first."""
        named = _DIGEST.search(uri)
        if not named:
            self._count("unsigned")
            return self._inbox.open(uri)
        body = self._inbox.get(uri)
        if body is None:
            raise FileNotFoundError(uri)
        self._verify(uri, body, named[1])
        return io.BytesIO(body)

    def _verify(self, uri: str, body: bytes, digest: str) -> None:
        if EVIDENCE_MARK.encode() not in body:
            self._count("unsigned")
            return
        try:
            stored = StoredWebhook.model_validate_json(body)
        except ValidationError:
            self._wrong(f"{uri} is no evidence any more: it was altered")
            return
        if hashlib.sha256(stored.body.encode(errors="surrogatepass")).hexdigest() != digest:
            self._wrong(f"{uri} holds another event than was stored there: it was altered")
        elif not stored.authorization:
            self._count("unsigned")
        elif self._bench.scope.keys:
            self._verify_signature(uri, stored)
        else:
            self._count("unverified")

    def _verify_signature(self, uri: str, stored: StoredWebhook) -> None:
        try:
            verify_stored(stored, self._bench.scope.keys)
            self._count("signed")
        except WebhookRefusedError as refused:
            if refused.reason == Refusal.UNKNOWN_KEY:
                self._count("unknown")
            else:
                self._wrong(f"{uri}: LiveKit did not sign this event: {refused}")

    def _count(self, kind: str) -> None:
        with self._counting:
            self._counts[kind] += 1

    def _wrong(self, what: str) -> None:
        with self._counting:
            self._bench.findings.wrong(INBOX, what, "restore it from the bucket's versions")

    def sum_up(self) -> None:
        """Say whose signatures hold."""
        for text in self._texts():
            self._bench.findings.remark(INBOX, text)

    def _texts(self) -> Iterator[str]:
        counts = self._counts
        if counts["signed"]:
            yield f"{counts['signed']} events are LiveKit's, byte for byte, by its signature"
        if counts["unverified"]:
            yield f"{counts['unverified']} signed events were not verified: no LiveKit connection has a key"
        if counts["unknown"]:
            yield f"{counts['unknown']} events are signed with keys that the LiveKit connection does not have"
        if counts["unsigned"]:
            yield f"{counts['unsigned']} objects carry no signature: other receivers', or filed by reconcile or recover"
