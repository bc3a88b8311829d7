"""From a backup's events to its files: what there is, where it lies, and what cannot be found.

The manifest is the truth about names and links. The event's own results stand in where
there is no manifest, add what a manifest never lists (the live playlist), and say how
much there should be, so that a manifest that lists too little is noticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr

from livekit_backup.core.found_files import FoundFiles, ResolvedFile
from livekit_backup.core.locations import Location
from livekit_backup.errors import LinkExpiredError, LivekitBackupError, RefusedError, UnresolvedError
from livekit_backup.models.egress import EgressInfo, SegmentResult, WebhookEvent
from livekit_backup.models.manifest import Manifest, ManifestPlaylist
from livekit_backup.models.references import FileKind

_MOST_PLAYLISTS = 100
"""Names of an event that a manifest's playlists are looked for among: an egress has a few outputs."""

FetchManifest = Callable[[Location], Manifest]


@dataclass(frozen=True)
class ResolvedBackup:
    """A backup with all its files."""

    egress: EgressInfo
    """Of the newest event."""
    started: datetime
    files: tuple[ResolvedFile, ...]
    manifest_error: LivekitBackupError | None = None
    """Why there is no manifest, where there is none."""


def resolve_backup(events: Sequence[WebhookEvent], fetch: FetchManifest) -> ResolvedBackup:
    """Resolve the events of one backup, newest first, to its files.

    Never raises for what the source says: each file carries its own error.
    """
    backups = [egress for event in events if (egress := event.backup)]
    egress = backups[0]
    manifest, error = _first_manifest(backups, fetch)
    found = FoundFiles(_sizes(backups), _seconds(backups))
    if manifest:
        _add_manifest(found, manifest, backups)
    _add_results(found, backups)
    if manifest:
        _add_shortfall(found, manifest, backups)
    reason = why_unresolved(error or UnresolvedError("the manifest leaves it out, and the event has no location"))
    _add_named(found, backups, reason)
    if not manifest:
        _add_counted(found, backups, reason)
    if not list(found):
        found.put(ResolvedFile("(all files)", FileKind.UNKNOWN, error=reason))
    return ResolvedBackup(egress, _started(egress, events[0]), tuple(found), error)


def _first_manifest(
    backups: Sequence[EgressInfo], fetch: FetchManifest
) -> tuple[Manifest | None, LivekitBackupError | None]:
    """Return the first manifest that can be read, else why the newest cannot."""
    first: LivekitBackupError | None = None
    for link in dict.fromkeys(backup.manifest_location.get_secret_value() for backup in backups):
        if not link:
            continue
        try:
            manifest = fetch(Location(link))
            if manifest.egress_id in ("", backups[0].egress_id):
                return manifest, None
            raise UnresolvedError(f"the manifest belongs to another egress, {manifest.egress_id[:80]!r}")
        except LivekitBackupError as error:
            first = first or error
    return None, first or UnresolvedError("the event has no manifest and no location for it")


def _sizes(backups: Sequence[EgressInfo]) -> dict[str, int]:
    """Sizes by name, of the newest event that has one. A name that two results share says nothing."""
    sizes: dict[str, int] = {}
    for backup in reversed(backups):
        names = Counter(result.filename for result in backup.file_results)
        for result in backup.file_results:
            if names[result.filename] > 1:
                sizes.pop(result.filename, None)
            elif result.size > 0:
                sizes[result.filename] = result.size
    return sizes


def _seconds(backups: Sequence[EgressInfo]) -> dict[str, float]:
    """Durations of files and playlists by name, of the newest event that has one. As with sizes, names are unique."""
    told: dict[str, float] = {}
    for backup in reversed(backups):
        named = [(file.filename, file.duration) for file in backup.file_results]
        named += [(segments.playlist_name, segments.duration) for segments in backup.segment_results]
        names = Counter(name for name, _ in named)
        for name, nanoseconds in named:
            if names[name] > 1:
                told.pop(name, None)
            elif nanoseconds > 0:
                told[name] = nanoseconds / 10**9
    return told


def _add_manifest(found: FoundFiles, manifest: Manifest, backups: Sequence[EgressInfo]) -> None:
    for file in manifest.files:
        found.add(file.filename, FileKind.FILE, file.link)
    for playlist in manifest.playlists:
        found.add(_playlist_name(playlist, manifest, backups[0]), FileKind.PLAYLIST, playlist.link)
        for segment in playlist.segments:
            found.add(segment.filename, FileKind.SEGMENT, segment.link)
    for image in manifest.images:
        found.add(image.filename, FileKind.IMAGE, image.link)


def _playlist_name(playlist: ManifestPlaylist, manifest: Manifest, egress: EgressInfo) -> str:
    """A playlist has no filename in the manifest: the event knows it, by its path or as the only one."""
    try:
        path = f"/{Location(playlist.link.get_secret_value()).key_path}"
    except LivekitBackupError:
        path = ""
    results = egress.segment_results[:_MOST_PLAYLISTS]
    names = [result.playlist_name for result in results if result.playlist_name]
    if fitting := [name for name in names if path.endswith(f"/{name.lstrip('/')}")]:
        return max(fitting, key=len)
    if len(manifest.playlists) == len(egress.segment_results) == 1:
        return egress.segment_results[0].playlist_name
    return ""


def _add_results(found: FoundFiles, backups: Sequence[EgressInfo]) -> None:
    for backup in backups:
        for file in backup.file_results:
            if file.location.get_secret_value():
                _add_missing(found, file.filename, FileKind.FILE, file.location)
        for segments in backup.segment_results:
            for name, link in _playlists(segments):
                if link.get_secret_value():
                    _add_missing(found, name, FileKind.PLAYLIST, link)


def _playlists(result: SegmentResult) -> tuple[tuple[str, SecretStr], tuple[str, SecretStr]]:
    return (
        (result.playlist_name, result.playlist_location),
        (result.live_playlist_name, result.live_playlist_location),
    )


def _add_missing(found: FoundFiles, filename: str, kind: FileKind, link: SecretStr) -> None:
    """Add what the event says of a file unless the manifest's own link to it is as good."""
    try:
        if found.has(filename) and not Location(link.get_secret_value()).is_signed:
            return
    except RefusedError:
        if found.has(filename):
            return
    found.add(filename, kind, link)


def _add_shortfall(found: FoundFiles, manifest: Manifest, backups: Sequence[EgressInfo]) -> None:
    """Account for files that the event counted and the manifest does not list."""
    segments, images = _counts(backups)
    listed_segments = {segment.filename for playlist in manifest.playlists for segment in playlist.segments}
    for noun, listed, expected in (
        ("segments", len(listed_segments), sum(segments.values())),
        # One that is overwritten again and again is listed each time.
        ("images", len(manifest.images), sum(images.values())),
    ):
        if listed < expected:
            error = UnresolvedError(f"the event counts {expected} {noun}, the manifest lists {listed}")
            found.stand_in(f"({expected - listed} of {expected} {noun})", error)


def _counts(backups: Sequence[EgressInfo]) -> tuple[dict[str, int], dict[str, int]]:
    """Return segments by playlist and images by prefix: the most that any event of the run counts."""
    segments, images = Counter[str](), Counter[str]()
    for backup in backups:
        # An event may count two outputs of one name; two events of a run count the same ones.
        of_event, images_of_event = Counter[str](), Counter[str]()
        for result in backup.segment_results:
            of_event[result.playlist_name] += max(0, result.segment_count)
        for image in backup.image_results:
            images_of_event[image.filename_prefix] += max(0, image.image_count)
        segments |= of_event
        images |= images_of_event
    return segments, images


def _add_named(found: FoundFiles, backups: Sequence[EgressInfo], reason: LivekitBackupError) -> None:
    """Account for files that an event names and nothing locates."""
    for backup in backups:
        named = [(file.filename, FileKind.FILE, file.size or None) for file in backup.file_results]
        named += [(result.playlist_name, FileKind.PLAYLIST, None) for result in backup.segment_results]
        for filename, kind, size in named:
            if filename and not found.has(filename):
                found.put(ResolvedFile(filename, kind, size=size, error=reason))


def _add_counted(found: FoundFiles, backups: Sequence[EgressInfo], reason: LivekitBackupError) -> None:
    """Without a manifest, account for the files that an event only counts."""
    segments, images = _counts(backups)
    counted = [(count, f"segments of {name}") for name, count in segments.items()]
    counted += [(count, f"images of {prefix}") for prefix, count in images.items()]
    for count, of in counted:
        if count > 0:
            found.stand_in(f"({count} {of})", reason)


def why_unresolved(error: LivekitBackupError) -> LivekitBackupError:
    """A manifest that is dead or must not be touched says so of its files; any other leaves them unresolved."""
    if isinstance(error, LinkExpiredError | RefusedError | UnresolvedError):
        return error
    return UnresolvedError(f"without its manifest this cannot be found: {error}")


def _started(egress: EgressInfo, event: WebhookEvent) -> datetime:
    """When the run started, or the nearest time that the event has."""
    nanoseconds = egress.started_at or egress.ended_at or egress.updated_at or event.created_at * 10**9
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
