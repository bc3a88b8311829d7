"""The Airflow connection of type LiveKit: the API's address, and the keys that sign."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from livekit_backup.core.livekit_api import ListedEgress, LiveKitApi
from livekit_backup.core.twirp_answers import MAX_CLOCK_SKEW, describe_skew
from livekit_backup.core.wording import quoted
from livekit_backup.errors import ConfigurationError, LivekitBackupError

WEBHOOK_SECRETS = "webhook_secrets"
"""Name in the extra; Airflow masks values by what they are called."""

_ABSENT_EGRESS = "EG_connection_test"


class LiveKitHook(BaseHook):
    """LiveKit's API, and the keys of its webhooks, by an Airflow connection.

    Login is the API key, password its secret, host the URL of LiveKit. The extra can hold ``webhook_secrets``, a
    JSON object of further API keys and their secrets that sign webhooks.

    :param livekit_conn_id: the Airflow connection.
    """

    conn_name_attr = "livekit_conn_id"
    default_conn_name = "livekit_default"
    conn_type = "livekit"
    hook_name = "LiveKit"

    def __init__(self, livekit_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.livekit_conn_id = livekit_conn_id

    def get_conn(self) -> LiveKitApi:
        """Return the API's client. Nothing is sent yet.

        :raises ConfigurationError: there is no such connection, or it lacks something.
        """
        return self._api(self._connection())

    def list_egress(self, *, egress_id: str = "", room_name: str = "") -> Iterator[ListedEgress]:
        """List every egress that LiveKit still knows; see :meth:`LiveKitApi.list_egress`."""
        yield from self.get_conn().list_egress(egress_id=egress_id, room_name=room_name)

    async def alist_egress(self, *, egress_id: str = "", room_name: str = "") -> AsyncIterator[ListedEgress]:
        """The same for triggers."""
        try:
            connection = await self.aget_connection(self.livekit_conn_id)
        except AirflowNotFoundException:
            raise self._absent() from None
        async for listed in self._api(connection).alist_egress(egress_id=egress_id, room_name=room_name):
            yield listed

    def signing_keys(self) -> dict[str, str]:
        """Return the secret of each API key that may sign webhooks; masked in logs from here on.

        :raises ConfigurationError: there is no such connection, it has no key, or its extra cannot be read.
        """
        connection = self._connection()
        keys = self._webhook_secrets(self._extra(connection))
        login, password = (connection.login or "").strip(), (connection.password or "").strip()
        if bool(login) != bool(password):
            raise self._unusable("has an API key (login) without its secret (password), or a secret without its key")
        if login:
            keys[login] = password
        if not keys:
            raise self._unusable("has no API key and secret (login and password), nor any in its webhook_secrets")
        for secret in keys.values():
            mask_secret(secret)
        return keys

    def test_connection(self) -> tuple[bool, str]:
        """Ask the API for an egress that is not there, and say what answered."""
        try:
            api = self.get_conn()
            for _ in api.list_egress(egress_id=_ABSENT_EGRESS):
                pass
            further = len(self.signing_keys()) - 1
        except LivekitBackupError as error:
            return False, str(error)
        keys = f" {further} more {'keys sign' if further > 1 else 'key signs'} webhooks." if further else ""
        skew = api.clock_skew
        clock = f" Mind that {describe_skew(skew)}." if skew is not None and abs(skew) > MAX_CLOCK_SKEW else ""
        return True, (
            f"{api.address} lists egresses to API key {quoted(api.api_key, 64)}.{keys}{clock} LiveKit switches backup "
            f"storage on per project, and its API does not tell whether it did: ask LiveKit."
        )

    def _connection(self) -> Any:
        try:
            return self.get_connection(self.livekit_conn_id)
        except AirflowNotFoundException:
            raise self._absent() from None

    def _api(self, connection: Any) -> LiveKitApi:
        lacking = [
            f"{what} ({name})"
            for what, name in (("URL", "host"), ("API key", "login"), ("API secret", "password"))
            if not (getattr(connection, name) or "").strip()
        ]
        if lacking:
            raise self._unusable(f"has no {' and no '.join(lacking)}")
        try:
            return LiveKitApi(self._url(connection), connection.login, connection.password)
        except ConfigurationError as error:
            raise self._unusable(f"cannot be used: {error}") from None

    @staticmethod
    def _url(connection: Any) -> str:
        """Put together what a connection's form or URI leaves in parts."""
        url = connection.host.strip()
        if "://" not in url:
            url = f"{connection.schema or 'https'}://{url}"
        try:
            parts = urlsplit(url)
            has_port = parts.port is not None
        except ValueError:
            return str(url)
        if connection.port and not has_port:
            url = parts._replace(netloc=f"{parts.netloc}:{connection.port}").geturl()
        return str(url)

    def _extra(self, connection: Any) -> dict[str, Any]:
        """Read the extra: Airflow makes an empty one of what is no JSON, and the keys in it would be refused."""
        try:
            extra = json.loads(connection.extra or "{}")
        except ValueError:
            extra = None
        if not isinstance(extra, dict):
            raise self._unusable("has an extra that is no JSON object")
        return extra

    def _webhook_secrets(self, extra: Mapping[str, Any]) -> dict[str, str]:
        value = extra.get(WEBHOOK_SECRETS) or {}
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, dict) or not all(
            isinstance(secret, str) and secret.strip() and key.strip() for key, secret in value.items()
        ):
            raise self._unusable(f'has {WEBHOOK_SECRETS} that are no JSON object such as {{"APIkey": "its secret"}}')
        return {key.strip(): secret.strip() for key, secret in value.items()}

    def _absent(self) -> ConfigurationError:
        conn_id = self.livekit_conn_id
        return ConfigurationError(
            f"there is no Airflow connection {quoted(conn_id)}: make one of type LiveKit in Airflow's UI, or set "
            f"AIRFLOW_CONN_{conn_id.upper()}="
            '\'{"conn_type": "livekit", "login": "API…", "password": "…", "host": "https://….livekit.cloud"}\''
        )

    def _unusable(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"the Airflow connection {quoted(self.livekit_conn_id)} {what}")
