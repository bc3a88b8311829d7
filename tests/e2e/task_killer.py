"""Kills task processes with SIGKILL at random instants, as the machine they run on might."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Self

import psutil

_WORKER = "airflow worker -- LocalExecutor"
_TITLE = re.compile(rf"{_WORKER}.*: (?P<id>[0-9a-f-]{{36}})$")
_AT_FIRST = defaultdict(lambda: 0.5, {"recover_files.download": 4.0})
"""Seconds that a task is taken to need until one of its kind has ended by itself."""


class Victim(StrEnum):
    TASK = "task"
    """Its supervisor reports it, and it is retried at once."""
    BOTH = "task and supervisor"
    """As when the machine dies: the scheduler misses the heartbeats."""
    SUPERVISOR = "supervisor"
    """The task goes on beside its own retry, until it finds nobody to talk to."""


# Mostly the first, since each of the others takes a heartbeat's time-out.
_VICTIMS = (Victim.TASK, Victim.TASK, Victim.BOTH, Victim.TASK, Victim.TASK, Victim.SUPERVISOR, Victim.TASK)


@dataclass(frozen=True)
class Kill:
    kind: str
    victim: Victim
    seconds: float
    """After its process was first seen."""


@dataclass
class _Seen:
    task: str
    instance: tuple[str, int, str]
    worker: int
    child: int
    since: float
    due: float | None


@dataclass
class TaskKiller:
    """Kills each kind of task a number of times; what is killed often enough is left alone."""

    wanted: dict[str, int]
    names: Callable[[], dict[str, tuple[str, int, str]]]
    """The task id, map index and run of every task instance's id."""
    home: Path
    """Of the Airflow whose tasks are killed."""
    seed: int
    most_per_instance: int
    kills: list[Kill] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    _lives: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _per_instance: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    _known: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    _asked: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="task-killer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def missing(self) -> dict[str, int]:
        """How many kills of each kind are still to come."""
        done = Counter(kill.kind for kill in self.kills)
        return {kind: count - done[kind] for kind, count in self.wanted.items() if done[kind] < count}

    def table(self) -> str:
        lines = []
        for kind in self.wanted:
            seconds = sorted(kill.seconds for kill in self.kills if kill.kind == kind)
            whom = Counter(kill.victim.value for kill in self.kills if kill.kind == kind)
            typical = f"{median(self._lives[kind]):.1f}" if self._lives[kind] else "?"
            instants = " ".join(f"{second:.2f}" for second in seconds)
            lines.append(f"{kind:<28} {len(seconds):>3} kills, lives {typical} s: {instants} {dict(whom)}")
        return "\n".join(lines)

    def _watch(self) -> None:
        scheduler = _scheduler(str(self.home))
        while not self._over.wait(0.01):
            try:
                self._look(scheduler)
            except Exception as error:  # noqa: BLE001 - the test raises it
                self.faults.append(error)

    def _look(self, scheduler: int) -> None:
        now = time.monotonic()
        running = {}
        for worker in _children(scheduler):
            if (match := _TITLE.search(_title(worker))) and (children := _children(worker)):
                running[match["id"]] = (worker, children[0])
        for ended in self._seen.keys() - running.keys():
            gone = self._seen.pop(ended)
            self._lives[gone.task].append(now - gone.since)
        for instance_id, (worker, child) in running.items():
            if instance_id not in self._seen and (instance := self._name(instance_id)):
                self._seen[instance_id] = _Seen(instance[0], instance, worker, child, now, self._instant(instance, now))
        for instance_id, seen in list(self._seen.items()):
            if seen.due is not None and time.monotonic() >= seen.due:
                self._kill(seen)
                del self._seen[instance_id]
                self._known[instance_id] = ("", -1, "")

    def _name(self, instance_id: str) -> tuple[str, int, str] | None:
        """Return which it is, unless it has been killed already and is about to vanish."""
        if instance_id not in self._known and time.monotonic() > self._asked + 0.1:
            self._known.update({known: name for known, name in self.names().items() if known not in self._known})
            self._asked = time.monotonic()
        found = self._known.get(instance_id)
        return found if found and found[0] else None

    def _instant(self, instance: tuple[str, int, str], now: float) -> float | None:
        kind = instance[0]
        if kind not in self.missing() or self._per_instance[instance] >= self.most_per_instance:
            return None
        lives = self._lives[kind]
        # A little less than they live, or half of them would be missed.
        longest = 0.9 * median(lives) if lives else _AT_FIRST[kind]
        return now + self._random.uniform(0, longest)

    def _kill(self, seen: _Seen) -> None:
        if seen.task not in self.missing():
            return
        victim = _VICTIMS[len(self.kills) % len(_VICTIMS)]
        if _title(seen.child).startswith(_WORKER):
            # Not begun: without its supervisor it would be waited for in the queue for minutes.
            victim = Victim.TASK
        targets = {
            Victim.TASK: [seen.child],
            Victim.BOTH: [seen.worker, seen.child],
            Victim.SUPERVISOR: [seen.worker],
        }[victim]
        with contextlib.suppress(ProcessLookupError):
            for pid in targets:
                os.kill(pid, signal.SIGKILL)
            self.kills.append(Kill(seen.task, victim, time.monotonic() - seen.since))
            self._per_instance[seen.instance] += 1


def _scheduler(home: str) -> int:
    """The parent of LocalExecutor's workers, of the Airflow of this home."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # A worker's own title takes the place of its environment.
                if _title(process.pid).startswith(_WORKER) and process.parent().environ()["AIRFLOW_HOME"] == home:
                    return int(process.ppid())
        time.sleep(0.2)
    raise AssertionError("LocalExecutor has no workers")


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    return ""


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
