"""The one message that a person gets of all alarms of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from livekit_backup.core.wording import escaped, quoted
from livekit_backup.models.alarm_state import Alarm

MAX_NAMED = 20
"""Backups that can still be saved; more would be cut by a chat, and read by nobody."""
MAX_LOST_NAMED = 10
LONGEST_REASON = 200


def headline(alarms: Sequence[Alarm]) -> str:
    """Return the digest in one line."""
    living = [alarm for alarm in alarms if not alarm.is_lost]
    lost = len(alarms) - len(living)
    counts = ", ".join([f"{len(living)} not safe"] * bool(living) + [f"{lost} lost"] * bool(lost))
    nearest = min((alarm.hours_left for alarm in living if alarm.hours_left is not None), default=None)
    return f"LiveKit backups: {counts}" + (f"; the nearest link dies in {nearest:.1f} h" if nearest is not None else "")


def digest(alarms: Sequence[Alarm], others: int = 0) -> str:
    """Return the whole message: what can still be saved first, the nearest deadline at the top.

    :param others: backups that are not safe either, with more hours left or named before.
    """
    living = sorted((alarm for alarm in alarms if not alarm.is_lost), key=_urgency)
    lost = sorted((alarm for alarm in alarms if alarm.is_lost), key=_urgency)
    lines = [headline(alarms)]
    for some, most in ((living, MAX_NAMED), (lost, MAX_LOST_NAMED)):
        lines += [_line(alarm) for alarm in some[:most]]
        if len(some) > most:
            lines.append(f"- and {len(some) - most} more{' that are lost' if some is lost else ''}")
    if others:
        are = "1 more backup is" if others == 1 else f"{others} more backups are"
        lines.append(f"{are} not safe yet: more hours are left, or an earlier alarm named them.")
    if living:
        lines.append("What to do: `airflow livekit-backup status`, then clear the failed tasks of the recovery runs.")
    return "\n".join(lines)


def as_plain(alarms: Sequence[Alarm]) -> list[dict[str, Any]]:
    """Return the alarms as plain values, in the order of the message."""
    ordered = sorted(alarms, key=lambda alarm: (alarm.is_lost, _urgency(alarm)))
    return [{**alarm.model_dump(mode="json"), "is_lost": alarm.is_lost} for alarm in ordered]


def _urgency(alarm: Alarm) -> tuple[Any, ...]:
    return alarm.deadline, alarm.egress_id, alarm.run


def _line(alarm: Alarm) -> str:
    """Name the backup, then say why; a reason of many lines would pass for many alarms."""
    until = f"{alarm.deadline:%Y-%m-%d %H:%M} UTC"
    left = (
        f"LOST (link until {until})" if alarm.hours_left is None else f"{alarm.hours_left:.1f} h left (until {until})"
    )
    room = f", room {quoted(alarm.room_name, 80)}" if alarm.room_name else ""
    if alarm.files is None:
        files = "its files are not known"
    else:
        files = f"{alarm.unsafe_files} of {alarm.files} files not safe"
    reason = f": {escaped(alarm.reason, LONGEST_REASON)}" if alarm.reason else ""
    return f"- {left}: {escaped(alarm.egress_id, 80)}{room}, {files}{reason}"
