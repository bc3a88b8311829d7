"""What every part of an audit works with: the stores, the spool, and the findings so far."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from livekit_backup.core.audit_spool import AuditSpool
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.storage import ObjectStore
from livekit_backup.models.finding import Finding, broken, note, ok
from livekit_backup.models.settings import Settings

MOST_NAMED = 200
"""Findings of one kind that are named one by one; more are counted, or a lost bucket would fill the memory."""
CLOCKS_DIFFER = timedelta(minutes=15)
"""As much as S3 itself bears."""
UNDER_WAY = timedelta(days=1)
"""How long what no report seals yet may be a run's that is under way: a report comes at a run's end."""
SHOW_EVERY_SECONDS = 10.0
RESTORE = "restore it from the bucket's versions or a backup of the ledger"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditScope:
    """How much is looked at."""

    since: datetime | None = None
    """Only what was reported from then on; None: all."""
    sample: int | None = 100
    """How many landed objects are read; None: all. The others are looked at."""
    noted_seals: frozenset[str] = frozenset()
    """Digests of seals that were kept elsewhere."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets of the API keys that sign webhooks; empty: signatures are not verified."""
    show: Callable[[str], None] = log.info
    """Takes how far it is, now and then."""


class AuditFindings:
    """Findings in the order of the parts, each part's summary first."""

    def __init__(self) -> None:
        self._summaries: dict[str, list[Finding]] = {}
        self._broken: dict[str, list[Finding]] = {}
        self._more: Counter[str] = Counter()

    def wrong(self, part: str, what: str, mend: str) -> None:
        """Add what must not be so."""
        named = self._broken.setdefault(part, [])
        if len(named) < MOST_NAMED:
            named.append(broken(what, mend))
        else:
            self._more[part] += 1

    def summary(self, part: str, what: str) -> None:
        """Say what was looked at."""
        self._summaries.setdefault(part, []).append(note(what) if self._broken.get(part) else ok(what))

    def remark(self, part: str, what: str, mend: str = "") -> None:
        """Say what a person should know."""
        self._summaries.setdefault(part, []).append(note(what, mend))

    def __iter__(self) -> Iterator[Finding]:
        """Give all of them."""
        for part in dict.fromkeys([*self._summaries, *self._broken]):
            more = [broken(f"{self._more[part]} more like these", "mend these first")] if self._more[part] else []
            for finding in (*self._summaries.get(part, ()), *self._broken.get(part, ()), *more):
                yield finding.model_copy(update={"check": part})


class AuditProgress:
    """Tells how far an audit is, every ten seconds at most."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._told_at = time.monotonic()

    def tell(self, text: str) -> None:
        """Say it, if the last word was long enough ago."""
        if time.monotonic() - self._told_at >= SHOW_EVERY_SECONDS:
            self._told_at = time.monotonic()
            self._show(text)


@dataclass(frozen=True)
class AuditBench:
    """One audit at work."""

    settings: Settings
    ledger: Ledger
    store: ObjectStore
    """Of ledger and warehouse."""
    inbox: ObjectStore
    scope: AuditScope
    now: datetime
    spool: AuditSpool
    progress: AuditProgress
    findings: AuditFindings = field(default_factory=AuditFindings)

    @property
    def since(self) -> float:
        """From when on, as a number that sorts."""
        return self.scope.since.timestamp() if self.scope.since else 0.0

    def may_be_under_way(self, moment: datetime) -> bool:
        """Whether what was written then may be a run's whose report is still to come; nothing is from the future."""
        return self.now - UNDER_WAY < moment < self.now + CLOCKS_DIFFER


def never_stops() -> None:
    """Nothing is to be told to documents that are being read: they are small."""
