"""Starting the poller for what is due now: tasks to poll, and webhooks that an owner asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aws_lambda_powertools import Logger

from renderbell.delivery import Delivery
from renderbell.invoke import Invoker
from renderbell.store import Lease, delivery_key
from renderbell.task import Task

logger = Logger()


class LeaseStore(Protocol):
    """What is used of the store."""

    def lease(self, worker: int) -> Lease | None: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class PollerWaker:
    """Starts the pollers' workers; `due_at` is the net below."""

    store: LeaseStore
    invoker: Invoker
    clock: Callable[[], datetime]
    workers: int
    function_name: str

    def wake(self, due: Iterable[Task | Delivery]) -> None:
        """Starts the workers of the slots of what is due, each for the first of its own."""
        first: dict[int, Task | Delivery] = {}
        for one in due:
            first.setdefault(one.slot % self.workers, one)
        for worker, one in first.items():
            self._wake(worker, one)

    def _wake(self, worker: int, one: Task | Delivery) -> None:
        """Starts a worker unless its lease says that it runs: then it looks every few seconds."""
        try:
            lease = self.store.lease(worker)
            if lease is None or lease.until <= self.clock():
                self.invoker.invoke(self.function_name, {"worker": worker, **_named(one)})
        except Exception:  # what is due is stored, and the next tick finds it
            logger.exception("poller not woken", extra={"task_id": one.task_id, "worker": worker})


def _named(one: Task | Delivery) -> Mapping[str, object]:
    return {"delivery": delivery_key(one)} if isinstance(one, Delivery) else {"task_id": one.task_id}
