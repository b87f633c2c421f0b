"""The wire: how one table is read and written, and what becomes of a write that comes at a bad moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from renderbell.errors import RenderbellError
from renderbell.expressions import Change, Key, from_wire, to_wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = Logger()

CONFLICT_PAUSE_S = 0.05  # the most; as long as another's transaction takes
THROTTLED_PAUSES_S = (0.1, 0.2, 0.4, 0.8)  # the most, before each repetition; a request to the API has 28 s
THROTTLED = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})  # as reasons of a cancelled transaction
BUSY_RETRIES = len(THROTTLED_PAUSES_S)
MOST_READ_AT_ONCE = 100  # items, by BatchGetItem


class NotServedError(RenderbellError):
    """DynamoDB did not serve all that was asked for, even after a few calls."""


class CancelledError(RenderbellError):
    """A transaction was cancelled; per write whether its condition failed, and the item that stood there."""

    def __init__(self, error: ClientError) -> None:
        super().__init__("transaction cancelled")
        reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
        self.codes = [reason.get("Code", "None") for reason in reasons]
        self.failed = [code == "ConditionalCheckFailed" for code in self.codes]
        self.items = [from_wire(reason["Item"]) if reason.get("Item") else None for reason in reasons]

    @property
    def throttled(self) -> bool:
        """Whether nothing but AWS's limits is sure to stand in the way; a failed condition stays failed."""
        return not any(self.failed) and not THROTTLED.isdisjoint(self.codes)

    @property
    def met_another(self) -> bool:
        """Whether another's transaction was in flight."""
        return "TransactionConflict" in self.codes

    def __str__(self) -> str:
        return f"transaction cancelled: {', '.join(self.codes)}"


class Table:
    """One table, as every room of the store uses it.

    `pause` waits for so many seconds. What AWS does not serve surfaces as botocore's error.
    """

    def __init__(self, client: DynamoDBClient, table: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._table = table
        self._pause = pause

    # -- reading ----------------------------------------------------------------------------------------------------

    def _get(self, key: Key) -> dict[str, Any] | None:
        answer = self._client.get_item(TableName=self._table, Key=to_wire(key), ConsistentRead=True)
        return from_wire(answer["Item"]) if "Item" in answer else None

    def _batch_get(self, keys: Sequence[Key], *, whole: bool = False) -> Iterator[dict[str, Any]]:
        """Those of the items that are there, in no order, but for what is not served after a few calls.

        `whole` reads consistently, and raises `NotServedError` instead of leaving anything out.
        """
        for first in range(0, len(keys), MOST_READ_AT_ONCE):
            yield from self._batch(keys[first : first + MOST_READ_AT_ONCE], whole)

    def _batch(self, keys: Sequence[Key], whole: bool) -> Iterator[dict[str, Any]]:
        left: Any = {
            self._table: {"Keys": [to_wire(key) for key in keys], **({"ConsistentRead": True} if whole else {})}
        }
        for pause_s in (*THROTTLED_PAUSES_S, None):
            answer = self._client.batch_get_item(RequestItems=left)
            yield from map(from_wire, answer["Responses"].get(self._table, []))
            left = answer.get("UnprocessedKeys")
            if not left:
                return
            if pause_s is not None:
                self._pause(_jittered(pause_s, 0.5))
        number = len(left[self._table]["Keys"])
        if whole:
            raise NotServedError(f"{number} items were not served")
        logger.warning("items not read", extra={"number": number})

    def _first(self, most: int, **query: Any) -> list[dict[str, Any]]:
        """The first items of a query, at most so many; nothing beyond them is read."""
        found: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        while len(found) < most:
            page = self._client.query(TableName=self._table, Limit=most - len(found), **query, **start)
            found += map(from_wire, page["Items"])
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        return found

    def _query(self, **query: Any) -> Iterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            page = self._client.query(TableName=self._table, **query, **start)
            yield from map(from_wire, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _partition(self, pk: str, prefix: str | None = None) -> Iterator[dict[str, Any]]:
        """All items of a partition, or those whose sort key begins so, in its order, read consistently."""
        condition, values = "pk = :pk", {":pk": pk}
        if prefix is not None:
            condition, values = f"{condition} AND begins_with(sk, :prefix)", values | {":prefix": prefix}
        return self._query(
            KeyConditionExpression=condition, ExpressionAttributeValues=to_wire(values), ConsistentRead=True
        )

    # -- the writes of a transaction ----------------------------------------------------------------------------------

    def _put(self, item: Mapping[str, object], *, fresh: bool = False, **more: Any) -> dict[str, Any]:
        """Writes an item; `fresh` demands that none stands there."""
        condition = {"ConditionExpression": "attribute_not_exists(pk)"} if fresh else {}
        return {"Put": {"TableName": self._table, "Item": to_wire(item), **condition, **more}}

    def _delete(self, key: Key, *, mine: tuple[str, object] | None = None) -> dict[str, Any]:
        """Removes an item, as `_removes` does."""
        return {"Delete": self._removal(key, mine)}

    def _transact(self, *writes: Any) -> None:
        """Writes all or nothing; raises `CancelledError` where a condition failed or others were in the way."""
        try:
            self._unless_busy(self._client.transact_write_items, {"TransactItems": writes})
        except self._client.exceptions.TransactionCanceledException as error:
            cancelled = CancelledError(error)
            if cancelled.throttled or not (any(cancelled.failed) or cancelled.met_another):
                raise
            raise cancelled from error

    # -- single writes ------------------------------------------------------------------------------------------------

    def _applies(
        self, key: Key, change: Change, conditions: Sequence[str], *, mine: tuple[str, str] | None = None
    ) -> bool:
        """Changes an item unless a condition fails.

        `mine` is an attribute that only this write can have set: a call that the SDK repeats, because its answer was
        lost, meets its own first try.
        """
        return self._updated(key, change, conditions, mine) is not None

    def _changed(
        self, key: Key, change: Change, conditions: Sequence[str], *, mine: tuple[str, str]
    ) -> dict[str, Any] | None:
        """Changes an item as `_applies` does, and answers it as it stands then; None where a condition failed."""
        return self._updated(key, change, conditions, mine, ReturnValues="ALL_NEW")

    def _updated(
        self, key: Key, change: Change, conditions: Sequence[str], mine: tuple[str, str] | None, **more: str
    ) -> dict[str, Any] | None:
        update = change.update(self._table, key, conditions) | more
        try:
            answer = self._unless_busy(
                self._client.update_item, update | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            found: Any = error.response.get("Item")
            item = from_wire(found) if found else {}
            return item if mine is not None and item.get(mine[0]) == mine[1] else None
        return from_wire(answer.get("Attributes", {}))

    def _removes(self, key: Key, *, mine: tuple[str, object] | None = None) -> bool:
        """Removes an item unless its attribute `mine` has another value.

        One that is absent counts as removed: the SDK repeats a call whose answer was lost.
        """
        try:
            self._unless_busy(self._client.delete_item, self._removal(key, mine))
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _removal(self, key: Key, mine: tuple[str, object] | None) -> dict[str, Any]:
        removal: dict[str, Any] = {"TableName": self._table, "Key": to_wire(key)}
        if mine is not None:
            name, value = mine
            removal |= {
                "ConditionExpression": f"attribute_not_exists(pk) OR #{name} = :{name}",
                "ExpressionAttributeNames": {f"#{name}": name},
                "ExpressionAttributeValues": to_wire({f":{name}": value}),
            }
        return removal

    def _unless_busy(self, write: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Writes, and repeats what only came at a bad moment.

        A write that met another's transaction in flight soon finds it gone. A transaction that is throttled is
        cancelled, which botocore does not repeat as it does a throttled write.
        """
        for most_s in THROTTLED_PAUSES_S:
            try:
                return write(**arguments)
            except self._client.exceptions.TransactionConflictException:
                self._pause(_jittered(CONFLICT_PAUSE_S, 0.2))
            except self._client.exceptions.TransactionCanceledException as error:
                cancelled = CancelledError(error)
                if cancelled.throttled:
                    self._pause(_jittered(most_s, 0.5))
                elif cancelled.met_another:
                    self._pause(_jittered(CONFLICT_PAUSE_S, 0.2))
                else:
                    raise
        return write(**arguments)


def _jittered(most_s: float, least: float) -> float:
    """Not the same pause for two who met; `least` is the share of the most that it is at the least."""
    return most_s * random.uniform(least, 1.0)  # noqa: S311 - no secret depends on it
