"""An in-process DynamoDB: as much of it as the store uses, with its conditions, transactions and indexes.

It passes the store's contract suite beside the emulator, and is fast enough to run thousands of scenarios. What the
store does not use is refused loudly, so that it cannot be got wrong silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from threading import RLock
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

Item = dict[str, Any]  # attributes in wire form: {"pk": {"S": "…"}}
Index = tuple[str, str, frozenset[str]]  # hash key, range key, what is projected besides

PAGE_BYTES = 1024 * 1024
MAX_ITEM_BYTES = 400 * 1024
MAX_ACTIONS = 100
MAX_READ_AT_ONCE = 100


class ConditionalCheckFailedException(ClientError):  # noqa: N818 - botocore's name
    """A condition did not hold."""


class TransactionCanceledException(ClientError):  # noqa: N818 - botocore's name
    """A transaction's condition did not hold."""


class TransactionConflictException(ClientError):  # noqa: N818 - botocore's name
    """Another transaction was in flight; never raised here, where writes follow one another."""


class FakeDynamoDB:
    """One table with a `pk`, an `sk` and sparse indexes.

    Nobody changes an attribute's value in place, so copies of items are shallow.
    """

    exceptions = SimpleNamespace(
        ConditionalCheckFailedException=ConditionalCheckFailedException,
        TransactionCanceledException=TransactionCanceledException,
        TransactionConflictException=TransactionConflictException,
    )

    def __init__(self, table: str, indexes: Mapping[str, Index]) -> None:
        self._table = table
        self._indexes = indexes
        self._items: dict[tuple[str, str], Item] = {}
        self._partitions: dict[str, dict[str, Item]] = {}  # the same items, by pk and sk
        self._lock = RLock()

    def items(self) -> list[Item]:
        """All items, for assertions."""
        with self._lock:
            return [dict(item) for item in self._items.values()]

    # -- the operations -----------------------------------------------------------------------------------------------

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool = False) -> dict[str, Any]:  # noqa: N803
        """One item by its key."""
        self._check_table(TableName)
        with self._lock:
            item = self._items.get(_key(Key))
            return {} if item is None else {"Item": dict(item)}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        """Those of up to 100 items that are there, in no order that may be relied on."""
        ((table, asked),) = RequestItems.items()
        self._check_table(table)
        if not {"Keys"} <= set(asked) <= {"Keys", "ConsistentRead"}:
            raise _validation(f"not supported here: {sorted(asked)}")
        keys = [_key(key) for key in asked["Keys"]]
        if not 1 <= len(keys) <= MAX_READ_AT_ONCE:
            raise _validation("Member must have length between 1 and 100")
        if len(set(keys)) != len(keys):
            raise _validation("Provided list of item keys contains duplicates")
        with self._lock:
            found = [dict(self._items[key]) for key in reversed(keys) if key in self._items]
        return {"Responses": {table: found}, "UnprocessedKeys": {}}

    def put_item(self, *, TableName: str, Item: Item) -> dict[str, Any]:  # noqa: N803
        """Writes an item whole."""
        self._check_table(TableName)
        with self._lock:
            self._write(_key(Item), dict(Item))
        return {}

    def delete_item(self, **call: Any) -> dict[str, Any]:
        """Removes an item, if it is there and its condition holds."""
        with self._lock:
            old = self._items.get(_key(call["Key"]))
            if not self._holds(call, old):
                raise self._refused("DeleteItem", call, old)
            self._remove(_key(call["Key"]))
        return {}

    def update_item(self, **call: Any) -> dict[str, Any]:
        """Changes some attributes of an item, if its condition holds."""
        with self._lock:
            old = self._items.get(_key(call["Key"]))
            if not self._holds(call, old):
                raise self._refused("UpdateItem", call, old)
            self._apply_update(call, old)
            if call.get("ReturnValues") == "ALL_NEW":
                return {"Attributes": self._items[_key(call["Key"])]}
        return {}

    def transact_write_items(self, *, TransactItems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Writes all or nothing."""
        if len(TransactItems) > MAX_ACTIONS:
            raise _validation("Member must have length less than or equal to 100")
        actions = [(kind, call) for action in TransactItems for kind, call in action.items()]
        keys = [_key(call["Item"] if kind == "Put" else call["Key"]) for kind, call in actions]
        if len(set(keys)) != len(keys):
            raise _validation("Transaction request cannot include multiple operations on one item")
        with self._lock:
            olds = [self._items.get(key) for key in keys]
            held = [self._holds(call, old) for (_, call), old in zip(actions, olds, strict=True)]
            if not all(held):
                reasons = [
                    {"Code": "None"} if fine else {"Code": "ConditionalCheckFailed", **self._shown(call, old)}
                    for fine, (_, call), old in zip(held, actions, olds, strict=True)
                ]
                raise TransactionCanceledException(
                    {
                        "Error": {"Code": "TransactionCanceledException", "Message": "Transaction cancelled"},
                        "CancellationReasons": reasons,  # type: ignore[typeddict-item]
                    },
                    "TransactWriteItems",
                )
            for (kind, call), key, old in zip(actions, keys, olds, strict=True):
                match kind:
                    case "Put":
                        self._write(key, dict(call["Item"]))
                    case "Delete":
                        self._remove(key)
                    case "Update":
                        self._apply_update(call, old)
                    case _:
                        raise _validation(f"not supported here: {kind}")
        return {}

    def query(
        self,
        *,
        TableName: str,  # noqa: N803
        KeyConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: Item,  # noqa: N803
        IndexName: str | None = None,  # noqa: N803
        ConsistentRead: bool = False,  # noqa: N803
        ExclusiveStartKey: Item | None = None,  # noqa: N803
        ScanIndexForward: bool = True,  # noqa: N803
        Limit: int | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """A page of items with one hash key, in the order of the range key or against it."""
        self._check_table(TableName)
        if Limit is not None and Limit < 1:
            raise _validation("Limit must be greater than or equal to 1")
        if IndexName is not None and ConsistentRead:
            raise _validation("Consistent reads are not supported on global secondary indexes")
        hash_name, range_name, shown = self._indexes[IndexName] if IndexName else ("pk", "sk", None)
        with self._lock:
            condition = _compiled_condition(KeyConditionExpression)
            condition.check({}, ExpressionAttributeValues)
            low, high = _bounds(KeyConditionExpression, ExpressionAttributeValues)
            if low > high:
                raise _validation(
                    "The BETWEEN operator requires upper bound to be greater than or equal to lower bound"
                )
            hashed = ExpressionAttributeValues[KeyConditionExpression.split()[2]]  # nearly all items are left out here
            found = [
                item
                for item in self._candidates(IndexName, hash_name, hashed)
                if range_name in item and condition.test(item, {}, ExpressionAttributeValues)
            ]
            if not found:
                return {"Items": []}

            def place(item: Item) -> tuple[Any, ...]:
                return tuple(_plain(item[name]) for name in (range_name, "pk", "sk"))

            found.sort(key=place, reverse=not ScanIndexForward)
            if ExclusiveStartKey is not None:
                start = place(ExclusiveStartKey)
                found = [item for item in found if (place(item) > start if ScanIndexForward else place(item) < start)]
            keys = {hash_name, range_name, "pk", "sk"}
            most = len(found) + 1 if Limit is None else Limit
            if len(found) * MAX_ITEM_BYTES < PAGE_BYTES and len(found) < most:
                return {"Items": [_projected(item, keys, shown) for item in found]}
            page, size = [], 0
            for item in found:
                page.append(_projected(item, keys, shown))
                size += _size(page[-1])
                if size > PAGE_BYTES or len(page) == most:
                    last = {name: item[name] for name in keys}
                    return {"Items": page, "LastEvaluatedKey": last}
            return {"Items": page}

    # -- below the operations -----------------------------------------------------------------------------------------

    def _candidates(self, index: str | None, hash_name: str, hashed: Any) -> Iterable[Item]:
        """The items with a hash key, and nothing said of their order."""
        if index is None:
            return self._partitions.get(hashed["S"], {}).values()
        return [item for item in self._items.values() if item.get(hash_name) == hashed]

    def _check_table(self, name: str) -> None:
        if name != self._table:
            raise _validation(f"no table {name}")

    def _holds(self, call: Mapping[str, Any], old: Item | None) -> bool:
        self._check_table(call["TableName"])
        if "ConditionExpression" not in call:
            return True
        names, values = call.get("ExpressionAttributeNames", {}), call.get("ExpressionAttributeValues", {})
        condition = _compiled_condition(call["ConditionExpression"])
        condition.check(names, values)
        return condition.test(old or {}, names, values)

    def _refused(self, operation: str, call: Mapping[str, Any], old: Item | None) -> ConditionalCheckFailedException:
        error = {"Code": "ConditionalCheckFailedException", "Message": "The conditional request failed"}
        answer: Any = {"Error": error, **self._shown(call, old)}
        return ConditionalCheckFailedException(answer, operation)

    @staticmethod
    def _shown(call: Mapping[str, Any], old: Item | None) -> dict[str, Any]:
        if old is None or call.get("ReturnValuesOnConditionCheckFailure") != "ALL_OLD":
            return {}
        return {"Item": dict(old)}

    def _apply_update(self, call: Mapping[str, Any], old: Item | None) -> None:
        names, values = call.get("ExpressionAttributeNames", {}), call.get("ExpressionAttributeValues", {})
        before = old if old is not None else call["Key"]
        new = dict(before)
        update = _compiled_update(call["UpdateExpression"])
        update.check(names, values)
        for action in update.actions:
            action(before, new, names, values)
        used = update.places
        if "ConditionExpression" in call:
            used = used | _compiled_condition(call["ConditionExpression"]).places
        for place in [*names, *values]:
            if place not in used:
                raise _validation(f"unused in expressions: {place}")
        self._write(_key(call["Key"]), new)

    def _write(self, key: tuple[str, str], item: Item) -> None:
        if _size(item) > MAX_ITEM_BYTES:
            raise _validation("Item size has exceeded the maximum allowed size")
        for hash_name, range_name, _ in self._indexes.values():
            for name in (hash_name, range_name):
                if name in item and _plain(item[name]) == "":
                    raise _validation(f"an index key must not be empty: {name}")
        self._items[key] = item
        self._partitions.setdefault(key[0], {})[key[1]] = item

    def _remove(self, key: tuple[str, str]) -> None:
        if self._items.pop(key, None) is not None:
            del self._partitions[key[0]][key[1]]


_WORD = re.compile(r"\s*([#:]?[A-Za-z_][\w-]*|<=|>=|<>|[(),=<>])")


@cache
def _words(text: str) -> tuple[str, ...]:
    words: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        match = _WORD.match(text, position)
        if match is None:
            raise _validation(f"cannot read {text[position:]!r}")
        words.append(match.group(1))
        position = match.end()
    return tuple(words)


Names = Mapping[str, str]
Test = Callable[[Item, Names, Item], bool]  # of an item, with what the placeholders stand for
Operand = Callable[[Item, Names, Item], Any]
Action = Callable[[Item, Item, Names, Item], None]  # takes the item before all actions, and the one it changes


@dataclass(frozen=True)
class _Compiled:
    """What all expressions have: the placeholders that stand in them."""

    places: frozenset[str]

    def check(self, names: Names, values: Item) -> None:
        """Refuses a call that leaves a placeholder without a meaning."""
        for place in self.places:
            if place not in (names if place[0] == "#" else values):
                raise _validation(f"no value for {place}")


@dataclass(frozen=True)
class _Condition(_Compiled):
    test: Test


@dataclass(frozen=True)
class _Update(_Compiled):
    actions: tuple[Action, ...]


@cache
def _compiled_condition(text: str) -> _Condition:
    return _Condition(_places(text), _Expression(text).condition())


@cache
def _compiled_update(text: str) -> _Update:
    return _Update(_places(text), tuple(_Expression(text).updates()))


def _places(text: str) -> frozenset[str]:
    return frozenset(word for word in _words(text) if word[0] in "#:")


class _Expression:
    """A condition or update expression: a small recursive descent over its words.

    It is compiled once for all calls that use it; they differ in what its placeholders stand for.
    """

    def __init__(self, text: str) -> None:
        self._words = list(_words(text))

    def condition(self) -> Test:
        """The expression as a test of an item."""
        test = self._or()
        if self._words:
            raise _validation(f"left over: {self._words}")
        return test

    def updates(self) -> Iterator[Action]:
        """The expression's actions."""
        while self._words:
            clause = self._take()
            while True:
                name = self._name(self._take())
                if clause == "SET":
                    self._expect("=")
                    yield _setter(name, self._operand())
                elif clause == "REMOVE":
                    yield _remover(name)
                elif clause == "ADD":
                    yield _adder(name, self._value(self._take()))
                else:
                    raise _validation(f"not supported here: {clause}")
                if not self._words or self._words[0] != ",":
                    break
                self._take()

    def _or(self) -> Test:
        tests = [self._and()]
        while self._words and self._words[0] == "OR":
            self._take()
            tests.append(self._and())
        if len(tests) == 1:
            return tests[0]
        return lambda item, names, values: any(test(item, names, values) for test in tests)

    def _and(self) -> Test:
        tests = [self._test()]
        while self._words and self._words[0] == "AND":
            self._take()
            tests.append(self._test())
        if len(tests) == 1:
            return tests[0]
        return lambda item, names, values: all(test(item, names, values) for test in tests)

    def _test(self) -> Test:
        word = self._take()
        if word == "(":
            inner = self._or()
            self._expect(")")
            return inner
        if word == "attribute_not_exists":
            self._expect("(")
            absent = self._name(self._take())
            self._expect(")")
            return lambda item, names, values: names.get(absent, absent) not in item
        if word == "begins_with":
            self._expect("(")
            begun = self._name(self._take())
            self._expect(",")
            prefix = self._value(self._take())
            self._expect(")")

            def begins(item: Item, names: Names, values: Item) -> bool:
                name = names.get(begun, begun)
                return name in item and str(_plain(item[name])).startswith(_plain(values[prefix]))

            return begins
        return self._comparison(self._name(word))

    def _comparison(self, word: str) -> Test:
        operator = self._take()
        place = self._value(self._take())

        def equals(item: Item, names: Names, values: Item) -> bool:
            name = names.get(word, word)
            return name in item and item[name] == values[place]

        def at_most(item: Item, names: Names, values: Item) -> bool:
            name = names.get(word, word)
            return name in item and _plain(item[name]) <= _plain(values[place])

        def at_least(item: Item, names: Names, values: Item) -> bool:
            name = names.get(word, word)
            return name in item and _plain(item[name]) >= _plain(values[place])

        match operator:
            case "=":
                return equals
            case ">=":
                return at_least
            case "<=":
                return at_most
            case "BETWEEN":
                self._expect("AND")
                high = self._value(self._take())

                def between(item: Item, names: Names, values: Item) -> bool:
                    name = names.get(word, word)
                    return name in item and _plain(values[place]) <= _plain(item[name]) <= _plain(values[high])

                return between
        raise _validation(f"not supported here: {operator}")

    def _operand(self) -> Operand:
        word = self._take()
        if word.startswith(":"):
            return lambda item, names, values: values[word]
        if word == "if_not_exists":
            self._expect("(")
            asked = self._name(self._take())
            self._expect(",")
            default = self._operand()
            self._expect(")")

            def or_default(item: Item, names: Names, values: Item) -> Any:
                name = names.get(asked, asked)
                return item[name] if name in item else default(item, names, values)

            return or_default
        if word == "list_append":
            self._expect("(")
            first = self._operand()
            self._expect(",")
            second = self._operand()
            self._expect(")")
            return lambda item, names, values: {"L": first(item, names, values)["L"] + second(item, names, values)["L"]}
        raise _validation(f"not supported here: {word}")

    def _take(self) -> str:
        if not self._words:
            raise _validation("the expression ends too soon")
        return self._words.pop(0)

    def _expect(self, word: str) -> None:
        if (found := self._take()) != word:
            raise _validation(f"{found!r} where {word!r} belongs")

    @staticmethod
    def _name(word: str) -> str:
        """An attribute's name, or a placeholder for one."""
        if word in _RESERVED:
            raise _validation(f"reserved: {word}")
        return word

    @staticmethod
    def _value(word: str) -> str:
        """A placeholder for a value."""
        if not word.startswith(":"):
            raise _validation(f"no value for {word}")
        return word


_RESERVED = frozenset({"status", "ttl", "owner", "connection", "state", "until", "error", "url", "key", "token"})


def _setter(word: str, operand: Operand) -> Action:
    def act(before: Item, item: Item, names: Names, values: Item) -> None:
        item[names.get(word, word)] = operand(before, names, values)

    return act


def _adder(word: str, place: str) -> Action:
    def act(before: Item, item: Item, names: Names, values: Item) -> None:
        name = names.get(word, word)
        old, more = before.get(name, {"N": "0"}), values[place]
        if set(more) != {"N"}:
            raise _validation("not supported here: ADD to what is no number")
        if set(old) != {"N"}:
            raise _validation("An operand in the update expression has an incorrect data type")
        item[name] = {"N": str(Decimal(old["N"]) + Decimal(more["N"]))}

    return act


def _remover(word: str) -> Action:
    def act(before: Item, item: Item, names: Names, values: Item) -> None:
        item.pop(names.get(word, word), None)

    return act


def _key(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _plain(value: Any) -> Any:
    if "S" in value:
        return value["S"]
    ((kind, content),) = value.items()
    return Decimal(content) if kind == "N" else content


def _projected(item: Item, keys: set[str], shown: frozenset[str] | None) -> Item:
    if shown is None:
        return dict(item)
    return {name: value for name, value in item.items() if name in shown or name in keys}


def _size(item: Item) -> int:
    return len(repr(item))


def _bounds(condition: str, values: Item) -> tuple[Any, Any]:
    """The bounds of a BETWEEN, which DynamoDB wants in their order; equal ones where there is none."""
    words = condition.split()
    if "BETWEEN" not in words:
        return 0, 0
    at = words.index("BETWEEN")
    return _plain(values[words[at + 1]]), _plain(values[words[at + 3]])


def _validation(message: str) -> ClientError:
    return ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "Fake")
