"""The commands ``airflow livekit-backup …``. Every call of ``airflow`` loads this file, and nothing behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from airflow.cli.cli_config import ARG_VERBOSE, ActionCommand, Arg, GroupCommand, lazy_load_command

_Arg = cast("Callable[..., Arg]", Arg)
"""Airflow gives it no types."""

ARG_JSON = _Arg(("--json",), help="Print one JSON object instead of text", action="store_true")
ARG_DAG_ID = _Arg(
    ("--dag-id",),
    help="A DAG that has to be there and run, instead of the two that come with the package; can be repeated",
    action="append",
)
ARG_FIX = _Arg(
    ("--fix",),
    help="Make what is missing where that can do no harm: the configured pool, with 8 slots; nothing else is touched",
    action="store_true",
)

ARG_DAYS = _Arg(("--days",), help="Days to look back over; 8 unless given", type=float, default=8.0)
ARG_EGRESS_IDS = _Arg(("egress_ids",), help="Egress ids, such as EG_abc123", nargs="*")
ARG_LINK = _Arg(
    ("--link",),
    help="Take one signed URL from standard input: a manifest's, or a file's as LiveKit's dashboard shows it",
    action="store_true",
)
ARG_FILENAME = _Arg(("--filename",), help="With --link of a file: its name, where that is not the link's path")
ARG_SINCE = _Arg(
    ("--since",), help="Audit only what was reported from then on: a date or a time such as 2026-11-20T15:00, in UTC"
)
ARG_SAMPLE = _Arg(
    ("--sample",), help="How many landed objects to read through, drawn by lot; 100 unless given", type=int
)
ARG_FULL = _Arg(("--full",), help="Read every landed object through", action="store_true")
ARG_SEAL = _Arg(
    ("--seal",),
    help="Digest of a seal that was noted elsewhere, such as in a report task's log; can be repeated",
    action="append",
)

COMMANDS = (
    ActionCommand(
        name="status",
        help="Say what is safe, what is at risk, and how many hours are left",
        description=(
            "Holds LiveKit's API, the inbox and the ledger against each other, and only reads. "
            "Ends with 1 when a backup is lost, at risk or unaccounted for."
        ),
        func=lazy_load_command("livekit_backup.commands.status.status"),
        args=(ARG_DAYS, ARG_JSON, ARG_VERBOSE),
    ),
    ActionCommand(
        name="recover",
        help="Recover these egresses, or what a link leads to, now",
        description=(
            "Finds each egress at LiveKit or in the inbox, files its event, and starts the recovery DAG. "
            "Ends with 1 when one was not found; the others are recovered all the same."
        ),
        func=lazy_load_command("livekit_backup.commands.recover.recover"),
        args=(ARG_EGRESS_IDS, ARG_LINK, ARG_FILENAME, ARG_VERBOSE),
    ),
    ActionCommand(
        name="doctor",
        help="Try every connection, right, clock and host, and say how to mend what is broken",
        description=(
            "Tries everything that recovery needs, for real, with small objects of its own. "
            "Ends with 1 when something is broken; warnings end with 0."
        ),
        func=lazy_load_command("livekit_backup.commands.doctor.doctor"),
        args=(ARG_JSON, ARG_DAG_ID, ARG_FIX, ARG_VERBOSE),
    ),
    ActionCommand(
        name="audit",
        help="Prove that nothing that landed has changed, and that no report was altered or removed",
        description=(
            "Holds reports, ledger, inbox and warehouse against the chain of the reports' seals, and only reads. "
            "Ends with 1 when something was altered, removed or is not accounted for."
        ),
        func=lazy_load_command("livekit_backup.commands.audit.audit"),
        args=(ARG_SINCE, ARG_SAMPLE, ARG_FULL, ARG_SEAL, ARG_JSON, ARG_VERBOSE),
    ),
)


def get_commands() -> list[GroupCommand]:
    """Return the group of commands."""
    return [
        GroupCommand(
            name="livekit-backup",
            help="Recover LiveKit Cloud's backup recordings",
            subcommands=COMMANDS,
        )
    ]
