r"""Tells an egress whose upload failed from one that failed for another reason.

Source: livekit/egress, ``pkg/errors/errors.go`` (``ErrUploadFailed``, ``ErrUploadQueueFull``),
``pkg/pipeline/sink/uploader/uploader.go`` and ``pkg/info/info.go`` (``SetFailed``). The error text is all that says
so; its code, 400 by ``psrpc.InvalidArgument``, stands for a wrong request as well::

    S3 upload failed: operation error S3: PutObject, https response error StatusCode: 403, …
    {S3|GCP|Azure|AliOSS|Local} upload failed: {the store's error}
    primary: S3 upload failed: …\nbackup: S3 upload failed: …      the backup was tried, and failed too
    {segment} upload failed: segment upload job queue is full
    {sink} upload queue full ({n} pending): storage cannot keep up
    failed to retrieve upload bucket region: …                     until v1.8
    {one failure}\n{another}                                       several outputs

Before v1.6.3 the store's error stood there alone, as in ``MultipartUpload: upload multipart failed``.
"""

from __future__ import annotations

import re

from livekit_backup.models.egress import EgressInfo

_UPLOAD_FAILED = re.compile(
    r"\bupload failed: |\bupload queue full \(\d+ pending\)|\bupload bucket region\b|^MultipartUpload: |"
    r"\boperation error S3: (?:PutObject|CreateMultipartUpload|UploadPart|CompleteMultipartUpload)\b",
    re.MULTILINE,
)


def failed_to_upload(info: EgressInfo) -> bool:
    """Whether a recording was made, or begun, and its upload failed with no backup behind it.

    A failure that backup saved leaves no error. One that is over in any status with such an error counts: the
    customer's storage did not get all of it.
    """
    return info.is_final and not info.backup_storage_used and bool(_UPLOAD_FAILED.search(info.error))
