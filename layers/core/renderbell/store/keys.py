"""API keys: whom a key lets in, and which keys an owner has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from renderbell import items
from renderbell.expressions import Key
from renderbell.items import time_text
from renderbell.store.table import Table


@dataclass(frozen=True, slots=True)
class ApiKey:
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

    def put_key(self, key: ApiKey) -> None:
        """Writes a key's two items together: by hash, to let it in, and by id, to list and remove it."""
        told = {
            "key_id": key.key_id,
            "key_hash": key.key_hash,
            "owner": key.owner,
            "scope": key.scope,
            "name": key.name,
            "created_at": time_text(key.created_at),
        }
        self._transact(*(self._put(one | told, fresh=True) for one in _both(key)))

    def keys(self, owner: str) -> tuple[ApiKey, ...]:
        """An owner's keys, by id."""
        return tuple(_key_from(item) for item in self._partition(f"OWNER#{owner}", "KEY#"))

    def delete_key(self, key: ApiKey) -> None:
        """Removes a key's two items together."""
        self._transact(*(self._delete(one) for one in _both(key)))


def _hash_key(key_hash: str) -> Key:
    return {"pk": f"KEY#{key_hash}", "sk": "KEY"}


def _both(key: ApiKey) -> tuple[Key, Key]:
    """Where a key's two items stand: by hash, and by id."""
    return _hash_key(key.key_hash), {"pk": f"OWNER#{key.owner}", "sk": f"KEY#{key.key_id}"}


def _key_from(item: Mapping[str, Any]) -> ApiKey:
    created_at = items.parse_time(item["created_at"])
    return ApiKey(item["key_id"], item["key_hash"], item["owner"], item["scope"], item["name"], created_at)
