"""What a benchmark returns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A titled table and whether its goal was reached."""

    title: str
    goal: str
    """Empty where there is none."""
    reached: bool
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def text(self) -> str:
        goal = f" (goal: {self.goal}; {'reached' if self.reached else 'MISSED'})" if self.goal else ""
        lines = [f"{self.title}{goal}", ""]
        lines.append("| " + " | ".join(self.header) + " |")
        lines.append("|" + "---|" * len(self.header))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median with least and greatest, as every figure that varies is quoted."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
