"""API keys: what they may do, how they are kept, and what an operator does with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple, Protocol

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from renderbell.errors import ConflictError, NotFoundError
from renderbell.ids import Seed
from renderbell.models import Model
from renderbell.store import ApiKey

__all__ = ["KEY_PREFIX", "KeyRequest", "KeyStore", "Keys", "MintedKey", "Owner", "Scope", "hash_key"]

KEY_PREFIX = "rbk_"
MAX_KEYS = 100  # of an owner; a list of them is one answer
MAX_NAME = 100

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Scope(StrEnum):
    """What a key may do; each scope includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        """Whether this scope is enough where `needed` is asked for."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


def hash_key(key: str) -> str:
    """What is stored of a key: its SHA-256, in hex. The key is random and long, so no slow hash is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def _plain(value: str) -> str:
    if _CONTROL.search(value):
        raise PydanticCustomError("name_invalid", "must not contain control characters")
    return value


Owner = Annotated[
    str,
    Field(pattern=r"^[a-z0-9-]{1,32}$", description="A team: what it registers, no other sees.", examples=["team-a"]),
]


class KeyRequest(Model):
    """A key to mint."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    owner: Owner
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME,
            description="What tells this key from others.",
            examples=["ci"],
            json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]*$"},
        ),
        AfterValidator(_plain),
    ]
    scope: Annotated[
        Scope,
        Field(
            description="`read`: see tasks, without secrets. `write`: all that an owner does. `admin`: keys of all "
            "owners too."
        ),
    ]


class KeyStore(Protocol):
    """What is used of the store."""

    def add_key(self, key: ApiKey, most: int) -> bool: ...
    def keys(self, owner: str) -> tuple[ApiKey, ...]: ...
    def delete_key(self, key: ApiKey) -> bool: ...


class MintedKey(NamedTuple):
    """A new key, with the text that is shown this once."""

    key: ApiKey
    text: str


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Keys:
    """The use cases of an operator."""

    store: KeyStore
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    new_secret: Callable[[], str]

    def mint(self, asked: KeyRequest, *, seed: Seed | None = None) -> MintedKey:
        """Makes a key; raises `ConflictError` where the owner has as many as may be.

        A call that is repeated takes back the key that it made before, which nobody can be shown any more.
        """
        key_id = seed.id("key") if seed else self.new_id()
        if seed and seed.repeated:
            lost = next((key for key in self.store.keys(asked.owner) if key.key_id == key_id), None)
            if lost is not None:
                self.store.delete_key(lost)
        text = KEY_PREFIX + self.new_secret()
        key = ApiKey(key_id, hash_key(text), asked.owner, asked.scope.value, asked.name, self.clock())
        if not self.store.add_key(key, MAX_KEYS):
            raise ConflictError(f"{asked.owner} has {MAX_KEYS} keys; delete one first", code="too_many_keys")
        return MintedKey(key, text)

    def of(self, owner: str) -> tuple[ApiKey, ...]:
        """An owner's keys, the oldest first."""
        return tuple(sorted(self.store.keys(owner), key=lambda key: (key.created_at, key.key_id)))

    def delete(self, key_id: str, *, owner: str) -> None:
        """Removes a key, which lets nobody in once the authorizer's answers have been forgotten: within a minute.

        Raises `NotFoundError`.
        """
        found = next((key for key in self.store.keys(owner) if key.key_id == key_id), None)
        if found is None or not self.store.delete_key(found):
            raise NotFoundError("there is no such key")
