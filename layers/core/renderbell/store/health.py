"""Health: which connections back off, and how an owner's endpoints and receivers took what they were sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from renderbell import items
from renderbell.delivery import WELL, EndpointHealth, ReceiverHealth, ReceiverState
from renderbell.endpoints import MANAGED_PREFIX
from renderbell.expressions import Change, Key, to_wire
from renderbell.items import time_text
from renderbell.store.table import Table

FAILING_KEPT_S = 30 * 86_400
HEALTH_PREFIX = "HEALTH#"
HEALTH_ATTRIBUTES = ("failing", "confirmed", "disabled")  # of an endpoint, in the order of `EndpointHealth`


class ConnectionHealth(NamedTuple):
    """A connection's faults in a row, and its back-off: how many steps it has grown (0: it has not begun), and when
    the next probe may ask."""

    steps: int
    retry_at: datetime
    kind: str
    since: datetime
    failures: int = 0


class Health(Table):
    """What is known of connections, endpoints and receivers."""

    # -- connections ------------------------------------------------------------------------------------------------

    def connection_health(self, name: str) -> ConnectionHealth | None:
        """A connection's back-off, if one runs, read consistently."""
        item = self._get(_connection_key(name))
        if item is None or "retry_at" not in item:
            return None
        return ConnectionHealth(
            int(item["steps"]),
            items.parse_time(item["retry_at"]),
            item["kind"],
            items.parse_time(item["since"]),
            int(item.get("failures", 0)),
        )

    def put_connection_health(self, name: str, health: ConnectionHealth | None) -> None:
        """Writes a connection's back-off; None: it answers again.

        A beginning is made without a claim, so it takes nothing back of a longer one that another knows of.
        """
        key = _connection_key(name)
        if health is None:
            self._removes(key)
            return
        if health.steps <= 1:
            change = _back_off_change(health)
            change.remove("probe")
            shorter = f"({change.absent('retry_at')} OR {change.at_most('retry_at', time_text(health.retry_at))})"
            self._applies(key, change, [shorter])
            return
        self._client.put_item(TableName=self._table, Item=to_wire(key | _back_off(health)))

    def claim_probe(self, name: str, health: ConnectionHealth, token: str, now: datetime) -> bool:
        """Writes a connection's back-off with a later `retry_at`, if it stands at the same step and its time has come.

        Whoever does probes; `token` is the prober's own. One that is not there has ended: another's probe was answered.
        """
        change = _back_off_change(health)
        change.set("probe", token)
        conditions = [change.at_most("retry_at", time_text(now)), change.equals("steps", health.steps)]
        return self._applies(_connection_key(name), change, conditions, mine=("probe", token))

    # -- endpoints --------------------------------------------------------------------------------------------------

    def endpoint_health(self, owner: str, endpoint_id: str) -> EndpointHealth:
        """What an endpoint's attempts since its last success say of it, read consistently."""
        return endpoint_health_from(self._get(endpoint_health_key(owner, endpoint_id)) or {})

    def managed_healths(self, owner: str) -> dict[str, EndpointHealth]:
        """The healths that are kept of the endpoints that an owner manages, by endpoint."""
        found = self._partition(f"OWNER#{owner}", f"{HEALTH_PREFIX}{MANAGED_PREFIX}_")
        return {item["sk"].removeprefix(HEALTH_PREFIX): endpoint_health_from(item) for item in found}

    def forget_endpoint_health(self, owner: str, endpoint_id: str) -> None:
        """Forgets what an endpoint's attempts said of it."""
        self._removes(endpoint_health_key(owner, endpoint_id))

    def failing_endpoints(self, owner: str, endpoint_ids: Iterable[str]) -> set[str]:
        """Which of an owner's endpoints fail, read eventually consistently; one that is not served counts as well."""
        keys = [endpoint_health_key(owner, endpoint_id) for endpoint_id in sorted(set(endpoint_ids))]
        failing = HEALTH_ATTRIBUTES[0]
        return {item["sk"].removeprefix(HEALTH_PREFIX) for item in self._batch_get(keys) if failing in item}

    def note_endpoint_health(
        self, owner: str, endpoint_id: str, seen: EndpointHealth, after: EndpointHealth, token: str
    ) -> bool:
        """Writes an endpoint's health if it still is as it was seen; False if another has noted something meanwhile.

        A success clears whatever has become of the failures that were seen. The note on a URL given inline is
        forgotten a month after it was written: nobody may ever use the URL again. `token` is the writer's own.
        """
        old, new = _endpoint_attributes(seen), _endpoint_attributes(after)
        known = HEALTH_ATTRIBUTES if new else HEALTH_ATTRIBUTES[:1]
        change = Change()
        conditions = [change.as_seen(name, old.get(name)) for name in known]
        for name in HEALTH_ATTRIBUTES:
            if name not in new:
                change.remove(name)
            elif old.get(name) != new[name]:
                change.set(name, new[name])
        newest = max((at for at in (after.failing_since, after.confirmed_at, after.disabled_at) if at), default=None)
        if newest is not None:
            change.set("ttl", int(newest.timestamp()) + FAILING_KEPT_S)
        change.set("token", token)
        return self._applies(endpoint_health_key(owner, endpoint_id), change, conditions, mine=("token", token))

    # -- receivers --------------------------------------------------------------------------------------------------

    def receiver_health(self, owner: str, receiver: str) -> ReceiverHealth:
        """How an owner's receiver took the last attempt, read consistently."""
        return receiver_health_from(self._get(receiver_key(owner, receiver)) or {})

    def note_receiver_health(
        self, owner: str, receiver: str, seen: ReceiverHealth, after: ReceiverHealth, *, now: datetime, token: str
    ) -> bool:
        """Writes a receiver's health if it still is as it was seen; False if another has noted something meanwhile.

        The note is forgotten after a month. `token` is the writer's own.
        """
        change = Change()
        conditions = [change.as_seen(name, value) for name, value in _receiver_attributes(seen).items()]
        for name, value in _receiver_attributes(after).items():
            if value is None:
                change.remove(name)
            else:
                change.set(name, value)
        change.set("ttl", int(now.timestamp()) + FAILING_KEPT_S)
        change.set("token", token)
        return self._applies(receiver_key(owner, receiver), change, conditions, mine=("token", token))


def _connection_key(name: str) -> Key:
    return {"pk": f"CONNECTION#{name}", "sk": "HEALTH"}


def endpoint_health_key(owner: str, endpoint_id: str) -> Key:
    """Where an endpoint's health stands."""
    return {"pk": f"OWNER#{owner}", "sk": f"{HEALTH_PREFIX}{endpoint_id}"}


def receiver_key(owner: str, receiver: str) -> Key:
    """Where a receiver's health stands."""
    return {"pk": f"OWNER#{owner}", "sk": f"RECEIVER#{receiver}"}


def _back_off(health: ConnectionHealth) -> dict[str, object]:
    return {
        "steps": health.steps,
        "retry_at": time_text(health.retry_at),
        "kind": health.kind,
        "since": time_text(health.since),
        "failures": health.failures,
    }


def _back_off_change(health: ConnectionHealth) -> Change:
    change = Change()
    for name, value in _back_off(health).items():
        change.set(name, value)
    return change


def receiver_health_from(item: Mapping[str, Any]) -> ReceiverHealth:
    """The health that a receiver's item holds; an empty one says that all is well."""
    return ReceiverHealth(ReceiverState(item.get("state", ReceiverState.WELL)), item.get("endpoint_id"))


def endpoint_health_from(item: Mapping[str, Any]) -> EndpointHealth:
    """The health that an endpoint's item holds; an empty one says that all is well."""
    return EndpointHealth(*(items.parse_time(item[name]) if name in item else None for name in HEALTH_ATTRIBUTES))


def _endpoint_attributes(health: EndpointHealth) -> dict[str, str]:
    times = (health.failing_since, health.confirmed_at, health.disabled_at)
    return {name: time_text(at) for name, at in zip(HEALTH_ATTRIBUTES, times, strict=True) if at is not None}


def _receiver_attributes(health: ReceiverHealth) -> dict[str, str | None]:
    """A receiver's health as it is written; nothing is written of a state that is well."""
    return {"state": None if health == WELL else health.state.value, "endpoint_id": health.endpoint_id}
