"""Findings as a table for a person, and as JSON for a program."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import datetime

from livekit_backup.core.examination import count_verdicts
from livekit_backup.models.finding import Finding, Verdict

_COLOURS = {
    Verdict.OK: "32",
    Verdict.NOTE: "36",
    Verdict.WARNING: "33",
    Verdict.BROKEN: "1;31",
    Verdict.NOT_CHECKED: "35",
}


def findings_table(findings: Sequence[Finding], *, width: int = 0, colours: bool = False) -> str:
    """Return a line a finding, its mend below it, and the counts.

    :param width: of the terminal; 0 breaks no lines.
    """
    first = max(len(verdict) for verdict in Verdict)
    second = max((len(finding.check) for finding in findings), default=0)
    margin = " " * (first + second + 4)
    lines = []
    for finding in findings:
        verdict = finding.verdict.upper() if finding.verdict is Verdict.BROKEN else finding.verdict
        start = f"{_coloured(f'{verdict:{first}}', finding.verdict, colours=colours)}  {finding.check:{second}}  "
        lines += _wrapped(finding.what, start, margin, width)
        if finding.mend:
            lines += _wrapped(f"mend: {finding.mend}", margin, f"{margin}      ", width)
    counts = (f"{count} {verdict}" for verdict, count in count_verdicts(findings).items() if count)
    return "\n".join([*lines, "", ", ".join(counts)])


def _coloured(text: str, verdict: Verdict, *, colours: bool) -> str:
    return f"\033[{_COLOURS[verdict]}m{text}\033[0m" if colours else text


def _wrapped(text: str, start: str, margin: str, width: int) -> list[str]:
    room = width - len(margin)
    if room < 40:
        return [f"{start}{text}"]
    # Commands are copied from here: a break inside a word would change them.
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{start}{lines[0]}", *(f"{margin}{line}" for line in lines[1:])]


def findings_json(findings: Sequence[Finding], checked_at: datetime) -> str:
    """Return all of it as one JSON object."""
    counts = count_verdicts(findings)
    return json.dumps(
        {
            "ok": not counts[Verdict.BROKEN],
            "checked_at": checked_at.isoformat(timespec="seconds"),
            "counts": counts,
            "findings": [finding.model_dump(mode="json") for finding in findings],
        },
        indent=2,
        ensure_ascii=False,
    )
