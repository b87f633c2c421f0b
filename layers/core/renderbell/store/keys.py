"""API keys: whom a key lets in, and which keys an owner has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from renderbell import items
from renderbell.errors import ConflictError
from renderbell.expressions import Change, Key
from renderbell.items import time_text
from renderbell.store.table import CancelledError, Table


class ApiKey(NamedTuple):
    """An API key without the key itself: who it is, and what it may do (`read`, `write` or `admin`)."""

    key_id: str
    key_hash: str
    owner: str
    scope: str
    name: str
    created_at: datetime


class ApiKeys(Table):
    """The API keys, each in two items that hold the same."""

    def key(self, key_hash: str) -> ApiKey | None:
        """The key with this SHA-256, in hex."""
        item = self._get(_hash_key(key_hash))
        return None if item is None else _key_from(item)

    def add_key(self, key: ApiKey, most: int) -> bool:
        """Writes a key's two items together: by hash, to let it in, and by id, to list and remove it.

        Not where its owner has as many as may be: their number stands in an item of its own, in the same transaction.
        """
        told = {
            "key_id": key.key_id,
            "key_hash": key.key_hash,
            "owner": key.owner,
            "scope": key.scope,
            "name": key.name,
            "created_at": time_text(key.created_at),
        }
        number = Change()
        number.add("number", 1)
        room = f"({number.absent('number')} OR {number.at_most('number', most - 1)})"
        try:
            self._transact(
                {"Update": number.update(self._table, _number_key(key.owner), [room])},
                *(self._put(one | told, fresh=True) for one in _both(key)),
            )
        except CancelledError as error:
            if error.failed[0]:
                return False
            raise ConflictError("the owner's keys are changing; try again", code="try_again") from error
        return True

    def keys(self, owner: str) -> tuple[ApiKey, ...]:
        """An owner's keys, by id."""
        return tuple(_key_from(item) for item in self._partition(f"OWNER#{owner}", "KEY#"))

    def delete_key(self, key: ApiKey) -> bool:
        """Removes a key's two items together; False if it is there no more."""
        by_hash, by_id = map(self._delete, _both(key))
        there, number = Change(), Change()
        by_id["Delete"] |= {"ConditionExpression": there.equals("key_id", key.key_id), **there.places}
        number.add("number", -1)
        try:
            self._transact(by_id, by_hash, {"Update": number.update(self._table, _number_key(key.owner), [])})
        except CancelledError as error:
            if error.failed[0]:
                return False
            raise ConflictError("the owner's keys are changing; try again", code="try_again") from error
        return True


def _hash_key(key_hash: str) -> Key:
    return {"pk": f"KEY#{key_hash}", "sk": "KEY"}


def _number_key(owner: str) -> Key:
    return {"pk": f"OWNER#{owner}", "sk": "KEYS"}


def _both(key: ApiKey) -> tuple[Key, Key]:
    """Where a key's two items stand: by hash, and by id."""
    return _hash_key(key.key_hash), {"pk": f"OWNER#{key.owner}", "sk": f"KEY#{key.key_id}"}


def _key_from(item: Mapping[str, Any]) -> ApiKey:
    created_at = items.parse_time(item["created_at"])
    return ApiKey(item["key_id"], item["key_hash"], item["owner"], item["scope"], item["name"], created_at)
