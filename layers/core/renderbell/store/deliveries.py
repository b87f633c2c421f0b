"""Deliveries: who may attempt one, what became of it, and the record of every attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from renderbell import items
from renderbell.delivery import TEST_EVENT, Attempt, Delivery, DeliveryState
from renderbell.expressions import Change, Key, just_below, to_wire
from renderbell.items import time_text
from renderbell.store.partition import Partition, key_within

DELIVERY_PREFIX = "DELIVERY#"
ATTEMPT_PREFIX = "ATTEMPT#"


def delivery_key(delivery: Delivery) -> Key:
    """The key of a delivery's item."""
    if delivery.event == TEST_EVENT:
        return {"pk": f"OWNER#{delivery.owner}", "sk": f"{DELIVERY_PREFIX}{_test_of(delivery)}"}
    return key_within(delivery.task_id, f"{DELIVERY_PREFIX}{delivery.event}#{delivery.endpoint_id}")


def endpoint_of(sk: str) -> str | None:
    """The endpoint that a delivery's key names, so that none need be read to know it; None for other keys."""
    kind, _, endpoint_id = (*sk.split("#"), "", "")[:3]
    return endpoint_id or None if kind == "DELIVERY" else None


class Deliveries(Partition):
    """A task's deliveries and their attempts."""

    def deliveries(self, task_id: str) -> tuple[Delivery, ...]:
        """All deliveries of a task, read consistently; one that cannot be read is left out."""
        return self._all(items.delivery_from, f"TASK#{task_id}", DELIVERY_PREFIX)

    def newest_tests(self, owner: str, endpoint_id: str, most: int = 1) -> tuple[Delivery, ...]:
        """At most so many tests of an endpoint, newest first, read consistently; what cannot be read is left out."""
        prefix = f"{DELIVERY_PREFIX}{TEST_EVENT}#{endpoint_id}#"
        found = self._first(
            most,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues=to_wire({":pk": f"OWNER#{owner}", ":prefix": prefix}),
            ConsistentRead=True,
            ScanIndexForward=False,
        )
        return self._readable(items.delivery_from, found)

    def put_delivery(self, delivery: Delivery) -> tuple[str, str]:
        """Writes a delivery that belongs to no task's transition, the test of an endpoint; answers its key."""
        key = delivery_key(delivery)
        self._client.put_item(TableName=self._table, Item=to_wire(key | items.delivery_attributes(delivery)))
        return key["pk"], key["sk"]

    def delivery(self, pk: str, sk: str) -> Delivery | None:
        """One delivery by its key, read consistently; raises `UnreadableItemError`."""
        return self._one(items.delivery_from, {"pk": pk, "sk": sk})

    def claim_delivery(self, seen: Delivery, token: str, until: datetime | None) -> Delivery | None:
        """Claims a pending delivery as it was seen, counting the try; None if it changed meanwhile.

        `until` is the claim's end; None leaves `due_at` as it stands.
        """
        resumes = None if seen.token is not None else seen.resumes  # the owner asked for the one that ran out
        claimed = replace(seen, token=token, tries=seen.tries + 1, due_at=until or seen.due_at, resumes=resumes)
        return claimed if self._change_delivery(seen, claimed, mine=("token", token)) else None

    def finish_delivery(self, held: Delivery, after: Delivery) -> bool:
        """Writes what an attempt made of a delivery; False if the claim was lost meanwhile."""
        return self._change_delivery(held, after)

    def given_up(self, endpoint_id: str, since: datetime) -> Iterator[tuple[str, str]]:
        """The keys of an endpoint's deliveries that were given up since a time, the oldest first.

        Read from the index, which lags: one of them may be pending again.
        """
        values = {":pk": f"FAILED#{endpoint_id}", ":since": time_text(since)}
        condition = "list_pk = :pk AND list_sk >= :since"
        for item in self._query(
            IndexName="list", KeyConditionExpression=condition, ExpressionAttributeValues=to_wire(values)
        ):
            yield item["pk"], item["sk"]

    def reopen_delivery(self, seen: Delivery, after: Delivery) -> bool:
        """Writes that a delivery which nobody is sending is to be sent; False if it changed meanwhile."""
        return self._change_delivery(seen, after, state=seen.state)

    def _change_delivery(
        self,
        seen: Delivery,
        after: Delivery,
        *,
        mine: tuple[str, str] | None = None,
        state: DeliveryState = DeliveryState.PENDING,
    ) -> bool:
        change = Change()
        conditions = [
            change.equals("state", state.value),
            change.equals("tries", seen.tries),
            change.as_seen("token", seen.token),
            change.as_seen("resumes", seen.resumes and seen.resumes.value),
        ]
        change.between(items.delivery_attributes(seen), items.delivery_attributes(after))
        if after.recoverable:
            change.set("list_pk", f"FAILED#{after.endpoint_id}")
            change.set("list_sk", time_text(after.last_attempt_at or after.created_at))
        elif seen.recoverable:
            change.remove("list_pk", "list_sk")
        return self._applies(delivery_key(seen), change, conditions, mine=mine)

    def put_attempt(self, attempt: Attempt, ttl: int | None) -> None:
        """Records an attempt."""
        item = _attempt_key(attempt) | items.attempt_attributes(attempt) | ({} if ttl is None else {"ttl": ttl})
        self._client.put_item(TableName=self._table, Item=to_wire(item))

    def remove_attempt(self, attempt: Attempt) -> None:
        """Removes the record of an attempt."""
        self._removes(_attempt_key(attempt))

    def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        """All attempts for a task, oldest first; one that cannot be read is left out."""
        return self._all(items.attempt_from, f"TASK#{task_id}", ATTEMPT_PREFIX)

    def attempts_of(self, delivery: Delivery) -> tuple[Attempt, ...]:
        """All attempts of one delivery, oldest first; one that cannot be read is left out."""
        if delivery.event == TEST_EVENT:
            return self._all(items.attempt_from, f"OWNER#{delivery.owner}", f"{ATTEMPT_PREFIX}{_test_of(delivery)}#")
        mine = (delivery.event, delivery.endpoint_id)
        return tuple(one for one in self.attempts(delivery.task_id) if (one.event, one.endpoint_id) == mine)

    def newest_attempts(
        self, task_id: str, most: int, before: str | None = None
    ) -> tuple[tuple[Attempt, ...], str | None]:
        """At most so many attempts for a task, newest first, all behind a place, and the place behind them (None:
        there are no more); one that cannot be read is left out."""
        high = f"{ATTEMPT_PREFIX}~" if before is None else just_below(ATTEMPT_PREFIX + before)
        values = {":pk": f"TASK#{task_id}", ":low": ATTEMPT_PREFIX, ":high": high}
        found = self._first(
            most + 1,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
            ExpressionAttributeValues=to_wire(values),
            ConsistentRead=True,
            ScanIndexForward=False,
        )
        shown = found[:most]
        behind = shown[-1]["sk"].removeprefix(ATTEMPT_PREFIX) if len(found) > most else None
        return self._readable(items.attempt_from, shown), behind


def _test_of(one: Delivery | Attempt) -> str:
    return f"{TEST_EVENT}#{one.endpoint_id}#{one.task_id}"


def _attempt_key(attempt: Attempt) -> Key:
    if attempt.event == TEST_EVENT:
        sk = f"{ATTEMPT_PREFIX}{_test_of(attempt)}#{time_text(attempt.at)}"
        return {"pk": f"OWNER#{attempt.owner}", "sk": sk}
    return key_within(attempt.task_id, f"{ATTEMPT_PREFIX}{time_text(attempt.at)}#{attempt.endpoint_id}#{attempt.event}")
