"""What ``doctor`` finds: one sentence on what was looked at, and one on how to mend it."""

from __future__ import annotations

from enum import StrEnum

from livekit_backup.models.wire import FrozenModel


class Verdict(StrEnum):
    """How something was found."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, but a person should know."""
    WARNING = "warning"
    """Recoveries work; something beside them does not, or soon will not."""
    BROKEN = "broken"
    """Recoveries fail, or miss something, until it is mended."""
    NOT_CHECKED = "not checked"


class Finding(FrozenModel):
    """One thing that was looked at. Its texts hold no secret."""

    check: str = ""
    """Which check found it."""
    verdict: Verdict
    what: str
    """What was found, or why it was not looked at."""
    mend: str = ""
    """What to do about it: a command, a setting or a policy's statement."""


def ok(what: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(verdict=Verdict.OK, what=what)


def note(what: str, mend: str = "") -> Finding:
    """Return something to know."""
    return Finding(verdict=Verdict.NOTE, what=what, mend=mend)


def warning(what: str, mend: str) -> Finding:
    """Return something that should be mended."""
    return Finding(verdict=Verdict.WARNING, what=what, mend=mend)


def broken(what: str, mend: str) -> Finding:
    """Return something that must be mended."""
    return Finding(verdict=Verdict.BROKEN, what=what, mend=mend)


def not_checked(why: str, mend: str = "") -> Finding:
    """Return what could not be looked at."""
    return Finding(verdict=Verdict.NOT_CHECKED, what=why, mend=mend)
