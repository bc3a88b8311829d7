"""Finds the backups that a person asks for by egress id: at LiveKit, else in the inbox."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from livekit_backup.core.livekit_api import ListedEgress
from livekit_backup.core.reconciling import as_event, reference_to
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.stored_events import raw_event
from livekit_backup.errors import ConfigurationError, LivekitBackupError
from livekit_backup.models.egress import EGRESS_ID, EgressInfo
from livekit_backup.models.references import BackupRef, Intake

AskLiveKit = Callable[[str], Iterable[ListedEgress]]
"""Gives what LiveKit's API lists of an egress id."""
ReadInbox = Callable[[Sequence[str]], Intake]
"""Gives what the inbox holds of egress ids."""


@dataclass(frozen=True)
class Requested:
    """A backup that was asked for, with the event that leads to it; the event holds links."""

    ref: BackupRef
    body: str


def check_egress_ids(egress_ids: Iterable[str]) -> None:
    """See that what a person typed are egress ids. :raises ConfigurationError: one is not; it is not repeated."""
    for number, egress_id in enumerate(egress_ids, 1):
        if not re.fullmatch(EGRESS_ID, egress_id):
            raise ConfigurationError(
                f"argument {number} is no egress id, such as EG_abc123; a link is a secret that the process list "
                "shows: give it on standard input, with --link"
            )


def find_backups(
    egress_ids: Sequence[str], ask: AskLiveKit, read: ReadInbox, inbox: ObjectStore
) -> tuple[list[Requested], list[str]]:
    """Return the backups of these egresses, every run of them, and a sentence for each egress without one.

    :raises StorageUnavailableError, AccessDeniedError: the inbox cannot be read.
    """
    found: list[Requested] = []
    answers: dict[str, str] = {}
    for egress_id in dict.fromkeys(egress_ids):
        backups, answers[egress_id] = _at_livekit(egress_id, ask)
        found += backups
    # What LiveKit lists without the flag may have it in an older event: the flag is sticky.
    unknown = [egress_id for egress_id in answers if egress_id not in {item.ref.egress_id for item in found}]
    if unknown:
        found += [Requested(ref, raw_event(inbox, ref).decode()) for ref in read(unknown).backups]
    there = {item.ref.egress_id for item in found}
    return found, [
        f"{egress_id}: {answer}, and the inbox has no backup event of it"
        for egress_id, answer in answers.items()
        if egress_id not in there
    ]


def _at_livekit(egress_id: str, ask: AskLiveKit) -> tuple[list[Requested], str]:
    try:
        listed = [item for item in ask(egress_id) if item.info is not None and item.info.egress_id == egress_id]
    except LivekitBackupError as error:
        return [], f"LiveKit could not be asked ({error})"
    backups = [
        Requested(reference_to(item.info), as_event(item.document))
        for item in listed
        if item.info and item.info.is_final and item.info.backup_storage_used
    ]
    return backups, _answer([item.info for item in listed if item.info])


def _answer(infos: Sequence[EgressInfo]) -> str:
    if not infos:
        return "LiveKit does not list it (any more)"
    if not infos[-1].is_final:
        return "LiveKit lists it as still running"
    return f"LiveKit lists it as {infos[-1].status}, without a backup"
