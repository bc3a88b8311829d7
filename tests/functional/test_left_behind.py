"""What a thief finds: after everything has run and failed, nothing that is left lying about opens a recording.

Marked signatures, tokens and secrets go in; then ledger, reports, seals, what tasks return and raise, logs at DEBUG (boto's
and httpx' too), metrics, alarms, asset events, links, and what commands print are searched. Airflow's own database and
files are searched by ``tests/e2e/test_recovery_dag.py``, behind real runs.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from livekit_backup.commands import audit, recover, status
from livekit_backup.core.findings_text import findings_json
from livekit_backup.errors import LivekitBackupError
from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator
from livekit_backup.operators.reconcile import ReconcileOperator, ReconciliationReportOperator
from livekit_backup.operators.report import AllSafeOperator
from livekit_backup.testing import Fault, Recording
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.fake_api import STORAGE_SECRET

from ..unit.metrics_backend import Backend, use
from .operator_site import DAYS, OperatorSite, examined, exit_code, operator_site
from .recovery_pipeline import MIB

API_KEYS = {"APIthief": "a-secret-of-livekit-that-is-worth-a-recording"}
FAULTS: dict[Fault, dict[str, Any]] = {
    Fault.EXPIRED: {},
    Fault.NOT_FOUND: {},
    Fault.SERVER_ERROR: {},
    Fault.RESET: {"at": 0.5},
    Fault.WRONG_BYTES: {},
    Fault.NO_LENGTH: {},
    Fault.HTML_ERROR: {},
    Fault.GZIP: {},
}


class Marks:
    """All that must be nowhere."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def of_recording(self, recording: Recording) -> None:
        """Every signature that LiveKit's payloads hold, as it stands and as it would in another URL."""
        text = json.dumps(recording.event()) + json.dumps(recording.manifest())
        signatures = set(re.findall(r"X-Amz-Signature=([0-9a-f]{64})", text))
        assert signatures
        self.found |= signatures

    def of_token(self, token: str) -> None:
        """A token, by the part of it that proves something."""
        signature = token.rpartition(".")[2]
        assert len(signature) > 20
        self.found.add(signature)

    def in_(self, body: str | bytes) -> bool:
        text = body if isinstance(body, str) else body.decode(errors="replace")
        plain = text.replace("\\/", "/")
        return "X-Amz-Credential=" in plain or any(mark in plain or quote(mark) in plain for mark in self.found)


@pytest.fixture
def site(s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperatorSite]:
    with operator_site(s3_server, monkeypatch, API_KEYS) as site:
        yield site


def test_no_signature_token_or_secret_is_left_anywhere(
    site: OperatorSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    backend = use(monkeypatch, Backend())
    told: list[Any] = []
    marks = Marks()
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "urllib3", "httpx", "httpcore", "livekit_backup"):
        caplog.set_level(logging.DEBUG, logger=name)

    _store_recordings(site, marks)
    report = site.recover("r1")
    assert report["totals"]["landed"] >= 3 and len(report["totals"]) >= 4, report["totals"]
    for operator, arguments in (
        (AllSafeOperator, {"report": report}),
        (ReconcileOperator, {}),
        (ReconciliationReportOperator, {}),
        (RaiseAlarmsOperator, {"notify": lambda context: told.append(_alarm(context)), "alarm_hours": [168]}),
    ):
        _run(site, operator, **arguments)
    with pytest.raises(LivekitBackupError):
        _run(site, RaiseAlarmsOperator, notify=_fails_with_a_link(site), alarm_hours=[167.9], again=True)
    commands = _commands(site, monkeypatch, marks)
    for api_request in site.livekit.requests:
        if authorization := api_request.headers.get("Authorization", ""):
            marks.of_token(authorization)
    marks.found |= {*API_KEYS.values(), STORAGE_SECRET, site.s3.secret_key}
    assert told and site.errors and backend.sent and site.extras

    captured = capfd.readouterr()
    places = {
        "xcom": json.dumps(site.returned, default=str),
        "asset extras": json.dumps(site.extras, default=str),
        "exceptions": "\n".join("".join(traceback.format_exception(error)) + repr(error) for error in site.errors),
        "rendered fields": repr(
            [{name: getattr(task, name) for name in task.template_fields} for task in site.operators]
        ),
        "links": repr([_links(task) for task in site.operators]),
        "lineage's entries": repr([getattr(task, "landed", ()) for task in site.operators]),
        "metrics": repr(backend.sent),
        "alarms": repr(told),
        "log": "\n".join(_texts(caplog)),
        "commands": commands,
        "stdout": captured.out,
        "stderr": captured.err,
        **_objects(site, "acme_ledger"),
    }
    assert len(marks.found) > 20
    assert "seal 1 of d" in places["log"] and "GET" in places["log"], "it is the log that a task at DEBUG writes"
    assert any("/chain/" in name for name in places) and any(name.endswith("report.txt") for name in places)
    assert {name for name, body in places.items() if marks.in_(body)} == set()
    # The search itself finds what is there: in the inbox, where links have to be, it does.
    assert all(
        marks.in_(body) for name, body in _objects(site, "acme_events").items() if "/_livekit_backup/" not in name
    )


def _store_recordings(site: OperatorSite, marks: Marks) -> None:
    good = [
        site.livekit.record_file("good.ogg", size=1000),
        site.livekit.record_file("long.mp4", size=9 * MIB),
        site.livekit.record_hls("hls/room", segments=2, segment_size=1000),
    ]
    dead = site.livekit.record_file("dead manifest.mp4", size=1000)
    site.livekit.break_(dead.manifest_object, Fault.NOT_FOUND)
    redirected = site.livekit.record_file("redirected.mp4", size=1000)
    site.livekit.break_(redirected, Fault.REDIRECT, location=f"{good[0].event()['egressInfo']['manifestLocation']}")
    broken = []
    for fault, details in FAULTS.items():
        broken.append(site.livekit.record_file(f"{fault.name}.mp4", size=9 * MIB if fault is Fault.RESET else 1000))
        site.livekit.break_(broken[-1], fault, **details)
    for recording in (*good, dead, redirected, *broken):
        marks.of_recording(recording)
        _store(site, recording.egress_id, json.dumps(recording.event()).encode())
    # An event that is cut off in its link, and one that says something else in the place of a number.
    whole = json.dumps(good[0].event()).encode()
    _store(site, "cut", whole[: whole.index(b"X-Amz-Signature=") + 90])
    _store(site, "odd", whole.replace(b'"startedAt": "', b'"startedAt": "x', 1))


def _store(site: OperatorSite, name: str, body: bytes) -> None:
    from datetime import UTC, datetime

    key = f"livekit/{datetime.now(UTC).strftime(DAYS)}{name}.json"
    site.s3.client().put_object(Bucket=site.buckets["acme_events"], Key=key, Body=body)


def _run(site: OperatorSite, operator: type, *, again: bool = False, **arguments: Any) -> None:
    """What it raises is kept; with ``again`` it is raised too."""
    try:
        site.run(operator, "a1", **arguments)
    except LivekitBackupError:
        if again:
            raise


def _alarm(context: Any) -> Any:
    return context["livekit_alarm"], context["livekit_alarms"]


def _fails_with_a_link(site: OperatorSite) -> Any:
    link = site.livekit.recordings[0].event()["egressInfo"]["manifestLocation"]

    def notify(context: Any) -> None:
        raise RuntimeError(f"could not post {link} anywhere")

    return notify


def _commands(site: OperatorSite, patch: pytest.MonkeyPatch, marks: Marks) -> str:
    """Run every command, and return what they end with; what they print is captured."""
    late = site.livekit.record_file("late.mp4", size=1000)
    by_link = site.livekit.record_file("by link.mp4", size=1000)
    for recording in (late, by_link):
        marks.of_recording(recording)
    link = by_link.event()["egressInfo"]["manifestLocation"]
    ends = [exit_code(recover.recover, egress_ids=[late.egress_id, "EG_absent"], link=False, filename=None)]
    for text in (link, f"{link[:-10]}zzz", "https://elsewhere.example/x?X-Amz-Signature=" + "ab" * 32):
        patch.setattr("sys.stdin", _Typed(text))
        ends.append(exit_code(recover.recover, egress_ids=[], link=True, filename=None))
    assert ends[1] == 0, "the link of a manifest is taken up"
    marks.found.add("ab" * 32)
    ends.append(exit_code(status.status, days=1.0, json=True))
    ends.append(exit_code(audit.audit, since=None, sample=None, full=True, seal=None, json=True))
    from datetime import UTC, datetime

    return "\n".join([*map(str, ends), findings_json(examined(), datetime.now(UTC))])


class _Typed:
    """Standard input that holds one line."""

    def __init__(self, text: str) -> None:
        self._text = f"{text}\n"

    def isatty(self) -> bool:
        return False

    def read(self, size: int = -1) -> str:
        return self._text if size < 0 else self._text[:size]

    def readline(self, size: int = -1) -> str:
        return self.read(size)


def _links(task: Any) -> list[str]:
    return [link.get_link(task, ti_key=None) for link in getattr(task, "operator_extra_links", ())]


def _texts(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """Each record as a handler would write it, with what it was raised by."""
    formatter = logging.Formatter("%(name)s %(message)s")
    for record in [*caplog.get_records("setup"), *caplog.get_records("call")]:
        yield formatter.format(record)


def _objects(site: OperatorSite, bucket: str) -> dict[str, str]:
    """Every object of a bucket, its key and metadata with it."""
    client, name = site.s3.client(), site.buckets[bucket]
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        for item in page.get("Contents", ()):
            answer = client.get_object(Bucket=name, Key=item["Key"])
            body = answer["Body"].read().decode(errors="replace")
            found[f"{name}/{item['Key']}"] = f"{item['Key']} {answer['Metadata']} {body}"
    return found
