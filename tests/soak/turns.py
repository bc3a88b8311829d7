"""Who goes next: of two tasks at once, and of the calls that a pool of threads would make.

Two tasks run in a thread each, of which one runs at a time; at every call of a store or a source the seed says who
goes on. What a task gives to a pool is run by the task itself, in an order that the seed says: at once, or not before
its result is asked for, as happens on a busy machine.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from random import Random

STUCK_SECONDS = 300.0
"""A turn takes milliseconds: who waits for so long would wait for ever."""

_here = threading.local()


class Turns:
    """Tasks side by side, one at a time; one of them may itself run others side by side."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._waiting: dict[int, threading.Semaphore] = {}
        """Those that can go on, by number: neither ended nor waiting for tasks of their own."""
        self._numbers = itertools.count(1)
        self.passed = 0
        """How often another task went on."""

    def run(self, tasks: list[Callable[[], None]]) -> None:
        """Run tasks to their ends; the first error is raised once all have ended."""
        if len(tasks) == 1:
            tasks[0]()
            return
        own = getattr(_here, "number", 0)
        mine = self._waiting.pop(own, threading.Semaphore(0))
        errors: list[BaseException] = []
        left = {next(self._numbers): task for task in tasks}
        numbers = set(left)
        for number in left:
            self._waiting[number] = threading.Semaphore(0)

        def run(number: int) -> None:
            _here.number = number
            self._wait(self._waiting[number])
            try:
                left[number]()
            except BaseException as error:  # noqa: BLE001 - raised again by who runs them all
                errors.append(error)
            del self._waiting[number]
            numbers.discard(number)
            if not numbers:
                self._waiting[own] = mine
            self._waiting[self._rng.choice(sorted(self._waiting))].release()

        for number in left:
            threading.Thread(target=run, args=[number], daemon=True).start()
        self._waiting[self._rng.choice(sorted(self._waiting))].release()
        self._wait(mine)
        if not own:
            del self._waiting[own]
        if errors:
            raise errors[0]

    def _wait(self, turn: threading.Semaphore) -> None:
        if not turn.acquire(timeout=STUCK_SECONDS):
            raise TimeoutError("its turn never came: tasks wait for each other")

    def next(self) -> None:
        """Let another task go on, perhaps."""
        own = getattr(_here, "number", 0)
        if own not in self._waiting or len(self._waiting) == 1 or self._rng.random() < 0.5:
            return
        other = self._rng.choice(sorted(self._waiting))
        if other != own:
            self.passed += 1
            self._waiting[other].release()
            self._wait(self._waiting[own])


class Pools:
    """What stands in for threads within one task; shared by all, since one runs at a time."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._late: dict[int, deque[_Late]] = {}

    @property
    def late(self) -> deque[_Late]:
        """What the running task has put off."""
        return self._late.setdefault(threading.get_ident(), deque())

    def executor(self) -> type[SimulatedExecutor]:
        """A ``ThreadPoolExecutor``."""
        return type("BoundExecutor", (SimulatedExecutor,), {"pools": self})

    def queue(self) -> type[queue.SimpleQueue]:
        """A ``SimpleQueue`` that runs what was put off until there is something in it."""
        pools = self

        class SimulatedQueue(queue.SimpleQueue):
            def get(self, block=True, timeout=None):
                while self.empty():
                    pools.late.popleft().make()
                return super().get(block, timeout)

        return SimulatedQueue


class _Late(Future):
    """A call that is made when it is asked for at the latest."""

    def __init__(self, pools: Pools, call: Callable[[], object]) -> None:
        super().__init__()
        self._pools = pools
        self._call = call

    def make(self) -> None:
        if self in self._pools.late:
            self._pools.late.remove(self)
        if self.set_running_or_notify_cancel():
            _settle(self, self._call)

    def done(self) -> bool:
        if not super().done() and self._pools.rng.random() < 0.3:
            self.make()
        return super().done()

    def result(self, timeout=None):
        if not super().done():
            self.make()
        return super().result(timeout)


class SimulatedExecutor:
    pools: Pools

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        self._is_late = thread_name_prefix in ("upload", "read") and self.pools.rng.random() < 0.5
        self._own: list[_Late] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()

    def submit(self, work, *args, **options) -> Future:
        call = lambda: work(*args, **options)  # noqa: E731
        if self._is_late:
            late = _Late(self.pools, call)
            self.pools.late.append(late)
            self._own.append(late)
            return late
        future: Future = Future()
        _settle(future, call)
        return future

    def map(self, work, *iterables):
        calls = list(enumerate(zip(*iterables, strict=False)))
        self.pools.rng.shuffle(calls)
        futures = {number: self.submit(work, *arguments) for number, arguments in calls}
        return iter([futures[number].result() for number in sorted(futures)])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for late in self._own:
            if late in self.pools.late:
                if cancel_futures:
                    self.pools.late.remove(late)
                    late.cancel()
                else:
                    late.make()


def _settle(future: Future, call: Callable[[], object]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - who asks for the result gets it
        future.set_exception(error)
