"""``doctor`` on what is in the inbox: whether events come in where they are looked for, and from which hosts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.core.http_connections import resolver_for
from livekit_backup.core.inbox import IntakeReader, load_backup_events
from livekit_backup.core.locations import Location, check_location, system_resolver
from livekit_backup.core.storage import ObjectStore, split_uri
from livekit_backup.core.windows import inbox_prefixes
from livekit_backup.core.wording import quoted
from livekit_backup.errors import LivekitBackupError, RefusedError, SourceUnavailableError, UnreadableEventError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.egress import EgressInfo
from livekit_backup.models.finding import Finding, broken, not_checked, note, ok, warning
from livekit_backup.models.references import BackupRef
from livekit_backup.models.window import Window

QUIET = timedelta(hours=24)
"""A project whose webhooks all come in is rarely quiet for longer."""
LATEST = timedelta(hours=2)
MOST_OBJECTS = 500
MOST_SECONDS = 15.0
"""Of reading; a busy inbox is only sampled."""
MOST_BACKUPS = 50
_DEEPEST = 8
_OWN_FOLDER = "_livekit_backup/"


def check_layout(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look for an object under the prefixes of the last day."""
    settings = setup.settings("inbox", "inbox_layout")
    store, now = setup.store("inbox"), datetime.now(UTC)
    for prefix in reversed(list(inbox_prefixes(settings.inbox, settings.inbox_layout, _until(now, QUIET)))):
        if next(store.list_keys(prefix), None):
            yield ok(f"the newest events lie under {prefix}")
            return
    hour = now.strftime(settings.inbox_layout)
    what = f"no object in 24 hours under {settings.inbox} by the layout {settings.inbox_layout} (now: {hour})"
    if newest := _newest_prefix(store, settings.inbox):
        yield warning(
            f"{what}; what there is lies under {newest}",
            "set AIRFLOW__LIVEKIT_BACKUP__INBOX_LAYOUT to how the receiver or Firehose lays out its hours, in UTC; if "
            "it is right, see whether they still write",
        )
    else:
        yield warning(
            f"{what}, nor anywhere else",
            "point LiveKit's webhooks (in its settings) at the receiver, and the receiver or Firehose at this inbox",
        )


def _until(now: datetime, span: timedelta) -> Window:
    return Window(start=now - span, end=now)


def _newest_prefix(store: S3ObjectStore, inbox: str) -> str:
    """Follow the last name on each level: dates sort, so that leads to the newest."""
    bucket, key = split_uri(inbox)
    at = f"{key}/" if key else ""
    found = ""
    for _ in range(_DEEPEST):
        answer = store.connection.client.list_objects_v2(Bucket=bucket, Prefix=at, Delimiter="/")
        deeper = [
            item["Prefix"] for item in answer.get("CommonPrefixes", ()) if not item["Prefix"].endswith(_OWN_FOLDER)
        ]
        if answer.get("Contents"):
            found = f"s3://{bucket}/{at}"
        if not deeper:
            break
        at = deeper[-1]
    return found


def check_backup_hosts(setup: ExaminedSetup) -> Iterator[Finding]:
    """See whether the links of the last hours' backups lead to hosts that are allowed. Only hosts are named."""
    settings = setup.settings("inbox", "inbox_layout", "allowed_hosts")
    window = _until(datetime.now(UTC), LATEST)
    store = setup.store("inbox")
    prefixes = [*inbox_prefixes(settings.inbox, settings.inbox_layout, window)]
    latest = _Sample(store, prefixes)
    reader = IntakeReader()
    reader.read(store, latest)
    intake = reader.result()
    if not latest.is_whole:
        yield note(f"of the last 2 hours only {intake.objects} objects were read")
    if strange := [document for document in intake.unreadable if document.may_be_backup]:
        first = strange[0]
        yield warning(
            f"{len(strange)} documents of the last 2 hours may be backups, but cannot be read; the first is "
            f"{first.uri}, document {first.position}: {first.reason}",
            "let the receiver or Firehose store LiveKit's webhooks as they are, where the inbox's keys can read them",
        )
    places = _places_of(store, intake.backups[:MOST_BACKUPS], _copied_from_primary(setup))
    if not places:
        yield ok(f"no links of backups are among the {intake.events} events that were read of the last 2 hours")
    allowed = []
    for place in sorted(places):
        if problem := _problem_with(place, places[place], settings.allowed_hosts):
            yield problem
        else:
            allowed.append(place)
    if allowed:
        yield ok(f"allowed: {', '.join(allowed)}")


def _problem_with(place: str, location: Location, allowed: tuple[str, ...]) -> Finding | None:
    try:
        check_location(location, allowed, resolver_for(location, system_resolver))
    except RefusedError:
        return broken(
            f"links of backups in the inbox lead to {quoted(place)}, which allowed_hosts does not cover, or only by a "
            "pattern while its address is private: these recordings are refused",
            f"if this host is LiveKit's or yours: AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS={','.join(allowed)},{place}",
        )
    except SourceUnavailableError:
        return warning(
            f"{quoted(place)}, where backups in the inbox lie, does not resolve on this machine",
            f"check it with: getent hosts {location.host}; mend this machine's name server, or set HTTPS_PROXY",
        )
    except LivekitBackupError:
        return not_checked(f"the way to {quoted(place)}: see the proxies")
    return None


class _Sample:
    """The latest objects of the inbox, as many as a person will wait for."""

    def __init__(self, store: ObjectStore, prefixes: list[str]) -> None:
        self._store = store
        self._prefixes = prefixes
        self.is_whole = True

    def __iter__(self) -> Iterator[str]:
        until = time.monotonic() + MOST_SECONDS
        uris = (uri for prefix in reversed(self._prefixes) for uri in self._store.list_keys(prefix))
        for count, uri in enumerate(uris):
            if count == MOST_OBJECTS or time.monotonic() > until:
                self.is_whole = False
                return
            yield uri


def _copied_from_primary(setup: ExaminedSetup) -> Callable[[Location], bool]:
    """Return whether a location is copied by the primary's own connection, which asks no host to be allowed."""
    # Where that connection is no use, the checks of it say so.
    with contextlib.suppress(Exception):
        if conn_id := setup.conn_id("primary"):
            primary = S3ObjectStore(conn_id)
            primary.place_name()
            return lambda location: location.is_plain and primary.uri_of(location) is not None
    return lambda _: False


def _places_of(
    store: ObjectStore, backups: Sequence[BackupRef], is_copied: Callable[[Location], bool]
) -> dict[str, Location]:
    """Return a link to each host that backups are fetched from."""
    places: dict[str, Location] = {}
    for backup in backups:
        # An event that was removed since says nothing.
        with contextlib.suppress(UnreadableEventError):
            for event in load_backup_events(store, backup):
                for location in _locations_of(event.egress_info) if event.egress_info else ():
                    if not is_copied(location):
                        places.setdefault(_entry_for(location), location)
    return places


def _locations_of(egress: EgressInfo) -> Iterator[Location]:
    links = [egress.manifest_location, *(file.location for file in egress.file_results)]
    links += [link for part in egress.segment_results for link in (part.playlist_location, part.live_playlist_location)]
    for link in links:
        try:
            location = Location(link.get_secret_value())
        except RefusedError:
            continue
        if location.scheme in ("http", "https") and location.host:
            yield location


def _entry_for(location: Location) -> str:
    """Return a place as an entry of allowed_hosts names it."""
    host = f"[{location.host}]" if ":" in location.host else location.host
    return host if location.port == {"http": 80, "https": 443}[location.scheme] else f"{host}:{location.port}"
