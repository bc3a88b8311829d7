"""Settings from Airflow's configuration section ``[livekit_backup]``, overridden by operator arguments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import conf
from pydantic import ValidationError

from livekit_backup.core.storage import join_uri
from livekit_backup.errors import ConfigurationError
from livekit_backup.models.settings import Settings

SECTION = "livekit_backup"
KEYS = (
    "inbox",
    "inbox_layout",
    "warehouse",
    "landing_key",
    "ledger",
    "aws_conn_id",
    "inbox_conn_id",
    "warehouse_conn_id",
    "allowed_hosts",
    "grace",
)
LEDGER_FOLDER = "_livekit_backup"


def load_settings(overrides: Mapping[str, Any]) -> Settings:
    """Return the settings: an argument that is not None wins over the configuration, that over the default.

    :raises ConfigurationError: a key is missing or cannot be used; the text names it and how to set it.
    """
    values = {key: overrides.get(key) for key in KEYS}
    for key, value in values.items():
        if value is None:
            values[key] = conf.get(SECTION, key, fallback=None) or None
    for key in ("inbox", "warehouse"):
        if not values[key]:
            raise ConfigurationError(
                f"{key} is not set: set AIRFLOW__LIVEKIT_BACKUP__{key.upper()}=s3://bucket/prefix, "
                f"or pass {key}= to the operator"
            )
    conn_id = values.pop("aws_conn_id") or Settings.model_fields["warehouse_conn_id"].default
    values["inbox_conn_id"] = values["inbox_conn_id"] or conn_id
    values["warehouse_conn_id"] = values["warehouse_conn_id"] or conn_id
    values["ledger"] = values["ledger"] or join_uri(str(values["warehouse"]), LEDGER_FOLDER)
    if isinstance(hosts := values["allowed_hosts"], str):
        values["allowed_hosts"] = tuple(hosts.replace(",", " ").split())
    if values["grace"] is not None:
        values["grace"] = _seconds(values["grace"])
    try:
        return Settings(**{key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ConfigurationError(
            f"{key} {problem['msg'].removeprefix('Value error, ')}, not {values.get(key)!r}: "
            f"correct AIRFLOW__LIVEKIT_BACKUP__{key.upper()} or the operator's argument"
        ) from None


def _seconds(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError):
        raise ConfigurationError(
            f"grace must be a number of seconds, not {value!r}: correct AIRFLOW__LIVEKIT_BACKUP__GRACE "
            "or the operator's argument"
        ) from None
