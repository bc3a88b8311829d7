"""Second part of an audit: every report is as it was sealed, and so is what it rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ValidationError

from livekit_backup.core.audit_bench import RESTORE, AuditBench, never_stops
from livekit_backup.core.audit_spool import SealedEntry
from livekit_backup.core.read_ahead import in_order
from livekit_backup.core.sealing import broken_lines, digest_of, sealed_copy
from livekit_backup.models.references import Intake
from livekit_backup.models.statement import Statement
from livekit_backup.models.wire import FrozenModel

REPORTS = "reports"
READERS = 4
"""A report of 20,000 files has 14 MiB."""
REPORT_AGAIN = "if the run is known to you, clear its report task, which reports and seals anew"

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class _SealedRun:
    """What a seal covers, as it is now."""

    uri: str
    """Of the report."""
    digests: Mapping[str, str]
    """As sealed."""
    found: Mapping[str, str]
    """Of those that are there."""
    report: bytes
    """As it was sealed; empty where no such copy is left."""
    altered: bytes
    """A report that is not as it was sealed; empty where there is none."""
    intake: bytes
    """Empty where it is not as it was sealed."""


def audit_reports(bench: AuditBench) -> None:
    """Hold each run's documents against the run's seals, and take up what they say."""
    count = 0

    def read(sealed: tuple[str, bool, str]) -> _SealedRun:
        uri, newest, documents = sealed
        return _read_run(bench, uri, json.loads(documents), newest=newest)

    for run in in_order(read, bench.spool.reports(bench.since), workers=READERS, ahead=2 * READERS, stop=never_stops):
        count += 1
        _take_up(bench, run)
        bench.progress.tell(f"{count} reports read")
    unsealed = 0 if bench.scope.since else _audit_unsealed(bench)
    many = "reports were" if count != 1 else "report was"
    bench.findings.summary(REPORTS, f"{count} {many} held against the seals")
    if unsealed:
        bench.findings.remark(REPORTS, f"{unsealed} reports are not chained: they were written before reports were")


def _read_run(bench: AuditBench, uri: str, sealed: dict[str, str], *, newest: bool) -> _SealedRun:
    """Read a run's documents; of an earlier seal only the report's copy, since the run has replaced the others."""
    folder = uri.rpartition("/")[0]
    digests = dict(sealed) if newest else {}
    copy = ""
    if "report.json" in sealed:
        copy = sealed_copy(sealed["report.json"])
        digests[copy] = sealed["report.json"]
    bodies = {name: bench.store.get(f"{folder}/{name}") for name in digests}
    found = {name: digest_of(body) for name, body in bodies.items() if body is not None}

    def whole(name: str) -> bytes:
        return (bodies.get(name) or b"") if found.get(name) == digests.get(name) else b""

    report = whole(copy) or whole("report.json")
    altered = next((bodies[name] for name in digests if name in ("report.json", copy) and not whole(name)), b"")
    if "comparison.json" in sealed:
        report = altered = b""
    return _SealedRun(uri, digests, found, report, altered or b"", whole("intake.json"))


def _take_up(bench: AuditBench, run: _SealedRun) -> None:
    folder = run.uri.rpartition("/")[0]
    altered = _statement(run.altered)
    broken = broken_lines(altered) if altered else ()
    for name, digest in run.digests.items():
        what = ""
        if name not in run.found:
            what = "was removed"
        elif run.found[name] != digest:
            what = "was altered after it was sealed"
            if broken and "report" in name and name.endswith(".json"):
                what += f", at line {broken[0] + 1}"
        if what:
            bench.findings.wrong(REPORTS, f"{folder}/{name} {what}", f"{RESTORE}; {REPORT_AGAIN}")
    # Without a whole copy, the lines that the report's own chain bears out.
    statement, left_out = (_statement(run.report), ()) if run.report else (altered, broken)
    for place, line in enumerate(statement.lines if statement else ()):
        bench.spool.add_reported(line.egress_id, line.run)
        if line.entry_sha256 and line.recorded_at and place not in left_out:
            sealed = SealedEntry(
                uri=bench.ledger.entry_uri(line.egress_id, line.run, line.filename),
                sha256=line.entry_sha256,
                recorded_at=line.recorded_at.timestamp(),
                report=run.uri,
                egress_id=line.egress_id,
                run=line.run,
                filename=line.filename,
                landed_uri=line.landed_uri,
                size=line.size,
                content_sha256=line.sha256,
            )
            bench.spool.add_entry(sealed)
    for backup in _intake(run.intake).backups:
        bench.spool.add_event(backup.egress_id, backup.run, backup.model_dump_json(), found=False)


def _statement(body: bytes) -> Statement | None:
    return _read(Statement, body)


def _intake(body: bytes) -> Intake:
    return _read(Intake, body) or Intake()


class _Dated(FrozenModel):
    """Any report, as far as it says when it was written."""

    written_at: AwareDatetime


def _read(model: type[_Model], body: bytes) -> _Model | None:
    try:
        return model.model_validate_json(body) if body else None
    except ValidationError:
        return None


def _audit_unsealed(bench: AuditBench) -> int:
    """Name the reports that should be sealed and are not, and count those that are older than their chain."""
    older = 0
    unsealed = (uri for uri in _reports(bench) if not bench.spool.is_sealed(uri))

    def read(uri: str) -> tuple[str, datetime | None]:
        dated = _read(_Dated, bench.store.get(uri) or b"")
        return uri, dated.written_at if dated else None

    for uri, written_at in in_order(read, unsealed, workers=READERS, ahead=2 * READERS, stop=never_stops):
        began = bench.spool.began_at(uri.split("/")[-3])
        if began is None or (written_at and written_at.timestamp() < began):
            older += 1
        elif written_at is None or not bench.may_be_under_way(written_at):
            bench.findings.wrong(
                REPORTS,
                f"{uri} is in no seal, though reports of its DAG were sealed by then: its seal was removed, or its "
                "task died before it sealed",
                REPORT_AGAIN,
            )
    return older


def _reports(bench: AuditBench) -> Iterator[str]:
    return (uri for uri in bench.store.list_keys(f"{bench.ledger.folder_uri('runs')}/") if uri.endswith("/report.json"))
