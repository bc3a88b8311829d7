"""The receiver's settings and keys where there is no Airflow: from the environment, or a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from livekit_backup.errors import ConfigurationError
from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.receiver.signing_keys import parse_keys, read_keys_file

PREFIX = "LIVEKIT_BACKUP_"
_STYLE = f"{PREFIX}S3_ADDRESSING_STYLE"
_STYLES = ("auto", "path", "virtual")
FILE_SECONDS = 2.0
"""After which the file of keys is read again: a rotation shall not lose an event."""


def settings_from(environment: Mapping[str, str]) -> ReceiverSettings:
    """Read ``LIVEKIT_BACKUP_*``. :raises ConfigurationError: one is missing or wrong; the text says which, and how."""
    names = {field: f"{PREFIX}{field.upper()}" for field in ReceiverSettings.model_fields}
    values: dict[str, Any] = {field: environment[name] for field, name in names.items() if environment.get(name)}
    if "inbox" not in values:
        raise ConfigurationError(f"{names['inbox']} is not set: set it to s3://bucket/prefix")
    try:
        return ReceiverSettings(**values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = str(problem["loc"][0])
        what = problem["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
        raise ConfigurationError(f"{names[field]} {what}, not {values[field]!r}: correct it") from None


def tuning_from(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read how buckets are addressed, which boto3 has no variable for.

    :raises ConfigurationError: there is no such way.
    """
    style = environment.get(_STYLE) or "auto"
    if style not in _STYLES:
        raise ConfigurationError(f"{_STYLE} must be one of {', '.join(_STYLES)}, not {style!r}: correct it")
    # What ~/.aws/config says holds where nothing is said here.
    return {} if style == "auto" else {"s3": {"addressing_style": style}}


def keys_from(environment: Mapping[str, str], keys_file: Path | None = None) -> Callable[[], dict[str, str]]:
    """Return what reads LiveKit's API keys, from everything that holds some; a file is read each time.

    :raises ConfigurationError: there are none, or they cannot be read; no secret is shown.
    """
    fixed = parse_keys(environment.get("LIVEKIT_KEYS", ""), "LIVEKIT_KEYS")
    # A secret that was put into a file by an editor, and mounted as a variable, ends with a newline.
    key, secret = (environment.get(name, "").strip() for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"))
    if bool(key) != bool(secret):
        missing = "LIVEKIT_API_SECRET" if key else "LIVEKIT_API_KEY"
        raise ConfigurationError(f"{missing} is not set: LIVEKIT_API_KEY and LIVEKIT_API_SECRET go together")
    if key:
        fixed[key] = secret
    file = keys_file or (Path(named) if (named := environment.get("LIVEKIT_KEYS_FILE")) else None)

    def read() -> dict[str, str]:
        keys = {**fixed, **(read_keys_file(file) if file else {})}
        if not keys:
            raise ConfigurationError(
                f"{file} holds no keys: give it lines of `key: secret`"
                if file
                else "there are no keys to verify webhooks with: set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, "
                "or LIVEKIT_KEYS, or LIVEKIT_KEYS_FILE"
            )
        return keys

    read()
    return read
