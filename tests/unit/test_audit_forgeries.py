"""A forger at work on ledger, inbox and warehouse: whatever is changed in what is sealed, the audit ends red.

A fixed part runs always; the campaign takes its number from ``LIVEKIT_BACKUP_FORGERIES`` (``make forgeries``).
"""

from __future__ import annotations

import os
import random

import pytest

from livekit_backup.core.sealing import seal_uri
from unit.audited_ledger import AuditedLedger, told

SEEDS = range(int(os.environ.get("LIVEKIT_BACKUP_FORGERIES", "150")))
SEALED = ("/files/", "/chain/", "/report", "/intake.json", "/plan.json", "/dt/", "s3://b/in/")
"""What a change shows in. Not the list of a backup's files and the like, on which no statement rests."""


def _forge(ledger: AuditedLedger, chance: random.Random) -> str:
    """Change one thing, and say what."""
    objects = ledger.store.objects
    uri = chance.choice(sorted(uri for uri in objects if any(part in uri for part in SEALED)))
    body = bytearray(objects[uri])
    way = chance.choice(["flip", "cut", "remove", "append", "swap"])
    if way == "remove":
        ledger.store.delete(uri)
        return f"removed {uri}"
    if way == "flip":
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(7)
    elif way == "cut":
        del body[chance.randrange(len(body)) :]
    elif way == "append":
        body += b" "
    else:
        folder = uri.rpartition("/")[0]
        others = [other for other in objects if other != uri and other.rpartition("/")[0] == folder]
        body = bytearray(objects[chance.choice(sorted(others))] if others else b"{}")
    if bytes(body) == objects[uri]:
        return ""
    ledger.store.put(uri, bytes(body))
    return f"{way} {uri}"


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_changed_is_found(seed: int) -> None:
    ledger = told()
    what = _forge(ledger, random.Random(seed))
    uri = what.partition(" ")[2]
    if uri.startswith("s3://b/in/"):
        # An event without LiveKit's signature may be changed as long as it tells of its backup.
        ledger.store.delete(uri)
    # Nothing follows the newest seal, so a change of its own words shows only by a note of it kept elsewhere.
    is_newest = uri == seal_uri(ledger.ledger.chain_uri("d"), len(ledger.seals))
    noted = frozenset(ledger.seals[-1:] if is_newest else ())
    assert bool(ledger.wrong(noted_seals=noted)) == bool(what), what


def test_what_is_told_is_clean() -> None:
    assert told().wrong() == []
