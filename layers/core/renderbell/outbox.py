"""What a poller knows of work that is due for the notifier: copies, leftovers and deliveries. No I/O."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Generic, TypeVar

from renderbell.store import DueDelivery, task_key
from renderbell.task import Task

RECEIVER_EVERY_S = 20.0
MAX_DELIVERIES = 500  # what a receiver that answers takes in 20 s, five side by side; some 50 kB of an event's 256
MAX_TOLD = 3  # times in one tick: as often as the minute allows
MAX_HANDED_OVER = 100  # receivers

Payload = dict[str, object]
Name = tuple[str, str]  # owner, receiver
Key = tuple[str, str]  # pk, sk

T = TypeVar("T")


class Outbox:
    """The due copy and clean items, each told once a version, and the due deliveries, told by receiver.

    An owner's receiver gets one invocation every 20 seconds with its oldest due deliveries, its endpoints in turns, so
    that a dead one's time-outs never fill the notifier, whatever URLs it has. It stops at failures, so the rest is told
    again; what has been done meanwhile is skipped there. `due` and `next_due` are asked at every turn of the poller, so
    they do not go through all that waits.
    """

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._tasks: dict[str, Task] = {}
        self._task_turns: _Soonest[Task] = _Soonest(lambda at, task: self._tasks.get(task.task_id) is not task)
        self._receivers: dict[Name, _Receiver] = {}
        self._turns: _Soonest[_Receiver] = _Soonest(lambda at, receiver: receiver.turn_at != at)

    def adopt(self, told: Mapping[str, datetime]) -> None:
        """Takes over from an earlier holder when each receiver may be told of again."""
        for name, at in told.items():
            owner, _, host = name.partition(" ")
            receiver = self._receiver((owner, host))
            receiver.free_at = at if receiver.free_at is None else max(at, receiver.free_at)
            self._plan(receiver)

    def told(self, now: datetime) -> dict[str, datetime]:
        """When the receivers that were told of just now may be again, for the next holder; the latest of very many."""
        free = [(one.free_at, name) for name, one in self._receivers.items() if one.free_at is not None]
        waiting = sorted(((at, name) for at, name in free if at > now), reverse=True)
        return {f"{owner} {host}": at for at, (owner, host) in waiting[:MAX_HANDED_OVER]}

    def merge(self, tasks: Iterable[Task], deliveries: Iterable[DueDelivery], since: datetime | None) -> None:
        """Takes what a look has found; `since` is the earliest due time it covered (None: all).

        What was due in the window before and is no longer found has been done.
        """
        found = {task.task_id: task for task in tasks if self._told.get(task.task_id, 0) < task.version}
        self._tasks = {
            task_id: task
            for task_id, task in self._tasks.items()
            if task_id in found or (since is not None and task.due_at is not None and task.due_at < since)
        }
        for task in found.values():
            known = self._tasks.get(task.task_id)
            if task.due_at is not None and (known is None or known.version != task.version):
                self._tasks[task.task_id] = task
                self._task_turns.add(task.due_at, task)
        shown = {one.key: one for one in deliveries}
        for receiver in self._receivers.values():
            receiver.drop(lambda one: one.key not in shown and (since is None or one.due_at >= since))
        for delivery in shown.values():
            self._receiver((delivery.owner, delivery.receiver)).take_in(delivery)
        for receiver in self._receivers.values():
            self._plan(receiver)

    def due(self, now: datetime) -> list[Payload]:
        """The notifier's events to send now."""
        payloads: list[Payload] = []
        while (task := self._task_turns.take(now)) is not None:
            del self._tasks[task.task_id]
            self._told[task.task_id] = task.version
            payloads.append({**task_key(task.task_id)})
        while (receiver := self._turns.take(now)) is not None:
            keys = receiver.next_turn(now)
            self._plan(receiver)
            payloads.append({"items": [{"pk": pk, "sk": sk} for pk, sk in keys]})
        return payloads

    def next_due(self) -> datetime | None:
        """When the next event is to be sent."""
        times = (self._task_turns.soonest(), self._turns.soonest())
        return min((at for at in times if at is not None), default=None)

    def _receiver(self, name: Name) -> _Receiver:
        return self._receivers.setdefault(name, _Receiver())

    def _plan(self, receiver: _Receiver) -> None:
        at = receiver.next_at()
        if at != receiver.turn_at:
            receiver.turn_at = at
            if at is not None:
                self._turns.add(at, receiver)


@dataclass(slots=True)
class _Waiting:
    key: Key
    endpoint_id: str
    due_at: datetime
    told: int = 0
    gone: bool = False


class _Receiver:
    """The deliveries that wait for one receiver: first by their time, and once they are due in turns by endpoint.

    A look does not cover again what was due long before it, so most of those told of have been done: the others come
    first.
    """

    def __init__(self) -> None:
        self.free_at: datetime | None = None  # when it may be told of again
        self.turn_at: datetime | None = None  # when it will be
        self._waiting: dict[Key, _Waiting] = {}
        self._later: _Soonest[_Waiting] = _Soonest(lambda at, one: one.gone)
        self._due = [_Turns() for _ in range(MAX_TOLD)]  # by how often they were told of

    def drop(self, is_done: Callable[[_Waiting], bool]) -> None:
        """Forgets what has been done."""
        for one in [one for one in self._waiting.values() if is_done(one)]:
            one.gone = True
            del self._waiting[one.key]

    def take_in(self, delivery: DueDelivery) -> None:
        """Takes a delivery that is new, or due at another time than was known."""
        known = self._waiting.get(delivery.key)
        if known is not None:
            if known.due_at == delivery.due_at:
                return
            known.gone = True
        one = _Waiting(delivery.key, delivery.endpoint_id, delivery.due_at)
        self._waiting[one.key] = one
        self._later.add(one.due_at, one)

    def next_at(self) -> datetime | None:
        """When there is something to tell, and it may be told."""
        if any(self._due):
            return self.free_at
        soonest = self._later.soonest()
        return soonest if soonest is None or self.free_at is None else max(soonest, self.free_at)

    def next_turn(self, now: datetime) -> list[Key]:
        """What to tell of now."""
        while (one := self._later.take(now)) is not None:
            self._due[0].add(one)
        told: list[_Waiting] = []
        for turns in self._due:
            while len(told) < MAX_DELIVERIES and turns:
                told.append(turns.take())
        for one in told:
            one.told += 1
            if one.told < MAX_TOLD:
                self._due[one.told].add(one)
        self.free_at = now + timedelta(seconds=RECEIVER_EVERY_S)
        return [one.key for one in told]


class _Turns:
    """Deliveries of several endpoints, one of each in turn; false when none is left."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()

    def __bool__(self) -> bool:
        while self._queues:
            endpoint_id, queue = next(iter(self._queues.items()))
            while queue and queue[0].gone:
                queue.popleft()
            if queue:
                return True
            del self._queues[endpoint_id]
        return False

    def add(self, one: _Waiting) -> None:
        """Puts a delivery behind the others of its endpoint."""
        self._queues.setdefault(one.endpoint_id, deque()).append(one)

    def take(self) -> _Waiting:
        """The next one; only where there is one."""
        endpoint_id, queue = self._queues.popitem(last=False)
        one = queue.popleft()
        if queue:
            self._queues[endpoint_id] = queue
        return one


class _Soonest(Generic[T]):
    """Things by their times; those that `is_void` meanwhile are left out."""

    def __init__(self, is_void: Callable[[datetime, T], bool]) -> None:
        self._heap: list[tuple[datetime, int, T]] = []
        self._order = count()  # among things of the same time
        self._is_void = is_void

    def add(self, at: datetime, thing: T) -> None:
        """Adds a thing."""
        heapq.heappush(self._heap, (at, next(self._order), thing))

    def soonest(self) -> datetime | None:
        """The time of the first."""
        while self._heap and self._is_void(self._heap[0][0], self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: datetime) -> T | None:
        """The first whose time has come."""
        at = self.soonest()
        return heapq.heappop(self._heap)[2] if at is not None and at <= now else None
