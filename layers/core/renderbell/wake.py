"""Starting the poller for tasks that are due now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aws_lambda_powertools import Logger

from renderbell.invoke import Invoker
from renderbell.store import Lease
from renderbell.task import Task

logger = Logger()


class LeaseStore(Protocol):
    """What is used of the store."""

    def lease(self, worker: int) -> Lease | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PollerWaker:
    """Starts the pollers' workers; `due_at` is the net below."""

    store: LeaseStore
    invoker: Invoker
    clock: Callable[[], datetime]
    workers: int
    function_name: str

    def wake(self, tasks: Iterable[Task]) -> None:
        """Starts the workers of tasks' slots, each for the first of its tasks."""
        first: dict[int, Task] = {}
        for task in tasks:
            first.setdefault(task.slot % self.workers, task)
        for worker, task in first.items():
            self._wake(worker, task)

    def _wake(self, worker: int, task: Task) -> None:
        """Starts a worker unless its lease says that it runs: then it looks every few seconds."""
        try:
            lease = self.store.lease(worker)
            if lease is None or lease.until <= self.clock():
                self.invoker.invoke(self.function_name, {"worker": worker, "task_id": task.task_id})
        except Exception:  # what is due is stored, and the next tick finds it
            logger.exception("poller not woken", extra={"task_id": task.task_id, "worker": worker})
