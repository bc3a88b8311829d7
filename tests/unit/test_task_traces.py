"""What a task leaves for others beside its result: links, lineage and metrics."""

from __future__ import annotations

import pytest

from livekit_backup.errors import SourceUnavailableError
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.report import LANDED, ReportOperator
from unit.metrics_backend import Backend, use
from unit.test_operators import DATA, _file, _planned, bench, in_parts  # noqa: F401 - fixtures among them


@pytest.fixture
def backend(monkeypatch):
    return use(monkeypatch, Backend())


def _links(operator):
    return {link.name: link.get_link(operator, ti_key=None) for link in operator.operator_extra_links}


def test_the_landing_task_leads_to_its_object(bench, in_parts):  # noqa: F811
    [bundle] = _planned(bench)
    bench.run(DownloadFilesOperator, bundle=bundle)
    bench.store.place_name = lambda: "https://s3.eu-west-1.amazonaws.com:443"
    operator = VerifyAndLandOperator(task_id="t", bundle=bundle)
    operator.execute(bench.context())
    key = _file(bench, bundle).landing_uri.removeprefix("s3://b/")
    assert key.startswith("out/dt=")
    assert _links(operator) == {
        "Landed object": f"https://console.aws.amazon.com/s3/object/b?prefix={key.replace('=', '%3D')}",
    }
    assert [entry.landed_uri for entry in operator.landed] == [f"s3://b/{key}"]


def test_a_download_that_failed_still_leads_to_its_egress(bench):  # noqa: F811
    [bundle] = _planned(bench)
    bench.source.refusals = [SourceUnavailableError("livekit.example answered 503")] * 50
    operator = DownloadFilesOperator(task_id="t", bundle=bundle)
    with pytest.raises(SourceUnavailableError):
        operator.execute(bench.context())
    assert _links(operator) == {"Egress session": "https://cloud.livekit.io/projects/p_/egresses/EG_1"}


@pytest.mark.parametrize("way", ["small", "in parts"])
def test_a_run_sends_each_number_once(bench, backend, way, request):  # noqa: F811
    if way == "in parts":
        request.getfixturevalue("in_parts")
    [bundle] = _planned(bench)
    bench.run(DownloadFilesOperator, bundle=bundle)
    bench.run(VerifyAndLandOperator, bundle=bundle)
    assert backend.values("livekit_backup.download_bytes") == [len(DATA)]
    assert len(backend.values("livekit_backup.landing_age")) == 1
    assert backend.values("livekit_backup.files") == []
    bench.run(ReportOperator)
    assert backend.values("livekit_backup.files.landed") == [1]
    assert backend.values("livekit_backup.bytes.landed") == [len(DATA)]
    assert backend.values("livekit_backup.smallest_margin_hours") == [168.0]


def test_the_reports_event_says_where_all_of_it_is(bench):  # noqa: F811
    [bundle] = _planned(bench)
    bench.run(DownloadFilesOperator, bundle=bundle)
    bench.run(ReportOperator)
    [(_, extra)] = bench.outlet_events[LANDED].added
    assert b'"landed"' in bench.store.objects[extra["report"]]
    assert extra["bytes"] == len(DATA)
    assert extra["landed"][0]["key"] == extra["landed"][0]["uri"].removeprefix("s3://b/")
