"""What a statement's lines add up to."""

from __future__ import annotations

from datetime import UTC, datetime

from livekit_backup.models.outcome import SAFE, Outcome
from livekit_backup.models.references import UnreadableDocument
from livekit_backup.models.statement import Statement, StatementLine


def _statement(**changes):
    return Statement(dag_id="d", run_id="r", written_at=datetime(2026, 1, 1, tzinfo=UTC), **changes)


def _line(outcome, **changes):
    return StatementLine(egress_id="EG_1", run=1, filename=outcome.value, outcome=outcome, **changes)


def test_sums():
    lines = tuple(_line(outcome) for outcome in (*Outcome, Outcome.LANDED))
    statement = _statement(lines=lines)
    assert statement.totals == {outcome.value: 1 + (outcome is Outcome.LANDED) for outcome in Outcome}
    assert {line.outcome for line in statement.unsafe} == set(Outcome) - SAFE
    assert statement.recoverable == statement.unsafe
    assert _statement().totals == {}


def test_what_was_lost_before_is_not_recoverable():
    statement = _statement(lines=(_line(Outcome.EXPIRED, was_lost=True), _line(Outcome.EXPIRED)))
    assert len(statement.unsafe) == 2
    assert len(statement.recoverable) == 1


def test_only_some_unreadable_documents_matter():
    documents = [UnreadableDocument(uri="u", position=0, reason="r", may_be_backup=flag) for flag in (True, False)]
    assert _statement(unreadable=tuple(documents)).unreadable_backups == (documents[0],)
