"""``doctor`` on LiveKit: its API answers and takes the key, and the keys can sign."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.core.http_connections import proxied_scheme
from livekit_backup.core.livekit_api import LiveKitApi
from livekit_backup.core.wording import quoted
from livekit_backup.errors import AccessDeniedError, ConfigurationError, LivekitBackupError
from livekit_backup.hooks.livekit import LiveKitHook
from livekit_backup.models.finding import Finding, broken, note, ok, warning

SHORTEST_SECRET = 32
"""Bytes that HS256 asks for (RFC 7518, 3.2); LiveKit's own secrets are longer."""

_TIMEOUT_SECONDS = 8.0
_FIRST_WAIT_SECONDS = 0.2
_ABSENT_EGRESS = "EG_doctor"
_FORM = "https://PROJECT.livekit.cloud, as in the project's settings"


def check_api(setup: ExaminedSetup) -> Iterator[Finding]:
    """Ask for an egress that is not there: that takes the host, the key, its secret and its grant."""
    conn_id = setup.conn_id("livekit")
    hook = LiveKitHook(conn_id)
    try:
        configured = hook.get_conn()
    except ConfigurationError as error:
        yield broken(
            str(error), f"correct the connection {conn_id}: host {_FORM}; login the API key; password its secret"
        )
        return
    if unresolved := _unresolved(configured.address):
        yield broken(
            f"LiveKit's host {quoted(unresolved)} does not resolve",
            f"correct the host of the connection {conn_id}: {_FORM}; or mend this machine's name server",
        )
        return
    connection = setup.connection(conn_id)
    # A person waits: fewer and shorter waits than a task's.
    api = LiveKitApi(
        configured.address,
        connection.login,
        connection.password,
        timeout_seconds=_TIMEOUT_SECONDS,
        first_wait_seconds=_FIRST_WAIT_SECONDS,
    )
    try:
        for _ in api.list_egress(egress_id=_ABSENT_EGRESS):
            break
    except AccessDeniedError as error:
        yield broken(
            str(error),
            f"put an API key of this project and its secret (in LiveKit's settings) into the connection {conn_id}: "
            "login and password",
        )
    except LivekitBackupError as error:
        yield broken(
            str(error),
            f"correct the host of the connection {conn_id}: {_FORM}; see that this machine may reach it, "
            "by HTTPS_PROXY where there is a proxy",
        )
    else:
        yield ok(f"{api.address} lists egresses to the API key of {conn_id}")
    finally:
        if api.clock_skew is not None:
            setup.skews[api.address] = api.clock_skew


def _unresolved(address: str) -> str:
    """Return the host's name where this machine has to look it up and cannot."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        if proxied_scheme(httpx.URL(address)):
            return ""
        socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return host
    except ConfigurationError:
        # The check of the proxies says so.
        return ""
    return ""


def check_signing_keys(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look at the keys that webhooks are verified by."""
    conn_id = setup.conn_id("livekit")
    try:
        keys = LiveKitHook(conn_id).signing_keys()
    except ConfigurationError as error:
        yield broken(str(error), f"correct login, password or webhook_secrets of the connection {conn_id}")
        return
    short = [key for key, secret in keys.items() if len(secret.encode()) < SHORTEST_SECRET]
    for key in short:
        yield warning(
            f"the secret of API key {quoted(key, 64)} has under {SHORTEST_SECRET} bytes: cut short, or easy to guess",
            f"copy it anew from LiveKit into the connection {conn_id}, or make a new API key",
        )
    if len(short) < len(keys):
        count = len(keys) - len(short)
        yield ok(f"{count} {'key' if count == 1 else 'keys'} can verify webhooks")


def check_feature(setup: ExaminedSetup) -> Iterator[Finding]:
    """Say what no check can find out."""
    del setup
    yield note(
        "LiveKit enables backup storage per Cloud project, and neither its API nor any event says whether it is on",
        "ask LiveKit to enable it; airflow livekit-backup status counts uploads that failed with no backup behind them",
    )
