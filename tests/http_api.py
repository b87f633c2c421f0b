"""The API through its Lambda handler, with API Gateway's events, over fakes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from renderbell.addresses import EgressPolicy
from renderbell.api import ApiParts, build_handler
from renderbell.callbacks import Callbacks
from renderbell.idempotency import Idempotency
from renderbell.keys import Keys
from renderbell.listing import Listing
from renderbell.manage import Endpoints
from renderbell.providers import Connection
from renderbell.redeliver import Redelivery
from renderbell.register import Tasks
from renderbell.store import Store
from renderbell.task import Request, Status, Task, Transition
from renderbell.wake import PollerWaker
from tests.deployment import in_process_table
from tests.dynamodb import FakeDynamoDB
from tests.fakes import (
    FakeClock,
    FakeConnections,
    FakeContext,
    FakeIds,
    FakeInvoker,
    FakeProvider,
    fake_presign,
    stored_file,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

EVENTS = Path(__file__).parents[1] / "events"
HOOK = "https://hooks.example.com/renders"
PARAMETERS = {"tasks": "task_id", "videos": "n", "keys": "key_id", "endpoints": "endpoint_id"}
WORDS = {"batch"}
BASE_URL = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/prod"
MASTER = b"the master secret of this deployment"


@dataclass(frozen=True)
class Answer:
    """What the handler answered; making one checks that API Gateway would take it."""

    status: int
    headers: dict[str, str]
    text: str | None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Answer:
        assert set(raw) <= {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
        assert type(raw["statusCode"]) is int
        assert raw["isBase64Encoded"] is False
        assert raw["body"] is None or type(raw["body"]) is str
        headers = dict(raw.get("headers") or {})
        for name, values in (raw.get("multiValueHeaders") or {}).items():
            assert len(values) == 1
            headers[name] = values[0]
        assert all(type(value) is str for value in headers.values())
        json.dumps(raw)
        return cls(raw["statusCode"], {name.lower(): value for name, value in headers.items()}, raw["body"])

    @property
    def json(self) -> Any:
        assert self.text is not None
        return json.loads(self.text)

    def problem(self, status: int, code: str) -> Any:
        """The problem document, which is what it must be."""
        assert (self.status, self.json["code"]) == (status, code), self.text
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == status
        assert self.json["type"] == "about:blank"
        named = {413: "Content Too Large", 422: "Unprocessable Content"}  # in Python's words since 3.13
        assert self.json["title"] == named.get(status, HTTPStatus(status).phrase)
        assert self.json["detail"]
        return self.json


class Died(BaseException):
    """The process is ended."""


class Client:
    """A client of the in-process table, which may be in trouble; `before` lets another writer come first, once.

    `blow` strikes at the call of its number, before it has its effect or after.
    """

    def __init__(self, table: FakeDynamoDB) -> None:
        self._table = table
        self.exceptions = table.exceptions
        self.trouble: Exception | None = None
        self.before: dict[str, Callable[[], object]] = {}  # by operation
        self.calls = 0
        self.blow: tuple[int, bool, BaseException] | None = None  # the number, whether after, and what strikes

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            if self.trouble is not None:
                raise self.trouble
            self.before.pop(operation, lambda: None)()
            self.calls += 1
            number = self.calls
            self._strike(number, after=False)
            answer = getattr(self._table, operation)(**arguments)
            self._strike(number, after=True)
            return answer

        return call

    def _strike(self, number: int, *, after: bool) -> None:
        if self.blow is not None and self.blow[:2] == (number, after):
            raise self.blow[2]


@dataclass
class World:
    """The handler over the real store, on a table in this process, and fakes."""

    table: FakeDynamoDB = field(default_factory=lambda: in_process_table("table"))
    connections: FakeConnections = field(default_factory=FakeConnections)
    invoker: FakeInvoker = field(default_factory=FakeInvoker)
    clock: FakeClock = field(default_factory=FakeClock)
    provider: FakeProvider = field(default_factory=FakeProvider)
    public_base_url: str = ""
    video_retention_days: int = 0

    def __post_init__(self) -> None:
        self.connect("studio", "default")
        self.client = Client(self.table)
        self.store = Store(cast("DynamoDBClient", self.client), "table", pause=lambda seconds: None)
        waker = PollerWaker(store=self.store, invoker=self.invoker, clock=self.clock, workers=1, function_name="poller")
        tasks = Tasks(
            store=self.store,
            connections=self.connections,
            fetch=self.provider,
            invoker=self.invoker,
            egress=EgressPolicy.from_settings(False, ()),
            clock=self.clock,
            new_id=FakeIds(),
            slots=16,
            poller_workers=1,
            poller_function="poller",
            notifier_function="notifier",
            task_retention_days=30,
            side_by_side=lambda jobs: [job() for job in jobs],
        )
        parts = ApiParts(
            tasks=tasks,
            endpoints=Endpoints(
                store=self.store,
                waker=waker,
                egress=EgressPolicy.from_settings(False, ()),
                master_secret=lambda: MASTER,
                clock=self.clock,
                new_id=FakeIds("ep"),
                new_test_id=FakeIds("tst"),
                slots=16,
                side_by_side=lambda jobs: [job() for job in jobs],
            ),
            listing=Listing(
                store=self.store, clock=self.clock, slots=16, side_by_side=lambda jobs: [j() for j in jobs]
            ),
            redelivery=Redelivery(
                tasks=tasks,
                store=self.store,
                waker=waker,
                clock=self.clock,
            ),
            callbacks=Callbacks(
                store=self.store,
                connections=self.connections,
                waker=waker,
                clock=self.clock,
                side_by_side=lambda jobs: [job() for job in jobs],
            ),
            keys=Keys(
                store=self.store,
                clock=self.clock,
                new_id=FakeIds("key"),
                new_secret=iter(f"secret{'0' * 20}{n}" for n in count(1)).__next__,
            ),
            idempotency=Idempotency(store=self.store, clock=self.clock, new_token=FakeIds("call")),
            connections=self.connections,
            presign=fake_presign,
            master_secret=lambda: MASTER,
            clock=self.clock,
            public_base_url=self.public_base_url,
            video_retention_days=self.video_retention_days,
        )
        self.handler = build_handler(parts)

    def connect(self, name: str, *owners: str, **more: object) -> None:
        told = {"name": name, "type": "jimmy", "base_url": "http://10.0.0.7:8000", "api_key": "hush", "owners": owners}
        self.connections.add(Connection.model_validate({**told, **more}))

    def send(self, event: dict[str, Any]) -> Answer:
        return Answer.of(self.handler(event, FakeContext()))

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str | Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        **caller: str,
    ) -> Answer:
        """A call of a route; what follows a known word of the path is its parameter, a list in the query several."""
        event = sample("register", **caller)
        several = {name: [one] if isinstance(one, str) else list(one) for name, one in (query or {}).items()}
        event |= {
            "queryStringParameters": {name: values[-1] for name, values in several.items()} or None,
            "multiValueQueryStringParameters": several or None,
        }
        parameters = {}
        parts = path.strip("/").split("/")
        for n, part in enumerate(parts):
            name = PARAMETERS.get(parts[n - 1]) if n and part not in WORDS else None
            if name is not None:
                parameters[name], parts[n] = part, f"{{{name}}}"
        event |= {
            "httpMethod": method,
            "path": path,
            "resource": "/" + "/".join(parts),
            "pathParameters": parameters or None,
            "body": None if body is None else json.dumps(body),
        }
        event["headers"] |= headers or {}
        event["requestContext"] |= {"httpMethod": method, "path": f"/prod{path}", "resourcePath": event["resource"]}
        return self.send(event)

    def register(self, body: object = None, *, raw: str | None = None, **caller: str) -> Answer:
        """POST /tasks with a JSON body, or with this very text."""
        told = {"connection": "studio", "provider_task_id": "job-7"} if body is None else body
        return self.send(sample("register", **caller) | {"body": json.dumps(told) if raw is None else raw})

    def registered(self, **fields: object) -> str:
        answer = self.register({"connection": "studio", "provider_task_id": "job-7", **fields})
        assert answer.status == 201
        return str(answer.json["task_id"])

    def completed(self) -> str:
        """The id of a task whose file is stored."""
        task_id = self.registered()
        self.change(
            task_id,
            status=Status.COMPLETED,
            step=None,
            due_at=None,
            files=(stored_file(key=f"default/{task_id}/1.mp4"),),
            history=(*self.task(task_id).history, Transition(self.clock(), Status.COPYING, Status.COMPLETED, "copied")),
        )
        return task_id

    def task(self, task_id: str) -> Task:
        """A task as it is stored."""
        task = self.store.task(task_id)
        assert task is not None
        return task

    def request(self, task_id: str) -> Request:
        """What was asked for a task, as it is stored."""
        request = self.store.request(task_id)
        assert request is not None
        return request

    def change(self, task_id: str, **fields: Any) -> Task:
        """Writes a change of a task, as another function would."""
        task = self.task(task_id)
        return self.store.save(task, replace(task, **fields))

    def task_ids(self) -> list[str]:
        """All tasks that are stored."""
        return [item["pk"]["S"].removeprefix("TASK#") for item in self.table.items() if item["sk"]["S"] == "TASK"]


def sample(name: str, *, owner: str = "default", scope: str = "admin") -> dict[str, Any]:
    """The sample event of a route, sent by this caller."""
    event: dict[str, Any] = json.loads((EVENTS / f"api-{name}.json").read_text())
    if "authorizer" in event["requestContext"]:
        event["requestContext"]["authorizer"] |= {"owner": owner, "scope": scope}
    return event


def about(name: str, task_id: str, *, n: str | None = None, **caller: str) -> dict[str, Any]:
    """The sample event of a route of one task."""
    event = sample(name, **caller)
    sample_id = event["pathParameters"]["task_id"]
    event["pathParameters"]["task_id"] = task_id
    for place in (event, event["requestContext"]):
        place["path"] = place["path"].replace(sample_id, task_id)
        if n is not None:
            place["path"] = place["path"].removesuffix("1") + n
            event["pathParameters"]["n"] = n
    return event


def asking(event: dict[str, Any], **query: str) -> dict[str, Any]:
    many = {name: [value] for name, value in query.items()}
    return event | {"queryStringParameters": query, "multiValueQueryStringParameters": many}
