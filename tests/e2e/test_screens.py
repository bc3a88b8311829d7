"""What a person sees in Airflow's UI, in a real browser: the form, the files by name, and what to do about a failure.

The pictures go to the folder ``SCREENSHOTS``, else to pytest's own; a person looks at them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from livekit_backup.testing import Fault

from .browser import Browser
from .conftest import DAG_ID, Site

HOUR = timedelta(hours=1)
MIB = 1024 * 1024
DOWNLOAD = "recover_files.download"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = Browser.program()
    if program is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with Browser(program) as browser:
        yield browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screens"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"the pictures are in {folder}")
    return folder


@pytest.fixture(scope="module")
def failed_run(site: Site, hours: Iterator[datetime]) -> str:
    """A run over one recording of each kind, of which one has expired and one is missing."""
    hour, livekit = next(hours), site.livekit
    site.store(livekit.record_file("egress/board-meeting.mp4", size=40 * MIB, room_name="Board meeting"), hour)
    site.store(livekit.record_file("egress/interview.ogg", size=3 * MIB, room_name="Interview"), hour)
    site.store(livekit.record_hls("hls/town-hall", segments=20, room_name="Town hall"), hour)
    for name, fault in (("all-hands", Fault.EXPIRED), ("retrospective", Fault.NOT_FOUND)):
        broken = livekit.record_file(f"egress/{name}.mp4", size=12 * MIB, room_name=name.capitalize())
        livekit.break_(broken, fault)
        site.store(broken, hour)
    run_id, state = site.run(hour, hour + HOUR)
    assert state == "failed", site.states(run_id)
    return run_id


def test_the_form_asks_in_words_that_need_no_manual(site: Site, browser: Browser, pictures: Path) -> None:
    browser.resize(1280, 1150)
    browser.open(f"{site.airflow.url}/dags/{DAG_ID}")
    browser.click("Trigger")
    text = browser.await_text("From", "To", "Egress ids", "Plan only", "A dry run")
    browser.take_picture(pictures / "form.png")
    assert "Empty: all in the window" in text


def test_the_mapped_tasks_are_listed_by_room_and_file(
    site: Site, browser: Browser, failed_run: str, pictures: Path
) -> None:
    browser.resize(1500, 700)
    browser.open(f"{site.airflow.url}{_page(failed_run, f'{DOWNLOAD}/mapped')}")
    text = browser.await_text("Board meeting", "Interview", "Town hall", "All-hands", "Retrospective")
    browser.take_picture(pictures / "mapped_tasks.png")
    assert re.search(r"Board meeting · board-meeting\.mp4 · 40\.0 MiB · \d+ h left", text)
    assert re.search(r"Town hall · 22 files", text)


def test_a_failed_file_says_what_happened_and_what_to_do(
    site: Site, browser: Browser, failed_run: str, pictures: Path
) -> None:
    failed = {
        task["rendered_map_index"].partition(" · ")[0]: task["map_index"]
        for task in site.airflow.task_instances(DAG_ID, failed_run)
        if task["task_id"] == DOWNLOAD and task["state"] == "failed"
    }
    assert set(failed) == {"All-hands", "Retrospective"}
    browser.resize(1600, 640)
    for room, happened, to_do in (
        ("All-hands", "LinkExpiredError: the link has expired", "only LiveKit's support could still have it"),
        ("Retrospective", "MissingError: nothing is stored there", "send this line to LiveKit's support"),
    ):
        browser.open(f"{site.airflow.url}{_page(failed_run, f'{DOWNLOAD}/mapped/{failed[room]}')}")
        text = browser.await_text(room, happened, to_do)
        assert "Traceback" not in text
        browser.take_picture(pictures / f"failed_file_{room.lower()}.png")


def test_the_verdict_names_every_file_that_is_not_safe(
    site: Site, browser: Browser, failed_run: str, pictures: Path
) -> None:
    browser.resize(1600, 640)
    browser.open(f"{site.airflow.url}{_page(failed_run, 'all_safe')}")
    browser.await_text("NOT SAFE", "all-hands.mp4", "retrospective.mp4")
    browser.take_picture(pictures / "verdict.png")


def test_the_statement_can_be_read_in_the_log(site: Site, browser: Browser, failed_run: str, pictures: Path) -> None:
    browser.resize(1600, 900)
    browser.open(f"{site.airflow.url}{_page(failed_run, 'report')}")
    text = browser.await_text("NOT SAFE (2)", "retrospective.mp4", "all-hands.mp4", "stored at", "24 landed")
    assert "seg_00003.ts" not in text, "what is safe does not hide what is not"
    browser.take_picture(pictures / "statement.png")


def test_the_page_of_deadlines_opens(site: Site, browser: Browser, failed_run: str, pictures: Path) -> None:
    browser.resize(1500, 600)
    browser.open(f"{site.airflow.url}/deadlines")
    browser.await_text("Deadlines")
    browser.take_picture(pictures / "deadlines.png")


def _page(run_id: str, task: str) -> str:
    return f"/dags/{DAG_ID}/runs/{quote(run_id, safe='')}/tasks/{task}"
