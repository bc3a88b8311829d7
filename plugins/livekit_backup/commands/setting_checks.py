"""``doctor`` on the configuration section, the hosts it allows, and the way out through proxies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.request import getproxies

import httpx

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.core.http_connections import api_client, proxied_scheme
from livekit_backup.core.locations import system_resolver
from livekit_backup.core.media_process import is_installed
from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.configuration import DAG_KEYS, KEYS, RECEIVER_KEYS, SECTION, load_receiver_settings
from livekit_backup.models.finding import Finding, broken, note, ok, warning

_BACKUP_HOME = "https://s3.amazonaws.com"
"""LiveKit keeps backups at Amazon, so this is the way that recordings come."""


def check_settings(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look at each key by itself."""
    for problem in setup.broken_keys.values():
        what, _, mend = problem.rpartition(": ")
        yield broken(what or problem, mend)
    count = len(KEYS) + len(DAG_KEYS) + len(RECEIVER_KEYS)
    usable = count - len(setup.broken_keys)
    try:
        load_receiver_settings()
    except ConfigurationError as error:
        # What the receiver shares with recovery is looked at already.
        if str(error).startswith(RECEIVER_KEYS):
            usable -= 1
            what, _, mend = str(error).rpartition(": ")
            yield broken(what, mend)
    yield ok(f"{usable} of {count} keys of [{SECTION}] can be used")
    if setup.settings().probe and not is_installed():
        yield note(
            "probe looks at the two ends of media alone, since PyAV is not installed here",
            "install airflow-provider-livekit-backup[media] where tasks run",
        )


def check_proxies(setup: ExaminedSetup) -> Iterator[Finding]:
    """See whether the environment's proxies and CA bundles can be used, as a download would."""
    del setup
    try:
        api_client().close()
        scheme = proxied_scheme(httpx.URL(_BACKUP_HOME))
    except ConfigurationError as error:
        what, _, mend = str(error).rpartition(": ")
        has_mend = mend.startswith("set ")
        yield broken(what if has_mend else str(error), mend if has_mend else "correct the variable, or unset it")
        return
    yield ok(f"recordings are fetched {f'through the proxy of {_variable(scheme)}' if scheme else 'without a proxy'}")


def _variable(scheme: str) -> str:
    lower = f"{scheme}_proxy"
    return lower if os.environ.get(lower) else lower.upper()


def check_allowed_hosts(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look up the hosts that are allowed by their full names."""
    hosts = setup.settings("allowed_hosts").allowed_hosts
    full_names = [host for host in hosts if "*" not in host]
    if getproxies().get("https") or getproxies().get("all"):
        yield ok(f"{len(hosts)} entries; names are not looked up here, which is the proxy's part")
        return
    resolved = 0
    for host in full_names:
        name, port = _split(host)
        try:
            system_resolver(name, port)
            resolved += 1
        except (OSError, UnicodeError):
            yield warning(
                f"{name} of allowed_hosts does not resolve on this machine",
                f"check it with: getent hosts {name}; correct AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS, or this "
                "machine's name server",
            )
    yield ok(f"{len(hosts)} entries can be read; {resolved} of {len(full_names)} full names resolve")


def _split(entry: str) -> tuple[str, int]:
    host, _, port = entry.rpartition(":")
    if host and port.isdecimal() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), int(port)
    return entry.strip("[]"), 443
