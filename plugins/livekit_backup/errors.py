"""Every error this package raises, and what Airflow does with each.

::

    LivekitBackupError
    ├── RetryableError                the same call may succeed later: Airflow retries it
    │   ├── SourceUnavailableError    LiveKit's side did not answer, or answered 429 or 5xx
    │   ├── TransferInterruptedError  the body of a recording stopped, stalled or was cut short
    │   │   └── SourceChangedError    the recording is not the one that the transfer began with
    │   ├── StorageUnavailableError   an inbox, warehouse or ledger did not answer, or answered 5xx
    │   ├── ChecksumMismatchError     a store received other bytes than were sent
    │   └── UploadGoneError           the open upload was aborted by another task or a lifecycle rule
    ├── PermanentError                no retry can help: the outcome is final
    │   ├── LinkExpiredError          a signed URL's time is over
    │   ├── MissingError              the signed URL works, but nothing is behind it
    │   ├── CorruptError              the bytes are not the recording's
    │   ├── RefusedError              a location or name that is not touched
    │   ├── UnresolvedError           neither a manifest nor a location leads to the file
    │   └── WebhookRefusedError       LiveKit did not sign this, not now, or not these bytes
    ├── NeedsOperatorError            a person has to change something first
    │   ├── ConfigurationError        a setting is missing or cannot be used
    │   ├── AccessDeniedError         credentials or rights are not enough
    │   ├── LandingConflictError      the landing key holds other content
    │   ├── UploadLostError           what download left is not there any more, so it has to run again
    │   └── NotSafeError              the run's verdict: something is not in the warehouse
    └── UnreadableEventError          a stored document is not a LiveKit event; kept and reported

Texts are safe by construction: they name hosts, paths and keys, and never a
query string. Every class pickles (Airflow moves exceptions between processes).
"""

from __future__ import annotations

from livekit_backup.models.outcome import Outcome


class LivekitBackupError(Exception):
    """Base of all errors of this package."""

    outcome: Outcome = Outcome.FAILED
    """What a file is accounted for as when this error ends its recovery."""


class RetryableError(LivekitBackupError):
    """The same call may succeed later."""


class SourceUnavailableError(RetryableError):
    """LiveKit's side did not answer, or answered 429 or 5xx."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the source asked to wait; None when it did not."""


class TransferInterruptedError(RetryableError):
    """The body of a recording stopped, stalled or was cut short."""


class SourceChangedError(TransferInterruptedError):
    """The recording is not the one that the transfer began with."""


class StorageUnavailableError(RetryableError):
    """An inbox, warehouse or ledger did not answer, or answered 5xx."""


class ChecksumMismatchError(RetryableError):
    """A store received other bytes than were sent."""


class UploadGoneError(RetryableError):
    """The open upload was aborted by another task or a lifecycle rule."""


class PermanentError(LivekitBackupError):
    """No retry can help."""


class LinkExpiredError(PermanentError):
    """A signed URL's time is over."""

    outcome = Outcome.EXPIRED


class MissingError(PermanentError):
    """The signed URL works, but nothing is behind it."""

    outcome = Outcome.MISSING


class CorruptError(PermanentError):
    """The bytes are not the recording's."""

    outcome = Outcome.CORRUPT


class RefusedError(PermanentError):
    """A location or name that is not touched."""

    outcome = Outcome.REFUSED


class UnresolvedError(PermanentError):
    """Neither a manifest nor a location leads to the file."""

    outcome = Outcome.UNRESOLVED


class WebhookRefusedError(PermanentError):
    """LiveKit did not sign this, not now, or not these bytes."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """A word of a short list, for metrics; whoever sent it is never told."""


class NeedsOperatorError(LivekitBackupError):
    """A person has to change something before a retry can help."""


class ConfigurationError(NeedsOperatorError):
    """A setting is missing or cannot be used."""


class AccessDeniedError(NeedsOperatorError):
    """Credentials or rights are not enough."""


class LandingConflictError(NeedsOperatorError):
    """The landing key holds other content."""


class UploadLostError(NeedsOperatorError):
    """What download left is not there any more, so it has to run again."""


class NotSafeError(NeedsOperatorError):
    """The run's verdict: something is not in the warehouse."""


class UnreadableEventError(LivekitBackupError):
    """A stored document is not a LiveKit event; it is kept and reported."""
