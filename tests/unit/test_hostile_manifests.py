"""Manifests of a forger's: bounded, and every entry of them lands under a name of its own or is reported by name."""

from __future__ import annotations

import html
import io
import json
import tracemalloc
import unicodedata
from collections import Counter
from datetime import UTC, datetime

import pytest
import urllib3

from livekit_backup.core import manifest_client, plan_room, run_plan
from livekit_backup.core.found_files import FoundFiles
from livekit_backup.core.locations import Location
from livekit_backup.core.manifest_bounds import MAX_ENTRIES, MAX_VALUES
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.core.planning import plan_backup
from livekit_backup.core.resolution import resolve_backup
from livekit_backup.core.source_answers import error_for_answer
from livekit_backup.core.statements import make_statement, render
from livekit_backup.core.strict_json import MAX_VALUES as MAX_EVENT_VALUES
from livekit_backup.core.strict_json import RefusedJsonError, parse_json
from livekit_backup.errors import UnresolvedError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import BackupRef, EventRef, FileKind, Intake
from livekit_backup.models.settings import Settings
from unit.fakes import MemoryStore, backup_event, signed
from unit.test_run_plan import Bench as RunBench

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SETTINGS = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l")
LINK = signed("m.json").replace("20261120", "20990101")
MIB = 1024 * 1024


def _plan(files, settings=SETTINGS, event=None, **manifest):
    event = event or backup_event(manifestLocation=signed("m.json"))
    read = Manifest.model_validate({"egress_id": "EG_1", "files": files, **manifest})
    resolved = resolve_backup([event], lambda _: read)
    ref = BackupRef(egress_id="EG_1", run=event.backup.started_at, events=(EventRef(uri="s3://b/in/e", position=0),))
    return plan_backup(ref, resolved, settings, lambda location: None, NOW)


def _file(name, path=None):
    return {"filename": name, "location": signed(path if path is not None else "k")}


# --- how much ------------------------------------------------------------------------------


def _fetch(monkeypatch, body):
    answer = urllib3.HTTPResponse(body, {}, 200, preload_content=False)
    monkeypatch.setattr(urllib3.PoolManager, "request", lambda *_, **__: answer)
    with ManifestClient(("livekit-egress.s3.amazonaws.com",), first_wait_seconds=0.0) as client:
        return client.fetch(Location(LINK))


class Endless(io.RawIOBase):
    """2 GiB of a manifest."""

    def __init__(self):
        super().__init__()
        self.left, self.piece = 2 * 1024 * MIB, b'{"filename":"a"},' * 4096

    def read1(self, size=-1):
        piece = self.piece[: min(size, self.left)]
        self.left -= len(piece)
        return piece


def test_of_two_gib_little_is_read(monkeypatch):
    body = Endless()
    tracemalloc.start()
    try:
        with pytest.raises(UnresolvedError, match=r"m\.json is over 67108864 bytes"):
            _fetch(monkeypatch, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 2 * 1024 * MIB - body.left <= manifest_client.MAX_MANIFEST_BYTES + 128 * 1024
    # The body grows by eighths, and is copied once.
    assert peak < 3 * manifest_client.MAX_MANIFEST_BYTES


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (b'{"files":[%s{}]}' % (b"{}," * 1_000_000), f"over {MAX_ENTRIES} entries"),
        (b'{"egress_id":"EG_1","x":[%s0]}' % (b"{}," * 1_000_000), f"over {MAX_ENTRIES} entries"),
        (b'{"egress_id":"EG_1","x":[%s0]}' % (b"[]," * 1_000_000), f"over {MAX_VALUES} values"),
        (b'{"egress_id":"EG_1","x":[%s0]}' % (b"0," * 2_000_000), f"over {MAX_VALUES} values"),
        (b'{"egress_id":"EG_1","x":%s' % (b"[" * 2_000_000), f"over {MAX_VALUES} values"),
    ],
    ids=["files", "others", "lists", "numbers", "nested"],
)
def test_a_million_entries_are_counted_and_not_made(monkeypatch, entries, reason):
    tracemalloc.start()
    try:
        with pytest.raises(UnresolvedError, match=rf"m\.json is no egress manifest: {reason}"):
            _fetch(monkeypatch, io.BytesIO(entries))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(entries) < 32 * MIB


@pytest.mark.parametrize("wrong", ["0", "[]", '""', "true"])
def test_of_a_million_faults_the_first_is_enough(monkeypatch, wrong):
    body = f'{{"files":[{",".join([wrong] * 150_000)}]}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(UnresolvedError, match=r"files\.0: "):
            _fetch(monkeypatch, io.BytesIO(body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB


def test_a_manifest_of_a_whole_day_is_taken(monkeypatch):
    segment = {"filename": "a/segment_00000.ts", "location": signed("k")}
    day = json.dumps({"egress_id": "EG_1", "playlists": [{"segments": [segment] * 86_400}]}).encode()
    assert len(_fetch(monkeypatch, io.BytesIO(day)).playlists[0].segments) == 86_400


@pytest.mark.parametrize("piece", [b"{},", b"[],", b"0,", b'"",'])
def test_an_event_of_a_million_values_is_refused_whole(piece):
    raw = b'{"event":"egress_ended","egressInfo":{"egressId":"EG_1","fileResults":[%s{}]}}' % (piece * 1_000_000)
    with pytest.raises(RefusedJsonError, match=f"too much in it: over {MAX_EVENT_VALUES} values"):
        parse_json(raw)


def test_a_key_that_stands_twice_among_many_is_found_in_one_pass(monkeypatch):
    """To count each name for itself took hours here."""
    raw = b"{%s}" % b",".join(b'"%x":0' % number for number in [*range(190_000), 189_999])
    with pytest.raises(RefusedJsonError, match="the key '2e62f' stands twice"):
        parse_json(raw)


def test_no_more_hosts_are_looked_up_ahead_than_a_run_has(monkeypatch):
    asked = []

    def resolver(host, port):
        asked.append(host)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(run_plan, "system_resolver", resolver)
    bench = RunBench({"event": "egress_ended", "egressInfo": _backed_up()})
    files = [
        {"filename": f"{number}.mp4", "location": signed("k").replace("livekit-egress", f"b{number}")}
        for number in range(1000)
    ]
    bench.manifests["/EG_1.json"] = {"egress_id": "EG_1", "files": files}
    plan = bench.plan(most=5000)
    assert len(plan.files) == 1000
    assert len(asked) == run_plan.MOST_LOOKUPS


def test_many_large_manifests_are_in_the_way_of_no_small_one(monkeypatch):
    monkeypatch.setattr(plan_room, "LARGE", 5)
    monkeypatch.setattr(plan_room, "MOST_PLANNED", 25)
    ids = ["EG_1", "EG_2", "EG_3", "EG_4"]
    bench = RunBench(*({"event": "egress_ended", "egressInfo": _backed_up(name)} for name in ids))
    for name, count in zip(ids, (10, 10, 10, 5), strict=True):
        files = [_file(f"{number}.mp4", f"{name}/{number}") for number in range(count)]
        bench.manifests[f"/{name}.json"] = {"egress_id": name, "files": files}
    plan = bench.plan(most=5000)
    found = Counter(file.egress_id for file in plan.to_recover)
    assert found["EG_4"] == 5
    assert sum(found.values()) == 25
    [whole] = plan.accounted
    assert (whole.file.filename, whole.outcome) == ("(all files)", Outcome.FAILED)
    assert whole.reason == (
        "10 files, and over 25 in large backups of this run; recover it by itself: "
        f"airflow livekit-backup recover {whole.file.egress_id}"
    )
    assert len(bench.ledger.read_files(whole.file.egress_id, 1)) == 10, "its alarms know each of them"


def _backed_up(name="EG_1"):
    return {"egressId": name, "startedAt": "1", "backupStorageUsed": True, "manifestLocation": signed(f"{name}.json")}


# --- names ---------------------------------------------------------------------------------


def _marked(name, host, path):
    """The name that tells a second object of one name from the first."""
    found = FoundFiles({}, {})
    for place in ("https://other.s3.amazonaws.com/x", f"https://{host}/{path}"):
        found.add(name, FileKind.FILE, type(backup_event().egress.manifest_location)(f"{place}?X-Amz-Signature=s"))
    return list(found)[1].filename


def test_names_that_were_marked_before_lead_to_no_recursion():
    """Each name is the mark of the one before: to mark once more and again went on until Python gave up."""
    host, names = "livekit-egress.s3.amazonaws.com", ["a.mp4"]
    mark = _marked("x", host, "victim")[2:]
    for _ in range(1100):
        stem, _, ending = names[-1].rpartition(".")
        names.append(f"{stem}~{mark}.{ending}")
    files = [_file(name, f"decoy/{number}") for number, name in enumerate(names)]
    plan = _plan([*files, _file("a.mp4", "victim")])
    assert len(plan.files) == len(names) + 1
    assert len({file.key for file in plan.files}) == len(names) + 1


def test_where_all_names_are_taken_it_is_reported():
    host = "livekit-egress.s3.amazonaws.com"
    short = _marked("a", host, "victim")
    found = FoundFiles({}, {})
    secret = type(backup_event().egress.manifest_location)
    for name, path in (("a", "1"), (short, "2")):
        found.add(name, FileKind.FILE, secret(signed(path)))
    found.add("a", FileKind.FILE, secret(signed("victim")))
    [long] = [file.filename for file in found if file.location and file.location.key_path == "victim"]
    assert len(long) > len(short)
    plan = _plan([_file("a", "1"), _file(short, "2"), _file(long, "3"), _file("a", "victim")])
    [refused] = [known for known in plan.accounted if known.outcome is Outcome.REFUSED]
    assert refused.reason == "'a' and the names that tell it from others are other files'"
    assert len(plan.to_recover) == 3


@pytest.mark.parametrize("name", ["(file 1, without a name)", "(file 2, without a name)"])
def test_a_file_without_a_name_is_not_hidden_by_one_that_is_called_so(name):
    plan = _plan([_file(name, "1"), {"filename": "", "location": ""}, {"filename": "", "location": ""}])
    assert len(plan.to_recover) == 1
    assert len(plan.accounted) == 2
    assert len({file.key for file in plan.files}) == 3


def test_a_shortfall_is_not_hidden_by_a_file_that_is_called_so():
    event = backup_event(
        manifestLocation=signed("m.json"), segmentResults=[{"playlistName": "p.m3u8", "segmentCount": "5"}]
    )
    plan = _plan([_file("(5 of 5 segments)")], event=event)
    reasons = [known.reason for known in plan.accounted]
    assert "the event counts 5 segments, the manifest lists 0" in reasons
    assert [file.filename for file in plan.to_recover] == ["(5 of 5 segments)"]


CONTROLS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "..", "a/../../b", "..\\..\\b", "a/./b", "dir/", "/", "a\0b.mp4", "x" * 5120 + ".mp4",
        "é" * 600, "/" * 3000 + "../a", "a" * 1100, "\u202egpj.exe", "a\r\nSet-Cookie: x", "a\u2028b", "a\x1b]0;x\x07b",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused_and_named(name):
    plan = _plan([_file(name)])
    assert plan.to_recover == ()
    [known] = plan.accounted
    assert known.outcome is Outcome.REFUSED
    assert known.file.filename == name
    assert known.reason.isprintable()
    assert len(known.reason) < 300


def test_a_name_without_end_is_not_looked_through():
    """Each of its characters would be; what is wrong with the first is not even found."""
    [known] = _plan([_file("\0" * 4 * MIB)]).accounted
    assert known.outcome is Outcome.REFUSED
    assert known.reason.endswith("makes a key of over 1024 bytes")


def test_no_control_or_direction_character_lands():
    for mark in CONTROLS:
        if mark not in "\u200c\u200d":
            assert _plan([_file(f"a{mark}b.mp4")]).to_recover == (), f"U+{ord(mark):04X}"


COLLIDING = [
    ("\u00e9.mp4", "e\u0301.mp4"),
    ("\ufb01le.mp4", "file.mp4"),
    ("\u00c5.mp4", "\u212b.mp4"),
    ("A.mp4", "a.mp4"),
    ("straße.mp4", "STRASSE.mp4"),
    ("a b.mp4", "a\u00a0b.mp4"),
    ("NUL", "nul"),
    ("a.mp4", "a.mp4."),
    ("%61.mp4", "a.mp4"),
    ("\u0430.mp4", "a.mp4"),
]
"""Equal after normalisation, but for case, on Windows, once decoded, or to the eye."""


@pytest.mark.parametrize(("one", "other"), COLLIDING)
def test_names_that_only_look_alike_land_apart(one, other):
    """S3's keys are bytes: what a file system or an eye takes for one name is two objects there, and stays two."""
    assert one != other
    plan = _plan([_file(one, "1"), _file(other, "2")])
    assert len({file.landing_uri for file in plan.to_recover}) == 2
    assert [file.filename for file in plan.to_recover] == [one, other]


@pytest.mark.parametrize("other", ["/a/b.mp4", "a//b.mp4", "//a///b.mp4"])
def test_names_that_clean_to_one_key_stay_two_files(other):
    """The second finds other content at its key, and lands beside it or fails by ``on_conflict``: see test_recovering."""
    plan = _plan([_file("a/b.mp4", "1"), _file(other, "2")])
    assert len({file.key for file in plan.to_recover}) == 2
    assert len({file.landing_uri for file in plan.to_recover}) == 1


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("_l", "ledger"),
        ("_l/files/EG_1/1/x.json", "ledger"),
        ("/_l//runs/x", "ledger"),
        ("in/2026/11/20/13/forged.json", "inbox"),
    ],
)
def test_nothing_lands_where_the_ledger_or_the_inbox_is(name, place):
    settings = Settings(inbox="s3://b/in", warehouse="s3://b", ledger="s3://b/_l", landing_key="{filename}")
    [known] = _plan([_file(name)], settings).accounted
    assert known.outcome is Outcome.REFUSED
    assert known.reason.endswith(f"would land in the {place}")


@pytest.mark.parametrize("name", ["_L/x", "_l2/x", "x/_l/x", "inn/x", "_l.mp4"])
def test_and_its_neighbours_are_free(name):
    settings = Settings(inbox="s3://b/in", warehouse="s3://b", ledger="s3://b/_l", landing_key="{filename}")
    assert len(_plan([_file(name)], settings).to_recover) == 1


def test_a_warehouse_in_the_inbox_can_still_be_landed_in():
    settings = Settings(inbox="s3://b", warehouse="s3://b/out", ledger="s3://b/out/_l", landing_key="{filename}")
    assert len(_plan([_file("a.mp4")], settings).to_recover) == 1


@pytest.mark.parametrize(
    "name", ["{egress_id}", "{0.__class__}", "{filename!r:>99999999}", "%(x)s", "{{ conn.a }}", "${x}"]
)
def test_a_name_is_no_template(name):
    [file] = _plan([_file(name)]).to_recover
    assert file.landing_uri.endswith(f"/{name}")


# --- what a person reads -------------------------------------------------------------------

SPELLS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)",
    "\t=1+1", "\r=1+1", "a\nLANDED  x.mp4", "::error::x", "::endgroup::", "\x1b[2J\x1b[31m", "\u202etxt.exe", "{{ 7*7 }}",
    "a,b\";c'", "<!channel>", "\u2066x", "x\0y",
]  # fmt: skip


@pytest.mark.parametrize("spell", SPELLS)
def test_nothing_in_a_name_changes_the_lines_of_a_report(spell):
    """It is plain text: a name stands inside a line that is ours, never at its beginning, and moves nothing."""
    store = MemoryStore()
    ledger = RunBench().ledger.__class__(store, "s3://b/out/_l")
    attempt = Attempt(dag_id="d", run_id="r")
    plan = _plan([_file(f"{spell}.mp4")], event=backup_event(manifestLocation=signed("m.json"), roomName=spell))
    ledger.write_intake("d", "r", Intake(objects=1, events=1))
    ledger.write_plan("d", "r", plan)
    statement = make_statement(ledger, store, attempt, None, [], NOW)
    assert len(statement.lines) == 1
    lines = render(statement).splitlines()
    plain = _plan([_file("plain.mp4")], event=backup_event(manifestLocation=signed("m.json"), roomName="plain"))
    ledger.write_plan("d", "r", plain)
    assert len(lines) == len(render(make_statement(ledger, store, attempt, None, [], NOW)).splitlines())
    for line in lines:
        assert line.isprintable()
        assert not line.strip().startswith(("=", "+", "-", "@", "<", "::"))


def test_the_report_is_stored_as_text_that_no_browser_takes_for_html():
    store = MemoryStore()
    ledger = RunBench().ledger.__class__(store, "s3://b/out/_l")
    ledger.write_intake("d", "r", Intake())
    statement = make_statement(ledger, store, Attempt(dag_id="d", run_id="r"), None, [], NOW)
    uri = ledger.write_statement(statement, render(statement))
    assert store.content_types[uri] == "text/plain; charset=utf-8"
    assert store.content_types[uri.replace(".txt", ".json")] == "application/json"


def test_a_label_is_one_line_of_what_prints():
    for spell in SPELLS:
        plan = _plan([_file(f"{spell}.mp4")], event=backup_event(manifestLocation=signed("m.json"), roomName=spell))
        label = plan.files[0].label
        assert label.isprintable()
        assert len(label) <= 250
        # Airflow's UI shows it as text: it is not escaped twice here.
        assert html.unescape(label) == label


# --- answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "-1", "1e999", "nan", "Mon, 1 Jan 2024 00:00:00 +99999999999999", "Mon, 1 Jan 0001 00:00:00 GMT",
     "Mon, " + "9" * 400 + " Jan 2024 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "((((", "", "\u0663"],
)  # fmt: skip
def test_no_retry_after_breaks_anything(value):
    error = error_for_answer(Location(LINK), 503, {"Retry-After": value}, b"", NOW)
    assert error.retry_after is None or error.retry_after >= 0
