"""How boto's errors become ours; what the store does is tested against a real one."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from livekit_backup.core.storage import ObjectStore
from livekit_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    RetryableError,
    StorageUnavailableError,
    UploadGoneError,
)
from livekit_backup.hooks.object_store import S3ObjectStore, _errors

URI = "s3://bucket/key"


def _client_error(code, status):
    answer = {
        "Error": {"Code": code, "Message": "as the store says"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "PutObject")


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (_client_error("AccessDenied", 403), AccessDeniedError),
        (_client_error("403", 403), AccessDeniedError),
        (_client_error("InvalidAccessKeyId", 403), AccessDeniedError),
        (_client_error("SignatureDoesNotMatch", 403), AccessDeniedError),
        (_client_error("ExpiredToken", 400), AccessDeniedError),
        (_client_error("NoSuchBucket", 404), ConfigurationError),
        (_client_error("InvalidArgument", 400), ConfigurationError),
        (_client_error("NoSuchUpload", 404), UploadGoneError),
        (_client_error("SlowDown", 503), StorageUnavailableError),
        (_client_error("Throttled", 429), StorageUnavailableError),
        (_client_error("BadDigest", 400), StorageUnavailableError),
        (_client_error("500", 500), StorageUnavailableError),
        (EndpointConnectionError(endpoint_url="http://s3.acme"), StorageUnavailableError),
        (NoCredentialsError(), AccessDeniedError),
    ],
)
def test_errors_are_ours_and_name_the_object(error, ours):
    with pytest.raises(ours) as caught, _errors(URI):
        raise error
    assert type(caught.value) is ours
    assert str(caught.value).startswith(f"{URI}: ")
    assert caught.value.__cause__ is None


def test_what_may_pass_is_retried():
    assert issubclass(StorageUnavailableError, RetryableError)


def test_other_errors_pass():
    with pytest.raises(FileNotFoundError), _errors(URI):
        raise FileNotFoundError(URI)


def test_it_is_a_store_and_connects_to_nothing_by_itself():
    assert issubclass(S3ObjectStore, ObjectStore)
    assert S3ObjectStore("no_such_connection").aws_conn_id == "no_such_connection"
