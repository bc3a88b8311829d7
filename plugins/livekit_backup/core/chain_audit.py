"""First part of an audit: the seals follow one another without a gap."""

from __future__ import annotations

import json

from livekit_backup.core.audit_bench import RESTORE, AuditBench, never_stops
from livekit_backup.core.read_ahead import in_order
from livekit_backup.core.sealing import digest_of, number_of, read_seal
from livekit_backup.models.seal import Seal

CHAIN = "chain"
READERS = 16
"""Seals are small."""


def audit_chain(bench: AuditBench) -> None:
    """Hold each seal against the one behind it."""
    walk = _ChainWalk(bench)
    base = f"{bench.ledger.chain_uri()}/"
    read = in_order(
        lambda uri: (uri, bench.store.get(uri)),
        bench.store.list_keys(base),
        workers=READERS,
        ahead=4 * READERS,
        stop=never_stops,
    )
    for uri, body in read:
        walk.take(uri, body)
    walk.end()
    for digest in sorted(bench.scope.noted_seals - walk.met):
        bench.findings.wrong(
            CHAIN,
            f"the seal {digest} that was noted is in no chain: it was removed, or the chain was made anew without it",
            f"{RESTORE}; no report up to that one is proven until then",
        )
    if walk.seals:
        many = "reports are" if walk.seals > 1 else "report is"
        bench.findings.summary(CHAIN, f"{walk.seals} {many} sealed, in {len(walk.newest)} chains: one a DAG")
        for text in walk.newest:
            bench.findings.remark(CHAIN, text)
    else:
        bench.findings.remark(CHAIN, "nothing is sealed: no report was written since reports are", "wait for one")


class _ChainWalk:
    """Goes through all chains, each from its newest seal to its first."""

    def __init__(self, bench: AuditBench) -> None:
        self._bench = bench
        self._folder = ""
        self._newer: Seal | None = None
        self._lowest = 0
        self._began_at = 0.0
        self.seals = 0
        self.newest: list[str] = []
        self.met: set[str] = set()
        """Of the noted seals, those that are there."""

    def take(self, uri: str, body: bytes | None) -> None:
        number = number_of(uri)
        folder = uri.rpartition("/")[0]
        if folder != self._folder:
            self.end()
            self._folder, self._newer, self._lowest = folder, None, 0
        seal = read_seal(body) if body else None
        if not number or body is None or seal is None or seal.number != number:
            self._wrong(f"{uri} is no seal any more: it was altered or put there", RESTORE)
            self._newer, self._lowest = None, number or self._lowest
            return
        digest = digest_of(body)
        if self._lowest and number < self._lowest - 1:
            self._removed(number + 1, self._lowest - 1)
        elif self._newer and self._newer.previous != digest:
            self._wrong(
                f"{uri} is not what seal {number + 1} followed: it was altered, or seal {number + 1} was made anew",
                RESTORE,
            )
        if digest in self._bench.scope.noted_seals:
            self.met.add(digest)
        if not self._lowest:
            self.newest.append(f"{seal.dag_id}: seal {number} of {seal.sealed_at:%Y-%m-%d %H:%M} UTC is {digest}")
        self._newer, self._lowest, self._began_at = seal, number, seal.sealed_at.timestamp()
        self.seals += 1
        report = self._bench.ledger.run_uri(seal.dag_id, seal.run_id, "report.json")
        documents = json.dumps(dict(seal.documents))
        self._bench.spool.add_report(report, seal.sealed_at, documents)

    def end(self) -> None:
        """Close a chain: it has to reach back to its first seal, or to before the audit's beginning."""
        if self._lowest > 1 and self._began_at >= self._bench.since:
            self._removed(1, self._lowest - 1)
        elif self._lowest > 1:
            text = f"seals 1 to {self._lowest - 1} of {self._folder} are not there: they are older than --since"
            self._bench.findings.remark(CHAIN, text)
        if self._folder and self._began_at:
            self._bench.spool.add_chain(self._folder.rpartition("/")[2], self._began_at)

    def _removed(self, first: int, last: int) -> None:
        which = f"seal {first} was" if first == last else f"seals {first} to {last} were"
        self._wrong(f"{which} removed from {self._folder}", f"{RESTORE}; what they sealed is not proven until then")

    def _wrong(self, what: str, mend: str) -> None:
        self._bench.findings.wrong(CHAIN, what, mend)
