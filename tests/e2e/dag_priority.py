"""Tasks that only show in which order they ran."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG(
    "priority",
    schedule=None,
    is_paused_upon_creation=False,
    default_args={"weight_rule": "livekit_backup.operators.deadline_weight.NearestDeadlineWeight", "pool": "one_slot"},
):

    @task(pool="default_pool")
    def plan() -> list[int]:
        """Give two."""
        return [1, 2]

    @task
    def work(number: int) -> int:
        """Take the pool's only slot for a moment."""
        return number

    work.expand(number=plan())
