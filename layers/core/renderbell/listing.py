"""The use case of listing an owner's tasks: newest first, page by page, whatever stands between them.

    slot 0   ●────●───────────●──        each slot of the index has a list of its own, read in small pages
    slot 1   ──●──────●──●───────   ─►   merged, newest first: ● ● ● ● ● ●   ─►   looked at, and left out or shown
    slot 2   ●──────────────●────

What one request reads is bounded. A filter that few tasks match ends a page early, with the place where it goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from renderbell.register import TaskRecord
from renderbell.store import Place
from renderbell.task import Request, Status, Task

if TYPE_CHECKING:
    from renderbell.deliver import SideBySide

__all__ = ["MOST_READ", "ListStore", "Listing", "TaskFilter", "TaskPage"]

MOST_READ = 1000  # items of the table and its index, for one page
TO_LOOK = 2  # items behind an entry: the task and its request
MOST_AT_ONCE = 100  # entries looked at together
MOST_OF_SLOT = 64  # entries read of a slot at once, after the first


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks are wanted; what is empty or None leaves all. Both times are left out themselves."""

    statuses: frozenset[Status] = frozenset()
    connection: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def wants(self, task: Task) -> bool:
        """Whether the task itself matches."""
        return (not self.statuses or task.status in self.statuses) and self.connection in {None, task.connection}

    def wants_as_asked(self, request: Request) -> bool:
        """Whether what was asked for it matches."""
        return all(request.metadata.get(key) == value for key, value in self.metadata.items())


class TaskPage(NamedTuple):
    """Some tasks, newest first, and the place behind which the list goes on (None: it does not)."""

    records: tuple[TaskRecord, ...]
    next: Place | None


class ListStore(Protocol):
    """What is used of the store."""

    def listed(
        self,
        owner: str,
        slot: int,
        most: int,
        *,
        before: Place | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> list[Place]: ...
    def tasks(self, task_ids: Sequence[str]) -> dict[str, Task]: ...
    def requests(self, task_ids: Sequence[str]) -> dict[str, Request]: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Listing:
    """What listing needs; `slots` are those that tasks were ever registered in."""

    store: ListStore
    clock: Callable[[], datetime]
    slots: int
    side_by_side: SideBySide

    def list_tasks(self, owner: str, wanted: TaskFilter, *, limit: int, after: Place | None = None) -> TaskPage:
        """The newest tasks that match, at most `limit`, all of them behind a place in the list.

        What is registered meanwhile stands before every place, so no page shows it or anything twice. Deleted tasks
        are left out, and those that cannot be read. A page that has read enough ends early.
        """
        entries = _Entries(self, owner, wanted, after, limit)
        found: list[TaskRecord] = []
        at_once = limit
        while len(found) < limit and (places := entries.take(min(at_once, MOST_AT_ONCE))):
            records = self._look(owner, wanted, places, entries)
            room = limit - len(found)
            found += records[:room]
            if len(records) > room:
                return TaskPage(tuple(found), _place_of(found[-1].task))
            after = places[-1]
            at_once = 2 * at_once if len(records) * 2 <= len(places) else limit - len(found)
        return TaskPage(tuple(found), None if entries.ended else after)

    def _look(self, owner: str, wanted: TaskFilter, places: Sequence[Place], entries: _Entries) -> list[TaskRecord]:
        """Those behind the entries that are there and wanted, in their order."""
        entries.spend(len(places))
        tasks = self.store.tasks([place.task_id for place in places])
        fit = [
            task
            for place in places
            if (task := tasks.get(place.task_id)) is not None
            and (task.owner, task.deleted) == (owner, False)
            and wanted.wants(task)
        ]
        entries.spend(len(fit))
        requests = self.store.requests([task.task_id for task in fit])
        now = self.clock().timestamp()
        return [
            TaskRecord(task, request)
            for task in fit
            if (request := requests.get(task.task_id)) is not None  # it goes when a task is deleted
            and request.ttl > now  # DynamoDB forgets late
            and wanted.wants_as_asked(request)
        ]


class _Entries:
    """The entries of all slots, newest first, as far as one request may read."""

    def __init__(self, of: Listing, owner: str, wanted: TaskFilter, after: Place | None, limit: int) -> None:
        self._left = MOST_READ
        self._taking = 0  # how many are yet to be looked at
        self._spent = False
        self._next: Place | None = None
        self._read = partial(
            of.store.listed, owner, created_after=wanted.created_after, created_before=wanted.created_before
        )
        most = max(1, min(-(-limit // of.slots), MOST_READ // 2 // of.slots))
        firsts = of.side_by_side([partial(self._read, slot, most, before=after) for slot in range(of.slots)])
        self.spend(sum(map(len, firsts)))
        of_slots = [self._of_slot(slot, places, most) for slot, places in enumerate(firsts)]
        self._merged = heapq.merge(*of_slots, reverse=True)

    def spend(self, items: int) -> None:
        """Counts what is read."""
        self._left -= items

    @property
    def ended(self) -> bool:
        """Whether there is nothing more, for certain."""
        return not self._peek() and not self._spent

    def take(self, most: int) -> list[Place]:
        """The next entries, at most so many, and no more than may still be looked at."""
        taken: list[Place] = []
        while len(taken) < most and self._left >= TO_LOOK * (len(taken) + 1) and self._peek(len(taken) + 1):
            taken += [self._next] if self._next is not None else []
            self._next = None
        return taken

    def _peek(self, taking: int = 0) -> bool:
        """Whether there is a next entry that can be had; what is left must do to look at so many."""
        self._taking = taking
        if self._next is None and not self._spent:
            try:
                self._next = next(self._merged, None)
            except _SpentError:
                self._spent = True
        return self._next is not None

    def _of_slot(self, slot: int, places: list[Place], asked: int) -> Iterator[Place]:
        """A slot's entries, in pages that grow; what comes next of all is not known before a page is read on."""
        while True:
            yield from places
            if len(places) < asked:
                return
            asked = min(2 * asked, MOST_OF_SLOT, self._left - TO_LOOK * self._taking)
            if asked < 1:
                raise _SpentError
            places = self._read(slot, asked, before=places[-1])
            self.spend(len(places))


class _SpentError(Exception):
    """No more may be read."""


def _place_of(task: Task) -> Place:
    return Place(task.created_at, task.task_id)
