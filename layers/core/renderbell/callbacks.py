"""The use case of providers' own calls: one that is proved makes its task due now, for every owner who watches it.

It is a hint: the poll still decides, within its connection's limits, and a hint that gets lost costs lateness only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from aws_lambda_powertools import Logger

from renderbell.errors import RenderbellError
from renderbell.providers import Connection, verify_callback
from renderbell.store import UnreadableItemError
from renderbell.task import Task, hinted
from renderbell.transition import TransitionStore, change_task
from renderbell.wake import PollerWaker

if TYPE_CHECKING:
    from renderbell.deliver import SideBySide

__all__ = ["CallbackRefusedError", "CallbackStore", "Callbacks"]

MAX_WATCHERS = 500  # of one render; further owners are told by their own polls

logger = Logger()


class CallbackRefusedError(RenderbellError):
    """The call is not proved to be the provider's; which connections there are is nobody's business."""


class CallbackStore(TransitionStore, Protocol):
    """What is used of the store."""

    def watched(self, connection: str, provider_task_id: str) -> Iterable[str]: ...
    def task(self, task_id: str) -> Task | None: ...


class Connections(Protocol):
    """What is used of the operator's connections."""

    def known(self, name: str) -> Connection | None: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Callbacks:
    """Takes providers' calls."""

    store: CallbackStore
    connections: Connections
    waker: PollerWaker
    clock: Callable[[], datetime]
    side_by_side: SideBySide

    def take(self, name: str, headers: Mapping[str, str], body: bytes) -> None:
        """Makes the task that a call to a connection is about due now, if anybody watches it.

        Raises `CallbackRefusedError`, whatever is wrong with the call, its signature or the connection.
        """
        connection = self.connections.known(name)  # a stranger's names have nothing read
        lowered = {header.lower(): value for header, value in headers.items()}
        callback = verify_callback(connection, lowered, body, self.clock())
        if connection is None or callback is None:
            logger.warning("callback refused", extra={"connection": connection.name if connection else None})
            raise CallbackRefusedError("the signature is missing, wrong or too old")
        if callback.provider_task_id is None:
            logger.warning("callback names no task", extra={"connection": name})
            return
        watching = islice(self.store.watched(name, callback.provider_task_id), MAX_WATCHERS)
        jobs = [partial(self._hint, task_id) for task_id in watching]
        found = self.side_by_side(jobs)
        due = [one for one in found if isinstance(one, Task)]
        self.waker.wake(due)
        logger.info("callback taken", extra={"connection": name, "watched": len(jobs), "hinted": len(due)})
        trouble = next((one for one in found if isinstance(one, Exception)), None)
        if trouble is not None:  # the caller may call again; who was told is not told twice
            raise trouble

    def _hint(self, task_id: str) -> Task | Exception | None:
        """The task as it was made due; None where that was not to be done."""
        try:
            task = self.store.task(task_id)
            changed = None if task is None else change_task(self.store, task, hinted, self.clock)
        except UnreadableItemError:
            logger.exception("item cannot be read", extra={"task_id": task_id})
            return None
        except Exception as error:
            return error
        return changed.after if changed is not None and changed.after is not changed.before else None
