"""What the store does when a write meets another's, or its own that was thought lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from renderbell.errors import ConflictError, VersionConflictError
from renderbell.store import CONFLICT_RETRIES, Store
from renderbell.task import Request, Task, advance, cancel
from tests.deployment import in_process_table
from tests.dynamodb import FakeDynamoDB, TransactionCanceledException, TransactionConflictException
from tests.unit.test_task import BORN, DONE, a_task, running

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


class BusyTable:
    """A table whose next writes meet another's transaction in flight."""

    exceptions = FakeDynamoDB.exceptions

    def __init__(self, times: int) -> None:
        self._table = in_process_table("table")
        self.times = times

    def update_item(self, **call: Any) -> dict[str, Any]:
        if self.times:
            self.times -= 1
            raise TransactionConflictException({"Error": {"Code": "TransactionConflictException"}}, "UpdateItem")
        return self._table.update_item(**call)

    def transact_write_items(self, *, TransactItems: Sequence[Any]) -> dict[str, Any]:  # noqa: N803
        if self.times:
            self.times -= 1
            reasons: Any = [{"Code": "TransactionConflict"}, *[{"Code": "None"}] * (len(TransactItems) - 1)]
            raise TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return self._table.transact_write_items(TransactItems=TransactItems)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


class Rig:
    """A store over a busy table, with its pauses counted instead of waited for."""

    def __init__(self) -> None:
        self.table = BusyTable(0)
        self.pauses = 0
        self.store = Store(cast("DynamoDBClient", self.table), "table", pause=self._pause)

    def _pause(self) -> None:
        self.pauses += 1

    def registered(self) -> Task:
        task = a_task()
        self.store.register(task, request_of(task))
        return task


def request_of(task: Task) -> Request:
    return Request(
        task_id=task.task_id,
        owner=task.owner,
        created_at=BORN,
        deadline_s=3600,
        base_url="https://api.example.com/v1",
        ttl=int((BORN + timedelta(days=40)).timestamp()),
    )


@pytest.mark.parametrize("times", [1, CONFLICT_RETRIES])
def test_a_write_that_meets_anothers_transaction_is_repeated_after_a_pause(times: int) -> None:
    rig = Rig()
    task = rig.registered()
    rig.table.times = times
    saved = rig.store.save(task, advance(task, running(10), BORN))
    assert rig.store.task(task.task_id) == saved
    assert rig.pauses == times


def test_a_transaction_that_meets_anothers_is_repeated_after_a_pause() -> None:
    rig = Rig()
    task = rig.registered()
    rig.table.times = 2
    saved = rig.store.save(task, cancel(task, BORN))
    assert rig.store.task(task.task_id) == saved
    assert rig.pauses == 2


def test_a_transaction_that_meets_others_again_and_again_is_a_lost_race_with_the_present_state() -> None:
    rig = Rig()
    task = rig.registered()
    rig.table.times = 100
    with pytest.raises(VersionConflictError) as caught:
        rig.store.save(task, advance(task, DONE, BORN))
    assert caught.value.current == task


def test_a_registration_that_meets_others_again_and_again_may_be_tried_again() -> None:
    rig = Rig()
    rig.table.times = 100
    with pytest.raises(ConflictError) as caught:
        rig.registered()
    assert caught.value.code == "try_again"
