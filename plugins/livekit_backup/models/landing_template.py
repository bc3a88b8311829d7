"""The format string of ``landing_key``: which fields it may have, and what it gives for a file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from string import Formatter
from typing import Any

LANDING_FIELDS = frozenset({"started", "egress_id", "filename", "room_name", "room_id", "started_at", "kind"})

_SAMPLE = {
    "started": datetime(2026, 11, 20, 14, tzinfo=UTC),
    "egress_id": "EG_sample",
    "filename": "egress/sample-of-a-name.mp4",
    "room_name": "room",
    "room_id": "RM_sample",
    "started_at": 1,
    "kind": "file",
}


class _Template(Formatter):
    """Format strings without attribute and index access, which would reach into objects."""

    def get_field(self, field_name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str]:  # noqa: ARG002
        return kwargs[field_name], field_name


def format_landing_key(template: str, values: Mapping[str, Any]) -> str:
    """Return the key that a checked template gives for a file."""
    return _Template().vformat(template, (), values)


def check_landing_template(template: str) -> None:
    """Try a template out. :raises ValueError: it cannot be used; the text says why."""
    try:
        fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"is not a format string: {error}") from None
    if unknown := sorted(fields - LANDING_FIELDS):
        known = ", ".join(sorted(LANDING_FIELDS))
        raise ValueError(f"has unknown fields {', '.join(unknown)!r}; known are {known}")
    try:
        sample = format_landing_key(template, _SAMPLE)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot be filled in: {error}") from None
    if str(_SAMPLE["filename"]) not in sample:
        raise ValueError("must contain {filename} whole, or the files of one egress share a key")
