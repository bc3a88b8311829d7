"""Runs checks side by side: each bounded in time, none able to hide another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from livekit_backup.core.wording import escaped
from livekit_backup.models.finding import Finding, Verdict, broken, not_checked

MAX_TEXT = 1000
"""Characters of a sentence; what stores answer can be long."""

_Subject = TypeVar("_Subject")
_IN_THE_WAY = frozenset({Verdict.BROKEN, Verdict.NOT_CHECKED})


class CannotCheckError(Exception):
    """What a check needs is not there; the text says what."""


@dataclass(frozen=True)
class Check(Generic[_Subject]):
    """One question, and what has to be known before it can be asked."""

    name: str
    find: Callable[[_Subject], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    """Checks without which this one would only find the same fault again."""
    after: tuple[str, ...] = ()
    """Checks to wait for, whatever they find."""
    seconds: float = 30.0


@dataclass
class _Running:
    check: str
    until: float
    findings: list[Finding] = field(default_factory=list)


def examine(
    checks: Sequence[Check[_Subject]],
    subject: _Subject,
    *,
    seconds: float,
    safe: Callable[[str], str] = str,
) -> list[Finding]:
    """Return the findings of all checks, in their order.

    A check that is out of time keeps what it has found so far; its thread is left behind.

    :param seconds: for all of them together.
    :param safe: takes what must not be shown out of a text.
    """
    end = time.monotonic() + seconds
    found: dict[str, list[Finding]] = {}
    waiting, running = list(checks), dict[str, _Running]()
    ended: SimpleQueue[str] = SimpleQueue()
    while waiting or running:
        for check in [check for check in waiting if found.keys() >= {*check.needs, *check.after}]:
            waiting.remove(check)
            if in_the_way := next((name for name in check.needs if _is_in_the_way(found[name])), ""):
                found[check.name] = [not_checked(f"it needs what is wrong in: {in_the_way}")]
            else:
                running[check.name] = _start(check, subject, end, ended)
        if running:
            _await_one(running, found, ended)
        elif waiting and not any(found.keys() >= {*check.needs, *check.after} for check in waiting):
            raise ValueError(f"{waiting[0].name} waits for a check that is not there")
    return [_shown(finding, check.name, safe) for check in checks for finding in found[check.name]]


def _is_in_the_way(findings: Iterable[Finding]) -> bool:
    return any(finding.verdict in _IN_THE_WAY for finding in findings)


def _start(check: Check[_Subject], subject: _Subject, end: float, ended: SimpleQueue[str]) -> _Running:
    state = _Running(check.name, min(end, time.monotonic() + check.seconds))

    def run() -> None:
        try:
            for finding in check.find(subject):
                state.findings.append(finding)
        except CannotCheckError as error:
            state.findings.append(not_checked(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
            state.findings.append(
                broken(f"{type(error).__name__}: {error}", "mend what it names; if it names nothing, report it to us")
            )
        ended.put(check.name)

    # A daemon: a call that never returns must not keep the command from ending.
    threading.Thread(target=run, name=f"check {check.name}", daemon=True).start()
    return state


def _await_one(running: dict[str, _Running], found: dict[str, list[Finding]], ended: SimpleQueue[str]) -> None:
    """Wait for the next check to end, or to run out of time."""
    first = min(running.values(), key=lambda state: state.until)
    try:
        name = ended.get(timeout=max(0.0, first.until - time.monotonic()))
    except Empty:
        del running[first.check]
        late = broken("no answer in time", "see whether a firewall or proxy swallows the packets; then run it again")
        found[first.check] = [*first.findings, late]
        return
    if state := running.pop(name, None):
        found[name] = state.findings


def _shown(finding: Finding, check: str, safe: Callable[[str], str]) -> Finding:
    texts = {"what": safe(finding.what), "mend": safe(finding.mend)}
    return finding.model_copy(
        update={"check": check, **{name: escaped(text, MAX_TEXT) for name, text in texts.items()}}
    )


def count_verdicts(findings: Iterable[Finding]) -> Mapping[Verdict, int]:
    """Count the findings of each verdict."""
    counts = dict.fromkeys(Verdict, 0)
    for finding in findings:
        counts[finding.verdict] += 1
    return counts
