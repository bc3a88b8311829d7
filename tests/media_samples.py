"""Real media, a few seconds of it, as LiveKit writes it: made once a process by the encoders that PyAV brings."""

from __future__ import annotations

import io
import random
import struct
from fractions import Fraction
from functools import cache

import av

SECONDS = 6
FORMATS = ("mp4", "faststart.mp4", "fragmented.mp4", "ogg", "webm", "ts", "mp3", "m4a")
"""By the endings of their names."""
_CODECS = {
    "mp4": ("libx264", "aac"),
    "ts": ("libx264", "aac"),
    "webm": ("libvpx", "libopus"),
    "ogg": (None, "libopus"),
    "mp3": (None, "libmp3lame"),
    "m4a": (None, "aac"),
}
_MUXERS = {"ts": "mpegts", "m4a": "mp4"}
_RATE, _FPS = 48000, 10


@cache
def media(ending: str, seconds: int = SECONDS) -> bytes:
    """A recording of a bouncing block and of noise."""
    option, _, kind = ending.rpartition(".")
    if option == "faststart":
        return _index_first(media(kind, seconds))
    video_codec, audio_codec = _CODECS[kind]
    options = {"movflags": "frag_keyframe+empty_moov"} if option == "fragmented" else {}
    out = io.BytesIO()
    with av.open(out, "w", format=_MUXERS.get(kind, kind), options=options) as to:
        streams = []
        if video_codec:
            video = to.add_stream(video_codec, rate=_FPS)
            video.width, video.height, video.pix_fmt, video.gop_size = 160, 120, "yuv420p", _FPS
            video.codec_context.thread_count = 1
            streams.append((video, _pictures(seconds)))
        audio = to.add_stream(audio_codec, rate=_RATE)
        audio.layout = "mono"
        streams.append((audio, _sounds(seconds, audio)))
        for _, stream, frame in sorted(
            ((time, stream, frame) for stream, frames in streams for time, frame in frames),
            key=lambda timed: timed[0],
        ):
            to.mux(stream.encode(frame))
        for stream, _ in streams:
            to.mux(stream.encode(None))
    return out.getvalue()


def boxes(data: bytes) -> list[tuple[str, int, int]]:
    """The boxes of an MP4: type, where it begins, where it ends."""
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind.decode(), at, at + size))
        at += size
    return found


def _index_first(data: bytes) -> bytes:
    """The same MP4 with its index before its media, so that its offsets are further behind."""
    places = {kind: data[start:stop] for kind, start, stop in boxes(data)}
    index = bytearray(places.pop("moov"))
    at = -1
    while (at := index.find(b"stco", at + 1)) >= 0:
        (count,) = struct.unpack_from(">I", index, at + 8)
        for place in range(at + 12, at + 12 + 4 * count, 4):
            struct.pack_into(">I", index, place, struct.unpack_from(">I", index, place)[0] + len(index))
    return b"".join([places.pop("ftyp"), index, *places.values()])


def _pictures(seconds):
    noise = random.Random(1)
    for number in range(seconds * _FPS):
        frame = av.VideoFrame(160, 120, "yuv420p")
        for plane in frame.planes:
            row = noise.randbytes(plane.line_size)
            plane.update((row * (plane.buffer_size // len(row) + 1))[: plane.buffer_size])
        frame.pts = number
        yield number / _FPS, frame


def _sounds(seconds, stream):
    noise = random.Random(2)
    size = stream.codec_context.frame_size or 960
    form = stream.codec_context.format.name
    for number in range(seconds * _RATE // size):
        frame = av.AudioFrame(form, "mono", size)
        width = frame.planes[0].buffer_size // size
        if form.startswith("flt"):
            data = struct.pack(f"<{size}f", *(noise.uniform(-0.3, 0.3) for _ in range(size)))
        else:
            data = noise.randbytes(size * width)
        frame.planes[0].update(data.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.pts = _RATE, number * size
        yield number * size / _RATE, frame


@cache
def picture() -> bytes:
    """A JPEG."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = 160, 120, "yuvj420p"
    context.time_base = Fraction(1, 1)
    _, frame = next(iter(_pictures(1)))
    made = frame.reformat(format="yuvj420p")
    made.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(made), *context.encode(None)])


def damaged(data: bytes) -> dict[str, bytes]:
    """The same recording, damaged in each way that a machine has of losing bytes."""
    size, block = len(data), 4096
    return {
        "empty": b"",
        "all zero": bytes(size),
        "cut in half": data[: size // 2],
        "cut at 99 percent": data[: size * 99 // 100],
        "one byte short": data[:-1],
        "its first 1000 bytes": data[:1000],
        "zero from the middle on": data[: size // 2] + bytes(size - size // 2),
        "zero at the end": data[:-block] + bytes(block),
        "zero at the beginning": bytes(block) + data[block:],
        "another kind of file": b"<html>" * (size // 6),
    }
