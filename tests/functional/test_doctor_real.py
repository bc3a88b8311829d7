"""``doctor`` on set-ups that are broken in one way each: it names the fault and its mend, and all else stays fine."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.commands.airflow_checks import RECONCILE_DAG, RECOVERY_DAG
from livekit_backup.commands.doctor import examine_setup
from livekit_backup.models.finding import Finding, Verdict
from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.s3_endpoint import free_port

from .altering_s3_proxy import AlteringS3Proxy

SECTION = "AIRFLOW__LIVEKIT_BACKUP__"
API_KEYS = {"APIdoctor": "a-secret-of-the-fake-livekit-that-is-long-enough"}


class SetUp:
    """A set-up in which all is well, until a test breaks it."""

    def __init__(self, s3: EmbeddedS3, livekit: FakeLiveKit, patch: pytest.MonkeyPatch) -> None:
        self.s3, self.livekit, self.patch = s3, livekit, patch
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        s3.client().create_bucket(Bucket=self.bucket)
        self.place = livekit.base_url.removeprefix("http://")
        self.set("INBOX", f"s3://{self.bucket}/inbox")
        self.set("WAREHOUSE", f"s3://{self.bucket}/warehouse")
        self.set("ALLOWED_HOSTS", f"*.amazonaws.com, {self.place}")
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3.airflow_connection())
        patch.setenv("AIRFLOW_CONN_LIVEKIT_DEFAULT", livekit.airflow_connection())
        put_dags()
        self.store_backup()

    def set(self, key: str, value: str) -> None:
        self.patch.setenv(f"{SECTION}{key}", value)

    def store_backup(self) -> None:
        """A backup whose links lead to the fake LiveKit is in the inbox since just now."""

        def put(key: str, body: bytes) -> None:
            self.s3.client().put_object(Bucket=self.bucket, Key=f"inbox/{key}", Body=body)

        recording = self.livekit.record_file("egress/standup.mp4", size=1000)
        self.livekit.store_event(put, recording.event(), when=datetime.now(UTC))

    def connect(self, conn_id: str, base: str, **changes: Any) -> None:
        """Set a connection, with these fields and fields of the extra changed."""
        connection = json.loads(base)
        extra = connection.get("extra", {}) | changes.pop("extra", {})
        self.patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**connection, **changes, "extra": extra}))

    def connect_s3(self, conn_id: str = "aws_default", **changes: Any) -> None:
        self.connect(conn_id, self.s3.airflow_connection(), **changes)

    def connect_livekit(self, **changes: Any) -> None:
        self.connect("livekit_default", self.livekit.airflow_connection(), **changes)

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.s3.client().list_objects_v2(Bucket=self.bucket).get("Contents", ())]


@pytest.fixture(scope="session")
def database() -> None:
    """Airflow's own database, as ``airflow db migrate`` makes it, with live components."""
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initdb()
        from airflow.models.dagbundle import DagBundleModel

        with create_session() as session:
            session.merge(DagBundleModel(name="doctors-dags"))


def put_dags(*, paused: tuple[str, ...] = (), absent: tuple[str, ...] = (), dead: tuple[str, ...] = ()) -> None:
    """Write what Airflow would have in its database by now."""
    from airflow.jobs.job import Job
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        for dag_id in (RECOVERY_DAG, RECONCILE_DAG):
            model = DagModel(
                dag_id=dag_id, bundle_name="doctors-dags", is_paused=dag_id in paused, is_stale=dag_id in absent
            )
            session.merge(model)
        session.execute(delete(Job))
        for kind in ("SchedulerJob", "TriggererJob", "DagProcessorJob"):
            if kind not in dead:
                session.add(Job(job_type=kind, state="running"))


@pytest.fixture
def livekit() -> Iterator[FakeLiveKit]:
    with FakeLiveKit(api_keys=API_KEYS) as fake:
        yield fake


@pytest.fixture
def set_up(database: None, s3_server: EmbeddedS3, livekit: FakeLiveKit, monkeypatch: pytest.MonkeyPatch) -> SetUp:
    return SetUp(s3_server, livekit, monkeypatch)


@pytest.fixture
def proxy(s3_server: EmbeddedS3) -> Iterator[AlteringS3Proxy]:
    with AlteringS3Proxy(s3_server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def healthy(database: None, s3_server: EmbeddedS3) -> dict[str, Verdict]:
    """What each check says of a set-up in which all is well."""
    with pytest.MonkeyPatch.context() as patch, FakeLiveKit(api_keys=API_KEYS) as livekit:
        SetUp(s3_server, livekit, patch)
        return worst(examine_setup())


def worst(findings: list[Finding]) -> dict[str, Verdict]:
    """Each check's most serious verdict."""
    order = [Verdict.OK, Verdict.NOTE, Verdict.WARNING, Verdict.NOT_CHECKED, Verdict.BROKEN]
    found: dict[str, Verdict] = {}
    for finding in findings:
        found[finding.check] = max(found.get(finding.check, Verdict.OK), finding.verdict, key=order.index)
    return found


class Diagnosis:
    """What a broken set-up's findings say beyond those of a healthy one."""

    def __init__(self, healthy: dict[str, Verdict], **arguments: Any) -> None:
        self.findings = examine_setup(**arguments)
        self.changed = {
            check: verdict
            for check, verdict in worst(self.findings).items()
            if healthy.get(check, Verdict.OK) != verdict
        }

    @property
    def broken(self) -> set[str]:
        return {check for check, verdict in self.changed.items() if verdict is Verdict.BROKEN}

    @property
    def not_checked(self) -> set[str]:
        return {check for check, verdict in self.changed.items() if verdict is Verdict.NOT_CHECKED}

    def fault(self, check: str) -> Finding:
        """The one broken thing that a check found."""
        (found,) = [finding for finding in self.findings if (finding.check, finding.verdict) == (check, Verdict.BROKEN)]
        return found


POOL = "livekit backup"
INBOX = {"inbox", "inbox rights", "inbox layout", "hosts of backups"}
WAREHOUSE = {"warehouse", "upload options", "warehouse rights", "warehouse store", "warehouse lifecycle", "ledger"}


def test_a_healthy_set_up_has_nothing_to_mend(healthy: dict[str, Verdict]) -> None:
    assert {
        verdict for check, verdict in healthy.items() if check not in ("warehouse lifecycle", "backup storage")
    } == {Verdict.OK}
    assert healthy["backup storage"] is Verdict.NOTE


def test_nothing_is_left_behind(set_up: SetUp) -> None:
    before = set_up.keys()
    examine_setup()
    assert set_up.keys() == before
    assert "Uploads" not in set_up.s3.client().list_multipart_uploads(Bucket=set_up.bucket)


def test_1_the_inbox_is_not_set(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.patch.delenv(f"{SECTION}INBOX")
    found = Diagnosis(healthy)
    assert found.broken == {"settings"}
    assert found.not_checked == INBOX | {"inbox connection"}
    assert found.fault("settings").what == "inbox is not set"
    assert "AIRFLOW__LIVEKIT_BACKUP__INBOX=s3://bucket/prefix" in found.fault("settings").mend


def test_2_the_warehouses_bucket_is_missing(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.set("WAREHOUSE", "s3://nobody-made-this/warehouse")
    found = Diagnosis(healthy)
    assert found.broken == {"warehouse"}
    assert found.not_checked == WAREHOUSE - {"warehouse"}
    assert "the bucket nobody-made-this does not exist" in found.fault("warehouse").what
    assert "aws s3 mb s3://nobody-made-this" in found.fault("warehouse").mend
    assert "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE" in found.fault("warehouse").mend


def test_3_the_secret_of_the_inboxs_keys_is_wrong(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.set("INBOX_CONN_ID", "aws_events")
    set_up.connect_s3("aws_events", password="not-the-secret")
    found = Diagnosis(healthy)
    assert found.broken == {"inbox"}
    assert found.not_checked == INBOX - {"inbox"}
    assert "does not accept the secret key" in found.fault("inbox").what
    assert "the connection aws_events (password)" in found.fault("inbox").mend


def test_4_the_s3_endpoint_is_down(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    port = free_port()
    set_up.set("WAREHOUSE_CONN_ID", "aws_down")
    set_up.connect_s3("aws_down", extra={"endpoint_url": f"http://127.0.0.1:{port}"})
    found = Diagnosis(healthy)
    assert found.broken == {"warehouse"}
    assert found.not_checked == WAREHOUSE - {"warehouse"}
    assert f"http://127.0.0.1:{port}" in found.fault("warehouse").what
    assert "endpoint_url in the extra of the connection aws_down" in found.fault("warehouse").mend


def test_5_the_right_to_write_into_the_warehouse_is_missing(
    set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy
) -> None:
    set_up.set("WAREHOUSE_CONN_ID", "aws_guest")
    set_up.connect_s3("aws_guest", extra={"endpoint_url": proxy.endpoint_url})
    proxy.refusal = lambda method, path, headers: (403, "AccessDenied") if method in ("PUT", "POST") else None
    found = Diagnosis(healthy)
    assert found.broken == {"warehouse rights", "ledger"}
    assert found.not_checked == {"warehouse store"}
    assert "the right s3:PutObject is missing" in found.fault("warehouse rights").what
    statement = json.loads(found.fault("warehouse rights").mend.removeprefix("allow it: "))
    assert statement == {
        "Effect": "Allow",
        "Action": ["s3:PutObject"],
        "Resource": f"arn:aws:s3:::{set_up.bucket}/warehouse/*",
    }


@pytest.mark.parametrize(
    ("action", "method", "mark"),
    [
        ("s3:ListBucketMultipartUploads", "GET", "?uploads"),
        ("s3:ListMultipartUploadParts", "GET", "uploadId="),
        ("s3:AbortMultipartUpload", "DELETE", "uploadId="),
    ],
)
def test_each_right_of_an_upload_is_named(
    set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy, action: str, method: str, mark: str
) -> None:
    set_up.set("WAREHOUSE_CONN_ID", "aws_guest")
    set_up.connect_s3("aws_guest", extra={"endpoint_url": proxy.endpoint_url})
    proxy.refusal = lambda verb, path, headers: (403, "AccessDenied") if verb == method and mark in path else None
    found = Diagnosis(healthy)
    assert found.broken == {"warehouse rights"}
    assert any(action in finding.what and action in finding.mend for finding in found.findings)


def test_6_the_livekit_connection_is_missing(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.patch.delenv("AIRFLOW_CONN_LIVEKIT_DEFAULT")
    found = Diagnosis(healthy)
    assert found.broken == {"LiveKit connection"}
    assert found.not_checked == {"LiveKit", "webhook keys"}
    assert found.fault("LiveKit connection").what == "the Airflow connection livekit_default is missing"
    assert "airflow connections add livekit_default --conn-type livekit" in found.fault("LiveKit connection").mend


def test_7_livekits_secret_is_wrong(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.connect_livekit(password="another-secret-that-is-long-enough-as-well")
    found = Diagnosis(healthy)
    assert found.broken == {"LiveKit"} and found.not_checked == set()
    assert "answered 401" in found.fault("LiveKit").what
    assert "into the connection livekit_default" in found.fault("LiveKit").mend


def test_8_livekits_host_is_wrong(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.connect_livekit(host="https://acme.livekit.invalid")
    found = Diagnosis(healthy)
    assert found.broken == {"LiveKit"} and found.not_checked == set()
    assert found.fault("LiveKit").what == "LiveKit's host 'acme.livekit.invalid' does not resolve"
    assert "host of the connection livekit_default" in found.fault("LiveKit").mend


def test_8_nothing_listens_at_livekits_host(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.connect_livekit(host=f"http://127.0.0.1:{free_port()}")
    found = Diagnosis(healthy)
    assert found.broken == {"LiveKit"} and found.not_checked == set()
    assert "did not answer" in found.fault("LiveKit").what
    assert "host of the connection livekit_default" in found.fault("LiveKit").mend


def test_9_livekits_clock_is_another(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    with FakeLiveKit(api_keys=API_KEYS, clock=lambda: datetime.now(UTC) - timedelta(minutes=5)) as slow:
        set_up.patch.setenv("AIRFLOW_CONN_LIVEKIT_DEFAULT", slow.airflow_connection())
        found = Diagnosis(healthy)
    assert found.broken == {"clocks"} and found.not_checked == set()
    assert f"the clock of {slow.base_url} is 5 minutes behind this machine's" in found.fault("clocks").what


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
def test_9_the_clocks_differ(
    set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy, ahead: timedelta
) -> None:
    set_up.connect_s3(extra={"endpoint_url": proxy.endpoint_url})
    proxy.clock_ahead = ahead
    found = Diagnosis(healthy)
    assert found.broken == {"clocks"} and found.not_checked == set()
    way = "ahead of" if ahead > timedelta(0) else "behind"
    assert f"is 60 minutes {way} this machine's" in found.fault("clocks").what
    assert proxy.endpoint_url in found.fault("clocks").what
    assert "timedatectl set-ntp true" in found.fault("clocks").mend


def test_9_a_store_that_refuses_a_skewed_request_is_understood(
    set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy
) -> None:
    set_up.set("INBOX_CONN_ID", "aws_events")
    set_up.connect_s3("aws_events", extra={"endpoint_url": proxy.endpoint_url})
    proxy.refusal = lambda method, path, headers: (403, "RequestTimeTooSkewed")
    found = Diagnosis(healthy)
    assert "clock" in found.fault("inbox").what and "set-ntp" in found.fault("inbox").mend


def test_10_a_backups_host_is_not_allowed(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.set("ALLOWED_HOSTS", "*.amazonaws.com")
    found = Diagnosis(healthy)
    assert found.broken == {"hosts of backups"} and found.not_checked == set()
    fault = found.fault("hosts of backups")
    assert set_up.place in fault.what
    assert f"AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS=*.amazonaws.com,{set_up.place}" in fault.mend
    assert "X-Amz" not in repr(found.findings) and "standup" not in repr(found.findings)


@pytest.mark.parametrize("dag_id", [RECOVERY_DAG, RECONCILE_DAG])
def test_11_a_dag_is_paused_or_absent(set_up: SetUp, healthy: dict[str, Verdict], dag_id: str) -> None:
    put_dags(paused=(dag_id,))
    found = Diagnosis(healthy)
    assert found.broken == {f"DAG {dag_id}"} and found.not_checked == set()
    assert f"the DAG {dag_id} is paused" in found.fault(f"DAG {dag_id}").what
    assert found.fault(f"DAG {dag_id}").mend == f"airflow dags unpause {dag_id}"
    put_dags(absent=(dag_id,))
    found = Diagnosis(healthy)
    assert found.broken == {f"DAG {dag_id}"}
    assert f"copy dags/{dag_id}.py" in found.fault(f"DAG {dag_id}").mend


@pytest.mark.parametrize(
    ("job", "name"),
    [("SchedulerJob", "scheduler"), ("TriggererJob", "triggerer"), ("DagProcessorJob", "dag-processor")],
)
def test_11_a_component_is_dead(set_up: SetUp, healthy: dict[str, Verdict], job: str, name: str) -> None:
    put_dags(dead=(job,))
    found = Diagnosis(healthy)
    assert found.broken == {"Airflow"} and found.not_checked == set()
    assert found.fault("Airflow").mend == f"start it: airflow {name}"


@pytest.fixture
def no_pool(database: None) -> Iterator[None]:
    """Airflow's database without the pool of a test, before and after it."""
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    def drop() -> None:
        with create_session() as session:
            session.execute(delete(Pool).where(Pool.pool == POOL))

    drop()
    yield
    drop()


def slots_of_pool() -> int | None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    with create_session() as session:
        pool = Pool.get_pool(POOL, session=session)
        return pool and pool.slots


def set_slots(slots: int) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool(POOL, slots, "mine", include_deferred=False)


def test_the_configured_pool_is_missing_and_is_made_when_asked_for(
    set_up: SetUp, healthy: dict[str, Verdict], no_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__POOL", POOL)
    found = Diagnosis(healthy)
    assert found.broken == {"pool"} and found.not_checked == set()
    assert f"airflow pools set '{POOL}' 8 'LiveKit downloads'" in found.fault("pool").mend
    assert slots_of_pool() is None, "to look changes nothing"
    fixed = Diagnosis(healthy, may_fix=True)
    assert fixed.changed == {"pool": Verdict.NOTE}
    assert slots_of_pool() == 8
    assert Diagnosis(healthy).changed == {}


@pytest.mark.parametrize(("slots", "verdict"), [(0, Verdict.BROKEN), (-1, Verdict.WARNING), (1, Verdict.OK)])
def test_a_pool_that_is_there_is_left_as_it_is(
    set_up: SetUp,
    healthy: dict[str, Verdict],
    no_pool: None,
    monkeypatch: pytest.MonkeyPatch,
    slots: int,
    verdict: Verdict,
) -> None:
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__POOL", POOL)
    set_slots(slots)
    assert worst(Diagnosis(healthy, may_fix=True).findings)["pool"] is verdict
    assert slots_of_pool() == slots


def test_a_fix_makes_no_pool_that_nobody_named(set_up: SetUp, healthy: dict[str, Verdict], no_pool: None) -> None:
    from airflow.models.pool import Pool

    before = {pool.pool for pool in Pool.get_pools()}
    assert Diagnosis(healthy, may_fix=True).changed == {}
    assert {pool.pool for pool in Pool.get_pools()} == before


def test_12_a_connection_is_of_the_wrong_type(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.set("INBOX_CONN_ID", "livekit_default")
    set_up.connect_livekit(conn_type="http")
    found = Diagnosis(healthy)
    assert found.broken == {"inbox connection", "LiveKit connection"}
    assert found.not_checked == INBOX | {"LiveKit", "webhook keys"}
    assert "is of type 'http', not 'aws'" in found.fault("inbox connection").what
    assert "--conn-type aws" in found.fault("inbox connection").mend
    assert "is of type 'http', not 'livekit'" in found.fault("LiveKit connection").what
    assert "--conn-type livekit" in found.fault("LiveKit connection").mend


def test_13_an_upload_option_cannot_be_used(set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy) -> None:
    set_up.set("WAREHOUSE_CONN_ID", "aws_kms")
    set_up.connect_s3("aws_kms", extra={"endpoint_url": proxy.endpoint_url})
    options = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/gone", "Metadata": {"team": "video"}}
    set_up.set("UPLOAD_OPTIONS", json.dumps(options))
    header = "x-amz-server-side-encryption-aws-kms-key-id"
    proxy.refusal = lambda method, path, headers: (400, "KMS.NotFoundException") if header in headers else None
    found = Diagnosis(healthy)
    assert found.broken == {"upload options"} and found.not_checked == set()
    fault = found.fault("upload options")
    assert "ServerSideEncryption with SSEKMSKeyId" in fault.what and "Metadata" not in fault.what
    assert "SSEKMSKeyId in AIRFLOW__LIVEKIT_BACKUP__UPLOAD_OPTIONS" in fault.mend


def test_13_an_upload_option_is_not_one(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.set("UPLOAD_OPTIONS", '{"StorageClass": "CHEAP"}')
    found = Diagnosis(healthy)
    assert found.broken == {"settings"} and found.not_checked == {"upload options"}
    assert "upload_options.StorageClass" in found.fault("settings").what
    assert "AIRFLOW__LIVEKIT_BACKUP__UPLOAD_OPTIONS" in found.fault("settings").mend


def test_14_the_layout_is_not_the_receivers(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    set_up.set("INBOX_LAYOUT", "year=%Y/month=%m/day=%d/hour=%H/")
    found = Diagnosis(healthy)
    assert found.changed == {"inbox layout": Verdict.WARNING}
    (warning,) = [finding for finding in found.findings if finding.check == "inbox layout"]
    assert f"lies under s3://{set_up.bucket}/inbox/{datetime.now(UTC):%Y/%m/%d/}" in warning.what
    assert "AIRFLOW__LIVEKIT_BACKUP__INBOX_LAYOUT" in warning.mend


def test_15_the_inbox_cannot_be_written(set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy) -> None:
    set_up.set("INBOX_CONN_ID", "aws_reader")
    set_up.connect_s3("aws_reader", extra={"endpoint_url": proxy.endpoint_url})
    proxy.refusal = lambda method, path, headers: (403, "AccessDenied") if method == "PUT" else None
    found = Diagnosis(healthy)
    assert found.broken == {"inbox rights"} and found.not_checked == set()
    assert f'"Resource": "arn:aws:s3:::{set_up.bucket}/inbox/*"' in found.fault("inbox rights").mend


def test_the_right_to_delete_is_no_condition(
    set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy
) -> None:
    set_up.connect_s3(extra={"endpoint_url": proxy.endpoint_url})
    proxy.refusal = lambda method, path, headers: (
        (403, "AccessDenied") if method == "DELETE" and "uploadId" not in path else None
    )
    found = Diagnosis(healthy)
    assert found.broken == set() and found.not_checked == set()
    assert found.changed == {
        "inbox rights": Verdict.NOTE,
        "warehouse rights": Verdict.WARNING,
        "ledger": Verdict.NOTE,
    }


def test_the_primary_is_listed_and_read(set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy) -> None:
    set_up.set("PRIMARY_CONN_ID", "aws_primary")
    named = {"service_config": {"s3": {"bucket_name": set_up.bucket}}}
    set_up.connect_s3("aws_primary", extra={"endpoint_url": proxy.endpoint_url})
    assert Diagnosis(healthy).changed == {"primary": Verdict.WARNING}, "no bucket is named"
    set_up.connect_s3("aws_primary", extra={"endpoint_url": proxy.endpoint_url, **named})
    assert Diagnosis(healthy).changed == {}
    proxy.refusal = lambda method, path, headers: (
        (403, "AccessDenied") if method == "GET" and "list-type" not in path else None
    )
    assert "s3:GetObject" in Diagnosis(healthy).fault("primary").what


def test_what_is_copied_from_the_primary_needs_no_allowed_host(
    set_up: SetUp, healthy: dict[str, Verdict], proxy: AlteringS3Proxy
) -> None:
    """A plain location in the primary's store is fetched by its connection, as a recovery does."""
    event = set_up.livekit.record_file("own.mp4", size=1000).event(with_manifest=False)
    event["egressInfo"]["fileResults"][0]["location"] = f"{proxy.endpoint_url}/{set_up.bucket}/rec/own.mp4"
    event["egressInfo"].pop("file", None)
    key = f"inbox/{datetime.now(UTC):%Y/%m/%d/%H}/own.json"
    set_up.s3.client().put_object(Bucket=set_up.bucket, Key=key, Body=json.dumps(event).encode())
    assert proxy.endpoint_url.partition("://")[2] in Diagnosis(healthy).fault("hosts of backups").what
    set_up.set("PRIMARY_CONN_ID", "aws_primary")
    named = {"service_config": {"s3": {"bucket_name": set_up.bucket}}}
    set_up.connect_s3("aws_primary", extra={"endpoint_url": proxy.endpoint_url, **named})
    assert Diagnosis(healthy).changed == {}


def test_no_secret_is_shown_whatever_is_broken(set_up: SetUp, healthy: dict[str, Verdict]) -> None:
    marks = [f"MARK-OF-A-SECRET-{number}" for number in range(9)]
    set_up.set("INBOX_CONN_ID", "aws_events")
    set_up.connect_s3(
        "aws_events",
        password=marks[0],
        extra={"aws_session_token": marks[1], "endpoint_url": f"http://jo:{marks[2]}@127.0.0.1:{free_port()}"},
    )
    set_up.connect_s3(password=marks[3], extra={"assume_role_kwargs": {"ExternalId": marks[4]}})
    set_up.connect_livekit(password=marks[5] * 3, extra={"webhook_secrets": {"APIother": marks[6]}})
    set_up.patch.setenv("HTTPS_PROXY", f"socks5://jo:{marks[7]}@127.0.0.1:1")
    set_up.set("LEDGER", f"s3://key:{marks[8]}@ledger/there")
    found = Diagnosis(healthy)
    assert {"inbox", "warehouse", "proxies", "LiveKit"} <= found.broken
    shown = repr(found.findings)
    assert [mark for mark in marks if mark in shown] == []


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_itself(set_up: SetUp, tmp_path: Path, as_json: bool) -> None:
    """By Airflow's own entry point, with a connection from Airflow's database, and Airflow's default for the other."""
    import os

    environment = {name: value for name, value in os.environ.items() if name != "AIRFLOW_CONN_AWS_DEFAULT"}
    environment["AIRFLOW_HOME"] = str(tmp_path)
    environment["AIRFLOW__LIVEKIT_BACKUP__POOL"] = POOL
    if as_json:
        set_up.livekit.stop()

    def airflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env=environment, capture_output=True, text=True, timeout=100
        )

    assert airflow("db", "migrate").returncode == 0
    added = airflow("connections", "add", "aws_default", "--conn-json", set_up.s3.airflow_connection())
    assert added.returncode == 0, added.stderr
    done = airflow("livekit-backup", "doctor", "--json" if as_json else "--fix")
    assert done.returncode == 1, "there is no scheduler, and no DAG"
    assert set_up.s3.secret_key not in done.stdout + done.stderr
    if not as_json:
        assert f"made the pool {POOL} with 8 slots" in done.stdout
        assert "ok           warehouse" in done.stdout and "BROKEN       Airflow" in done.stdout
        assert "mend: start it: airflow scheduler" in done.stdout and "\033[" not in done.stdout
        return
    report = json.loads(done.stdout)
    assert report["ok"] is False and report["counts"]["broken"] >= 4
    verdicts = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    assert verdicts["inbox"] == verdicts["warehouse rights"] == "ok"
    assert verdicts["LiveKit"] == "broken"
