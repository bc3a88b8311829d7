"""How names, sizes and times are shown to a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

FOREVER = datetime.max.replace(tzinfo=UTC)
"""Sorts what has no deadline behind what has one."""


def escaped(text: str, limit: int = 200) -> str:
    """Return a name as it can be shown anywhere: what does not print is escaped, what is long is cut."""
    shown = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text[:limit])
    return f"{shown}{'…' if len(text) > limit else ''}"


def quoted(text: str, limit: int = 200) -> str:
    """Return an escaped name in quotes, to stand in a sentence."""
    return f"'{escaped(text, limit)}'"


def readable_size(size: int) -> str:
    """Return a size in the unit a person would choose."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def hours_left(deadline: datetime | None, now: datetime) -> float | None:
    """Return the hours until a deadline, 0 when it is over."""
    if deadline is None:
        return None
    return max(0.0, (deadline - now) / timedelta(hours=1))


def describe_validation(error: ValidationError) -> str:
    """Return what is wrong and where, without the input: it can hold signed URLs."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'document'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more
