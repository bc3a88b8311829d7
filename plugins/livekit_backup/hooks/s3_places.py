"""Which object of a store a plain URL names, and whether two stores are one.

Source of the host names: Amazon S3's user guide, "Methods for accessing a general purpose bucket" and
"Using Amazon S3 dual-stack endpoints".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from livekit_backup.core.locations import Location

_AWS_HOST = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:-fips|-accelerate)?(?:\.dualstack)?(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9]))?"
    r"\.amazonaws\.com(?P<china>\.cn)?"
)
_AWS_ENDPOINT = re.compile(r"(?:.+\.)?amazonaws\.com(?:\.cn)?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class S3Place:
    """Where a connection leads."""

    endpoint_url: str
    """As boto uses it, also where it is AWS's own."""
    partition: str = "aws"
    """AWS's: aws, aws-cn, aws-us-gov and so on."""
    access_key: str = ""
    bucket: str = ""
    """The only bucket that locations may name; empty: any."""

    @property
    def is_aws(self) -> bool:
        """Whether it is AWS itself, also by a VPC endpoint."""
        return bool(_AWS_ENDPOINT.fullmatch(urlsplit(self.endpoint_url).hostname or ""))

    @property
    def name(self) -> str:
        """The endpoint alone, without anything that could be a secret."""
        scheme, host, port, path = _normal(self.endpoint_url)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"

    def uri_of(self, location: Location) -> str | None:
        """Return the ``s3://bucket/key`` that a plain location names here, or None where it names something else."""
        if not location.is_plain or location.scheme not in _PORTS:
            return None
        bucket, key = self._on_aws(location) if self.is_aws else self._on_endpoint(location)
        if not key or not _BUCKET.fullmatch(bucket) or self.bucket not in ("", bucket):
            return None
        try:
            key = unquote(key, errors="strict")
        except UnicodeDecodeError:
            return None
        # What stands between us and the store could take them for a way into another bucket.
        return None if {".", ".."} & set(key.split("/")) else f"s3://{bucket}/{key}"

    def _on_aws(self, location: Location) -> tuple[str, str]:
        """Split a location into bucket and key, both empty where it is elsewhere."""
        match = _AWS_HOST.fullmatch(location.host)
        if not match or location.port != _PORTS[location.scheme] or _partition(match) != self.partition:
            return "", ""
        return _split(match["bucket"] or "", location.path.removeprefix("/"))

    def _on_endpoint(self, location: Location) -> tuple[str, str]:
        endpoint = urlsplit(self.endpoint_url)
        host, root = (endpoint.hostname or "").lower(), f"{endpoint.path.rstrip('/')}/"
        if location.port != (endpoint.port or _PORTS.get(endpoint.scheme)) or not location.path.startswith(root):
            return "", ""
        bucket = location.host.removesuffix(f".{host}")
        if location.host != host and bucket == location.host:
            return "", ""
        return _split("" if location.host == host else bucket, location.path.removeprefix(root))

    def can_copy_from(self, other: S3Place) -> bool:
        """Whether this store can copy an object of the other one by itself, given the rights.

        On AWS a bucket's name is one bucket in a partition, and copies go between regions too. Elsewhere
        a name may be another bucket for other keys (Swift, Ceph with tenants), so those must be the same.
        """
        if self.is_aws and other.is_aws:
            return self.partition == other.partition
        return (_normal(self.endpoint_url), self.access_key) == (_normal(other.endpoint_url), other.access_key)


def _split(bucket: str, path: str) -> tuple[str, str]:
    """Split a path into bucket and key, where the host has not named the bucket."""
    if bucket:
        return bucket, path
    bucket, _, key = path.partition("/")
    return bucket, key


def _partition(match: re.Match[str]) -> str:
    """Return the partition of a host name, where that is one of those that share AWS's own domains."""
    if match["china"]:
        return "aws-cn"
    return "aws-us-gov" if (match["region"] or "").startswith("us-gov-") else "aws"


def _normal(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
