"""The webhook receiver by itself, without Airflow: ``python -m livekit_backup.receiver``.

S3 is reached by boto3's own environment (``AWS_*``); docs/receiver.md names all the variables.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import LOGGING_CONFIG

from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_client import EnvironmentConnection
from livekit_backup.receiver.inbox_writer import LONGEST_WRITE_SECONDS, TUNING, InboxWriter
from livekit_backup.receiver.signing_keys import SigningKeys
from livekit_backup.receiver.standalone_settings import FILE_SECONDS, keys_from, settings_from, tuning_from
from livekit_backup.receiver.webhook_app import BODY_SECONDS, WebhookReceiver

PORT = 8070
MAX_CONNECTIONS = 2000
"""Above the events that can be in flight; uvicorn answers more with 503, which LiveKit sends again."""


def build_app(environment: Mapping[str, str], keys_file: Path | None = None) -> Starlette:
    """Build the application. :raises ConfigurationError: something is missing; the text says what."""
    settings = settings_from(environment)
    keys = SigningKeys(keys_from(environment, keys_file), refresh_seconds=FILE_SECONDS)
    tuning = {**TUNING, **tuning_from(environment)}
    inbox = InboxWriter(lambda: S3ObjectStore(EnvironmentConnection(tuning=tuning)).without_looking())
    return WebhookReceiver(settings, keys, inbox).app()


class NoQuery(logging.Filter):
    """Takes the query off an address in the access log: what stands in it is not ours to show."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change uvicorn's arguments: client, method, path, version, status."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, *rest = record.args
            record.args = (client, method, str(path).partition("?")[0], *rest)
        return True


def log_config() -> dict[str, Any]:
    """Return uvicorn's logging with ours beside it."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["filters"] = {"no_query": {"()": NoQuery}}
    config["handlers"]["access"]["filters"] = ["no_query"]
    config["loggers"]["livekit_backup"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; then what was accepted is stored and answered first."""
    parser = argparse.ArgumentParser(prog="python -m livekit_backup.receiver")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--keys-file", type=Path, help="lines of `key: secret`, as livekit-server takes them")
    parser.add_argument("--no-access-log", action="store_true", help="do not print a line a request")
    arguments = parser.parse_args(argv)
    try:
        app = build_app(os.environ, arguments.keys_file)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        access_log=not arguments.no_access_log,
        log_config=log_config(),
        lifespan="on",
        ws="none",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(BODY_SECONDS + LONGEST_WRITE_SECONDS),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
