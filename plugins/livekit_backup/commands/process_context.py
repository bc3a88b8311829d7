"""What a command has to say to Airflow before it uses connections."""

from __future__ import annotations

import os

import airflow.models.connection  # noqa: F401 - without any model there is nothing to configure
from sqlalchemy.orm import configure_mappers


def use_connections_of_database() -> None:
    """Let hooks find connections in Airflow's database too, as ``airflow connections get`` does.

    Else a process that is neither a task nor a component looks for them in the environment and in secrets
    backends alone.
    """
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    # SQLAlchemy does so on the first query, under a lock, and Airflow imports all its models then: two threads that
    # both begin with one would wait for each other for ever.
    configure_mappers()
