"""An Airflow connection as a boto client, and where it leads."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config

from livekit_backup.hooks.s3_places import S3Place

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
    """One connection; nothing is looked up before it is used."""

    def __init__(self, aws_conn_id: str) -> None:
        self.aws_conn_id = aws_conn_id

    @cached_property
    def _hook(self) -> S3Hook:
        return S3Hook(aws_conn_id=self.aws_conn_id)

    @cached_property
    def client(self) -> Any:
        """A client with the connection's endpoint, region, role and keys; its own ``config_kwargs`` win."""
        own: dict[str, Any] = dict(getattr(self._hook.config, "_user_provided_options", {}))
        # Over TLS the body is protected already; its SHA-256 in the signature would cost a fifth of the CPU.
        s3 = {"payload_signing_enabled": False, **(own.pop("s3", None) or {})}
        config = Config(**{**_DEFAULTS, **own, "s3": s3})
        return self._hook.get_client_type(region_name=self._hook.region_name, config=config)

    @cached_property
    def place(self) -> S3Place:
        """Where it leads. Its bucket is the connection's own: ``bucket_name`` in ``service_config`` for S3."""
        meta = self.client.meta
        place = S3Place(meta.endpoint_url, meta.partition, bucket=self._hook.service_config.get("bucket_name") or "")
        if place.is_aws:
            # Which keys they are matters elsewhere only, and to ask may mean to assume a role once more.
            return place
        credentials = self._hook.get_session().get_credentials()
        return replace(place, access_key=credentials.access_key if credentials else "")
