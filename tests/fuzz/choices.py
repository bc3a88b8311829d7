"""Makes documents out of a fuzzer's bytes: each byte chooses, so that a change of one is a change of one thing."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")

SECRET = "hushhushhush"
"""In every signature: whatever text it shows up in has told a secret."""
HOSTS = (
    "livekit-egress.s3.amazonaws.com", "livekit-egress.s3.us-west-2.amazonaws.com", "acme.s3.amazonaws.com",
    "storage.googleapis.com", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "evil.example", "169.254.169.254",
    "b.s3.amazonaws.com.", "user@b.s3.amazonaws.com", "b.s3.amazonaws.com:443", "b.s3.amazonaws.com:80", "é.amazonaws.com",
    "b.s3.amazonaws.com\\@evil.example", "", "a..amazonaws.com", "-b.amazonaws.com", "[::ffff:127.0.0.1]",
)  # fmt: skip
SCHEMES = ("https://", "http://", "HTTPS://", "file://", "s3://", "//", "", "javascript:", "https:/", "gopher://")
NAMES = (
    "a.mp4", "b.mp4", "a~1.mp4", "dir/a.mp4", "/dir//a.mp4", "", "..", "../a", "a/../b", "a\\..\\b", "dir/", "é.mp4", "e\u0301.mp4",
    "A.mp4", "a\0b", "a\nb", "\u202eb", "_l/x", "(file 1, without a name)", "(file 2, without a name)", "(all files)",
    "(1 of 1 segments)", "(2 segments of p.m3u8)", "p.m3u8", "p_0.ts", "p_1.ts", "thumb_1.jpeg", "{egress_id}", "x" * 1100,
    "=1+1", "<b>", "\ud800", "a?b#c", "a%2e%2e%2fb", "m.json",
)  # fmt: skip
QUERIES = (
    f"?X-Amz-Date=20261120T204342Z&X-Amz-Expires=604800&X-Amz-Signature={SECRET}",
    f"?X-Amz-Date=20200101T000000Z&X-Amz-Expires=604800&X-Amz-Signature={SECRET}",
    f"?Expires=1796000000&Signature={SECRET}", f"?se=2026-11-27T20%3A43%3A42Z&sig={SECRET}",
    f"?X-Goog-Date=20261120T204342Z&X-Goog-Expires=604800&X-Goog-Signature={SECRET}", "", "?", f"?x={SECRET}",
    f"?Expires={'9' * 30}&Signature={SECRET}", f"#?X-Amz-Signature={SECRET}", f"%3FX-Amz-Signature={SECRET}",
    f"&amp;X-Amz-Signature={SECRET}", f";X-Amz-Signature={SECRET}", f"?se=9999-12-31T23:59:59-23:59&sig={SECRET}",
    f"?se=0001-01-01T00:00:00%2B23:59&sig={SECRET}", f"?Expires=-99999999999&Signature={SECRET}",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, 2, 5, -1, "1732135319356232371", 1732135319356232371, 1.7322030496466708e18, "1.7e18", "1e400", 2**63 - 1,
    -(2**63), 2**63, "", None, True, "x", 1e308, "9" * 50, 4, "0x10", [], {}, 604800, "253402300800000000000",
)  # fmt: skip
ODD: tuple[Any, ...] = (None, "", 0, True, [], {}, [[]], [None], "x", {"a": 1}, 1.5, ["x"], "\ud800", -1)


class Choices:
    """Bytes, taken one after the other; zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return max(0, len(self._data) - self._at)

    def byte(self) -> int:
        """The next one."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def one_of(self, *values: T) -> T:
        """One of some."""
        return values[self.byte() % len(values)]

    def rarely(self) -> bool:
        """Once in sixteen."""
        return self.byte() % 16 == 15

    def rest(self) -> bytes:
        """All that is left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    def text(self) -> str:
        """Up to 255 bytes as they come."""
        size = self.byte()
        at, self._at = self._at, self._at + size
        return self._data[at : self._at].decode(errors="surrogateescape")


def url(of: Choices) -> str:
    """A location, in most cases one that could be real."""
    if of.rarely():
        return of.text()
    scheme = of.one_of(*SCHEMES) if of.rarely() else "https://"
    host = of.one_of(*HOSTS) if of.rarely() else of.one_of(*HOSTS[:3])
    path = of.text() if of.rarely() else of.one_of(*NAMES[:4], "m.json", "k", "p.m3u8", "p_0.ts")
    return f"{scheme}{host}/{path}{of.one_of(*QUERIES)}"


def name(of: Choices) -> str:
    """A filename."""
    return of.text() if of.rarely() else of.one_of(*NAMES)


def number(of: Choices) -> Any:
    """What could stand for an int64."""
    return of.one_of(*NUMBERS)


def _maybe(of: Choices, fields: dict[str, Any]) -> dict[str, Any]:
    """Some fields of an object, in one spelling or the other, now and then with something odd."""
    made: dict[str, Any] = {}
    for key, make in fields.items():
        chosen = of.byte()
        if chosen % 4 == 0:
            continue
        words = key.split("_")
        spelled = key if chosen % 4 == 1 else words[0] + "".join(word.title() for word in words[1:])
        made[spelled] = of.one_of(*ODD) if chosen >= 248 else make(of)
    return made


def _several(make: Any, most: int = 4) -> Any:
    return lambda of: [make(of) for _ in range(of.byte() % (most + 1))]


def _file_result(of: Choices) -> Any:
    return _maybe(of, {"filename": name, "size": number, "location": url})


def _segment_result(of: Choices) -> Any:
    return _maybe(
        of,
        {
            "playlist_name": name, "live_playlist_name": name, "playlist_location": url, "live_playlist_location": url,
            "segment_count": number, "size": number,
        },
    )  # fmt: skip


def _image_result(of: Choices) -> Any:
    return _maybe(of, {"filename_prefix": name, "image_count": number})


def egress(of: Choices) -> dict[str, Any]:
    """An EgressInfo."""
    made = _maybe(
        of,
        {
            "room_id": name, "room_name": name, "status": lambda of: of.one_of("EGRESS_COMPLETE", 3, 4, "EGRESS_FAILED", 9, "x"),
            "started_at": number, "ended_at": number, "updated_at": number, "error": name, "error_code": number,
            "file": _file_result, "segments": _segment_result, "file_results": _several(_file_result),
            "segment_results": _several(_segment_result, 2), "image_results": _several(_image_result, 2),
        },
    )  # fmt: skip
    made["egressId"] = of.one_of("EG_1", "EG_1", "EG_2", "../x", "", 7) if of.rarely() else "EG_1"
    if not of.rarely():
        made["backupStorageUsed"] = True
    if of.byte() % 4:
        made["manifestLocation"] = url(of)
    return made


def event(of: Choices) -> dict[str, Any]:
    """A stored event, in one of the shapes that are known."""
    info = egress(of)
    shape = of.byte() % 8
    if shape == 0:
        return info
    named = {"event": of.one_of("egress_ended", "egress_ended", "egress_updated", "room_finished", "", 5), "id": "EV_1"}
    body = {**named, "createdAt": number(of), of.one_of("egressInfo", "egress_info"): info}
    return {"timestamp": "x", "payload": body} if shape == 1 else body


def manifest(of: Choices) -> dict[str, Any]:
    """An egress manifest."""

    def entry(of: Choices) -> Any:
        return _maybe(of, {"filename": name, "location": url, "presigned_url": url})

    def playlist(of: Choices) -> Any:
        return _maybe(of, {"location": url, "segments": _several(entry, 6)})

    made = _maybe(
        of,
        {
            "room_name": name, "started_at": number, "ended_at": number, "files": _several(entry, 6),
            "playlists": _several(playlist, 2), "images": _several(entry, 6),
        },
    )  # fmt: skip
    return {**made, "egress_id": of.one_of("EG_1", "EG_1", "EG_1", "", "EG_2")}
