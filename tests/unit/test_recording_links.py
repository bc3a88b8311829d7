"""Links of a task: where they lead, and that Airflow keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind
from livekit_backup.operators.recording_links import (
    EgressSessionLink,
    LandedObjectLink,
    egress_session_url,
    landed_object_url,
)
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator

NOW = datetime(2026, 11, 20, tzinfo=UTC)
AWS = "https://s3.eu-west-1.amazonaws.com:443"


def _entry(key, egress_id="EG_1"):
    return LedgerEntry(
        egress_id=egress_id,
        run=1,
        filename=key,
        kind=FileKind.FILE,
        started=NOW,
        outcome=Outcome.LANDED,
        landed_uri=f"s3://acme-recordings/{key}" if key else "",
        recorded_at=NOW,
    )


def test_one_object_is_opened_in_the_console():
    url = landed_object_url([_entry("dt=2026-11-20/EG_1/a.mp4")], AWS)
    assert url == "https://console.aws.amazon.com/s3/object/acme-recordings?prefix=dt%3D2026-11-20/EG_1/a.mp4"


@pytest.mark.parametrize("key", ["a b+c.mp4", "ü/день.mp4", "x&prefix=other", "50%/#1?.mp4", '"<script>'])
def test_any_key_survives_in_the_address(key):
    url = landed_object_url([_entry(key)], AWS)
    assert parse_qs(urlsplit(url).query) == {"prefix": [key]}
    assert not urlsplit(url).fragment
    assert url.isascii() and not set(' "<>') & set(url)


def test_of_several_objects_their_folder_is_opened():
    url = landed_object_url([_entry("hls/x/1.ts"), _entry("hls/x/2.ts")], AWS)
    assert url == "https://console.aws.amazon.com/s3/buckets/acme-recordings?prefix=hls/x/"


@pytest.mark.parametrize(
    ("place", "console"),
    [
        ("https://s3.amazonaws.com:443", "https://console.aws.amazon.com/"),
        ("https://vpce-1.s3.eu-west-1.vpce.amazonaws.com:443", "https://console.aws.amazon.com/"),
        ("https://s3.cn-north-1.amazonaws.com.cn:443", "https://console.amazonaws.cn/"),
        ("https://s3.us-gov-west-1.amazonaws.com:443", "https://console.amazonaws-us-gov.com/"),
        ("http://minio.acme.internal:9000", ""),
        ("https://amazonaws.com.evil.example:443", ""),
        ("https://evilamazonaws.com:443", ""),
        ("memory://", ""),
    ],
)
def test_only_aws_has_a_console(place, console):
    url = landed_object_url([_entry("a.mp4")], place)
    assert url.startswith(console) if console else url == ""


def test_where_nothing_landed_there_is_no_link():
    assert landed_object_url([], AWS) == landed_object_url([_entry("")], AWS) == ""


def test_an_egress_is_opened_in_the_dashboard():
    assert egress_session_url([_entry("a"), _entry("b")]) == "https://cloud.livekit.io/projects/p_/egresses/EG_1"


def test_an_egress_id_stays_one_part_of_the_address():
    assert egress_session_url([_entry("a", "../x?y")]).endswith("/egresses/..%2Fx%3Fy")


def test_of_several_egresses_the_list_is_opened():
    several = [_entry("a"), _entry("b", "EG_2")]
    assert egress_session_url(several) == "https://cloud.livekit.io/projects/p_/egresses"


def test_a_task_that_never_came_to_its_work_has_empty_links():
    download = DownloadFilesOperator(task_id="d", bundle="b")
    land = VerifyAndLandOperator(task_id="l", bundle="b")
    assert [link.get_link(download, ti_key=None) for link in download.operator_extra_links] == ["", ""]
    assert [link.get_link(land, ti_key=None) for link in land.operator_extra_links] == [""]


def test_a_links_address_is_what_the_task_has_found():
    land = VerifyAndLandOperator(task_id="l", bundle="b")
    download = DownloadFilesOperator(task_id="d", bundle="b")
    download.egress_session_url, land.landed_object_url = "https://egress", "https://object"
    assert EgressSessionLink().get_link(download, ti_key=None) == "https://egress"
    assert LandedObjectLink().get_link(land, ti_key=None) == "https://object"


def test_a_stored_dag_knows_where_its_links_are():
    dag = DagBag(Path(__file__).resolve().parents[2] / "dags").dags["livekit_backup_recovery"]
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    links = {
        task: {link.name: link.xcom_key for link in stored.get_task(f"recover_files.{task}").operator_extra_links}
        for task in ("download", "verify_and_land")
    }
    assert links == {
        "download": {"Egress session": "livekit_egress_session", "Landed object": "livekit_landed_object"},
        "verify_and_land": {"Landed object": "livekit_landed_object"},
    }


def test_the_provider_tells_of_both():
    from airflow.providers_manager import ProvidersManager

    ours = {name for name in ProvidersManager().extra_links_class_names if name.startswith("livekit_backup.")}
    assert ours == {f"{link.__module__}.{link.__name__}" for link in (EgressSessionLink, LandedObjectLink)}
