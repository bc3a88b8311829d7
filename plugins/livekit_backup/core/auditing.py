"""Proves, from ledger, inbox and warehouse alone, that no report was altered or removed, and nothing that landed."""

from __future__ import annotations

import contextlib
from datetime import datetime

from livekit_backup.core.audit_bench import AuditBench, AuditProgress, AuditScope
from livekit_backup.core.audit_spool import AuditSpool
from livekit_backup.core.chain_audit import audit_chain
from livekit_backup.core.entry_audit import audit_entries
from livekit_backup.core.evidence_audit import audit_evidence
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.object_audit import audit_objects
from livekit_backup.core.report_audit import audit_reports
from livekit_backup.core.storage import ObjectStore
from livekit_backup.models.finding import Finding
from livekit_backup.models.settings import Settings


def audit_all(
    settings: Settings, ledger: Ledger, store: ObjectStore, inbox: ObjectStore, scope: AuditScope, now: datetime
) -> list[Finding]:
    """Return what an audit finds, a summary of each part first. It only reads.

    :param store: of ledger and warehouse.
    :raises StorageUnavailableError, AccessDeniedError: something could not be read, so that nothing is proven.
    """
    with contextlib.closing(AuditSpool()) as spool:
        bench = AuditBench(settings, ledger, store, inbox, scope, now, spool, AuditProgress(scope.show))
        for part in (audit_chain, audit_reports, audit_entries, audit_evidence, audit_objects):
            part(bench)
        return list(bench.findings)
