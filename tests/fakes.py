"""Hand-written stand-ins for what talks to AWS; they keep the contracts, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from renderbell.delivery import Delivery, DeliveryState
from renderbell.endpoints import Endpoint
from renderbell.errors import VersionConflictError
from renderbell.providers import Connection, HttpRequest, HttpResponse
from renderbell.store import AlreadyOngoingError, ApiKey, Lease
from renderbell.task import FileKind, Request, Status, StoredFile, Task

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
WITH_PROVIDER = {Status.QUEUED, Status.PROCESSING}


class FakeClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeStore:
    """The table, as dictionaries; `before_save` and `before_register` let another writer come first."""

    tasks: dict[str, Task] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    made: dict[str, tuple[Delivery, ...]] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    by_hash: dict[str, ApiKey] = field(default_factory=dict)
    managed: list[Endpoint] = field(default_factory=list)
    before_save: Callable[[], None] | None = None
    after_refusal: Callable[[], None] | None = None
    trouble: Exception | None = None

    def register(self, task: Task, request: Request) -> None:
        """Writes both unless the owner already watches the same render."""
        self._fail()
        mine = (task.owner, task.connection, task.provider_task_id)
        for one in self.tasks.values():
            if one.status in WITH_PROVIDER and (one.owner, one.connection, one.provider_task_id) == mine:
                taken_by = one.task_id
                self._once("after_refusal")
                raise AlreadyOngoingError(taken_by)
        self.tasks[task.task_id] = task
        self.requests[task.task_id] = request

    def task(self, task_id: str) -> Task | None:
        self._fail()
        return self.tasks.get(task_id)

    def request(self, task_id: str) -> Request | None:
        return self.requests.get(task_id)

    def deliveries(self, task_id: str) -> tuple[Delivery, ...]:
        return self.made.get(task_id, ())

    def endpoints(self, owner: str) -> tuple[Endpoint, ...]:
        return tuple(one for one in self.managed if one.owner == owner)

    def save(self, before: Task, after: Task, deliveries: Sequence[Delivery] = (), *, token: str | None = None) -> Task:
        """Writes the change if the version still stands."""
        saved = self._changed(before, after)
        self.made[before.task_id] = (*self.deliveries(before.task_id), *deliveries)
        return saved

    def delete(self, before: Task, after: Task) -> Task:
        """Writes that the task is deleted, and drops its request and its pending deliveries."""
        saved = self._changed(before, after)
        del self.requests[before.task_id]
        made = self.deliveries(before.task_id)
        self.made[before.task_id] = tuple(one for one in made if one.state is not DeliveryState.PENDING)
        return saved

    def _changed(self, before: Task, after: Task) -> Task:
        self._once("before_save")
        current = self.tasks.get(before.task_id)
        if current is None or current.version != before.version:
            raise VersionConflictError(before.task_id, current)
        self.tasks[before.task_id] = replace(after, version=before.version + 1)
        return self.tasks[before.task_id]

    def lease(self, worker: int) -> Lease | None:
        return self.leases.get(worker)

    def key(self, key_hash: str) -> ApiKey | None:
        self._fail()
        return self.by_hash.get(key_hash)

    def put_key(self, key: ApiKey) -> None:
        self.by_hash[key.key_hash] = key

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _once(self, hook: str) -> None:
        called: Callable[[], None] | None = getattr(self, hook)
        setattr(self, hook, None)
        if called is not None:
            called()


@dataclass
class FakeConnections:
    """The operator's connections, by name."""

    by_name: dict[str, Connection] = field(default_factory=dict)

    def get(self, name: str) -> Connection | None:
        return self.by_name.get(name)

    def known(self, name: str) -> Connection | None:
        return self.get(name)

    def freshen(self) -> None:
        pass

    def all(self) -> Mapping[str, Connection]:
        return self.by_name

    def add(self, connection: Connection) -> None:
        self.by_name[connection.name] = connection


@dataclass
class FakeInvoker:
    """Notes what is invoked."""

    invoked: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    trouble: Exception | None = None

    def invoke(self, function_name: str, payload: Mapping[str, object]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.invoked.append((function_name, dict(payload)))


@dataclass
class FakeProvider:
    """A provider that answers all requests the same, and notes them."""

    answer: HttpResponse | Exception = field(default_factory=lambda: HttpResponse(200, {}, b"{}"))
    asked: list[tuple[str, str, float]] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def __call__(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        self.asked.append((request.method, request.url, timeout_s))
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeIds:
    """Ids in order: they have the right form and differ."""

    def __init__(self, prefix: str = "tsk") -> None:
        self.count = 0
        self.prefix = prefix

    def __call__(self) -> str:
        self.count += 1
        return f"{self.prefix}_{self.count:026d}"


@contextmanager
def captured_log() -> Iterator[list[dict[str, Any]]]:
    """The lines that the functions log meanwhile; filled at the end of the block."""
    handler = Logger().registered_handler
    assert isinstance(handler, logging.StreamHandler)
    lines: list[dict[str, Any]] = []
    text = io.StringIO()
    before = handler.setStream(text)
    try:
        yield lines
    finally:
        handler.setStream(before)
        lines += map(json.loads, text.getvalue().splitlines())


def fake_presign(file: StoredFile, expires_s: int, download_name: str | None) -> str:
    """A link that tells what it was made of."""
    return f"https://s3.test/{file.bucket}/{file.key}?for={expires_s}&as={download_name or ''}"


def stored_file(n: int = 1, *, key: str = "default/tsk/1.mp4") -> StoredFile:
    """A finished file."""
    return StoredFile(
        n=n,
        kind=FileKind.VIDEO,
        bucket="videos",
        key=key,
        size_bytes=1234,
        sha256=hashlib.sha256(b"video").hexdigest(),
        content_type="video/mp4",
        source_url="https://cdn.example/1.mp4",
    )


class FakeContext(LambdaContext):
    """What Lambda hands in beside the event."""

    _function_name = "function"
    _memory_limit_in_mb = 512
    _invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:function"
    _aws_request_id = "0a6fbf1c-1e0c-4a3e-8d0f-6a4d2f0b7c11"
