"""Outcomes and their named sets."""

from __future__ import annotations

from livekit_backup.models.outcome import IN_WAREHOUSE, SAFE, Outcome


def test_in_the_warehouse_is_safe():
    assert IN_WAREHOUSE < SAFE < set(Outcome)
    assert {Outcome.IN_PRIMARY} == SAFE - IN_WAREHOUSE


def test_values_are_stable():
    """They stand in ledgers that outlive a version."""
    assert [outcome.value for outcome in Outcome] == [
        "landed", "already_landed", "in_primary", "expired", "missing", "corrupt", "refused", "unresolved", "failed",
    ]  # fmt: skip
