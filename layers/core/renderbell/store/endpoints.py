"""Endpoints: the webhook endpoints that an owner manages, the secrets' generations, and what became of attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger

from renderbell import items
from renderbell.endpoints import Endpoint, SigningKey
from renderbell.errors import ConflictError
from renderbell.expressions import Change, Key
from renderbell.items import time_text
from renderbell.store.health import endpoint_health_key
from renderbell.store.partition import UnreadableItemError
from renderbell.store.table import CancelledError, Table

ENDPOINT_PREFIX = "ENDPOINT#"
COUNT_PREFIX = "COUNT#"

logger = Logger()


class AttemptCounts(NamedTuple):
    """How many attempts an endpoint has answered well, and how many not."""

    delivered: int = 0
    failed: int = 0

    def plus(self, other: AttemptCounts) -> AttemptCounts:
        """Both together."""
        return AttemptCounts(self.delivered + other.delivered, self.failed + other.failed)


NO_ATTEMPTS = AttemptCounts()


class Endpoints(Table):
    """What an owner has set of endpoints and secrets."""

    def endpoint(self, owner: str, endpoint_id: str) -> Endpoint | None:
        """An endpoint, read consistently; raises `UnreadableItemError`."""
        item = self._get(endpoint_key(owner, endpoint_id))
        return None if item is None else endpoint_from(item)

    def endpoints(self, owner: str) -> tuple[Endpoint, ...]:
        """An owner's endpoints, the oldest first, read consistently; one that cannot be read is left out."""
        found = []
        for item in self._partition(_pk(owner), ENDPOINT_PREFIX):
            try:
                found.append(endpoint_from(item))
            except UnreadableItemError:
                logger.exception("item cannot be read", extra={"pk": item["pk"], "sk": item["sk"]})
        return tuple(found)

    def add_endpoint(self, endpoint: Endpoint, most: int) -> bool:
        """Writes a new endpoint, unless its owner has as many as may be.

        The number stands in an item of its own, in the same transaction, so that none slips in beside another.
        """
        number = Change()
        number.add("number", 1)
        room = f"({number.absent('number')} OR {number.at_most('number', most - 1)})"
        key = endpoint_key(endpoint.owner, endpoint.endpoint_id)
        try:
            self._transact(
                self._put(key | _attributes(endpoint), fresh=True),
                {"Update": number.update(self._table, _number_key(endpoint.owner), [room])},
            )
        except CancelledError as error:
            if error.failed[1]:
                return False
            raise _busy() from error
        return True

    def change_endpoint(self, before: Endpoint, after: Endpoint, *, forget_health: bool = False) -> Endpoint | None:
        """Writes a change of an endpoint if its version still stands; None if it does not, or the endpoint is gone.

        With `forget_health` what its past attempts said of it goes in the same transaction.
        """
        saved = replace(after, version=before.version + 1)
        change = Change()
        change.between(_attributes(before), _attributes(saved))
        key = endpoint_key(before.owner, before.endpoint_id)
        conditions = [change.equals("version", before.version)]
        if not forget_health:
            return saved if self._applies(key, change, conditions) else None
        health = endpoint_health_key(before.owner, before.endpoint_id)
        try:
            self._transact({"Update": change.update(self._table, key, conditions)}, self._delete(health))
        except CancelledError as error:
            if error.failed[0]:
                return None
            raise _busy() from error
        return saved

    def remove_endpoint(self, endpoint: Endpoint) -> bool:
        """Removes an endpoint with its health; False if it is there no more."""
        own = self._delete(endpoint_key(endpoint.owner, endpoint.endpoint_id))
        there = Change()
        own["Delete"] |= {
            "ConditionExpression": there.equals("endpoint_id", endpoint.endpoint_id),
            **there.places,
        }
        number = Change()
        number.add("number", -1)
        try:
            self._transact(
                own,
                {"Update": number.update(self._table, _number_key(endpoint.owner), [])},
                self._delete(endpoint_health_key(endpoint.owner, endpoint.endpoint_id)),
            )
        except CancelledError as error:
            if error.failed[0]:
                return False
            raise _busy() from error
        return True

    # -- the secret of URLs given inline ----------------------------------------------------------------------------

    def signing(self, owner: str) -> SigningKey:
        """What signs webhooks to URLs that an owner gives with tasks, read consistently."""
        return signing_from(owner, self._get(secret_key(owner)))

    def note_rotation(self, owner: str, seen: SigningKey, after: SigningKey) -> bool:
        """Writes a rotation of that key, if it still is as it was seen."""
        if after.rotated_at is None:
            raise ValueError("a key that was never rotated is not written")
        change = Change()
        conditions = [change.as_seen("generation", None if seen.rotated_at is None else seen.generation)]
        change.set("generation", after.generation)
        change.set("rotated_at", time_text(after.rotated_at))
        return self._applies(secret_key(owner), change, conditions)

    # -- counts -----------------------------------------------------------------------------------------------------

    def count_attempt(self, owner: str, endpoint_id: str, day: date, *, delivered: bool, ttl: int) -> None:
        """Counts an attempt on its day; one that the SDK repeats, because its answer was lost, may count twice."""
        change = Change()
        change.set("ttl", ttl)
        change.add("delivered" if delivered else "failed", 1)
        self._applies({"pk": _pk(owner), "sk": f"{COUNT_PREFIX}{endpoint_id}#{day.isoformat()}"}, change, [])

    def attempt_counts(self, owner: str, since: date, endpoint_id: str = "") -> dict[str, AttemptCounts]:
        """The attempts since a day, by endpoint: of one, or of all that an owner has had since."""
        found: dict[str, AttemptCounts] = {}
        prefix = f"{COUNT_PREFIX}{endpoint_id}#" if endpoint_id else COUNT_PREFIX
        for item in self._partition(_pk(owner), prefix):
            named, _, day = item["sk"].removeprefix(COUNT_PREFIX).rpartition("#")
            if day >= since.isoformat():
                counted = AttemptCounts(int(item.get("delivered", 0)), int(item.get("failed", 0)))
                found[named] = found.get(named, NO_ATTEMPTS).plus(counted)
        return found


def _busy() -> ConflictError:
    return ConflictError("the endpoints are changing; try again", code="try_again")


def _pk(owner: str) -> str:
    return f"OWNER#{owner}"


def endpoint_key(owner: str, endpoint_id: str) -> Key:
    """Where an endpoint stands."""
    return {"pk": _pk(owner), "sk": f"{ENDPOINT_PREFIX}{endpoint_id}"}


def _number_key(owner: str) -> Key:
    return {"pk": _pk(owner), "sk": "ENDPOINTS"}


def secret_key(owner: str) -> Key:
    """Where it stands which secret signs webhooks to URLs given inline."""
    return {"pk": _pk(owner), "sk": "SECRET"}


def signing_from(owner: str, item: Mapping[str, Any] | None) -> SigningKey:
    """The key that an item tells of, or that of an owner who has never changed it; raises `UnreadableItemError`."""
    if item is None:
        return SigningKey("owner", owner)
    try:
        return SigningKey("owner", owner, int(item["generation"]), items.parse_time(item["rotated_at"]))
    except Exception as error:  # whatever is wrong with it
        raise UnreadableItemError((item["pk"], item["sk"])) from error


def _attributes(endpoint: Endpoint) -> dict[str, Any]:
    return items.present(
        {
            "endpoint_id": endpoint.endpoint_id,
            "owner": endpoint.owner,
            "url": endpoint.url,
            "events": list(endpoint.events),
            "description": endpoint.description,
            "headers": dict(endpoint.headers),
            "disabled_at": endpoint.disabled_at and time_text(endpoint.disabled_at),
            "disabled_by": endpoint.disabled_by,
            "generation": endpoint.generation,
            "rotated_at": endpoint.rotated_at and time_text(endpoint.rotated_at),
            "created_at": time_text(endpoint.created_at),
            "version": endpoint.version,
        }
    )


def endpoint_from(item: Mapping[str, Any]) -> Endpoint:
    """The endpoint that an item holds; raises `UnreadableItemError`."""
    try:
        return _endpoint_from(item)
    except Exception as error:  # whatever is wrong with it
        raise UnreadableItemError((item["pk"], item["sk"])) from error


def _endpoint_from(item: Mapping[str, Any]) -> Endpoint:
    times = {name: _time(item.get(name)) for name in ("disabled_at", "rotated_at")}
    url, headers = item["url"], item.get("headers", {})
    if not isinstance(url, str) or not all(isinstance(value, str) for value in headers.values()):
        raise TypeError("what others rely on is no text")
    return Endpoint(
        endpoint_id=item["endpoint_id"],
        owner=item["owner"],
        url=url,
        events=tuple(item["events"]),
        created_at=items.parse_time(item["created_at"]),
        description=item.get("description", ""),
        headers=dict(headers),
        disabled_by=item.get("disabled_by"),
        generation=int(item["generation"]),
        version=int(item["version"]),
        **times,
    )


def _time(text: str | None) -> datetime | None:
    return items.parse_time(text) if text else None
