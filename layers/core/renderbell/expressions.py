"""DynamoDB's wire form and its update expressions, as they are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

Key = dict[str, str]

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


def to_wire(item: Mapping[str, object]) -> dict[str, Any]:
    """An item as the client sends it."""
    return {name: _serialize(value) for name, value in item.items()}


def from_wire(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as the client answered it."""
    return {name: _deserialize(value) for name, value in item.items()}


def just_below(text: str) -> str:
    """A text that sorts before this one and after all that do: BETWEEN includes its bounds."""
    return f"{text[:-1]}{chr(ord(text[-1]) - 1)}\U0010ffff"


class Change:
    """An update expression and its conditions, as they grow; most methods name one attribute."""

    def __init__(self) -> None:
        self._sets: list[str] = []
        self._removes: list[str] = []
        self._adds: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, object] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing is changed."""
        return not self._sets and not self._removes and not self._adds

    def set(self, name: str, value: object) -> None:
        """Sets an attribute."""
        self._sets.append(f"{self._name(name)} = {self._value(value)}")

    def set_once(self, name: str, value: object) -> None:
        """Sets an attribute that is not there yet."""
        path = self._name(name)
        self._sets.append(f"{path} = if_not_exists({path}, {self._value(value)})")

    def append(self, name: str, values: list[Any]) -> None:
        """Appends to a list, which may not be there yet."""
        path = self._name(name)
        self._sets.append(f"{path} = list_append(if_not_exists({path}, {self._value([])}), {self._value(values)})")

    def add(self, name: str, number: int) -> None:
        """Adds to a number, which is 0 where it is not there yet."""
        self._adds.append(f"{self._name(name)} {self._value(number)}")

    def remove(self, *names: str) -> None:
        """Removes attributes."""
        self._removes += [self._name(name) for name in names]

    def between(self, old: Mapping[str, object], new: Mapping[str, object]) -> None:
        """Sets and removes what differs between two states of an item."""
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                self.remove(name)
            elif old.get(name) != new[name]:
                self.set(name, new[name])

    def equals(self, name: str, value: object) -> str:
        """The condition that an attribute has a value."""
        return f"{self._name(name)} = {self._value(value)}"

    def absent(self, name: str) -> str:
        """The condition that an attribute is not there."""
        return f"attribute_not_exists({self._name(name)})"

    def as_seen(self, name: str, value: object | None) -> str:
        """The condition that an attribute has the value that was seen; None: it is not there."""
        return self.absent(name) if value is None else self.equals(name, value)

    def absent_or(self, name: str, value: object) -> str:
        """The condition that an attribute is not there or has a value."""
        return f"({self.absent(name)} OR {self.equals(name, value)})"

    def at_most(self, name: str, value: object) -> str:
        """The condition that an attribute's value is this or a smaller one."""
        return f"{self._name(name)} <= {self._value(value)}"

    def at_least(self, name: str, value: object) -> str:
        """The condition that an attribute's value is this or a greater one."""
        return f"{self._name(name)} >= {self._value(value)}"

    def absent_or_at_most(self, name: str, value: object) -> str:
        """The condition that an attribute is not there, or its value is this or a smaller one."""
        return f"({self.absent(name)} OR {self.at_most(name, value)})"

    @property
    def places(self) -> dict[str, Any]:
        """What the placeholders stand for, as a call takes it."""
        places: dict[str, Any] = {"ExpressionAttributeNames": self._names}
        if self._values:
            places["ExpressionAttributeValues"] = to_wire(self._values)
        return places

    def update(self, table: str, key: Key, conditions: Sequence[str]) -> dict[str, Any]:
        """The arguments of `UpdateItem`."""
        parts = []
        if self._sets:
            parts.append("SET " + ", ".join(self._sets))
        if self._removes:
            parts.append("REMOVE " + ", ".join(self._removes))
        if self._adds:
            parts.append("ADD " + ", ".join(self._adds))
        update: dict[str, Any] = {
            "TableName": table,
            "Key": to_wire(key),
            "UpdateExpression": " ".join(parts),
            **self.places,
        }
        if conditions:
            update["ConditionExpression"] = " AND ".join(conditions)
        return update

    def _name(self, name: str) -> str:
        self._names[f"#{name}"] = name
        return f"#{name}"

    def _value(self, value: object) -> str:
        place = f":v{len(self._values)}"
        self._values[place] = value
        return place
