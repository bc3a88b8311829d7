"""What ``doctor`` examines: this machine's settings and connections, as far as they can be used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies

# Loaded here, and not by whichever check is first: threads that import parts of Airflow side by side can get halves.
import airflow.providers.amazon.aws.hooks.s3  # noqa: F401
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from livekit_backup.core.examination import CannotCheckError
from livekit_backup.core.redaction import without_query
from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.configuration import KEYS, load_settings
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_client import S3Connection
from livekit_backup.models.settings import Settings
from livekit_backup.models.upload_options import UploadOptions

STORES = {
    "inbox": ("inbox", "inbox_conn_id", "aws_conn_id"),
    "warehouse": ("warehouse", "warehouse_conn_id", "aws_conn_id"),
    "ledger": ("ledger", "warehouse_conn_id", "aws_conn_id"),
    "primary": ("primary_conn_id",),
}
"""The settings that each store needs."""

_STAND_INS: dict[str, Any] = {
    "inbox": "s3://not-set",
    "inbox_layout": Settings.model_fields["inbox_layout"].default,
    "warehouse": "s3://not-set",
    "landing_key": "{filename}",
    "ledger": "s3://not-set/ledger",
    "aws_conn_id": "aws_default",
    "inbox_conn_id": "aws_default",
    "warehouse_conn_id": "aws_default",
    "primary_conn_id": "aws_default",
    "livekit_conn_id": "livekit_default",
    "upload_options": {},
    "parallel_ranges": 1,
    "allowed_hosts": Settings.model_fields["allowed_hosts"].default,
    "grace": timedelta(0),
    "lookback": timedelta(0),
    "max_bytes_per_second": 1024,
    **{
        key: Settings.model_fields[key].default
        for key in ("on_conflict", "verify", "probe", "bundle_files", "bundle_bytes", "alarm_hours")
    },
}
"""Values that load, so that each key can be looked at by itself."""

_QUICK = {"connect_timeout": 5, "read_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 2}}
"""A person is waiting, and whether a store answers shows at once."""
_USER = re.compile(r"//[^/\s@]+@")
_PIECES = re.compile(r"[^\s:;,={}\[\]\"']+")
_HARMLESS = frozenset(
    {
        "addressing_style",
        "assume_role_method",
        "bucket_name",
        "endpoint_url",
        "mode",
        "profile_name",
        "region_name",
        "role_arn",
        "signature_version",
        "verify",
    }
)
"""Fields of an AWS connection's extra that texts may name."""
_SHORTEST_SECRET = 6
"""Shorter ones would take half of every text with them."""


class ExaminedSetup:
    """Settings, connections and stores; a part that is broken keeps no other from being used."""

    def __init__(self, *, may_fix: bool = False) -> None:
        self.may_fix = may_fix
        """Whether checks may make what is missing."""
        self.broken_keys: dict[str, str] = dict(self._unusable_keys())
        stand_ins = {key: _STAND_INS[key] for key in self.broken_keys}
        self._settings = load_settings(stand_ins)
        self._options: UploadOptions | None = self._settings.upload_options
        self._connections: dict[str, Any] = {}
        self._stores: dict[tuple[str, bool], S3ObjectStore] = {}
        self.unreachable: set[tuple[str, str]] = set()
        """Connections and buckets that are no use."""
        self.skews: dict[str, timedelta] = {}
        """How far each server's clock is ahead of this machine's."""

    def _unusable_keys(self) -> Iterator[tuple[str, str]]:
        for key in KEYS:
            try:
                load_settings({other: value for other, value in _STAND_INS.items() if other != key})
            except ConfigurationError as error:
                yield key, str(error)

    def settings(self, *keys: str) -> Settings:
        """Return the settings, of which these can be used. :raises CannotCheckError: one of them cannot."""
        for key in keys:
            # Without one of its own the ledger lies in the warehouse.
            if key in self.broken_keys or (key == "ledger" and self._is_ledger_missing):
                raise CannotCheckError(f"it needs the setting {key}")
        return self._settings

    @property
    def _is_ledger_missing(self) -> bool:
        return "warehouse" in self.broken_keys and self._settings.ledger.startswith(_STAND_INS["warehouse"])

    def place(self, role: str) -> str:
        """Return the ``s3://…`` of inbox, warehouse or ledger."""
        return str(getattr(self.settings(*STORES[role]), role))

    def conn_id(self, role: str) -> str:
        """Return the connection of a store, or of LiveKit."""
        if role == "livekit":
            return self.settings("livekit_conn_id").livekit_conn_id
        settings = self.settings(*STORES[role])
        return str(getattr(settings, f"{'warehouse' if role == 'ledger' else role}_conn_id") or "")

    def connection(self, conn_id: str) -> Any:
        """Return an Airflow connection, or None where there is none of this name."""
        if conn_id not in self._connections:
            try:
                self._connections[conn_id] = BaseHook.get_connection(conn_id)
            except AirflowNotFoundException:
                self._connections[conn_id] = None
        return self._connections[conn_id]

    def store(self, role: str) -> S3ObjectStore:
        """Return a store as tasks use it, as far as its options were found to be usable."""
        # Checks run side by side: one that is still making a store must not put it where another expects a later one.
        options = self._options if role in ("warehouse", "ledger") else None
        key = (role, options is not None)
        if key not in self._stores:
            self._stores[key] = self.store_with(role, options)
        return self._stores[key]

    def do_without_options(self) -> None:
        """Leave upload_options out from here on, since the store refuses them."""
        self._options = None

    def store_with(self, role: str, options: UploadOptions | None = None) -> S3ObjectStore:
        """Return a store with such options. It gives up sooner than a task's, and its server's clock is noted."""
        store = S3ObjectStore(S3Connection(self.conn_id(role), tuning=_QUICK), options)
        place = store.place_name()

        def note_clock(http_response: Any, **_: Any) -> None:
            self.note_date(place, http_response.headers.get("date"))

        store.connection.client.meta.events.register("after-call.s3", note_clock)
        return store

    def note_date(self, server: str, header: str | None) -> None:
        """Note what a server's Date header says of its clock."""
        try:
            date = parsedate_to_datetime(header or "")
        except ValueError:
            return
        if date.tzinfo:
            self.skews[server] = date - datetime.now(UTC)

    def safe(self, text: str) -> str:
        """Take whatever is secret out of a text."""
        text = _USER.sub("//…@", without_query(text))
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    @property
    def _secrets(self) -> set[str]:
        """What is secret in connections and proxies, as it is and as it stands in a URL."""
        found = set(_proxy_passwords())
        for place in (self._settings.inbox, self._settings.warehouse, self._settings.ledger):
            # Keys have no place there, but that keeps nobody from putting some.
            user, at, _ = place.removeprefix("s3://").partition("/")[0].rpartition("@")
            found |= {user, *_PIECES.findall(user)} if at else set()
        # What was never read cannot show. To read it now could take for ever.
        for connection in filter(None, self._connections.values()):
            found |= {connection.password or "", *_secrets_of(connection.extra_dejson)}
        return {
            form for secret in found if len(secret) >= _SHORTEST_SECRET for form in (secret, quote(secret, safe=""))
        }


def _secrets_of(extra: Mapping[str, Any]) -> Iterator[str]:
    for name, value in extra.items():
        if isinstance(value, Mapping):
            yield from _secrets_of(value)
        elif isinstance(value, list):
            yield from _secrets_of({str(position): item for position, item in enumerate(value)})
        elif isinstance(value, str) and name not in _HARMLESS:
            yield from (value, *_PIECES.findall(value))


def _proxy_passwords() -> Iterator[str]:
    values = [*getproxies().values(), *(os.environ.get(name, "") for name in ("ALL_PROXY", "all_proxy"))]
    for value in values:
        try:
            password = urlsplit(value if "://" in value else f"//{value}").password
        except ValueError:
            continue
        if password:
            yield from (password, unquote(password))
