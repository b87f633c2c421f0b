"""A whole deployment in virtual time: the real use cases and store over an in-process table, the rest scripted."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast

from standardwebhooks import Webhook

from renderbell import endpoints
from renderbell.addresses import EgressPolicy
from renderbell.callbacks import Callbacks
from renderbell.connections import Connections
from renderbell.deliver import Deliverer
from renderbell.delivery import DEFAULT_EVENTS, Answer
from renderbell.endpoints import Endpoint, SigningKey
from renderbell.errors import ConfigurationError
from renderbell.manage import Endpoints
from renderbell.notify import Notifier
from renderbell.poll import Poller, PollSettings
from renderbell.providers import Connection, HttpRequest, HttpResponse
from renderbell.redeliver import Redelivery
from renderbell.register import Registered, TaskRequest, Tasks
from renderbell.store import DUE_PROJECTION, Store
from renderbell.task import Source, StoredFile, Task, Upload
from renderbell.wake import PollerWaker
from tests.dynamodb import FakeDynamoDB, Item
from tests.virtual import START, Process, VirtualPool, World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MASTER = b"m" * 43
OWNER = "default"
POLLER, NOTIFIER, API_FUNCTION = "poller", "notifier", "api"
INVOKE_S = 0.05  # how long an asynchronous invocation takes to start
MAX_EVENT_AGE_S = 60.0
API = "https://api.example.com/v1"
CALLBACK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

T = TypeVar("T")
ItemKey = tuple[str, str]  # pk, sk


INDEXES = {"due": ("slot", "due_at", DUE_PROJECTION), "list": ("list_pk", "list_sk", frozenset())}


def in_process_table(name: str) -> FakeDynamoDB:
    """A table in this process, with the indexes that the template gives it."""
    return FakeDynamoDB(name, INDEXES)


class LateTable(FakeDynamoDB):
    """A table whose index `due` shows every write late, and which notes what its looks have shown.

    `lag` draws how late, in seconds. It may draw so that an older write shows after a newer one; `MAX_LAG_S` after a
    write the index shows it for good.
    """

    MAX_LAG_S = 2.0

    def __init__(self, world: World, lag: Callable[[], float]) -> None:
        super().__init__("table", INDEXES)
        self.looks: list[tuple[float, int]] = []  # when the index was asked, and how many items it showed
        self.item_s = 0.0  # how long a look takes for each item that it shows
        self.watchers: list[Callable[[ItemKey, Item | None, Item | None], None]] = []  # told of every write
        self._world = world
        self._lag = lag
        self._due: dict[str, dict[ItemKey, Item]] = {}  # what the index shows, by slot
        self._slots: dict[ItemKey, str] = {}  # where it shows an item

    def query(self, **call: Any) -> dict[str, Any]:
        if call.get("IndexName") != "due":
            return super().query(**call)
        page = super().query(**call)
        self.looks.append(((self._world.now() - START).total_seconds(), len(page["Items"])))
        if self.item_s:
            self._world.sleep(self.item_s * len(page["Items"]))
        return page

    def _write(self, key: ItemKey, item: Item) -> None:
        old = self._items.get(key)
        super()._write(key, item)
        self._written(key, old, item)

    def _remove(self, key: ItemKey) -> None:
        old = self._items.get(key)
        super()._remove(key)
        if old is not None:
            self._written(key, old, None)

    def _written(self, key: ItemKey, old: Item | None, new: Item | None) -> None:
        for watch in self.watchers:
            watch(key, old, new)
        if "slot" not in (old or {}) and "slot" not in (new or {}):
            return
        lag_s, now = self._lag(), self._world.now()
        if lag_s == 0:
            self._show(key, new)
            return
        self._world.at(now + timedelta(seconds=lag_s), lambda: self._show(key, new))
        if lag_s < self.MAX_LAG_S:
            self._world.at(now + timedelta(seconds=self.MAX_LAG_S), lambda: self._show(key, new))

    def _show(self, key: ItemKey, item: Item | None) -> None:
        shown = self._slots.pop(key, None)
        if shown is not None:
            del self._due[shown][key]
        if item is not None and "slot" in item:
            self._slots[key] = slot = item["slot"]["N"]
            self._due.setdefault(slot, {})[key] = item

    def _candidates(self, index: str | None, hash_name: str, hashed: Any) -> Iterable[Item]:
        if index == "due":
            return self._due.get(hashed["N"], {}).values()
        return super()._candidates(index, hash_name, hashed)


@dataclass(frozen=True, slots=True)
class Said:
    """What a provider answers from a time on, counted in seconds from the start of the world."""

    from_s: float
    answer: dict[str, object] | Exception | int | bytes
    latency_s: float = 0.2


@dataclass
class ScriptedProvider:
    """Answers polls by a script for each of its tasks: words go into Jimmy's envelope, bytes are a whole body."""

    world: World
    scripts: dict[str, Sequence[Said]] = field(default_factory=dict)
    polls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    in_flight: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    most_in_flight: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        provider_task_id = request.url.rsplit("/", 1)[-1]
        now_s = (self.world.now() - START).total_seconds()
        self.polls[provider_task_id].append(now_s)
        said = [one for one in self.scripts[provider_task_id] if one.from_s <= now_s][-1]
        self.in_flight[connection.name] += 1
        self.most_in_flight[connection.name] = max(
            self.most_in_flight[connection.name], self.in_flight[connection.name]
        )
        self.world.sleep(min(said.latency_s, timeout_s))
        self.in_flight[connection.name] -= 1
        if isinstance(said.answer, Exception):
            raise said.answer
        if isinstance(said.answer, int):
            return HttpResponse(said.answer, {}, b"{}")
        if isinstance(said.answer, bytes):
            return HttpResponse(200, {"Content-Type": "application/json"}, said.answer)
        body = json.dumps({"code": 20000, "msg": "ok", "data": said.answer})
        return HttpResponse(200, {"Content-Type": "application/json"}, body.encode())


def processing(from_s: float = 0, progress: int = 10, **more: Any) -> Said:
    """The provider works."""
    return Said(from_s, {"status": "processing", "progress": progress}, **more)


def succeeded(from_s: float = 0, **more: Any) -> Said:
    """The provider is done."""
    result = {"video_url": "https://cdn.example.com/video.mp4?signature=s"}
    return Said(from_s, {"status": "completed", "progress": 100, "result": result}, **more)


def made_two_videos(from_s: float = 0) -> Said:
    """A MoneyPrinterTurbo server is done, with two videos."""
    videos = ["https://cdn.example.com/1.mp4", "https://cdn.example.com/2.mp4"]
    return Said(from_s, json.dumps({"status": 200, "data": {"state": 1, "videos": videos}}).encode())


def failed(from_s: float = 0, message: str = "no GPU") -> Said:
    """The provider gave up."""
    return Said(from_s, {"status": "failed", "error_message": message})


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook as it came in."""

    at_s: float
    url: str
    message_id: str
    body: bytes
    data: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass
class Receivers:
    """Verifies every webhook with the independent package, and answers by a script for each URL.

    `secrets` are those that must have signed, and no others, at single URLs; elsewhere it is the owner's first.
    """

    world: World
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    latency_s: float = 0.1
    latencies_s: dict[str, float] = field(default_factory=dict)  # of single URLs
    secrets: dict[str, list[str]] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        # The package compares with the machine's clock: move the timestamp's tolerance out of the way by signing time.
        told = headers["webhook-id"], _as_utc(int(headers["webhook-timestamp"])), body.decode()
        known = self.secrets.get(url, [endpoints.derive_secret(MASTER, "owner", OWNER, 1)])
        if [Webhook(secret).sign(*told) for secret in known] != headers["webhook-signature"].split(" "):
            raise AssertionError("a webhook with a wrong signature")
        latency_s = self.latencies_s.get(url, self.latency_s)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.world.sleep(latency_s)
        self.at_once -= 1
        now_s = (self.world.now() - START).total_seconds()
        self.received.append(Received(now_s, url, headers["webhook-id"], body, json.loads(body), headers))
        script = self.answers.get(url, [])
        answer = script.pop(0) if len(script) > 1 else script[0] if script else Answer(204)
        return replace(answer, duration_ms=answer.duration_ms or round(latency_s * 1000))


def _as_utc(timestamp: int) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=START.tzinfo)


@dataclass
class ScriptedArchive:
    """Stores files by name only; each key of `faults` fails as often as it lists errors.

    Where `uploads` lists ids, each try keeps a part of the next such upload half-way.
    """

    world: World
    objects: dict[str, StoredFile] = field(default_factory=dict)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    cleaned: list[str] = field(default_factory=list)
    copy_s: float = 1.0
    sources: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    open: dict[str, str] = field(default_factory=dict)  # the keys of the uploads that were begun, by their ids
    begun_s: list[float] = field(default_factory=list)  # when each try began
    clean_s: float = 0.0
    clean_faults: list[Exception] = field(default_factory=list)  # what the next clean-ups raise
    hangs_s: float = 0.0  # how long the last write takes, in which nobody looks at the time

    def store(
        self,
        *,
        prefix: str,
        n: int,
        source: Source,
        connection: Connection | None,
        upload: Upload | None,
        checkpoint: Callable[[Upload | None], None],
        seconds_left: Callable[[], float],
    ) -> StoredFile:
        key = f"{prefix}/{n}.mp4"
        self.sources.append(source.url)
        self.begun_s.append((self.world.now() - START).total_seconds())
        open_upload = (
            Upload(n, key, self.uploads.pop(0), 5, "video/mp4", source.url, None, None) if self.uploads else None
        )
        if open_upload is not None and open_upload != upload:
            self.open[open_upload.upload_id] = key
            checkpoint(open_upload)
        for _ in range(10):
            self.world.sleep(self.copy_s / 10)
            seconds_left()
        if open_upload is not None:
            checkpoint(open_upload)  # a part more
        self.world.sleep(self.hangs_s)
        if faults := self.faults.get(f"{n}"):
            raise faults.pop(0)
        digest = hashlib.sha256(key.encode()).hexdigest()
        file = StoredFile(n, source.kind, "bucket", key, 1000, digest, "video/mp4", source.url)
        self.objects[key] = file
        if open_upload is not None:
            self.open.pop(open_upload.upload_id, None)
        return file

    def clean(self, prefix: str, keep: Sequence[str] = ()) -> None:
        self.world.sleep(self.clean_s)
        if self.clean_faults:
            raise self.clean_faults.pop(0)
        self.cleaned.append(prefix)
        self.open = {upload: key for upload, key in self.open.items() if not key.startswith(f"{prefix}/")}
        for key in [key for key in self.objects if key.startswith(f"{prefix}/") and key not in keep]:
            del self.objects[key]


class Deployment:
    """The functions of a deployment, as processes of one world.

    `index_lag_s` is how late the index `due` shows a write. With `one_process`, all ticks share the pool of threads,
    as on Lambda those do that follow one another in an environment. `notifiers` is how many of them may run at once;
    further events wait, and age out.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        slots: int = 4,
        concurrency: int = 64,
        seed: int = 1,
        index_lag_s: float = 0.0,
        lag: Callable[[], float] | None = None,
        one_process: bool = False,
        notifiers: int | None = None,
        many_tasks: int = 500,
    ) -> None:
        self.world = World()
        self.table = LateTable(self.world, lag or (lambda: index_lag_s))
        self.store = Store(cast("DynamoDBClient", self.table), "table")
        self.provider = ScriptedProvider(self.world)
        self.receivers = Receivers(self.world)
        self.archive = ScriptedArchive(self.world)
        self.connections: dict[str, Connection] = {}
        self.settings = PollSettings(workers, slots, concurrency, many_tasks)
        self.counts: dict[str, float] = defaultdict(float)
        self.flushed: dict[str, float] = {}  # of them, what a poller wrote out before its end
        self.invocations: list[tuple[str, Mapping[str, object]]] = []
        self.told: list[tuple[float, int]] = []  # when the notifier was told of deliveries, and of how many
        self.ticks: list[tuple[float, float]] = []  # when each tick that has ended began and ended
        self.tells_bus = False  # whether tasks are registered so
        self.unreadable = False  # whether Parameter Store cannot be read
        self.wakes = True
        self.loses: list[str] = []  # the next invocations of these functions never arrive
        self.random = random.Random(seed)
        self.jitter: Callable[[], float] = lambda: 0.5  # of retries
        self.aged_out = 0  # events for the notifier
        self._notifiers = notifiers
        self._notifying = 0
        self._waiting: deque[tuple[float, Mapping[str, object]]] = deque()
        self._one_process = one_process
        self._idle_pools: list[VirtualPool] = []
        self.store_of_tests = self.store
        self.managed: list[Endpoint] = []
        self._endpoint_ids = count(1)
        self._ids = count(1)
        self._tokens = count(1)
        self.connect("studio")

    # -- what a test says ---------------------------------------------------------------------------------------------

    def connect(self, name: str, *, poll_interval_s: float | None = 10, **more: Any) -> None:
        """Configures a connection."""
        asked = {"type": "jimmy", "base_url": f"https://{name}.example.com", "poll_interval_s": poll_interval_s}
        asked["callback_secret"] = CALLBACK_SECRET
        self.connections[name] = Connection.model_validate({"name": name, **asked, **more})

    def register(
        self,
        *script: Said,
        connection: str = "studio",
        at_s: float = 0.0,
        webhooks: Sequence[str] = (),
        events: Sequence[str] | None = None,
        **asked: Any,
    ) -> str:
        """Registers a task at a time; answers its id. Its provider speaks by the script."""
        number = next(self._ids)
        task_id, provider_task_id = _task_id(number), f"p{number}"
        self.provider.scripts[provider_task_id] = script
        request = TaskRequest.model_validate(
            {
                "connection": connection,
                "provider_task_id": provider_task_id,
                "webhooks": [{"url": url, **({"events": list(events)} if events else {})} for url in webhooks],
                **asked,
            }
        )

        def register() -> Registered:
            return self.tasks(lambda: task_id).register_task(request, owner=OWNER, base_url=API)

        self.start(API_FUNCTION, register, delay_s=at_s - self.now_s)
        return task_id

    def manage(self, url: str, *, events: Sequence[str] = DEFAULT_EVENTS, **more: Any) -> Endpoint:
        """Makes an endpoint of the owner's, whose receiver knows its secret."""
        made = Endpoint(
            endpoint_id=f"ep_{next(self._endpoint_ids):026d}",
            owner=OWNER,
            url=url,
            events=tuple(events),
            created_at=self.world.now(),
            **more,
        )
        assert self.store_of_tests.add_endpoint(made, 20)
        self.receivers.secrets[url] = [endpoints.derive_secret(MASTER, "endpoint", made.endpoint_id, 1)]
        self.managed.append(made)
        return made

    def tick_every_minute(self, *, until_s: float, first_s: float = 5.0) -> None:
        """Lets the schedule fire."""
        at_s = first_s
        while at_s < until_s:
            self.tick_at(at_s)
            at_s += 60

    def tick_at(self, at_s: float) -> None:
        """Lets the schedule fire once."""
        self.start(POLLER, lambda: self._fire({}), delay_s=at_s - self.now_s)

    def cancel(self, task_id: str, *, at_s: float) -> None:
        """Lets the owner cancel a task at a time."""
        self.start(
            API_FUNCTION, lambda: self.tasks(lambda: "").cancel_task(task_id, owner=OWNER), delay_s=at_s - self.now_s
        )

    def delete(self, task_id: str, *, at_s: float, force: bool = True) -> None:
        """Lets the owner delete a task at a time."""
        self.start(
            API_FUNCTION,
            lambda: self.tasks(lambda: "").delete_task(task_id, owner=OWNER, force=force),
            delay_s=at_s - self.now_s,
        )

    def call_back(self, task_id: str, *, at_s: float, secret: str = CALLBACK_SECRET) -> None:
        """Lets the provider call back about a task at a time."""

        def call_back() -> str:
            task, now = self.task(task_id), int(self.clock().timestamp())
            body = json.dumps({"task_id": task.provider_task_id}).encode()
            headers = {
                "webhook-id": "msg_1",
                "webhook-timestamp": str(now),
                "webhook-signature": Webhook(secret).sign("msg_1", _as_utc(now), body.decode()),
            }
            self.callbacks().take(task.connection, headers, body)
            return task_id

        self.start(API_FUNCTION, call_back, delay_s=at_s - self.now_s)

    def kill_everything(self) -> None:
        """All processes die where they are, and nothing that was planned happens."""
        self.world._events.clear()

    def run(self, until_s: float) -> None:
        """Lets the world go on; raises what broke on the way."""
        self.world.run(START + timedelta(seconds=until_s))
        if self.world.broken:
            raise self.world.broken[0]

    # -- what it finds ------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Seconds since the start of the world."""
        return (self.world.now() - START).total_seconds()

    def task(self, task_id: str) -> Task:
        """A task as it is stored."""
        task = self.store.task(task_id)
        if task is None:
            raise AssertionError(f"no task {task_id}")
        return task

    def polls(self, task_id: str) -> list[float]:
        """When a task was polled, in seconds."""
        return self.provider.polls[self.task(task_id).provider_task_id]

    def messages(self, task_id: str) -> list[Received]:
        """The webhooks that came for a task."""
        return [one for one in self.receivers.received if one.data["data"].get("task_id") == task_id]

    # -- the functions ------------------------------------------------------------------------------------------------

    def invoke(self, function_name: str, payload: Mapping[str, object]) -> None:
        """Starts a function a moment later."""
        self.invocations.append((function_name, payload))
        if isinstance(items := payload.get("items"), list):
            self.told.append((self.now_s, len(items)))
        if function_name in self.loses:
            self.loses.remove(function_name)
        elif function_name == POLLER:
            if self.wakes or not payload.keys() & {"task_id", "delivery"}:
                self.start(POLLER, lambda: self._fire(payload), delay_s=INVOKE_S)
        elif self._notifiers is None:
            self.start(NOTIFIER, lambda: self._notify(payload), delay_s=INVOKE_S)
        else:
            self._waiting.append((self.now_s, payload))
            self._start_waiting(self._notifiers)

    def start(self, function_name: str, body: Callable[[], object], *, delay_s: float) -> None:
        """Starts an invocation of a function as a process of its own."""
        self.world.spawn(body, delay_s=delay_s, process=Process(function_name))

    def clock(self) -> datetime:
        """The time as the running process knows it."""
        return self.world.now()

    def configured(self) -> _Connections | Connections:
        """The connections, as a process reads them."""
        return _Connections(self)

    def secrets(self, key: SigningKey, at: datetime) -> list[str]:
        """The secrets that sign, as a process finds them."""
        return endpoints.secrets_of(MASTER, key, at)

    def _fire(self, event: Mapping[str, Any]) -> None:
        if "worker" not in event:
            for worker in range(1, self.settings.workers):
                self.invoke(POLLER, {"worker": worker})
        began_s, pool = self.now_s, self._idle_pools.pop() if self._idle_pools else VirtualPool(self.world)
        try:
            self.poller(pool).poll_due_tasks(event.get("worker", 0), woken_for=_named(event))
        finally:
            self.ticks.append((began_s, self.now_s))
            if self._one_process:
                self._idle_pools.append(pool)

    def _notify(self, event: Mapping[str, object]) -> None:
        started = self.world.now()
        self.notifier().handle(event, lambda: 300 - (self.world.now() - started).total_seconds())

    def _start_waiting(self, at_most: int) -> None:
        while self._waiting and self._notifying < at_most:
            since_s, payload = self._waiting.popleft()
            if self.now_s - since_s > MAX_EVENT_AGE_S:
                self.aged_out += 1
                continue
            self._notifying += 1
            self.start(NOTIFIER, partial(self._notify_in_turn, payload, at_most), delay_s=INVOKE_S)

    def _notify_in_turn(self, event: Mapping[str, object], at_most: int) -> None:
        try:
            self._notify(event)
        finally:
            self._notifying -= 1
            self._start_waiting(at_most)

    def tasks(self, new_id: Callable[[], str]) -> Tasks:
        """The owner's use cases."""
        return Tasks(
            store=self.store,
            connections=self.configured(),
            fetch=self.provider.fetch,
            invoker=self,
            egress=EgressPolicy(),
            clock=self.clock,
            new_id=new_id,
            slots=self.settings.slots,
            poller_workers=self.settings.workers,
            poller_function=POLLER,
            notifier_function=NOTIFIER,
            task_retention_days=30,
            side_by_side=self._side_by_side,
            tells_bus=self.tells_bus,
        )

    def callbacks(self) -> Callbacks:
        """The use case of providers' calls."""
        return Callbacks(
            store=self.store,
            connections=self.configured(),
            waker=self._waker(),
            clock=self.clock,
            side_by_side=self._side_by_side,
        )

    def redelivery(self) -> Redelivery:
        """The owner's use case of webhooks by hand."""
        return Redelivery(tasks=self.tasks(lambda: ""), store=self.store, waker=self._waker(), clock=self.clock)

    def _waker(self) -> PollerWaker:
        return PollerWaker(
            store=self.store,
            invoker=self,
            clock=self.clock,
            workers=self.settings.workers,
            function_name=POLLER,
        )

    def endpoints(self) -> Endpoints:
        """The owner's use cases of endpoints."""
        return Endpoints(
            store=self.store,
            waker=self._waker(),
            egress=EgressPolicy(),
            master_secret=lambda: MASTER,
            clock=self.clock,
            new_id=lambda: f"ep_{next(self._endpoint_ids):026d}",
            new_test_id=lambda: f"tst_{next(self._endpoint_ids):026d}",
            slots=self.settings.slots,
            side_by_side=self._side_by_side,
        )

    def poller(self, pool: VirtualPool | None = None) -> Poller:
        """A poller as a process has it, a fresh one unless it brings its pool."""
        return Poller(
            store=self.store,
            connections=self.configured(),
            fetch=self.provider.fetch,
            notify=lambda payload: self.invoke(NOTIFIER, payload),
            clock=self.clock,
            pool=pool if pool is not None else VirtualPool(self.world),
            settings=self.settings,
            count=self._count,
            flush=lambda: self.flushed.update(self.counts),
            random=self.random.random,
            new_token=self._token,
        )

    def notifier(self) -> Notifier:
        """A notifier as a fresh process has it."""
        return Notifier(
            store=self.store,
            archive=self.archive,
            connections=self.configured(),
            fetch=self.provider.fetch,
            side_by_side=self._side_by_side,
            deliverer=Deliverer(
                store=self.store,
                poster=self.receivers,
                secrets=self.secrets,
                clock=self.clock,
                sleep=self.world.sleep,
                side_by_side=self._side_by_side,
                random=self.jitter,
                new_token=self._token,
                count=self._count,
            ),
            clock=self.clock,
            new_token=self._token,
            count=self._count,
        )

    def _side_by_side(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        results: dict[int, T] = {}
        channel = self.world.channel()

        def run(number: int, job: Callable[[], T]) -> None:
            results[number] = job()
            channel.put(number)

        for number, job in enumerate(jobs):
            self.world.spawn(lambda number=number, job=job: run(number, job))  # type: ignore[misc]
        left = len(jobs)
        while left:
            left -= len(channel.wait(3600))
        return [results[number] for number in range(len(jobs))]

    def _count(self, name: str, value: float) -> None:
        self.counts[name] += value

    def _token(self) -> str:
        return f"token-{next(self._tokens)}"


@dataclass(frozen=True, slots=True)
class _Connections:
    world: Deployment

    def get(self, name: str) -> Connection | None:
        return self.all().get(name)

    def known(self, name: str) -> Connection | None:
        return self.get(name)

    def freshen(self) -> None:
        pass

    def all(self) -> Mapping[str, Connection]:
        if self.world.unreadable:
            raise ConfigurationError("the connections cannot be read from Parameter Store")
        return self.world.connections


def _named(event: Mapping[str, Any]) -> str | tuple[str, str] | None:
    """What a poller's event names, as its handler reads it."""
    delivery = event.get("delivery")
    return (delivery["pk"], delivery["sk"]) if delivery else event.get("task_id")


def _task_id(number: int) -> str:
    return f"tsk_{number:026d}"


__all__ = [
    "API",
    "Deployment",
    "Received",
    "Said",
    "failed",
    "in_process_table",
    "made_two_videos",
    "processing",
    "succeeded",
]
