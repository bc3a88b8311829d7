"""Settings from Airflow's configuration section ``[livekit_backup]``, overridden by operator arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import conf
from pydantic import ValidationError

from livekit_backup.core.storage import join_uri, split_uri
from livekit_backup.errors import ConfigurationError
from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.models.settings import Settings
from livekit_backup.models.upload_options import UploadOptions

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
    "primary_conn_id",
    "livekit_conn_id",
    "upload_options",
    "parallel_ranges",
    "allowed_hosts",
    "grace",
    "lookback",
    "on_conflict",
    "verify",
    "probe",
    "bundle_files",
    "bundle_bytes",
    "max_bytes_per_second",
    "alarm_hours",
)
DAG_KEYS = ("pool", "alarm_notifier")
"""No operator's own arguments: read when a DAG file is parsed."""
RECEIVER_KEYS = ("webhook_events", "webhook_max_bytes")
"""No operator's arguments: the webhook receiver in Airflow's API server reads them."""
LEDGER_FOLDER = "_livekit_backup"

_ANY_ENCRYPTION = "aws:kms"
"""All other options go with it."""


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
    _parse(values)
    try:
        return Settings(**{key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        raise _unusable(error, values) from None


def _parse(values: dict[str, Any]) -> None:
    """Make of configuration's texts what the model takes."""
    for key in ("allowed_hosts", "alarm_hours"):
        if isinstance(text := values[key], str):
            values[key] = tuple(text.replace(",", " ").split())
    for key in ("grace", "lookback"):
        if values[key] is not None:
            values[key] = _seconds(key, values[key])
    if values["upload_options"] is not None:
        values["upload_options"] = _options(values["upload_options"])


def load_receiver_settings() -> tuple[ReceiverSettings, str, str]:
    """Return the webhook receiver's settings, the inbox's connection and LiveKit's.

    :raises ConfigurationError: a key is missing or cannot be used; the text names it and how to set it.
    """

    def configured(key: str) -> str | None:
        return conf.get(SECTION, key, fallback=None) or None

    values = {key: value for key in ReceiverSettings.model_fields if (value := configured(key))}
    if "inbox" not in values:
        raise ConfigurationError("inbox is not set: set AIRFLOW__LIVEKIT_BACKUP__INBOX=s3://bucket/prefix")
    try:
        settings = ReceiverSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        key = str(problem["loc"][0])
        what = problem["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
        cure = f"correct AIRFLOW__LIVEKIT_BACKUP__{key.upper()}"
        raise ConfigurationError(f"{key} {what}, not {values[key]!r}: {cure}") from None
    inbox_conn_id = configured("inbox_conn_id") or configured("aws_conn_id")
    return (
        settings,
        inbox_conn_id or Settings.model_fields["inbox_conn_id"].default,
        configured("livekit_conn_id") or Settings.model_fields["livekit_conn_id"].default,
    )


def check_upload_options(given: Any) -> None:
    """Check the operator's argument ``upload_options`` before it is rendered, as far as it is known by then.

    :raises ConfigurationError: a key is unknown, or a value that is no template is wrong.
    """
    if given is None or (not isinstance(given, Mapping) and _is_template(given)):
        return
    options = _options(given)
    if not isinstance(options, Mapping):
        raise _unusable_options(given)
    rendered_later = {key for key, value in options.items() if _is_template(value)}
    known = {key: value for key, value in options.items() if key not in rendered_later}
    if "ServerSideEncryption" in rendered_later:
        known["ServerSideEncryption"] = _ANY_ENCRYPTION
    # Of a template only the name can be checked yet.
    misnamed = dict.fromkeys(rendered_later - set(UploadOptions.model_fields))
    try:
        UploadOptions.model_validate({**known, **misnamed})
    except ValidationError as error:
        raise _unusable(error, {"upload_options": options}, "upload_options") from None


def _is_template(value: Any) -> bool:
    """Whether Airflow has yet to make a value of it: a template, another task's result, or a place of such."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping | list | tuple):
        return any(_is_template(inner) for inner in (value.values() if isinstance(value, Mapping) else value))
    return not isinstance(value, bool | int | float | None)


def _options(value: Any) -> Any:
    """Read the JSON of the configuration, or of an argument that was rendered."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise _unusable_options(value) from None


def _unusable_options(value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"upload_options must be a JSON object or a mapping, not {value!r}: {_cure('upload_options')}"
    )


def _unusable(error: ValidationError, values: Mapping[str, Any], *outer: str) -> ConfigurationError:
    """Say of the first problem which key it is, what is wrong, what was given and how to set it."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = (*outer, *problem["loc"])
    given: Any = values
    for part in path:
        given = given.get(part) if isinstance(given, Mapping) else given
    what = problem["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    return ConfigurationError(f"{'.'.join(map(str, path))} {what}, not {given!r}: {_cure(str(path[0]))}")


def _cure(key: str) -> str:
    return f"correct AIRFLOW__LIVEKIT_BACKUP__{key.upper()} or the operator's argument"


def _seconds(key: str, value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError):
        raise ConfigurationError(f"{key} must be a number of seconds, not {value!r}: {_cure(key)}") from None


def configured_pool() -> str | None:
    """Return the Airflow pool that download tasks run in, or None for Airflow's own default."""
    return conf.get(SECTION, "pool", fallback=None) or None


def configured_places() -> Iterator[tuple[str, str]]:
    """Give the Airflow connections of inbox and warehouse, each with its bucket, as the configuration alone says."""
    default = conf.get(SECTION, "aws_conn_id", fallback=None) or Settings.model_fields["warehouse_conn_id"].default
    for key in ("inbox", "warehouse"):
        if uri := conf.get(SECTION, key, fallback=None):
            yield conf.get(SECTION, f"{key}_conn_id", fallback=None) or default, split_uri(uri)[0]
