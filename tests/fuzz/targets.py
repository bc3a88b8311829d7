"""What is fuzzed, and what must hold whatever comes: our own errors only, no secret told, nothing dropped.

Each target takes bytes. ``tests/unit/test_fuzz_targets.py`` gives them a fixed few, ``make fuzz`` millions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import urllib3

from livekit_backup.core.egress_listing import EgressListing, read_page
from livekit_backup.core.event_selection import DocumentSelection
from livekit_backup.core.event_shapes import StoredEvent, interpret, parse_event
from livekit_backup.core.json_documents import Splitter
from livekit_backup.core.landing_keys import MAX_KEY_BYTES, beside, landing_uri
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.locations import Location, check_location
from livekit_backup.core.manifest_bounds import why_too_much
from livekit_backup.core.object_metadata import content_type, provenance
from livekit_backup.core.planning import plan_backup
from livekit_backup.core.recording_home import check_reading
from livekit_backup.core.redaction import safe_url, without_query
from livekit_backup.core.resolution import resolve_backup
from livekit_backup.core.source_answers import error_for_answer, has_expired
from livekit_backup.core.statements import headline, make_statement, render
from livekit_backup.core.strict_json import RefusedJsonError, parse_json
from livekit_backup.core.twirp_answers import error_for_api_answer
from livekit_backup.core.webhook_tokens import read_token
from livekit_backup.errors import LivekitBackupError, RefusedError, UnreadableEventError
from livekit_backup.models.egress import WebhookEvent
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import (
    AccountedFile,
    BackupRef,
    EventRef,
    FileKind,
    Intake,
    Plan,
    RecordingFile,
    Upload,
)
from livekit_backup.models.settings import Settings

from . import choices
from .choices import SECRET, Choices

NOW = datetime(2026, 11, 21, tzinfo=UTC)
REF = EventRef(uri="s3://b/in/e", position=0)
URI = "s3://b/in/1"
HOSTS = ("*.amazonaws.com", "storage.googleapis.com", "minio.acme:9000")
SETTINGS = (
    Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l"),
    Settings(inbox="s3://b/in", warehouse="s3://b", ledger="s3://b/_l", landing_key="{filename}"),
    Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l", landing_key="{room_name}/{filename}"),
)
TARGETS: dict[str, Callable[[bytes], None]] = {}


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Name a target after its function."""
    TARGETS[function.__name__] = function
    return function


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        size = len(self._data) if size < 0 else size
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def close(self) -> None:
        pass


def _tells_nothing(text: str) -> None:
    assert SECRET not in text, "a secret is told"


def _can_be_shown(error: Exception) -> None:
    assert str(error)
    assert str(error).isprintable()
    _tells_nothing(str(error))


@target
def documents(data: bytes) -> None:
    """Bytes as strict JSON: a value or the one error, and what it takes Python's reader takes the same."""
    try:
        value = parse_json(data)
    except RefusedJsonError as error:
        _can_be_shown(error)
        return
    assert value == json.loads(data.removeprefix(b"\xef\xbb\xbf"))


@target
def inbox(data: bytes) -> None:
    """An inbox object: with and without selecting the same backups are found, and no byte is neither read nor named."""
    found: list[set[Any]] = []
    for selects in (True, False):
        selection = DocumentSelection(_Body(data), selects=selects)
        found.append({_backup(interpret(URI, document)) for document in selection} - {None})
    assert found[1] <= found[0], "selecting misses a backup"


def _backup(item: Any) -> Any:
    egress = item.event.backup if isinstance(item, StoredEvent) else None
    return egress and (egress.egress_id, egress.started_at)


@target
def splitter(data: bytes) -> None:
    """The careful reader: documents in order, one behind the other, and all that is between them is nothing."""
    split, at = Splitter(), 0
    for start in (0, 1):
        for document in split.feed(data[: len(data) // 2] if not start else data[len(data) // 2 :]):
            at = _behind(document, at, data)
    for document in split.finish():
        at = _behind(document, at, data)


def _behind(document: Any, at: int, data: bytes) -> int:
    assert document.offset >= at, "documents overlap"
    assert data[document.offset :].startswith(document.raw)
    return int(document.offset + len(document.raw))


@target
def events(data: bytes) -> None:
    """One event in some shape: read, or refused with a reason."""
    of = Choices(data)
    _read_event(choices.event(of))


def _read_event(document: Any) -> WebhookEvent | None:
    try:
        # As it comes out of the inbox: half a surrogate pair is an escape there.
        return parse_event(json.loads(json.dumps(document)))
    except UnreadableEventError as error:
        _tells_nothing(str(error))
        return None


@target
def plans(data: bytes) -> None:
    """One or two events of a run and their manifest: every entry is landed somewhere, or reported by name."""
    of = Choices(data)
    settings = of.one_of(*SETTINGS)
    backups = [event for _ in range(1 + of.byte() % 2) if (event := _read_event(choices.event(of))) and event.backup]
    runs = {event.backup.egress_id for event in backups if event.backup}
    if not backups or len(runs) > 1:
        return
    manifests: list[Manifest] = []
    resolved = resolve_backup(backups, lambda _: _fetch(of, manifests))
    egress = backups[0].backup
    assert egress is not None
    ref = BackupRef(egress_id=egress.egress_id, run=egress.started_at, events=(REF,))
    plan = plan_backup(ref, resolved, settings, _check, NOW)
    _nothing_is_dropped(manifests, resolved.files)
    assert len(plan.files) == len(resolved.files) > 0
    _is_sound(plan, settings)
    _is_reported(plan)


def _fetch(of: Choices, manifests: list[Manifest]) -> Manifest:
    if of.rarely():
        raise of.one_of(*LivekitBackupError.__subclasses__())("it could not be fetched")
    raw = json.dumps(choices.manifest(of)).encode()
    assert not why_too_much(raw)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValueError:
        raise RefusedError("no manifest") from None
    if manifest.egress_id in ("", "EG_1"):
        manifests.append(manifest)
    return manifest


def _check(location: Location) -> None:
    check_location(location, HOSTS, lambda host, port: ["52.218.1.1"])


def _entries(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for entry in (*manifest.files, *manifest.images, *(one for list_ in manifest.playlists for one in list_.segments)):
        yield entry.filename, entry.link.get_secret_value()
    for playlist in manifest.playlists:
        yield "", playlist.link.get_secret_value()


def _nothing_is_dropped(manifests: list[Manifest], files: Any) -> None:
    names = {file.filename for file in files}
    objects = {(file.location.host, file.location.key_path) for file in files if file.location}
    hosts = {host.partition(".")[0] for host, _ in objects}
    is_taken = any("names that tell it from others" in str(file.error) for file in files)
    for manifest in manifests[:1]:
        for name, link in _entries(manifest):
            assert not name or name in names, "a name of the manifest is dropped"
            try:
                location = Location(link)
            except LivekitBackupError:
                continue
            if link and not is_taken:
                paths = {path for host, path in objects if host.partition(".")[0] == location.host.partition(".")[0]}
                assert location.host.partition(".")[0] in hosts
                assert location.key_path in paths, "an object of the manifest is dropped"


def _is_sound(plan: Plan, settings: Settings) -> None:
    assert len({file.key for file in plan.files}) == len(plan.files), "two files are one"
    _tells_nothing(plan.model_dump_json())
    for file in plan.to_recover:
        key = file.landing_uri.removeprefix("s3://b/")
        assert file.landing_uri.startswith(f"{settings.warehouse}/")
        assert len(key.encode()) <= MAX_KEY_BYTES
        assert not {"", ".", ".."} & set(key.split("/"))
        assert not f"{file.landing_uri}/".startswith((f"{settings.ledger}/", f"{settings.inbox}/"))
        assert file.label.isprintable()


class _Store:
    """As much of a store as a report needs."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = objects or {}

    def get(self, uri: str) -> bytes | None:
        return self.objects.get(uri)

    def put(self, uri: str, body: bytes, *, content_type: str = "") -> None:
        self.objects[uri] = body

    def put_new(self, uri: str, body: bytes, *, content_type: str, metadata: dict[str, str]) -> bool:
        return self.objects.setdefault(uri, body) is body

    def list_keys(self, prefix: str) -> list[str]:
        return sorted(uri for uri in self.objects if uri.startswith(prefix))

    def list_objects(self, prefix: str, after: str = "", page: int = 1000) -> list[Any]:
        return []

    def head(self, uri: str) -> None:
        return None

    def list_uploads(self, uri: str) -> list[str]:
        return []

    def abort_upload(self, uri: str, upload_id: str) -> None:
        pass


def _is_reported(plan: Plan) -> None:
    """As a run with no task left would: each file by name, in lines that print."""
    for known in plan.accounted:
        assert known.reason
        assert known.outcome is not Outcome.LANDED
    for file in plan.files:
        LedgerEntry(**file.identity(), outcome=Outcome.FAILED, recorded_at=NOW).model_dump_json().encode()


@target
def urls(data: bytes) -> None:
    """A location: refused, or what connects reads the same host in it; never shown with its query."""
    of = Choices(data)
    text = data[1:].decode(errors="backslashreplace") if data[:1] > b"\x7f" else choices.url(of)
    shown = safe_url(text)
    assert shown.isprintable()
    assert "?" not in shown
    try:
        location = Location(text)
        assert location.deadline is None or location.deadline.tzinfo
        has_expired(location, NOW)
        assert location.name == safe_url(location.url)
        _check(location)
        check_reading(location)
    except LivekitBackupError as error:
        _can_be_shown(error)
        return
    except urllib3.exceptions.LocationValueError:
        return
    _tells_nothing(f"{location} {location!r} {without_query(text)}")
    parsed = urllib3.util.parse_url(location.url)
    assert (parsed.host or "").rstrip(".") == location.host
    assert location.host.endswith(".amazonaws.com") or location.host in ("storage.googleapis.com", "minio.acme")


@target
def names(data: bytes) -> None:
    """A filename: refused, or a key under the warehouse, an ASCII header, and a line that prints."""
    of = Choices(data)
    settings = of.one_of(*SETTINGS)
    name = choices.name(of)
    if of.byte() % 4 == 0:
        name += of.rest().decode(errors="backslashreplace")
    while of.left:
        name += of.one_of(*"abz09 ._-~/%{}é\\会İ", "\u0301", "\u200d", "\U0001f3a5", "..", "{filename}", "aa" * 99)
    kept = {"egress_id": "EG_1", "run": 1, "started": NOW, "room_name": name, "room_id": "RM_1"}
    try:
        uri = landing_uri(
            settings.warehouse, settings.ledger, settings.landing_key, filename=name, kind=FileKind.FILE, **kept
        )
    except RefusedError as error:
        _can_be_shown(error)
        return
    file = RecordingFile(**kept, filename=name, kind=FileKind.FILE, landing_uri=uri)
    assert content_type(name).isascii()
    for value in provenance(file, NOW, "0" * 64, "mark").values():
        assert value.isascii()
        assert value.isprintable()
    upload = Upload(egress_id="EG_1", run=1, filename=name, landing_uri=uri, upload_id="u", sha256="0" * 64)
    other = beside(file, upload).landing_uri
    assert other != uri
    assert other.rpartition("/")[0] == uri.rpartition("/")[0]
    assert Ledger(_Store(), settings.ledger).entry_uri("EG_1", 1, name).startswith(f"{settings.ledger}/files/EG_1/1/")


@lru_cache(maxsize=1)
def _ledger_documents() -> tuple[tuple[str, bytes], ...]:
    file = RecordingFile(egress_id="EG_1", run=1, filename="a.mp4", kind=FileKind.FILE, started=NOW, deadline=NOW)
    ledger = Ledger(_Store(), "s3://b/out/_l")
    lost = AccountedFile(file=file.model_copy(update={"filename": "b.mp4"}), outcome=Outcome.EXPIRED, reason="over")
    entry = LedgerEntry(**file.identity(), outcome=Outcome.LANDED, landed_uri="s3://b/out/a", size=5, recorded_at=NOW)
    intake = Intake(backups=(BackupRef(egress_id="EG_1", run=1, events=(REF,)),), objects=1, events=1)
    plan = Plan(to_recover=(file,), accounted=(lost,), made_at=NOW)
    return (
        (ledger.entry_uri(*file.key), entry.model_dump_json().encode()),
        (ledger.run_uri("d", "r", "intake.json"), intake.model_dump_json().encode()),
        (ledger.run_uri("d", "r", "plan.json"), plan.model_dump_json().encode()),
    )


@target
def ledger(data: bytes) -> None:
    """The ledger's documents, of which one was edited: a statement comes out, and no file of the plan is missing."""
    of = Choices(data)
    objects = dict(_ledger_documents())
    uri = of.one_of(*objects)
    body = bytearray(objects[uri])
    for _ in range(of.byte() % 8):
        at, how, what = (
            (of.byte() << 8 | of.byte()) % (len(body) + 1),
            of.byte() % 3,
            of.text().encode(errors="replace"),
        )
        body[at : at + (len(what) if how == 0 else how * 3)] = what
    objects[uri] = bytes(body)
    store = _Store(objects)
    book = Ledger(store, "s3://b/out/_l")
    statement = make_statement(book, store, Attempt(dag_id="d", run_id="r"), None, [], NOW)
    plan, intake = book.read_plan("d", "r"), book.read_intake("d", "r")
    planned = {file.key for file in plan.files} if plan else set()
    assert planned <= {line.key for line in statement.lines}, "a file is not reported"
    assert plan or statement.lines or statement.gaps or not (intake and intake.backups)
    assert intake or statement.gaps
    for line in (*render(statement).splitlines(), headline(statement)):
        assert line.isprintable()


@target
def answers(data: bytes) -> None:
    """What a recording's home or LiveKit's API answers with: one error of ours, or none, and no secret in it."""
    of = Choices(data)
    status = of.one_of(200, 206, 301, 400, 401, 403, 404, 407, 410, 412, 416, 418, 429, 500, 503, 599, 101, 999)
    headers = {"Retry-After": of.text(), "location": choices.url(of)}
    location = Location(
        f"https://b.s3.amazonaws.com/k?X-Amz-Date=20261120T204342Z&X-Amz-Expires=1&X-Amz-Signature={SECRET}"
    )
    body = of.rest()
    error = error_for_answer(location, status, headers, body, NOW)
    assert (error is None) == (status in (200, 206))
    _tells_nothing(str(error))
    error = error_for_api_answer("LiveKit", "APIkey", status, {"retry-after": of.text(), **headers}, body, None)
    assert str(error)
    assert f"Signature={SECRET}" not in str(error)


@target
def listings(data: bytes) -> None:
    """A page of ListEgress: items, each read or with a reason, or no list."""
    of = Choices(data)
    if of.byte() % 2:
        page: Any = {
            "items": [choices.egress(of) for _ in range(of.byte() % 4)],
            "next_page_token": {"token": of.text()},
        }
        body = json.dumps(page).encode()
    else:
        body = of.rest()
    listing = EgressListing("LiveKit")
    try:
        for listed in listing.take(read_page("LiveKit", body)):
            assert (listed.info is None) == bool(listed.error)
            _tells_nothing(listed.error)
    except LivekitBackupError as error:
        _tells_nothing(str(error))


@target
def tokens(data: bytes) -> None:
    """A webhook's Authorization header: nobody but who has the key gets in."""
    for text in (data.decode("latin-1"), f"Bearer {data.decode(errors='replace')}"):
        try:
            read_token(text, {"APIkey": "secret-of-more-than-32-characters-for-all"}, NOW)
        except LivekitBackupError as error:
            _can_be_shown(error)
        else:
            raise AssertionError("a token was forged")
