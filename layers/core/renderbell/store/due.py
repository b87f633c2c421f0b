"""The index `due`: what a slot has to do by a time, and how much of it the index shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from renderbell import items
from renderbell.expressions import to_wire
from renderbell.items import time_text
from renderbell.store.partition import task_id_of
from renderbell.store.table import Table
from renderbell.task import Task

# What the index `due` shows of an item, besides the keys; the template's projection must list the same. How far a task
# has come is not among it: each change would be a write of the index too.
DUE_PROJECTION = frozenset(
    {
        "owner",
        "connection",
        "provider",
        "provider_task_id",
        "created_at",
        "expires_at",
        "status",
        "version",
        "step",
        "tells_processing",
        "streak",
        "last_poll_error",
        "hint",
        "event",
        "endpoint_id",
        "receiver",
    }
)


class UnreadableItem(NamedTuple):
    """An item that the index shows and that cannot be read."""

    key: tuple[str, str]


class DueDelivery(NamedTuple):
    """What the index shows of a pending delivery."""

    key: tuple[str, str]
    owner: str
    receiver: str
    endpoint_id: str
    due_at: datetime


class DueItems(Table):
    """Tasks and deliveries, as the index shows them."""

    def due(
        self, slot: int, until: datetime, after: datetime | None = None
    ) -> Iterator[Task | DueDelivery | UnreadableItem]:
        """What a slot shows as due until a time (and, if given, only after another), soonest first.

        Reads the index alone: eventually consistent, and only what polling needs. An item that cannot be read hides no
        other.
        """
        values: dict[str, object] = {":slot": slot, ":until": time_text(until)}
        condition = "slot = :slot AND due_at <= :until"
        if after is not None:
            condition = "slot = :slot AND due_at BETWEEN :after AND :until"
            values[":after"] = time_text(after)
        for item in self._query(
            IndexName="due", KeyConditionExpression=condition, ExpressionAttributeValues=to_wire(values)
        ):
            try:
                yield _due_from(item)
            except Exception:  # whatever is wrong with it
                yield UnreadableItem((item["pk"], item["sk"]))


def _due_from(item: Mapping[str, Any]) -> Task | DueDelivery:
    if item["sk"] == "TASK":
        return items.task_from(task_id_of(item["pk"]), item, progress_known=False)
    return DueDelivery((item["pk"], item["sk"]), *items.due_delivery_from(item))
