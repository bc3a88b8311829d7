"""``doctor`` on Airflow's connections: there, readable, of the right type; and on the clocks of their servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.models.finding import Finding, broken, not_checked, ok, warning

NOTICED_SKEW = timedelta(seconds=10)
"""A Date header is in whole seconds, and an answer can take some."""
REFUSED_SKEW = timedelta(seconds=60)
"""What is left to webhooks' tokens on either side. S3 refuses requests from 15 minutes on."""

_SETTING_OF = {
    "inbox": "INBOX_CONN_ID (or AWS_CONN_ID)",
    "warehouse": "WAREHOUSE_CONN_ID (or AWS_CONN_ID)",
    "primary": "PRIMARY_CONN_ID",
    "livekit": "LIVEKIT_CONN_ID",
}
_ADD_AWS = (
    "airflow connections add {conn_id} --conn-type aws --conn-login ACCESS_KEY_ID --conn-password SECRET_ACCESS_KEY "
    '--conn-extra \'{{"region_name": "REGION"}}\''
)
_ADD_LIVEKIT = (
    "airflow connections add {conn_id} --conn-type livekit --conn-host PROJECT.livekit.cloud --conn-login API_KEY "
    "--conn-password API_SECRET"
)


def connection_check(role: str) -> Callable[[ExaminedSetup], Iterator[Finding]]:
    """Return the check of one role's connection."""
    return lambda setup: _check_connection(setup, role)


def _check_connection(setup: ExaminedSetup, role: str) -> Iterator[Finding]:
    conn_id = setup.conn_id(role)
    if not conn_id:
        return
    kind = "livekit" if role == "livekit" else "aws"
    add = (_ADD_LIVEKIT if kind == "livekit" else _ADD_AWS).format(conn_id=conn_id)
    setting = f"AIRFLOW__LIVEKIT_BACKUP__{_SETTING_OF[role]}"
    connection = setup.connection(conn_id)
    if connection is None and kind == "livekit":
        yield broken(f"the Airflow connection {conn_id} is missing", f"{add}; or correct {setting}")
    elif connection is None:
        # What the amazon provider does then is what its users with an instance's role want.
        yield warning(
            f"the Airflow connection {conn_id} is missing, so boto looks for credentials of this machine's own",
            f"if that is not meant: {add}; or correct {setting}",
        )
    elif connection.conn_type != kind:
        yield broken(
            f"the connection {conn_id} is of type {connection.conn_type!r}, not {kind!r}",
            f"make one of type {kind} and name it in {setting}: {add.replace(conn_id, f'{conn_id}_{kind}', 1)}",
        )
    else:
        yield ok(f"{conn_id} is of type {kind}")


def check_clocks(setup: ExaminedSetup) -> Iterator[Finding]:
    """Compare this machine's clock with those of all servers that answered."""
    if not setup.skews:
        yield not_checked("no server told its time")
    for server, skew in sorted(setup.skews.items()):
        amount = abs(skew)
        if amount < NOTICED_SKEW:
            yield ok(f"the clock of {server} is this machine's")
            continue
        way = "ahead of" if skew > timedelta(0) else "behind"
        what = f"the clock of {server} is {_readable(amount)} {way} this machine's"
        mend = (
            "compare both with: date -u; keep this machine's by NTP (timedatectl set-ntp true), and the server's if it "
            "is your own"
        )
        refuses = f"{what}: signatures, tokens and links are judged by the clock, and refused"
        yield broken(refuses, mend) if amount >= REFUSED_SKEW else warning(what, mend)


def _readable(amount: timedelta) -> str:
    seconds = amount.total_seconds()
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
