"""Seals and the audit's parts, against a store in memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.commands import audit as command
from livekit_backup.core.sealing import append_seal, broken_lines, linked, number_of, seal_uri
from livekit_backup.errors import StorageUnavailableError
from livekit_backup.models.finding import Verdict, broken, ok
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.settings import Settings
from livekit_backup.models.statement import Statement, StatementLine
from unit.audited_ledger import LATER, NOW, AuditedLedger, told
from unit.fakes import MemoryStore

from ..conftest import ROOT

FOLDER = "s3://b/l/chain/d"


def _append(store, run_id="r"):
    return append_seal(store, FOLDER, dag_id="d", run_id=run_id, documents={"report.json": "0" * 64})


def test_seals_follow_one_another_and_the_newest_is_listed_first():
    store = MemoryStore()
    seals = [_append(store) for _ in range(12)]
    assert [seal.number for seal, _ in seals] == list(range(1, 13))
    assert [seal.previous for seal, _ in seals] == ["", *(digest for _, digest in seals[:-1])]
    assert [number_of(uri) for uri in store.list_keys(FOLDER)] == list(range(12, 0, -1))


def test_seals_of_many_at_once_form_one_chain():
    store = MemoryStore()
    with ThreadPoolExecutor(8) as pool:
        seals = list(pool.map(lambda number: _append(store, f"r{number}"), range(24)))
    assert sorted(seal.number for seal, _ in seals) == list(range(1, 25))
    by_number = {seal.number: (seal, digest) for seal, digest in seals}
    assert all(by_number[number + 1][0].previous == by_number[number][1] for number in range(1, 24))


class ForgetfulStore(MemoryStore):
    """Answers as S3 does to a request whose first answer was lost: it is there already, since it is one's own."""

    def put_new(self, uri, body, **kwargs):
        super().put_new(uri, body, **kwargs)
        return False


def test_a_seal_that_was_stored_though_the_answer_was_lost_counts_once():
    store = ForgetfulStore()
    assert [_append(store)[0].number for _ in range(3)] == [1, 2, 3]


class BusyStore(MemoryStore):
    """Another is always faster."""

    def put_new(self, uri, body, **kwargs):
        return super().put_new(uri, b"{}", **kwargs)


def test_who_is_always_too_late_says_so():
    with pytest.raises(StorageUnavailableError, match="could not be sealed"):
        _append(BusyStore())


@pytest.mark.parametrize(
    "name", ["x.json", "9999999998-2.json", "9999999998-1", "-1.json", "report-12.json", "9-.json"]
)
def test_what_is_no_seal_has_no_number(name):
    assert number_of(f"{FOLDER}/{name}") == 0
    assert number_of(seal_uri(FOLDER, 1)) == 1


LINES = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(
    lambda names: Statement(
        dag_id="d",
        run_id="r",
        written_at=NOW,
        lines=tuple(
            StatementLine(egress_id="EG", run=1, filename=f"{name}{place}", outcome=Outcome.LANDED)
            for place, name in enumerate(names)
        ),
    )
)


@given(LINES, st.data())
def test_a_changed_line_is_the_broken_one_and_a_missing_one_breaks_the_next(statement, data):
    whole = linked(statement)
    assert broken_lines(whole) == ()
    at = data.draw(st.integers(0, len(whole.lines) - 1))
    changed = [*whole.lines]
    changed[at] = changed[at].model_copy(update={"outcome": Outcome.EXPIRED})
    assert broken_lines(whole.model_copy(update={"lines": tuple(changed)})) == (at,)
    without = whole.lines[:at] + whole.lines[at + 1 :]
    expected = (at,) if at < len(without) else ()
    assert broken_lines(whole.model_copy(update={"lines": without})) == expected


def test_a_backup_that_no_run_took_up_is_named_once_its_run_is_overdue():
    ledger = told()
    ledger._receive("EG_forgotten")
    assert ledger.wrong(now=NOW + timedelta(minutes=5)) == []
    [found] = ledger.wrong()
    assert re.match(r"inbox: EG_forgotten is a backup by s3://b/in/.*, but no sealed report names it", found)


def test_what_was_reported_before_since_is_left_alone():
    ledger = told()
    ledger.store.delete("s3://b/out/dt/EG_1/0.mp4")
    assert len(ledger.wrong()) == 1
    assert ledger.wrong(since=LATER - timedelta(hours=1)) == []


def test_a_chain_may_have_lost_what_is_older_than_since():
    """A lifecycle rule removes old documents; a gap behind them is none of its doing."""
    ledger = told()
    folder = ledger.ledger.chain_uri("d")
    ledger.store.delete(seal_uri(folder, 1))
    assert any("seal 1 was removed" in line for line in ledger.wrong())
    since = NOW + timedelta(hours=1)
    assert ledger.wrong(since=since) == []
    ledger.store.delete(seal_uri(folder, 3))
    [found] = ledger.wrong(since=since)
    assert found.startswith("chain: seal 3 was removed")


def test_of_a_flood_the_first_are_named_and_the_rest_counted():
    ledger = AuditedLedger()
    ledger.run("r1", ["EG_1"], files=230)
    for number in range(230):
        ledger.store.delete(f"s3://b/out/dt/EG_1/{number}.mp4")
    wrong = ledger.wrong()
    assert len(wrong) == 201 and wrong[-1] == "objects: 30 more like these"


def test_a_report_is_sealed_with_what_it_rests_on():
    ledger = told()
    bodies = [body for uri, body in ledger.store.objects.items() if "/chain/" in uri]
    assert all(f'"{name}"'.encode() in bodies[0] for name in ("report.json", "report.txt", "intake.json", "plan.json"))


@pytest.fixture
def desk(monkeypatch):
    """The command, with what it would audit left out."""
    scopes = []
    findings = [ok("fine")]

    def audit_all(settings, ledger, store, inbox, scope, now):
        scopes.append(scope)
        return findings

    monkeypatch.setattr(command, "use_connections_of_database", lambda: None)
    monkeypatch.setattr(
        command, "load_settings", lambda _: Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/l")
    )
    monkeypatch.setattr(command, "audit_all", audit_all)

    def run(**arguments):
        given = {"since": None, "sample": None, "full": False, "seal": None, "json": False, "verbose": False}
        try:
            command.audit(Namespace(**{**given, **arguments}))
        except SystemExit as end:
            return end.code
        return 0

    return run, scopes, findings


def test_it_ends_with_1_when_something_is_wrong(desk, capsys):
    run, _, findings = desk
    assert run() == 0
    findings.append(broken("s3://b/x was removed", "put it back").model_copy(update={"check": "objects"}))
    assert run() == 1
    assert run(json=True) == 1
    said = capsys.readouterr().out
    assert "BROKEN" in said and "mend: put it back" in said and '"ok": false' in said


def test_its_options(desk):
    run, scopes, _ = desk
    seal = "ab" * 32
    assert run() == run(full=True) == run(sample=3, since="2026-11-20", seal=[seal]) == 0
    assert [scope.sample for scope in scopes] == [100, None, 3]
    assert scopes[2].since.isoformat() == "2026-11-20T00:00:00+00:00"
    assert scopes[2].noted_seals == {seal}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"full": True, "sample": 3}, "give one of them"),
        ({"sample": -1}, "must be 0 or more"),
        ({"since": "yesterday"}, "must be a date or a time"),
        ({"seal": ["12"]}, "64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_meant_is_said(desk, arguments, says):
    run, scopes, _ = desk
    assert says in run(**arguments)
    assert scopes == []


def _at_scale(entries: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("audit_at_scale.py")), str(entries)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}


def test_memory_does_not_grow_with_the_ledger():
    """A tenth of what a growth with each entry would take; a million takes minutes: ``audit_at_scale.py 1000000``."""
    few, many = _at_scale(1000), _at_scale(11_000)
    assert (few["wrong"], many["wrong"], few["proven"], many["proven"]) == (0, 0, 1000, 11_000)
    # An entry's row alone has some 500 bytes, and an entry as an object over 2 KiB.
    assert many["grown_kib"] - few["grown_kib"] < 8 * 1024


def test_verdicts_of_an_untouched_ledger():
    assert {finding.verdict for finding in told().audit()} <= {Verdict.OK, Verdict.NOTE}
