"""Last part of an audit: what landed is still there, and reads as it did."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from livekit_backup.core.audit_bench import AuditBench, never_stops
from livekit_backup.core.audit_spool import LandedFile
from livekit_backup.core.ledger import in_parallel
from livekit_backup.core.listings import listed_among
from livekit_backup.core.read_ahead import in_order
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.wording import quoted, readable_size

OBJECTS = "objects"
READERS = 4
"""Objects read side by side, each a chunk at a time: enough to fill a connection of 1 Gbit/s from S3."""
CHUNK = 1024 * 1024

_MEND = (
    "nothing, where you moved or replaced it yourself; else restore it from the bucket's versions, or while its link "
    "lives: airflow livekit-backup recover {egress_id}"
)


def audit_objects(bench: AuditBench) -> None:
    """Look at every landed object, and read all or some of them."""
    looked_at = stands = anew = 0
    for page in bench.spool.landed():
        for landed, problem in zip(page, _looked_at(bench.store, page), strict=True):
            looked_at += 1
            if not problem:
                stands += 1
            elif problem is _UNCERTAIN and _hashed(bench.store, landed).sha256 == landed.sha256:
                anew += 1
            else:
                _judge(bench, landed, problem)
                bench.spool.drop_landed(landed)
        bench.progress.tell(f"{looked_at} landed objects looked at")
    read, size = _read(bench)
    bench.findings.summary(OBJECTS, f"{stands} of {looked_at} landed objects are there with their size and ETag")
    if anew:
        bench.findings.remark(OBJECTS, f"{anew} more have another ETag, and hold the very bytes: written again")
    which = "all" if bench.scope.sample is None else "drawn by lot"
    bench.findings.remark(OBJECTS, f"{read} of them, {which}, were read through and hashed: {readable_size(size)}")


_UNCERTAIN = "holds other content than landed there"
"""By its ETag, which proves nothing where it was written again: reading it does."""


def _looked_at(store: ObjectStore, page: list[LandedFile]) -> list[str]:
    """Say of each what is wrong with it; empty where nothing is."""
    shown = listed_among(store, [landed.uri for landed in page])

    def look(landed: LandedFile) -> str:
        if shown.get(landed.uri) == (landed.size, landed.etag):
            return ""
        head = store.head(landed.uri)
        if head is None:
            return "is not there any more"
        if head.size != landed.size:
            return f"has {head.size} bytes, and landed with {landed.size}"
        return "" if landed.etag == head.etag else _UNCERTAIN

    return in_parallel(look, page)


def _judge(bench: AuditBench, landed: LandedFile, problem: str) -> None:
    """Name an object that is wrong, unless a later file has landed in its place."""
    later = bench.spool.others_at(landed)
    if not later:
        bench.findings.wrong(OBJECTS, f"{_named(landed)} {problem}", _MEND.format(egress_id=landed.egress_id))
        return
    bench.findings.remark(
        OBJECTS,
        f"{landed.uri} was {landed.egress_id}'s {quoted(landed.filename)}, and is {later[0].egress_id}'s "
        f"{quoted(later[0].filename)} now, as on_conflict says",
    )


@dataclass(frozen=True)
class _Hashed:
    landed: LandedFile
    sha256: str
    """Empty where it is not there."""
    size: int


def _read(bench: AuditBench) -> tuple[int, int]:
    """Read objects through, and return how many, and their bytes."""
    scope = bench.scope
    todo: Iterator[LandedFile] = (
        (landed for page in bench.spool.landed() for landed in page)
        if scope.sample is None
        else bench.spool.sampled(scope.sample)
    )
    count = size = 0
    for hashed in in_order(
        lambda landed: _hashed(bench.store, landed), todo, workers=READERS, ahead=2 * READERS, stop=never_stops
    ):
        count, size = count + 1, size + hashed.size
        if hashed.sha256 != hashed.landed.sha256:
            problem = f"reads with SHA-256 {hashed.sha256 or '(not there)'}, and landed with {hashed.landed.sha256}"
            _judge(bench, hashed.landed, problem)
        bench.progress.tell(f"{count} objects read, {readable_size(size)}")
    return count, size


def _hashed(store: ObjectStore, landed: LandedFile) -> _Hashed:
    digest, size = hashlib.sha256(), 0
    try:
        with contextlib.closing(store.open(landed.uri)) as body:
            while chunk := body.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        # Whoever looked at it has said so.
        return _Hashed(landed, "", 0)
    return _Hashed(landed, digest.hexdigest(), size)


def _named(landed: LandedFile) -> str:
    return f"{landed.uri} ({landed.egress_id} {quoted(landed.filename)})"
