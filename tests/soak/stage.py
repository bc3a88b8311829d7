"""Where all that runs comes past: each call of a store or a source is a moment to be killed at, or to wait."""

from __future__ import annotations

import threading

from .chaos import Chaos, KilledError, Process
from .turns import Turns

KILLED = "task: killed"
KINDS = (KILLED,)

_here = threading.local()


class Stage:
    """Knows which process makes a call."""

    def __init__(self, turns: Turns, chaos: Chaos) -> None:
        self.turns = turns
        self.chaos = chaos
        self.calls = 0

    def enter(self, process: Process) -> None:
        """Let the calls that this thread makes be a process's."""
        _here.process = process

    def step(self, what: str) -> None:
        """Come past before or after a call. :raises KilledError: the process is dead, perhaps since now."""
        process: Process = _here.process
        if not process.is_dead:
            self.turns.next()
        self.calls += 1
        if not process.is_dead and self.chaos.strike(KINDS, process.name, 0.3):
            process.is_dead = True
            self.chaos.trace.append(f"  … at {what}")
        if process.is_dead:
            raise KilledError(process.name)
