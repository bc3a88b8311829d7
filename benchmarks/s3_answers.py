"""What an S3 API is asked and answers, as far as the discarding sink needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Request:
    """A request's head, with the names of its headers in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Body:
    """What is known of a request's body."""

    length: int
    kept: bytes | None
    """None: it was a recording's, and dropped."""
    md5: bytes
    checksums: Mapping[str, str]
    wrong: str = ""
    """Why it must be refused."""
    hashed: bool = False
    """The sink had to hash it itself."""


@dataclass(frozen=True)
class Answer:
    """An answer to a request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def is_checksum(header: str) -> bool:
    """Whether a header, its name in lower case, carries a checksum and not something about one."""
    return header.startswith("x-amz-checksum-") and not header.endswith(("-algorithm", "-type", "-mode"))


def metadata(request: Request) -> dict[str, str]:
    """What of a request's headers is kept with an object."""
    kept = {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
    return {"Content-Type": request.headers.get("content-type", "binary/octet-stream"), **kept}


def with_type(checksums: Mapping[str, str], kind: str) -> dict[str, str]:
    """Checksums with the header that says what they are of."""
    return {**checksums, "x-amz-checksum-type": kind} if checksums else {}


def element(header: str) -> str:
    """The XML element of a checksum's header."""
    return f"Checksum{header.removeprefix('x-amz-checksum-').upper()}"


def place(path: str) -> str:
    """Bucket and key as XML."""
    _, bucket, key = path.split("/", 2)
    return f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key>"


def xml(text: str) -> Answer:
    """An answer in XML."""
    return Answer(200, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), {"Content-Type": "application/xml"})


def error(status: int, code: str, message: str) -> Answer:
    """A refusal as S3 words it."""
    text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


def no_upload() -> Answer:
    """The refusal of an upload that is gone."""
    return error(404, "NoSuchUpload", "The specified upload does not exist.")
