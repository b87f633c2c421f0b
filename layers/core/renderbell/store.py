"""DynamoDB: the only file that knows keys and expressions.

    item                pk                                  sk                              in index `due`
    task                TASK#<id>                           TASK                            until terminal and clean
    request             TASK#<id>                           REQUEST                         no
    delivery            TASK#<id>                           DELIVERY#<event>#<endpoint>     while pending
    attempt             TASK#<id>                           ATTEMPT#<time>#<endpoint>#<event>   no
    ongoing marker      ONGOING#<connection>#<SHA-256>      <owner>                         no
    endpoint's health   OWNER#<owner>                       ENDPOINT#<endpoint>             no
    receiver's health   OWNER#<owner>                       RECEIVER#<receiver>             no
    key, by id          OWNER#<owner>                       KEY#<id>                        no
    key, by hash        KEY#<SHA-256>                       KEY                             no
    connection's health CONNECTION#<name>                   HEALTH                          no
    lease               LEASE#<worker>                      LEASE                           no

Two writers meet like this; whoever comes second learns the winner's item from the failed condition:

    poller A   read v3 ─────────────── write if version = 3 ✔ (v4)
    API    B        read v3 ─── write if version = 3 ✘  -> VersionConflictError(current = v4)

A claim carries a random token, and every write of its holder is conditional on it. `version` rises with every write
that the index shows.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from renderbell import items
from renderbell.delivery import (
    WELL,
    Attempt,
    Delivery,
    DeliveryState,
    EndpointHealth,
    ReceiverHealth,
    ReceiverState,
)
from renderbell.errors import ClaimLostError, ConflictError, RenderbellError, VersionConflictError
from renderbell.expressions import Change, Key, from_wire, to_wire
from renderbell.items import time_text
from renderbell.task import PollError, Request, Status, StoredFile, Task, Upload

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

T = TypeVar("T")

logger = Logger()

# What the index `due` shows of an item, besides the keys; the template's projection must list the same.
DUE_PROJECTION = frozenset(
    {
        "owner",
        "connection",
        "provider",
        "provider_task_id",
        "created_at",
        "expires_at",
        "status",
        "version",
        "step",
        "tells_processing",
        "progress",
        "progress_at",
        "streak",
        "last_poll_error",
        "frames",
        "event",
        "endpoint_id",
        "receiver",
    }
)


CONFLICT_PAUSE_S = 0.05  # the most; as long as another's transaction takes
THROTTLED_PAUSES_S = (0.1, 0.2, 0.4, 0.8)  # the most, before each repetition; a request to the API has 28 s
THROTTLED = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})  # as reasons of a cancelled transaction
BUSY_RETRIES = len(THROTTLED_PAUSES_S)
MOST_READ_AT_ONCE = 100  # items, by BatchGetItem
FAILING_KEPT_S = 30 * 86_400
HEALTH_ATTRIBUTES = ("failing", "confirmed", "disabled")  # of an endpoint, in the order of `EndpointHealth`


class AlreadyOngoingError(RenderbellError):
    """The owner already watches this provider task; `task_id` is the running one."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"already registered as {task_id}")
        self.task_id = task_id


class UnreadableItemError(RenderbellError):
    """An item is not as this package writes it; `key` names it."""

    def __init__(self, key: tuple[str, str]) -> None:
        super().__init__(f"the item {key[0]} {key[1]} cannot be read")
        self.key = key


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """An item that the index shows and that cannot be read."""

    key: tuple[str, str]


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """What the index shows of a pending delivery."""

    key: tuple[str, str]
    owner: str
    receiver: str
    endpoint_id: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Served:
    """Which polling moments have been asked: all before `until`, but for a connection in `lagging` only those before
    its own time, with the task that it asked last in `turns`. None: nothing is known. `paced` says when a connection's
    rate allows the next poll, `told` when the notifier may next be told of a receiver's deliveries."""

    until: datetime | None = None
    lagging: Mapping[str, datetime] = field(default_factory=dict)
    paced: Mapping[str, datetime] = field(default_factory=dict)
    told: Mapping[str, datetime] = field(default_factory=dict)
    turns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who polls a worker's slots: `holder` may until `until`; `relief` asks it to hand over, `left` is that it has.

    `deaths` counts the holders in a row before this one that never left. `suspects` are the tasks one of which may have
    ended such a holder's process, with their versions then: one that has changed since is none any more.
    """

    worker: int
    holder: str
    until: datetime
    relief: bool
    served: Served
    workers: int
    slots: int
    left: bool = False
    deaths: int = 0
    suspects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectionHealth:
    """A connection's faults in a row, and its back-off: how many steps it has grown (0: it has not begun), and when
    the next probe may ask."""

    steps: int
    retry_at: datetime
    kind: str
    since: datetime
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """A task whose files are being copied or cleaned up, with what the tries before have left."""

    task: Task
    tries: int
    token: str | None
    upload: Upload | None
    stored: tuple[StoredFile, ...]
    interrupted: bool = False  # a claim has run out: its holder may have left more than it noted
    begun: int = 0  # how many uploads the present file has had


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without the key itself: who it is, and what it may do (`read`, `write` or `admin`)."""

    key_id: str
    key_hash: str
    owner: str
    scope: str
    name: str
    created_at: datetime


def task_key(task_id: str) -> Key:
    """The key of a task's item."""
    return {"pk": f"TASK#{task_id}", "sk": "TASK"}


def task_id_of(pk: str) -> str:
    """The id of the task whose partition this is; raises `ValueError` if it is none."""
    if not pk.startswith("TASK#"):
        raise ValueError("not a task's partition")
    return pk.removeprefix("TASK#")


def delivery_key(delivery: Delivery) -> Key:
    """The key of a delivery's item."""
    return {"pk": f"TASK#{delivery.task_id}", "sk": f"DELIVERY#{delivery.event}#{delivery.endpoint_id}"}


def endpoint_of(sk: str) -> str | None:
    """The endpoint that a delivery's key names, so that none need be read to know it; None for other keys."""
    kind, _, named = sk.partition("#")
    _, _, endpoint_id = named.partition("#")
    return endpoint_id or None if kind == "DELIVERY" else None


def _jittered(most_s: float, least: float) -> float:
    """Not the same pause for two who met; `least` is the share of the most that it is at the least."""
    return most_s * random.uniform(least, 1.0)  # noqa: S311 - no secret depends on it


class Store:
    """The one table, in the domain's words.

    `pause` waits for so many seconds. What AWS does not serve surfaces as botocore's error.
    """

    def __init__(self, client: DynamoDBClient, table: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._table = table
        self._pause = pause

    # -- tasks ------------------------------------------------------------------------------------------------------

    def register(self, task: Task, request: Request) -> None:
        """Writes a new task, its request and its ongoing marker; raises `AlreadyOngoingError` if it is watched."""
        created = time_text(request.created_at)
        record = items.task_attributes(task) | {
            "history": items.history_attributes(task.history),
            "ttl": request.ttl,
        }
        asked = items.request_attributes(request) | {
            "list_pk": f"OWNER#{request.owner}#{task.slot}",
            "list_sk": f"{created}#{task.task_id}",
        }
        marker = self._marker_key(task) | {"task_id": task.task_id, "ttl": request.ttl}
        fresh = {"ConditionExpression": "attribute_not_exists(pk)"}
        try:
            self._transact(
                self._put(marker, **fresh, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
                self._put(task_key(task.task_id) | record, **fresh),
                self._put({"pk": f"TASK#{task.task_id}", "sk": "REQUEST"} | asked, **fresh),
            )
        except _CancelledError as error:
            winner = error.items[0]
            if winner is None:
                raise ConflictError("another registration of this render is under way", code="try_again") from error
            raise AlreadyOngoingError(winner["task_id"]) from None

    def task(self, task_id: str) -> Task | None:
        """The whole task, read consistently; raises `UnreadableItemError`, as all that reads one item does."""
        item = self._get(task_key(task_id))
        return None if item is None else _read(items.task_from, item)

    def request(self, task_id: str) -> Request | None:
        """What was asked when the task was registered."""
        item = self._get({"pk": f"TASK#{task_id}", "sk": "REQUEST"})
        return None if item is None else _read(items.request_from, item)

    def save(self, before: Task, after: Task, deliveries: Sequence[Delivery] = (), *, token: str | None = None) -> Task:
        """Writes what changed between two states of a task, if its version (and its holder's token) still stands.

        One write where only the task changes. A transaction where the provider is done, which also removes the
        ongoing marker, and where deliveries are made. Raises `VersionConflictError`, which carries the winner.
        """
        saved = replace(after, version=before.version + 1)
        update = self._task_update(before, saved, token)
        done = _is_with_provider(before.status) and not _is_with_provider(after.status)
        if not done and not deliveries:
            try:
                self._unless_busy(self._client.update_item, update)
            except self._client.exceptions.ConditionalCheckFailedException as error:
                item: Any = error.response.get("Item")
                raise self._conflict(before.task_id, from_wire(item) if item else None) from None
            return saved
        writes: list[dict[str, Any]] = [{"Update": update}]
        if done:
            writes.append(self._marker_removal(before))
        writes += [self._put(delivery_key(one) | items.delivery_attributes(one)) for one in deliveries]
        self._transact_change(before.task_id, writes)
        return saved

    def delete(self, before: Task, after: Task) -> Task:
        """Writes that a task is deleted, if its version still stands, and removes what others go by: the ongoing
        marker, the request, and its pending deliveries. Raises `VersionConflictError`, which carries the winner.

        No delivery is overlooked, since whoever makes one writes the task too. The task itself is never forgotten
        before `forget` has removed it, because nobody else would know of its files.
        """
        saved = replace(after, version=before.version + 1)
        writes: list[dict[str, Any]] = [{"Update": self._task_update(before, saved, None)}]
        if _is_with_provider(before.status):
            writes.append(self._marker_removal(before))
        pk = f"TASK#{before.task_id}"
        pending = [item["sk"] for item in self._delivery_items(before.task_id) if "due_at" in item]
        gone = [{"pk": pk, "sk": sk} for sk in ("REQUEST", *pending)]
        writes += [{"Delete": {"TableName": self._table, "Key": to_wire(key)}} for key in gone]
        self._transact_change(before.task_id, writes)
        return saved

    def _marker_removal(self, task: Task) -> dict[str, Any]:
        return {
            "Delete": {
                "TableName": self._table,
                "Key": to_wire(self._marker_key(task)),
                "ConditionExpression": "attribute_not_exists(pk) OR task_id = :task_id",
                "ExpressionAttributeValues": to_wire({":task_id": task.task_id}),
            }
        }

    def _transact_change(self, task_id: str, writes: Sequence[dict[str, Any]]) -> None:
        """Writes all or nothing; the first write is the task's, and says whether its version still stood."""
        try:
            self._transact(*writes)
        except _CancelledError as error:
            if error.failed[0]:
                raise self._conflict(task_id, error.items[0]) from None
            if error.met_another:
                raise VersionConflictError(task_id, self.task(task_id)) from error
            raise

    def _task_update(self, before: Task, after: Task, token: str | None) -> dict[str, Any]:
        old, new = items.task_attributes(before), items.task_attributes(after)
        change = Change()
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                change.remove(name)
            elif old.get(name) != new[name]:
                change.set(name, new[name])
        lines = after.history[len(before.history) :]
        if lines:
            change.append("history", items.history_attributes(lines))
        if after.step is not before.step or after.deleted:
            change.remove("token", "tries", "begun", "upload", "stored")
        if after.deleted:
            change.remove("ttl")
        conditions = [change.equals("version", before.version)]
        if token is not None:
            conditions.append(change.equals("token", token))
        return change.update(self._table, task_key(before.task_id), conditions) | {
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD"
        }

    def _conflict(self, task_id: str, item: Mapping[str, Any] | None) -> VersionConflictError:
        return VersionConflictError(task_id, _read(items.task_from, item) if item else None)

    @staticmethod
    def _marker_key(task: Task) -> Key:
        digest = hashlib.sha256(task.provider_task_id.encode()).hexdigest()
        return {"pk": f"ONGOING#{task.connection}#{digest}", "sk": task.owner}

    # -- what is due ------------------------------------------------------------------------------------------------

    def due(
        self, slot: int, until: datetime, after: datetime | None = None
    ) -> Iterator[Task | DueDelivery | UnreadableItem]:
        """What a slot shows as due until a time (and, if given, only after another), soonest first.

        Reads the index alone: eventually consistent, and only what polling needs. An item that cannot be read hides no
        other.
        """
        values: dict[str, object] = {":slot": slot, ":until": time_text(until)}
        condition = "slot = :slot AND due_at <= :until"
        if after is not None:
            condition = "slot = :slot AND due_at BETWEEN :after AND :until"
            values[":after"] = time_text(after)
        for item in self._query(
            IndexName="due", KeyConditionExpression=condition, ExpressionAttributeValues=to_wire(values)
        ):
            try:
                yield _due_from(item)
            except Exception:  # whatever is wrong with it
                yield UnreadableItem((item["pk"], item["sk"]))

    # -- leases -----------------------------------------------------------------------------------------------------

    def lease(self, worker: int) -> Lease | None:
        """A worker's lease, read consistently; its `until` may have passed."""
        item = self._get({"pk": f"LEASE#{worker}", "sk": "LEASE"})
        return None if item is None else _lease_from(worker, item)

    def take_lease(self, lease: Lease, *, seen: Lease | None) -> bool:
        """Takes a worker's lease if it still is as it was seen (None: absent); clears `relief`."""
        change = Change()
        self._set_lease(change, lease)
        change.remove("relief")
        if seen is None:
            conditions = ["attribute_not_exists(pk)"]
        else:
            conditions = [change.equals("holder", seen.holder), change.equals("until", time_text(seen.until))]
        key = {"pk": f"LEASE#{lease.worker}", "sk": "LEASE"}
        return self._applies(change.update(self._table, key, conditions), mine=("holder", lease.holder))

    def keep_lease(self, lease: Lease) -> bool:
        """Renews or releases a lease that `lease.holder` holds, by its new `until`; False if it holds it no more."""
        change = Change()
        self._set_lease(change, lease)
        conditions = [change.equals("holder", lease.holder)]
        return self._applies(change.update(self._table, {"pk": f"LEASE#{lease.worker}", "sk": "LEASE"}, conditions))

    def ask_relief(self, seen: Lease) -> bool:
        """Asks the holder to hand over; False if another holds the lease by now."""
        change = Change()
        change.set("relief", True)
        conditions = [change.equals("holder", seen.holder)]
        return self._applies(change.update(self._table, {"pk": f"LEASE#{seen.worker}", "sk": "LEASE"}, conditions))

    @staticmethod
    def _set_lease(change: Change, lease: Lease) -> None:
        change.set("holder", lease.holder)
        change.set("until", time_text(lease.until))
        change.set("workers", lease.workers)
        change.set("slots", lease.slots)
        change.set("lagging", {name: time_text(at) for name, at in lease.served.lagging.items()})
        change.set("paced", {name: time_text(at) for name, at in lease.served.paced.items()})
        change.set("told", {name: time_text(at) for name, at in lease.served.told.items()})
        change.set("turns", dict(lease.served.turns))
        change.set("left", lease.left)
        change.set("deaths", lease.deaths)
        change.set("suspects", dict(lease.suspects))
        if lease.served.until is None:
            change.remove("served_until")
        else:
            change.set("served_until", time_text(lease.served.until))

    # -- the health of connections, endpoints and receivers -----------------------------------------------------------

    def connection_health(self, name: str) -> ConnectionHealth | None:
        """A connection's back-off, if one runs, read consistently."""
        item = self._get({"pk": f"CONNECTION#{name}", "sk": "HEALTH"})
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
        key = {"pk": f"CONNECTION#{name}", "sk": "HEALTH"}
        if health is None:
            self._client.delete_item(TableName=self._table, Key=to_wire(key))
            return
        if health.steps <= 1:
            change = Change()
            for attribute, value in _back_off(health).items():
                change.set(attribute, value)
            change.remove("probe")
            shorter = f"({change.absent('retry_at')} OR {change.at_most('retry_at', time_text(health.retry_at))})"
            self._applies(change.update(self._table, key, [shorter]))
            return
        self._client.put_item(TableName=self._table, Item=to_wire(key | _back_off(health)))

    def claim_probe(self, name: str, health: ConnectionHealth, token: str, now: datetime) -> bool:
        """Writes a connection's back-off with a later `retry_at`, if it stands at the same step and its time has come.

        Whoever does probes; `token` is the prober's own. One that is not there has ended: another's probe was answered.
        """
        change = Change()
        for attribute, value in _back_off(health).items():
            change.set(attribute, value)
        change.set("probe", token)
        conditions = [change.at_most("retry_at", time_text(now)), change.equals("steps", health.steps)]
        update = change.update(self._table, {"pk": f"CONNECTION#{name}", "sk": "HEALTH"}, conditions)
        return self._applies(update, mine=("probe", token))

    def endpoint_health(self, owner: str, endpoint_id: str) -> EndpointHealth:
        """What an endpoint's attempts since its last success say of it, read consistently."""
        item = self._get(self._endpoint_key(owner, endpoint_id)) or {}
        return EndpointHealth(*(items.parse_time(item[name]) if name in item else None for name in HEALTH_ATTRIBUTES))

    def failing_endpoints(self, owner: str, endpoint_ids: Iterable[str]) -> set[str]:
        """Which of an owner's endpoints fail, read eventually consistently; one that is not served counts as well."""
        keys = [to_wire(self._endpoint_key(owner, endpoint_id)) for endpoint_id in sorted(set(endpoint_ids))]
        found: set[str] = set()
        for first in range(0, len(keys), MOST_READ_AT_ONCE):
            for item in self._batch_get(keys[first : first + MOST_READ_AT_ONCE]):
                if HEALTH_ATTRIBUTES[0] in item:
                    found.add(item["sk"].removeprefix("ENDPOINT#"))
        return found

    def note_endpoint_health(
        self, owner: str, endpoint_id: str, seen: EndpointHealth, after: EndpointHealth, token: str
    ) -> bool:
        """Writes an endpoint's health if it still is as it was seen; False if another has noted something meanwhile.

        A success clears whatever has become of the failures that were seen. The note on a URL given inline is
        forgotten a month after it was written: nobody may ever use the URL again. `token` is the writer's own.
        """
        old, new = _health_attributes(seen), _health_attributes(after)
        known = HEALTH_ATTRIBUTES if new else HEALTH_ATTRIBUTES[:1]
        change = Change()
        conditions = [change.equals(name, old[name]) if name in old else change.absent(name) for name in known]
        for name in HEALTH_ATTRIBUTES:
            if name not in new:
                change.remove(name)
            elif old.get(name) != new[name]:
                change.set(name, new[name])
        newest = max((at for at in (after.failing_since, after.confirmed_at, after.disabled_at) if at), default=None)
        if newest is not None:
            change.set("ttl", int(newest.timestamp()) + FAILING_KEPT_S)
        change.set("token", token)
        update = change.update(self._table, self._endpoint_key(owner, endpoint_id), conditions)
        return self._applies(update, mine=("token", token))

    @staticmethod
    def _endpoint_key(owner: str, endpoint_id: str) -> Key:
        return {"pk": f"OWNER#{owner}", "sk": f"ENDPOINT#{endpoint_id}"}

    def receiver_health(self, owner: str, receiver: str) -> ReceiverHealth:
        """How an owner's receiver took the last attempt, read consistently."""
        item = self._get(self._receiver_key(owner, receiver)) or {}
        return ReceiverHealth(ReceiverState(item.get("state", ReceiverState.WELL)), item.get("endpoint_id"))

    def note_receiver_health(
        self, owner: str, receiver: str, seen: ReceiverHealth, after: ReceiverHealth, *, now: datetime, token: str
    ) -> bool:
        """Writes a receiver's health if it still is as it was seen; False if another has noted something meanwhile.

        The note is forgotten after a month. `token` is the writer's own.
        """
        old, new = _receiver_attributes(seen), _receiver_attributes(after)
        change = Change()
        conditions = [change.equals(name, value) if value else change.absent(name) for name, value in old.items()]
        for name, value in new.items():
            if value is None:
                change.remove(name)
            else:
                change.set(name, value)
        change.set("ttl", int(now.timestamp()) + FAILING_KEPT_S)
        change.set("token", token)
        update = change.update(self._table, self._receiver_key(owner, receiver), conditions)
        return self._applies(update, mine=("token", token))

    @staticmethod
    def _receiver_key(owner: str, receiver: str) -> Key:
        return {"pk": f"OWNER#{owner}", "sk": f"RECEIVER#{receiver}"}

    # -- copying and cleaning ---------------------------------------------------------------------------------------

    def work(self, task_id: str) -> Work | None:
        """A task with the state of its copy, read consistently."""
        item = self._get(task_key(task_id))
        if item is None:
            return None
        return _read(_work_from, item)

    def claim_work(self, seen: Work, token: str, until: datetime | None) -> Work | None:
        """Claims a task's step as it was seen, counting the try; None if it changed meanwhile.

        `until` is the claim's end; None leaves `due_at` as it stands, which costs no write of the index.
        """
        task = seen.task
        change = Change()
        change.set("token", token)
        change.set("tries", seen.tries + 1)
        conditions = self._as_seen(change, seen)
        interrupted = seen.interrupted or seen.token is not None
        if interrupted and not seen.interrupted:
            change.set("interrupted", True)
        if until is not None:
            task = replace(task, due_at=until, version=task.version + 1)
            change.set("due_at", time_text(until))
            change.set("version", task.version)
        update = change.update(self._table, task_key(task.task_id), conditions)
        if not self._applies(update, mine=("token", token)):
            return None
        return replace(seen, task=task, token=token, tries=seen.tries + 1, interrupted=interrupted)

    def postpone_work(
        self, seen: Work, due_at: datetime, *, interrupted: bool = False, problem: PollError | None = None
    ) -> Work:
        """Gives up a claim until a later time; `interrupted` means that it was another's and had run out."""
        task = replace(
            seen.task,
            due_at=due_at,
            version=seen.task.version + 1,
            last_poll_error=problem or seen.task.last_poll_error,
        )
        change = Change()
        conditions = self._as_seen(change, seen)
        change.set("due_at", time_text(due_at))
        change.set("version", task.version)
        change.remove("token")
        if problem is not None:
            change.set("last_poll_error", items.task_attributes(task)["last_poll_error"])
        if interrupted and not seen.interrupted:
            change.set("interrupted", True)
        self._held(change.update(self._table, task_key(task.task_id), conditions), task.task_id)
        return replace(seen, task=task, token=None, interrupted=seen.interrupted or interrupted)

    def renew_work(self, held: Work, until: datetime) -> Work:
        """Moves the end of a running claim; raises `ClaimLostError`."""
        task = replace(held.task, due_at=until, version=held.task.version + 1)
        change = Change()
        conditions = [change.equals("token", held.token)]
        change.set("due_at", time_text(until))
        change.set("version", task.version)
        self._held(change.update(self._table, task_key(task.task_id), conditions), task.task_id)
        return replace(held, task=task)

    def note_upload(
        self, held: Work, upload: Upload | None, *, stored: StoredFile | None = None, progressed: bool = False
    ) -> Work:
        """Keeps the open upload (None: there is none) and a file just finished.

        Progress takes the count of tries back to one for each upload that the file has had; a file that is done
        clears both counts.
        """
        begun, tries = held.begun, held.tries
        if stored is not None:
            begun = 0
        elif upload is not None and (held.upload is None or upload.upload_id != held.upload.upload_id):
            begun += 1
        if progressed:
            tries = min(tries, begun)
        change = Change()
        conditions = [change.equals("token", held.token)]
        if upload is None:
            change.remove("upload")
        elif upload != held.upload:
            attributes = {name: getattr(upload, name) for name in upload.__dataclass_fields__}
            change.set("upload", items.present(attributes))
        if stored is not None:
            change.append("stored", [items.file_attributes(stored)])
        if begun != held.begun:
            change.set("begun", begun)
        if tries != held.tries:
            change.set("tries", tries)
        if not change.empty:
            self._held(change.update(self._table, task_key(held.task.task_id), conditions), held.task.task_id)
        return replace(
            held,
            upload=upload,
            stored=held.stored if stored is None else (*held.stored, stored),
            tries=tries,
            begun=begun,
        )

    def forget(self, held: Work) -> None:
        """Removes all items of a deleted task under its claim; raises `ClaimLostError`.

        The task's own item goes last: until then, whoever claims it next goes on.
        """
        own = task_key(held.task.task_id)
        found = self._query(
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues=to_wire({":pk": own["pk"]}),
            ConsistentRead=True,
        )
        for item in found:
            if item["sk"] != own["sk"]:
                self._remove({"pk": item["pk"], "sk": item["sk"]})
        try:
            # absent: the SDK repeats a call whose answer was lost
            self._remove(
                own,
                ConditionExpression="attribute_not_exists(pk) OR #token = :token",
                ExpressionAttributeNames={"#token": "token"},
                ExpressionAttributeValues=to_wire({":token": held.token}),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            raise ClaimLostError(f"the claim on task {held.task.task_id} has passed on") from None

    def _remove(self, key: Key, **more: Any) -> None:
        self._unless_busy(self._client.delete_item, {"TableName": self._table, "Key": to_wire(key), **more})

    @staticmethod
    def _as_seen(change: Change, seen: Work) -> list[str]:
        """The item is as it was seen: the version, and no claim or progress since."""
        return [
            change.equals("version", seen.task.version),
            change.equals("tries", seen.tries) if seen.tries else change.absent_or("tries", 0),
            change.equals("token", seen.token) if seen.token else change.absent("token"),
        ]

    # -- deliveries -------------------------------------------------------------------------------------------------

    def deliveries(self, task_id: str) -> tuple[Delivery, ...]:
        """All deliveries of a task, read consistently; one that cannot be read is left out."""
        return tuple(_readable(items.delivery_from, self._delivery_items(task_id)))

    def _delivery_items(self, task_id: str) -> Iterator[dict[str, Any]]:
        return self._query(
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues=to_wire({":pk": f"TASK#{task_id}", ":prefix": "DELIVERY#"}),
            ConsistentRead=True,
        )

    def delivery(self, pk: str, sk: str) -> Delivery | None:
        """One delivery by its key, read consistently; raises `UnreadableItemError`."""
        item = self._get({"pk": pk, "sk": sk})
        return None if item is None else _read(items.delivery_from, item)

    def claim_delivery(self, seen: Delivery, token: str, until: datetime | None) -> Delivery | None:
        """Claims a pending delivery as it was seen, counting the try; None if it changed meanwhile.

        `until` is the claim's end; None leaves `due_at` as it stands.
        """
        claimed = replace(seen, token=token, tries=seen.tries + 1, due_at=until or seen.due_at)
        return claimed if self._put_delivery(seen, claimed, mine=("token", token)) else None

    def finish_delivery(self, held: Delivery, after: Delivery) -> bool:
        """Writes what an attempt made of a delivery; False if the claim was lost meanwhile."""
        return self._put_delivery(held, after)

    def _put_delivery(self, seen: Delivery, after: Delivery, *, mine: tuple[str, str] | None = None) -> bool:
        old, new = items.delivery_attributes(seen), items.delivery_attributes(after)
        change = Change()
        conditions = [
            change.equals("state", DeliveryState.PENDING.value),
            change.equals("tries", seen.tries),
            change.equals("token", seen.token) if seen.token else change.absent("token"),
        ]
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                change.remove(name)
            elif old.get(name) != new[name]:
                change.set(name, new[name])
        if after.state in {DeliveryState.EXHAUSTED, DeliveryState.DISABLED} and after.last_attempt_at is not None:
            change.set("list_pk", f"FAILED#{after.endpoint_id}")
            change.set("list_sk", time_text(after.last_attempt_at))
        return self._applies(change.update(self._table, delivery_key(seen), conditions), mine=mine)

    def put_attempt(self, attempt: Attempt, ttl: int | None) -> None:
        """Records an attempt."""
        item = self._attempt_key(attempt) | items.attempt_attributes(attempt) | ({} if ttl is None else {"ttl": ttl})
        self._client.put_item(TableName=self._table, Item=to_wire(item))

    def remove_attempt(self, attempt: Attempt) -> None:
        """Removes the record of an attempt."""
        self._remove(self._attempt_key(attempt))

    def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        """All attempts for a task, oldest first; one that cannot be read is left out."""
        found = self._query(
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues=to_wire({":pk": f"TASK#{task_id}", ":prefix": "ATTEMPT#"}),
            ConsistentRead=True,
        )
        return tuple(_readable(items.attempt_from, found))

    @staticmethod
    def _attempt_key(attempt: Attempt) -> Key:
        sk = f"ATTEMPT#{time_text(attempt.at)}#{attempt.endpoint_id}#{attempt.event}"
        return {"pk": f"TASK#{attempt.task_id}", "sk": sk}

    # -- API keys ---------------------------------------------------------------------------------------------------

    def key(self, key_hash: str) -> ApiKey | None:
        """The key with this SHA-256, in hex."""
        item = self._get({"pk": f"KEY#{key_hash}", "sk": "KEY"})
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
        fresh = {"ConditionExpression": "attribute_not_exists(pk)"}
        self._transact(*(self._put(one | told, **fresh) for one in _key_keys(key)))

    def keys(self, owner: str) -> tuple[ApiKey, ...]:
        """An owner's keys, by id."""
        found = self._query(
            KeyConditionExpression="pk = :owner AND begins_with(sk, :key)",
            ExpressionAttributeValues=to_wire({":owner": f"OWNER#{owner}", ":key": "KEY#"}),
            ConsistentRead=True,
        )
        return tuple(_key_from(item) for item in found)

    def delete_key(self, key: ApiKey) -> None:
        """Removes a key's two items together."""
        by_hash, by_id = _key_keys(key)
        self._transact(*({"Delete": {"TableName": self._table, "Key": to_wire(one)}} for one in (by_hash, by_id)))

    # -- the wire ---------------------------------------------------------------------------------------------------

    def _get(self, key: Key, *, consistent: bool = True) -> dict[str, Any] | None:
        answer = self._client.get_item(TableName=self._table, Key=to_wire(key), ConsistentRead=consistent)
        return from_wire(answer["Item"]) if "Item" in answer else None

    def _batch_get(self, keys: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Those of up to 100 items that are there, in no order, but for what is not served after a few calls."""
        left: Any = {self._table: {"Keys": keys}}
        for pause_s in (*THROTTLED_PAUSES_S, None):
            answer = self._client.batch_get_item(RequestItems=left)
            yield from map(from_wire, answer["Responses"].get(self._table, []))
            left = answer.get("UnprocessedKeys")
            if not left:
                return
            if pause_s is not None:
                self._pause(_jittered(pause_s, 0.5))
        logger.warning("items not read", extra={"number": len(left[self._table]["Keys"])})

    def _query(self, **query: Any) -> Iterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            page = self._client.query(TableName=self._table, **query, **start)
            yield from map(from_wire, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _put(self, item: Mapping[str, object], **more: Any) -> dict[str, Any]:
        return {"Put": {"TableName": self._table, "Item": to_wire(item), **more}}

    def _transact(self, *writes: Any) -> None:
        """Writes all or nothing; raises `_CancelledError` where a condition failed or others were in the way."""
        try:
            self._unless_busy(self._client.transact_write_items, {"TransactItems": writes})
        except self._client.exceptions.TransactionCanceledException as error:
            cancelled = _CancelledError(error)
            if cancelled.throttled or not (any(cancelled.failed) or cancelled.met_another):
                raise
            raise cancelled from error

    def _applies(self, update: dict[str, Any], *, mine: tuple[str, str] | None = None) -> bool:
        """Writes unless the condition fails.

        `mine` is an attribute that only this write can have set: a call that the SDK repeats, because its answer was
        lost, meets its own first try.
        """
        try:
            self._unless_busy(self._client.update_item, update | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"})
        except self._client.exceptions.ConditionalCheckFailedException as error:
            item: Any = error.response.get("Item")
            return bool(mine and item and from_wire(item).get(mine[0]) == mine[1])
        return True

    def _unless_busy(self, write: Callable[..., Any], arguments: dict[str, Any]) -> None:
        """Writes, and repeats what only came at a bad moment.

        A write that met another's transaction in flight soon finds it gone. A transaction that is throttled is
        cancelled, which botocore does not repeat as it does a throttled write.
        """
        for most_s in THROTTLED_PAUSES_S:
            try:
                write(**arguments)
            except self._client.exceptions.TransactionConflictException:
                self._pause(_jittered(CONFLICT_PAUSE_S, 0.2))
            except self._client.exceptions.TransactionCanceledException as error:
                cancelled = _CancelledError(error)
                if cancelled.throttled:
                    self._pause(_jittered(most_s, 0.5))
                elif cancelled.met_another:
                    self._pause(_jittered(CONFLICT_PAUSE_S, 0.2))
                else:
                    raise
            else:
                return
        write(**arguments)

    def _held(self, update: dict[str, Any], task_id: str) -> None:
        if not self._applies(update):
            raise ClaimLostError(f"the claim on task {task_id} has passed on")


class _CancelledError(RenderbellError):
    """A transaction was cancelled; per write whether its condition failed, and the item that stood there."""

    def __init__(self, error: ClientError) -> None:
        super().__init__("transaction cancelled")
        reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
        self.codes = [reason.get("Code", "None") for reason in reasons]
        self.failed = [code == "ConditionalCheckFailed" for code in self.codes]
        self.items = [from_wire(reason["Item"]) if reason.get("Item") else None for reason in reasons]

    @property
    def throttled(self) -> bool:
        """Whether nothing but AWS's limits is sure to stand in the way; a failed condition stays failed."""
        return not any(self.failed) and not THROTTLED.isdisjoint(self.codes)

    @property
    def met_another(self) -> bool:
        """Whether another's transaction was in flight."""
        return "TransactionConflict" in self.codes

    def __str__(self) -> str:
        return f"transaction cancelled: {', '.join(self.codes)}"


def _due_from(item: Mapping[str, Any]) -> Task | DueDelivery:
    if item["sk"] == "TASK":
        return items.task_from(task_id_of(item["pk"]), item)
    return DueDelivery((item["pk"], item["sk"]), *items.due_delivery_from(item))


def _read(read: Callable[[str, Mapping[str, Any]], T], item: Mapping[str, Any]) -> T:
    """What a task's item holds; raises `UnreadableItemError` if it is not as this package writes it."""
    try:
        return read(task_id_of(item["pk"]), item)
    except Exception as error:  # whatever is wrong with it
        raise UnreadableItemError((item["pk"], item["sk"])) from error


def _work_from(task_id: str, item: Mapping[str, Any]) -> Work:
    upload = item.get("upload")
    return Work(
        task=items.task_from(task_id, item),
        tries=int(item.get("tries", 0)),
        token=item.get("token"),
        upload=upload
        and Upload(
            **{
                "validator": None,
                **upload,
                "n": int(upload["n"]),
                "part_size": int(upload["part_size"]),
                "size_bytes": int(upload["size_bytes"]) if "size_bytes" in upload else None,
            }
        ),
        stored=tuple(items.file_from(file) for file in item.get("stored", ())),
        interrupted=bool(item.get("interrupted")),
        begun=int(item.get("begun", 0)),
    )


def _readable(read: Callable[[str, Mapping[str, Any]], T], found: Iterable[Mapping[str, Any]]) -> Iterator[T]:
    """What a task's items hold, but for those that are not as this package writes them."""
    for item in found:
        try:
            yield _read(read, item)
        except UnreadableItemError:
            logger.exception("item cannot be read", extra={"pk": item["pk"], "sk": item["sk"]})


def _health_attributes(health: EndpointHealth) -> dict[str, str]:
    times = (health.failing_since, health.confirmed_at, health.disabled_at)
    return {name: time_text(at) for name, at in zip(HEALTH_ATTRIBUTES, times, strict=True) if at is not None}


def _back_off(health: ConnectionHealth) -> dict[str, object]:
    return {
        "steps": health.steps,
        "retry_at": time_text(health.retry_at),
        "kind": health.kind,
        "since": time_text(health.since),
        "failures": health.failures,
    }


def _receiver_attributes(health: ReceiverHealth) -> dict[str, str | None]:
    """A receiver's health as it is written; nothing is written of a state that is well."""
    return {"state": None if health == WELL else health.state.value, "endpoint_id": health.endpoint_id}


def _key_keys(key: ApiKey) -> tuple[Key, Key]:
    """Where a key's two items stand: by hash, and by id."""
    return {"pk": f"KEY#{key.key_hash}", "sk": "KEY"}, {"pk": f"OWNER#{key.owner}", "sk": f"KEY#{key.key_id}"}


def _key_from(item: Mapping[str, Any]) -> ApiKey:
    created_at = items.parse_time(item["created_at"])
    return ApiKey(item["key_id"], item["key_hash"], item["owner"], item["scope"], item["name"], created_at)


def _is_with_provider(status: Status) -> bool:
    return status in {Status.QUEUED, Status.PROCESSING}


def _lease_from(worker: int, item: Mapping[str, Any]) -> Lease:
    served_until = item.get("served_until")
    return Lease(
        worker=worker,
        holder=item["holder"],
        until=items.parse_time(item["until"]),
        relief=bool(item.get("relief")),
        served=Served(
            items.parse_time(served_until) if served_until else None,
            {name: items.parse_time(at) for name, at in item.get("lagging", {}).items()},
            {name: items.parse_time(at) for name, at in item.get("paced", {}).items()},
            {name: items.parse_time(at) for name, at in item.get("told", {}).items()},
            dict(item.get("turns", {})),
        ),
        workers=int(item["workers"]),
        slots=int(item["slots"]),
        left=bool(item.get("left")),
        deaths=int(item.get("deaths", 0)),
        suspects={task_id: int(version) for task_id, version in item.get("suspects", {}).items()},
    )
