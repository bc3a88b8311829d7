"""What the embedded S3 servers have in common: how to reach one, and its life as a context manager."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

HOST = "127.0.0.1"
# Below every system's range for outgoing connections: a remembered port is not
# lent to some client while the server is down.
_PORTS = range(20_000, 32_000)


class S3Endpoint(ABC):
    """One S3 server on loopback, in path style, with fixed credentials."""

    region: ClassVar[str] = "us-east-1"
    access_key: ClassVar[str]
    secret_key: ClassVar[str]

    @property
    @abstractmethod
    def endpoint_url(self) -> str:
        """The URL of the S3 API, known from the first start on."""

    @abstractmethod
    def start(self) -> None:
        """Start the server and return once it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server."""

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Stop the server."""
        self.stop()

    def airflow_connection(self) -> str:
        """Return the connection as JSON, ready for ``AIRFLOW_CONN_AWS_DEFAULT``."""
        extra = {
            "endpoint_url": self.endpoint_url,
            "region_name": self.region,
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }
        login = {"login": self.access_key, "password": self.secret_key}
        return json.dumps({"conn_type": "aws", **login, "extra": extra})

    def client(self) -> Any:
        """A boto3 client of this server; boto3 has to be installed."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}),
        )


def free_port(wanted: int = 0, others: Collection[int] = ()) -> int:
    """Return *wanted* if it is free, else any free port that is none of *others*."""
    candidates = [wanted] if wanted else []
    for port in [*candidates, *random.sample(_PORTS, 100)]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As the servers bind: connections of the last run that linger do not count, a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            if port not in others:
                return port
    raise RuntimeError("no free port found")


def is_healthy(port: int, path: str, says: bytes = b"") -> bool:
    """Tell whether a GET is answered with 200 and a body that *says* so."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status == http.HTTPStatus.OK and says in answer.read()
    return False


def tail(path: Path) -> str:
    """Return the last lines of a log."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        return file.read().decode(errors="replace")
    return "(no log)"
