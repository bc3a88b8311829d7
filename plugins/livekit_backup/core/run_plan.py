"""The plan of a whole run: every backup resolved, every file to be recovered or accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache

from livekit_backup.core.http_connections import resolver_for
from livekit_backup.core.inbox import load_events, why_gone
from livekit_backup.core.ledger import Ledger, entry_for, in_parallel
from livekit_backup.core.locations import check_location, system_resolver
from livekit_backup.core.plan_room import PlanRoom
from livekit_backup.core.planning import CheckLocation, FindPrimary, merge_plans, plan_backup
from livekit_backup.core.resolution import FetchManifest, resolve_backup
from livekit_backup.core.storage import ObjectStore
from livekit_backup.errors import RetryableError, SourceUnavailableError
from livekit_backup.models.egress import WebhookEvent
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.references import AccountedFile, BackupRef, FileIdentity, FileKind, Plan, RecordingFile
from livekit_backup.models.settings import Settings
from livekit_backup.models.stored_webhook import EventSource

WORKERS = 8
"""Manifests fetched at a time: each may take up to 64 MiB while it is read."""
MOST_LOOKUPS = 64
"""Hosts whose addresses are asked for while a run is planned: LiveKit's are a few, and a forger can name a million. Of
the others each download asks by itself."""
BATCH = 256
"""Backups whose events are in memory at a time: a compressed object is read once for all of them."""


def plan_run(
    refs: Sequence[BackupRef],
    *,
    inbox: ObjectStore,
    ledger: Ledger,
    settings: Settings,
    fetch: FetchManifest,
    most: int,
    now: datetime,
    patient: bool = False,
    find_primary: FindPrimary = lambda _: None,
) -> Plan:
    """Resolve all backups side by side and join their plans.

    :param most: how many files one run can take.
    :param find_primary: where an unsigned location lies in the customer's own store, if it is to be copied.
    :param patient: another try will follow, so what does not answer now is not accounted for yet.
    :raises SourceUnavailableError: with ``patient``, manifests that did not answer; all others have been read.
    :raises StorageUnavailableError, AccessDeniedError: the inbox or the ledger cannot be read.
    """
    check = _location_check(settings)
    unanswered: list[str] = []
    room = PlanRoom()

    def plan(ref: BackupRef, events: Sequence[WebhookEvent]) -> Plan:
        if not events:
            return _with_known_names(Plan(accounted=(_vanished(ref, why_gone(ref), now),)), ref, ledger)
        resolved = resolve_backup(events, fetch)
        planned = plan_backup(ref, resolved, settings, check, now, find_primary)
        if isinstance(resolved.manifest_error, RetryableError):
            if patient and any(file.error for file in resolved.files):
                unanswered.append(str(resolved.manifest_error))
            planned = _unanswered(planned)
        elif resolved.manifest_error:
            planned = _with_known_names(planned, ref, ledger)
        # What the event alone names is a list too, so that a file whose task dies is missed; a manifest's is better.
        # A person's link leads to one file, which may be one of many.
        if not resolved.manifest_error or (
            ref.brought_by is not EventSource.LINK and not ledger.read_files(ref.egress_id, ref.run)
        ):
            ledger.write_files(ref.egress_id, ref.run, planned.files)
        return room.fit(planned, ref)

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="resolve") as pool:
        plans: list[Plan] = []
        for start in range(0, len(refs), BATCH):
            batch = refs[start : start + BATCH]
            plans += pool.map(plan, batch, load_events(inbox, batch, pool.map))
    if unanswered:
        raise SourceUnavailableError(f"{len(unanswered)} manifests did not answer, such as: {unanswered[0]}")
    if sum(len(plan.to_recover) for plan in plans) > most:
        plans = [_without_landed(plan, ledger) for plan in plans]
    return merge_plans(plans, most)


def account_for(plan: Plan, ledger: Ledger, attempt: Attempt) -> None:
    """Write down every outcome that needs no download. What has landed before stays landed."""
    in_parallel(
        lambda known: ledger.record(entry_for(known.file, known.outcome, known.reason, attempt)),
        [known for known in plan.accounted if known.outcome not in IN_WAREHOUSE],
    )


def _location_check(settings: Settings) -> CheckLocation:
    """A recording of 20,000 segments has one host: it is looked up once, also when nobody knows it."""

    @lru_cache(maxsize=MOST_LOOKUPS)
    def ask(host: str, port: int) -> list[str] | OSError:
        if ask.cache_info().misses > MOST_LOOKUPS:
            return OSError(0, f"over {MOST_LOOKUPS} hosts in one run are not looked up ahead")
        try:
            return system_resolver(host, port)
        except OSError as error:
            return error

    def resolve(host: str, port: int) -> list[str]:
        found = ask(host, port)
        if isinstance(found, OSError):
            raise OSError(found.errno, found.strerror or str(found))
        return found

    return lambda location: check_location(location, settings.allowed_hosts, resolver_for(location, resolve))


def _unanswered(plan: Plan) -> Plan:
    """Leave open what a manifest that did not answer may still name: a later run tries again."""
    return plan.model_copy(
        update={
            "accounted": tuple(
                known.model_copy(update={"outcome": Outcome.FAILED}) if known.outcome is Outcome.UNRESOLVED else known
                for known in plan.accounted
            )
        }
    )


def _vanished(ref: BackupRef, reason: str, now: datetime) -> AccountedFile:
    started = datetime.fromtimestamp(ref.run // 10**9, UTC) if ref.run else now
    file = RecordingFile(
        egress_id=ref.egress_id,
        run=ref.run,
        filename="(all files)",
        kind=FileKind.UNKNOWN,
        room_name=ref.room_name,
        started=started,
        events=ref.events,
    )
    return AccountedFile(file=file, outcome=Outcome.UNRESOLVED, reason=reason)


def _with_known_names(plan: Plan, ref: BackupRef, ledger: Ledger) -> Plan:
    """Where a dead manifest leaves files without names, take those of the list that an earlier run read from it."""
    nameless = [known for known in plan.accounted if known.file.kind is FileKind.UNKNOWN]
    known_before = ledger.read_files(ref.egress_id, ref.run) if nameless else ()
    if not known_before:
        return plan
    named = tuple(known for known in plan.accounted if known.file.kind is not FileKind.UNKNOWN)
    names = {file.filename for file in plan.to_recover} | {known.file.filename for known in named}
    missing = [identity for identity in known_before if identity.filename not in names]
    return Plan(
        to_recover=plan.to_recover,
        accounted=(*named, *(_as_known(identity, nameless[0], ledger) for identity in missing)),
    )


def _as_known(identity: FileIdentity, nameless: AccountedFile, ledger: Ledger) -> AccountedFile:
    file = RecordingFile(**identity.identity())
    if ledger.find_landed(file):
        return _landed_before(file)
    entry = ledger.read(file)
    if entry and entry.outcome is Outcome.IN_PRIMARY:
        return AccountedFile(file=file, outcome=entry.outcome, reason=entry.reason)
    return AccountedFile(file=file, outcome=nameless.outcome, reason=nameless.reason)


def _landed_before(file: RecordingFile) -> AccountedFile:
    return AccountedFile(file=file, outcome=Outcome.ALREADY_LANDED, reason="landed by an earlier run")


def _without_landed(plan: Plan, ledger: Ledger) -> Plan:
    """Make room under the limit: what has landed needs no task to say so again."""
    landed = dict(zip(plan.to_recover, ledger.find_all_landed(plan.to_recover), strict=True))
    return Plan(
        to_recover=tuple(file for file, entry in landed.items() if not entry),
        accounted=plan.accounted + tuple(_landed_before(file) for file, entry in landed.items() if entry),
    )
