"""What OpenLineage is told: with its own classes where they are installed, and with stand-ins everywhere."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from livekit_backup.hooks.lineage import MAX_DATASETS, lineage_of
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.references import FileKind
from livekit_backup.operators.recover_files import VerifyAndLandOperator

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def _recorder(*names):
    """A class that keeps its arguments; positional ones under these names."""

    def make(*args, **kwargs):
        return SimpleNamespace(**dict(zip(names, args, strict=False)), **kwargs)

    return make


STAND_INS = {
    "airflow.providers.openlineage.extractors": {"OperatorLineage": _recorder()},
    "openlineage.client.event_v2": {"InputDataset": _recorder(), "OutputDataset": _recorder()},
    "openlineage.client.facet_v2": {
        "dataset_version_dataset": SimpleNamespace(DatasetVersionDatasetFacet=_recorder("datasetVersion")),
        "output_statistics_output_dataset": SimpleNamespace(OutputStatisticsOutputDatasetFacet=_recorder()),
        "tags_dataset": SimpleNamespace(
            TagsDatasetFacet=_recorder("tags"), TagsDatasetFacetFields=_recorder("key", "value", "source")
        ),
    },
}


@pytest.fixture(params=["real", "stand-in"], autouse=True)
def openlineage(request, monkeypatch):
    if request.param == "real":
        pytest.importorskip("openlineage.client")
        pytest.importorskip("airflow.providers.openlineage")
        return
    for name, content in STAND_INS.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent = name.rpartition(".")[0]
        if find_spec("openlineage") is None:
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))


def _entry(number=1, egress_id="EG_1", **changes):
    values = {
        "egress_id": egress_id,
        "run": 1,
        "filename": f"hls/{number}.ts",
        "kind": FileKind.SEGMENT,
        "room_name": "Standup",
        "started": NOW,
        "outcome": Outcome.LANDED,
        "landed_uri": f"s3://acme/r/{egress_id}/hls/{number}.ts",
        "size": 10,
        "sha256": f"{number:064x}",
        "recorded_at": NOW,
    }
    return LedgerEntry(**{**values, **changes})


def _tags(dataset):
    return {tag.key: tag.value for tag in dataset.facets["tags"].tags}


def test_an_egress_goes_in_and_its_object_comes_out():
    lineage = lineage_of([_entry()])
    [source], [target] = lineage.inputs, lineage.outputs
    assert (source.namespace, source.name) == ("x-livekit", "egress/EG_1")
    assert (target.namespace, target.name) == ("s3://acme", "r/EG_1/hls/1.ts")
    assert target.facets["version"].datasetVersion == f"{1:064x}"
    assert _tags(target) == {"egress_id": "EG_1", "room_name": "Standup", "kind": "segment"}
    told = target.outputFacets["outputStatistics"]
    assert (told.size, told.fileCount) == (10, 1)


def test_what_has_no_digest_or_room_says_so_by_silence():
    [target] = lineage_of([_entry(sha256="", room_name="", size=None)]).outputs
    assert "version" not in target.facets
    assert "room_name" not in _tags(target)
    assert target.outputFacets["outputStatistics"].size == 0


@pytest.mark.parametrize("outcome", Outcome)
def test_only_what_is_in_the_warehouse_is_told(outcome):
    lineage = lineage_of([_entry(outcome=outcome)])
    assert [len(lineage.inputs), len(lineage.outputs)] == ([1, 1] if outcome in IN_WAREHOUSE else [0, 0])


def test_of_a_large_bundle_each_egresses_folder_is_told():
    entries = [_entry(number, egress_id) for egress_id in ("EG_1", "EG_2") for number in range(MAX_DATASETS)]
    lineage = lineage_of(entries)
    assert [source.name for source in lineage.inputs] == ["egress/EG_1", "egress/EG_2"]
    assert [(target.name, _tags(target)["egress_id"]) for target in lineage.outputs] == [
        ("r/EG_1/hls/", "EG_1"),
        ("r/EG_2/hls/", "EG_2"),
    ]
    told = lineage.outputs[0].outputFacets["outputStatistics"]
    assert (told.size, told.fileCount) == (10 * MAX_DATASETS, MAX_DATASETS)


def test_an_event_stays_bounded_with_many_egresses():
    lineage = lineage_of(_entry(1, f"EG_{number}") for number in range(1000))
    assert len(lineage.inputs) == len(lineage.outputs) == MAX_DATASETS


def test_the_landing_task_tells_what_it_landed():
    task = VerifyAndLandOperator(task_id="t", bundle="b")
    assert task.get_openlineage_facets_on_complete(None).outputs == []
    task.landed = [_entry()]
    assert [target.name for target in task.get_openlineage_facets_on_complete(None).outputs] == ["r/EG_1/hls/1.ts"]


def test_airflows_listener_finds_it_and_can_send_it(request):
    if "real" not in request.node.callspec.id:
        pytest.skip("needs the provider itself")
    from airflow.providers.openlineage.extractors.base import DefaultExtractor
    from openlineage.client.serde import Serde

    task = VerifyAndLandOperator(task_id="t", bundle="b")
    task.landed = [_entry()]
    found = DefaultExtractor(task).extract_on_complete(None)
    [sent] = json.loads(json.dumps([Serde.to_dict(target) for target in found.outputs]))
    assert sent["outputFacets"]["outputStatistics"]["size"] == 10
    assert "?" not in json.dumps([sent["namespace"], sent["name"], _tags(found.outputs[0])])
