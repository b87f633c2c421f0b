"""Writing a change of a task together with the deliveries that its owner is owed for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from aws_lambda_powertools import Logger

from renderbell import webhooks
from renderbell.delivery import EVENT_OF_STATUS, Delivery
from renderbell.endpoints import Endpoint
from renderbell.errors import VersionConflictError
from renderbell.store import UnreadableItemError
from renderbell.task import Request, Status, Task

TRIES = 8

logger = Logger()


class TransitionStore(Protocol):
    """What is used of the store."""

    def request(self, task_id: str) -> Request | None:
        """What was asked when the task was registered."""

    def endpoints(self, owner: str) -> tuple[Endpoint, ...]:
        """The endpoints that an owner manages."""

    def save(self, before: Task, after: Task, deliveries: Sequence[Delivery] = (), *, token: str | None = None) -> Task:
        """Writes the change if the task's version still stands."""


class Changed(NamedTuple):
    """A change as it was written; `before` is the state that it was really made from."""

    before: Task
    after: Task
    deliveries: tuple[Delivery, ...] = ()

    @property
    def for_notifier(self) -> bool:
        """Whether the notifier has something to do now."""
        moved = self.before.status is not self.after.status
        return moved and (self.after.status is Status.COPYING or bool(self.deliveries))


def owed(
    store: TransitionStore, before: Task, after: Task, now: datetime, request: Request | None = None
) -> tuple[Delivery, ...]:
    """The deliveries that a change of state owes; the request is read only where there may be any and it is not given.

    Where it names no webhooks, the owner's endpoints are told, as they are at this moment. A request that cannot be
    read names nobody to tell: it must not keep its task from ending.
    """
    event = EVENT_OF_STATUS.get(after.status)
    if before.status is after.status or event is None:
        return ()
    if after.status is Status.PROCESSING and not after.tells_processing:
        return ()
    try:
        request = request or store.request(after.task_id)
    except UnreadableItemError:
        logger.exception("nobody can be told", extra={"task_id": after.task_id, "event": event})
        return ()
    if request is None:
        return ()
    managed = () if request.webhooks else store.endpoints(after.owner)
    return webhooks.deliveries_for(after, request, event, now, managed)


def change_task(
    store: TransitionStore,
    task: Task,
    change: Callable[[Task, datetime], Task],
    clock: Callable[[], datetime],
) -> Changed | None:
    """Applies a change and writes it; nothing is written where it changes nothing. None: the task is gone.

    Whoever loses the race against another writer applies its change again to what the winner wrote: an index lags, so
    a conflict is often only a stale version.
    """
    for _ in range(TRIES):
        now = clock()
        after = change(task, now)
        if after is task:
            return Changed(task, task)
        deliveries = owed(store, task, after, now)
        try:
            return Changed(task, store.save(task, after, deliveries), deliveries)
        except VersionConflictError as lost:
            if lost.current is None:
                return None
            task = lost.current
    return Changed(task, task)
