"""The task that raises alarms, against a store in memory: whom it tells, what, and what a failure leaves."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from airflow.sdk import BaseNotifier
from airflow.sdk.bases.operator import ExecutorSafeguard

from livekit_backup.core.ledger import Ledger
from livekit_backup.errors import AlarmNotSentError, ConfigurationError, StorageUnavailableError
from livekit_backup.hooks.alarm_notifiers import listener_names
from livekit_backup.operators import recovery_operator
from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator
from unit.fakes import MemoryStore, egress_ended, signed

NOW = datetime.now(UTC).replace(microsecond=0)


class Notes:
    """Remembers what it was called with, as a function of the user's would."""

    def __init__(self):
        self.texts = []
        self.alarms = []
        self.context = {}
        self.error = None

    def __call__(self, context):
        if self.error:
            raise self.error
        self.context = context
        self.texts.append(context["livekit_alarm"])
        self.alarms.append(context["livekit_alarms"])


class Chat(BaseNotifier):
    """A notifier like Slack's: its text is a template."""

    template_fields = ("text",)
    sent: ClassVar[list[str]] = []

    def __init__(self, text):
        super().__init__()
        self.text = text

    def notify(self, context):
        self.sent.append(self.text)


class Bench:
    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_livekit_backup")

    def receive(self, egress_id="EG_1", hours_left=5.0, *, filed_now=False):
        ended = NOW - timedelta(days=7) + timedelta(hours=hours_left)
        event = egress_ended(
            egress_id,
            endedAt=str(int(ended.timestamp()) * 10**9),
            backupStorageUsed=True,
            manifestLocation=signed(f"{egress_id}.json"),
        )
        hour = NOW if filed_now else ended
        self.store.put(f"s3://b/in/{hour:%Y/%m/%d/%H}/{egress_id}.json", json.dumps(event).encode())

    def run(self, task_id="raise_alarms", **arguments):
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id=task_id, map_index=-1, try_number=1, max_tries=1)
        context = {"ti": ti, "dag_run": SimpleNamespace(run_after=NOW), "params": {}}
        return RaiseAlarmsOperator(task_id=task_id, **arguments).execute(context)


@pytest.fixture
def bench(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://b/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://b/out")
    monkeypatch.setattr(recovery_operator, "_store", lambda conn_id, *options: bench.store)
    Chat.sent.clear()
    return bench


@pytest.fixture
def configure(monkeypatch):
    """Let ``alarm_notifier`` lead to something in a module of the user's."""

    def configure(target, path="acme_alarms.tell"):
        module = ModuleType("acme_alarms")
        module.tell = target
        monkeypatch.setitem(sys.modules, "acme_alarms", module)
        monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__ALARM_NOTIFIER", path)

    return configure


def test_one_message_for_all_and_a_small_result(bench):
    for number in range(50):
        bench.receive(f"EG_{number}", hours_left=5)
    bench.receive("EG_near", hours_left=20)
    bench.receive("EG_calm", hours_left=100)
    bench.receive("EG_dead", hours_left=-2)
    tell = Notes()
    result = bench.run(notify=tell)
    assert result["raised"] == {"72": 0, "24": 1, "6": 50}
    assert (result["lost"], result["open"]) == (1, 52)
    assert 4.8 <= result["nearest_hours_left"] <= 5.0
    [text] = tell.texts
    assert text.startswith("LiveKit backups: 51 not safe, 1 lost; the nearest link dies in ")
    assert len(tell.alarms[0]) == 52
    assert tell.alarms[0][0]["egress_id"].startswith("EG_")
    assert [alarm["egress_id"] for alarm in tell.alarms[0]][-2:] == ["EG_near", "EG_dead"]
    json.dumps(tell.alarms), json.dumps(result)


def test_the_second_run_tells_nobody_anything(bench):
    bench.receive()
    tell = Notes()
    bench.run(notify=tell)
    assert bench.run(notify=tell)["raised"] == {"72": 0, "24": 0, "6": 0}
    assert len(tell.texts) == 1


def test_without_anything_to_tell_nobody_is_called(bench):
    bench.receive(hours_left=100)
    tell = Notes()
    assert bench.run(notify=tell)["open"] == 1
    assert tell.texts == []


def test_an_empty_inbox_is_fine(bench):
    assert bench.run() == {"raised": {"72": 0, "24": 0, "6": 0}, "lost": 0, "open": 0, "nearest_hours_left": None}


def test_without_a_notifier_the_log_has_it_as_errors(bench, caplog):
    bench.receive()
    bench.run()
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines[0].startswith("LiveKit backups: 1 not safe")
    assert "EG_1" in lines[1]
    assert "Signature" not in caplog.text


def test_a_notifiers_template_is_rendered_and_it_stays_fresh(bench):
    chat = Chat("<!here> {{ livekit_alarm }} ({{ livekit_alarms | length }})")
    bench.receive("EG_1")
    bench.run(notify=chat)
    bench.receive("EG_2", filed_now=True)
    bench.run(notify=chat)
    assert [text[:40] for text in Chat.sent] == ["<!here> LiveKit backups: 1 not safe; the"] * 2
    assert "EG_1" in Chat.sent[0]
    assert "EG_2" in Chat.sent[1]
    assert "EG_1" not in Chat.sent[1]
    assert all(text.endswith("(1)") for text in Chat.sent)


def test_its_context_is_the_tasks_and_its_own(bench):
    def spoils(context):
        context["ti"] = context["livekit_alarm"] = None

    bench.receive()
    tell = Notes()
    bench.run(notify=[spoils, tell])
    assert tell.context["ti"].task_id == "raise_alarms"
    assert tell.texts[0].startswith("LiveKit backups")


def test_what_is_configured_is_told(bench, configure):
    bench.receive()
    tell = Notes()
    configure(tell)
    bench.run()
    assert len(tell.texts) == 1


def test_several_can_be_configured(bench, configure):
    bench.receive()
    first, second = Notes(), Notes()
    configure([first, second])
    bench.run()
    assert len(first.texts) == len(second.texts) == 1


def test_an_argument_wins_over_the_configuration(bench, configure):
    bench.receive()
    configured, given = Notes(), Notes()
    configure(configured)
    bench.run(notify=given)
    assert (len(configured.texts), len(given.texts)) == (0, 1)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (None, "acme_alarms.nothing_here"),
        (None, "no_such_module_of_acme.tell"),
        (None, "tell"),
        (42, "acme_alarms.tell"),
        ([42], "acme_alarms.tell"),
        (Chat, "acme_alarms.tell"),
    ],
)
def test_a_wrong_configuration_is_said_before_anything_is_read(bench, configure, monkeypatch, target, path):
    configure(target, path)
    monkeypatch.setattr(bench.store, "list_keys", None)
    with pytest.raises(ConfigurationError, match="alarm_notifier"):
        bench.run()


@pytest.mark.parametrize("notify", ["acme_alarms.tell", 42, [Notes(), 42], Chat])
def test_a_wrong_argument_is_said_when_the_dag_is_parsed(notify):
    with pytest.raises(ConfigurationError, match="notify"):
        RaiseAlarmsOperator(task_id="t", notify=notify)


def test_one_that_fails_keeps_nobody_from_being_told_and_is_tried_again_alone(bench, caplog):
    bench.receive()
    broken, works = Notes(), Notes()
    broken.error = RuntimeError("https://hooks.example/T0?token=secret answered 500")
    with pytest.raises(AlarmNotSentError, match="1 of 2 notifiers failed"):
        bench.run(notify=[broken, works])
    assert len(works.texts) == 1
    assert "secret" not in caplog.text
    broken.error = None
    assert bench.run(notify=[broken, works])["raised"] == {"72": 0, "24": 0, "6": 1}
    assert (len(broken.texts), len(works.texts)) == (1, 1)


def test_one_that_is_down_for_days_hears_only_what_is_urgent_then(bench):
    bench.receive()
    down, works = Notes(), Notes()
    for _ in range(3):
        down.error = OSError("down")
        with pytest.raises(AlarmNotSentError):
            bench.run(notify=[works, down])
    bench.receive("EG_2", filed_now=True)
    down.error = None
    bench.run(notify=[works, down])
    assert len(works.texts) == 2
    assert len(down.texts) == 1
    assert {alarm["egress_id"] for alarm in down.alarms[0]} == {"EG_1", "EG_2"}


def test_a_task_that_is_killed_while_it_tells_tells_it_again(bench):
    class Killed(BaseException):
        pass

    bench.receive()
    first, second = Notes(), Notes()
    second.error = Killed()
    with pytest.raises(Killed):
        bench.run(notify=[first, second])
    second.error = None
    bench.run(notify=[first, second])
    assert (len(first.texts), len(second.texts)) == (1, 1)


def test_a_store_that_does_not_answer_forgets_nothing(bench, monkeypatch):
    bench.receive(hours_left=30)
    bench.run()
    state = bench.ledger.read_alarms("d", "raise_alarms")

    def fails(uri):
        raise StorageUnavailableError("503")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "list_keys", fails)
        with pytest.raises(StorageUnavailableError):
            bench.run()
    assert bench.ledger.read_alarms("d", "raise_alarms") == state


def test_each_task_that_raises_alarms_has_its_own_memory(bench):
    bench.receive()
    ours, theirs = Notes(), Notes()
    bench.run(notify=ours)
    bench.run(task_id="theirs", notify=theirs)
    assert (len(ours.texts), len(theirs.texts)) == (1, 1)


def test_the_hours_can_be_given(bench):
    bench.receive(hours_left=30)
    assert bench.run(alarm_hours="48, 12")["raised"] == {"48": 1, "12": 0}


def test_names_stay_and_tell_two_of_one_kind_apart():
    def tell(context):
        pass

    names = listener_names([Chat("a"), tell, Chat("b"), Chat("c")])
    assert names == listener_names([Chat("x"), tell, Chat("y"), Chat("z")])
    assert len(set(names)) == 4
    assert names[0].endswith("Chat")
    assert names[2:] == [f"{names[0]}#2", f"{names[0]}#3"]
