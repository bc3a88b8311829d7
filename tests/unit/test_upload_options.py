"""How objects are made: what may be asked for, and which call gets what."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import get_args

import boto3
import pytest
from pydantic import ValidationError

from livekit_backup.core.object_metadata import provenance
from livekit_backup.models.references import FileKind, RecordingFile
from livekit_backup.models.upload_options import MAX_METADATA_BYTES, UploadOptions

KMS = {
    "ServerSideEncryption": "aws:kms",
    "SSEKMSKeyId": "alias/recordings",
    "SSEKMSEncryptionContext": {"team": "video"},
    "BucketKeyEnabled": True,
}
ALL = {
    **KMS,
    "StorageClass": "STANDARD_IA",
    "ACL": "bucket-owner-full-control",
    "Tagging": {"cost centre": "a/b+c", "tür": ""},
    "Metadata": {"Owner": "video team"},
    "ExpectedBucketOwner": "012345678901",
    "RequestPayer": "requester",
}
CREATES = ("PutObject", "CreateMultipartUpload")
CALLS = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "DeleteObject",
    "GetObject",
    "GetObjectTagging",
    "HeadObject",
    "ListMultipartUploads",
    "ListObjectsV2",
    "ListParts",
    "PutObjectTagging",
    "UploadPart",
    "UploadPartCopy",
]


def _problem(options):
    with pytest.raises(ValidationError) as caught:
        UploadOptions.model_validate(options)
    assert len(caught.value.errors()) == 1
    return caught.value.errors(include_url=False, include_input=False)[0]


def _model():
    return boto3.session.Session().client("s3", region_name="us-east-1").meta.service_model


def test_nothing_is_asked_for_by_default():
    options = UploadOptions()
    assert options.for_call() == options.for_document() == {}
    assert options.for_recording({"livekit-run": "1"}) == {"Metadata": {"livekit-run": "1"}}


def test_which_call_gets_what():
    options = UploadOptions.model_validate(ALL)
    calls = {"ExpectedBucketOwner": "012345678901", "RequestPayer": "requester"}
    context = options.SSEKMSEncryptionContext or ""
    documents = {**calls, **KMS, "SSEKMSEncryptionContext": context, "ACL": "bucket-owner-full-control"}
    assert json.loads(base64.b64decode(context)) == {"team": "video"}
    assert options.for_call() == calls
    assert options.for_document() == documents
    assert options.for_recording({"livekit-run": "1"}) == {
        **documents,
        "StorageClass": "STANDARD_IA",
        "Tagging": "cost%20centre=a%2Fb%2Bc&t%C3%BCr=",
        "Metadata": {"owner": "video team", "livekit-run": "1"},
    }


def test_boto_knows_what_each_call_gets():
    model = _model()
    options = UploadOptions.model_validate(ALL)
    for name in CREATES:
        assert options.for_recording({}).keys() <= model.operation_model(name).input_shape.members.keys()
    for name in CALLS:
        assert options.for_call().keys() <= model.operation_model(name).input_shape.members.keys()


@pytest.mark.parametrize(
    ("name", "shape"),
    [("StorageClass",) * 2, ("ACL", "ObjectCannedACL"), ("ServerSideEncryption",) * 2, ("RequestPayer",) * 2],
)
def test_the_known_names_are_botos(name, shape):
    known = set(get_args(get_args(UploadOptions.model_fields[name].annotation)[0]))
    assert known
    assert known <= set(_model().shape_for(shape).enum)
    for value in known:
        assert getattr(UploadOptions.model_validate({name: value}), name) == value
    assert _problem({name: "other"})["loc"] == (name,)


def test_an_encryption_context_as_s3_takes_it():
    given = base64.b64encode(b'{"a": "b"}').decode()
    options = UploadOptions.model_validate({"ServerSideEncryption": "aws:kms:dsse", "SSEKMSEncryptionContext": given})
    assert options.SSEKMSEncryptionContext == given


def test_dumped_options_are_read_again():
    options = UploadOptions.model_validate(ALL)
    assert UploadOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"StorageClas": "STANDARD"}, "unknown key 'StorageClas' (did you mean StorageClass?); known are ServerSide"),
        ({"storage_class": "STANDARD"}, "(did you mean StorageClass?)"),
        ({"Body": "x"}, "unknown key 'Body'"),
        ({"ServerSideEncryption": "aes256"}, "'AES256', 'aws:kms' or 'aws:kms:dsse'"),
        ({"SSEKMSKeyId": "k"}, "SSEKMSKeyId, which needs ServerSideEncryption aws:kms"),
        ({"SSEKMSKeyId": ""}, "at least 1"),
        ({"SSEKMSKeyId": "k", "ServerSideEncryption": "AES256"}, "SSEKMSKeyId, which needs"),
        ({"SSEKMSEncryptionContext": {"a": "b"}}, "SSEKMSEncryptionContext, which needs"),
        ({"SSEKMSEncryptionContext": {"a": 1}}, "mapping of text"),
        ({"SSEKMSEncryptionContext": "{}"}, "mapping of text"),
        ({"SSEKMSEncryptionContext": 1}, "valid string"),
        ({"BucketKeyEnabled": True, "ServerSideEncryption": "aws:kms:dsse"}, "BucketKeyEnabled, which aws:kms:dsse"),
        ({"StorageClass": "GLACIER"}, "readable to be verified"),
        ({"StorageClass": "DEEP_ARCHIVE"}, "lifecycle rule"),
        ({"Tagging": "a=b"}, "dictionary"),
        ({"Tagging": {"a": 1}}, "string"),
        ({"Tagging": {"": "x"}}, "has the key ''"),
        ({"Tagging": {"a" * 129: "x"}}, "1 to 128"),
        ({"Tagging": {"aws:a": "x"}}, "aws:"),
        ({"Tagging": {"a&b": "x"}}, "has the key 'a&b'"),
        ({"Tagging": {"a\n": "x"}}, "has the key"),
        ({"Tagging": {"a": "x" * 257}}, "up to 256"),
        ({"Tagging": {"a": "x<"}}, "has the value 'x<'"),
        ({"Tagging": {f"t{n}": "" for n in range(11)}}, "has 11 tags, and S3 allows 10"),
        ({"Metadata": {"a": 1}}, "string"),
        ({"Metadata": {"Livekit-Room": "x"}}, "livekit- is for"),
        ({"Metadata": {"a b": "x"}}, "header"),
        ({"Metadata": {"a": "ü"}}, "only ASCII"),
        ({"Metadata": {"a": " x"}}, "spaces around"),
        ({"Metadata": {"a": "x\r\nb: c"}}, "only ASCII"),
        ({"Metadata": {"a": "x", "A": "y"}}, "twice"),
        ({"Metadata": {"a": "x" * MAX_METADATA_BYTES}}, f"{MAX_METADATA_BYTES} are left"),
        ({"ExpectedBucketOwner": 123456789012}, "12 digits"),
        ({"ExpectedBucketOwner": "12345678901"}, "12 digits"),
        ({"ExpectedBucketOwner": "123456789012\n"}, "12 digits"),
        ({"RequestPayer": "me"}, "requester"),
        ([], "mapping"),
        ("{}", "mapping"),
    ],
)
def test_what_cannot_be_used(options, says):
    assert says in _problem(options)["msg"]


def test_the_most_that_may_be_asked_for():
    UploadOptions.model_validate(
        {
            "Tagging": {f"{n}{'ü' * 127}": "x" * 256 for n in range(10)},
            "Metadata": {"a": "x" * (MAX_METADATA_BYTES - 1)},
        }
    )


def test_ours_and_theirs_fit_into_s3s_metadata():
    longest = RecordingFile(
        egress_id="EG_" + "x" * 29,
        run=2**63,
        filename="ü" * 1000,
        kind=FileKind.SEGMENT,
        room_name="ü" * 1000,
        started=datetime(2026, 11, 23, tzinfo=UTC),
        landing_uri="s3://b/k",
    )
    ours = provenance(longest, datetime(2026, 11, 23, tzinfo=UTC), "0" * 64)
    assert sum(len(name) + len(value) for name, value in ours.items()) + MAX_METADATA_BYTES <= 2048
