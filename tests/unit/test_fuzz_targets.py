"""A fixed few of what ``make fuzz`` gives to every target: its seeds, what was found once, and some from Hypothesis."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.choices import SECRET
from fuzz.run_campaign import RUNS
from fuzz.targets import TARGETS, _tells_nothing

SEEDS = sorted((Path(__file__).resolve().parents[1] / "fuzz" / "seeds").iterdir())
every_target = pytest.mark.parametrize("name", TARGETS)


@every_target
def test_its_seeds(name):
    for seed in SEEDS:
        TARGETS[name](seed.read_bytes())


@every_target
@settings(max_examples=400)
@given(data=st.binary(max_size=400))
def test_some_inputs(name, data):
    TARGETS[name](data)


@every_target
def test_parts_of_the_seeds_one_behind_the_other(name):
    whole = b"".join(seed.read_bytes()[:600] for seed in SEEDS)
    for start in range(0, len(whole), 41):
        TARGETS[name](whole[start : start + 300])


def test_the_campaign_runs_every_target():
    assert RUNS.keys() == TARGETS.keys()
    assert sum(RUNS.values()) > 1_000_000


def test_a_target_notices():
    with pytest.raises(AssertionError, match="a secret is told"):
        _tells_nothing(f"?X-Amz-Signature={SECRET}")


@pytest.mark.parametrize("name", ["plans", "urls", "names", "events", "ledger"])
def test_a_target_gets_beyond_its_first_check(name, monkeypatch):
    """A target whose inputs are all refused at once would pass whatever is broken."""
    seen = []
    inner = {
        "plans": "_is_sound",
        "urls": "check_reading",
        "names": "provenance",
        "events": "_tells_nothing",
        "ledger": "render",
    }[name]
    import fuzz.targets as module

    whole = getattr(module, inner)
    monkeypatch.setattr(module, inner, lambda *given: (seen.append(1), whole(*given))[1])
    chosen = random.Random(7)
    for _ in range(300):
        TARGETS[name](chosen.randbytes(120))
    assert len(seen) > 5
