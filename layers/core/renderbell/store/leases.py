"""Leases: who polls a worker's slots until when, and what it has asked by then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from renderbell import items
from renderbell.expressions import Change, Key
from renderbell.items import time_text
from renderbell.store.table import Table


class Served(NamedTuple):
    """Which polling moments have been asked: all before `until`, but for a connection in `lagging` only those before
    its own time, with the task that it asked last in `turns`. None: nothing is known. `paced` says when a connection's
    rate allows the next poll, `told` when the notifier may next be told of a receiver's deliveries."""

    until: datetime | None = None
    lagging: Mapping[str, datetime] = MappingProxyType({})
    paced: Mapping[str, datetime] = MappingProxyType({})
    told: Mapping[str, datetime] = MappingProxyType({})
    turns: Mapping[str, str] = MappingProxyType({})


class Lease(NamedTuple):
    """Who polls a worker's slots: `holder` may until `until`; `relief` asks it to hand over, `left` is that it has.

    `deaths` counts the holders in a row before this one that never left. `suspects` are the tasks one of which may have
    ended such a holder's process, with their own versions then: one that has changed since is none any more. `tasks` is
    how many the holder polled when it was written last.
    """

    worker: int
    holder: str
    until: datetime
    relief: bool
    served: Served
    workers: int
    slots: int
    left: bool = False
    deaths: int = 0
    suspects: Mapping[str, int] = MappingProxyType({})
    tasks: int = 0


class Leases(Table):
    """The leases, one for each worker."""

    def lease(self, worker: int) -> Lease | None:
        """A worker's lease, read consistently; its `until` may have passed."""
        item = self._get(_lease_key(worker))
        return None if item is None else _lease_from(worker, item)

    def take_lease(self, lease: Lease, *, seen: Lease | None) -> bool:
        """Takes a worker's lease if it still is as it was seen (None: absent); clears `relief`."""
        change = _lease_change(lease)
        change.remove("relief")
        if seen is None:
            conditions = ["attribute_not_exists(pk)"]
        else:
            conditions = [change.equals("holder", seen.holder), change.equals("until", time_text(seen.until))]
        return self._applies(_lease_key(lease.worker), change, conditions, mine=("holder", lease.holder))

    def keep_lease(self, lease: Lease) -> bool:
        """Renews or releases a lease that `lease.holder` holds, by its new `until`; False if it holds it no more."""
        change = _lease_change(lease)
        return self._applies(_lease_key(lease.worker), change, [change.equals("holder", lease.holder)])

    def ask_relief(self, seen: Lease) -> bool:
        """Asks the holder to hand over; False if another holds the lease by now."""
        change = Change()
        change.set("relief", True)
        return self._applies(_lease_key(seen.worker), change, [change.equals("holder", seen.holder)])


def _lease_key(worker: int) -> Key:
    return {"pk": f"LEASE#{worker}", "sk": "LEASE"}


def _lease_change(lease: Lease) -> Change:
    change = Change()
    change.set("holder", lease.holder)
    change.set("until", time_text(lease.until))
    change.set("workers", lease.workers)
    change.set("slots", lease.slots)
    change.set("lagging", _texts(lease.served.lagging))
    change.set("paced", _texts(lease.served.paced))
    change.set("told", _texts(lease.served.told))
    change.set("turns", dict(lease.served.turns))
    change.set("left", lease.left)
    change.set("deaths", lease.deaths)
    change.set("suspects", dict(lease.suspects))
    change.set("tasks", lease.tasks)
    if lease.served.until is None:
        change.remove("served_until")
    else:
        change.set("served_until", time_text(lease.served.until))
    return change


def _lease_from(worker: int, item: Mapping[str, Any]) -> Lease:
    served_until = item.get("served_until")
    return Lease(
        worker=worker,
        holder=item["holder"],
        until=items.parse_time(item["until"]),
        relief=bool(item.get("relief")),
        served=Served(
            items.parse_time(served_until) if served_until else None,
            _times(item.get("lagging", {})),
            _times(item.get("paced", {})),
            _times(item.get("told", {})),
            dict(item.get("turns", {})),
        ),
        workers=int(item["workers"]),
        slots=int(item["slots"]),
        left=bool(item.get("left")),
        deaths=int(item.get("deaths", 0)),
        suspects={task_id: int(version) for task_id, version in item.get("suspects", {}).items()},
        tasks=int(item.get("tasks", 0)),
    )


def _texts(times: Mapping[str, datetime]) -> dict[str, str]:
    return {name: time_text(at) for name, at in times.items()}


def _times(texts: Mapping[str, str]) -> dict[str, datetime]:
    return {name: items.parse_time(text) for name, text in texts.items()}
