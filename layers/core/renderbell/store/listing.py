"""The index `list`: an owner's tasks by the time of their registration, and many items read at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from aws_lambda_powertools import Logger

from renderbell import items
from renderbell.expressions import just_below, to_wire
from renderbell.items import time_text
from renderbell.store.partition import Partition, UnreadableItemError, key_within, read_item
from renderbell.task import Request, Task

T = TypeVar("T")

logger = Logger()

_LOWEST, _BEHIND = "0", "$"  # before every time; after the `#` that follows one


class Place(NamedTuple):
    """Where a task stands in its owner's list."""

    created_at: datetime
    task_id: str


class Listing(Partition):
    """An owner's tasks by time; each slot has a list of its own."""

    def listed(
        self,
        owner: str,
        slot: int,
        most: int,
        *,
        before: Place | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> list[Place]:
        """The newest tasks of a slot, at most so many, all bounds left out; fewer only where there are no more.

        Reads the index alone: eventually consistent, and what has been deleted since may still stand in it.
        """
        low = time_text(created_after) + _BEHIND if created_after is not None else _LOWEST
        highs = [time_text(created_before)] if created_before is not None else []
        if before is not None:
            highs.append(just_below(f"{time_text(before.created_at)}#{before.task_id}"))
        high = min(highs, default="~")
        if low > high:
            return []
        found = self._first(
            most,
            IndexName="list",
            KeyConditionExpression="list_pk = :pk AND list_sk BETWEEN :low AND :high",
            ExpressionAttributeValues=to_wire({":pk": f"OWNER#{owner}#{slot}", ":low": low, ":high": high}),
            ScanIndexForward=False,
        )
        return [_place(item["list_sk"]) for item in found]

    def tasks(self, task_ids: Sequence[str]) -> dict[str, Task]:
        """Those of the tasks that are there and can be read, by their ids, read consistently."""
        return self._several(items.task_from, "TASK", task_ids)

    def requests(self, task_ids: Sequence[str]) -> dict[str, Request]:
        """Those of the tasks' requests that are there and can be read, by the tasks' ids, read consistently."""
        return self._several(items.request_from, "REQUEST", task_ids)

    def _several(self, read: Callable[[str, Mapping[str, Any]], T], sk: str, task_ids: Sequence[str]) -> dict[str, T]:
        found = {}
        for item in self._batch_get([key_within(one, sk) for one in task_ids], whole=True):
            try:
                found[item["pk"].removeprefix("TASK#")] = read_item(read, item)
            except UnreadableItemError:
                logger.exception("item cannot be read", extra={"pk": item["pk"], "sk": item["sk"]})
        return found


def _place(text: str) -> Place:
    created_at, _, task_id = text.partition("#")
    return Place(items.parse_time(created_at), task_id)
