"""The poller as its function makes it: threads, clients over real sockets, and a table in memory or on the emulator."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from pydantic import SecretStr

from renderbell.agenda import most_in_flight
from renderbell.bootstrap import HOUSEKEEPING_THREADS
from renderbell.fetch import PollClient
from renderbell.poll import Poller, PollSettings
from renderbell.providers import Connection
from renderbell.schedule import slot_of
from renderbell.store import Store
from renderbell.task import Request, Task, new_task
from renderbell.threads import WorkerPool

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

TABLE = "measured"
SLOTS = 16
CONNECTION = "bench"
INTERVAL_S = 1.0
KEY = SecretStr("key")


@dataclass
class FixedConnections:
    """An operator's connections that never change."""

    connections: dict[str, Connection]

    def get(self, name: str) -> Connection | None:
        """The connection."""
        return self.connections.get(name)

    known = get

    def freshen(self) -> None:
        """Nothing is ever old."""


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def in_memory(tasks: int) -> tuple[Store, list[Task]]:
    """A store over a table in memory, and tasks that were registered in it an hour ago: no look finds them new."""
    from tests.deployment import in_process_table  # what it brings along is in no measured process but this one

    store = Store(cast("DynamoDBClient", in_process_table(TABLE)), TABLE)
    return store, registered(store, CONNECTION, tasks, [now() - timedelta(hours=1)] * tasks)


def registered(
    store: Store, connection: str, number: int, births: Sequence[datetime] | None = None, start: int = 0
) -> list[Task]:
    """Tasks as the API registers them, without its HTTP: now, or at given times."""
    tasks = []
    for n in range(start, start + number):
        task_id = f"tsk_{connection}_{n:06d}"
        task = new_task(
            task_id=task_id,
            owner="default",
            connection=connection,
            provider="jimmy",
            provider_task_id=f"{connection}-{n:06d}",
            now=now() if births is None else births[n - start],
            deadline_s=86_400,
            slot=slot_of(task_id, SLOTS),
            tells_processing=False,
        )
        request = Request(
            task_id=task_id, owner="default", created_at=task.created_at, deadline_s=86_400, base_url="https://a", ttl=0
        )
        store.register(task, request)
        tasks.append(task)
    return tasks


@dataclass
class Rig:
    """A poller, and what it has counted."""

    poller: Poller
    counts: dict[str, float] = field(default_factory=dict)


@contextmanager
def polling(
    store: Store, connections: Sequence[Connection], *, concurrency: int, ca_file: str | None = None
) -> Iterator[Rig]:
    """A poller as the function's bootstrap makes it."""
    counts: dict[str, float] = {}

    def count(name: str, value: float) -> None:
        counts[name] = counts.get(name, 0.0) + value

    pool = WorkerPool(most_in_flight(concurrency) + HOUSEKEEPING_THREADS)
    with closing(pool), closing(PollClient(connections_per_host=concurrency, ca_file=ca_file)) as client:
        poller = Poller(
            store=store,
            connections=FixedConnections({one.name: one for one in connections}),
            fetch=client.fetch,
            notify=lambda payload: None,
            clock=now,
            pool=pool,
            settings=PollSettings(1, SLOTS, concurrency),
            count=count,
            flush=lambda: None,
            random=random.random,
            new_token=lambda: uuid4().hex,
        )
        yield Rig(poller, counts)
