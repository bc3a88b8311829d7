"""What a task knows of its run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks import task_context
from livekit_backup.hooks.task_context import (
    attempt_of,
    is_plan_only,
    late_window,
    prefixes_of,
    run_window,
    wanted_egress_ids,
)
from livekit_backup.models.settings import Settings
from livekit_backup.models.window import Window

SETTINGS = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/l")
NOW = datetime(2026, 11, 20, 14, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _context(dag_run=None, **keys):
    return {"dag_run": SimpleNamespace(run_after=NOW, **(dag_run or {})), **keys}


def _window(context):
    window = run_window(context, SETTINGS)
    return window.start, window.end


def test_the_data_interval():
    start = datetime(2026, 11, 20, 13, tzinfo=UTC)
    assert _window(_context(data_interval_start=start, data_interval_end=start + HOUR)) == (
        start,
        start + HOUR,
    )


def test_a_run_without_a_logical_date_takes_the_last_hour():
    last = NOW - timedelta(minutes=5)
    assert _window(_context()) == (last - HOUR, last)
    assert _window(_context(params=None, data_interval_start=None, data_interval_end=NOW)) == (
        last - HOUR,
        last,
    )


def test_a_partition():
    hour = datetime(2026, 11, 20, 9, tzinfo=UTC)
    assert _window(_context({"partition_date": hour})) == (hour, hour + HOUR)


@pytest.mark.parametrize(
    "text", ["2026-11-20T01:00:00Z", "2026-11-20T01:00:00", "2026-11-20T02:00:00+01:00", "2026-11-20 01:00"]
)
def test_params(text):
    start = datetime(2026, 11, 20, 1, tzinfo=UTC)
    context = _context(
        params={"start": text, "end": "2026-11-20T02:00:00Z"},
        data_interval_start=NOW,
        data_interval_end=NOW + HOUR,
    )
    assert _window(context) == (start, start + HOUR)


def test_a_param_that_is_no_time():
    with pytest.raises(ConfigurationError, match="param end is 'noon': give a date and time such as"):
        run_window(_context(params={"end": "noon"}), SETTINGS)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, ()),
        ([], ()),
        ("", ()),
        (["EG_1", " EG_2 ", ""], ("EG_1", "EG_2")),
        ("EG_1, EG_2\nEG_3", ("EG_1", "EG_2", "EG_3")),
    ],
)
def test_wanted_egress_ids(given, wanted):
    assert wanted_egress_ids({"params": {"egress_ids": given}}) == wanted
    assert wanted_egress_ids({}) == ()


def test_egress_ids_look_back_seven_days():
    start, end = _window(_context(params={"egress_ids": ["EG_1"]}))
    assert end - start == timedelta(days=7)


LOGICAL = {
    "data_interval_start": datetime(2026, 11, 20, 13, tzinfo=UTC),
    "data_interval_end": datetime(2026, 11, 20, 14, tzinfo=UTC),
}
AGO = NOW - timedelta(minutes=5)


@pytest.mark.parametrize("logical_date", [{}, LOGICAL], ids=["without a logical date", "with one"])
@pytest.mark.parametrize(
    ("params", "window"),
    [
        ({"start": "2026-11-20T14:00:00Z"}, (datetime(2026, 11, 20, 14, tzinfo=UTC), AGO)),
        ({"end": "2026-11-20T04:00:00Z"}, (datetime(2026, 11, 20, 3, tzinfo=UTC), datetime(2026, 11, 20, 4, tzinfo=UTC))),
        ({"egress_ids": ["EG_1"]}, (AGO - timedelta(days=7), AGO)),
        (
            {"egress_ids": ["EG_1"], "end": "2026-11-20T04:00:00Z"},
            (datetime(2026, 11, 13, 4, tzinfo=UTC), datetime(2026, 11, 20, 4, tzinfo=UTC)),
        ),
        (
            {"egress_ids": ["EG_1"], "start": "2026-11-20T02:00:00Z", "end": "2026-11-20T04:00:00Z"},
            (datetime(2026, 11, 20, 2, tzinfo=UTC), datetime(2026, 11, 20, 4, tzinfo=UTC)),
        ),
    ],
)  # fmt: skip
def test_what_a_person_asks_for_counts_whatever_the_logical_date(params, window, logical_date):
    asked = {"start": None, "end": None, "egress_ids": [], "plan_only": False, **params}
    assert _window(_context({"run_type": "manual"}, params=asked, **logical_date)) == window


def test_a_form_left_empty_takes_the_runs_own_hour():
    empty = {"start": None, "end": None, "egress_ids": [], "plan_only": False}
    assert _window(_context({"run_type": "manual"}, params=empty, **LOGICAL)) == tuple(LOGICAL.values())
    assert _window(_context({"run_type": "manual"}, params=empty)) == (AGO - HOUR, AGO)


def test_of_a_backfill_egress_ids_choose_within_each_runs_interval():
    context = _context({"run_type": "backfill"}, params={"egress_ids": ["EG_1"]}, **LOGICAL)
    assert _window(context) == tuple(LOGICAL.values())


def _late(run_type, start, **changes):
    window = Window(start=start, end=start + HOUR)
    settings = SETTINGS.model_copy(update=changes)
    late = late_window({"dag_run": SimpleNamespace(run_type=run_type)}, settings, window)
    return prefixes_of(settings, window, late)


def test_only_a_scheduled_run_looks_back():
    start = datetime(2026, 11, 20, 2, tzinfo=UTC)
    own = ["s3://b/in/2026/11/20/02/"]
    late = ["s3://b/in/2026/11/19/23/", "s3://b/in/2026/11/20/00/", "s3://b/in/2026/11/20/01/"]
    assert _late("scheduled", start) == (own, late)
    assert _late("scheduled", start, lookback=timedelta(0)) == (own, [])
    for run_type in ("manual", "backfill", "asset_triggered", "operator_triggered", None):
        assert _late(run_type, start) == (own, [])


def test_a_prefix_of_the_window_is_not_read_again():
    start = datetime(2026, 11, 20, 2, tzinfo=UTC)
    assert _late("scheduled", start, inbox_layout="%Y/%m/%d/") == (["s3://b/in/2026/11/20/"], ["s3://b/in/2026/11/19/"])
    half = start + HOUR / 2
    assert _late("scheduled", half, lookback=HOUR)[1] == ["s3://b/in/2026/11/20/01/"]


@pytest.mark.parametrize(
    ("params", "is_one"),
    [
        (None, False),
        ({}, False),
        ({"plan_only": False}, False),
        ({"plan_only": True}, True),
        ({"plan_only": "yes"}, True),
    ],
)
def test_a_run_that_only_plans(params, is_one):
    assert is_plan_only({"params": params}) is is_one


@pytest.mark.parametrize(("map_index", "kept"), [(None, -1), (-1, -1), (0, 0), (7, 7)])
def test_which_task_instance_this_is(map_index, kept):
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=map_index, try_number=3)
    attempt = attempt_of({"ti": ti})
    assert (attempt.dag_id, attempt.run_id, attempt.task_id, attempt.map_index, attempt.try_number) == (
        "d",
        "r",
        "t",
        kept,
        3,
    )


def test_a_bundle_of_many_files_sends_a_label_every_few_seconds_and_not_with_each(monkeypatch):
    sent: list[str] = []
    clock = iter(range(64))
    monkeypatch.setattr(task_context.TaskLabel, "_show", lambda _, text: sent.append(text))
    monkeypatch.setattr(task_context.time, "monotonic", lambda: next(clock))
    with task_context.TaskLabel("64 files") as label:
        for done in range(1, 21):
            label.show(f"{done} of 64")
    assert sent == [f"64 files · {done} of 64" for done in (5, 10, 15, 20)]
