"""Tasks: how one is registered, read, changed and deleted, so that nobody's change is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from renderbell import items
from renderbell.delivery import Delivery
from renderbell.errors import ConflictError, RenderbellError, VersionConflictError
from renderbell.expressions import Change, Key, from_wire
from renderbell.items import time_text
from renderbell.store.deliveries import DELIVERY_PREFIX, delivery_key
from renderbell.store.partition import Partition, key_within, read_item, task_key
from renderbell.store.table import CancelledError
from renderbell.task import Request, Status, Task, notes_progress


class AlreadyOngoingError(RenderbellError):
    """The owner already watches this provider task; `task_id` is the running one."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"already registered as {task_id}")
        self.task_id = task_id


class Tasks(Partition):
    """Tasks, their requests and their ongoing markers."""

    def register(self, task: Task, request: Request) -> None:
        """Writes a new task, its request and its ongoing marker; raises `AlreadyOngoingError` if it is watched."""
        created = time_text(request.created_at)
        record = items.task_attributes(task) | {
            "history": items.history_attributes(task.history),
            "ttl": request.ttl,
        }
        asked = items.request_attributes(request) | {
            "list_pk": f"OWNER#{request.owner}#{task.slot}",
            "list_sk": f"{created}#{task.task_id}",
        }
        marker = _marker_key(task) | {"task_id": task.task_id, "ttl": request.ttl}
        try:
            self._transact(
                self._put(marker, fresh=True, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
                self._put(task_key(task.task_id) | record, fresh=True),
                self._put(_request_key(task.task_id) | asked, fresh=True),
            )
        except CancelledError as error:
            winner = error.items[0]
            if winner is None:
                raise ConflictError("another registration of this render is under way", code="try_again") from error
            raise AlreadyOngoingError(winner["task_id"]) from None

    def watched(self, connection: str, provider_task_id: str) -> Iterator[str]:
        """The tasks that watch a render now, one an owner, read consistently."""
        for marker in self._partition(_marker_partition(connection, provider_task_id)):
            yield marker["task_id"]

    def task(self, task_id: str) -> Task | None:
        """The whole task, read consistently; raises `UnreadableItemError`, as all that reads one item does."""
        return self._one(items.task_from, task_key(task_id))

    def request(self, task_id: str) -> Request | None:
        """What was asked when the task was registered."""
        return self._one(items.request_from, _request_key(task_id))

    def save(self, before: Task, after: Task, deliveries: Sequence[Delivery] = (), *, token: str | None = None) -> Task:
        """Writes what changed between two states of a task, if its version (and its holder's token) still stands.

        One write where only the task changes. A transaction where the provider is done, which also removes the
        ongoing marker, and where deliveries are made. Raises `VersionConflictError`, which carries the winner.

        Progress never falls, whatever was read before. Where nothing else has changed, the version stays, since the
        index shows nothing of it: that costs the one write of the item. Of two who note progress the first one does.
        """
        saved = after if notes_progress(before, after) else replace(after, version=before.version + 1)
        update = self._task_update(before, saved, token)
        done = _is_with_provider(before.status) and not _is_with_provider(after.status)
        if not done and not deliveries:
            try:
                self._unless_busy(self._client.update_item, update)
            except self._client.exceptions.ConditionalCheckFailedException as error:
                item: Any = error.response.get("Item")
                raise _conflict(before.task_id, from_wire(item) if item else None) from None
            return saved
        writes: list[dict[str, Any]] = [{"Update": update}]
        if done:
            writes.append(self._marker_removal(before))
        writes += [self._put(delivery_key(one) | items.delivery_attributes(one)) for one in deliveries]
        self._transact_change(before.task_id, writes)
        return saved

    def delete(self, before: Task, after: Task) -> Task:
        """Writes that a task is deleted, if its version still stands, and removes what others go by: the ongoing
        marker, the request, and its pending deliveries. Raises `VersionConflictError`, which carries the winner.

        No delivery is overlooked, since whoever makes one writes the task too. The task itself is never forgotten
        before `forget` has removed it, because nobody else would know of its files.
        """
        saved = replace(after, version=before.version + 1)
        writes: list[dict[str, Any]] = [{"Update": self._task_update(before, saved, None)}]
        if _is_with_provider(before.status):
            writes.append(self._marker_removal(before))
        own = task_key(before.task_id)
        pending = [item["sk"] for item in self._partition(own["pk"], DELIVERY_PREFIX) if "due_at" in item]
        writes.append(self._delete(_request_key(before.task_id)))
        writes += [self._delete(key_within(before.task_id, sk)) for sk in pending]
        self._transact_change(before.task_id, writes)
        return saved

    def _marker_removal(self, task: Task) -> dict[str, Any]:
        return self._delete(_marker_key(task), mine=("task_id", task.task_id))

    def _transact_change(self, task_id: str, writes: Sequence[dict[str, Any]]) -> None:
        """Writes all or nothing; the first write is the task's, and says whether its version still stood."""
        try:
            self._transact(*writes)
        except CancelledError as error:
            if error.failed[0]:
                raise _conflict(task_id, error.items[0]) from None
            if error.met_another:
                raise VersionConflictError(task_id, self.task(task_id)) from error
            raise

    def _task_update(self, before: Task, after: Task, token: str | None) -> dict[str, Any]:
        change = Change()
        change.between(items.task_attributes(before), items.task_attributes(after))
        lines = after.history[len(before.history) :]
        if lines:
            change.append("history", items.history_attributes(lines))
        if after.step is not before.step or after.deleted:
            change.remove("token", "tries", "begun", "upload", "stored")
        if after.deleted:
            change.remove("ttl")
        conditions = [change.equals("version", before.version)]
        if token is not None:
            conditions.append(change.equals("token", token))
        if after.progress is not None and after.progress != before.progress:
            conditions.append(change.absent_or_at_most("progress", after.progress))
        if after.version == before.version:
            seen = before.progress_at and time_text(before.progress_at)
            conditions.append(change.absent_or_at_most("progress_at", seen) if seen else change.absent("progress_at"))
        return change.update(self._table, task_key(before.task_id), conditions) | {
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD"
        }


def _conflict(task_id: str, item: Mapping[str, Any] | None) -> VersionConflictError:
    return VersionConflictError(task_id, read_item(items.task_from, item) if item else None)


def _request_key(task_id: str) -> Key:
    return key_within(task_id, "REQUEST")


def _marker_key(task: Task) -> Key:
    return {"pk": _marker_partition(task.connection, task.provider_task_id), "sk": task.owner}


def _marker_partition(connection: str, provider_task_id: str) -> str:
    return f"ONGOING#{connection}#{hashlib.sha256(provider_task_id.encode()).hexdigest()}"


def _is_with_provider(status: Status) -> bool:
    return status in {Status.QUEUED, Status.PROCESSING}
