"""The one file that Airflow runs of a mounted plugins folder."""

from __future__ import annotations

import runpy
from importlib import metadata
from pathlib import Path

import livekit_backup
from livekit_backup.plugin import LivekitBackupPlugin

LOADER = Path(livekit_backup.__file__).resolve().parent.parent / "livekit_backup_loader.py"


def test_the_installed_distribution_wins(monkeypatch):
    monkeypatch.setattr(metadata, "distribution", lambda name: object())
    assert "LivekitBackupPlugin" not in runpy.run_path(str(LOADER))


def test_without_it_the_folder_offers_the_plugin(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    assert runpy.run_path(str(LOADER))["LivekitBackupPlugin"] is LivekitBackupPlugin


def test_its_name():
    assert LivekitBackupPlugin.name == "livekit_backup"
