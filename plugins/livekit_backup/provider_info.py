"""What Airflow's provider manager learns of this package: its configuration section and its connection type."""

from __future__ import annotations

from typing import Any

from livekit_backup import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider metadata in Airflow's schema."""
    return {
        "package-name": "airflow-provider-livekit-backup",
        "name": "LiveKit Backup",
        "description": "Recovers LiveKit Cloud's backup recordings into your own bucket.",
        "versions": [__version__],
        "config": {
            "livekit_backup": {
                "description": "Recovery of LiveKit Cloud's backup recordings.",
                "options": {key: _option(*option) for key, option in OPTIONS.items()},
            }
        },
        "connection-types": [CONNECTION],
        "extra-links": [
            "livekit_backup.operators.recording_links.EgressSessionLink",
            "livekit_backup.operators.recording_links.LandedObjectLink",
        ],
        "cli": ["livekit_backup.commands.definition.get_commands"],
    }


CONNECTION: dict[str, Any] = {
    "connection-type": "livekit",
    "hook-class-name": "livekit_backup.hooks.livekit.LiveKitHook",
    "hook-name": "LiveKit",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "port"],
        "relabeling": {"host": "LiveKit URL", "login": "API key", "password": "API secret"},
        "placeholders": {"host": "https://acme.livekit.cloud", "login": "APIxxxxxxxxxxxx"},
    },
    "conn-fields": {
        "webhook_secrets": {
            "label": "Further webhook keys",
            "description": 'Other API keys that sign webhooks, with their secrets, in JSON: {"APIkey": "its secret"}.',
            "schema": {"type": ["string", "null"], "format": "password"},
        }
    },
}
"""The form is made of this, so that no page of Airflow's has to import the hook."""

OPTIONS: dict[str, tuple[str, str | None, str]] = {
    "inbox": ("Where stored webhook events are: s3://bucket/prefix.", None, "s3://acme-events/livekit"),
    "inbox_layout": (
        "Prefix of an hour under the inbox, in UTC, as a strftime pattern; the default is a Kinesis Firehose's.",
        "%Y/%m/%d/%H/",
        "year=%Y/month=%m/day=%d/hour=%H/",
    ),
    "warehouse": ("Where recordings land: s3://bucket/prefix.", None, "s3://acme-recordings/recovered"),
    "landing_key": (
        "Key of a file under the warehouse: a format string. {filename} alone restores the key that was asked for.",
        "dt={started:%Y-%m-%d}/{egress_id}/{filename}",
        "{filename}",
    ),
    "ledger": (
        "Where outcomes and reports are kept: s3://bucket/prefix. Unless set, _livekit_backup under the warehouse.",
        None,
        "s3://acme-recordings/ledger",
    ),
    "aws_conn_id": ("Airflow connection for S3.", "aws_default", "aws_default"),
    "inbox_conn_id": ("The inbox's connection, where it is another than aws_conn_id.", None, "aws_events"),
    "warehouse_conn_id": (
        "The warehouse's and the ledger's connection, where it is another than aws_conn_id.",
        None,
        "aws_recordings",
    ),
    "primary_conn_id": (
        "Connection of the bucket that LiveKit was asked to upload to; unless set, nothing is copied from there.",
        None,
        "aws_primary",
    ),
    "livekit_conn_id": (
        "Airflow connection of LiveKit's API: what is missing is asked of it, and webhooks are verified by its keys.",
        "livekit_default",
        "livekit_eu",
    ),
    "upload_options": (
        "How objects are made in the warehouse: a JSON object under boto3's names.",
        None,
        '{"ServerSideEncryption": "aws:kms", "StorageClass": "STANDARD_IA", "Tagging": {"team": "video"}}',
    ),
    "parallel_ranges": ("Ranges of one recording that are read side by side, 1 to 16; for long paths.", "1", "4"),
    "allowed_hosts": (
        "Hosts that locations may point to, separated by commas; one given by its full name may be a private address.",
        "*.amazonaws.com, storage.googleapis.com",
        "*.amazonaws.com, minio.acme.internal:9000",
    ),
    "grace": ("Seconds to wait after a window's end before it is read.", "300", "900"),
    "lookback": (
        "Seconds before its window that a scheduled run reads again, for events that came late.",
        "10800",
        "21600",
    ),
    "on_conflict": (
        "When a landing key holds other content: keep_both, fail or overwrite.",
        "keep_both",
        "fail",
    ),
    "verify": (
        "What has to be proven before a file counts as landed: standard, or strict, which also reads it back.",
        "standard",
        "strict",
    ),
    "probe": (
        "Whether landed media is looked into, and named where it seems damaged; deeper with the extra media.",
        "False",
        "True",
    ),
    "bundle_files": (
        "Files of one task, where they are too small or too many for a task each; 1 turns bundles off.",
        "64",
        "200",
    ),
    "bundle_bytes": ("Bytes of one such task.", "268435456", "1073741824"),
    "max_bytes_per_second": ("What one download task takes of the network; unless set, all it gets.", None, "20000000"),
    "alarm_hours": (
        "Hours left at which a backup that is not safe raises an alarm, once each, separated by commas.",
        "72, 24, 6",
        "48, 12",
    ),
    "pool": ("Airflow pool of the download tasks; it must exist (doctor --fix makes it).", None, "livekit_backup"),
    "alarm_notifier": (
        "Dotted path of a notifier or callable that alarms are sent through.",
        None,
        "acme_alarms.pagerduty",
    ),
    "webhook_events": (
        "What the webhook receiver stores: egress, or all events that LiveKit signed.",
        "egress",
        "all",
    ),
    "webhook_max_bytes": ("Of one webhook's body; the receiver refuses a longer one.", "1048576", "262144"),
}
"""Description, default and example of each key."""


def _option(description: str, default: str | None, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": "string",
        "default": None if default is None else _in_airflow_cfg(default).replace("{", "{{").replace("}", "}}"),
        "example": _in_airflow_cfg(example),
    }


def _in_airflow_cfg(value: str) -> str:
    """Airflow's configuration file interpolates, so a percent sign of a strftime pattern is doubled there."""
    return value.replace("%", "%%")
