"""FFmpeg beside the task: real and damaged media, and media that is made to do harm."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livekit_backup.core import media_child, media_process
from livekit_backup.core.bounded_reader import MOST_REQUESTS, BoundedReader, ProbeGivenUpError
from livekit_backup.core.media_process import MediaCrashedError, MediaProcess
from livekit_backup.errors import StorageUnavailableError
from media_samples import FORMATS, SECONDS, boxes, damaged, media
from unit.fakes import Body, MemoryStore

URI = "s3://b/out/media"
MUTILATED = int(os.environ.get("LIVEKIT_BACKUP_MUTILATED", "60"))
"""Files that are made of real ones by chance, by the seeds 0, 1, and so on."""


@pytest.fixture(scope="module")
def process():
    looking = MediaProcess()
    yield looking
    looking.close()


def reader_of(data, **options):
    return BoundedReader(MemoryStore(), URI, len(data), "etag", data, **options)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_good_one_is_whole_and_plays_as_long_as_it_is(process, ending):
    found = process.look_into(reader_of(media(ending)), ending.rpartition(".")[2])
    assert found == {"duration": pytest.approx(SECONDS, abs=0.3), "wrong": []}


@pytest.mark.parametrize(
    ("ending", "how", "said"),
    [
        ("mp4", "cut in half", "it cannot be read"),
        ("faststart.mp4", "cut in half", "no packet can be read at its end"),
        ("faststart.mp4", "one byte short", "are damaged"),
        ("faststart.mp4", "zero from the middle on", "are all zero"),
        ("fragmented.mp4", "cut in half", "are damaged"),
        ("webm", "cut in half", "nothing can be read behind"),
        ("mp3", "cut in half", "nothing can be read behind"),
        ("ogg", "all zero", "it cannot be read"),
        ("ts", "another kind of file", "it cannot be read"),
    ],
)
def test_a_damaged_one_is_found_without_a_look_at_its_shape(process, ending, how, said):
    found = process.look_into(reader_of(damaged(media(ending))[how]), ending.rpartition(".")[2])
    assert any(said in wrong for wrong in found["wrong"]), found


def test_zeros_in_the_middle_of_an_mp4_are_found_where_packets_are_read(process):
    data = bytearray(media("faststart.mp4"))
    [(start, stop)] = [(start, stop) for kind, start, stop in boxes(bytes(data)) if kind == "mdat"]
    at = stop - (stop - start) // 5
    data[at : at + 6000] = bytes(6000)
    assert any("at its end are all zero" in wrong for wrong in process.look_into(reader_of(data), "mp4")["wrong"])


def test_it_is_read_in_places_and_not_whole():
    data = media("faststart.mp4") + struct.pack(">I4s", 8 << 20, b"free") + bytes((8 << 20) - 8)

    spans = []

    class Store(MemoryStore):
        def open(self, uri, start=0, stop=None, etag=""):
            spans.append((start, stop))
            return super().open(uri, start, stop, etag)

    store = Store()
    store.put(URI, data)
    looking = MediaProcess()
    try:
        reader = BoundedReader(store, URI, len(data), store.heads[URI].etag)
        assert looking.look_into(reader, "mp4")["wrong"] == []
    finally:
        looking.close()
    assert sum(stop - start for start, stop in spans) < 1 << 20
    assert len(spans) == len(set(spans)), "no block twice"


@pytest.mark.parametrize(
    "script", ["#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"]
)
@pytest.mark.parametrize("ending", sorted(media_process.DEMUXERS))
def test_a_script_for_ffmpeg_is_no_media(process, ending, script):
    found = process.look_into(reader_of(script.encode() * 50), ending)
    assert found["wrong"]
    assert "root:" not in json.dumps(found)


def mutilated(seed):
    """A recording with bytes changed, left out, doubled or cut where its structure is, or anywhere."""
    chance = random.Random(seed)
    ending = chance.choice(FORMATS)
    data = bytearray(media(ending))
    for _ in range(chance.randint(1, 8)):
        at = int(len(data) * chance.choice((chance.random(), chance.random() ** 6, 1 - chance.random() ** 6)))
        match chance.randrange(5):
            case 0:
                data[at : at + 4] = struct.pack(
                    ">I", chance.choice((0, 1, 2**31 - 1, 2**32 - 1, chance.getrandbits(32)))
                )
            case 1:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                del data[at : at + chance.randint(1, 2000)]
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 5000)]
            case _:
                del data[at:]
    return ending.rpartition(".")[2], bytes(data)


def test_mutilated_media_costs_no_more_than_a_finding(process):
    for seed in range(MUTILATED):
        ending, data = mutilated(seed)
        try:
            found = process.look_into(reader_of(data), ending)
        except MediaCrashedError:
            # What the process is there for. The next file has another.
            continue
        assert all(isinstance(wrong, str) for wrong in found["wrong"]), seed
        assert found["duration"] is None or isinstance(found["duration"], int | float), seed
    assert process.look_into(reader_of(media("ogg")), "ogg")["wrong"] == []


def bomb():
    """An MP4 of 80 KB whose index says that it has four thousand million samples."""
    data = bytearray(media("mp4"))
    for table, at in ((b"stsz", 8), (b"stts", 8)):
        place = -1
        while (place := data.find(table, place + 1)) >= 0:
            if table == b"stsz":
                # One size for all: then no table has to be there.
                struct.pack_into(">II", data, place + at, 1, 0xFFFFFFFF)
            else:
                struct.pack_into(">II", data, place + at + 4, 0xFFFFFFFF, 1)
    return bytes(data)


def test_a_bomb_meets_a_limit(process):
    reader = reader_of(bomb(), ends=time.monotonic() + 20)
    with contextlib.suppress(MediaCrashedError, ProbeGivenUpError):
        assert process.look_into(reader, "mp4")["wrong"]
    assert process.look_into(reader_of(media("ogg")), "ogg")["wrong"] == [], "the next file is none the worse"


@pytest.mark.parametrize("ending", ["mp4", "ts", "ogg", "webm", "mp3"])
def test_an_endless_one_is_given_up(process, ending):
    head = media(ending)

    class Endless(MemoryStore):
        opened = 0

        def open(self, uri, start=0, stop=None, etag=""):
            self.opened += 1
            data = (head * ((stop - start) // len(head) + 2))[start % len(head) :]
            return Body(data[: stop - start])

    store = Endless()
    reader = BoundedReader(store, URI, 1 << 42, "etag", ends=time.monotonic() + 30)
    with contextlib.suppress(ProbeGivenUpError):
        process.look_into(reader, ending)
    assert store.opened <= MOST_REQUESTS
    assert len(reader._blocks) <= 16


def play(monkeypatch, tmp_path, script):
    """Another program in the child's place."""
    child = tmp_path / "child.py"
    child.write_text(f"print('READY', flush=True)\n{script}")
    monkeypatch.setattr(media_process, "_CHILD", child)
    return MediaProcess()


@pytest.mark.parametrize(
    "script",
    [
        "import os; os.abort()",
        "import sys; sys.exit(1)",
        "print('READ -1 5', flush=True); input()",
        "print('READ 0 999999999', flush=True); input()",
        "print('READ here there', flush=True); input()",
        "print('anything', flush=True); input()",
        "print('x' * 10_000_000, flush=True); input()",
        "import sys; sys.stdout.buffer.write(bytes(range(256)) * 600); sys.stdout.flush(); input()",
    ],
)
def test_a_process_that_ends_or_talks_nonsense_is_replaced(monkeypatch, tmp_path, script):
    looking = play(monkeypatch, tmp_path, script)
    with pytest.raises(MediaCrashedError):
        looking.look_into(reader_of(b"12345"), "ogg")
    assert looking._process is None
    monkeypatch.undo()
    assert looking.look_into(reader_of(media("ogg")), "ogg")["wrong"] == []
    looking.close()


@pytest.mark.parametrize(
    "script",
    [
        "while True: pass",
        "print('READ 0 1', flush=True)\nwhile True: pass",
        "while True: print('READ 0 1', flush=True)",
    ],
    ids=["works", "asks and works", "asks and never reads"],
)
def test_a_process_that_never_ends_is_killed(monkeypatch, tmp_path, script):
    looking = play(monkeypatch, tmp_path, script)
    started = []
    start = media_process._started
    monkeypatch.setattr(media_process, "_started", lambda: started.append(start()) or started[-1])
    with pytest.raises(ProbeGivenUpError, match="it was not found out within"):
        looking.look_into(reader_of(b"12345", ends=time.monotonic() + 1), "ogg")
    assert started[0].returncode == -9


def test_a_pyav_that_does_not_work_makes_no_file_suspect(monkeypatch, tmp_path):
    looking = play(monkeypatch, tmp_path, "")
    (tmp_path / "child.py").write_text("import a_library_that_is_missing")
    with pytest.raises(ProbeGivenUpError, match="does not work here"):
        looking.look_into(reader_of(b"12345"), "ogg")
    assert looking._process is None


def test_it_ends_with_a_task_that_was_killed():
    code = """
import os, signal
from livekit_backup.core import media_process
child = media_process._started()
media_process._is_ready(child)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    status = Path(f"/proc/{done.stdout.strip()}/status")

    def is_alive():
        # Whoever takes it over may leave what is left of it there.
        return status.exists() and "State:\tZ" not in status.read_text()

    for _ in range(600):
        if not is_alive():
            break
        time.sleep(0.05)
    assert not is_alive()


def test_the_time_of_a_task_is_bounded(monkeypatch):
    monkeypatch.setattr(media_process, "TASK_SECONDS", 0.0)
    looking = MediaProcess()
    with pytest.raises(ProbeGivenUpError, match="the time of this task"):
        looking.look_into(reader_of(media("ogg")), "ogg")
    assert looking._process is None, "none was started"


def test_a_store_that_fails_meanwhile_says_so_itself():
    class Failing(MemoryStore):
        def open(self, *args):
            raise StorageUnavailableError("503")

    looking = MediaProcess()
    with pytest.raises(StorageUnavailableError):
        looking.look_into(BoundedReader(Failing(), URI, 5, "etag"), "ogg")
    assert looking._process is None


def test_it_can_open_nothing_and_knows_no_secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    looking = MediaProcess()
    looking.look_into(reader_of(media("ogg")), "ogg")
    environment = Path(f"/proc/{looking._process.pid}/environ").read_bytes().split(b"\0")
    assert {pair.partition(b"=")[0] for pair in environment if pair} <= {b"PYTHONPATH", b"LC_CTYPE"}
    assert not [pair for pair in environment if b"hidden" in pair]
    assert len(list(Path(f"/proc/{looking._process.pid}/fd").iterdir())) == 3
    limits = Path(f"/proc/{looking._process.pid}/limits").read_text()
    looking.close()
    assert f"{media_child.MOST_MEMORY}" in limits
    code = f"""
import os, socket, sys
sys.path.insert(0, {str(Path(media_child.__file__).parent)!r})
import media_child
media_child._give_up_rights()
os.close(2)
for attempt in (lambda: open("/etc/passwd"), lambda: open("/tmp/x", "w"), socket.socket, lambda: bytearray(1 << 30)):
    try:
        attempt()
    except (OSError, MemoryError):
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["refused"] * 4, done.stderr
