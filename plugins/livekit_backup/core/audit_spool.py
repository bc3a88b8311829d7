"""What an audit holds against each other, in a temporary file, so that memory stays the same for a million entries."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

PAGE = 256
"""Rows that are in memory at a time."""

_SCHEMA = """
CREATE TABLE report (uri TEXT, newest INTEGER, sealed_at REAL, documents TEXT);
CREATE INDEX report_at ON report (uri);
CREATE TABLE entry (uri TEXT, sha256 TEXT, recorded_at REAL, report TEXT, egress_id TEXT, run INTEGER, filename TEXT,
    landed_uri TEXT, size INTEGER, content_sha256 TEXT, PRIMARY KEY (uri, sha256));
CREATE TABLE reported (egress_id TEXT, run INTEGER, PRIMARY KEY (egress_id, run));
CREATE TABLE chain (folder TEXT PRIMARY KEY, began_at REAL);
CREATE TABLE seen (uri TEXT PRIMARY KEY);
CREATE TABLE event (egress_id TEXT, run INTEGER, ref TEXT, PRIMARY KEY (egress_id, run));
CREATE TABLE found (egress_id TEXT, run INTEGER, ref TEXT, PRIMARY KEY (egress_id, run));
CREATE TABLE landed (uri TEXT, size INTEGER, etag TEXT, sha256 TEXT, filename TEXT, egress_id TEXT, recorded_at REAL);
CREATE INDEX landed_at ON landed (uri);
"""


@dataclass(frozen=True)
class SealedEntry:
    """What a sealed report says of a file's document in the ledger, and of the file."""

    uri: str
    sha256: str
    """Of the document."""
    recorded_at: float
    report: str
    egress_id: str
    run: int
    filename: str
    landed_uri: str
    size: int | None
    content_sha256: str
    """Of the landed object."""


@dataclass(frozen=True)
class LandedFile:
    """An object of the warehouse, as it has to be."""

    uri: str
    size: int | None
    etag: str
    """Empty where only a report says of it."""
    sha256: str
    filename: str
    egress_id: str
    recorded_at: float


class AuditSpool:
    """Tables of SQLite's in a file without a name, which is gone when this is closed. For one thread."""

    def __init__(self) -> None:
        # With an empty name SQLite keeps what does not fit in its cache of 2 MB in a file of its own.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_SCHEMA)
        # One transaction: nothing of it is to outlive the process.
        self._database.execute("BEGIN")

    def close(self) -> None:
        """Remove it."""
        self._database.close()

    def add_report(self, uri: str, sealed_at: datetime, documents: str) -> None:
        """Add what a seal says of a report; of several seals of one report the newest is added first."""
        newest = not self.is_sealed(uri)
        row = (uri, newest, sealed_at.timestamp(), documents)
        self._database.execute("INSERT INTO report VALUES (?, ?, ?, ?)", row)

    def reports(self, since: float) -> Iterator[tuple[str, bool, str]]:
        """Give each seal's report, whether it is the report's newest seal, and its documents as JSON."""
        query = "SELECT rowid, uri, newest, documents FROM report WHERE sealed_at >= ?"
        for _, uri, newest, documents in self._pages(query, since):
            yield uri, bool(newest), documents

    def is_sealed(self, report_uri: str) -> bool:
        """Whether a seal covers a report."""
        return self._one("SELECT 1 FROM report WHERE uri = ?", report_uri) is not None

    def add_chain(self, folder: str, began_at: float) -> None:
        """Add when the chain in a folder began."""
        self._database.execute("INSERT OR REPLACE INTO chain VALUES (?, ?)", (folder, began_at))

    def began_at(self, folder: str = "") -> float | None:
        """When the chain in a folder, or the first of all, began; None without one."""
        return self._one("SELECT min(began_at) FROM chain WHERE ? IN ('', folder)", folder)[0]  # type: ignore[no-any-return]

    def add_reported(self, egress_id: str, run: int) -> None:
        """Remember that a sealed report names a backup."""
        self._database.execute("INSERT OR IGNORE INTO reported VALUES (?, ?)", (egress_id, run))

    def add_entry(self, entry: SealedEntry) -> None:
        """Add what a sealed report says of a file; a version of it that is known already stays as it is."""
        row = astuple(entry)
        self._database.execute(f"INSERT OR IGNORE INTO entry VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608

    def versions(self, entry_uri: str) -> list[SealedEntry]:
        """Return all sealed versions of a file's document, the newest first."""
        rows = self._database.execute("SELECT * FROM entry WHERE uri = ? ORDER BY recorded_at DESC", (entry_uri,))
        return [SealedEntry(*row) for row in rows]

    def mark_seen(self, entry_uri: str) -> None:
        """Remember that a document was there."""
        self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (entry_uri,))

    def unseen(self) -> Iterator[str]:
        """Give the URIs of all documents that reports name and nobody has seen, each once."""
        last = ""
        query = "SELECT DISTINCT uri FROM entry WHERE uri > ? AND uri NOT IN seen ORDER BY uri LIMIT ?"
        while rows := self._database.execute(query, (last, PAGE)).fetchall():
            for (last,) in rows:
                yield last

    def add_event(self, egress_id: str, run: int, ref: str, *, found: bool) -> None:
        """Add where a backup's events lie: as a sealed run has written down, or as they were found just now."""
        query = f"INSERT OR REPLACE INTO {'found' if found else 'event'} VALUES (?, ?, ?)"  # noqa: S608 - two names
        self._database.execute(query, (egress_id, run, ref))

    def count_found(self) -> int:
        """Count the backups that the inbox holds."""
        return int((self._one("SELECT count(*) FROM found") or (0,))[0])

    def unfound(self) -> Iterator[str]:
        """Give what sealed runs have written down of backups that were not found."""
        query = (
            "SELECT rowid, ref FROM event WHERE NOT EXISTS"
            " (SELECT 1 FROM found WHERE found.egress_id = event.egress_id AND found.run = event.run)"
        )
        for _, ref in self._pages(query):
            yield ref

    def unreported(self) -> Iterator[str]:
        """Give the backups that were found and that no sealed report names."""
        query = (
            "SELECT rowid, ref FROM found WHERE NOT EXISTS"
            " (SELECT 1 FROM reported WHERE reported.egress_id = found.egress_id AND reported.run = found.run)"
        )
        for _, ref in self._pages(query):
            yield ref

    def add_landed(self, landed: LandedFile) -> None:
        """Add an object that has to be in the warehouse."""
        row = astuple(landed)
        self._database.execute(f"INSERT INTO landed VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608

    def count_landed(self) -> int:
        """Count them."""
        return int((self._one("SELECT count(*) FROM landed") or (0,))[0])

    def landed(self) -> Iterator[list[LandedFile]]:
        """Give them a page at a time, those that lie close together in one."""
        query = "SELECT rowid, * FROM landed WHERE (uri, rowid) > (?, ?) ORDER BY uri, rowid LIMIT ?"
        at: tuple[str, int] = ("", 0)
        while rows := self._database.execute(query, (*at, PAGE)).fetchall():
            at = (rows[-1][1], rows[-1][0])
            yield [LandedFile(*row[1:]) for row in rows]

    def sampled(self, count: int) -> Iterator[LandedFile]:
        """Give some of them, each as likely as any other; all when there are no more."""
        rows = self._database.execute("SELECT rowid FROM landed ORDER BY random() LIMIT ?", (count,)).fetchall()
        for rowid in rows:
            yield LandedFile(*self._database.execute("SELECT * FROM landed WHERE rowid = ?", rowid).fetchone())

    def others_at(self, landed: LandedFile) -> Sequence[LandedFile]:
        """Return later files that landed at the same key."""
        query = "SELECT * FROM landed WHERE uri = ? AND recorded_at > ? LIMIT ?"
        rows = self._database.execute(query, (landed.uri, landed.recorded_at, PAGE))
        return [LandedFile(*row) for row in rows]

    def drop_landed(self, landed: LandedFile) -> None:
        """Take out what has been judged."""
        query = "DELETE FROM landed WHERE uri = ? AND recorded_at = ? AND egress_id = ? AND filename = ?"
        self._database.execute(query, (landed.uri, landed.recorded_at, landed.egress_id, landed.filename))

    def _one(self, query: str, *values: Any) -> Any:
        return self._database.execute(query, values).fetchone()

    def _pages(self, query: str, *values: Any) -> Iterator[Any]:
        """Give rows in the order of their ids, while others may be added."""
        last = 0
        paged = f"{query} AND rowid > ? ORDER BY rowid LIMIT ?"
        while rows := self._database.execute(paged, (*values, last, PAGE)).fetchall():
            yield from rows
            last = rows[-1][0]
