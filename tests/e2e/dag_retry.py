"""Tasks that fail as recoveries do, deep below the operator."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from livekit_backup.errors import LinkExpiredError, SourceUnavailableError
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors
from livekit_backup.operators.retry_policy import RecoveryRetryPolicy

ERRORS = {
    "final": LinkExpiredError("livekit.example/a.mp4: the link expired 2026-11-20 10:00 UTC"),
    "passing": SourceUnavailableError("livekit.example/a.mp4 answered 503", 1.0),
}


def deep_below(levels: int, kind: str) -> None:
    """Raise it where nobody wants to look."""
    if levels:
        deep_below(levels - 1, kind)
    raise ERRORS[kind] from ZeroDivisionError("what led to it")


class Fails(RecoveryOperator):
    """Fails."""

    def __init__(self, *, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def execute(self, context: Any) -> None:
        """Fail."""
        with airflow_errors():
            deep_below(30, self.kind)


with DAG(
    "retry",
    schedule=None,
    is_paused_upon_creation=False,
    default_args={"retries": 1, "retry_delay": timedelta(hours=1)},
):
    quick = RecoveryRetryPolicy(base_delay=timedelta(seconds=1))
    Fails.partial(task_id="mapped", retry_policy=quick).expand(kind=["final", "passing"])
    Fails(task_id="final", kind="final")
