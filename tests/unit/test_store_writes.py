"""What the store does when a write meets another's, or its own that was thought lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from renderbell.delivery import HEALTHY, WELL, Answer, EndpointHealth, ReceiverHealth, ReceiverState, judge
from renderbell.errors import ConflictError, VersionConflictError
from renderbell.expressions import to_wire
from renderbell.store import BUSY_RETRIES, ApiKey, Store, Work, endpoint_of
from renderbell.task import Request, Task, Webhook, advance, cancel, delete
from renderbell.webhooks import deliveries_for
from tests.deployment import in_process_table
from tests.dynamodb import FakeDynamoDB, TransactionCanceledException, TransactionConflictException
from tests.unit.test_task import BORN, DONE, a_task, running

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


class DeathError(Exception):
    """The process dies."""


class BusyTable:
    """A table whose next writes meet another's transaction in flight."""

    exceptions = FakeDynamoDB.exceptions

    def __init__(self, times: int) -> None:
        self._table = in_process_table("table")
        self.times = times
        self.reasons = ["TransactionConflict"]  # why its transactions are cancelled, from the first write on
        self.dies_after: int | None = None  # so many removals, the process dies before the next

    def update_item(self, **call: Any) -> dict[str, Any]:
        if self.times:
            self.times -= 1
            raise TransactionConflictException({"Error": {"Code": "TransactionConflictException"}}, "UpdateItem")
        return self._table.update_item(**call)

    def transact_write_items(self, *, TransactItems: Sequence[Any]) -> dict[str, Any]:  # noqa: N803
        if self.times:
            self.times -= 1
            codes = [*self.reasons, *["None"] * (len(TransactItems) - len(self.reasons))]
            reasons: Any = [{"Code": code} for code in codes]
            raise TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return self._table.transact_write_items(TransactItems=TransactItems)

    def delete_item(self, **call: Any) -> dict[str, Any]:
        if self.times:
            self.times -= 1
            raise TransactionConflictException({"Error": {"Code": "TransactionConflictException"}}, "DeleteItem")
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise DeathError
        return self._table.delete_item(**call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


class Rig:
    """A store over a busy table, with its pauses counted instead of waited for."""

    def __init__(self) -> None:
        self.table = BusyTable(0)
        self.paused_s: list[float] = []
        self.store = Store(cast("DynamoDBClient", self.table), "table", pause=self.paused_s.append)

    @property
    def pauses(self) -> int:
        return len(self.paused_s)

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


@pytest.mark.parametrize("times", [1, BUSY_RETRIES])
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


def test_two_whose_transactions_met_pause_no_longer_than_a_transaction_takes() -> None:
    rig = Rig()
    rig.table.times = BUSY_RETRIES
    rig.registered()
    assert all(0 < pause_s <= 0.05 for pause_s in rig.paused_s)


THROTTLED = [["ThrottlingError"], ["None", "ProvisionedThroughputExceeded"], ["TransactionConflict", "ThrottlingError"]]
A_HASH = ApiKey("key_1", "0" * 64, "team-a", "write", "ci", BORN)


def registration(rig: Rig) -> Callable[[], object]:
    return rig.registered


def end(rig: Rig) -> Callable[[], object]:
    task = rig.registered()
    return lambda: rig.store.save(task, cancel(task, BORN))


def deletion(rig: Rig) -> Callable[[], object]:
    task = rig.registered()
    return lambda: rig.store.delete(task, delete(task, BORN))


def new_key(rig: Rig) -> Callable[[], object]:
    return lambda: rig.store.add_key(A_HASH, 100)


TRANSACTIONS = [registration, end, deletion, new_key]


@pytest.mark.parametrize("reasons", THROTTLED, ids=",".join)
@pytest.mark.parametrize("prepared", TRANSACTIONS)
def test_a_throttled_transaction_is_repeated_after_pauses_that_grow(
    prepared: Callable[[Rig], Callable[[], object]], reasons: list[str]
) -> None:
    rig = Rig()
    write = prepared(rig)
    rig.table.times, rig.table.reasons = BUSY_RETRIES, reasons
    write()
    assert rig.pauses == BUSY_RETRIES
    assert rig.paused_s == sorted(rig.paused_s)
    assert 0.5 <= sum(rig.paused_s) <= 1.5, "a request has 28 s, of which two services that hang may take 24"


@pytest.mark.parametrize("reasons", THROTTLED, ids=",".join)
@pytest.mark.parametrize("prepared", TRANSACTIONS)
def test_a_transaction_that_stays_throttled_ends_with_botocores_error_and_is_no_conflict(
    prepared: Callable[[Rig], Callable[[], object]], reasons: list[str]
) -> None:
    rig = Rig()
    write = prepared(rig)
    rig.table.times, rig.table.reasons = 100, reasons
    with pytest.raises(TransactionCanceledException):
        write()
    assert rig.table.times == 100 - BUSY_RETRIES - 1


@pytest.mark.parametrize("reason", ["ValidationError", "ItemCollectionSizeLimitExceeded", "None"])
@pytest.mark.parametrize("prepared", TRANSACTIONS)
def test_a_transaction_that_can_never_be_written_ends_with_botocores_error_at_once(
    prepared: Callable[[Rig], Callable[[], object]], reason: str
) -> None:
    rig = Rig()
    write = prepared(rig)
    rig.table.times, rig.table.reasons = 100, [reason]
    with pytest.raises(TransactionCanceledException):
        write()
    assert (rig.table.times, rig.pauses) == (99, 0)


def test_a_failed_condition_is_not_repeated_though_another_write_was_throttled() -> None:
    rig = Rig()
    rig.table.times, rig.table.reasons = 100, ["ConditionalCheckFailed", "ThrottlingError"]
    with pytest.raises(ConflictError):
        rig.registered()
    assert rig.table.times == 99


def deleted_with_remains(rig: Rig) -> Work:
    """The claimed work of a deleted task that two deliveries are left of."""
    task = rig.registered()
    request = replace(request_of(task), webhooks=(Webhook("https://a.example", ("task.cancelled",)),))
    made = deliveries_for(cancel(task, BORN), request, "task.cancelled", BORN)
    made = (*made, *(replace(one, endpoint_id="url_2") for one in made))
    ended = rig.store.save(task, cancel(task, BORN), made)
    for one in made:
        held = rig.store.claim_delivery(one, "d", None)
        assert held is not None
        assert rig.store.finish_delivery(held, judge(held, Answer(204), BORN, 0.5))
    rig.store.delete(ended, delete(ended, BORN))
    work = rig.store.work(task.task_id)
    assert work is not None
    held_work = rig.store.claim_work(work, "t1", None)
    assert held_work is not None
    return held_work


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_clean_up_that_dies_between_two_removals_is_gone_on_with_by_the_next_claim(removed: int) -> None:
    rig = Rig()
    held = deleted_with_remains(rig)
    rig.table.dies_after = removed
    with pytest.raises(DeathError):
        rig.store.forget(held)
    rig.table.dies_after = None
    assert len(rig.table.items()) == 3 - removed
    work = rig.store.work(held.task.task_id)
    assert work is not None, "the task's own item goes last"
    again = rig.store.claim_work(work, "t2", None)
    assert again is not None
    rig.store.forget(again)
    assert rig.table.items() == []


def test_a_removal_that_meets_anothers_transaction_is_repeated_after_a_pause() -> None:
    rig = Rig()
    held = deleted_with_remains(rig)
    rig.table.times = 2
    rig.store.forget(held)
    assert rig.table.items() == []
    assert rig.pauses == 2


def test_a_deletion_that_meets_others_again_and_again_is_a_lost_race_with_the_present_state() -> None:
    rig = Rig()
    task = rig.registered()
    rig.table.times = 100
    with pytest.raises(VersionConflictError) as caught:
        rig.store.delete(task, delete(task, BORN))
    assert caught.value.current == task


def test_a_deleted_task_does_not_expire_before_its_files_are_removed() -> None:
    rig = Rig()
    task = rig.registered()
    (kept,) = [item for item in rig.table.items() if item["sk"]["S"] == "TASK"]
    assert "ttl" in kept
    rig.store.delete(task, delete(task, BORN))
    (kept,) = rig.table.items()
    assert (kept["sk"]["S"], "ttl" in kept) == ("TASK", False)


def test_a_delivery_that_cannot_be_read_is_due_no_more_once_its_task_is_deleted() -> None:
    rig = Rig()
    task = rig.registered()
    broken = {"pk": f"TASK#{task.task_id}", "sk": "DELIVERY#task.completed#url_1", "due_at": "soon", "state": "?"}
    rig.table.put_item(TableName="table", Item=to_wire(broken))
    rig.store.delete(task, delete(task, BORN))
    assert [item["sk"]["S"] for item in rig.table.items()] == ["TASK"]


@pytest.mark.parametrize(
    ("sk", "endpoint_id"),
    [
        ("DELIVERY#task.completed#url_1", "url_1"),
        ("DELIVERY#task.completed", None),
        ("DELIVERY#task.completed#", None),
        ("ATTEMPT#2026-11-22T08:00:00.000000Z#url_1#task.completed", None),
        ("TASK", None),
    ],
)
def test_a_deliverys_key_names_its_endpoint(sk: str, endpoint_id: str | None) -> None:
    assert endpoint_of(sk) == endpoint_id


def test_a_receiver_that_fails_is_forgotten_after_a_month() -> None:
    rig = Rig()
    rig.store.note_receiver_health("o", "a.example", WELL, ReceiverHealth(ReceiverState.SLOW), now=BORN, token="t")
    (item,) = rig.table.items()
    assert item["ttl"] == {"N": f"{int((BORN + timedelta(days=30)).timestamp())}"}


class _Unserved:
    """A table that leaves all but one of the keys of a batch for another call, so many times."""

    def __init__(self, times: int) -> None:
        self._table = in_process_table("table")
        self.times = times
        self.asked: list[int] = []

    def batch_get_item(self, *, RequestItems: Any) -> dict[str, Any]:  # noqa: N803
        keys = RequestItems["table"]["Keys"]
        self.asked.append(len(keys))
        served = keys[:1] if self.times else keys
        answer = self._table.batch_get_item(RequestItems={"table": {"Keys": served}})
        if self.times and len(keys) > 1:
            answer["UnprocessedKeys"] = {"table": {"Keys": keys[1:]}}
        self.times -= 1 if self.times else 0
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


@pytest.mark.parametrize(
    ("times", "asked", "failing"),
    [
        (0, [9], 9),
        (2, [9, 8, 7], 9),
        (99, [9, 8, 7, 6, 5], 5),  # the others count as well
    ],
)
def test_endpoints_that_a_batch_leaves_unread_are_asked_for_again_a_few_times(
    times: int, asked: list[int], failing: int
) -> None:
    table, paused_s = _Unserved(times), list[float]()
    store = Store(cast("DynamoDBClient", table), "table", pause=paused_s.append)
    endpoints = [f"url_{number}" for number in range(9)]
    for endpoint in endpoints:
        store.note_endpoint_health("o", endpoint, HEALTHY, EndpointHealth(BORN), "t")
    assert len(store.failing_endpoints("o", endpoints)) == failing
    assert table.asked == asked
    assert len(paused_s) == len(asked) - 1
    assert all(0.05 <= pause_s <= 0.8 for pause_s in paused_s)


def test_no_room_of_the_store_hides_what_another_has() -> None:
    rooms = [set(vars(one)) for one in Store.__mro__ if one not in (Store, object)]
    names = [name for room in rooms for name in room if not (name.startswith("__") and name.endswith("__"))]
    assert len(names) == len(set(names))
