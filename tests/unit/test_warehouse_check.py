"""When what is known of the warehouse's store is taken, and when it is found out anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core import store_check, warehouse_check
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.core.warehouse_check import warehouse_abilities
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.settings import Settings
from livekit_backup.models.store_abilities import DOUBTFUL_LIFETIME, STORE_CHECK_LIFETIME, StoreAbilities
from unit.fakes import MemoryStore

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SETTINGS = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_l")


class Named(MemoryStore):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def place_name(self) -> str:
        return self.name


@pytest.fixture
def checked(monkeypatch):
    """The stores that were tried."""
    names = []

    def check(store, uri, now, announce):
        names.append(store.place_name())
        return StoreAbilities(checked_at=now, store=store.place_name())

    monkeypatch.setattr(warehouse_check, "check_store", check)
    return names


def test_another_store_with_the_same_bucket_keeps_nothing_of_the_first(checked):
    here, there = Named("https://s3.acme:443"), Named("http://minio.acme:9000")
    ledger = Ledger(here, SETTINGS.ledger)
    for store in (here, here, there, there, here):
        assert warehouse_abilities(SETTINGS, store, ledger, NOW).store == store.name
    assert checked == [here.name, there.name, here.name]


def test_findings_that_name_no_store_count_as_none(checked):
    store = MemoryStore()
    ledger = Ledger(store, SETTINGS.ledger)
    ledger.write_abilities("b", StoreAbilities(checked_at=NOW, tags=True))
    assert not warehouse_abilities(SETTINGS, store, ledger, NOW).tags
    assert checked == ["memory://"]


@pytest.mark.parametrize(
    ("in_doubt", "lifetime"), [(False, STORE_CHECK_LIFETIME), (True, DOUBTFUL_LIFETIME)], ids=["sure", "in doubt"]
)
def test_what_is_in_doubt_is_soon_tried_again(checked, in_doubt, lifetime):
    store = MemoryStore()
    ledger = Ledger(store, SETTINGS.ledger)
    ledger.write_abilities("b", StoreAbilities(checked_at=NOW, store="memory://", in_doubt=in_doubt))
    warehouse_abilities(SETTINGS, store, ledger, NOW + lifetime - timedelta(seconds=1))
    assert checked == []
    warehouse_abilities(SETTINGS, store, ledger, NOW + lifetime)
    assert checked == ["memory://"]


@pytest.mark.parametrize("killed_in", ["head", "upload_part", "complete_upload", "clean_up"])
def test_of_a_check_that_is_killed_the_runs_report_leaves_nothing(monkeypatch, killed_in):
    store = MemoryStore()
    ledger = Ledger(store, SETTINGS.ledger)
    ours = Attempt(dag_id="d", run_id="r")

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_check._Probe, "clean_up", lambda _: die() if killed_in == "clean_up" else None)
    with monkeypatch.context() as until_then:
        if killed_in != "clean_up":
            until_then.setattr(store, killed_in, die)
        with pytest.raises(KeyboardInterrupt):
            warehouse_abilities(SETTINGS, store, ledger, NOW, ours)

    def left() -> list[str]:
        return [*store.uploads, *(uri for uri in store.objects if uri.startswith("s3://b/out/_livekit_backup/probes"))]

    assert left()
    drop_left_open(ledger, store, Attempt(dag_id="d", run_id="another"), set())
    assert left(), "another run may still be at it"
    drop_left_open(ledger, store, ours, set())
    assert not left()
