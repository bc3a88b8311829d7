"""OpenLineage's view of what landed. Needs the extra ``openlineage``; imported by its listener only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from livekit_backup.core.storage import split_uri
from livekit_backup.core.uri_folders import common_folder
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

MAX_DATASETS = 100
"""An event is one message to the lineage backend: of a larger bundle each egress's folder is told, not its files."""
EGRESS_NAMESPACE = "x-livekit"
"""LiveKit is not among OpenLineage's named systems."""
SOURCE = "LIVEKIT_BACKUP"


def lineage_of(entries: Iterable[LedgerEntry]) -> OperatorLineage:
    """Return egresses as inputs, and what landed of them as outputs: the bucket and the key of each object."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset

    landed = [entry for entry in entries if entry.outcome in IN_WAREHOUSE and entry.landed_uri]
    by_egress: dict[str, list[LedgerEntry]] = {}
    for entry in landed:
        by_egress.setdefault(entry.egress_id, []).append(entry)
    if len(landed) <= MAX_DATASETS:
        outputs = [_object(entry) for entry in landed]
    else:
        outputs = [_folder(files) for files in list(by_egress.values())[:MAX_DATASETS]]
    return OperatorLineage(
        inputs=[
            InputDataset(namespace=EGRESS_NAMESPACE, name=f"egress/{egress_id}")
            for egress_id in list(by_egress)[:MAX_DATASETS]
        ],
        outputs=outputs,
    )


def _object(entry: LedgerEntry) -> Any:
    from openlineage.client.facet_v2 import dataset_version_dataset

    bucket, key = split_uri(entry.landed_uri)
    version = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(entry.sha256)} if entry.sha256 else {}
    return _dataset(bucket, key, [entry], {"kind": entry.kind.value}, version)


def _folder(entries: Sequence[LedgerEntry]) -> Any:
    return _dataset(*common_folder(entry.landed_uri for entry in entries), entries, {}, {})


def _dataset(
    bucket: str, name: str, entries: Sequence[LedgerEntry], tags: dict[str, str], facets: dict[str, Any]
) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset, tags_dataset

    tags = {"egress_id": entries[0].egress_id, "room_name": entries[0].room_name, **tags}
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        size=sum(entry.size or 0 for entry in entries), fileCount=len(entries)
    )
    told = [tags_dataset.TagsDatasetFacetFields(key, value, SOURCE) for key, value in tags.items() if value]
    return OutputDataset(
        namespace=f"s3://{bucket}",
        name=name or "/",
        facets={"tags": tags_dataset.TagsDatasetFacet(told), **facets},
        outputFacets={"outputStatistics": statistics},
    )
