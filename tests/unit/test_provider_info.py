"""What Airflow's provider manager is told."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest

from livekit_backup import __version__
from livekit_backup.hooks.configuration import DAG_KEYS, KEYS, RECEIVER_KEYS, SECTION
from livekit_backup.hooks.livekit import WEBHOOK_SECRETS, LiveKitHook
from livekit_backup.models.receiver_settings import ReceiverSettings
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
    "lookback": f"{Settings.model_fields['lookback'].default.total_seconds():.0f}",
    "on_conflict": Settings.model_fields["on_conflict"].default.value,
    "verify": Settings.model_fields["verify"].default.value,
    "probe": str(Settings.model_fields["probe"].default),
    "bundle_files": str(Settings.model_fields["bundle_files"].default),
    "bundle_bytes": str(Settings.model_fields["bundle_bytes"].default),
    "max_bytes_per_second": None,
    "alarm_hours": ", ".join(f"{hours:.0f}" for hours in Settings.model_fields["alarm_hours"].default),
    "pool": None,
    "alarm_notifier": None,
    "webhook_events": ReceiverSettings.model_fields["webhook_events"].default,
    "webhook_max_bytes": str(ReceiverSettings.model_fields["webhook_max_bytes"].default),
}


def _option(key):
    return get_provider_info()["config"][SECTION]["options"][key]


def test_it_follows_airflows_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    assert get_provider_info()["versions"] == [__version__]


def test_every_key_is_told():
    assert tuple(OPTIONS) == (*KEYS, *DAG_KEYS, *RECEIVER_KEYS) == tuple(SETTINGS_DEFAULTS)
    for key in OPTIONS:
        assert _option(key)["description"].endswith(".")
        assert _option(key)["example"]


@pytest.mark.parametrize("key", [*KEYS, *DAG_KEYS, *RECEIVER_KEYS])
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
    values["alarm_hours"] = tuple(values["alarm_hours"].split(", "))
    seconds = {key: float(values[key]) for key in ("grace", "lookback")}
    assert Settings(**{**values, **seconds}).landing_key == "{filename}"
    examples = {key: OPTIONS[key][2] for key in ReceiverSettings.model_fields}
    assert ReceiverSettings(**examples).webhook_events == "all"


def test_the_connection_type_is_the_hooks_own():
    [told] = get_provider_info()["connection-types"]
    name, _, hook = told["hook-class-name"].rpartition(".")
    assert getattr(import_module(name), hook) is LiveKitHook
    assert told["connection-type"] == LiveKitHook.conn_type
    assert told["hook-name"] == LiveKitHook.hook_name
    assert list(told["conn-fields"]) == [WEBHOOK_SECRETS]


def test_airflow_shows_the_connection_types_form_without_importing_the_hook():
    code = """
import json, sys
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[meta] = [one for one in HookMetaService.hook_meta_data() if one.connection_type == "livekit"]
print(json.dumps([meta.model_dump(), sorted(sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    form, modules = json.loads(done.stdout.splitlines()[-1])
    assert form["hook_name"] == "LiveKit"
    standard = {name: field for name, field in form["standard_fields"].items() if field}
    titles = {name: field["title"] for name, field in standard.items() if field["title"]}
    assert titles == {"host": "LiveKit URL", "login": "API key", "password": "API secret"}
    assert {name for name, field in standard.items() if field["hidden"]} == {"port", "url_schema"}
    [secrets] = form["extra_fields"].items()
    assert secrets[0] == "webhook_secrets"
    assert secrets[1]["schema"]["format"] == "password"
    assert not {"livekit_backup.hooks.livekit", "livekit_backup.core.livekit_api"} & set(modules)


def test_airflow_finds_the_hook_by_the_connection_type():
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    found = ProvidersManagerTaskRuntime().hooks["livekit"]
    assert found.hook_class_name == f"{LiveKitHook.__module__}.{LiveKitHook.__name__}"
    assert found.connection_id_attribute_name == "livekit_conn_id"
    assert found.connection_testable


def test_entry_points_lead_here():
    [provider] = [one for one in entry_points(group="apache_airflow_provider") if "livekit" in one.value]
    assert provider.load() is get_provider_info
    [plugin] = [one for one in entry_points(group="airflow.plugins") if "livekit" in one.value]
    assert plugin.load().name == "livekit_backup"
