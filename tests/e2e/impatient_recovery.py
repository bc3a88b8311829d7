"""The shipped recovery DAG with many quick retries: a kill campaign has no half minute to wait for each."""

from __future__ import annotations

import os
import runpy
from datetime import timedelta
from typing import Any

import airflow.sdk
from airflow.sdk import DAG, ExceptionRetryPolicy, RetryAction, RetryRule

from livekit_backup.errors import RetryableError

SECOND = timedelta(seconds=1)
IMPATIENT = {
    "retries": 20,
    "retry_delay": SECOND,
    "retry_exponential_backoff": 0,
    "max_retry_delay": SECOND,
    "retry_policy": ExceptionRetryPolicy([RetryRule(RetryableError, RetryAction.RETRY, retry_delay=SECOND)]),
}


def impatient(*args: Any, **options: Any) -> DAG:
    return DAG(*args, **{**options, "default_args": {**options.get("default_args", {}), **IMPATIENT}})


airflow.sdk.DAG = impatient  # type: ignore[misc,assignment]
try:
    dag = runpy.run_path(os.environ["SHIPPED_DAG"])["dag"]
finally:
    airflow.sdk.DAG = DAG  # type: ignore[misc]
