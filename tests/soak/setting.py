"""All that one simulated run has: its world, its store, its clock, and where the core meets them."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import types
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from random import Random
from unittest import mock

from livekit_backup.core import etags, manifest_client, part_plan, resuming_reader
from livekit_backup.core.locations import Location
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.settings import OnConflict, Settings

from . import home, stage, warehouse
from .between_tries import KINDS as BETWEEN_TRIES
from .chaos import Chaos, Process
from .home import Home
from .recordings import OWN, PART, SMALL, World, make_world
from .simulated_time import Clock, datetime_of, event_of
from .stage import Stage
from .turns import Pools, Turns
from .warehouse import OTHERS, Warehouse
from .wire import Network

KINDS = (*stage.KINDS, *BETWEEN_TRIES, *home.KINDS, *warehouse.KINDS)
"""Every fault that a source, a warehouse or a process can have."""


class Setting:
    """What one seed makes."""

    def __init__(self, seed: str, number: int) -> None:
        # Each has a generator of its own, so that a change in one moves the others little.
        self.rng = Random(f"{seed} airflow")
        choice = Random(f"{seed} what")
        self.clock = Clock()
        focus = KINDS[number % len(KINDS)]
        in_ranges = focus in (*home.RANGES, *home.CHANGES)
        # Where no ETag proves the whole, nothing but the version keeps two recordings apart.
        styles = ("kms", "dated", "md5") if focus in home.CHANGES else ("md5",)
        self.world: World = make_world(choice, _sizes_for(focus), styles)
        # A further range is asked for where an answer breaks off, or where there are several streams.
        kinds = [
            *choice.sample(KINDS, choice.choice((0, 1, 3, 5, 8, len(KINDS)))),
            *(home.BROKEN if in_ranges else ()),
        ]
        self.chaos = Chaos(
            Random(f"{seed} chaos"),
            kinds,
            focus=focus,
            rate=choice.choice((0.3,) if in_ranges else (0.01, 0.03, 0.1, 0.3)),
            most=choice.choice((1, 2, 3, 5, 8, 13, 30, 100)),
        )
        self.turns = Turns(Random(f"{seed} turns"))
        self.stage = Stage(self.turns, self.chaos)
        self.pools = Pools(Random(f"{seed} pools"))
        ids = Random(f"{seed} ids")
        self.ids = types.SimpleNamespace(uuid4=lambda: uuid.UUID(int=ids.getrandbits(128), version=4))
        """What stands in for the module ``uuid``: of two uploads the seed says which is listed first."""
        self.shown: list[tuple[str, bytes, bool]] = []
        self.store = Warehouse(self.stage, self.chaos, Random(f"{seed} store"), lambda *seen: self.shown.append(seen))
        self.home = Home(self.world, self.stage, self.chaos, self.clock, Random(f"{seed} home"))
        self.network = Network(self.home.connect, self.home.answer, self.clock)
        self.told: list[LedgerEntry] = []
        """What was said to have landed, when it did."""
        self.copies_primary = choice.random() < 0.7
        self.shares_with_primary = choice.random() < 0.7
        self.settings = Settings(
            inbox="s3://in",
            warehouse="s3://b/out",
            ledger="s3://b/out/_l",
            landing_key="{egress_id}/{filename}",
            allowed_hosts=("backup.example", OWN),
            on_conflict=choice.choice(list(OnConflict)),
            bundle_files=choice.choice((1, 3, 64)),
            bundle_bytes=choice.choice((4 * PART, 10**6)),
            parallel_ranges=4 if in_ranges else choice.choice((1, 1, 2, 4)),
        )
        self.others: dict[str, bytes] = {}
        self._store_what_was_there(choice)

    def _store_what_was_there(self, choice: Random) -> None:
        """Store the events, what is in the customer's own bucket, and what somebody else had at a key."""
        self.stage.enter(Process("before all"))
        put = partial(warehouse.MemoryStore.put, self.store)
        for backup in self.world.backups:
            put(f"s3://in/{backup.egress_id}.json", json.dumps(backup.event()).encode())
            for file in backup.files:
                if file.host == OWN:
                    put(f"s3://own/{file.path}", file.data)
                elif choice.random() < 0.06:
                    self.others[self.landing_uri(backup.egress_id, file.name)] = OTHERS
        for uri, content in self.others.items():
            put(uri, content)

    def landing_uri(self, egress_id: str, name: str) -> str:
        """Where a file is to land."""
        return f"s3://b/out/{egress_id}/{name}"

    def find_primary(self, location: Location) -> str | None:
        """Where an unsigned location lies in the customer's own store."""
        return f"s3://own/{location.key_path}" if self.copies_primary and location.host == OWN else None


def _sizes_for(fault: str) -> tuple[int, ...]:
    """The sizes of a file that a fault can happen to."""
    small, large = (SMALL // 2, SMALL), (PART, 3 * PART, 5 * PART + 7)
    if fault in (*home.RANGES, *home.CHANGES):
        return large[1:]
    if fault in (*warehouse.COMPLETE, *warehouse.PARTS, *warehouse.LISTING, *warehouse.LIFECYCLE):
        return large
    return small if fault in warehouse.PUT else small + large


@contextlib.contextmanager
def installed(setting: Setting) -> Iterator[None]:
    """Let the core meet a setting instead of the machine: its clock, its threads, its connections, and small sizes."""
    threads = types.SimpleNamespace(
        **{name: getattr(threading, name) for name in ("Lock", "Thread", "local")}, Event=event_of(setting.clock)
    )
    queues = types.SimpleNamespace(SimpleQueue=setting.pools.queue())
    stand_ins = {
        "time": (time, setting.clock),
        "datetime": (datetime, datetime_of(setting.clock)),
        "ThreadPoolExecutor": (ThreadPoolExecutor, setting.pools.executor()),
        "threading": (threading, threads),
        "uuid": (uuid, setting.ids),
    }
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("livekit_backup.core."):
                for attribute, (real, stand_in) in stand_ins.items():
                    if getattr(module, attribute, None) is real:
                        stack.enter_context(mock.patch.object(module, attribute, stand_in))
        for target, value in {
            "transfer.queue": queues,
            "recording_home.pool_for": setting.network.pool,
            "manifest_client.Retrying": partial(manifest_client.Retrying, sleep=setting.clock.sleep),
            "etags.MIN_PART_SIZE": PART,
            "part_plan.MIN_PART_SIZE": PART,
            "etags.USUAL_PART_SIZES": (PART, 2 * PART, 4 * PART),
            "part_plan._TIERS": ((part_plan._TIERS[-1][0], 3 * PART),),
            "part_plan.BUFFER_BUDGET": 8 * PART,
            "http_source.CHUNK": 2000,
            "resuming_reader.FRUITFUL_BYTES": 1000,
        }.items():
            stack.enter_context(mock.patch(f"livekit_backup.core.{target}", value))
        yield


__all__ = ["KINDS", "Setting", "etags", "installed", "resuming_reader"]
