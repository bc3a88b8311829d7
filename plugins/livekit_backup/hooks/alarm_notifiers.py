"""Who is told of alarms: Airflow notifiers, and any other callables that take a task's context."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from airflow.sdk import BaseNotifier, conf

from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.configuration import SECTION

KEY = "alarm_notifier"

Notify = Callable[[Any], Any]
"""Called like an Airflow callback, with one context."""


def checked_notifiers(given: Any, named: str) -> list[Notify]:
    """Return one notifier, or a sequence of them, as a list.

    :param named: what a wrong one is called in the error.
    :raises ConfigurationError: something of it cannot be called.
    """
    notifiers = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for notifier in notifiers:
        if isinstance(notifier, type):
            # To call it would make one, and tell nobody.
            raise ConfigurationError(f"{named} is the class {notifier.__qualname__}: give an object of it")
        if not callable(notifier):
            raise ConfigurationError(f"{named} is {type(notifier).__qualname__}, which cannot be called with a context")
    return notifiers


def configured_notifiers() -> list[Notify]:
    """Return what the key ``alarm_notifier`` leads to; empty where it is not set.

    :raises ConfigurationError: there is nothing behind it, or nothing that can be called.
    """
    path = (conf.get(SECTION, KEY, fallback=None) or "").strip()
    if not path:
        return []
    module, _, name = path.rpartition(".")
    cure = f"correct AIRFLOW__LIVEKIT_BACKUP__{KEY.upper()}"
    try:
        found = getattr(import_module(module), name)
    except Exception as error:
        # A module of the user's can raise anything.
        raise ConfigurationError(f"{KEY} is {path!r}, which cannot be imported ({error}): {cure}") from error
    return checked_notifiers(found, f"what {KEY}={path} leads to")


def listener_names(notifiers: Sequence[Notify]) -> list[str]:
    """Name each after its module and class or function, so that it is known again in the next run."""
    names: list[str] = []
    for notifier in notifiers:
        kind = notifier if hasattr(notifier, "__qualname__") else type(notifier)
        name = f"{kind.__module__}.{kind.__qualname__}"
        count = sum(other.partition("#")[0] == name for other in names)
        names.append(f"{name}#{count + 1}" if count else name)
    return names


def notify(notifier: Notify, context: Mapping[str, Any], **more: Any) -> None:
    """Call a notifier with a context of its own, since a notifier writes its fields into it."""
    # A notifier renders its templates into itself, once and for all.
    own: Notify = copy.copy(notifier) if isinstance(notifier, BaseNotifier) else notifier
    own({**context, **more})
