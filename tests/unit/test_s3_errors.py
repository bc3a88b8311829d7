"""Which errors of a store pass by themselves, which take other rights, and which another setting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    StorageUnavailableError,
    UploadGoneError,
)
from livekit_backup.hooks.s3_errors import is_transient, store_errors
from livekit_backup.hooks.s3_objects import S3Objects

URI = "s3://bucket/some/key"


def _error(code, status, operation="PutObject"):
    answer = {"Error": {"Code": code, "Message": "as it says"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


@pytest.mark.parametrize(
    ("code", "status", "ours"),
    [
        ("RequestTimeTooSkewed", 403, StorageUnavailableError),
        ("RequestExpired", 400, StorageUnavailableError),
        ("IncompleteBody", 400, StorageUnavailableError),
        ("OperationAborted", 409, StorageUnavailableError),
        ("ConditionalRequestConflict", 409, StorageUnavailableError),
        ("RequestTimeout", 400, StorageUnavailableError),
        ("408", 408, StorageUnavailableError),
        ("SlowDown", 503, StorageUnavailableError),
        ("Throttling", 400, StorageUnavailableError),
        ("KMS.ThrottlingException", 400, StorageUnavailableError),
        ("KMS.DependencyTimeoutException", 400, StorageUnavailableError),
        ("TemporaryRedirect", 307, StorageUnavailableError),
        ("InternalError", 200, StorageUnavailableError),
        ("Anything", 507, StorageUnavailableError),
        ("ExpiredToken", 400, AccessDeniedError),
        ("InvalidToken", 400, AccessDeniedError),
        ("TokenRefreshRequired", 400, AccessDeniedError),
        ("KMS.AccessDeniedException", 400, AccessDeniedError),
        ("AccessDenied", 500, AccessDeniedError),
        ("Anything", 403, AccessDeniedError),
        ("401", 401, AccessDeniedError),
        ("InvalidObjectState", 403, ConfigurationError),
        ("QuotaExceeded", 403, ConfigurationError),
        ("KMS.DisabledException", 400, ConfigurationError),
        ("KMS.NotFoundException", 400, ConfigurationError),
        ("AuthorizationHeaderMalformed", 400, ConfigurationError),
        ("EntityTooSmall", 400, ConfigurationError),
        ("NotImplemented", 501, ConfigurationError),
        ("Anything", 400, ConfigurationError),
        ("NoSuchBucket", 404, ConfigurationError),
        ("NoSuchUpload", 404, UploadGoneError),
        ("BadDigest", 400, ChecksumMismatchError),
    ],
)
def test_the_code_goes_before_the_status(code, status, ours):
    error = _error(code, status)
    with pytest.raises(ours) as caught, store_errors(URI):
        raise error
    assert type(caught.value) is ours
    assert f"{URI}: PutObject answered {code}" in str(caught.value)
    assert is_transient(error) is (ours is StorageUnavailableError)


def test_a_clock_that_is_off_is_named():
    with pytest.raises(StorageUnavailableError, match="this machine's clock and the store's differ"), store_errors(URI):
        raise _error("RequestTimeTooSkewed", 403)


def _objects(error):
    def fail(**_):
        raise error

    objects = S3Objects("unused")
    objects.connection.client = SimpleNamespace(
        get_object_tagging=fail, meta=SimpleNamespace(endpoint_url="http://Minio.acme:9000/")
    )
    return objects


def test_tags_for_which_the_right_is_missing():
    assert not _objects(_error("AccessDenied", 403)).add_tags(URI, {"a": "b"})


def test_tags_that_only_fail_now():
    with pytest.raises(StorageUnavailableError):
        _objects(_error("RequestTimeTooSkewed", 403)).add_tags(URI, {"a": "b"})


def test_the_name_of_a_store():
    assert _objects(None).place_name() == "http://minio.acme:9000"
