"""What an owner does with tasks: register, read, cancel, retry, delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from aws_lambda_powertools import Logger
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from renderbell.addresses import EgressPolicy, check_webhook_url
from renderbell.ask import Fetch, delete_at_provider
from renderbell.connections import usable_by
from renderbell.delivery import DEFAULT_EVENTS, MAX_ENDPOINTS, TASK_EVENTS, Delivery, DeliveryState
from renderbell.errors import (
    AddressRefusedError,
    AlreadyRegisteredError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RenderbellError,
    VersionConflictError,
)
from renderbell.ids import Seed, id_pattern
from renderbell.invoke import Invoker
from renderbell.models import Model
from renderbell.providers.base import MAX_TASK_ID_BYTES, TASK_ID_PATTERN, Connection, check_provider_task_id
from renderbell.schedule import slot_of
from renderbell.store import AlreadyOngoingError, Lease, task_key
from renderbell.task import (
    DEFAULT_DEADLINE_S,
    MAX_DEADLINE_S,
    MIN_DEADLINE_S,
    Request,
    Status,
    Task,
    Webhook,
    cancel,
    delete,
    new_task,
)
from renderbell.transition import TRIES, TransitionStore, change_task
from renderbell.wake import PollerWaker

if TYPE_CHECKING:
    from renderbell.deliver import SideBySide

__all__ = [
    "Connections",
    "Event",
    "Registered",
    "TaskRecord",
    "TaskRequest",
    "TaskStore",
    "Tasks",
    "WebhookRequest",
]

MAX_URL_BYTES = 2048
MAX_METADATA_PAIRS = 16
MAX_METADATA_BYTES = 4096
AFTERLIFE_DAYS = 14  # copies take up to 16 h and deliveries up to 10 days after the deadline
PROCESSING = "task.processing"
CONNECTION_NAME = re.compile(r"[a-z0-9-]{1,32}")
TASK_ID = id_pattern("tsk")

_CONTROL = re.compile(r"[\x00-\x1f]")
_PLAIN = r"^[^\x00-\x1f]*$"  # the same in the OpenAPI document

logger = Logger()


# -- what is asked ------------------------------------------------------------------------------------------------


def _known_id(value: str) -> str:
    try:
        check_provider_task_id(value)
    except ValueError as error:
        raise PydanticCustomError("provider_task_id_unusable", "{reason}", {"reason": str(error)}) from None
    return value


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        raise PydanticCustomError("string_unicode", "must be valid Unicode") from None


def _short_url(value: str) -> str:
    if _size(value) > MAX_URL_BYTES:
        raise PydanticCustomError("url_too_long", f"must be at most {MAX_URL_BYTES} bytes")
    return value


def _small_metadata(value: dict[str, str]) -> dict[str, str]:
    if any(not key for key in value):
        raise PydanticCustomError("metadata_invalid", "keys must not be empty")
    if any(_CONTROL.search(text) for pair in value.items() for text in pair):
        raise PydanticCustomError("metadata_invalid", "must not contain control characters")
    if sum(_size(text) for pair in value.items() for text in pair) > MAX_METADATA_BYTES:
        raise PydanticCustomError(
            "metadata_too_large", f"keys and values must be at most {MAX_METADATA_BYTES} bytes of UTF-8 in all"
        )
    return value


def _whole(value: object) -> object:
    """JSON tells 90.0 and 90 apart no more than its schemas do."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Url = Annotated[
    str,
    AfterValidator(_short_url),
    Field(json_schema_extra={"format": "uri", "maxLength": MAX_URL_BYTES}, examples=["https://example.com/hooks"]),
]
Event = Literal["task.processing", "task.completed", "task.failed", "task.expired", "task.cancelled"]


class WebhookRequest(Model):
    """Where to send which events."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Url
    events: (
        Annotated[
            list[Event],
            Field(min_length=1, max_length=20, description="Without it: every end of a task, not `task.processing`."),
        ]
        | None
    ) = None


class TaskRequest(Model):
    """A render to watch."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "connection": "studio",
                    "provider_task_id": "0f7c2f6e-58a8-4c3b-9f5e-2f0c9f4f7a51",
                    "webhook_url": "https://example.com/hooks/renders",
                    "metadata": {"order": "4711"},
                }
            ]
        },
    )

    connection: Annotated[str, Field(description="The name of one of your connections.")]
    provider_task_id: Annotated[
        str,
        AfterValidator(_known_id),
        Field(
            description=f"The id that the provider gave the render; at most {MAX_TASK_ID_BYTES} bytes of UTF-8.",
            json_schema_extra={
                "minLength": 1,
                "maxLength": MAX_TASK_ID_BYTES,
                "pattern": TASK_ID_PATTERN,
                "not": {"enum": [".", ".."]},
            },
        ),
    ]
    webhook_url: Annotated[Url, Field(description="Short for `webhooks` with one URL.")] | None = None
    webhooks: (
        Annotated[
            list[WebhookRequest],
            Field(
                max_length=MAX_ENDPOINTS, description="Without any, your endpoints are told; with some, these alone."
            ),
        ]
        | None
    ) = None
    metadata: (
        Annotated[
            dict[str, str],
            Field(
                max_length=MAX_METADATA_PAIRS,
                description=f"Comes back with every webhook; at most {MAX_METADATA_BYTES} bytes of UTF-8 in all.",
                json_schema_extra={
                    "propertyNames": {"minLength": 1, "pattern": _PLAIN},
                    "additionalProperties": {"type": "string", "pattern": _PLAIN},
                },
            ),
            AfterValidator(_small_metadata),
        ]
        | None
    ) = None
    deadline_s: (
        Annotated[
            int,
            Field(
                strict=True,
                ge=MIN_DEADLINE_S,
                le=MAX_DEADLINE_S,
                description="Seconds after which we stop watching; else the connection's, else 24 hours.",
            ),
            BeforeValidator(_whole),
        ]
        | None
    ) = None

    @field_validator("webhooks")
    @classmethod
    def _one_way_to_name_webhooks(
        cls, value: list[WebhookRequest] | None, info: ValidationInfo
    ) -> list[WebhookRequest] | None:
        if value is not None and info.data.get("webhook_url") is not None:
            raise PydanticCustomError("conflicting_fields", "give either webhook_url or webhooks, not both")
        return value

    @property
    def asked_webhooks(self) -> tuple[Webhook, ...] | None:
        """The webhooks with their events in a fixed order; None where none are given."""
        if self.webhook_url is not None:
            return (Webhook(self.webhook_url, DEFAULT_EVENTS),)
        if self.webhooks is None:
            return None
        return tuple(
            Webhook(one.url, tuple(event for event in TASK_EVENTS if event in (one.events or DEFAULT_EVENTS)))
            for one in self.webhooks
        )


# -- what it needs ------------------------------------------------------------------------------------------------


class TaskStore(TransitionStore, Protocol):
    """What is used of the store."""

    def register(self, task: Task, request: Request) -> None: ...
    def task(self, task_id: str) -> Task | None: ...
    def deliveries(self, task_id: str) -> tuple[Delivery, ...]: ...
    def delete(self, before: Task, after: Task) -> Task: ...
    def lease(self, worker: int) -> Lease | None: ...


class Connections(Protocol):
    """What is used of the operator's connections."""

    def get(self, name: str) -> Connection | None: ...
    def all(self) -> Mapping[str, Connection]: ...


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task with what was asked and what became of its webhooks."""

    task: Task
    request: Request
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class Registered(TaskRecord):
    """The answer to a registration; `created` is False where the same task was already watched."""

    created: bool = True


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Tasks:
    """The use cases of an owner; another owner's task does not exist for them."""

    store: TaskStore
    connections: Connections
    fetch: Fetch
    invoker: Invoker
    egress: EgressPolicy
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    slots: int
    poller_workers: int
    poller_function: str
    notifier_function: str
    task_retention_days: int
    side_by_side: SideBySide
    tells_bus: bool = False

    def register_task(self, asked: TaskRequest, *, owner: str, base_url: str, seed: Seed | None = None) -> Registered:
        """Begins to watch a render, or finds that the owner already does; `register` says how."""
        registered = self._register(asked, owner, base_url, seed)
        self._wake_pollers([registered])
        return registered

    def register_batch(
        self, asked: Sequence[TaskRequest], *, owner: str, base_url: str, seed: Seed | None = None
    ) -> list[Registered | RenderbellError]:
        """Registers each, a few at a time; one that is refused undoes no other. Answers in their order."""

        def register(n: int, one: TaskRequest) -> Registered | RenderbellError:
            try:
                return self._register(one, owner, base_url, seed and seed.nth(n))
            except RenderbellError as error:
                return error
            except Exception:
                logger.exception("not registered", extra={"owner": owner})
                return RenderbellError("something failed on our side")

        found = self.side_by_side([partial(register, n, one) for n, one in enumerate(asked)])
        self._wake_pollers([one for one in found if isinstance(one, Registered)])
        return found

    def _register(self, asked: TaskRequest, owner: str, base_url: str, seed: Seed | None) -> Registered:
        """Begins to watch a render, or finds that the owner already does.

        `base_url` starts the links to our API. The record is kept for `task_retention_days` and 14 days beyond the
        deadline: copying and delivering may take up to 11 days after it. Raises `InvalidInputError`, and
        `AlreadyRegisteredError` if the render is watched with other webhooks, metadata or deadline.
        """
        if (made := self._made_before(seed, owner)) is not None:
            return made
        connection = self._connection(asked.connection, owner)
        self._check_webhooks(asked)
        task_id = self._new_id(seed)
        taken_by = ""
        for _ in range(2):  # the running task may end between the refused write and the look at it
            task, request = self._new(asked, task_id, connection, owner, base_url)
            try:
                self.store.register(task, request)
            except AlreadyOngoingError as error:
                taken_by = error.task_id
            else:
                return Registered(task, request)
            running = self._find(taken_by, owner)
            if running is None or running.task.status not in {Status.QUEUED, Status.PROCESSING}:
                continue
            if not _agrees(asked, running.request):
                raise AlreadyRegisteredError(taken_by)
            return Registered(running.task, running.request, self.store.deliveries(running.task.task_id), created=False)
        raise AlreadyRegisteredError(taken_by)

    def find_task(self, task_id: str, *, owner: str) -> TaskRecord:
        """A task of the owner's, without its deliveries; raises `NotFoundError`."""
        found = self._find(task_id, owner)
        if found is None:
            raise NotFoundError("there is no such task")
        return found

    def read_task(self, task_id: str, *, owner: str) -> TaskRecord:
        """A task of the owner's; raises `NotFoundError`."""
        found = self.find_task(task_id, owner=owner)
        return TaskRecord(found.task, found.request, self.store.deliveries(task_id))

    def cancel_task(self, task_id: str, *, owner: str) -> TaskRecord:
        """Stops watching; the provider goes on. Cancelling again changes nothing.

        Raises `NotFoundError`, and `ConflictError` if the task has ended in another way.
        """
        found = self.find_task(task_id, owner=owner)
        changed = change_task(self.store, found.task, cancel, self.clock)
        if changed is None or changed.after.deleted:
            raise NotFoundError("there is no such task")
        task = changed.after
        if not task.status.terminal:  # lost every race: the task moves faster than we write
            raise ConflictError("the task is changing; try again", code="try_again")
        if task.status is not Status.CANCELLED:
            raise ConflictError(f"the task has already ended as {task.status}", code="task_ended")
        if changed.for_notifier:
            self._wake_notifier(task)
        return TaskRecord(task, found.request, self.store.deliveries(task_id))

    def retry_task(self, task_id: str, *, owner: str, base_url: str, seed: Seed | None = None) -> Registered:
        """Watches the render of a task that has ended in vain anew, as a new task that asks for the same.

        The old one stays as it is. Raises `NotFoundError`, `ConflictError` unless it is FAILED or EXPIRED, or where its
        connection is there no more, and `AlreadyRegisteredError` where the render is watched already.
        """
        found = self.find_task(task_id, owner=owner)
        old, asked = found.task, found.request
        if (made := self._made_before(seed, owner)) is not None:
            self._wake_pollers([made])
            return made
        if old.status not in {Status.FAILED, Status.EXPIRED}:
            raise ConflictError(
                f"the task is {old.status}; only FAILED and EXPIRED are retried", code="task_not_failed"
            )
        try:
            connection = self._connection(old.connection, owner)
        except InvalidInputError:
            raise ConflictError("the task's connection is there no more", code="unknown_connection") from None
        task, request = self._made(
            self._new_id(seed),
            connection,
            owner,
            old.provider_task_id,
            deadline_s=asked.deadline_s,
            base_url=base_url,
            metadata=asked.metadata,
            hooks=asked.webhooks,
            retry_of=old.task_id,
        )
        try:
            self.store.register(task, request)
        except AlreadyOngoingError as error:
            raise AlreadyRegisteredError(error.task_id) from None
        registered = Registered(task, request)
        self._wake_pollers([registered])
        return registered

    def delete_task(self, task_id: str, *, owner: str, force: bool, at_provider: bool = False) -> None:
        """Removes a task: at once for its owner, and a minute later its files, deliveries and attempts too.

        With `force` a running task is cancelled, and pending deliveries are dropped; nothing is sent for it any more.
        With `at_provider` its provider deletes it first; where that cannot be had (`InvalidInputError`,
        `ProviderError`), nothing is deleted here. Raises `NotFoundError`, and `ConflictError` if the task runs or a
        delivery is pending and `force` is not given.
        """
        found = self.find_task(task_id, owner=owner)
        task = found.task
        if at_provider:
            if not force:
                self._check_at_rest(task)
            delete_at_provider(self.connections, self.fetch, task)
        for _ in range(TRIES):
            if not force:
                self._check_at_rest(task)
            try:
                self.store.delete(task, delete(task, self.clock()))
            except VersionConflictError as lost:
                if lost.current is None or lost.current.deleted:
                    raise NotFoundError("there is no such task") from None
                task = lost.current
            else:
                return
        raise ConflictError("the task is changing; try again", code="try_again")

    def _check_at_rest(self, task: Task) -> None:
        if not task.status.terminal:
            raise ConflictError(f"the task is {task.status}; force=true cancels and deletes it", code="task_running")
        if any(one.state is DeliveryState.PENDING for one in self.store.deliveries(task.task_id)):
            raise ConflictError("a webhook is yet to be delivered; force=true drops it", code="delivery_pending")

    def _connection(self, name: str, owner: str) -> Connection:
        connection = self.connections.get(name) if CONNECTION_NAME.fullmatch(name) else None
        if connection is None or not usable_by(connection, owner):
            raise InvalidInputError("connection", "there is no such connection", code="unknown_connection")
        return connection

    def _check_webhooks(self, asked: TaskRequest) -> None:
        seen: set[str] = set()
        for index, webhook in enumerate(asked.asked_webhooks or ()):
            field = "webhook_url" if asked.webhook_url is not None else f"webhooks.{index}.url"
            try:
                check_webhook_url(webhook.url, self.egress)
            except AddressRefusedError as error:
                raise InvalidInputError(field, str(error), code="url_not_allowed") from None
            if webhook.url in seen:
                raise InvalidInputError(field, "must not be given twice", code="duplicate_url")
            seen.add(webhook.url)

    def _made_before(self, seed: Seed | None, owner: str) -> Registered | None:
        """The task that a repeated call has made already, if it is there."""
        made = self._find(seed.id("tsk"), owner) if seed and seed.repeated else None
        if made is None:
            return None
        return Registered(made.task, made.request, self.store.deliveries(made.task.task_id))

    def _new_id(self, seed: Seed | None) -> str:
        """The id of a new task; not the seed's where that task was made before and has been deleted since."""
        if seed is None:
            return self.new_id()
        named = seed.id("tsk")
        return self.new_id() if seed.repeated and self.store.task(named) is not None else named

    def _new(
        self, asked: TaskRequest, task_id: str, connection: Connection, owner: str, base_url: str
    ) -> tuple[Task, Request]:
        return self._made(
            task_id,
            connection,
            owner,
            asked.provider_task_id,
            deadline_s=asked.deadline_s or connection.deadline_s or DEFAULT_DEADLINE_S,
            base_url=base_url,
            metadata=dict(asked.metadata or {}),
            hooks=asked.asked_webhooks or (),
        )

    def _made(
        self,
        task_id: str,
        connection: Connection,
        owner: str,
        provider_task_id: str,
        *,
        deadline_s: int,
        base_url: str,
        metadata: Mapping[str, str],
        hooks: tuple[Webhook, ...],
        retry_of: str | None = None,
    ) -> tuple[Task, Request]:
        now = self.clock()
        task = new_task(
            task_id=task_id,
            owner=owner,
            connection=connection.name,
            provider=connection.type,
            provider_task_id=provider_task_id,
            now=now,
            deadline_s=deadline_s,
            slot=slot_of(task_id, self.slots),
            tells_processing=self.tells_bus
            or any(PROCESSING in one.events for one in hooks or self.store.endpoints(owner)),
        )
        forgotten_at = task.expires_at + timedelta(days=AFTERLIFE_DAYS + self.task_retention_days)
        request = Request(
            task_id=task_id,
            owner=owner,
            created_at=now,
            deadline_s=deadline_s,
            base_url=base_url,
            ttl=int(forgotten_at.timestamp()),
            metadata=metadata,
            webhooks=hooks,
            retry_of=retry_of,
            tells_bus=self.tells_bus,
        )
        return task, request

    def _find(self, task_id: str, owner: str) -> TaskRecord | None:
        if not TASK_ID.fullmatch(task_id):
            return None
        task = self.store.task(task_id)
        if task is None or task.owner != owner:
            return None
        request = self.store.request(task_id)  # which goes when a task is deleted
        if request is None or request.ttl <= self.clock().timestamp():  # DynamoDB forgets late
            return None
        return TaskRecord(task, request)

    def _wake_pollers(self, registered: Sequence[Registered]) -> None:
        PollerWaker(
            store=self.store,
            invoker=self.invoker,
            clock=self.clock,
            workers=self.poller_workers,
            function_name=self.poller_function,
        ).wake(one.task for one in registered if one.created)

    def _wake_notifier(self, task: Task) -> None:
        try:
            self.invoker.invoke(self.notifier_function, task_key(task.task_id))
        except Exception:  # the deliveries are stored, and the poller finds them when they are due
            logger.exception("notifier not woken", extra={"task_id": task.task_id})


def _agrees(asked: TaskRequest, request: Request) -> bool:
    """Whether a new registration asks for nothing else than the running one: each part is equal or absent."""
    hooks = asked.asked_webhooks
    return (
        (hooks is None or sorted(_plain(hooks)) == sorted(_plain(request.webhooks)))
        and (asked.metadata is None or asked.metadata == dict(request.metadata))
        and (asked.deadline_s is None or asked.deadline_s == request.deadline_s)
    )


def _plain(hooks: Sequence[Webhook]) -> list[tuple[str, tuple[str, ...]]]:
    return [(hook.url, hook.events) for hook in hooks]
