"""The error tree: as drawn, picklable, and each leaf in one of four rooms."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from livekit_backup import errors
from livekit_backup.errors import (
    LivekitBackupError,
    NeedsOperatorError,
    PermanentError,
    RetryableError,
    SourceUnavailableError,
    UnreadableEventError,
)
from livekit_backup.models.outcome import IN_WAREHOUSE, SAFE

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, Exception) and found.__module__ == errors.__name__
]
LEAVES = [found for found in CLASSES if not found.__subclasses__()]
ROOMS = (RetryableError, PermanentError, NeedsOperatorError, UnreadableEventError)


def _drawn() -> dict[str, str]:
    """Child to parent, as the module's docstring draws it."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^    ([│├└─ ]*)([A-Z]\w+Error)\b", line):
            depth = len(match.group(1)) // 4
            del above[depth:]
            if above:
                parents[match.group(2)] = above[-1]
            above.append(match.group(2))
    return parents


def test_the_drawing_is_the_tree():
    real = {found.__name__: found.__base__.__name__ for found in CLASSES if found is not LivekitBackupError}
    assert _drawn() == real


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_is_in_exactly_one_room(leaf):
    assert sum(issubclass(leaf, room) for room in ROOMS) == 1


@pytest.mark.parametrize("found", CLASSES)
def test_pickles_with_its_text(found):
    copy = pickle.loads(pickle.dumps(found("s3://bucket/key: what happened")))
    assert type(copy) is found
    assert str(copy) == "s3://bucket/key: what happened"
    assert copy.outcome is found.outcome


def test_pickles_with_its_attributes():
    copy = pickle.loads(pickle.dumps(SourceUnavailableError("busy", retry_after=7.5)))
    assert (str(copy), copy.retry_after) == ("busy", 7.5)
    copy = pickle.loads(pickle.dumps(SourceUnavailableError("busy")))
    assert copy.retry_after is None


@pytest.mark.parametrize("found", CLASSES)
def test_no_error_counts_as_safe(found):
    assert found.outcome not in SAFE | IN_WAREHOUSE


@pytest.mark.parametrize("found", CLASSES)
def test_says_what_it_means(found):
    assert found.__doc__
