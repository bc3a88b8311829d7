"""Which faults happen, when and to whom: by the seed, counted, and written down for the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


class KilledError(BaseException):
    """The process is no more: nothing of it runs on, and no handler of it can do anything."""


@dataclass
class Process:
    """One try of a task, as the operating system sees it."""

    name: str
    is_dead: bool = False


class Chaos:
    """The faults of one run."""

    def __init__(self, rng: Random, kinds: Sequence[str], *, focus: str, rate: float, most: int) -> None:
        """Begin.

        :param kinds: that can happen at all.
        :param focus: the one that shall happen in any case, if there is a moment for it.
        :param rate: how likely a call fails.
        :param most: how often, for each side (source, manifest, warehouse, task).
        """
        self._rng = rng
        self._kinds = frozenset([*kinds, focus])
        self._focus = focus
        self._rate = rate
        self._most = most
        self._by_side: Counter[str] = Counter()
        self.is_calm = False
        """Whether nothing happens any more."""
        self.counts: Counter[str] = Counter()
        self.struck: dict[str, set[str]] = {}
        """The kinds that happened, by what they happened to."""
        self.trace: list[str] = []

    def strike(self, applicable: Sequence[str], target: str, rate: float = 1.0) -> str:
        """Return the fault that happens now to this target, or an empty text."""
        if self.is_calm:
            return ""
        possible = [kind for kind in applicable if kind in self._kinds]
        if not possible:
            return ""
        if self._focus in possible and self._rng.random() < 0.6:
            possible, rate = [self._focus], 1.0 if self.counts[self._focus] < 2 else rate
        elif self._rng.random() > self._rate * rate:
            return ""
        kind = self._rng.choice(possible)
        side = kind.partition(":")[0]
        if self._by_side[side] >= self._most:
            return ""
        self._by_side[side] += 1
        self.note(kind, target)
        return kind

    def note(self, kind: str, target: str) -> None:
        """Write down a fault that happened."""
        self.counts[kind] += 1
        self.struck.setdefault(target, set()).add(kind)
        self.trace.append(f"{kind}: {target}")

    def all_struck(self) -> set[str]:
        """The kinds that happened to anything."""
        return set().union(*self.struck.values())
