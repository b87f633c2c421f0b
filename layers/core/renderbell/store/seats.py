"""Seats: which of an owner's slow receivers hold the notifier."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from renderbell import items
from renderbell.expressions import Change, Key
from renderbell.items import time_text
from renderbell.seats import Seats
from renderbell.store.table import Table

KEPT_S = 86_400  # after the last change


class SeatsRoom(Table):
    """The seats, an item for each owner who has slow receivers."""

    def seats(self, owner: str) -> Seats:
        """An owner's seats, read consistently."""
        item = self._get(_key(owner))
        if item is None:
            return Seats()
        return Seats(
            {token: items.parse_time(until) for token, until in item["taken"].items()},
            {name: _times(times) for name, times in item["waiting"].items()},
            int(item["version"]),
        )

    def change_seats(self, owner: str, seen: Seats, after: Seats, now: datetime) -> bool:
        """Writes an owner's seats if they still are as they were seen."""
        change = Change()
        conditions = [change.as_seen("version", seen.version or None)]
        change.set("version", after.version)
        change.set("taken", {token: time_text(until) for token, until in after.taken.items()})
        change.set("waiting", {name: [time_text(at) for at in times] for name, times in after.waiting.items()})
        change.set("ttl", int(now.timestamp()) + KEPT_S)
        return self._applies(_key(owner), change, conditions)


def _times(texts: Sequence[str]) -> tuple[datetime, datetime]:
    since, last = map(items.parse_time, texts)
    return since, last


def _key(owner: str) -> Key:
    return {"pk": f"OWNER#{owner}", "sk": "SEATS"}
