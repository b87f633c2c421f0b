"""The blocking work of a tick: each job runs in the pool, never raises, and answers with a message for the tick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple, Protocol

from aws_lambda_powertools import Logger

from renderbell.agenda import LISTED_A_POLL, Apart, Group
from renderbell.ask import POLL_TIMEOUT_S, Asked, Connections, Fetch, ask_list, ask_provider
from renderbell.delivery import Delivery
from renderbell.endpoints import Endpoint
from renderbell.errors import ProviderError
from renderbell.lengths import Lengths
from renderbell.progress import NO_NOTES, ProgressNotes, noted
from renderbell.providers.base import Observation
from renderbell.store import ConnectionHealth, DueDelivery, Lease, UnreadableItem, task_key
from renderbell.task import Request, Step, Task, advance, back_among, expire, notes_progress, set_apart
from renderbell.transition import Changed, change_task

RETRY_S = 3.0  # after a claim that could not be written
SAVING_S = 3.0  # for what follows a poll
KEPT_TOGETHER = 20  # of what a list has changed, one after the other in a thread
PROBE_S = POLL_TIMEOUT_S + SAVING_S + 1  # how long a probe keeps others from probing

Found = Task | DueDelivery | UnreadableItem  # by a look

logger = Logger()


class PollStore(Protocol):
    """What is used of the store."""

    def task(self, task_id: str) -> Task | None: ...
    def request(self, task_id: str) -> Request | None: ...
    def delivery(self, pk: str, sk: str) -> Delivery | None: ...
    def endpoints(self, owner: str) -> tuple[Endpoint, ...]: ...
    def save(
        self, before: Task, after: Task, deliveries: Sequence[Delivery] = (), *, token: str | None = None
    ) -> Task: ...
    def due(self, slot: int, until: datetime, after: datetime | None = None) -> Iterable[Found]: ...
    def lease(self, worker: int) -> Lease | None: ...
    def take_lease(self, lease: Lease, *, seen: Lease | None) -> bool: ...
    def keep_lease(self, lease: Lease) -> bool: ...
    def ask_relief(self, seen: Lease) -> bool: ...
    def connection_health(self, name: str) -> ConnectionHealth | None: ...
    def put_connection_health(self, name: str, health: ConnectionHealth | None) -> None: ...
    def claim_probe(self, name: str, health: ConnectionHealth, token: str, now: datetime) -> bool: ...
    def task_lengths(self, worker: int, connections: Iterable[str]) -> Mapping[str, Lengths]: ...
    def keep_task_lengths(self, worker: int, connection: str, lengths: Lengths, now: datetime) -> None: ...
    def task_progress(self, worker: int) -> ProgressNotes | None: ...
    def keep_task_progress(self, worker: int, notes: ProgressNotes) -> None: ...


class Polled(NamedTuple):
    """What a poll came to: the task as it is stored now (None: it is gone), and the error if it was no observation."""

    task_id: str
    saved: Task | None
    error: ProviderError | None
    changed: bool
    answered: bool = False  # the provider answered, though what it said of this task was no observation
    judged: bool = True  # False: it says nothing about the connection
    kept: bool = True  # False: what it brought could not be stored


class PolledApart(NamedTuple):
    """What a poll apart from the others came to."""

    task: Task
    started_at: datetime
    polled: Polled


@dataclass(frozen=True, slots=True)
class ByList:
    """What a list came to: the tasks that it leaves as they are, and what it says of those that it changes.

    Both still run; whoever is in neither is to be asked for singly.
    """

    group: Group
    unchanged: Sequence[Task]
    changed: Sequence[tuple[Task, Asked]]
    requests: int = 1
    count: int = 0  # of tasks in the list
    complete: bool = False


class Kept(NamedTuple):
    """What of a list's changes was stored."""

    polled: Sequence[Polled]


class NotProbed(NamedTuple):
    """A probe that was not made: the connection's back-off as it stands."""

    task: Task
    health: ConnectionHealth | None


class Looked(NamedTuple):
    """What a look has found of what is due from `since` on (None: all), and the lease as it stands."""

    at: datetime
    since: datetime | None
    lease: Lease | None
    found: Sequence[Found]


class Renewed(NamedTuple):
    """Whether the lease is still held, as it was written, with the tasks that it names."""

    lease: Lease
    held: bool
    noted: Sequence[Task]


class Health(NamedTuple):
    """A connection's back-off as it is stored, and how long its tasks have taken, if that was read."""

    connection: str
    health: ConnectionHealth | None
    lengths: Mapping[str, Lengths] = MappingProxyType({})


class Failed(NamedTuple):
    """A look or a renewal that could not be done; the loop tries again."""

    look: bool
    unnoted: Sequence[Task] = ()


@dataclass(slots=True)
class Recalled:
    """What earlier holders have noted of tasks' progress, once it has been read."""

    notes: ProgressNotes = NO_NOTES


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Jobs:
    """What a worker's jobs are made of."""

    store: PollStore
    connections: Connections
    fetch: Fetch
    notify: Callable[[Mapping[str, object]], None]
    clock: Callable[[], datetime]
    new_token: Callable[[], str]
    worker: int
    slots: range
    recalled: Recalled = field(default_factory=Recalled)

    def due(self, until: datetime, since: datetime | None) -> Iterable[Found]:
        """What the index shows of the worker's slots."""
        return chain.from_iterable(self.store.due(slot, until, since) for slot in self.slots)

    def poll(self, task: Task, timeout_s: float) -> Callable[[], Polled]:
        """Asks for a task once, and writes what that changes."""

        def poll() -> Polled:
            return self._keep(task, ask_provider(self.connections, self.fetch, task, timeout_s))

        return poll

    def _keep(self, task: Task, asked: Asked) -> Polled:
        try:
            known = self._knowing(task, asked.outcome)
            if known is None:
                return Polled(
                    task.task_id, None, asked.error, changed=False, answered=asked.answered, judged=asked.judged
                )
            changed = self._change(known, lambda current, now: advance(current, asked.outcome, now))
        except Exception:  # a fault of ours or of AWS: the poll counts as made, the task stays as it is
            logger.exception("poll not kept", extra={"task_id": task.task_id})
            return Polled(task.task_id, task, None, changed=False, judged=False, kept=False)
        after = changed.after if changed is not None else None
        moved = changed is not None and changed.before.status is not changed.after.status
        return Polled(task.task_id, after, asked.error, moved, asked.answered, asked.judged)

    def _knowing(self, task: Task, outcome: Observation | ProviderError) -> Task | None:
        """The task with what is stored of its progress, where it depends on that whether anything is written.

        None: it is gone.
        """
        known = self._recalling(task, outcome)
        return self.store.task(task.task_id) if _must_know(known, outcome, self.clock()) else known

    def _recalling(self, task: Task, outcome: Observation | ProviderError) -> Task:
        """The task with what an earlier holder has noted of its progress, where any is told of now."""
        return task if task.progress_known or not _tells_progress(outcome) else self.recalled.notes.told(task)

    def poll_listed(self, group: Group, timeout_s: float) -> Callable[[], ByList]:
        """Asks for many tasks at once, and sorts what is heard of them; writes nothing."""

        def ask() -> ByList:
            unchanged, changed = [], []
            try:
                wanted = {task.provider_task_id for task in group.tasks}
                heard = ask_list(
                    self.connections,
                    self.fetch,
                    self.clock,
                    group.connection,
                    wanted,
                    pages=group.pages,
                    most=LISTED_A_POLL * len(group.tasks),  # a longer one is given up in any case
                    timeout_s=timeout_s,
                )
                now = self.clock()
                for task in group.tasks:
                    observation = heard.running.get(task.provider_task_id)
                    if observation is None:
                        continue
                    known = self._recalling(task, observation)
                    after = advance(known, observation, now)
                    if after is known:
                        unchanged.append(known)
                    elif after.step is Step.POLL:
                        changed.append((known, Asked(observation, answered=True)))
            except Exception:
                logger.exception("list not read", extra={"connection": group.connection})
                return ByList(group, [], [])
            return ByList(group, unchanged, changed, heard.requests, heard.count, heard.complete)

        return ask

    def keep(self, heard: Sequence[tuple[Task, Asked]]) -> Callable[[], Kept]:
        """Writes what a list has changed."""
        return lambda: Kept([self._keep(task, asked) for task, asked in heard])

    def poll_apart(self, apart: Apart, last: datetime) -> Callable[[], PolledApart | None]:
        """The same for a task that may end the process: it is put off first. A poll has ended by `last`."""
        task = apart.task

        def poll() -> PolledApart | None:
            if apart.probe is not None and not self._claims_probe(task.connection, apart.probe):
                return None
            put_off = change_task(self.store, task, set_apart, self.clock)
            if put_off is None or put_off.after is put_off.before:
                return None  # it is gone, or another asks
            started_at = self.clock()
            in_time = started_at + timedelta(seconds=POLL_TIMEOUT_S) <= last  # else the next tick may have begun
            polled = self.poll(put_off.after, POLL_TIMEOUT_S)() if in_time else None
            if polled is None or not polled.kept:
                change_task(self.store, put_off.after, back_among, self.clock)  # nobody died
            return None if polled is None else PolledApart(task, started_at, polled)

        return poll

    def probe(
        self, task: Task, health: ConnectionHealth, poll: Callable[[], Polled]
    ) -> Callable[[], Polled | NotProbed]:
        """A poll under a claim to be its connection's one probe."""

        def probe() -> Polled | NotProbed:
            try:
                if self._claims_probe(task.connection, health):
                    return poll()
                return NotProbed(task, self.store.connection_health(task.connection))
            except Exception:
                logger.exception("probe not claimed", extra={"connection": task.connection})
                return NotProbed(task, health._replace(retry_at=self.clock() + timedelta(seconds=RETRY_S)))

        return probe

    def _claims_probe(self, name: str, health: ConnectionHealth) -> bool:
        """Whether this is the one probe of a connection that backs off, among all workers and over hand-overs."""
        now = self.clock()
        claimed = health._replace(retry_at=now + timedelta(seconds=PROBE_S))
        return self.store.claim_probe(name, claimed, self.new_token(), now)

    def expiry(self, task: Task) -> Callable[[], None]:
        """Ends a task whose deadline has passed."""

        def end() -> None:
            try:
                self._change(task, expire)
            except Exception:
                logger.exception("expiry not kept", extra={"task_id": task.task_id})

        return end

    def _change(self, task: Task, change: Callable[[Task, datetime], Task]) -> Changed | None:
        changed = change_task(self.store, task, change, self.clock)
        if changed is not None and changed.for_notifier:
            fresh = {"version": changed.after.version} if changed.after.step is Step.COPY else {}
            self._notify({**task_key(task.task_id), **fresh})
        return changed

    def notice(self, payload: Mapping[str, object]) -> Callable[[], None]:
        """Tells the notifier."""
        return lambda: self._notify(payload)

    def _notify(self, payload: Mapping[str, object]) -> None:
        try:
            self.notify(payload)
        except Exception:  # `due_at` brings it back
            logger.exception("notifier not invoked")

    def look(self, at: datetime, until: datetime, since: datetime | None) -> Callable[[], Looked | Failed]:
        """Looks at what is due, as it was at `at`."""

        def look() -> Looked | Failed:
            try:
                return Looked(at, since, self.store.lease(self.worker), list(self.due(until, since)))
            except Exception:
                logger.exception("look failed", extra={"worker": self.worker})
                return Failed(look=True)

        return look

    def renewal(self, lease: Lease, noted: Sequence[Task]) -> Callable[[], Renewed | Failed]:
        """Writes the lease."""

        def renew() -> Renewed | Failed:
            try:
                return Renewed(lease, self.store.keep_lease(lease), noted)
            except Exception:
                logger.exception("lease not renewed", extra={"worker": self.worker})
                return Failed(look=False, unnoted=noted)

        return renew

    def read_health(self, name: str, *, with_lengths: bool) -> Callable[[], Health]:
        """Reads a connection's back-off and how long its tasks have taken; none where they cannot be read."""

        def read() -> Health:
            lengths = self.lengths_of([name]) if with_lengths else {}
            try:
                return Health(name, self.store.connection_health(name), lengths)
            except Exception:
                logger.exception("back-off not read", extra={"connection": name})
                return Health(name, None, lengths)

        return read

    def lengths_of(self, names: Sequence[str]) -> Mapping[str, Lengths]:
        """How long connections' tasks have taken; nothing where it cannot be read: then none is learned either."""
        try:
            found = self.store.task_lengths(self.worker, names) if names else {}
        except Exception:
            logger.exception("lengths not read", extra={"worker": self.worker})
            return {}
        return {name: found.get(name, Lengths()) for name in names}

    def recall(self) -> None:
        """Reads what the last holder has noted of the tasks' progress; what it has not is read task by task."""
        try:
            self.recalled.notes = self.store.task_progress(self.worker) or self.recalled.notes
        except Exception:
            logger.exception("progress not read", extra={"worker": self.worker})

    def note_progress(self, tasks: Sequence[Task]) -> Callable[[], None]:
        """Writes for the next holder how far tasks have come, where that is not noted already."""

        def write() -> None:
            try:
                notes = noted(tasks, self.clock(), self.recalled.notes)
                if notes.says_more_than(self.recalled.notes):
                    self.store.keep_task_progress(self.worker, notes)
                    self.recalled.notes = notes
            except Exception:
                logger.exception("progress not noted", extra={"worker": self.worker})

        return write

    def write_health(self, name: str, health: ConnectionHealth | None) -> Callable[[], None]:
        """Writes a connection's back-off, or that it has ended."""

        def write() -> None:
            try:
                self.store.put_connection_health(name, health)
            except Exception:
                logger.exception("back-off not kept", extra={"connection": name})

        return write

    def keep_lengths(self, name: str, lengths: Lengths) -> Callable[[], None]:
        """Writes how long a connection's tasks have taken."""

        def write() -> None:
            try:
                self.store.keep_task_lengths(self.worker, name, lengths, self.clock())
            except Exception:
                logger.exception("lengths not kept", extra={"connection": name})

        return write


def _tells_progress(outcome: Observation | ProviderError) -> bool:
    return isinstance(outcome, Observation) and (outcome.progress is not None or bool(outcome.images))


def _must_know(task: Task, outcome: Observation | ProviderError, now: datetime) -> bool:
    """Whether only what is stored of a task's progress can say if there is anything to write."""
    if task.progress_known or not _tells_progress(outcome):
        return False
    after = advance(task, outcome, now)
    return after is not task and notes_progress(task, after)
