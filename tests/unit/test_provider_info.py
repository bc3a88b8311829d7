"""What Airflow's provider manager is told."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest

from livekit_backup import __version__
from livekit_backup.hooks.configuration import KEYS, SECTION
from livekit_backup.models.settings import Settings
from livekit_backup.provider_info import OPTIONS, get_provider_info

SETTINGS_DEFAULTS = {
    "inbox": None,
    "inbox_layout": Settings.model_fields["inbox_layout"].default,
    "warehouse": None,
    "landing_key": Settings.model_fields["landing_key"].default,
    "ledger": None,
    "aws_conn_id": Settings.model_fields["warehouse_conn_id"].default,
    "inbox_conn_id": None,
    "warehouse_conn_id": None,
    "primary_conn_id": None,
    "livekit_conn_id": Settings.model_fields["livekit_conn_id"].default,
    "upload_options": None,
    "parallel_ranges": str(Settings.model_fields["parallel_ranges"].default),
    "allowed_hosts": ", ".join(Settings.model_fields["allowed_hosts"].default),
    "grace": f"{Settings.model_fields['grace'].default.total_seconds():.0f}",
}


def _option(key):
    return get_provider_info()["config"][SECTION]["options"][key]


def test_it_follows_airflows_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    assert get_provider_info()["versions"] == [__version__]


def test_every_key_is_told():
    assert tuple(OPTIONS) == KEYS == tuple(SETTINGS_DEFAULTS)
    for key in KEYS:
        assert _option(key)["description"].endswith(".")
        assert _option(key)["example"]


@pytest.mark.parametrize("key", KEYS)
def test_defaults_are_the_models_own(key, monkeypatch):
    from airflow.sdk import conf

    monkeypatch.delenv(f"AIRFLOW__{SECTION.upper()}__{key.upper()}", raising=False)
    assert OPTIONS[key][1] == SETTINGS_DEFAULTS[key]
    assert (conf.get(SECTION, key, fallback=None) or None) == SETTINGS_DEFAULTS[key], "as Airflow gives it"


def test_both_connections_default_to_the_same():
    assert Settings.model_fields["inbox_conn_id"].default == Settings.model_fields["warehouse_conn_id"].default


def test_examples_are_settings():
    values = {key: example for key, (_, _, example) in OPTIONS.items() if key in Settings.model_fields}
    values["allowed_hosts"] = tuple(values["allowed_hosts"].split(", "))
    values["upload_options"] = json.loads(values["upload_options"])
    assert Settings(**{**values, "grace": float(values["grace"])}).landing_key == "{filename}"


def test_entry_points_lead_here():
    [provider] = [one for one in entry_points(group="apache_airflow_provider") if "livekit" in one.value]
    assert provider.load() is get_provider_info
    [plugin] = [one for one in entry_points(group="airflow.plugins") if "livekit" in one.value]
    assert plugin.load().name == "livekit_backup"
