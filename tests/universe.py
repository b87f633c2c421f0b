"""A deployment that can die anywhere: every call that leaves a process is a boundary where trouble may strike.

The use cases, the store, the archive and the poller's threads are the real ones. Everything outside them is in this
process and in virtual time, so a run that fails is repeated exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import ClientError, ReadTimeoutError

from renderbell.archive import Archive
from renderbell.connections import Connections
from renderbell.delivery import Answer
from renderbell.endpoints import Endpoint, SigningKey
from renderbell.errors import (
    AlreadyRegisteredError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    InvalidInputError,
    NotFoundError,
    ProviderUnavailable,
)
from renderbell.items import parse_time
from renderbell.poll import LEASE_S
from renderbell.providers import Connection, HttpRequest, HttpResponse
from renderbell.register import Tasks
from renderbell.schedule import DUE_TOLERANCE_S
from renderbell.store import Store
from renderbell.task import PROGRESS_EVERY_S, TRANSITIONS, Status, Task
from tests.deployment import (
    API_FUNCTION,
    INDEXES,
    NOTIFIER,
    OWNER,
    POLLER,
    Deployment,
    _Connections,
)
from tests.dynamodb import Item, TransactionCanceledException
from tests.fake_source import FakeDownload, FakeDownloads
from tests.s3 import BUCKET, FakeS3, SameThread
from tests.virtual import START, DiedError, Process, World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

TIME_LIMIT_S = {POLLER: 210.0, NOTIFIER: 300.0, API_FUNCTION: 28.0}
TICK_EVERY_S = 60.0
TICK_LOOKS_AHEAD_S = 170.0
TABLE = "table"
PART_BYTES = 1000
S3_TIMEOUT_S = 15.0  # as the notifier's client has it
MAX_VIDEO_BYTES = 20_000
OUTAGES = (ClientError, ReadTimeoutError, GetParameterError, ConfigurationError)
REFUSALS = (NotFoundError, ConflictError, InvalidInputError, AlreadyRegisteredError)  # answers, not trouble


class When(Enum):
    """Whether a call that is struck has its effect."""

    BEFORE = auto()
    AFTER = auto()
    LATER = auto()  # the caller has given up, and the service comes to it only then
    TWICE = auto()  # the first answer is lost, and the client asks again within the call


@dataclass(frozen=True, slots=True)
class Trouble:
    """What may strike at a boundary: the process dies there, or the call fails in the n-th way of its service."""

    when: When
    failure: int | None = None
    late_s: float = 0.0  # how long after its caller has given up a call has its effect

    def __str__(self) -> str:
        if self.when in {When.LATER, When.TWICE}:
            return f"has its effect {self.when.name.lower()}"
        what = "dies" if self.failure is None else f"fails in way {self.failure}"
        return f"{what} {self.when.name.lower()}"


S3_TROUBLES = (*(Trouble(When.LATER, late_s=late_s) for late_s in (0.5, 5.0, 20.0)), Trouble(When.TWICE))
DEATHS = (Trouble(When.BEFORE), Trouble(When.AFTER))


def troubles_of(service: str) -> Sequence[Trouble]:
    """All that may strike a call to a service."""
    ways = range(len(FAILURES[service]))
    return (*DEATHS, *(Trouble(When.BEFORE, way) for way in ways), Trouble(When.AFTER, ways[-1]))


@dataclass(frozen=True, slots=True)
class Call:
    """A call that leaves a process; `number` counts all calls of the world."""

    number: int
    service: str
    operation: str
    process: Process | None
    at_s: float


def _error(code: str) -> Callable[[Call], Exception]:
    return lambda call: ClientError({"Error": {"Code": code, "Message": "trouble"}}, call.operation)


def _silence(call: Call) -> Exception:
    return ReadTimeoutError(endpoint_url=f"https://{call.service}.test")


def _throttled(call: Call) -> Exception:
    """DynamoDB's word for it; a transaction says so in its reasons, and botocore does not try it again."""
    if call.operation != "transact_write_items":
        return _error("ProvisionedThroughputExceededException")(call)
    return TransactionCanceledException(
        {
            "Error": {"Code": "TransactionCanceledException", "Message": "trouble"},
            "CancellationReasons": [{"Code": "None"}, {"Code": "ThrottlingError"}],
        },
        call.operation,
    )


# How each service may fail; the last kind may also strike after the call's effect.
FAILURES: Mapping[str, Sequence[Callable[[Call], Exception]]] = {
    "dynamodb": (_throttled, _error("InternalServerError"), _silence),
    "s3": (_error("SlowDown"), _error("InternalError"), _silence),
    "lambda": (_error("TooManyRequestsException"), _error("ServiceException"), _silence),
    "provider": (lambda call: ProviderUnavailable("the connection was reset"),),
    "source": (lambda call: ConnectError("the connection was reset"),),
    "receiver": (lambda call: _NoAnswerError(),),
    "ssm": (lambda call: ConfigurationError("the connections cannot be read"),),
    "secrets": (lambda call: GetParameterError("trouble"),),
}

Plan = Callable[[Call], Trouble | None]


def no_trouble(call: Call) -> Trouble | None:
    """Nothing ever goes wrong."""


class Boundaries:
    """Counts the calls that leave processes, and lets trouble strike by a plan."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.plan = plan
        self.calls: list[Call] = []
        self.struck = 0
        self.harmed: set[Process | None] = set()  # those whose calls were struck
        self._world = world

    def around(self, service: str, operation: str, latency_s: float = 0.0) -> Crossing:
        """One call; its effect is the block."""
        return Crossing(self, service, operation, latency_s)

    def enter(self, service: str, operation: str, latency_s: float) -> tuple[Call, Trouble | None]:
        """The way to a call's effect: the call, and what will strike it afterwards."""
        world = self._world
        process = world.process
        if process is not None and not process.alive:
            raise DiedError
        at_s = (world.now() - START).total_seconds()
        call = Call(len(self.calls) + 1, service, operation, process, at_s)
        self.calls.append(call)
        trouble = self.plan(call)
        if trouble is not None and trouble.when is When.BEFORE:
            self._strike(call, trouble)
        if latency_s:
            world.sleep(latency_s)
        return call, trouble

    def leave(self, call: Call, trouble: Trouble | None, latency_s: float) -> None:
        """The way back from a call's effect."""
        if trouble is not None and trouble.when is When.AFTER:
            self._strike(call, trouble)
        if latency_s:
            self._world.sleep(latency_s)
        self._world.check_alive()

    def note_harm(self, call: Call) -> None:
        """Notes that something went wrong with a call."""
        self.struck += 1
        self.harmed.add(call.process)

    def _strike(self, call: Call, trouble: Trouble) -> NoReturn:
        self.note_harm(call)
        if trouble.failure is not None:
            raise FAILURES[call.service][trouble.failure](call)
        if call.process is None:
            raise AssertionError("only an invocation can die")
        self._world.kill(call.process)
        raise DiedError


class Crossing:
    """One call that leaves a process, around its effect."""

    __slots__ = ("_boundaries", "_call", "_latency_s", "_operation", "_service", "_trouble")

    def __init__(self, boundaries: Boundaries, service: str, operation: str, latency_s: float) -> None:
        self._boundaries = boundaries
        self._service = service
        self._operation = operation
        self._latency_s = latency_s

    def __enter__(self) -> None:
        self._call, self._trouble = self._boundaries.enter(self._service, self._operation, self._latency_s)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._boundaries.leave(self._call, self._trouble, self._latency_s)


class WatchedClient:
    """A client of DynamoDB whose calls are boundaries; counts them by task and operation."""

    def __init__(self, client: Any, boundaries: Boundaries, latency: Callable[[], float]) -> None:
        self._client = client
        self._boundaries = boundaries
        self._latency = latency
        self.exceptions = client.exceptions
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        call, boundaries = getattr(self._client, operation), self._boundaries

        def made(**arguments: Any) -> Any:
            self._count(operation, arguments)
            latency_s = self._latency()
            crossing = boundaries.enter("dynamodb", operation, latency_s)
            answer = call(**arguments)
            boundaries.leave(*crossing, latency_s)
            return answer

        setattr(self, operation, made)  # so that this is found once
        return made

    def _count(self, operation: str, arguments: Mapping[str, Any]) -> None:
        if operation == "transact_write_items":
            for action in arguments["TransactItems"]:
                for write in action.values():
                    self.writes[(write.get("Key") or write["Item"])["pk"]["S"]] += 1
            return
        if operation == "batch_get_item":
            for asked in arguments["RequestItems"].values():
                self.reads.update(one["pk"]["S"] for one in asked["Keys"])
            return
        key = arguments.get("Key") or arguments.get("Item") or {}
        counter = self.reads if operation in {"get_item", "query"} else self.writes
        if "pk" in key:
            counter[key["pk"]["S"]] += 1
        elif ":pk" in arguments.get("ExpressionAttributeValues", {}):
            counter[arguments["ExpressionAttributeValues"][":pk"]["S"]] += 1


class WatchedS3:
    """A client of S3 whose calls are boundaries, and may have their effect late or twice."""

    def __init__(self, s3: FakeS3, boundaries: Boundaries, latency: Callable[[], float], world: World) -> None:
        self._s3 = s3
        self._boundaries = boundaries
        self._latency = latency
        self._world = world
        self.get_paginator = s3.get_paginator  # each page is a boundary of its own

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        call, boundaries, world = getattr(self._s3, operation), self._boundaries, self._world

        def made(**arguments: Any) -> Any:
            latency_s = self._latency()
            entered, trouble = boundaries.enter("s3", operation, latency_s)
            if trouble is not None and trouble.when is When.LATER:
                boundaries.note_harm(entered)
                sent = {name: bytes(value) if name == "Body" else value for name, value in arguments.items()}
                lands_at = world.now() + timedelta(seconds=S3_TIMEOUT_S + trouble.late_s)
                world.at(lands_at, lambda: _unheard(call, sent))
                world.sleep(S3_TIMEOUT_S)
                raise _silence(entered)
            if trouble is not None and trouble.when is When.TWICE:
                boundaries.note_harm(entered)
                _unheard(call, arguments)
            answer = call(**arguments)
            boundaries.leave(entered, trouble, latency_s)
            return answer

        setattr(self, operation, made)  # so that this is found once
        return made


def _unheard(call: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """A call whose answer nobody hears."""
    with suppress(ClientError):
        call(**arguments)


class Sources(FakeDownloads):
    """The files that providers link to; opening one is a boundary."""

    def __init__(self, universe: Universe) -> None:
        super().__init__({})
        self._universe = universe

    @contextmanager
    def open(
        self, url: str, *, connection: Connection | None, headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[FakeDownload]:
        with self._universe.boundaries.around("source", "GET", self._universe.latency()):
            pass
        with super().open(url, connection=connection, headers=headers, timeout_s=timeout_s) as download:
            yield download


class Universe(Deployment):
    """A deployment whose calls are boundaries, whose invocations have time limits, and whose schedule never ends.

    `skew` draws how far an invocation's clock is off, `arrivals` what becomes of an asynchronous invocation or a tick:
    the delays in seconds after which it arrives, none if it is lost.
    """

    def __init__(
        self,
        *,
        plan: Plan = no_trouble,
        lag: Callable[[], float] = lambda: 0.0,
        skew: Callable[[], float] = lambda: 0.0,
        arrivals: Callable[[str], Sequence[float]] = lambda function: (0.05,),
        latency: Callable[[], float] = lambda: 0.0,
        **options: Any,
    ) -> None:
        super().__init__(lag=lag, **options)
        self.latency = latency
        self.boundaries = Boundaries(self.world, plan)
        dynamodb, s3 = self.services()
        self.client = WatchedClient(dynamodb, self.boundaries, latency)
        self.store = Store(cast("DynamoDBClient", self.client), TABLE, pause=lambda _: self.world.sleep(0.02))
        self.store_of_tests = Store(cast("DynamoDBClient", dynamodb), TABLE)  # no boundary
        self.sources = Sources(self)
        self.archive = cast(  # in the place of the scripted one
            Any,
            Archive(
                lambda: cast("S3Client", s3),
                BUCKET,
                self.sources,
                max_bytes=MAX_VIDEO_BYTES,
                part_bytes=PART_BYTES,
                put_bytes=PART_BYTES,
                uploader=SameThread,
            ),
        )
        self.table.watchers.append(self._check_write)
        self.wrong: list[str] = []  # what must never happen, and did
        self.posts: list[Post] = []
        self.alive = 0
        self._skew = skew
        self._arrivals = arrivals
        self.answers: list[Answered] = []
        self.tasks_made = 0
        self.deletions: list[tuple[str, float]] = []  # of which task, and from when on they were asked for
        self.started: list[Process] = []
        self._planned = 0  # calls of the API that have no answer yet
        self._coming = 0  # invocations on their way
        self._spare_ids = count(1_000_000)
        provider, receivers = self.provider, self.receivers
        self._fetch, self._post = provider.fetch, receivers.post
        provider.fetch = self._guarded_fetch  # type: ignore[method-assign]
        receivers.post = self._guarded_post  # type: ignore[method-assign]

    def services(self) -> tuple[Any, Any]:
        """The clients of DynamoDB and S3; the calls of the second are boundaries already."""
        self.s3 = FakeS3(around=self._around_pages)
        return self.table, WatchedS3(self.s3, self.boundaries, self.latency, self.world)

    def _around_pages(self, operation: str) -> AbstractContextManager[object]:
        if not operation.startswith("list_"):
            return nullcontext()
        return self.boundaries.around("s3", operation, self.latency())

    def items(self) -> list[Item]:
        """All items of the table."""
        return self.table.items()

    def objects(self) -> dict[str, bytes]:
        """All objects of the bucket, by key."""
        return {key: found.body for key, found in self.s3.objects.items()}

    def open_uploads(self) -> int:
        """How many multipart uploads are open."""
        return len(self.s3.uploads)

    def tasks_registered(self) -> int:
        """How many tasks there have been."""
        return self.tasks_made

    def part_bytes_sent(self) -> int:
        """How many bytes were sent as parts of uploads."""
        return self.s3.part_bytes_sent

    # -- invocations --------------------------------------------------------------------------------------------------

    def start(self, function_name: str, body: Callable[[], object], *, delay_s: float) -> None:
        """Starts an invocation, which its time limit ends."""
        if function_name == API_FUNCTION:
            self._ask(body, delay_s)
        else:
            self._start(function_name, body, delay_s)

    def _start(self, function_name: str, body: Callable[[], object], delay_s: float) -> Process:
        process = Process(function_name, self._skew())
        self.started.append(process)
        self._coming += 1

        def run() -> None:
            self._coming -= 1
            limit = self.world.now() + timedelta(seconds=TIME_LIMIT_S[function_name])
            timeout = self.world.at(limit, lambda: self.world.kill(process))
            self.alive += 1
            process.began_s = self.now_s
            try:
                body()
            except (*REFUSALS, *OUTAGES):
                pass  # Lambda notes a failed invocation, and goes on
            finally:
                self.alive -= 1
                timeout.call_off()

        self.world.spawn(run, delay_s=delay_s, process=process)
        return process

    def _ask(self, body: Callable[[], object], delay_s: float) -> None:
        """A caller of the API, who asks again until there is an answer other than to try again."""
        self._planned += 1
        answered: list[object] = []
        asked: list[float] = []

        def call() -> None:
            try:
                answered.append(body())
            except REFUSALS as refusal:
                if getattr(refusal, "code", None) == "try_again":
                    return
                answered.append(refusal)
            self.answers.append(Answered(self.now_s, body.__name__, answered[-1]))

        def again() -> None:
            if answered:
                self._planned -= 1
                return
            if len(asked) == PATIENCE:
                raise AssertionError(f"no answer to {body.__name__}: {self.world.broken}")
            asked.append(self.now_s)
            self._start(API_FUNCTION, call, 0.0)
            self.world.at(self.world.now() + timedelta(seconds=5), again)

        self.world.at(self.world.now() + timedelta(seconds=delay_s), again)

    def cancel(self, task_id: str, *, at_s: float) -> None:
        """Lets the owner cancel a task at a time."""

        def cancel() -> tuple[str, Status]:
            return task_id, self.tasks(lambda: "").cancel_task(task_id, owner=OWNER).task.status

        self.start(API_FUNCTION, cancel, delay_s=at_s - self.now_s)

    def delete(self, task_id: str, *, at_s: float, force: bool = True) -> None:
        """Lets the owner delete a task at a time."""
        self.deletions.append((task_id, at_s))

        def delete() -> str:
            self.tasks(lambda: "").delete_task(task_id, owner=OWNER, force=force)
            return task_id

        self.start(API_FUNCTION, delete, delay_s=at_s - self.now_s)

    def test_endpoint(self, endpoint: Endpoint, *, at_s: float) -> None:
        """Lets the owner test an endpoint at a time."""

        def test() -> str:
            return self.endpoints().test(endpoint.endpoint_id, owner=OWNER).task_id

        self.start(API_FUNCTION, test, delay_s=at_s - self.now_s)

    def invoke(self, function_name: str, payload: Mapping[str, object]) -> None:
        """Starts a function some time later, or never, or twice."""
        with self.boundaries.around("lambda", function_name, self.latency()):
            self.invocations.append((function_name, payload))
            for delay_s in self._arrivals(function_name):
                if function_name == POLLER:
                    self._start(POLLER, lambda: self._fire(payload), delay_s)
                else:
                    self._start(NOTIFIER, lambda: self._notify(payload), delay_s)

    def tasks(self, new_id: Callable[[], str]) -> Tasks:
        """The owner's use cases; no id is given twice."""

        def unused() -> str:
            task_id = new_id()
            while task_id and self.store_of_tests.task(task_id) is not None:
                task_id = f"tsk_{next(self._spare_ids):026d}"
            return task_id

        return super().tasks(unused)

    def clock(self) -> datetime:
        """The time as the running process knows it."""
        process = self.world.process
        return self.world.now() if process is None else self.world.now() + process.skew

    # -- the schedule -------------------------------------------------------------------------------------------------

    def tick_while_due(self, first_s: float = 5.0) -> None:
        """Lets the schedule fire as long as anything is due, ever; leaves out the ticks that would find nothing."""
        self._next_tick(START + timedelta(seconds=first_s))

    def _next_tick(self, at: datetime) -> None:
        def fire() -> None:
            due = self.earliest_due()
            busy = self._planned or self._coming or self.alive
            if due is None and not busy:
                return  # nothing will ever be due again
            if due is not None and due <= at + timedelta(seconds=TICK_LOOKS_AHEAD_S):
                for delay_s in self._arrivals("schedule"):
                    self._start(POLLER, lambda: self._fire({}), delay_s)
            idle_minutes = 0 if busy or due is None else (due - at) // timedelta(minutes=1) - 2
            self._next_tick(at + timedelta(minutes=max(1, idle_minutes)))

        self.world.at(at, fire)

    def task(self, task_id: str) -> Task:
        """A task as it is stored."""
        task = self.store_of_tests.task(task_id)
        if task is None:
            raise AssertionError(f"no task {task_id}")
        return task

    def run_to_the_end(self) -> None:
        """Lets the world go on until nothing is left to happen and every lease has ended; raises what broke."""
        self.world.run_out()
        if not self.boundaries.struck and all(process.alive for process in self.started):
            self._check_leases()
        self.world.run(self.world.now() + timedelta(seconds=LEASE_S))
        if self.world.broken:
            raise self.world.broken[0]

    def all_tasks(self) -> list[Task]:
        """All tasks as they are stored."""
        ids = [item["pk"]["S"].removeprefix("TASK#") for item in self.items() if item["sk"]["S"] == "TASK"]
        return [self.task(task_id) for task_id in ids]

    def _check_leases(self) -> None:
        """Nobody holds a lease beyond his own end, unless he died."""
        for item in self.items():
            if item["pk"]["S"].startswith("LEASE#") and parse_time(item["until"]["S"]) > self.world.now():
                self.note_wrong(f"{item['pk']['S']} was not released")

    def earliest_due(self) -> datetime | None:
        """When the next item is due, whatever the index shows."""
        times = [item["due_at"]["S"] for item in self.items() if "slot" in item and "due_at" in item]
        return parse_time(min(times)) if times else None

    def once_copying(self, act: Callable[[str], None]) -> None:
        """Lets something happen each time a task begins to be copied."""

        def watch(key: tuple[str, str], old: Item | None, new: Item | None) -> None:
            if new is not None and old is not None and key[1] == "TASK":
                began = (old["status"]["S"], new["status"]["S"])
                if began[0] != began[1] == Status.COPYING:
                    act(key[0].removeprefix("TASK#"))

        self.table.watchers.append(watch)

    # -- what leaves a process ----------------------------------------------------------------------------------------

    def configured(self) -> _Connections | Connections:
        """The connections; a process reads them once."""
        process = self.world.process
        if process is not None and "connections" not in process.knows:
            with self.boundaries.around("ssm", "get_parameters_by_path", self.latency()):
                process.knows.add("connections")
        return super().configured()

    def secrets(self, key: SigningKey, at: datetime) -> list[str]:
        """The secrets that sign; a process reads the master once."""
        process = self.world.process
        if process is not None and "master" not in process.knows:
            with self.boundaries.around("secrets", "get_secret_value", self.latency()):
                process.knows.add("master")
        return super().secrets(key, at)

    def _guarded_fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        with self.boundaries.around("provider", "GET"):
            return self._fetch(connection, request, timeout_s)

    def _guarded_post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        post = Post(url, headers["webhook-id"], self.now_s, self.world.process)
        self.posts.append(post)
        try:
            with self.boundaries.around("receiver", "POST"):
                post.answer = self._post(url, headers, body, timeout_s)
                post.ended_s = self.now_s
        except _NoAnswerError:
            return Answer(None, error="connection_reset")
        post.heard = True
        return post.answer

    # -- what must always hold ----------------------------------------------------------------------------------------

    def _check_write(self, key: tuple[str, str], old: Item | None, new: Item | None) -> None:
        if old is None and key[1] == "TASK":
            self.tasks_made += 1
        if old is None or new is None:
            return
        if key[1] == "TASK":
            self._check_task_write(key[0], old, new)
        if key[1] == "TASK" or key[1].startswith("DELIVERY#"):
            self._check_claim(key, old, new)

    def _check_task_write(self, pk: str, old: Item, new: Item) -> None:
        before, after = Status(old["status"]["S"]), Status(new["status"]["S"])
        if before is not after and after not in TRANSITIONS[before]:
            self.note_wrong(f"{pk} went from {before} to {after}")
        if int(new["version"]["N"]) < int(old["version"]["N"]):
            self.note_wrong(f"{pk} went back to an older version")
        if _number(new, "progress") < _number(old, "progress"):
            self.note_wrong(f"{pk} had less progress than before")
        if new["version"] != old["version"]:
            return
        if any(old.get(name) != new.get(name) for name in SHOWN):
            self.note_wrong(f"{pk} changed what the index shows, and kept its version")
        stamps = [parse_time(item["progress_at"]["S"]) for item in (old, new) if "progress_at" in item]
        if len(stamps) == 2 and 0 < (stamps[1] - stamps[0]).total_seconds() < PROGRESS_EVERY_S:
            self.note_wrong(f"{pk} had progress noted within {PROGRESS_EVERY_S} s")

    def _check_claim(self, key: tuple[str, str], old: Item, new: Item) -> None:
        if "token" not in new or new["token"] == old.get("token"):
            return
        due_at = parse_time(old["due_at"]["S"])
        now, tries = self.world.now(), int(old.get("tries", {"N": "0"})["N"])
        if "token" in old:
            early_s = (due_at - now).total_seconds() - CLOCKS_APART_S
            if early_s > 0:
                self.note_wrong(f"{key} was claimed {early_s} s before another's claim had ended")
        elif tries:
            early_s = (due_at - now).total_seconds() - DUE_TOLERANCE_S - CLOCKS_APART_S
            if early_s > 0:
                self.note_wrong(f"{key} was tried again {early_s} s before it was due")

    def note_wrong(self, what: str) -> None:
        """Notes what must never happen."""
        self.wrong.append(f"{(self.world.now() - START).total_seconds():.3f} s: {what}")


SHOWN = (*INDEXES["due"][:2], *INDEXES["due"][2])
CLOCKS_APART_S = 1.0
PATIENCE = 500  # times that a caller asks, 5 s apart: no storm lasts that long


def _number(item: Item, name: str) -> int:
    return int(item[name]["N"]) if name in item else -1


@dataclass(frozen=True, slots=True)
class Answered:
    """What a caller of the API was told, and when: a result, or an error that is an answer."""

    at_s: float
    asked: str  # the function's name: register, cancel or delete
    result: object


@dataclass(slots=True)
class Post:
    """A webhook on its way, and what its receiver answered; `heard` is whether its sender knows."""

    url: str
    message_id: str
    began_s: float
    process: Process | None
    ended_s: float | None = None
    answer: Answer | None = None
    heard: bool = False


class _NoAnswerError(Exception):
    """A receiver was not heard."""


__all__ = ["Boundaries", "Call", "Post", "Trouble", "Universe", "no_trouble"]
