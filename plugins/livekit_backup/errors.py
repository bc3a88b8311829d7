"""Every error this package raises, and what Airflow does with each.

::

    LivekitBackupError
    ├── RetryableError                the same call may succeed later: Airflow retries it
    │   ├── SourceUnavailableError    LiveKit's side did not answer, or answered 429 or 5xx
    │   ├── TransferInterruptedError  the body of a recording stopped, stalled or was cut short
    │   │   └── SourceChangedError    the recording is not the one that the transfer began with
    │   ├── StorageUnavailableError   an inbox, warehouse or ledger did not answer, or answered 5xx
    │   ├── ChecksumMismatchError     a store received other bytes than were sent
    │   ├── UploadGoneError           the open upload was aborted by another task or a lifecycle rule
    │   └── AlarmNotSentError         a notifier failed, so nobody has heard of an alarm through it
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
    │   ├── UnprovenError             nothing proves the source's bytes, and verify is strict
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
    what_to_do: str = "read the log above, and clear this task"
    """For a person, behind the error's own text, which may begin with it. It ends a failed task's log."""


class RetryableError(LivekitBackupError):
    """The same call may succeed later."""

    what_to_do = "clear this task once it passes"


class SourceUnavailableError(RetryableError):
    """LiveKit's side did not answer, or answered 429 or 5xx."""

    what_to_do = "clear this task once LiveKit's side answers"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the source asked to wait; None when it did not."""


class TransferInterruptedError(RetryableError):
    """The body of a recording stopped, stalled or was cut short."""

    what_to_do = "clear this task: it goes on with what has arrived"


class SourceChangedError(TransferInterruptedError):
    """The recording is not the one that the transfer began with."""

    what_to_do = "clear this task: it begins anew"


class StorageUnavailableError(RetryableError):
    """An inbox, warehouse or ledger did not answer, or answered 5xx."""

    what_to_do = "clear this task once the store answers"


class ChecksumMismatchError(RetryableError):
    """A store received other bytes than were sent."""

    what_to_do = "clear this task; if it comes back, suspect the memory of the worker or a proxy before the store"


class UploadGoneError(RetryableError):
    """The open upload was aborted by another task or a lifecycle rule."""

    what_to_do = "clear this task; if it comes back, see which lifecycle rule aborts uploads so early"


class AlarmNotSentError(RetryableError):
    """A notifier failed, so nobody has heard of an alarm through it."""

    what_to_do = "mend the notifier or its connection; the next run tells it, whoever has been told is not told again"


class PermanentError(LivekitBackupError):
    """No retry can help."""

    what_to_do = "send this line to LiveKit's support"


class LinkExpiredError(PermanentError):
    """A signed URL's time is over."""

    outcome = Outcome.EXPIRED
    what_to_do = "only LiveKit's support could still have it"


class MissingError(PermanentError):
    """The signed URL works, but nothing is behind it."""

    outcome = Outcome.MISSING
    what_to_do = "send this line to LiveKit's support"


class CorruptError(PermanentError):
    """The bytes are not the recording's."""

    outcome = Outcome.CORRUPT
    what_to_do = "clear the download task; if it stays so, send this line to LiveKit's support"


class RefusedError(PermanentError):
    """A location or name that is not touched."""

    outcome = Outcome.REFUSED
    what_to_do = "if you know the place, add its host to allowed_hosts, then clear resolve_manifests"


class UnresolvedError(PermanentError):
    """Neither a manifest nor a location leads to the file."""

    outcome = Outcome.UNRESOLVED
    what_to_do = "clear resolve_manifests with what follows it, while the links live"


class WebhookRefusedError(PermanentError):
    """LiveKit did not sign this, not now, or not these bytes."""

    what_to_do = "if it was LiveKit's, compare the API keys of the connection with the project's"

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """A word of a short list, for metrics; whoever sent it is never told."""


class NeedsOperatorError(LivekitBackupError):
    """A person has to change something before a retry can help."""

    what_to_do = "mend it, then clear this task"


class ConfigurationError(NeedsOperatorError):
    """A setting is missing or cannot be used."""

    what_to_do = "then clear this task"


class AccessDeniedError(NeedsOperatorError):
    """Credentials or rights are not enough."""

    what_to_do = "once access is given, clear this task (airflow livekit-backup doctor tries every right)"


class LandingConflictError(NeedsOperatorError):
    """The landing key holds other content."""

    what_to_do = "on_conflict=keep_both lets both stand"


class UnprovenError(NeedsOperatorError):
    """Nothing proves the source's bytes, and ``verify`` is strict."""

    what_to_do = "set verify=standard to land it as it is, then clear this task"


class UploadLostError(NeedsOperatorError):
    """What download left is not there any more, so it has to run again."""

    what_to_do = "what has landed is not fetched again"


class NotSafeError(NeedsOperatorError):
    """The run's verdict: something is not in the warehouse."""

    what_to_do = "airflow livekit-backup status says what is at risk now"


class UnreadableEventError(LivekitBackupError):
    """A stored document is not a LiveKit event; it is kept and reported."""

    what_to_do = "look at the document: it stays where it is"
