"""What an object store's refusals mean to the person who has to mend them.

Source of the codes: Amazon S3's "List of error codes" and AWS KMS' errors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)

from livekit_backup.core.storage import split_uri
from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.s3_errors import error_code, error_status
from livekit_backup.models.finding import Finding, broken

_CONNECTION = "the connection {conn_id}"
_KNOWN: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"NoSuchBucket"}),
        "the bucket {bucket} does not exist",
        "create it: aws s3 mb s3://{bucket}; or correct {setting}",
    ),
    (
        frozenset({"RequestTimeTooSkewed", "RequestExpired"}),
        "this machine's clock and the store's differ too much ({code})",
        "set this machine's clock: timedatectl set-ntp true",
    ),
    (
        frozenset({"SignatureDoesNotMatch"}),
        "the store does not accept the secret key ({code})",
        f"put the secret access key that belongs to its access key into {_CONNECTION} (password)",
    ),
    (
        frozenset({"InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidSecurity"}),
        "the store does not know the access key ({code})",
        f"put a valid access key into {_CONNECTION} (login)",
    ),
    (
        frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}),
        "the session token is over or wrong ({code})",
        f"renew aws_session_token in the extra of {_CONNECTION}",
    ),
    (
        frozenset(
            {
                "301",
                "AuthorizationHeaderMalformed",
                "IllegalLocationConstraintException",
                "PermanentRedirect",
                "TemporaryRedirect",
            }
        ),
        "the bucket is in another region than the connection's ({code})",
        (
            f"put the bucket's region into the extra of {_CONNECTION} (region_name); it is told by: "
            "aws s3api get-bucket-location --bucket {bucket}"
        ),
    ),
    (
        frozenset({"KMS.NotFoundException", "KMS.DisabledException", "KMS.KMSInvalidStateException"}),
        "the encryption key is not there or disabled ({code})",
        "correct SSEKMSKeyId in AIRFLOW__LIVEKIT_BACKUP__UPLOAD_OPTIONS, or the bucket's default encryption",
    ),
)
"""What codes mean, and what to do."""

_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_OF_BUCKETS = frozenset({"s3:ListBucket", "s3:ListBucketMultipartUploads"})


@dataclass(frozen=True)
class Attempt:
    """A call that was made, and what it takes."""

    doing: str
    """As it stands behind *cannot*: ``list objects``."""
    uri: str
    """What it was made on."""
    place: str
    """The ``s3://bucket/prefix`` in which the rights are needed."""
    actions: tuple[str, ...]
    """The rights that it takes, as policies name them."""
    conn_id: str
    setting: str
    """Which key of the configuration names the place."""
    partition: str = "aws"


def boto_error(error: BaseException | None) -> ClientError | BotoCoreError | None:
    """Return boto's error behind one of ours, which shows only a part of it."""
    while error is not None:
        if isinstance(error, ClientError | BotoCoreError):
            return error
        error = error.__cause__ or error.__context__
    return None


def is_denial(error: BaseException) -> bool:
    """Whether the rights of the keys are what is missing, and not the keys themselves."""
    cause = boto_error(error)
    if not isinstance(cause, ClientError):
        return False
    code = error_code(cause)
    if any(code in codes for codes, _, _ in _KNOWN) or "KMS" in code:
        return False
    return code in _DENIED or error_status(cause) in (401, 403)


def explain(error: Exception, attempt: Attempt) -> Finding:
    """Say what an error of a store means, and how to mend it."""
    cause = boto_error(error)
    if isinstance(cause, ClientError):
        what, mend = _answered(cause, attempt)
    elif isinstance(cause, NoCredentialsError | PartialCredentialsError):
        what = "there are no credentials in the connection, nor any of this machine's own"
        mend = (
            f"put access key and secret into the connection {attempt.conn_id} (login and password), a role_arn into "
            "its extra, or give this machine a role"
        )
    elif cause is not None:
        what, mend = _unanswered(cause, attempt)
    elif isinstance(error, LivekitBackupError):
        return broken(str(error), f"check {attempt.setting} and the connection {attempt.conn_id}")
    else:
        what = f"{type(error).__name__}: {error}"
        mend = f"check login, password and extra of the connection {attempt.conn_id}"
    return broken(f"cannot {attempt.doing} at {attempt.uri}: {what}", mend)


def _unanswered(cause: BotoCoreError, attempt: Attempt) -> tuple[str, str]:
    endpoint = f"endpoint_url in the extra of the connection {attempt.conn_id}"
    if isinstance(cause, ProxyConnectionError):
        return "the proxy does not answer", "correct HTTPS_PROXY, or add the store's host to NO_PROXY"
    if isinstance(cause, SSLError):
        return (
            f"the store's certificate is not trusted: {cause}",
            f"name its CA bundle in AWS_CA_BUNDLE, or correct {endpoint}",
        )
    return f"the store does not answer: {cause}", f"start the store, open the way to it, or correct {endpoint}"


def _answered(cause: ClientError, attempt: Attempt) -> tuple[str, str]:
    code, bucket = error_code(cause), split_uri(attempt.uri)[0]
    names = {"code": code, "bucket": bucket, "setting": attempt.setting, "conn_id": attempt.conn_id}
    for codes, what, mend in _KNOWN:
        if code in codes:
            return what.format(**names), mend.format(**names)
    answer = f"{cause.operation_name} answered {code}"
    if "KMS" in code or "kms:" in str(cause):
        return f"{answer}, by its encryption key", (
            f"in the key's policy allow kms:GenerateDataKey and kms:Decrypt to {_CONNECTION.format(**names)}"
        )
    if is_denial(cause):
        return f"{answer}: the right {' and '.join(attempt.actions)} is missing", f"allow it: {policy(attempt)}"
    return answer, (
        f"look the code up in the store's documentation; check {attempt.setting} and {_CONNECTION.format(**names)}"
    )


def policy(attempt: Attempt) -> str:
    """Return the statement of a policy that would allow it."""
    bucket, prefix = split_uri(attempt.place)
    arn = f"arn:{attempt.partition}:s3:::{bucket}"
    below = f"{arn}/{prefix}/*" if prefix else f"{arn}/*"
    resource = arn if _OF_BUCKETS.issuperset(attempt.actions) else below
    return json.dumps({"Effect": "Allow", "Action": list(attempt.actions), "Resource": resource})
