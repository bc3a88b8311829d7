"""What Airflow loads as a plugin, from the entry point or from the mounted folder."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class LivekitBackupPlugin(AirflowPlugin):
    """Makes the package known to Airflow; operators, sensor and trigger are imported from their modules."""

    name = "livekit_backup"
