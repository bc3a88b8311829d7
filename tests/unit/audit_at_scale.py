"""An audit of so many entries that none is stored anywhere: ``python tests/unit/audit_at_scale.py ENTRIES``.

The store makes each document when it is asked for it. Prints what was found wrong, seconds and the peak of memory.
"""

from __future__ import annotations

import io
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from livekit_backup.core.audit_bench import AuditScope
from livekit_backup.core.auditing import audit_all
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.sealing import digest_of, linked, seal_uri
from livekit_backup.core.storage import ListedObject, ObjectHead, ObjectStore
from livekit_backup.models.finding import Verdict
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind
from livekit_backup.models.seal import Seal
from livekit_backup.models.settings import Settings
from livekit_backup.models.statement import Statement, StatementLine

FILES = 500
"""Of one run, which recovers one egress."""
NOW = datetime(2026, 11, 29, tzinfo=UTC)
SETTINGS = Settings(inbox="s3://b/in", inbox_layout="%Y/", warehouse="s3://b/out", ledger="s3://b/out/_l")
DATA = b"recording"


class MadeUpStore:
    """A ledger of so many runs, and a warehouse with an object for each file."""

    def __init__(self, runs: int) -> None:
        self.ledger = Ledger(cast("ObjectStore", self), SETTINGS.ledger)
        self._runs = runs
        self._seals: dict[str, bytes] = {}
        # A document's name is a digest of the file's, whatever its egress.
        uris = (self.ledger.entry_uri("EG_0", 1, f"{number}.ts") for number in range(FILES))
        self._names = {uri.rpartition("/")[2]: number for number, uri in enumerate(uris)}
        self._make_seals()

    def _make_seals(self) -> None:
        previous = ""
        for run in range(self._runs):
            documents = {"report.json": digest_of(self._report(run))}
            number = run + 1
            seal = Seal(
                number=number, dag_id="d", run_id=f"r{run:06}", sealed_at=NOW, previous=previous, documents=documents
            )
            body = seal.model_dump_json().encode()
            previous = digest_of(body)
            self._seals[seal_uri(self.ledger.chain_uri("d"), number)] = body

    def _entry(self, run: int, number: int) -> bytes:
        entry = LedgerEntry(
            egress_id=f"EG_{run:06}",
            run=1,
            filename=f"{number}.ts",
            kind=FileKind.SEGMENT,
            started=NOW,
            outcome=Outcome.LANDED,
            landed_uri=f"s3://b/out/dt/EG_{run:06}/{number:06}.ts",
            size=len(DATA),
            sha256=digest_of(DATA),
            etag="e",
            recorded_at=NOW,
        )
        return entry.model_dump_json().encode()

    def _report(self, run: int) -> bytes:
        lines = tuple(
            StatementLine(
                egress_id=f"EG_{run:06}",
                run=1,
                filename=f"{number}.ts",
                outcome=Outcome.LANDED,
                entry_sha256=digest_of(self._entry(run, number)),
                recorded_at=NOW,
            )
            for number in range(FILES)
        )
        statement = Statement(dag_id="d", run_id=f"r{run:06}", written_at=NOW, lines=lines)
        return linked(statement).model_dump_json().encode()

    def list_keys(self, prefix_uri: str) -> Iterator[str]:
        if "/chain/" in prefix_uri:
            yield from reversed(self._seals)
        elif "/files/" in prefix_uri:
            for run in range(self._runs):
                for number in range(FILES):
                    yield self.ledger.entry_uri(f"EG_{run:06}", 1, f"{number}.ts")

    def list_objects(self, prefix_uri: str, after: str = "", page: int = 1000) -> Iterator[ListedObject]:
        """What is asked for lies one behind the other."""
        folder, _, name = after.rpartition("/")
        run, number = int(folder.rpartition("_")[2]), int((name.rpartition("/")[2] + "0")[:6] or 0)
        while run < self._runs:
            for at in range(max(0, number - 1), FILES):
                yield ListedObject(f"s3://b/out/dt/EG_{run:06}/{at:06}.ts", len(DATA), "e")
            run, number = run + 1, 0

    def get(self, uri: str) -> bytes | None:
        if uri in self._seals:
            return self._seals[uri]
        if "/runs/" in uri:
            return self._report(int(uri.split("/runs/d/r")[1][:6]))
        egress, _, name = uri.split("/files/EG_")[1].split("/")
        return self._entry(int(egress), self._names[name])

    def head(self, uri: str) -> ObjectHead:
        return ObjectHead(len(DATA), "e")

    def open(self, uri: str, *_: Any) -> io.BytesIO:
        return io.BytesIO(DATA)


def main(entries: int) -> None:
    store = MadeUpStore(entries // FILES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = cast("ObjectStore", store)
    found = audit_all(SETTINGS, store.ledger, made, made, AuditScope(), NOW + timedelta(days=2))
    wrong = [finding.what for finding in found if finding.verdict is Verdict.BROKEN]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    proven = next(finding.what for finding in found if finding.check == "entries")
    print(f"wrong={len(wrong)} proven={proven.split()[0]} seconds={time.perf_counter() - began:.1f}", end=" ")
    print(f"grown_kib={peak - before} peak_kib={peak}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
