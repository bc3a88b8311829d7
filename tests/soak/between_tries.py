"""What can happen to a task that is tried again."""

from __future__ import annotations

ZOMBIE = "task: an earlier try lives on as a zombie"
DAYS_PASS = "task: most links die before the next try"
KINDS = (ZOMBIE, DAYS_PASS)
