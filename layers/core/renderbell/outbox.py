"""What a poller knows of work that is due for the notifier: copies, leftovers and deliveries. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from renderbell.store import DueDelivery, task_key
from renderbell.task import Task

ENDPOINT_EVERY_S = 20.0
MAX_DELIVERIES = 500  # what an endpoint that answers takes in 20 s, five side by side; some 50 kB of an event's 256
MAX_TOLD = 3  # times in one tick: as often as the minute allows
MAX_HANDED_OVER = 100  # endpoints

Payload = dict[str, object]
Endpoint = tuple[str, str]  # owner, endpoint id
Key = tuple[str, str]  # pk, sk


@dataclass(slots=True)
class _Waiting:
    due_at: datetime
    told: int = 0


class Outbox:
    """The due copy and clean items, each told once a version, and the due deliveries, told by endpoint.

    An endpoint gets one invocation every 20 seconds with its oldest due deliveries, so that a dead one's time-outs
    never fill the notifier. It stops at the first failure, so the rest is told again; what has been done meanwhile is
    skipped there.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._told: dict[str, int] = {}
        self._deliveries: dict[Endpoint, dict[Key, _Waiting]] = {}
        self._next: dict[Endpoint, datetime] = {}

    def adopt(self, told: Mapping[str, datetime]) -> None:
        """Takes over from an earlier holder when each endpoint may be told of again."""
        for name, at in told.items():
            owner, _, endpoint_id = name.partition(" ")
            endpoint = owner, endpoint_id
            self._next[endpoint] = max(at, self._next.get(endpoint, at))

    def told(self, now: datetime) -> dict[str, datetime]:
        """When the endpoints that were told of just now may be again, for the next holder; the latest of very many."""
        waiting = sorted(((at, endpoint) for endpoint, at in self._next.items() if at > now), reverse=True)
        return {f"{owner} {endpoint_id}": at for at, (owner, endpoint_id) in waiting[:MAX_HANDED_OVER]}

    def merge(self, tasks: Iterable[Task], deliveries: Iterable[DueDelivery], since: datetime | None) -> None:
        """Takes what a look has found; `since` is the earliest due time it covered (None: all).

        What was due in the window before and is no longer found has been done.
        """
        self._tasks = {
            task_id: task
            for task_id, task in self._tasks.items()
            if since is not None and task.due_at is not None and task.due_at < since
        }
        for task in tasks:
            if self._told.get(task.task_id, 0) < task.version:
                self._tasks[task.task_id] = task
        shown = {one.key: one for one in deliveries}
        for waiting in self._deliveries.values():
            for key, one in list(waiting.items()):
                if key not in shown and (since is None or one.due_at >= since):
                    del waiting[key]
        for delivery in shown.values():
            waiting = self._deliveries.setdefault((delivery.owner, delivery.endpoint_id), {})
            known = waiting.get(delivery.key)
            if known is None or known.due_at != delivery.due_at:
                waiting[delivery.key] = _Waiting(delivery.due_at)

    def due(self, now: datetime) -> list[Payload]:
        """The notifier's events to send now."""
        payloads: list[Payload] = []
        for task in [task for task in self._tasks.values() if task.due_at is not None and task.due_at <= now]:
            del self._tasks[task.task_id]
            self._told[task.task_id] = task.version
            payloads.append({**task_key(task.task_id)})
        for endpoint, waiting in self._deliveries.items():
            if self._next.get(endpoint, now) > now:
                continue
            # A look does not cover again what was due long before it, so most of those told of have been done: the
            # others come first.
            open_ones = [
                (one.told, one.due_at, key) for key, one in waiting.items() if one.due_at <= now and one.told < MAX_TOLD
            ]
            due = [key for _, _, key in sorted(open_ones)[:MAX_DELIVERIES]]
            if not due:
                continue
            self._next[endpoint] = now + timedelta(seconds=ENDPOINT_EVERY_S)
            for key in due:
                waiting[key].told += 1
            payloads.append({"items": [{"pk": pk, "sk": sk} for pk, sk in due]})
        return payloads

    def next_due(self) -> datetime | None:
        """When the next event is to be sent."""
        times = [task.due_at for task in self._tasks.values() if task.due_at is not None]
        for endpoint, waiting in self._deliveries.items():
            first = min((one.due_at for one in waiting.values() if one.told < MAX_TOLD), default=None)
            if first is not None:
                times.append(max(first, self._next.get(endpoint, first)))
        return min(times, default=None)
