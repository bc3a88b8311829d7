"""A DAG of the recovery DAG's shape whose tasks do nothing: what Airflow itself takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, Context, task_group


class NothingOperator(BaseOperator):
    """Returns what it is told."""

    template_fields = ("bundle",)

    def __init__(self, *, bundle: str = "", result: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bundle = bundle
        self.result = result

    def execute(self, context: Context) -> Any:  # noqa: ARG002 - Airflow calls it so
        return self.result


class IdsOperator(BaseOperator):
    """Returns as many ids as the run's params say."""

    def execute(self, context: Context) -> list[str]:
        return [f"{number:016x}" for number in range(context["params"]["bundles"])]


COUNTS = {"files": 1, "landed": 1, "bytes": 1}

with DAG(
    dag_id="doing_nothing",
    schedule=None,
    params={"bundles": 1},
    default_args={"retries": 4, "retry_delay": timedelta(seconds=30)},
):
    wait = NothingOperator(task_id="wait_for_events")
    ingest = NothingOperator(task_id="ingest_events", result=COUNTS)
    resolve = IdsOperator(task_id="resolve_manifests")

    @task_group(group_id="recover_files")
    def recover_files(bundle: str) -> None:
        download = NothingOperator(task_id="download", bundle=bundle, result=COUNTS)
        download >> NothingOperator(task_id="verify_and_land", bundle=bundle, result=COUNTS)

    report = NothingOperator(task_id="report", trigger_rule="all_done", result=COUNTS)
    wait >> ingest >> resolve
    recover_files.expand(bundle=resolve.output) >> report
    report >> NothingOperator(task_id="all_safe", trigger_rule="all_done")
