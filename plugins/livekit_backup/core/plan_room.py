"""How many files of large backups one run plans: a forger can name more of them than a worker's memory holds."""

from __future__ import annotations

import threading

from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import AccountedFile, BackupRef, FileKind, Plan, RecordingFile

MOST_PLANNED = 250_000
"""Of all large backups of a run: twice a manifest's, at 2 KiB and more a file. A task each would be over Airflow's own
limits long before."""
LARGE = 5_000
"""Files of a backup that is large. What is smaller is always planned, so that no forgery is in its way."""


class PlanRoom:
    """The room of one run. Safe to share between threads."""

    def __init__(self) -> None:
        self._taken = 0
        self._taking = threading.Lock()

    def fit(self, plan: Plan, ref: BackupRef) -> Plan:
        """Return a backup's plan, or where there is no room for it one that reports it whole."""
        files = plan.files
        if len(files) <= LARGE:
            return plan
        with self._taking:
            if self._taken + len(files) <= MOST_PLANNED:
                self._taken += len(files)
                return plan
        first = files[0]
        whole = RecordingFile(
            **{**first.identity(), "filename": "(all files)", "kind": FileKind.UNKNOWN},
            events=ref.events,
        )
        reason = (
            f"{len(files)} files, and over {MOST_PLANNED} in large backups of this run; recover it by itself: "
            f"airflow livekit-backup recover {ref.egress_id}"
        )
        return Plan(accounted=(AccountedFile(file=whole, outcome=Outcome.FAILED, reason=reason),))
