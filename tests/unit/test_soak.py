"""A few hundred simulated runs of fixed seeds, in which every fault happens; ``make soak`` runs more of them."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from livekit_backup.models.outcome import Outcome
from soak.one_run import simulate
from soak.setting import KINDS

SEED = "ci"
RUNS = 3 * len(KINDS)
"""Each fault is the one that shall happen in three of them."""
MOST_RUNS = 20 * len(KINDS)
"""Another order of calls may leave one without its moment: then more runs are made that look for it."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Thousands of warnings would hide the one failure; the simulator itself looks at each."""
    monkeypatch.setattr(logging.getLogger("livekit_backup"), "propagate", False)


def test_nothing_is_lost_wrong_or_left_whatever_happens():
    counts: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for number in range(MOST_RUNS):
        if number >= RUNS and counts[KINDS[number % len(KINDS)]]:
            continue
        findings = simulate(f"{SEED}/{number}")
        assert not findings.wrong, f"{findings.told()}\nreplay it: make soak REPLAY={findings.seed}"
        counts += findings.counts
        outcomes += findings.outcomes
    assert [kind for kind in KINDS if not counts[kind]] == [], "a fault that never happened proves nothing"
    assert set(outcomes) == {outcome.value for outcome in Outcome}


def test_a_seed_says_all_that_happens():
    first, again = simulate(f"{SEED}/12"), simulate(f"{SEED}/12")
    assert (first.counts, first.outcomes) == (again.counts, again.outcomes)
    assert first.trace == again.trace
    assert first.trace != simulate(f"{SEED}/13").trace
