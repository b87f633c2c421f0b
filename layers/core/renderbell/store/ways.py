"""Ways: how an owner's endpoints are reached, and what is known of their health, read in one call."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from renderbell.delivery import EndpointHealth, ReceiverHealth
from renderbell.endpoints import Endpoint, SigningKey, is_managed
from renderbell.expressions import Key
from renderbell.store.endpoints import endpoint_from, endpoint_key, secret_key, signing_from
from renderbell.store.health import endpoint_health_from, endpoint_health_key, receiver_health_from, receiver_key
from renderbell.store.table import Table


class Way(NamedTuple):
    """What signs for an endpoint and how it has answered; `managed` is what its owner has set, unless it is a URL given
    inline. Where `signing` is None, the endpoint was removed."""

    signing: SigningKey | None
    managed: Endpoint | None
    endpoint: EndpointHealth
    receiver: ReceiverHealth


class Ways(Table):
    """What an attempt has to know, of several endpoints at once."""

    def ways(self, owner: str, places: Collection[tuple[str, str]]) -> dict[str, Way]:
        """The ways to an owner's endpoints, each named with its receiver, read consistently.

        Raises `NotServedError` and `UnreadableItemError`.
        """
        keys: dict[tuple[str, str], Key] = {}
        for endpoint_id, receiver in places:
            for key in (
                endpoint_health_key(owner, endpoint_id),
                receiver_key(owner, receiver),
                _signing_key(owner, endpoint_id),
            ):
                keys[key["pk"], key["sk"]] = key
        found = {(item["pk"], item["sk"]): item for item in self._batch_get(list(keys.values()), whole=True)}

        def item(key: Key) -> dict[str, object] | None:
            return found.get((key["pk"], key["sk"]))

        ways = {}
        for endpoint_id, receiver in places:
            signs = item(_signing_key(owner, endpoint_id))
            managed = endpoint_from(signs) if signs is not None and is_managed(endpoint_id) else None
            own = signing_from(owner, signs) if not is_managed(endpoint_id) else None
            ways[endpoint_id] = Way(
                own if managed is None else managed.signing,
                managed,
                endpoint_health_from(item(endpoint_health_key(owner, endpoint_id)) or {}),
                receiver_health_from(item(receiver_key(owner, receiver)) or {}),
            )
        return ways


def _signing_key(owner: str, endpoint_id: str) -> Key:
    return endpoint_key(owner, endpoint_id) if is_managed(endpoint_id) else secret_key(owner)
