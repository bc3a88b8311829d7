"""An Airflow connection, or boto's own environment, as a boto client, and where it leads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import cached_property, lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from botocore.config import Config

from livekit_backup.hooks.s3_places import S3Place

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import Connection

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "max_attempts": 5},
    "max_pool_connections": 32,
    # Every part carries its checksums already; a further CRC32 would cost CPU and prove nothing more.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


class S3Connection:
    """One Airflow connection; nothing is looked up before it is used.

    :param aws_conn_id: the Airflow connection.
    :param tuning: of botocore's Config, over our defaults; what the connection itself says wins over both.
    :param known: the connection itself, where Airflow is not to be asked for it.
    """

    def __init__(
        self, aws_conn_id: str, *, tuning: Mapping[str, Any] | None = None, known: Connection | None = None
    ) -> None:
        self.aws_conn_id = aws_conn_id
        self._tuning = dict(tuning or {})
        self._known = known

    @cached_property
    def _hook(self) -> S3Hook:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        known = self._known

        class LeanHook(S3Hook):
            """Makes a client without what costs a tenth of a second of processor time, and as much again."""

            @classmethod
            def get_connection(cls, conn_id: str) -> Any:
                return known or super().get_connection(conn_id)

            def _get_caller(self, *_: Any) -> str:
                # The provider looks through the sources of the whole stack for its user agent.
                return "livekit_backup"

            def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
                factory = _session_factory()(conn=self.conn_config, region_name=region_name, config=self.config)
                return factory.create_session(deferrable=deferrable)

        return LeanHook(aws_conn_id=self.aws_conn_id)

    @cached_property
    def client(self) -> Any:
        """A client with the connection's endpoint, region, role and keys; its own ``config_kwargs`` win."""
        ahead = _clients_ahead.get(self.aws_conn_id)
        if ahead not in (None, self) and not self._tuning and ahead.says == self.says:
            return ahead.client
        own: dict[str, Any] = dict(getattr(self._hook.config, "_user_provided_options", {}))
        config = _config({**self._tuning, **own})
        return self._hook.get_client_type(region_name=self._hook.region_name, config=config)

    @property
    def says(self) -> dict[str, Any]:
        """All that the connection says."""
        said = self._hook.conn_config
        # A Config equals nothing but itself, and is made of the extra.
        return {part.name: getattr(said, part.name) for part in fields(said) if part.name != "botocore_config"}

    @property
    def is_static(self) -> bool:
        """Whether it has keys of its own, which a client can be made with without asking anybody."""
        said = self._hook.conn_config
        return bool(said.aws_access_key_id and not (said.aws_session_token or said.role_arn or said.profile_name))

    @cached_property
    def place(self) -> S3Place:
        """Where it leads. Its bucket is the connection's own: ``bucket_name`` in ``service_config`` for S3."""
        return _place(
            self.client,
            self._hook.service_config.get("bucket_name") or "",
            lambda: self._hook.get_session().get_credentials(),
        )


def make_ahead(places: Iterable[tuple[S3Connection, str]]) -> None:
    """Make connections' clients, for a process of which tasks are forked, and a session for another connection.

    Of a download of 1 MiB a client and what it does for the first time in its life are a third of the processor's time.
    A task takes it where Airflow gives it the same connection.

    :param places: connections, each with a bucket that tasks will ask for.
    """
    for connection, bucket in places:
        if connection.is_static:
            ahead = _clients_ahead.get(connection.aws_conn_id, connection)
            _rehearse(ahead.client, bucket)
            _clients_ahead[ahead.aws_conn_id] = ahead
    _sessions_ahead[:] = [new_session()]


_clients_ahead: dict[str, S3Connection] = {}
_sessions_ahead: list[Any] = []


def _rehearse(client: Any, bucket: str) -> None:
    """Have boto make, sign and read a request of each kind that every download makes, without a connection."""
    from botocore.awsrequest import AWSResponse
    from urllib3 import HTTPResponse

    def answer(request: Any, **_: Any) -> AWSResponse:
        body = HTTPResponse(BytesIO(), preload_content=False)
        return AWSResponse(request.url, 200, {"ETag": '""', "Content-Length": "0"}, body)

    client.meta.events.register_first("before-send.s3", answer)
    at = {"Bucket": bucket, "Key": "none"}
    try:
        client.get_object(**at)
        client.put_object(
            **at, Body=b"", ContentType="", IfNoneMatch="*", ChecksumCRC64NVME="none", Metadata={"none": ""}
        )
        client.head_object(**at, ChecksumMode="ENABLED")
    finally:
        # A task whose client answered itself would take for landed what is nowhere.
        client.meta.events.unregister("before-send.s3", answer)


def new_session() -> Any:
    """Return a botocore session that knows no keys yet.

    To make one takes 18 ms of processor time, half of what a client takes, and nothing of it is a connection's own.
    """
    import botocore.session

    if _sessions_ahead:
        return _sessions_ahead.pop()
    session = botocore.session.get_session()
    # The descriptions of services that others in this process have read.
    session.register_component("data_loader", _loader())
    return session


@lru_cache(maxsize=1)
def _loader() -> Any:
    import botocore.loaders

    return botocore.loaders.create_loader()


@lru_cache(maxsize=1)
def _session_factory() -> Any:
    """Return the provider's factory, or the one that ``[aws] session_factory`` names, on sessions made ahead."""
    from airflow.providers.amazon.aws.hooks.base_aws import BaseSessionFactory, SessionFactory

    factory: Any = SessionFactory
    if factory._create_basic_session is not BaseSessionFactory._create_basic_session:  # noqa: SLF001
        # Somebody's own way to make the session.
        return factory

    class LeanFactory(factory):  # type: ignore[misc]
        def _create_basic_session(self, session_kwargs: dict[str, Any]) -> Any:
            import boto3

            return boto3.session.Session(**session_kwargs, botocore_session=new_session())

    return LeanFactory


class EnvironmentConnection:
    """boto3's own environment (``AWS_*``, profiles, roles of the machine): for processes without Airflow.

    :param tuning: of botocore's Config, over our defaults.
    """

    aws_conn_id = ""

    def __init__(self, *, tuning: Mapping[str, Any] | None = None) -> None:
        self._tuning = dict(tuning or {})

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.session.Session()

    @cached_property
    def client(self) -> Any:
        """A client with the environment's endpoint, region, role and keys."""
        return self._session.client("s3", config=_config(self._tuning))

    @cached_property
    def place(self) -> S3Place:
        """Where it leads."""
        return _place(self.client, "", self._session.get_credentials)


def _config(own: dict[str, Any]) -> Config:
    # Over TLS the body is protected already; its SHA-256 in the signature would cost a fifth of the CPU.
    s3 = {"payload_signing_enabled": False, **(own.pop("s3", None) or {})}
    return Config(**{**_DEFAULTS, **own, "s3": s3})


def _place(client: Any, bucket: str, credentials: Callable[[], Any]) -> S3Place:
    place = S3Place(client.meta.endpoint_url, client.meta.partition, bucket=bucket)
    if place.is_aws:
        # Which keys they are matters elsewhere only, and to ask may mean to assume a role once more.
        return place
    found = credentials()
    return replace(place, access_key=found.access_key if found else "")
