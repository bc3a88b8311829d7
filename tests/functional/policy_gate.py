"""IAM's judgement of every request that boto sends in this process, by the policies in ``docs/permissions.md``.

None of the embedded servers enforces policies, so the gate stands at boto's ``before-send``: it sees each request as it
goes out, also those that the product signs and sends itself, answers what is not allowed as S3 would, and remembers
which right each used. Actions by operation: AWS, "Actions, resources, and condition keys for Amazon S3".
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.awsrequest import AWSResponse

from ..conftest import ROOT

SECTION = re.compile(r"^## (\w+)$.*?```json\n(.*?)```", re.MULTILINE | re.DOTALL)
ON_BUCKETS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
}
ON_OBJECTS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts",
    "DeleteObject": "s3:DeleteObject",
    "GetObjectTagging": "s3:GetObjectTagging",
    "PutObjectTagging": "s3:PutObjectTagging",
}
BY_HEADER = {"x-amz-tagging": "s3:PutObjectTagging", "x-amz-acl": "s3:PutObjectAcl"}

Right = tuple[str, str, str]
"""Section of the docs, action and resource."""


def policies(**buckets: str) -> dict[str, list[dict[str, Any]]]:
    """The documented statements by their section, over the test's own buckets."""
    found = {}
    for name, text in SECTION.findall((ROOT / "docs" / "permissions.md").read_text()):
        own = text
        for documented, bucket in buckets.items():
            own = re.sub(rf"(?<=:::){documented.replace('_', '-')}(?=[/\"])", bucket, own)
        found[name] = json.loads(own)["Statement"]
    return found


class PolicyGate:
    """Allows what some of the documented policies allow."""

    def __init__(self, documented: Mapping[str, list[dict[str, Any]]], *sections: str) -> None:
        self._statements = [(name, statement) for name in sections for statement in documented[name]]
        self.used: set[Right] = set()
        self.denied: list[tuple[str, str]] = []
        """Action and resource."""
        self.seen: set[str] = set()
        """Operations."""

    @property
    def rights(self) -> set[Right]:
        """Every single right of the policies."""
        return {
            (name, action, resource)
            for name, statement in self._statements
            for action in statement["Action"]
            for resource in statement["Resource"]
        }

    def judge(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        """Boto's handler: None lets the request pass."""
        operation = event_name.rpartition(".")[2]
        self.seen.add(operation)
        wrong = [
            (action, arn) for action, arn, prefix in _asked(operation, request) if not self._allows(action, arn, prefix)
        ]
        self.denied += wrong
        return _denied(request.url) if wrong else None

    def _allows(self, action: str, arn: str, prefix: str | None) -> bool:
        used = {
            (name, action, resource)
            for name, statement in self._statements
            if action in statement["Action"]
            for resource in statement["Resource"]
            if fnmatchcase(arn, resource) and _meets(statement.get("Condition"), prefix)
        }
        self.used |= used
        return bool(used)


def _meets(condition: Mapping[str, Any] | None, prefix: str | None) -> bool:
    """Whether a listing's prefix is allowed; the policies have no other condition."""
    if condition is None:
        return True
    [(kind, keys)] = condition.items()
    assert (kind, list(keys)) == ("StringLike", ["s3:prefix"])
    return any(fnmatchcase(prefix or "", pattern) for pattern in keys["s3:prefix"])


def _asked(operation: str, request: Any) -> Iterator[tuple[str, str, str | None]]:
    """Give every action that S3 would ask the policies for, its resource, and a listing's prefix."""
    parts = urlsplit(request.url)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    if operation in ON_BUCKETS:
        prefix = parse_qs(parts.query, keep_blank_values=True).get("prefix", [""])[0]
        yield ON_BUCKETS[operation], f"arn:aws:s3:::{bucket}", prefix
        return
    # An operation without a line here has no right in the docs either.
    yield ON_OBJECTS[operation], f"arn:aws:s3:::{bucket}/{key}", None
    headers = {name.lower(): value for name, value in request.headers.items()}
    for header, action in BY_HEADER.items():
        if header in headers:
            yield action, f"arn:aws:s3:::{bucket}/{key}", None
    if source := headers.get("x-amz-copy-source"):
        text = source.decode() if isinstance(source, bytes) else source
        yield "s3:GetObject", f"arn:aws:s3:::{unquote(text).lstrip('/')}", None


class _Raw(io.BytesIO):
    """An answer's body, as boto and the product's own reader take it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.getvalue()

    def drain_conn(self) -> None:
        pass


def _denied(url: str) -> AWSResponse:
    body = b"<Error><Code>AccessDenied</Code><Message>by the documented policies</Message></Error>"
    return AWSResponse(url, 403, {"Content-Type": "application/xml"}, _Raw(body))
