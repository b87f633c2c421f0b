"""Webhook endpoints: what an owner has set, their ids, and their secrets, which are derived and never stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal, NamedTuple

__all__ = [
    "BY_OWNER",
    "GONE",
    "MANAGED_PREFIX",
    "Endpoint",
    "SigningKey",
    "derive_secret",
    "endpoint_id",
    "hidden_in",
    "is_managed",
    "secrets_of",
]

MANAGED_PREFIX = "ep"  # of the ids of endpoints that an owner manages; others stand for URLs given inline
OVERLAP = timedelta(hours=24)  # in which the secret before the current one signs as well
SHORTEST_HIDDEN = 4  # a shorter value of a header stands in any text by chance
SHORTEST_WORD_HIDDEN = 8

BY_OWNER, GONE = "owner", "gone"  # why an endpoint is switched off: its owner did it, or it answered 410


class SigningKey(NamedTuple):
    """Whose secret signs, and how often it was rotated, last at `rotated_at`.

    `kind` is `endpoint`, or `owner` for URLs given inline.
    """

    kind: Literal["endpoint", "owner"]
    id: str
    generation: int = 1
    rotated_at: datetime | None = None

    def rotated(self, now: datetime) -> SigningKey:
        """The key after one more rotation."""
        return self._replace(generation=self.generation + 1, rotated_at=now)

    def previous_valid_until(self, now: datetime) -> datetime | None:
        """Until when the secret before this one signs as well; None: it does not any more."""
        if self.rotated_at is None or now >= self.rotated_at + OVERLAP:
            return None
        return self.rotated_at + OVERLAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that an owner manages: tasks without webhooks of their own are told there.

    `headers` go out with each webhook, and their values are secrets. While it is switched off (`disabled_at`, and
    `disabled_by` why) nothing is sent to it. `version` rises with every change.
    """

    endpoint_id: str
    owner: str
    url: str
    events: tuple[str, ...]
    created_at: datetime
    description: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    generation: int = 1
    rotated_at: datetime | None = None
    version: int = 1

    @property
    def disabled(self) -> bool:
        """Whether it is switched off."""
        return self.disabled_at is not None

    @property
    def signing(self) -> SigningKey:
        """What its webhooks are signed with."""
        return SigningKey("endpoint", self.endpoint_id, self.generation, self.rotated_at)

    def wants(self, event: str) -> bool:
        """Whether it is to be told of an event."""
        return not self.disabled and event in self.events

    def switched_off(self, by: str, now: datetime) -> Endpoint:
        """The endpoint, switched off; the same where it already is."""
        return self if self.disabled else replace(self, disabled_at=now, disabled_by=by)


def endpoint_id(url: str) -> str:
    """The id of the endpoint that a URL given inline stands for; the same URL always has the same one."""
    return f"url_{hashlib.sha256(url.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def is_managed(endpoint_id: str) -> bool:
    """Whether an id is that of an endpoint that an owner manages, and not a URL's."""
    return endpoint_id.startswith(f"{MANAGED_PREFIX}_")


def secrets_of(master: bytes, key: SigningKey, now: datetime) -> list[str]:
    """The secrets that sign at a time: the current one, and for a day after a rotation the one before it.

    Never more than these two: whoever rotates again within the day takes the older one back at once.
    """
    generations = [key.generation]
    if key.generation > 1 and key.previous_valid_until(now) is not None:
        generations.append(key.generation - 1)
    return [derive_secret(master, key.kind, key.id, generation) for generation in generations]


def derive_secret(master: bytes, kind: str, id: str, generation: int) -> str:
    """The signing secret of an endpoint, or of an owner for URLs given inline, in Standard Webhooks' form.

    `kind` is `endpoint` or `owner`. Whoever has the deployment's master secret finds it again; rotating raises the
    generation.
    """
    parts = ("renderbell/v1", kind, id, str(generation))
    if any("\0" in part for part in parts):
        raise ValueError("no part of a secret's name may contain NUL")  # it separates them
    digest = hmac.new(master, "\0".join(parts).encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(digest).decode()}"


def hidden_in(headers: Mapping[str, str]) -> list[str]:
    """What must not be repeated of an endpoint's headers: their values, and the longer words in them."""
    values = [value for value in headers.values() if len(value) >= SHORTEST_HIDDEN]
    words = [word for value in values for word in value.split() if len(word) >= SHORTEST_WORD_HIDDEN]
    return list(dict.fromkeys((*values, *words)))
