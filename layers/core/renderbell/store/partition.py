"""A task's partition: where its items stand, and what is done with one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from aws_lambda_powertools import Logger

from renderbell.errors import RenderbellError
from renderbell.expressions import Key
from renderbell.store.table import Table

T = TypeVar("T")

logger = Logger()


class UnreadableItemError(RenderbellError):
    """An item is not as this package writes it; `key` names it."""

    def __init__(self, key: tuple[str, str]) -> None:
        super().__init__(f"the item {key[0]} {key[1]} cannot be read")
        self.key = key


def task_key(task_id: str) -> Key:
    """The key of a task's item."""
    return key_within(task_id, "TASK")


def key_within(task_id: str, sk: str) -> Key:
    """The key of one of a task's items."""
    return {"pk": f"TASK#{task_id}", "sk": sk}


def task_id_of(pk: str) -> str:
    """The id of the task whose partition this is; raises `ValueError` if it is none."""
    if not pk.startswith("TASK#"):
        raise ValueError("not a task's partition")
    return pk.removeprefix("TASK#")


def subject_of(pk: str, sk: str) -> str:
    """The id of the task whose item this is, or of the test: those of an owner are named in their sort keys."""
    if pk.startswith("OWNER#"):
        _, _, _, test_id, *_ = sk.split("#")
        return test_id
    return task_id_of(pk)


def read_item(read: Callable[[str, Mapping[str, Any]], T], item: Mapping[str, Any]) -> T:
    """What a task's or a test's item holds; raises `UnreadableItemError` if it is not as this package writes it."""
    try:
        return read(subject_of(item["pk"], item["sk"]), item)
    except Exception as error:  # whatever is wrong with it
        raise UnreadableItemError((item["pk"], item["sk"])) from error


class Partition(Table):
    """The items of one task, whatever they hold."""

    def _one(self, read: Callable[[str, Mapping[str, Any]], T], key: Key) -> T | None:
        """What the item of a key holds, read consistently; raises `UnreadableItemError`."""
        item = self._get(key)
        return None if item is None else read_item(read, item)

    def _all(self, read: Callable[[str, Mapping[str, Any]], T], pk: str, prefix: str) -> tuple[T, ...]:
        """What a partition's items of one kind hold, read consistently; one that cannot be read is left out."""
        return self._readable(read, self._partition(pk, prefix))

    @staticmethod
    def _readable(read: Callable[[str, Mapping[str, Any]], T], items: Iterable[Mapping[str, Any]]) -> tuple[T, ...]:
        """What items hold; one that cannot be read is left out."""
        found = []
        for item in items:
            try:
                found.append(read_item(read, item))
            except UnreadableItemError:
                logger.exception("item cannot be read", extra={"pk": item["pk"], "sk": item["sk"]})
        return tuple(found)
