"""``airflow livekit-backup recover`` against stores in memory: what it files, starts, says and refuses."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest

from livekit_backup.commands import recover
from livekit_backup.core.livekit_api import ListedEgress
from livekit_backup.models.egress import EgressInfo
from livekit_backup.models.settings import Settings
from unit.fakes import MemoryStore, signed

SETTINGS = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_livekit_backup")
LISTED = {"egress_id": "EG_1", "status": "EGRESS_COMPLETE", "started_at": "5", "backup_storage_used": True}


class Desk:
    def __init__(self):
        self.store = MemoryStore()
        self.asked = []
        self.started = []
        self.is_paused = False

    def list_egress(self, *, egress_id):
        self.asked.append(egress_id)
        return [ListedEgress(LISTED, EgressInfo.model_validate(LISTED))]

    def start(self, conf, now):
        self.started.append(conf)
        return "run 1"

    def recover(self, *egress_ids):
        with pytest.raises(SystemExit) as end:
            recover.recover(Namespace(egress_ids=list(egress_ids), link=False, filename=None, verbose=False))
        return end.value.code


@pytest.fixture
def desk(monkeypatch):
    desk = Desk()
    monkeypatch.setattr(recover, "use_connections_of_database", lambda: None)
    monkeypatch.setattr(recover, "load_settings", lambda arguments: SETTINGS)
    monkeypatch.setattr(recover, "S3ObjectStore", lambda conn_id: desk.store)
    monkeypatch.setattr(recover, "LiveKitHook", lambda conn_id: SimpleNamespace(list_egress=desk.list_egress))
    monkeypatch.setattr(recover, "_start_run", desk.start)
    monkeypatch.setattr(recover, "_is_paused", lambda: desk.is_paused)
    return desk


def test_it_files_the_event_and_starts_the_run(desk, capsys):
    assert desk.recover("EG_1") == 0
    assert [conf["egress_ids"] for conf in desk.started] == [["EG_1"]]
    assert len(desk.store.objects) == 1
    assert "started run 1" in capsys.readouterr().out


def test_a_paused_dag_is_said_to_keep_the_run_waiting(desk):
    desk.is_paused = True
    assert "airflow dags unpause livekit_backup_recovery" in desk.recover("EG_1")


def test_a_link_among_the_arguments_goes_nowhere(desk, capsys):
    said = desk.recover(signed("a.mp4"))
    assert "standard input" in said
    assert "Signature" not in said + "".join(capsys.readouterr())
    assert (desk.asked, desk.started, desk.store.objects) == ([], [], {})
