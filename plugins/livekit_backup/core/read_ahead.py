"""Works on many things side by side and gives the results in order, never far ahead of who takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int, stop: Callable[[], None]
) -> Generator[Result]:
    """Give what ``work`` returns for each item, in the items' order, or raise what it raises.

    No thread is left when this ends, however it ends: close it when it is not read to its end.

    :param ahead: items begun and not yet taken, at most; so many are taken from ``items`` before they are needed.
    :param stop: called before the threads are waited for, so that work under way can end early.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="inbox") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stop()
            for future in pending:
                future.cancel()
