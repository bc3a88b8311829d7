"""How objects are made in the warehouse: encryption, storage class, tags and the like, under boto3's own names.

Source of names, values and limits: Amazon S3's API reference for CreateMultipartUpload and
PutObject, and its user guide on object tags and on metadata.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, urlencode

from pydantic import ConfigDict, Field, StrictStr, field_validator, model_validator

from livekit_backup.models.wire import FrozenModel

MAX_METADATA_BYTES = 768
"""S3 takes 2 KiB of names and values; where a recording comes from takes up to 1,250 of them."""
MAX_TAGS = 10

_KMS = ("aws:kms", "aws:kms:dsse")
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_ACCOUNT = re.compile(r"[0-9]{12}")
_TAG_TEXT = re.compile(r"[\w +\-=.:/@]*")
"""Letters and digits of every script, spaces, and these signs."""
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_METADATA_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")
"""Printable ASCII; HTTP drops spaces around it."""
_ENCRYPTION = ("ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled")


class UploadOptions(FrozenModel):
    """Checked options; what is not set is the bucket's own default."""

    model_config = ConfigDict(extra="forbid")

    ServerSideEncryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    SSEKMSKeyId: str | None = Field(default=None, min_length=1)
    SSEKMSEncryptionContext: str | None = None
    """JSON object of text, base64, as S3 takes it; a mapping given is encoded so."""
    BucketKeyEnabled: bool | None = None
    StorageClass: (
        Literal[
            "STANDARD",
            "REDUCED_REDUNDANCY",
            "STANDARD_IA",
            "ONEZONE_IA",
            "INTELLIGENT_TIERING",
            "GLACIER_IR",
            "OUTPOSTS",
            "SNOW",
            "EXPRESS_ONEZONE",
        ]
        | None
    ) = None
    ACL: (
        Literal[
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "aws-exec-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ]
        | None
    ) = None
    Tagging: Mapping[str, StrictStr] = Field(default_factory=dict)
    Metadata: Mapping[str, StrictStr] = Field(default_factory=dict)
    ExpectedBucketOwner: str | None = None
    """An AWS account."""
    RequestPayer: Literal["requester"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_known_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError("must be a JSON object or a mapping")
        for name in data:
            if name not in cls.model_fields:
                close = difflib.get_close_matches(str(name), cls.model_fields, n=1, cutoff=0.5)
                meant = f" (did you mean {close[0]}?)" if close else ""
                raise ValueError(f"has the unknown key {name!r}{meant}; known are {', '.join(cls.model_fields)}")
        return data

    @field_validator("SSEKMSEncryptionContext", mode="before")
    @classmethod
    def _is_encryption_context(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = base64.b64encode(json.dumps(dict(value)).encode()).decode()
        if isinstance(value, str):
            try:
                context = json.loads(base64.b64decode(value, validate=True))
            except ValueError:
                context = None
            if not isinstance(context, dict) or not all(isinstance(text, str) for text in context.values()):
                raise ValueError("must be a mapping of text to text, or such a JSON object in base64")
        return value

    @field_validator("StorageClass", mode="before")
    @classmethod
    def _can_be_read_at_once(cls, value: Any) -> Any:
        if value in _ARCHIVES:
            raise ValueError(
                "is an archive, and a landed recording must be readable to be verified: "
                "move it there by a lifecycle rule of the bucket"
            )
        return value

    @field_validator("ExpectedBucketOwner", mode="before")
    @classmethod
    def _is_account(cls, value: Any) -> Any:
        # A number would have lost the zeros that an account may begin with.
        if value is not None and not (isinstance(value, str) and _ACCOUNT.fullmatch(value)):
            raise ValueError("must be the 12 digits of an AWS account, as text")
        return value

    @field_validator("Tagging")
    @classmethod
    def _are_tags(cls, tags: Mapping[str, str]) -> Mapping[str, str]:
        if len(tags) > MAX_TAGS:
            raise ValueError(f"has {len(tags)} tags, and S3 allows {MAX_TAGS}")
        for key, value in tags.items():
            if not 1 <= len(key) <= 128 or not _TAG_TEXT.fullmatch(key) or key.lower().startswith("aws:"):
                raise ValueError(
                    f"has the key {key!r}: S3 allows 1 to 128 letters, digits, spaces and + - = . _ : / @, "
                    "but not aws: at its beginning"
                )
            if len(value) > 256 or not _TAG_TEXT.fullmatch(value):
                raise ValueError(
                    f"has the value {value!r}: S3 allows up to 256 letters, digits, spaces and + - = . _ : / @"
                )
        return tags

    @field_validator("Metadata")
    @classmethod
    def _is_metadata(cls, metadata: Mapping[str, str]) -> Mapping[str, str]:
        lowered = {name.lower(): value for name, value in metadata.items()}
        if len(lowered) < len(metadata):
            raise ValueError("has a key twice: S3 makes no difference between small and capital letters")
        for name, value in lowered.items():
            if name.startswith("livekit-"):
                raise ValueError(f"has the key {name!r}: livekit- is for where a recording comes from")
            if not _METADATA_NAME.fullmatch(name):
                raise ValueError(f"has the key {name!r}: it goes into a header, so only letters, digits, - _ and .")
            if not _METADATA_VALUE.fullmatch(value):
                raise ValueError(f"has the value {value!r}: only ASCII, without spaces around it")
        size = sum(len(name) + len(value) for name, value in lowered.items())
        if size > MAX_METADATA_BYTES:
            raise ValueError(f"has {size} bytes of keys and values; {MAX_METADATA_BYTES} are left of S3's 2 KiB")
        return lowered

    @model_validator(mode="after")
    def _go_together(self) -> UploadOptions:
        for name in ("SSEKMSKeyId", "SSEKMSEncryptionContext"):
            if getattr(self, name) is not None and self.ServerSideEncryption not in _KMS:
                raise ValueError(f"has {name}, which needs ServerSideEncryption aws:kms or aws:kms:dsse")
        if self.BucketKeyEnabled and self.ServerSideEncryption not in (None, "aws:kms"):
            raise ValueError(f"has BucketKeyEnabled, which {self.ServerSideEncryption} does not know")
        return self

    def for_call(self) -> dict[str, Any]:
        """Return the arguments of every call."""
        return self._given("ExpectedBucketOwner", "RequestPayer")

    def for_document(self) -> dict[str, Any]:
        """Return the arguments that make a small document of the ledger, which is rewritten and read often."""
        return {**self.for_call(), **self._given(*_ENCRYPTION, "ACL")}

    def for_recording(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments that make a recording, with this metadata of ours."""
        arguments = {**self.for_document(), **self._given("StorageClass"), "Metadata": {**self.Metadata, **metadata}}
        if self.Tagging:
            arguments["Tagging"] = urlencode(self.Tagging, quote_via=quote)
        return arguments

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}
