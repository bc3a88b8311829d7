"""The span of time whose events a run takes in."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import AwareDatetime, model_validator

from livekit_backup.models.wire import FrozenModel


class Window(FrozenModel):
    """From ``start`` (included) to ``end`` (excluded), both aware."""

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _is_ordered(self) -> Window:
        if self.start >= self.end:
            raise ValueError(f"starts at {self.start.isoformat()}, not before its end {self.end.isoformat()}")
        return self

    def closes_at(self, grace: timedelta) -> datetime:
        """When all events of the window should be in the inbox."""
        return self.end + grace
