"""What an owner does with webhook endpoints: make, change, remove, rotate secrets, test, and recover what was lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

from aws_lambda_powertools import Logger
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from renderbell.addresses import EgressPolicy, check_webhook_url
from renderbell.delivery import (
    DEFAULT_EVENTS,
    HEALTHY,
    MAX_ENDPOINTS,
    TASK_EVENTS,
    TEST_EVENT,
    Attempt,
    Delivery,
    EndpointHealth,
    new_delivery,
    reopened,
)
from renderbell.endpoints import BY_OWNER, MANAGED_PREFIX, Endpoint, SigningKey, secrets_of
from renderbell.errors import AddressRefusedError, ConflictError, InvalidInputError, NotFoundError
from renderbell.ids import Seed, id_pattern
from renderbell.inputs import Moment
from renderbell.models import Model
from renderbell.register import Event, Url
from renderbell.schedule import slot_of
from renderbell.store import NO_ATTEMPTS, AttemptCounts, UnreadableItemError, delivery_key
from renderbell.transition import TRIES
from renderbell.wake import PollerWaker
from renderbell.webhooks import receiver_of

if TYPE_CHECKING:
    from renderbell.deliver import SideBySide

__all__ = [
    "EndpointChange",
    "EndpointRecord",
    "EndpointRequest",
    "EndpointStore",
    "Endpoints",
    "RecoverRequest",
    "Recovered",
    "SecretRecord",
]

MAX_DESCRIPTION = 256
MAX_HEADERS = 10
MAX_HEADER_NAME = 128
MAX_HEADER_VALUE = 1024
COUNTED_DAYS = 7
TEST_KEPT = timedelta(days=14)  # longer than its tries may take
MAX_RECOVERED = 1000  # by one call
RECOVERED_AT_ONCE = 100
RECOVERING = timedelta(seconds=15)  # of the 28 that the function has

ENDPOINT_ID = id_pattern(MANAGED_PREFIX)

_TOKEN = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_HEADER_NAME}}}")  # RFC 9110, section 5.6.2
_VALUE = re.compile(rf"[!-~](?:[ -~]{{0,{MAX_HEADER_VALUE - 2}}}[!-~])?")
_NUMBER = re.compile(r"\s*[-+]?[0-9.]+\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# What the transport or the signature sets, or a proxy on the way may act on.
RESERVED_HEADERS = frozenset(
    {
        *("accept-encoding", "client-ip", "connection", "expect", "forwarded", "host", "http2-settings", "keep-alive"),
        *("max-forwards", "te", "trailer", "transfer-encoding", "true-client-ip", "upgrade", "user-agent", "via"),
        *("x-client-ip", "x-cluster-client-ip", "x-http-method", "x-http-method-override", "x-method-override"),
        *("x-host", "x-real-ip", "x-rewrite-url"),
    }
)
RESERVED_PREFIXES = ("content-", "proxy-", "svix-", "webhook-", "x-forwarded-", "x-original-")

logger = Logger()


# -- what is asked ------------------------------------------------------------------------------------------------


def _plain(value: str) -> str:
    if _CONTROL.search(value):
        raise PydanticCustomError("description_invalid", "must not contain control characters")
    return value


def _sound_headers(value: dict[str, str]) -> dict[str, str]:
    """Headers that may go out; no message repeats one, since somebody may take a key for a name."""
    if not all(_TOKEN.fullmatch(name) for name in value):
        raise PydanticCustomError(
            "header_name_invalid", f"names must be tokens of at most {MAX_HEADER_NAME} characters"
        )
    names = [name.lower() for name in value]
    if len(set(names)) < len(names):
        raise PydanticCustomError("header_name_twice", "names must differ in more than their case")
    for name in names:
        if name in RESERVED_HEADERS or name.startswith(RESERVED_PREFIXES):
            raise PydanticCustomError("header_reserved", "names a header that is not yours to set")
    if not all(_VALUE.fullmatch(text) for text in value.values()):
        raise PydanticCustomError(
            "header_value_invalid",
            f"values must be printable ASCII of at most {MAX_HEADER_VALUE} characters, with no space at either end",
        )
    return value


Events = Annotated[
    list[Event],
    Field(min_length=1, max_length=20, description="Without it: every end of a task, not `task.processing`."),
]
Description = Annotated[
    str,
    Field(
        max_length=MAX_DESCRIPTION,
        examples=["orders, production"],
        json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]*$"},
    ),
    AfterValidator(_plain),
]
Headers = Annotated[
    dict[str, str],
    Field(
        max_length=MAX_HEADERS,
        description="Go out with each webhook. Their values are kept like secrets: answers show the names alone. "
        "Names are reserved that the transport or the signature sets.",
        examples=[{"Authorization": "Bearer 5e0f3a"}],
        json_schema_extra={
            "propertyNames": {"pattern": f"^{_TOKEN.pattern}$"},
            "additionalProperties": {"type": "string", "pattern": f"^{_VALUE.pattern}$"},
        },
    ),
    AfterValidator(_sound_headers),
]
_LEFT_OUT: Any = None  # a default is not checked, and null is refused where it is given
_SWITCH = "While it is true, nothing is sent to the endpoint and nothing is kept for it."


class EndpointRequest(Model):
    """An endpoint to make."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Url
    events: Events | None = None
    description: Description = ""
    headers: Headers = Field(default_factory=dict)
    disabled: Annotated[bool, Field(strict=True, description=_SWITCH)] = False


class EndpointChange(Model):
    """What to change of an endpoint; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Url = _LEFT_OUT
    events: Annotated[Events, Field(description="Takes the place of all events that there are.")] = _LEFT_OUT
    description: Description = _LEFT_OUT
    headers: Annotated[Headers, Field(description="Takes the place of all headers that there are.")] = _LEFT_OUT
    disabled: Annotated[bool, Field(strict=True, description=_SWITCH)] = _LEFT_OUT


class RecoverRequest(Model):
    """What to send again."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    since: Annotated[
        Moment,
        Field(
            description="From when on; what counts is a delivery's last attempt.",
            examples=["2026-03-01T12:00:00Z"],
            json_schema_extra={"pattern": r"^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|9990)-"},
        ),
    ]


# -- what it needs ------------------------------------------------------------------------------------------------


class EndpointStore(Protocol):
    """What is used of the store."""

    def endpoint(self, owner: str, endpoint_id: str) -> Endpoint | None: ...
    def endpoints(self, owner: str) -> tuple[Endpoint, ...]: ...
    def add_endpoint(self, endpoint: Endpoint, most: int) -> bool: ...
    def change_endpoint(self, before: Endpoint, after: Endpoint, *, forget_health: bool = False) -> Endpoint | None: ...
    def remove_endpoint(self, endpoint: Endpoint) -> bool: ...
    def endpoint_health(self, owner: str, endpoint_id: str) -> EndpointHealth: ...
    def managed_healths(self, owner: str) -> dict[str, EndpointHealth]: ...
    def forget_endpoint_health(self, owner: str, endpoint_id: str) -> None: ...
    def attempt_counts(self, owner: str, since: date, endpoint_id: str = "") -> dict[str, AttemptCounts]: ...
    def signing(self, owner: str) -> SigningKey: ...
    def note_rotation(self, owner: str, seen: SigningKey, after: SigningKey) -> bool: ...
    def put_delivery(self, delivery: Delivery) -> tuple[str, str]: ...
    def newest_tests(self, owner: str, endpoint_id: str) -> tuple[Delivery, ...]: ...
    def attempts_of(self, delivery: Delivery) -> tuple[Attempt, ...]: ...
    def given_up(self, endpoint_id: str, since: datetime) -> Iterator[tuple[str, str]]: ...
    def delivery(self, pk: str, sk: str) -> Delivery | None: ...
    def reopen_delivery(self, seen: Delivery, after: Delivery) -> bool: ...


class EndpointRecord(NamedTuple):
    """An endpoint with what its attempts say of it, and the last test of it."""

    endpoint: Endpoint
    health: EndpointHealth = HEALTHY
    counts: AttemptCounts = NO_ATTEMPTS
    last_test: Delivery | None = None
    test_attempts: tuple[Attempt, ...] = ()


class SecretRecord(NamedTuple):
    """The secret that signs, and until when the one before it does as well."""

    secret: str
    rotated_at: datetime | None
    previous_valid_until: datetime | None


class Recovered(NamedTuple):
    """How many deliveries are tried once more, and whether there are more."""

    recovered: int
    more: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Endpoints:
    """The use cases of an owner; another owner's endpoint does not exist for them."""

    store: EndpointStore
    waker: PollerWaker
    egress: EgressPolicy
    master_secret: Callable[[], bytes]
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    new_test_id: Callable[[], str]
    slots: int
    side_by_side: SideBySide

    def create(self, asked: EndpointRequest, *, owner: str, seed: Seed | None = None) -> EndpointRecord:
        """Makes an endpoint; raises `InvalidInputError`, and `ConflictError` where there are as many as may be."""
        endpoint_id = seed.id(MANAGED_PREFIX) if seed else self.new_id()
        made = self.store.endpoint(owner, endpoint_id) if seed and seed.repeated else None
        if made is not None:
            return self._record(made)
        self._check_url(asked.url)
        now = self.clock()
        endpoint = Endpoint(
            endpoint_id=endpoint_id,
            owner=owner,
            url=asked.url,
            events=_in_order(asked.events or DEFAULT_EVENTS),
            created_at=now,
            description=asked.description,
            headers=dict(asked.headers),
        )
        if asked.disabled:
            endpoint = endpoint.switched_off(BY_OWNER, now)
        if not self.store.add_endpoint(endpoint, MAX_ENDPOINTS):
            raise ConflictError(f"there are {MAX_ENDPOINTS} endpoints; delete one first", code="too_many_endpoints")
        return EndpointRecord(endpoint)

    def all(self, *, owner: str) -> list[EndpointRecord]:
        """An owner's endpoints, the oldest first."""
        healths = self.store.managed_healths(owner)
        counts = self.store.attempt_counts(owner, self._counted_since())
        return [
            EndpointRecord(one, healths.get(one.endpoint_id, HEALTHY), counts.get(one.endpoint_id, NO_ATTEMPTS))
            for one in self.store.endpoints(owner)
        ]

    def read(self, endpoint_id: str, *, owner: str) -> EndpointRecord:
        """An endpoint of the owner's; raises `NotFoundError`."""
        return self._record(self._find(endpoint_id, owner))

    def change(self, endpoint_id: str, asked: EndpointChange, *, owner: str) -> EndpointRecord:
        """Changes an endpoint; a new URL and `disabled: false` forget how its attempts have failed.

        Raises `NotFoundError`, `InvalidInputError`, and `ConflictError` where it changes faster than we write.
        """
        given = asked.model_fields_set
        found = self._find(endpoint_id, owner)
        if "url" in given:
            self._check_url(asked.url)

        def changed(before: Endpoint) -> Endpoint:
            told: dict[str, Any] = {name: getattr(asked, name) for name in given - {"disabled", "events"}}
            if "events" in given:
                told["events"] = _in_order(asked.events)
            after = replace(before, **told)
            if "disabled" not in given:
                return after
            if asked.disabled:
                return after.switched_off(BY_OWNER, self.clock())
            return replace(after, disabled_at=None, disabled_by=None)

        for _ in range(TRIES):
            after = changed(found)
            anew = after.url != found.url or ("disabled" in given and not asked.disabled)
            if after == found and not anew:
                return self._record(found)
            saved = self.store.change_endpoint(found, after, forget_health=anew)
            if saved is not None:
                return self._record(saved)
            found = self._find(endpoint_id, owner)
        raise _changing()

    def delete(self, endpoint_id: str, *, owner: str) -> None:
        """Removes an endpoint; what is pending for it ends unsent when its next attempt is due."""
        if not self.store.remove_endpoint(self._find(endpoint_id, owner)):
            raise _no_endpoint()

    # -- secrets ----------------------------------------------------------------------------------------------------

    def secret(self, endpoint_id: str, *, owner: str) -> SecretRecord:
        """The secret that signs what is sent to an endpoint."""
        return self._shown(self._find(endpoint_id, owner).signing)

    def rotate(self, endpoint_id: str, *, owner: str, seed: Seed | None = None) -> SecretRecord:
        """Takes a new secret; the one before signs on for a day. Who loses a race against another rotation has it."""
        first = found = self._find(endpoint_id, owner)
        if seed and seed.has_done(found.rotated_at):
            return self._shown(found.signing)
        for _ in range(TRIES):
            key = found.signing.rotated(self.clock())
            after = replace(found, generation=key.generation, rotated_at=key.rotated_at)
            saved = self.store.change_endpoint(found, after)
            if saved is None:
                saved = self._find(endpoint_id, owner)
            if saved.generation != first.generation:
                return self._shown(saved.signing)
            found = saved
        raise _changing()

    def owner_secret(self, *, owner: str) -> SecretRecord:
        """The secret that signs what is sent to URLs given with tasks."""
        return self._shown(self.store.signing(owner))

    def rotate_owner_secret(self, *, owner: str, seed: Seed | None = None) -> SecretRecord:
        """As `rotate`, of the secret for URLs given with tasks."""
        seen = self.store.signing(owner)
        if seed and seed.has_done(seen.rotated_at):
            return self._shown(seen)
        after = seen.rotated(self.clock())
        if not self.store.note_rotation(owner, seen, after):
            after = self.store.signing(owner)
        return self._shown(after)

    def _shown(self, key: SigningKey) -> SecretRecord:
        now = self.clock()
        current, *_ = secrets_of(self.master_secret(), key, now)
        return SecretRecord(current, key.rotated_at, key.previous_valid_until(now))

    # -- sending ----------------------------------------------------------------------------------------------------

    def test(self, endpoint_id: str, *, owner: str, seed: Seed | None = None) -> Delivery:
        """Sends a test to an endpoint, as soon as it is its turn and then by the schedule of all webhooks.

        Who asks again before it is sent is answered with the same one. Raises `NotFoundError`, and `ConflictError` if
        the endpoint is switched off.
        """
        found = self._find(endpoint_id, owner)
        self._check_on(found)
        now, test_id = self.clock(), seed.id("tst") if seed else self.new_test_id()
        test = new_delivery(
            task_id=test_id,
            owner=owner,
            event=TEST_EVENT,
            endpoint_id=endpoint_id,
            receiver=receiver_of(found.url),
            url=found.url,
            slot=slot_of(test_id, self.slots),
            ttl=int((now + TEST_KEPT).timestamp()),
            now=now,
        )
        test = replace(test, due_at=now)
        made = self.store.delivery(**delivery_key(test)) if seed and seed.repeated else None
        waiting = made or self._waiting_test(owner, endpoint_id)
        if waiting is None:
            self.store.put_delivery(test)
        self.waker.wake([waiting or test])
        return waiting or test

    def recover(self, endpoint_id: str, since: datetime, *, owner: str) -> Recovered:
        """Tries once more what was given up for an endpoint since a time, the oldest first, and forgets its failures.

        Whoever repeats the call goes on where it ended: what is pending again is left alone. Raises `NotFoundError`,
        and `ConflictError` if the endpoint is switched off.
        """
        found = self._find(endpoint_id, owner)
        self._check_on(found)
        self.store.forget_endpoint_health(owner, endpoint_id)
        until = self.clock() + RECOVERING
        keys = self.store.given_up(endpoint_id, since)
        taken: list[Delivery] = []
        while batch := list(islice(keys, min(RECOVERED_AT_ONCE, MAX_RECOVERED - len(taken)))):
            jobs = [partial(self._reopen, key, found) for key in batch]
            taken += [one for one in self.side_by_side(jobs) if one is not None]
            if len(taken) >= MAX_RECOVERED or self.clock() >= until:
                break
        more = next(keys, None) is not None
        self.waker.wake(taken)
        return Recovered(len(taken), more)

    def _reopen(self, key: tuple[str, str], endpoint: Endpoint) -> Delivery | None:
        """Takes up one delivery; None where it was none that had been given up."""
        try:
            one = self.store.delivery(*key)
        except UnreadableItemError:
            logger.exception("delivery cannot be read", extra={"pk": key[0], "sk": key[1]})
            return None
        now = self.clock()
        mine = one is not None and (one.owner, one.endpoint_id) == (endpoint.owner, endpoint.endpoint_id)
        if one is None or not mine or not one.recoverable or (one.ttl is not None and one.ttl <= now.timestamp()):
            return None
        after = reopened(one, now)
        return after if self.store.reopen_delivery(one, after) else None

    # -- what they share --------------------------------------------------------------------------------------------

    def _find(self, endpoint_id: str, owner: str) -> Endpoint:
        found = self.store.endpoint(owner, endpoint_id) if ENDPOINT_ID.fullmatch(endpoint_id) else None
        if found is None:
            raise _no_endpoint()
        return found

    def _record(self, endpoint: Endpoint) -> EndpointRecord:
        owner, endpoint_id = endpoint.owner, endpoint.endpoint_id
        last = self._last_test(owner, endpoint_id)
        return EndpointRecord(
            endpoint,
            self.store.endpoint_health(owner, endpoint_id),
            self.store.attempt_counts(owner, self._counted_since(), endpoint_id).get(endpoint_id, NO_ATTEMPTS),
            last,
            self.store.attempts_of(last) if last is not None else (),
        )

    def _waiting_test(self, owner: str, endpoint_id: str) -> Delivery | None:
        """The last test, if it has not been tried yet."""
        last = self._last_test(owner, endpoint_id)
        return last if last is not None and last.due_at is not None and not last.tries else None

    def _last_test(self, owner: str, endpoint_id: str) -> Delivery | None:
        now = self.clock().timestamp()
        found = self.store.newest_tests(owner, endpoint_id)
        return next((one for one in found if one.ttl is None or one.ttl > now), None)

    def _counted_since(self) -> date:
        return (self.clock() - timedelta(days=COUNTED_DAYS - 1)).date()

    def _check_url(self, url: str) -> None:
        try:
            check_webhook_url(url, self.egress)
        except AddressRefusedError as error:
            raise InvalidInputError("url", str(error), code="url_not_allowed") from None

    def _check_on(self, endpoint: Endpoint) -> None:
        if endpoint.disabled:
            raise ConflictError("the endpoint is disabled; enable it first", code="endpoint_disabled")


def _in_order(events: Sequence[str]) -> tuple[str, ...]:
    return tuple(event for event in TASK_EVENTS if event in events)


def _no_endpoint() -> NotFoundError:
    return NotFoundError("there is no such endpoint")


def _changing() -> ConflictError:
    return ConflictError("the endpoint is changing; try again", code="try_again")
