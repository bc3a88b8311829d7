"""How boto's errors become ours: every text names the URI and what was asked of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.parsers import create_parser

from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    LivekitBackupError,
    SourceChangedError,
    StorageUnavailableError,
    UploadGoneError,
)

ABSENT = frozenset({"404", "NoSuchKey"})
CONFLICT = frozenset({"412", "PreconditionFailed"})
_NOT_IMPLEMENTED = frozenset({"501", "NotImplemented"})
_MISMATCH = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_BAD_RANGE = frozenset({"416", "InvalidRange"})
# Sources of the three: Amazon S3's "List of error codes", AWS' "Common Errors", AWS KMS and STS, and what botocore
# retries; UserSuspended and QuotaExceeded are Ceph's. Codes that are in none follow the HTTP status.
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_TRANSIENT = _SKEWED | frozenset(
    {
        "BandwidthLimitExceeded",
        "Busy",
        "ConditionalRequestConflict",
        "DependencyTimeoutException",
        "IDPCommunicationError",
        "IncompleteBody",
        "InternalError",
        "InternalFailure",
        "KMSInternalException",
        "LimitExceededException",
        "OperationAborted",
        "PriorRequestNotComplete",
        "RequestAbortedException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "TemporaryRedirect",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidPayer",
        "InvalidSecurity",
        "InvalidToken",
        "NotAuthorized",
        "NotSignedUp",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnauthorizedAccess",
        "UnrecognizedClientException",
        "UserSuspended",
    }
)
_CONFIGURATION = frozenset({"InvalidObjectState", "QuotaExceeded"})
"""An archived object, and a bucket that is full: their status is 403."""


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn boto's errors into ours, naming the URI."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        raise AccessDeniedError(f"{uri}: the connection has no credentials, and none were found around it") from None
    except ClientError as error:
        raise _translate(uri, error) from None
    except BotoCoreError as error:
        raise StorageUnavailableError(f"{uri}: the store did not answer: {error}") from None


@contextlib.contextmanager
def source_errors(uri: str) -> Iterator[None]:
    """Tell what became of the object that is read or copied; to stand inside :func:`store_errors`.

    :raises FileNotFoundError: it is not there.
    :raises SourceChangedError: another version is there; also one that ends before the bytes that were asked for.
    """
    try:
        yield
    except ClientError as error:
        if error_code(error) in ABSENT:
            raise FileNotFoundError(uri) from None
        if error_code(error) in CONFLICT | _BAD_RANGE:
            raise source_changed(uri) from None
        raise


def error_in(answer: Any, operation: str) -> ClientError:
    """Return the error that an HTTP answer of a store stands for, as boto would have raised it."""
    read = {"status_code": answer.status_code, "headers": answer.headers, "body": answer.content}
    return ClientError(create_parser("rest-xml").parse(read, None), operation)


def source_changed(uri: str) -> SourceChangedError:
    """Return the error that says that an object was replaced."""
    return SourceChangedError(f"{uri} is another version than before")


def error_code(error: ClientError) -> str:
    """Return S3's code of an error; of a HEAD, whose answers have no body, the HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def error_status(error: ClientError) -> int:
    """Return the HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(error: ClientError) -> bool:
    """Whether the same call may succeed later."""
    return _room(error) is StorageUnavailableError


def is_not_implemented(error: ClientError) -> bool:
    """Whether the store says that it lacks something that was asked of it."""
    return error_code(error) in _NOT_IMPLEMENTED or error_status(error) == 501


def call_without_unknown(
    call: Callable[..., Any], optional: Sequence[frozenset[str]], arguments: dict[str, Any]
) -> tuple[Any, frozenset[str]]:
    """Make a call; where the store answers 501, make it again without some of its arguments.

    A store does not say reliably which argument it lacks, so the sets are tried one after the other.

    :param optional: sets of arguments to leave out, the most dispensable first.
    :return: the answer, and the arguments that were left out.
    """
    present = [frozenset(names & arguments.keys()) for names in (frozenset[str](), *optional)]
    attempts = list(dict.fromkeys(present))
    for left_out in attempts:
        try:
            return call(**{name: value for name, value in arguments.items() if name not in left_out}), left_out
        except ClientError as error:
            if left_out == attempts[-1] or not is_not_implemented(error):
                raise
    raise AssertionError("there is a first attempt, and the last one returns or raises")


def _translate(uri: str, error: ClientError) -> LivekitBackupError:
    code, message = error_code(error), str(error.response.get("Error", {}).get("Message", ""))
    kind, hint = _kind(error, code, message)
    return kind(f"{uri}: {error.operation_name} answered {code}{hint and f': {hint}'}")


def _kind(error: ClientError, code: str, message: str) -> tuple[type[LivekitBackupError], str]:
    """Return the class of an error, and what its text adds."""
    if code == "NoSuchUpload":
        return UploadGoneError, "the upload was aborted"
    if code in _MISMATCH or _is_wrong_whole(error, code, message):
        return ChecksumMismatchError, "the store received other bytes than were sent"
    if code == "NoSuchBucket":
        return ConfigurationError, "create the bucket or correct the setting"
    kind = _room(error)
    if kind is AccessDeniedError:
        return kind, "check the connection's keys and the bucket's policy"
    if kind is ConfigurationError:
        return kind, message
    return kind, "this machine's clock and the store's differ" if code in _SKEWED else ""


def _room(error: ClientError) -> type[LivekitBackupError]:
    """Return whether time, other rights or another setting would help."""
    # The code goes before the status: a clock that is off is answered 403, a body that was cut short 400, and
    # botocore makes a 500 of an error that came in a 200's body. A KMS' codes come with its name before them.
    code, status = error_code(error).removeprefix("KMS."), error_status(error)
    for codes, kind in (
        (_TRANSIENT, StorageUnavailableError),
        (_DENIED, AccessDeniedError),
        (_CONFIGURATION, ConfigurationError),
    ):
        if code in codes:
            return kind
    if status in (401, 403):
        return AccessDeniedError
    if status in (408, 429) or (status >= 500 and status != 501):
        return StorageUnavailableError
    return ConfigurationError


def _is_wrong_whole(error: ClientError, code: str, message: str) -> bool:
    """Whether a completion failed since the store holds other parts, or of another size, than it was told.

    AWS answers InvalidPart to a part's other ETag, and InvalidRequest to another ``x-amz-mp-object-size``.
    """
    if error.operation_name != "CompleteMultipartUpload":
        return False
    return code == "InvalidPart" or (code == "InvalidRequest" and "object-size" in message.lower())
