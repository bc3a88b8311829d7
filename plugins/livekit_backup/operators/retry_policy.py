"""Retries by kind of error: what is final fails at once, what may pass is waited for, longer each time."""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryDecision, RetryPolicy, RetryRule

from livekit_backup.errors import (
    LivekitBackupError,
    NeedsOperatorError,
    PermanentError,
    RetryableError,
    UnreadableEventError,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

LONGEST_ASKED_FOR = 6 * 3600.0
"""A source may ask for any Retry-After; links live for 7 days, and nobody shall lose one of four tries to a typo."""
LONGEST_REASON = 500
"""Airflow stores no more of it."""

log = logging.getLogger(__name__)


class RecoveryRetryPolicy(ExceptionRetryPolicy):
    """What every operator of this package has.

    - Permanent errors and those that need a person: fail at once, whatever ``retries`` says.
    - Retryable ones: a random delay of up to ``base_delay``, doubled with every try up to ``max_delay``, so that the
      tasks of a flood do not come back all together; behind the Retry-After where the source named one.
    - All other exceptions: the task's own ``retry_delay``.

    :param base_delay: the most that the first retry waits.
    :param max_delay: the most that any waits, unless the source asks for more.
    :param otherwise: asked about all but what is final; a task's ``retry_policy`` gets here.
    """

    def __init__(
        self,
        *,
        base_delay: timedelta = timedelta(seconds=30),
        max_delay: timedelta = timedelta(minutes=15),
        otherwise: RetryPolicy | None = None,
    ) -> None:
        final = RetryRule([PermanentError, NeedsOperatorError, UnreadableEventError], RetryAction.FAIL)
        super().__init__([final, RetryRule(RetryableError, RetryAction.RETRY)])
        self.base_delay = base_delay
        self.max_delay = max_delay
        self.otherwise = otherwise

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide, and say in one sentence what happened and what is done about it."""
        decision = super().evaluate(exception, try_number, max_tries, context)
        if decision.action is not RetryAction.FAIL and self.otherwise:
            return self.otherwise.evaluate(exception, try_number, max_tries, context)
        if decision.action is RetryAction.DEFAULT or not isinstance(exception, LivekitBackupError):
            return decision
        # Airflow has opened a group that the UI shows closed: the last line of the log must be seen.
        log.info("::endgroup::")
        if decision.action is RetryAction.FAIL or try_number > max_tries:
            reason = _sentence(exception, exception.what_to_do)
            log.error("%s", reason)
            # Airflow fails it by itself when no try is left, and counts it.
            action = decision.action if decision.action is RetryAction.FAIL else RetryAction.DEFAULT
            return RetryDecision(action, reason=reason)
        delay = self._delay(exception, try_number)
        what_next = f"try {try_number + 1} of {max_tries + 1} follows in {delay.total_seconds():.0f} s"
        return RetryDecision.retry(delay, _sentence(exception, what_next))

    def _delay(self, error: LivekitBackupError, try_number: int) -> timedelta:
        # More doublings than that overflow, and are at the most long before.
        most = min(self.max_delay, self.base_delay * 2 ** min(max(try_number, 1) - 1, 20))
        asked_for = min(float(getattr(error, "retry_after", None) or 0), LONGEST_ASKED_FOR)
        jitter: timedelta = most * random.random()  # noqa: S311 - no secret
        return timedelta(seconds=asked_for) + jitter

    def serialize(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "__type": type(self).__name__,
            "base_delay": self.base_delay.total_seconds(),
            "max_delay": self.max_delay.total_seconds(),
            "otherwise": self.otherwise
            and {
                "class": f"{type(self.otherwise).__module__}.{type(self.otherwise).__qualname__}",
                "policy": self.otherwise.serialize(),
            },
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Make a policy of :meth:`serialize`'s values."""
        from airflow.sdk.module_loading import import_string  # type: ignore[attr-defined]

        otherwise = data.get("otherwise")
        return cls(
            base_delay=timedelta(seconds=data["base_delay"]),
            max_delay=timedelta(seconds=data["max_delay"]),
            otherwise=otherwise and import_string(otherwise["class"]).deserialize(otherwise["policy"]),
        )


def _sentence(error: LivekitBackupError, what_next: str) -> str:
    """Join what happened and what is next; where both are too long, what happened is cut."""
    what_happened = f"{type(error).__name__}: {error}"
    room = LONGEST_REASON - len(what_next) - 2
    if len(what_happened) > room:
        what_happened = f"{what_happened[: room - 1]}…"
    return f"{what_happened}; {what_next}"
