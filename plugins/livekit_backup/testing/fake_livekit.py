"""A fake LiveKit Cloud whose customers' buckets refused the upload: recordings, manifests, events.

In a test::

    with FakeLiveKit() as livekit:
        recording = livekit.record_file("egress/standup.mp4", size=64 * MIB, room_name="Standup")
        livekit.break_(recording, Fault.CUT_SHORT, times=2)
        livekit.store_event(put, recording.event())

For a demo: ``python -m livekit_backup.testing.fake_livekit_cli serve --events-dir DIR``.
"""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, Unpack
from urllib.parse import quote

from livekit_backup.testing.backup_server import BackupServer, Request
from livekit_backup.testing.fake_api import API_KEYS, ApiFault, FakeApi
from livekit_backup.testing.presigning import SigningKey
from livekit_backup.testing.recordings import (
    SUFFIXES,
    Egress,
    Json,
    Layout,
    Recording,
    RecordingOptions,
    entry_of,
    laid_out,
    manifest_of,
    playlist_of,
    token_of,
    upload_order,
    without_defaults,
)
from livekit_backup.testing.stored_objects import Breakage, Fault, StoredObject
from livekit_backup.testing.synthetic_bytes import MIB, Content, LiteralBytes, SyntheticBytes

_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)

# What LiveKit puts in the place of a redacted storage key.
_STORAGE = {"accessKey": "{access_key}", "secret": "{secret}", "region": "eu-central-1"}


class FakeLiveKit:
    """LiveKit Cloud's backup bucket and what LiveKit tells about it.

    Args:
        host: the address to listen on; ``::1`` and the like for IPv6.
        base_url: how clients reach the server, where that is not its own address.
        seed: another one gives other bytes and ids.
        clock: what counts as now, for the URLs' expiry and for the recordings' default times.
        primary_bucket: the customer's bucket, in which some or all of a recording can be.
        encryption: ``aws:kms`` makes the ETags say nothing about the bytes, as in S3.
        tls: a context with a certificate for the host makes it serve https.
        api_keys: API keys of the server API, with their secrets.
        cloud: False makes the API that of an open-source server; see :class:`FakeApi`.
        page_size: egresses on a page of the API.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        base_url: str | None = None,
        bucket: str = "livekit-backup",
        primary_bucket: str = "acme-recordings",
        seed: int | str = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        encryption: str = "AES256",
        key: SigningKey | None = None,
        tls: ssl.SSLContext | None = None,
        api_keys: Mapping[str, str] = API_KEYS,
        cloud: bool = True,
        page_size: int = 100,
    ) -> None:
        self.bucket = bucket
        self.primary_bucket = primary_bucket
        self.seed = seed
        self.recordings: list[Recording] = []
        self._now = clock().replace(microsecond=0)
        self._stored = Counter[str]()
        self._api = FakeApi(api_keys, clock=clock, cloud=cloud, page_size=page_size)
        key = key or SigningKey()
        self._server = BackupServer(
            host, port, base_url=base_url, key=key, clock=clock, encryption=encryption, tls=tls, api=self._api
        )

    @property
    def base_url(self) -> str:
        """Scheme, host and port in every signed URL."""
        return self._server.base_url

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order, without their query strings."""
        return self._server.requests

    def bytes_sent(self, target: Recording | StoredObject | str) -> int:
        """Bytes of an object's content that have left so far, in all answers; of a recording's files together.

        Counted while they are sent: a test can wait until half of a file is out. What the client
        has received can be some MiB less, since the sockets' buffers hold them.

        Args:
            target: a path is written as in the log of requests, ``/bucket/key``.
        """
        if isinstance(target, Recording):
            paths = {stored.path for stored in target.files.values()}
        else:
            paths = {target if isinstance(target, str) else target.path}
        sent = [request for request in list(self.requests) if request.path in paths and request.status in (200, 206)]
        return sum(request.bytes_sent for request in sent)

    def start(self) -> Self:
        """Serve in the background. The port is open, and the URLs are final, even before."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop at once, whatever still runs."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def record_file(
        self,
        filename: str,
        *,
        size: int = MIB,
        key: str | None = None,
        web_url: str = "",
        upload_part_size: int | None = None,
        **options: Unpack[RecordingOptions],
    ) -> Recording:
        """A room composite (or, with ``web_url``, a web egress without a room) in one file.

        Args:
            filename: as the customer asked for it.
            size: in bytes.
            key: the storage key, where it is to differ from the filename.
            web_url: the page that a web egress recorded.
            upload_part_size: bytes a part, as another uploader than LiveKit's would choose them; 0 for
                one PUT whatever the size. It decides the ETag, and nothing else.
            options: see :class:`RecordingOptions`.
        """
        if web_url:
            options = {"room_name": "", "room_id": "", **options}
        egress = self._egress(options)
        output = {"filepath": filename, "s3": self._storage()}
        if web_url:
            request: Json = {"web": {"url": web_url, "fileOutputs": [output]}}
        else:
            request = {"roomComposite": {"roomName": egress.room_name, "fileOutputs": [output]}}
        stored = self._store(egress, filename, size, key=key, upload_part_size=upload_part_size)
        return self._one_file(egress, stored, request, {"url": web_url})

    def record_track(
        self,
        filename: str,
        *,
        size: int = 700_000,
        publisher_identity: str = "alice",
        track_id: str = "TR_AMicrophone1",
        track_kind: str = "audio",
        track_source: str = "microphone",
        **options: Unpack[RecordingOptions],
    ) -> Recording:
        """A track egress: one participant's track as it was published."""
        egress = self._egress(options)
        output = {"filepath": "recordings/{publisher_identity}/{track_id}-{time}", "s3": self._storage()}
        request = {"track": {"roomName": egress.room_name, "trackId": track_id, "file": output}}
        publisher = {
            "publisher_identity": publisher_identity,
            "track_id": track_id,
            "track_kind": track_kind,
            "track_source": track_source,
        }
        stored = self._store(egress, filename, size)
        return self._one_file(egress, stored, request, publisher, "EGRESS_SOURCE_TYPE_SDK")

    def record_hls(
        self,
        prefix: str,
        *,
        segments: int = 5,
        segment_size: int = 200_000,
        in_primary: int = 0,
        **options: Unpack[RecordingOptions],
    ) -> Recording:
        """HLS segments with ``index.m3u8`` and ``live.m3u8``.

        The first ``in_primary`` segments still reached the customer's bucket. The others went
        to backup, out of order, as parallel uploads end.
        """
        egress = self._egress(options)
        files = []
        for nth, index in enumerate(upload_order(segments, in_primary, egress.egress_id)):
            name, when = f"{prefix}/seg_{index:05d}.ts", egress.upload_time(nth, segments)
            files.append(self._store(egress, name, segment_size, when, in_primary=index < in_primary))
        playlist = self._store(egress, f"{prefix}/index.m3u8", playlist_of(0, segments))
        live = self._store(egress, f"{prefix}/live.m3u8", playlist_of(max(0, segments - 5), segments))
        output = {"filenamePrefix": f"{prefix}/seg", "playlistName": f"{prefix}/index", "s3": self._storage()}
        request = {"roomComposite": {"roomName": egress.room_name, "segmentOutputs": [output]}}
        result = {
            "playlistName": playlist.filename,
            "size": str(segments * segment_size),
            "playlistLocation": playlist.url(),
            "segmentCount": str(segments),
            **egress.span,
            "livePlaylistName": live.filename,
            "livePlaylistLocation": live.url(),
        }
        listed = {"playlists": [{"location": playlist.url(), "segments": [entry_of(file) for file in files]}]}
        return self._finish(egress, "segments", [*files, playlist, live], request, result, listed)

    def record_images(
        self,
        prefix: str,
        *,
        count: int = 3,
        size: int = 40_000,
        overwrite: bool = False,
        **options: Unpack[RecordingOptions],
    ) -> Recording:
        """Images at intervals. ``overwrite``: one name for all (IMAGE_SUFFIX_NONE_OVERWRITE)."""
        egress = self._egress(options)
        files, listed = [], []
        for nth in range(count):
            taken = egress.upload_time(nth, count)
            stamp = f"_{taken:%Y%m%d%H%M%S}{taken.microsecond // 1000:03d}"
            files.append(self._store(egress, f"{prefix}{'' if overwrite else stamp}.jpeg", size, taken))
            listed.append({**entry_of(files[-1]), "timestamp": f"{taken:%Y-%m-%dT%H:%M:%S.%f}789Z"})
        suffix = "IMAGE_SUFFIX_NONE_OVERWRITE" if overwrite else "IMAGE_SUFFIX_TIMESTAMP"
        output = {"filenamePrefix": prefix, "filenameSuffix": suffix, "s3": self._storage()}
        room = {"roomName": egress.room_name, "videoOnly": True}
        request = {"roomComposite": {**room, "imageOutputs": [output]}}
        span = {name: egress.span[name] for name in ("startedAt", "endedAt")}
        result = {"imageCount": str(count), **span, "filenamePrefix": prefix}
        return self._finish(egress, "image", files, request, result, {"images": listed})

    def break_(
        self,
        target: Recording | StoredObject,
        fault: Fault,
        *,
        times: int | None = None,
        after: int = 0,
        at: float | None = None,
        **details: Any,
    ) -> None:
        """Break an object, or all of a recording's files (but not its manifest).

        Faults queue up: the next one begins when the one before is used up.

        Args:
            times: how many requests it spoils, of each object; all by default.
            after: how many requests of each object it lets pass first.
            at: where in the bytes: a fraction if a float, a count if an int; half-way by default.
            details: ``status``, ``retry_after``, ``bytes_per_second``, ``location``, ``chunked``;
                see :class:`Fault` for which belongs to what.
        """
        for stored in target.files.values() if isinstance(target, Recording) else [target]:
            stored.break_(Breakage(fault=fault, times=times, after=after, at=at, **details))

    def list_also(self, info: Json) -> None:
        """Let the API list an ``EgressInfo`` in JSON, of a recording's id and start in that one's place."""
        self._api.add(info)

    def fail_api(self, fault: ApiFault, *, times: int | None = 1, after: int = 0, retry_after: int = 0) -> None:
        """Make the API's next answers wrong, behind ``after`` right ones; all of them with ``times=None``."""
        self._api.fail(fault, times=times, after=after, retry_after=retry_after)

    def airflow_connection(self) -> str:
        """The value of an ``AIRFLOW_CONN_…`` variable for the API."""
        login, password = next(iter(self._api.keys.items()))
        return json.dumps({"conn_type": "livekit", "login": login, "password": password, "host": self.base_url})

    def store_event(
        self,
        put: Callable[[str, bytes], object],
        event: Json | Sequence[Json],
        when: datetime | None = None,
        format: Layout = "json",
    ) -> str:
        """Put an event (or several, for jsonl and array) into an inbox; returns the key."""
        events = [event] if isinstance(event, dict) else list(event)
        egress_id = events[0].get("egressInfo", {}).get("egressId", "EG_none")
        self._stored[egress_id] += 1
        when = (when or self._now).astimezone(UTC)
        key = f"{when:%Y/%m/%d/%H}/{egress_id}-{self._stored[egress_id]}{SUFFIXES.get(format, '.json')}"
        put(key, laid_out(events, format))
        return key

    def _egress(self, options: RecordingOptions) -> Egress:
        token = token_of(f"{self.seed}/{len(self.recordings)}")
        uploaded = options.get("uploaded_at")
        ended = options.get("ended_at") or (uploaded + _SECOND if uploaded else None)
        started = options.get("started_at") or (ended or self._now - _HOUR) - _HOUR
        ended = ended or started + _HOUR
        return Egress(
            egress_id=options.get("egress_id", f"EG_{token}"),
            room_name=options.get("room_name", "A LiveKit room"),
            room_id=options.get("room_id", f"RM_{token}"),
            started_at=started,
            ended_at=ended,
            # LiveKit ends an egress only after its uploads.
            uploaded_at=uploaded or ended - _SECOND,
            primary_url=f"https://{self.primary_bucket}.s3.amazonaws.com",
        )

    def _storage(self) -> Json:
        return {**_STORAGE, "bucket": self.primary_bucket}

    def _store(
        self,
        egress: Egress,
        filename: str,
        content: Content | int,
        when: datetime | None = None,
        *,
        key: str | None = None,
        upload_part_size: int | None = None,
        in_primary: bool = False,
    ) -> StoredObject:
        if isinstance(content, int):
            content = SyntheticBytes(f"{self.seed}/{egress.egress_id}/{filename}", content)
        unsigned = f"{egress.primary_url}/{quote(filename)}"
        stored = StoredObject(
            filename=filename,
            path=f"/{self.bucket}/{key or filename}",
            content=content,
            uploaded_at=when or egress.uploaded_at,
            sign=(lambda stored, method: unsigned) if in_primary else self._server.sign,
            upload_part_size=upload_part_size,
            in_primary=in_primary,
        )
        if not in_primary:
            self._server.objects[stored.path] = stored
        return stored

    def _one_file(
        self,
        egress: Egress,
        stored: StoredObject,
        request: Json,
        about: Json,
        source_type: str = "",
    ) -> Recording:
        result = {
            "filename": stored.filename,
            **egress.span,
            "size": str(stored.size),
            "location": stored.url(),
        }
        listed = {**about, "files": [entry_of(stored)]}
        return self._finish(egress, "file", [stored], request, result, listed, source_type)

    def _finish(
        self,
        egress: Egress,
        kind: Literal["file", "segments", "image"],
        files: Sequence[StoredObject],
        request: Json,
        result: Json,
        listed: Json,
        source_type: str = "",
    ) -> Recording:
        manifest = manifest_of(egress, listed)
        # LiveKit puts it beside the output: in the folder of its key.
        folder = files[-1].path.split("/", 2)[2].rpartition("/")[0] if files else ""
        name = f"{folder}/{egress.egress_id}.json".lstrip("/")
        text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode()
        recording = Recording(
            **asdict(egress),
            kind=kind,
            files={file.filename: file for file in files},
            manifest_object=self._store(egress, name, LiteralBytes(text)),
            source_type=source_type,
            _request=without_defaults(request),
            _result=without_defaults(result),
            _manifest=manifest,
        )
        self.recordings.append(recording)
        self._api.add(recording.event()["egressInfo"])
        return recording
