"""How late a healthy connection is asked beside dead ones: the real poller, threads and clients over real sockets."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from renderbell.providers import Connection
from renderbell.schedule import PollSchedule, next_moment
from renderbell.store import Store
from renderbell.task import Task
from tests.benchmarks.rig import TABLE, now, polling, registered
from tests.deployment import in_process_table
from tests.unit.raw_server import Handler, Visit, answer, raw_server

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

TASKS = 100  # of each connection
INTERVAL_S = 5.0
TICK_S = 12.0  # longer than the 10 s that a dead provider holds a thread at first
CONCURRENCY = 64
ANSWER_S = 0.02

P95_S = 1.5  # beside dead connections; alone it is 0.2 s, all of it from the burst at the start
MOST_S = 4.0


@dataclass
class Healthy:
    """A provider that answers after 20 ms, and notes when each task was asked."""

    asked: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, visit: Visit) -> None:
        while request := visit.request():
            name = request.split(b" ")[1].rsplit(b"/", 1)[-1].decode()
            self.asked[name].append(now())
            visit.closing.wait(ANSWER_S)
            body = {"code": 20000, "data": {"task_id": name, "status": "processing", "progress": 10}}
            visit.send(answer(json.dumps(body).encode()))


def silent(visit: Visit) -> None:
    visit.closing.wait(60)


def dripping(visit: Visit) -> None:
    visit.request()
    visit.drip((bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nX-Filler: " + b"a" * 10_000), 0.2)


@contextmanager
def refusing() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def serving(handler: Handler, scheme: str = "http") -> Iterator[str]:
    with raw_server(handler) as server:
        hurry = threading.Timer(TICK_S, server.closing.set)  # so that the tick's last polls are not waited for
        hurry.start()
        try:
            yield f"{scheme}://{server.host}:{server.port}"
        finally:
            hurry.cancel()
            hurry.join()


DEAD: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "silent": lambda: serving(silent),
    "a TLS handshake without end": lambda: serving(silent, "https"),
    "refusing": refusing,
    "dripping": lambda: serving(dripping),
}


@dataclass(frozen=True)
class Lateness:
    """How long after its moment each poll was asked, in seconds."""

    all: list[float]

    def at(self, part: float) -> float:
        return sorted(self.all)[min(len(self.all) - 1, math.floor(part * len(self.all)))]

    def __str__(self) -> str:
        return (
            f"p50 {self.at(0.5):.3f} s, p95 {self.at(0.95):.3f} s, most {max(self.all):.3f} s of {len(self.all)} polls"
        )


def lateness_of(tasks: list[Task], asked: dict[str, list[datetime]], until: datetime) -> Lateness:
    """From every moment before a time to the first poll after it; one that is under way then serves it as well."""
    found = []
    under_way = timedelta(seconds=1)  # from the request until the answer is taken, on a busy machine
    for task in tasks:
        moment = task.created_at
        while moment < until:
            polls = [poll for poll in asked[task.provider_task_id] if poll >= moment - under_way]
            late = (min(polls) if polls else until + timedelta(seconds=INTERVAL_S)) - moment
            found.append(max(0.0, late.total_seconds()))
            moment = next_moment(PollSchedule(INTERVAL_S), task.created_at, task.task_id, moment)
    return Lateness(found)


def one_tick(beside: list[str]) -> Lateness:
    """Polls the healthy connection for one tick, beside the named dead ones."""
    store = Store(cast("DynamoDBClient", in_process_table(TABLE)), TABLE)
    healthy = Healthy()
    with ExitStack() as running:
        addresses = {"healthy": running.enter_context(serving(healthy))}
        addresses |= {f"dead-{number}": running.enter_context(DEAD[name]()) for number, name in enumerate(beside)}
        connections = [
            Connection(name=name, type="jimmy", base_url=url, poll_interval_s=INTERVAL_S)
            for name, url in addresses.items()
        ]
        rig = running.enter_context(polling(store, connections, concurrency=CONCURRENCY))
        tasks = {name: registered(store, name, TASKS) for name in reversed(addresses)}  # the healthy wait for no other
        began = now()
        rig.poller.poll_due_tasks(0, time_limit_s=TICK_S)
        return lateness_of(tasks["healthy"], healthy.asked, began + timedelta(seconds=TICK_S - 1))


@pytest.fixture(scope="module")
def alone() -> Lateness:
    return one_tick([])


@pytest.mark.parametrize("beside", [["silent"], list(DEAD)], ids=["silent", "all four"])
def test_a_healthy_connection_is_asked_in_time_beside_dead_ones(
    alone: Lateness, beside: list[str], measured: Callable[[str], None]
) -> None:
    found = one_tick(beside)
    measured(f"lateness of a healthy connection alone: {alone}; beside {' and '.join(beside)}: {found}")
    assert found.at(0.95) <= P95_S
    assert max(found.all) <= MOST_S
