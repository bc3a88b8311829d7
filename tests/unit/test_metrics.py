"""What a recovery counts, by what name and in what unit; and that the docs say the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from livekit_backup.hooks.recovery_metrics import Metric, emit_download, emit_landed, emit_statement
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import SAFE, Outcome
from livekit_backup.models.references import FileKind
from livekit_backup.models.statement import Statement, StatementLine
from unit.metrics_backend import Backend, use
from unit.recording_bench import ATTEMPT, DATA, Bench

from ..conftest import ROOT

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def backend(monkeypatch):
    return use(monkeypatch, Backend())


def _line(outcome, **changes):
    return StatementLine(egress_id="EG_1", run=1, filename="secret name.mp4", outcome=outcome, **changes)


def _statement(*lines):
    return Statement(dag_id="d", run_id="r", written_at=NOW, lines=lines)


def _entry(**changes):
    values = {
        "egress_id": "EG_1",
        "run": 1,
        "filename": "secret name.mp4",
        "kind": FileKind.SEGMENT,
        "started": NOW - timedelta(hours=2),
        "deadline": NOW + timedelta(days=6),
        "outcome": Outcome.LANDED,
        "recorded_at": NOW,
    }
    return LedgerEntry(**{**values, **changes})


def test_files_and_bytes_are_counted_by_outcome(backend):
    lines = [_line(Outcome.LANDED, size=10), _line(Outcome.LANDED, size=5), _line(Outcome.CORRUPT, size=None)]
    emit_statement(_statement(*lines))
    assert [(stat, count, tags) for kind, stat, count, tags in backend.sent if kind == "counter"] == [
        ("livekit_backup.files", 2, {"outcome": "landed"}),
        ("livekit_backup.files.landed", 2, None),
        ("livekit_backup.bytes", 15, {"outcome": "landed"}),
        ("livekit_backup.bytes.landed", 15, None),
        ("livekit_backup.files", 1, {"outcome": "corrupt"}),
        ("livekit_backup.files.corrupt", 1, None),
    ]


def test_second_names_are_airflows_own_choice(backend, monkeypatch):
    monkeypatch.setenv("AIRFLOW__METRICS__LEGACY_NAMES_ON", "False")
    emit_statement(_statement(_line(Outcome.LANDED, size=10)))
    assert {stat for _, stat, _, _ in backend.sent} <= set(Metric)


def test_the_smallest_margin_is_that_of_what_is_not_safe(backend):
    lines = [
        _line(Outcome.FAILED, hours_left=30.0),
        _line(Outcome.CORRUPT, hours_left=3.5),
        _line(Outcome.LANDED),
        _line(Outcome.EXPIRED, was_lost=True),
    ]
    emit_statement(_statement(*lines))
    assert backend.values(Metric.SMALLEST_MARGIN) == [3.5]
    assert backend.values(Metric.UNSAFE_FILES) == [2]


def test_a_link_that_died_meanwhile_has_no_margin(backend):
    emit_statement(_statement(_line(Outcome.FAILED, hours_left=30.0), _line(Outcome.EXPIRED)))
    assert backend.values(Metric.SMALLEST_MARGIN) == [0.0]


@pytest.mark.parametrize("outcome", sorted(SAFE))
def test_a_safe_run_takes_an_earlier_margin_away(backend, outcome):
    emit_statement(_statement(_line(outcome)))
    assert backend.values(Metric.SMALLEST_MARGIN) == [168.0]
    assert backend.values(Metric.UNSAFE_FILES) == [0]


def test_an_unknown_deadline_is_no_margin(backend):
    emit_statement(_statement(_line(Outcome.UNRESOLVED)))
    assert backend.values(Metric.SMALLEST_MARGIN) == []
    assert backend.values(Metric.UNSAFE_FILES) == [1]


def test_a_landing_has_an_age_and_a_margin(backend):
    emit_landed(_entry())
    assert backend.sent == [
        ("timer", "livekit_backup.landing_age", timedelta(hours=2), {"kind": "segment"}),
        ("timer", "livekit_backup.landing_margin", timedelta(days=6), {"kind": "segment"}),
    ]


def test_clocks_that_differ_give_no_age_below_zero(backend):
    emit_landed(_entry(started=NOW + timedelta(seconds=3), deadline=None))
    assert [value for _, _, value, _ in backend.sent] == [timedelta(0)]


def test_a_download_has_a_duration_and_a_rate(backend):
    emit_download(3_000_000, 1.5)
    assert backend.sent == [
        ("timer", "livekit_backup.download_duration", timedelta(seconds=1.5), None),
        ("counter", "livekit_backup.download_bytes", 3_000_000, None),
        ("gauge", "livekit_backup.download_bytes_per_second", 2_000_000.0, None),
    ]


def test_a_download_in_no_time_has_no_rate(backend):
    emit_download(0, 0.0)
    assert backend.sent == [("timer", "livekit_backup.download_duration", timedelta(0), None)]


@pytest.mark.parametrize(
    "emit",
    [
        lambda: emit_statement(_statement(_line(Outcome.FAILED))),
        lambda: emit_landed(_entry()),
        lambda: emit_download(1, 1.0),
    ],
)
def test_a_metric_that_cannot_be_sent_costs_nothing(emit, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("https://user:password@statsd")

    use(monkeypatch, SimpleNamespace(incr=broken, gauge=broken, timing=broken))
    caplog.set_level("DEBUG")
    emit()
    assert "metrics were not sent: RuntimeError" in caplog.text
    assert "password" not in caplog.text


def test_no_name_or_id_is_a_tag(backend):
    emit_statement(_statement(*(_line(outcome, size=1, room_name="Room", hours_left=1.0) for outcome in Outcome)))
    emit_landed(_entry(room_name="Room"))
    emit_download(1, 1.0)
    tags = {(key, value) for _, _, _, tags in backend.sent for key, value in (tags or {}).items()}
    bounded = {("outcome", outcome.value) for outcome in Outcome} | {("kind", kind.value) for kind in FileKind}
    assert tags and tags <= bounded


def test_a_recovery_tells_of_its_download_and_its_landing():
    bench = Bench()
    fetched, landed = [], []
    recovery = bench.recovery(on_fetched=lambda *told: fetched.append(told), on_landed=landed.append)
    [entry] = recovery.download([bench.file])
    [(size, seconds)] = fetched
    assert (size, landed) == (len(DATA), [entry])
    assert seconds >= 0
    recovery.download([bench.file])
    recovery.land([bench.file])
    assert (len(fetched), len(landed)) == (1, 1), "what has landed is not counted again"


def test_what_a_try_before_has_brought_is_not_counted_again():
    bench = Bench()
    fetched = []
    for number in (1, 2):
        attempt = ATTEMPT.model_copy(update={"try_number": number})
        recovery = bench.recovery(attempt, on_fetched=lambda size, _: fetched.append(size), small=0)
        recovery.download([bench.file])
    assert fetched == [len(DATA), 0]


def test_the_docs_name_every_metric_as_it_is(backend):
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(livekit_backup\.\w+)` \| (\w+) \| ([\w ]+) \| ([^|]*)\|", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(Metric)
    emit_statement(_statement(_line(Outcome.FAILED, size=1, hours_left=1.0)))
    emit_landed(_entry())
    emit_download(1, 1.0)
    sent = {stat: (kind, set(tags or {})) for kind, stat, _, tags in backend.sent if stat in set(Metric)}
    assert {name: (kind, set(re.findall(r"`(\w+)`", tags))) for name, kind, _, tags in rows} == sent
    assert {unit for _, kind, unit, _ in rows if kind == "timer"} == {"milliseconds"}
