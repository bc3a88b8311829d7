"""Judges what a simulated run has left: every file in one outcome, each outcome explained, nothing wrong and nothing left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from livekit_backup.core.ledger import Ledger
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, SAFE, Outcome
from livekit_backup.models.settings import OnConflict
from livekit_backup.models.statement import Statement, StatementLine

from .between_tries import ZOMBIE
from .explanations import (
    BESIDE,
    EVERYWHERE,
    FATES,
    MANIFEST_FAULTS,
    MANIFESTS,
    SOURCE,
    STYLES,
    Explanation,
    is_explained,
)
from .recordings import TOKEN, Backup, Truth
from .setting import Setting
from .warehouse import OTHERS

LANDS = frozenset({"fine", "dies", "dies, and there is a fresh link"})
LEDGER, PROBES = "s3://b/out/_l/", "s3://b/out/_livekit_backup/"
LOST = "warehouse: a part is lost after its 200"
UNSAID = "ended before the checks were written down"


class Oracle:
    """Looks at one setting from outside."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._truths = {(backup.egress_id, file.name): (backup, file) for backup, file in setting.world.files()}

    # -- at any time

    def of_what_showed(self) -> Iterator[str]:
        """Nothing was visible at a key before it was verified."""
        for uri, content, was_altered in self._setting.shown:
            if uri.startswith(PROBES) or was_altered:
                continue
            possible = [file for file in self._at(uri) if file.fate in LANDS]
            if not any(content == file.data for file in possible):
                yield f"{uri} showed {len(content)} bytes that are no recording's that may be there"

    def _at(self, uri: str) -> Iterator[Truth]:
        for backup, file in self._setting.world.files():
            stem, dot, ending = self._setting.landing_uri(backup.egress_id, file.name).rpartition(".")
            if re.fullmatch(rf"{re.escape(stem)}(~[0-9a-f]{{12}})?{re.escape(dot + ending)}", uri):
                yield file

    def of_links(self) -> Iterator[str]:
        """No link lies anywhere but in the inbox."""
        for uri, body in self._setting.store.objects.items():
            if not uri.startswith("s3://in/") and TOKEN.encode() in body:
                yield f"a signed URL in {uri}"

    def of_statement(self, statement: Statement, *, has_rival: bool) -> Iterator[str]:
        """Every file is in one line, what landed is right, and what did not is explained."""
        keys = [line.key for line in statement.lines]
        if len(set(keys)) < len(keys):
            yield "a file stands in two lines"
        for backup in self._setting.world.backups:
            lines = {line.filename: line for line in statement.lines if line.egress_id == backup.egress_id}
            unread = {document.uri for document in statement.unreadable if document.may_be_backup}
            has_gaps = bool(statement.gaps) or f"s3://in/{backup.egress_id}.json" in unread
            yield from self._of_backup(backup, lines, has_gaps=has_gaps, has_rival=has_rival)
        if not has_rival:
            yield from self._of_told(statement)
        landed = [line.landed_uri for line in statement.lines if line.outcome in IN_WAREHOUSE]
        if len(set(landed)) < len(landed):
            yield "two files stand for one object"

    def _of_told(self, statement: Statement) -> Iterator[str]:
        """What was said to have landed before the report was written is not said to have failed there.

        Of two at once one can write a failure over the other's landing, between its look at the ledger and its word.
        """
        if self._setting.chaos.all_struck() & {"warehouse: an object shows late", ZOMBIE}:
            return
        yield from self._setting.store.unsaid
        told = {entry.key for entry in self._setting.told if entry.recorded_at < statement.written_at}
        for line in statement.lines:
            if line.key in told and line.outcome not in IN_WAREHOUSE:
                yield f"{line.filename} had landed, and is {line.outcome}: {line.reason}"

    def _of_backup(
        self, backup: Backup, lines: dict[str, StatementLine], *, has_gaps: bool, has_rival: bool
    ) -> Iterator[str]:
        names = {file.name for file in backup.files}
        stand_ins = [line for name, line in lines.items() if name.startswith("(")]
        for name in names - lines.keys():
            if not has_gaps and not any(line.outcome not in SAFE for line in stand_ins):
                yield f"{name} stands nowhere"
        for name, line in lines.items():
            if name in names:
                truth = self._truths[backup.egress_id, name][1]
                yield from self._of_line(backup, truth, line, has_rival=has_rival)
            elif not name.startswith("("):
                yield f"{name} is no file of {backup.egress_id}"
            elif not is_explained(line.outcome, line.reason, self._of_whole(backup)):
                yield f"{name} is {line.outcome} for no reason that there is: {line.reason}"

    def _of_whole(self, backup: Backup) -> list[Explanation]:
        struck = self._setting.chaos.struck
        found = list(MANIFESTS[backup.manifest])
        for kind in struck.get(backup.egress_id, ()):
            found += MANIFEST_FAULTS[kind]
        for kind in self._setting.chaos.all_struck() & EVERYWHERE.keys():
            found += EVERYWHERE[kind]
        if self._setting.chaos.all_struck():
            found.append((Outcome.FAILED, "its files are not known yet"))
        return found

    def _of_line(self, backup: Backup, truth: Truth, line: StatementLine, *, has_rival: bool) -> Iterator[str]:
        if line.outcome in IN_WAREHOUSE:
            if self._setting.store.objects.get(line.landed_uri) != truth.data:
                yield f"{truth.name} is {line.outcome}, and {line.landed_uri} holds other bytes"
            if line.sha256 != hashlib.sha256(truth.data).hexdigest():
                yield f"{truth.name} is {line.outcome} with a SHA-256 that is not its own: {line.sha256!r}"
            yield from self._of_entry(backup, truth, has_rival=has_rival)
        elif line.outcome is Outcome.IN_PRIMARY:
            if not truth.is_unsigned or self._setting.copies_primary:
                yield f"{truth.name} is in_primary, and it is not there"
        else:
            by = [*FATES[truth.fate], *STYLES.get(truth.style, ()), *self._of_whole(backup)]
            for kind in self._setting.chaos.struck.get(truth.path, ()):
                by += SOURCE[kind]
            if has_rival:
                by += BESIDE
            if self._setting.settings.on_conflict is OnConflict.FAIL and self._is_taken(backup, truth):
                by.append((Outcome.FAILED, "holds other content"))
            if not is_explained(line.outcome, line.reason, by):
                yield f"{truth.name} ({truth.fate}) is {line.outcome} for no reason that there is: {line.reason}"

    def _of_entry(self, backup: Backup, truth: Truth, *, has_rival: bool) -> Iterator[str]:
        """What the ledger says was checked is what could be."""
        ledger = Ledger(self._setting.store, self._setting.settings.ledger)
        uri = ledger.entry_uri(backup.egress_id, backup.started, truth.name)
        entry = LedgerEntry.model_validate_json(self._setting.store.objects[uri])
        if entry.outcome not in IN_WAREHOUSE:
            # It was written since; by then the file was gone, or the store said so.
            return
        if (entry.size, entry.sha256) != (len(truth.data), hashlib.sha256(truth.data).hexdigest()):
            yield f"the ledger's word on {truth.name} is not of its bytes"
        if any(UNSAID in gap for gap in entry.unverified):
            yield from self._of_adopted(truth, entry, has_rival=has_rival)
            return
        can_be_proven = truth.can_be_proven and (not truth.is_unsigned or self._setting.store.has_md5_etags)
        if can_be_proven != ("source_etag" in entry.verified_by) and "source: another ETag" not in (
            self._setting.chaos.struck.get(truth.path, ())
        ):
            yield f"{truth.name} ({truth.style}) was verified by {entry.verified_by}, not by {entry.unverified}"
        if not {"destination_etag", "destination_crc64nvme", "read_back"} & set(entry.verified_by):
            yield f"nobody has looked at {truth.name} where it landed"

    def _of_adopted(self, truth: Truth, entry: LedgerEntry, *, has_rival: bool) -> Iterator[str]:
        """An object that nobody wrote down is taken at its own word alone, read back, and only where something happened."""
        own_word = self._setting.store.heads[entry.landed_uri].metadata.get("livekit-sha256")
        if own_word != entry.sha256 or "read_back" not in entry.verified_by:
            yield f"{truth.name} was adopted for no proof: {entry.verified_by}"
        if {"source_etag", "length"} & set(entry.verified_by):
            yield f"{truth.name} was adopted with checks that nobody knows of: {entry.verified_by}"
        if not has_rival and not any(
            kind.startswith(("warehouse:", "task:")) for kind in self._setting.chaos.all_struck()
        ):
            yield f"{truth.name} was adopted, and nothing kept anybody from writing it down"

    def _is_taken(self, backup: Backup, truth: Truth) -> bool:
        return self._setting.store.objects.get(self._setting.landing_uri(backup.egress_id, truth.name)) == OTHERS

    # -- when all is calm

    def of_end(self, statement: Statement) -> Iterator[str]:
        """Without further faults each file has come to what its fate says, and nothing else is left."""
        lines = {(line.egress_id, line.filename): line for line in statement.lines}
        if statement.gaps:
            yield f"gaps in the calm: {statement.gaps}"
        for (egress_id, name), (backup, truth) in self._truths.items():
            line = lines.get((egress_id, name))
            possible = self._possible(backup, truth)
            if (line.outcome if line else None) not in possible:
                shown = f"{line.outcome}: {line.reason}" if line else "nowhere"
                yield f"{name} ({truth.fate}, {truth.style}) ends as {shown}, not as {sorted(filter(None, possible))}"
        yield from self._of_objects(statement)
        yield from self._of_uploads(lines)

    def _possible(self, backup: Backup, truth: Truth) -> set[Outcome | None]:
        landed: set[Outcome | None] = {Outcome.LANDED, Outcome.ALREADY_LANDED}
        is_late = self._setting.clock.now() > backup.deadline
        if is_late and truth.kind in ("segment", "image"):
            # Whether its name was known before the manifest died is another matter.
            return {None, *landed, Outcome.EXPIRED, Outcome.IN_PRIMARY, Outcome.FAILED, *_outcomes(truth)}
        if backup.manifest != "there" and truth.kind in ("segment", "image"):
            # Nobody knows its name; what stands for it is looked at as any line is.
            return {None}
        if truth.is_unsigned and not self._setting.copies_primary:
            return {Outcome.IN_PRIMARY}
        if truth.fate in LANDS:
            if self._setting.settings.on_conflict is OnConflict.FAIL and self._is_taken(backup, truth):
                landed = {Outcome.FAILED}
            has_fresh = backup.manifest == "there" and truth is not backup.live_playlist
            if (truth.died and not (truth.is_renewed and has_fresh)) or (is_late and not truth.is_unsigned):
                return landed | {Outcome.EXPIRED}
            return landed
        return _outcomes(truth) | ({Outcome.EXPIRED} if is_late else set())

    def _of_objects(self, statement: Statement) -> Iterator[str]:
        landed = {line.landed_uri for line in statement.lines if line.outcome in IN_WAREHOUSE}
        for uri, body in self._setting.store.objects.items():
            if not uri.startswith("s3://b/") or uri.startswith(LEDGER) or uri in landed:
                continue
            if uri.startswith(PROBES):
                yield f"a probe is left: {uri}"
            elif body != OTHERS:
                yield f"an object that no line names: {uri} ({len(body)} bytes)"
        if self._setting.settings.on_conflict is not OnConflict.OVERWRITE and self._setting.store.honours_condition:
            for uri in self._setting.others:
                if self._setting.store.objects.get(uri) != OTHERS:
                    yield f"somebody else's object is gone: {uri}"

    def _of_uploads(self, lines: dict[tuple[str, str], StatementLine]) -> Iterator[str]:
        may_land = {self._setting.landing_uri(*key) for key, line in lines.items() if line.outcome is Outcome.FAILED}
        for upload_id, (uri, parts, _) in self._setting.store.uploads.items():
            # Of parts that the store has lost nobody can know that they only show late.
            if uri in may_land and (parts or LOST in self._setting.chaos.struck.get(uri, ())):
                continue
            yield f"{upload_id} is left open at {uri} with {len(parts)} parts"


def _outcomes(truth: Truth) -> set[Outcome]:
    """What a fate makes of a file."""
    return {outcome for outcome, _ in FATES[truth.fate]}
