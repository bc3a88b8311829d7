"""What Airflow loads when this folder is mounted as its plugins folder.

When the distribution is installed as well, Airflow finds the plugin through its entry
point. Offering it here too would make the task SDK drop all remaining entry-point
plugins, so then this file offers nothing: the installed distribution wins.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

try:
    distribution("airflow-provider-livekit-backup")
except PackageNotFoundError:
    from livekit_backup.plugin import LivekitBackupPlugin  # noqa: F401
