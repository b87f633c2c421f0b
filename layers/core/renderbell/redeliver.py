"""The use case of an owner who looks after a task's webhooks: what was tried, and once more, please.

The attempt that an owner asks for takes the place of the next one, and is made as that would be: the poller tells the
notifier of each receiver in its turn. Whoever asks once a second for what hangs holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from renderbell.delivery import Attempt, Delivery, redelivered
from renderbell.endpoints import Endpoint, is_managed
from renderbell.errors import ConflictError, NotFoundError
from renderbell.register import TaskRecord, Tasks
from renderbell.store import delivery_key
from renderbell.wake import PollerWaker

__all__ = ["Redelivery", "RedeliveryStore"]

TRIES = 3


class RedeliveryStore(Protocol):
    """What is used of the store."""

    def deliveries(self, task_id: str) -> tuple[Delivery, ...]: ...
    def endpoints(self, owner: str) -> tuple[Endpoint, ...]: ...
    def delivery(self, pk: str, sk: str) -> Delivery | None: ...
    def reopen_delivery(self, seen: Delivery, after: Delivery) -> bool: ...
    def newest_attempts(
        self, task_id: str, most: int, before: str | None = None
    ) -> tuple[tuple[Attempt, ...], str | None]: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Redelivery:
    """What it needs."""

    tasks: Tasks
    store: RedeliveryStore
    waker: PollerWaker
    clock: Callable[[], datetime]

    def attempts(
        self, task_id: str, *, owner: str, limit: int, before: str | None = None
    ) -> tuple[tuple[Attempt, ...], str | None]:
        """Some attempts for a task of the owner's, newest first, and the place behind them; raises `NotFoundError`."""
        self.tasks.find_task(task_id, owner=owner)
        return self.store.newest_attempts(task_id, limit, before)

    def redeliver(
        self, task_id: str, *, owner: str, endpoint_id: str | None = None, event: str | None = None
    ) -> TaskRecord:
        """Has a task's webhooks sent once more, at once: all, or those to one endpoint or of one event.

        What is being sent just then is left alone, since it is being sent, and so is what goes to an endpoint that is
        switched off or removed. Raises `NotFoundError`, also for an endpoint that nothing goes to, and `ConflictError`
        where there is nothing to send, all of it is under way, or nobody wants it.
        """
        self.tasks.find_task(task_id, owner=owner)
        made = self.store.deliveries(task_id)
        of_endpoint = [one for one in made if endpoint_id in {None, one.endpoint_id}]
        if endpoint_id is not None and not of_endpoint:
            raise NotFoundError("this task has no such endpoint")
        chosen = [one for one in of_endpoint if event in {None, one.event}]
        if not chosen:
            raise ConflictError("the task has no webhook that could be sent", code="nothing_to_redeliver")
        chosen = self._wanted(chosen, owner)
        now = self.clock()
        again = [one for one in (self._again(one, now) for one in chosen) if one is not None]
        record = self.tasks.read_task(task_id, owner=owner)  # it may have been deleted meanwhile
        if not again:
            raise ConflictError("the webhook is being sent just now; try again", code="try_again")
        self.waker.wake(again)
        return record

    def _wanted(self, chosen: Sequence[Delivery], owner: str) -> list[Delivery]:
        """Those of the deliveries whose endpoint takes any; raises `ConflictError` where there are none."""
        managed = [one for one in chosen if is_managed(one.endpoint_id)]
        on = {one.endpoint_id for one in self.store.endpoints(owner) if not one.disabled} if managed else set()
        wanted = [one for one in chosen if one not in managed or one.endpoint_id in on]
        if not wanted:
            raise ConflictError("the endpoint is disabled or deleted", code="endpoint_disabled")
        return wanted

    def _again(self, delivery: Delivery | None, now: datetime) -> Delivery | None:
        """The delivery as it is due now; None while it is being sent, or where it is there no more."""
        for _ in range(TRIES):
            if delivery is None:
                return None
            after = redelivered(delivery, now)
            if after is None or after is delivery or self.store.reopen_delivery(delivery, after):
                return after
            delivery = self.store.delivery(**delivery_key(delivery))
        return None
