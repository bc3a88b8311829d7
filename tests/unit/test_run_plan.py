"""The plan of a whole run, with a store in memory and no network."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core import run_plan
from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.locations import Location
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.core.run_plan import account_for, plan_run
from livekit_backup.errors import LinkExpiredError, RefusedError, SourceUnavailableError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.settings import Settings
from unit.fakes import MemoryStore, egress_ended, signed

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ATTEMPT = Attempt(dag_id="d", run_id="r")


@pytest.fixture(autouse=True)
def _no_dns(monkeypatch):
    monkeypatch.setattr(run_plan, "system_resolver", lambda host, port: ["52.218.1.1"])


class Bench:
    def __init__(self, *events):
        self.store = MemoryStore()
        for number, event in enumerate(events):
            self.store.put(f"s3://b/in/{number:03}", json.dumps(event).encode())
        self.ledger = Ledger(self.store, "s3://b/out/_l")
        self.settings = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l")
        self.manifests = {}

    def fetch(self, location):
        answer = self.manifests[location.path]
        if isinstance(answer, Exception):
            raise answer
        return Manifest.model_validate(answer)

    def refs(self):
        reader = IntakeReader()
        reader.read(self.store, self.store.list_keys("s3://b/in/"))
        return reader.result().backups

    def landed(self, file):
        self.store.put(file.landing_uri, b"recording")
        head = self.store.head(file.landing_uri)
        landed = {"landed_uri": file.landing_uri, "size": head.size, "etag": head.etag}
        self.ledger.record(entry_for(file, Outcome.LANDED, "", ATTEMPT).model_copy(update=landed))

    def plan(self, refs=None, most=100, now=NOW):
        return plan_run(
            self.refs() if refs is None else refs,
            inbox=self.store,
            ledger=self.ledger,
            settings=self.settings,
            fetch=self.fetch,
            most=most,
            now=now,
        )


def _event(egress_id, *names, **info):
    results = [{"filename": name, "size": "5", "location": signed(f"{egress_id}/{name}")} for name in names]
    return egress_ended(egress_id, backupStorageUsed=True, fileResults=results, **info)


def test_every_file_of_every_backup():
    plan = Bench(_event("EG_1", "a", "b"), _event("EG_2", "c")).plan()
    assert [(file.egress_id, file.filename) for file in plan.to_recover] == [
        ("EG_1", "a"),
        ("EG_1", "b"),
        ("EG_2", "c"),
    ]
    assert plan.accounted == ()


def test_a_host_that_is_not_allowed_is_refused():
    bench = Bench(_event("EG_1", "a"))
    bench.settings = bench.settings.model_copy(update={"allowed_hosts": ("storage.googleapis.com",)})
    assert [known.outcome for known in bench.plan().accounted] == [Outcome.REFUSED]


def test_a_backup_whose_event_vanished_stops_no_other():
    bench = Bench(_event("EG_1", "a"), _event("EG_2", "b"))
    refs = bench.refs()
    bench.store.delete("s3://b/in/000")
    plan = bench.plan(refs)
    assert [file.egress_id for file in plan.to_recover] == ["EG_2"]
    [known] = plan.accounted
    assert (known.file.egress_id, known.file.filename, known.outcome) == (
        "EG_1",
        "(all files)",
        Outcome.UNRESOLVED,
    )


@pytest.mark.parametrize(
    "location", [f"https://{'a' * 64}.amazonaws.com/k?Signature=s", "https://b.s3.amazonaws.com/k?Expires=253402300799&Signature=s"]
)  # fmt: skip
def test_one_odd_link_stops_no_other(location, monkeypatch):
    # As getaddrinfo does, before it asks anybody.
    monkeypatch.setattr(run_plan, "system_resolver", lambda host, port: [host.encode("idna") and "52.218.1.1"])
    odd = egress_ended("EG_1", backupStorageUsed=True, fileResults=[{"filename": "a", "location": location}])
    bench = Bench(odd)
    try:
        plan = bench.plan()
    except (UnicodeError, OverflowError) as error:
        pytest.fail(f"{error!r}")
    assert len(plan.to_recover) + len(plan.accounted) == 1


def test_what_needs_no_download_is_written_down_but_never_over_a_landing():
    bench = Bench(_event("EG_1", "a", "b"))
    late = NOW + timedelta(days=30)
    plan = bench.plan(now=late)
    assert [known.outcome for known in plan.accounted] == [Outcome.EXPIRED] * 2
    first = plan.accounted[0].file
    bench.store.put("s3://b/w/x", b"recording")
    landed = {"landed_uri": "s3://b/w/x", "size": 9, "etag": bench.store.head("s3://b/w/x").etag}
    bench.ledger.record(entry_for(first, Outcome.LANDED, "", ATTEMPT).model_copy(update=landed))
    account_for(plan, bench.ledger, ATTEMPT)
    assert [bench.ledger.read(known.file).outcome for known in plan.accounted] == [Outcome.LANDED, Outcome.EXPIRED]


def test_names_an_earlier_run_knew_replace_those_of_a_dead_manifest():
    bench = Bench(egress_ended("EG_1", backupStorageUsed=True, manifestLocation=signed("m"),
                               imageResults=[{"filenamePrefix": "t", "imageCount": "2"}]))  # fmt: skip
    images = [{"filename": name, "location": signed(name)} for name in ("t1.jpeg", "t2.jpeg")]
    bench.manifests["/m"] = {"egress_id": "EG_1", "images": images}
    first, second = bench.plan().to_recover
    bench.landed(first)
    bench.ledger.record(entry_for(second, Outcome.FAILED, "busy", ATTEMPT))
    bench.manifests["/m"] = LinkExpiredError("dead")
    plan = bench.plan()
    assert {known.file.filename: known.outcome for known in plan.accounted} == {
        "t1.jpeg": Outcome.ALREADY_LANDED,
        "t2.jpeg": Outcome.EXPIRED,
    }


def test_what_a_killed_run_has_done_is_no_list_of_all_there_is():
    bench = Bench(egress_ended("EG_1", backupStorageUsed=True, manifestLocation=signed("m"),
                               imageResults=[{"filenamePrefix": "t", "imageCount": "2"}]))  # fmt: skip
    bench.manifests["/m"] = {"egress_id": "EG_1", "images": [{"filename": "t1.jpeg", "location": signed("t1.jpeg")}]}
    [first] = bench.plan().to_recover
    bench.landed(first)
    bench.manifests["/m"] = LinkExpiredError("dead")
    assert sorted(known.file.filename for known in bench.plan().accounted) == ["(1 of 2 images)", "t1.jpeg"]
    bench.manifests["/m"] = SourceUnavailableError("busy")
    assert [known.file.filename for known in bench.plan().accounted] == ["(2 images of t)"]


def test_what_the_event_names_is_the_list_until_a_manifest_is_read():
    bench = Bench(_event("EG_1", "a.mp4", "b.mp4", manifestLocation=signed("m.json")))
    [ref] = bench.refs()

    def listed():
        return [file.filename for file in bench.ledger.read_files(ref.egress_id, ref.run)]

    bench.manifests["/m.json"] = LinkExpiredError("dead")
    bench.plan()
    assert listed() == ["a.mp4", "b.mp4"]
    whole = ["a.mp4", "b.mp4", "c.mp4"]
    bench.manifests["/m.json"] = {"files": [{"filename": name, "location": signed(f"EG_1/{name}")} for name in whole]}
    bench.plan()
    bench.manifests["/m.json"] = SourceUnavailableError("503")
    bench.plan()
    assert listed() == whole


def test_over_the_limit_landed_files_make_room():
    bench = Bench(_event("EG_1", "a", "b", "c"))
    for file in bench.plan().to_recover[:2]:
        bench.landed(file)
    plan = bench.plan(most=1)
    assert [file.filename for file in plan.to_recover] == ["c"]
    assert [known.outcome for known in plan.accounted] == [Outcome.ALREADY_LANDED] * 2
    assert [file.filename for file in bench.plan(most=3).to_recover] == ["a", "b", "c"]


def test_a_compressed_object_is_read_once_for_many_backups(monkeypatch):
    monkeypatch.setattr(run_plan, "BATCH", 50)
    bench = Bench()
    events = [_event(f"EG_{number}", "a") for number in range(100)]
    bench.store.put("s3://b/in/all", gzip.compress(b"".join(json.dumps(event).encode() + b"\n" for event in events)))
    refs = bench.refs()
    opened = []
    whole = bench.store.open
    monkeypatch.setattr(bench.store, "open", lambda uri, *at: opened.append(uri) or whole(uri, *at))
    plan = bench.plan(refs)
    assert {file.egress_id for file in plan.to_recover} == {ref.egress_id for ref in refs}
    assert opened.count("s3://b/in/all") == 2


def test_a_window_of_dead_links_asks_nobody(monkeypatch):
    dead = signed("m", "20260101T000000Z")
    bench = Bench(
        *(_event(f"EG_{number}", "a", "b", manifestLocation=dead) for number in range(20)),
        egress_ended("EG_m", backupStorageUsed=True, manifestLocation=dead),
    )
    monkeypatch.setattr(run_plan, "system_resolver", lambda host, port: pytest.fail("looked up"))
    late = NOW + timedelta(days=30)
    with ManifestClient(bench.settings.allowed_hosts, resolver=lambda host, port: pytest.fail("looked up")) as client:
        bench.fetch = client.fetch
        plan = bench.plan(now=late)
    assert plan.to_recover == ()
    assert {known.outcome for known in plan.accounted} == {Outcome.EXPIRED}
    assert len(plan.accounted) == 41


def test_a_host_that_nobody_knows_is_looked_up_once(monkeypatch):
    asked = []

    def resolver(host, port):
        asked.append(host)
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(run_plan, "system_resolver", resolver)
    check = run_plan._location_check(Bench().settings)
    for _ in range(5):
        with pytest.raises(SourceUnavailableError, match="does not resolve: Temporary failure"):
            check(Location(signed("k")))
    assert len(asked) == 1


def test_nothing_to_do():
    assert Bench().plan().to_recover == ()


def test_behind_a_proxy_no_name_is_looked_up(monkeypatch):
    def resolver(host, port):
        pytest.fail("resolved")

    monkeypatch.setattr(run_plan, "system_resolver", resolver)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.acme:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    check = run_plan._location_check(Bench().settings)
    check(Location(signed("k")))
    with pytest.raises(RefusedError, match="not in allowed_hosts"):
        check(Location("https://10.0.0.5/k"))
