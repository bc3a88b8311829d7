"""A ledger, an inbox and a warehouse in memory with a few sealed runs, and an audit of them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

from livekit_backup.core.audit_bench import AuditScope
from livekit_backup.core.auditing import audit_all
from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.statements import make_statement, render
from livekit_backup.models.finding import Verdict
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import BackupRef, EventRef, FileKind, Intake, Plan, RecordingFile
from livekit_backup.models.settings import Settings
from livekit_backup.models.window import Window
from unit.fakes import MemoryStore, egress_ended

NOW = datetime.now(UTC).replace(microsecond=0)
LATER = NOW + timedelta(days=2)
HOUR = timedelta(hours=1)
SETTINGS = Settings(
    inbox="s3://b/in", inbox_layout="%Y/%m/%d/", warehouse="s3://b/out", ledger="s3://b/out/_l", grace=timedelta(0)
)


class AuditedLedger:
    """What some runs have left behind."""

    def __init__(self, store=None):
        self.store = store or MemoryStore()
        self.ledger = Ledger(self.store, SETTINGS.ledger)
        self.seals = []

    def run(self, run_id, egress_ids, files=2, outcome=Outcome.LANDED):
        """Recover files of some backups, report and seal; return the seal's digest."""
        attempt = Attempt(dag_id="d", run_id=run_id)
        refs, planned = [], []
        for egress_id in egress_ids:
            refs.append(self._receive(egress_id))
            planned += [self._record(egress_id, f"{number}.mp4", outcome, attempt) for number in range(files)]
        self.ledger.write_intake("d", run_id, Intake(backups=tuple(refs)))
        self.ledger.write_plan("d", run_id, Plan(to_recover=tuple(planned)))
        return self.report(run_id)

    def report(self, run_id):
        window = Window(start=NOW - HOUR, end=NOW)
        attempt = Attempt(dag_id="d", run_id=run_id)
        statement = make_statement(self.ledger, self.store, attempt, window, [], NOW)
        self.ledger.write_statement(statement, render(statement))
        self.seals.append(self.ledger.seal("d", run_id))
        return self.seals[-1]

    def _receive(self, egress_id):
        uri = f"{SETTINGS.inbox}/{NOW:%Y/%m/%d}/{egress_id}.json"
        info = {"backupStorageUsed": True, "startedAt": "1", "endedAt": str(int(NOW.timestamp()) * 10**9)}
        self.store.put(uri, json.dumps(egress_ended(egress_id, **info)).encode())
        return BackupRef(egress_id=egress_id, run=1, events=(EventRef(uri=uri, position=0),))

    def _record(self, egress_id, filename, outcome, attempt):
        uri, body = f"s3://b/out/dt/{egress_id}/{filename}", f"{egress_id} {filename}".encode()
        file = RecordingFile(
            egress_id=egress_id, run=1, filename=filename, kind=FileKind.FILE, started=NOW, landing_uri=uri
        )
        entry = entry_for(file, outcome, "", attempt)
        if outcome is Outcome.LANDED:
            self.store.put(uri, body)
            found = {"landed_uri": uri, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            entry = entry.model_copy(update={**found, "etag": self.store.head(uri).etag})
        self.ledger.record(entry)
        return file

    def audit(self, now=LATER, **scope):
        scope = AuditScope(**{"sample": None, **scope})
        return audit_all(SETTINGS, self.ledger, self.store, self.store, scope, now)

    def wrong(self, **options):
        """What is broken, each with its part."""
        found = self.audit(**options)
        return [f"{finding.check}: {finding.what}" for finding in found if finding.verdict is Verdict.BROKEN]


def told():
    """Three runs and a report that ran again."""
    ledger = AuditedLedger()
    ledger.run("r1", ["EG_1", "EG_2"])
    ledger.run("r2", ["EG_3"], outcome=Outcome.EXPIRED)
    ledger.run("r3", ["EG_4"])
    ledger.report("r2")
    return ledger
