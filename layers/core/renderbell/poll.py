"""The use case of the scheduled function: poll what is due, write what changed, wake the notifier.

    tick 1  look ─ take lease ─ poll … poll … poll ─┐ relief seen: write served_until, release
    tick 2                  look ─ ask relief ─ wait ┴ take lease ─ look at what is new ─ poll … poll …

One invocation is one tick. The clock, the store, the provider's answers, the notifier's invocation and the threads are
handed in, so that the same code runs under virtual time. All state of a tick belongs to the one thread that runs it;
the pool's threads do the blocking work and hand back what they found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from aws_lambda_powertools import Logger

from renderbell.agenda import INDEX_LAG_S, Agenda, Apart, Terms, most_in_flight
from renderbell.ask import LIST_TIMEOUT_S, POLL_TIMEOUT_S, Asked, Connections, Fetch
from renderbell.errors import ConfigurationError
from renderbell.jobs import (
    KEPT_TOGETHER,
    SAVING_S,
    ByList,
    Failed,
    Found,
    Health,
    Jobs,
    Kept,
    Looked,
    NotProbed,
    Polled,
    PolledApart,
    PollStore,
    Renewed,
)
from renderbell.outbox import Outbox
from renderbell.providers import Connection, lister_of, poll_schedule_for
from renderbell.schedule import PollSchedule
from renderbell.store import ConnectionHealth, DueDelivery, Lease, Served, UnreadableItem, UnreadableItemError
from renderbell.task import Step, Task

TICK_S = 170.0  # within the function's 180 s
MINUTE_S = 60.0  # the schedule's period
LEASE_S = 45.0
RENEW_S = 20.0
LOOK_S = 3.0
WAIT_S = 0.25  # how often a tick that waits for the lease reads it: the time in between nobody polls
SETTLING_S = 10.0  # what the function's time limit leaves after the tick's end, for polls and what follows them
CAREFUL_AFTER = 2  # holders in a row that have died: AWS ends a process now and then, a task does it each time
CAREFUL_CONCURRENCY = 12  # with the connections' own threads at most 28 in flight, of whom all become suspects
NOTE_EVERY_S = 0.25
KEEPERS = (
    4  # threads that store what lists have changed: looks and renewals are left as many, however slow the table is
)
AHEAD_S = 20.0  # how old a look may be that was made before the lease was asked for
MAX_SUSPECTS = 300  # in the lease: 10 kB of an item's 400
GROUPS = 8  # into which suspects are put that have not been asked apart before: 80 s at most
UNKNOWN_SCHEDULE = PollSchedule(30.0)  # for tasks of a connection that is not configured

logger = Logger()


class Pool(Protocol):
    """Threads for blocking work, and the only place where a tick waits."""

    def submit(self, job: Callable[[], tuple[object, object]]) -> None:
        """Runs a job some time soon; `wait` answers what it returned. A job must not raise."""

    def wait(self, timeout_s: float) -> list[tuple[object, object]]:
        """What jobs have returned, at least one unless the time runs out before."""


class KnownConnections(Connections, Protocol):
    """What is used of the operator's connections."""

    def known(self, name: str) -> Connection | None:
        """As `get`, among those that were read last; nobody waits, but for the very first reading."""

    def freshen(self) -> None:
        """Begins to read again what is old."""


class PollSettings(NamedTuple):
    """How the work is divided.

    From `many_tasks` on, a whole look takes longer than a successor should leave them unasked.
    """

    workers: int
    slots: int
    concurrency: int
    many_tasks: int = 500

    def slots_of(self, worker: int) -> range:
        """The slots that a worker owns."""
        return range(worker, self.slots, self.workers)


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Poller:
    """What a tick needs."""

    store: PollStore
    connections: KnownConnections
    fetch: Fetch
    notify: Callable[[Mapping[str, object]], None]
    clock: Callable[[], datetime]
    pool: Pool
    settings: PollSettings
    count: Callable[[str, float], None]
    flush: Callable[[], None]  # writes the counts out, before what may end the process
    random: Callable[[], float]
    new_token: Callable[[], str]

    def poll_due_tasks(
        self, worker: int, *, woken_for: str | tuple[str, str] | None = None, time_limit_s: float = TICK_S
    ) -> None:
        """One tick of a worker; `woken_for` names what started it: a task by its id, or a delivery by its key.

        It ends after `time_limit_s` at the latest, and needs up to 10 s more for the polls that are still under way.
        """
        _Tick(self, worker, woken_for, min(TICK_S, time_limit_s)).run()


class _Tick:
    def __init__(self, poller: Poller, worker: int, woken_for: str | tuple[str, str] | None, length_s: float) -> None:
        self._p = poller
        self._worker = worker
        self._woken_for = woken_for
        self._started = poller.clock()
        self._end = self._started + timedelta(seconds=length_s)
        self._last = self._end + timedelta(seconds=SETTLING_S - SAVING_S)  # a poll has ended by then
        self._agenda = Agenda(concurrency=poller.settings.concurrency, terms=self._terms, random=poller.random)
        self._outbox = Outbox()
        self._work = Jobs(
            store=poller.store,
            connections=poller.connections,
            fetch=poller.fetch,
            notify=poller.notify,
            clock=poller.clock,
            new_token=poller.new_token,
            worker=worker,
            slots=poller.settings.slots_of(worker),
        )
        self._lease: Lease | None = None
        self._lost = False
        self._relieved = False
        self._looked_at = self._started
        self._next_look = self._started
        self._next_renewal = self._started
        self._next_overdue = self._started
        self._looking = False
        self._looks_at_all = False  # whether the next look is at all that is due
        self._handed_over = 0  # how many tasks the one before, who was asked to leave, has polled
        self._shown_by = self._started  # when the index shows them for sure
        self._renewing = False
        self._health_asked: set[str] = set()
        self._unreadable: set[tuple[str, str]] = set()
        self._unnoted: list[Task] = []
        self._noted: dict[str, int] = {}
        self._cleared = False  # whether the lease names a task that has answered
        self._next_note = self._started
        self._leaving = False
        self._dead: set[str] = set()  # connections that failed a poll apart from the others
        self._polls = 0
        self._jobs = 0
        self._to_keep: deque[Sequence[tuple[Task, Asked]]] = deque()  # what lists have changed, in parts
        self._keepers = 0

    # -- the tick's course ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Look, take the lease, poll until relieved or until nothing is left, release, look once more."""
        self._p.connections.freshen()  # an idle process would poll with what it knew long ago
        first = self._take()
        if first is None:
            return
        self._begin(first)
        while True:
            self._serve()
            left_idle = not (self._lost or self._relieved or self._p.clock() >= self._end)
            self._leaving = True
            apart = self._agenda.take_apart(self._p.clock())
            try:
                self._release()
            except Exception:  # the lease runs out by itself
                logger.exception("lease not released", extra={"worker": self._worker})
                apart = []  # nobody else polls until then
            self._settle()
            try:
                if not (left_idle and self._again()):
                    break
            except Exception:  # all has been released: the next tick looks anyway
                logger.exception("last look failed", extra={"worker": self._worker})
                break
        self._ask_apart(apart)
        logger.info("tick done", extra={"worker": self._worker, "polls": self._polls, "lost": self._lost})

    def _look_now(self, since: datetime | None) -> Looked:
        """A look in the tick's own thread, with what the tick was woken for."""
        at = self._p.clock()
        found = self._readable(list(self._work.due(self._end, since)))
        if self._woken_for is not None and since is None:
            found += self._readable(self._named(self._woken_for))  # an index may lag behind
        self._looked_at = at
        self._next_look = at + timedelta(seconds=LOOK_S)
        return Looked(at, since, None, found)

    def _named(self, named: str | tuple[str, str]) -> list[Found]:
        """A task or a delivery, as far as anything is to be done for it."""
        try:
            if isinstance(named, str):
                task = self._p.store.task(named)
                return [task] if task is not None and task.step is not None else []
            one = self._p.store.delivery(*named)
        except UnreadableItemError as error:
            return [UnreadableItem(error.key)]
        if one is None or one.due_at is None:
            return []
        return [DueDelivery(named, one.owner, one.receiver, one.endpoint_id, one.due_at)]

    def _readable(self, found: Sequence[Found]) -> list[Found]:
        """What can be read of what a look has found; of the rest is told once a tick."""
        for item in found:
            if isinstance(item, UnreadableItem) and item.key not in self._unreadable:
                self._unreadable.add(item.key)
                logger.error("item cannot be read", extra={"pk": item.key[0], "sk": item.key[1]})
                self._p.count("UnreadableItem", 1)
        return [item for item in found if not isinstance(item, UnreadableItem)]

    def _take(self) -> Looked | None:
        """Takes the lease; a scheduled tick asks its holder for relief and waits. What is due, or None if not ours."""
        asked: Lease | None = None
        ahead: Looked | None = None
        while (now := self._p.clock()) < self._end:
            seen = self._p.store.lease(self._worker)
            if seen is None or seen.until <= now:
                if asked is None:
                    ahead = self._look_now(None)
                    if not ahead.found:
                        logger.info("nothing due", extra={"worker": self._worker})
                        return None
                if self._take_free(seen, self._p.clock()):
                    if seen is not None and asked is not None:
                        self._handed_over, self._shown_by = seen.tasks, now + timedelta(seconds=INDEX_LAG_S)
                    return ahead if ahead is not None and asked is None else self._look_after(ahead)
            elif self._woken_for is not None or (asked is not None and seen.holder != asked.holder):
                break
            elif asked is None:
                ahead = self._look_now(None) if seen.tasks >= self._p.settings.many_tasks else None
                asked = seen  # only now: it may leave at once, and polls on where the look fails
                self._p.store.ask_relief(seen)
            else:
                self._wait(WAIT_S)
        logger.info("another polls", extra={"worker": self._worker})
        return None

    def _look_after(self, ahead: Looked | None) -> Looked:
        """What is due, where another has just left: by a look before that, and one at what is new since.

        What the other has done between the two is found by a whole look while this one polls. Not after a death: what
        may have caused it is named with its version then.
        """
        now = self._p.clock()
        died = self._lease is not None and self._lease.deaths
        if ahead is None or died or now > ahead.at + timedelta(seconds=AHEAD_S):
            return self._look_now(None)
        new = self._look_now(ahead.at - timedelta(seconds=INDEX_LAG_S))
        self._looks_at_all, self._next_look = True, now
        found = {_key(item): item for item in [*ahead.found, *new.found]}
        return new._replace(since=None, found=list(found.values()))

    def _take_free(self, seen: Lease | None, now: datetime) -> bool:
        settings = self._p.settings
        same = seen is not None and (seen.workers, seen.slots) == (settings.workers, settings.slots)
        lease = Lease(
            worker=self._worker,
            holder=self._p.new_token(),
            until=now + timedelta(seconds=LEASE_S),
            relief=False,
            served=seen.served if seen is not None and same else Served(),
            workers=settings.workers,
            slots=settings.slots,
            deaths=0 if seen is None or seen.left else seen.deaths + 1,
            suspects=seen.suspects if seen is not None else {},
            tasks=seen.tasks if seen is not None else 0,
        )
        if not self._p.store.take_lease(lease, seen=seen):
            return False
        self._lease, self._lost, self._relieved, self._leaving = lease, False, False, False
        if self._careful:
            logger.error("pollers died", extra={"worker": self._worker, "deaths": lease.deaths})
            self._agenda.slow_down(CAREFUL_CONCURRENCY)
        self._outbox.adopt(seen.served.told if seen is not None else {})
        self._next_renewal = now + timedelta(seconds=RENEW_S)
        return True

    def _begin(self, first: Looked) -> None:
        served = self._lease.served if self._lease is not None else Served()
        suspects = self._lease.suspects if self._lease is not None else {}
        polls, others, deliveries = _sorted(first.found)
        adapting = [name for name in sorted({task.connection for task in polls}) if self._terms(name).schedule.adapts]
        self._agenda.know(self._work.lengths_of(adapting))
        self._agenda.adopt(polls, served, self._p.clock(), suspects)
        if served.until is not None and any(task.created_at <= served.until for task in polls):
            self._submit(self._work.recall)  # beside the first polls: what they bring may need it
        if self._careful and len(self._agenda.suspects()) + most_in_flight(CAREFUL_CONCURRENCY) > MAX_SUSPECTS:
            self._relieved = True  # no more can be named, so those that are have to be asked first
        self._outbox.merge(others, deliveries, None)

    def _again(self) -> bool:
        """One more look 3 s after leaving: a task registered just before saw the lease still held."""
        due = self._p.clock() + timedelta(seconds=LOOK_S)
        while (now := self._p.clock()) < due:
            self._wait((due - now).total_seconds())
        since = self._looked_at - timedelta(seconds=INDEX_LAG_S)
        looked = self._look_now(since)
        self._merge(looked)
        if self._nothing_left(self._p.clock()):
            return False
        seen = self._p.store.lease(self._worker)
        now = self._p.clock()
        if now >= self._end or (seen is not None and seen.until > now):
            return False
        if not self._take_free(seen, now) or self._lease is None:
            return False
        self._agenda.keep_pace(self._lease.served.paced, now)
        return True

    # -- serving ----------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Polls, looks and renews until relieved, out of time, or until nothing is left before the next tick."""
        while True:
            now = self._p.clock()
            if self._lost or self._relieved or now >= self._end:
                return
            if self._lease is None or now >= self._lease.until:
                self._lost = True
                return
            self._ask_health()
            if now >= self._next_overdue:  # not at every turn: it goes through all tasks
                self._next_overdue = now + timedelta(seconds=LOOK_S)
                for task in self._agenda.overdue(now):
                    self._submit(self._work.expiry(task))
            if self._lists:
                for group in self._agenda.start_lists(now):
                    self._submit(self._work.poll_listed(group, min(LIST_TIMEOUT_S, (self._last - now).total_seconds())))
            started = self._agenda.start(now)
            if self._careful:
                self._unnoted += started
            else:
                self._ask(started, now)
            for payload in self._outbox.due(now):
                self._submit(self._work.notice(payload))
            if not self._renewing and now >= self._next_keeping():
                self._renewing = True
                self._next_note = now + timedelta(seconds=NOTE_EVERY_S)
                lease, noted = self._kept(now, LEASE_S, leaving=False), tuple(self._unnoted)
                self._unnoted.clear()
                self._cleared = False
                self._submit(self._work.renewal(lease, noted))
            if now >= self._next_look and not self._looking:
                self._looking = True
                self._next_look = now + timedelta(seconds=LOOK_S)
                since = None if self._looks_at_all else self._looked_at - timedelta(seconds=INDEX_LAG_S)
                self._submit(self._work.look(now, self._end, since))
            if self._nothing_left(now) and not self._looking:
                return
            self._wait((self._wake_at() - self._p.clock()).total_seconds())

    @property
    def _careful(self) -> bool:
        """Whether the lease must name each task before it is asked: one of them may end this process."""
        return self._lease is not None and self._lease.deaths >= CAREFUL_AFTER

    @property
    def _lists(self) -> bool:
        """Whether lists are asked for: not after a death, since the lease cannot name who stands in them."""
        return self._lease is not None and not self._lease.deaths

    def _ask(self, tasks: Sequence[Task], now: datetime) -> None:
        for task in tasks:
            self._polls += 1
            poll = self._work.poll(task, min(POLL_TIMEOUT_S, (self._last - now).total_seconds()))
            probe = self._agenda.probe_of(task)
            self._submit(poll if probe is None else self._work.probe(task, probe, poll))

    def _next_keeping(self) -> datetime:
        """When the lease is to be written next: soon, too, where it names other tasks than those being asked."""
        return min(self._next_renewal, self._next_note) if self._unnoted or self._cleared else self._next_renewal

    def _submit(self, job: Callable[[], object]) -> None:
        """Hands a job to the pool, which outlives a tick: each message says whose it is."""

        def run() -> tuple[_Tick, object]:
            try:
                return self, job()
            except Exception:  # a job must not be waited for in vain
                logger.exception("job broke")
                return self, None

        self._jobs += 1
        self._p.pool.submit(run)

    def _wait(self, timeout_s: float) -> None:
        """Waits for messages, and takes them."""
        self._handle(self._p.pool.wait(max(0.0, timeout_s)))

    def _wake_at(self) -> datetime:
        times = [self._end, self._agenda.next_start(self._p.clock()), self._outbox.next_due()]
        times.append(None if self._looking else self._next_look)
        times.append(None if self._renewing else self._next_keeping())
        times.append(self._lease.until if self._lease is not None else None)
        return min(time for time in times if time is not None)

    def _nothing_left(self, now: datetime) -> bool:
        """Whether nothing is to be done before the next tick comes."""
        if self._agenda.in_flight or self._agenda.unknown_health():
            return False
        if now < self._shown_by and self._agenda.size < self._handed_over:
            return False  # it may have known of one that the index does not show yet
        if self._woken_for is not None:
            next_tick = now + timedelta(seconds=MINUTE_S)  # it comes within a minute, nobody knows when
        else:
            elapsed = (now - self._started) // timedelta(seconds=MINUTE_S)
            next_tick = self._started + (elapsed + 1) * timedelta(seconds=MINUTE_S)
        needs = [self._agenda.next_need(), self._outbox.next_due()]
        return all(need is None or need >= next_tick for need in needs)

    def _handle(self, messages: Sequence[tuple[object, object]]) -> None:
        now = self._p.clock()
        for tick, message in messages:
            if tick is not self:
                continue  # an earlier tick in this process gave up waiting for it
            self._jobs -= 1
            match message:
                case Polled():
                    self._polled(message, now)
                case ByList():
                    self._listed(message, now)
                case Kept():
                    self._keepers -= 1
                    self._keep()
                    for polled in message.polled:
                        self._polled(polled, now)
                case NotProbed():
                    self._noted.pop(message.task.task_id, None)
                    self._agenda.take_back(message.task.task_id)
                    self._agenda.set_health(message.task.connection, message.health)
                case PolledApart():
                    self._polled_apart(message, now)
                case Looked():
                    self._looking = False
                    self._merge(message)
                case Renewed():
                    self._renewing = False
                    self._lost = self._lost or not message.held
                    if message.held:
                        self._lease = message.lease
                        self._next_renewal = now + timedelta(seconds=RENEW_S)
                        if self._leaving:
                            self._unnoted[:0] = message.noted
                        else:
                            self._noted.update(_versions(message.noted))
                            self._ask(message.noted, now)
                case Health():
                    self._agenda.know(message.lengths)
                    self._agenda.set_health(message.connection, message.health)
                case Failed(look=True):
                    self._looking = False
                case Failed():
                    self._renewing = False
                    self._next_renewal = self._next_note = now + timedelta(seconds=WAIT_S)
                    self._unnoted[:0] = message.unnoted

    def _polled(self, message: Polled, now: datetime) -> None:
        fault = None if message.answered else message.error
        health = self._agenda.finish(
            message.task_id, message.saved, fault, now, judged=message.judged, moved=message.changed
        )
        self._cleared |= self._noted.pop(message.task_id, None) is not None
        self._count(message)
        self._ended(health)

    def _ended(self, health: tuple[str, ConnectionHealth | None] | None) -> None:
        """Has a connection's back-off stored where a poll has changed it."""
        if health is not None:
            self._submit(self._work.write_health(*health))

    def _listed(self, message: ByList, now: datetime) -> None:
        """Ends the polls that a list has answered without a change, and has the changes stored.

        Who is left is asked singly at once, or, where this tick is leaving, by its successor.
        """
        answered = {task.task_id for task in [*message.unchanged, *(task for task, _ in message.changed)]}
        self._agenda.end_list(
            message.group, answered, requests=message.requests, count=message.count, complete=message.complete
        )
        self._polls += len(answered)
        self._p.count("Lists", message.requests)
        if message.unchanged:
            self._p.count("Polls", len(message.unchanged))
        for task in message.unchanged:
            self._ended(self._agenda.finish(task.task_id, task, None, now))
        changed = message.changed
        self._to_keep += [changed[at : at + KEPT_TOGETHER] for at in range(0, len(changed), KEPT_TOGETHER)]
        self._keep()

    def _keep(self) -> None:
        while self._to_keep and self._keepers < KEEPERS:
            self._keepers += 1
            self._submit(self._work.keep(self._to_keep.popleft()))

    def _polled_apart(self, message: PolledApart, now: datetime) -> None:
        polled = message.polled
        self._count(polled)
        fault = None if polled.answered else polled.error
        if fault is not None:
            self._dead.add(message.task.connection)
        if polled.judged:
            health = self._agenda.judge_apart(message.task, fault, message.started_at, now)
            if health is not None:
                self._submit(self._work.write_health(*health))

    def _count(self, message: Polled) -> None:
        self._p.count("Polls", 1)
        if not message.kept:
            self._p.count("PollNotKept", 1)
        if message.changed:
            self._p.count("Transitions", 1)
        if message.error is not None:
            self._p.count(type(message.error).__name__, 1)

    def _merge(self, looked: Looked) -> None:
        lease = looked.lease
        if lease is not None and self._lease is not None:
            self._lost = self._lost or lease.holder != self._lease.holder
            self._relieved = self._relieved or lease.relief
        self._looked_at = max(self._looked_at, looked.at)
        self._agenda.renew_terms(self._p.clock())
        polls, others, deliveries = _sorted(self._readable(looked.found))
        self._agenda.notice([*polls, *others], self._p.clock())
        if looked.since is None:
            self._looks_at_all = False
            self._agenda.forget_all_but({task.task_id for task in polls}, looked.at, self._end)
        self._outbox.merge(others, deliveries, looked.since)

    def _ask_health(self) -> None:
        for name in self._agenda.unknown_health():
            if name not in self._health_asked:
                self._health_asked.add(name)
                self._submit(self._work.read_health(name, with_lengths=self._agenda.unknown_lengths(name)))

    # -- leaving ----------------------------------------------------------------------------------------------------

    def _kept(self, now: datetime, length_s: float, *, leaving: bool) -> Lease:
        if self._lease is None:
            raise RuntimeError("a lease is kept only while it is held")
        return Lease(
            worker=self._worker,
            holder=self._lease.holder,
            until=now + timedelta(seconds=length_s),
            relief=False,
            served=self._served(now, leaving=leaving),
            workers=self._lease.workers,
            slots=self._lease.slots,
            left=leaving,
            deaths=self._lease.deaths,
            suspects=self._suspects(leaving=leaving),
            tasks=self._agenda.size,
        )

    def _suspects(self, *, leaving: bool) -> dict[str, int]:
        """The tasks of which this process may be dying, should it die."""
        asked = {} if leaving else self._noted | _versions(self._unnoted)
        return self._agenda.suspects() | asked

    def _served(self, now: datetime, *, leaving: bool) -> Served:
        served = self._agenda.served(now, self._looked_at, leaving=leaving)
        # A lease that runs out does so when all that was told of is long past, so it need not be kept on the way.
        return served._replace(told=self._outbox.told(now)) if leaving else served

    def _release(self) -> None:
        """Writes what has been served and lets the next one in; polls in flight still save."""
        while self._renewing and self._p.clock() < self._last:
            self._wait(WAIT_S)
        now = self._p.clock()
        for task in self._unnoted:
            self._agenda.take_back(task.task_id)
        self._unnoted.clear()
        for name, health in self._agenda.unkept_failures(now):
            self._submit(self._work.write_health(name, health))
        for name, lengths in self._agenda.unkept_lengths():
            self._submit(self._work.keep_lengths(name, lengths))
        if not self._lost:
            self._submit(self._work.note_progress(self._agenda.known()))
        # A renewal that was given up for lost may have landed; the write is refused if another holds the lease.
        self._p.store.keep_lease(self._kept(now, 0.0, leaving=True))

    def _ask_apart(self, found: Sequence[Apart]) -> None:
        """Asks tasks that may end the process when the lease is another's and nobody is waited for.

        Very many suspects are asked a few at a time; those that were not heard of one by one.
        """
        waiting = list(found)
        side_by_side = -(-sum(not one.task.apart for one in waiting) // GROUPS)
        while waiting:
            self._sleep_until(waiting[0].not_before)
            now = self._p.clock()
            if self._jobs or now + timedelta(seconds=POLL_TIMEOUT_S) > self._last:
                return
            group = [one for one in waiting[:side_by_side] if not one.task.apart and one.not_before <= now]
            group = group or waiting[:1]
            waiting = [one for one in waiting if one not in group]
            asked = [one for one in group if one.task.connection not in self._dead]
            for task in (one.task for one in asked if one.task.apart):
                logger.error("poll interrupted", extra={"task_id": task.task_id, "connection": task.connection})
                self._p.count("PollInterrupted", 1)
            self._p.flush()
            for one in asked:
                self._submit(self._work.poll_apart(one, self._last))
            self._settle()

    def _sleep_until(self, at: datetime) -> None:
        while (now := self._p.clock()) < min(at, self._last):
            self._wait((at - now).total_seconds())

    def _settle(self) -> None:
        """Waits until the polls in flight have saved and the notifier has been told, as long as a poll may take."""
        last = min(
            self._p.clock() + timedelta(seconds=POLL_TIMEOUT_S + SAVING_S), self._last + timedelta(seconds=SAVING_S - 1)
        )
        while self._jobs and (now := self._p.clock()) < last:
            self._wait((last - now).total_seconds())

    def _terms(self, name: str) -> Terms:
        try:
            connection = self._p.connections.known(name)
        except ConfigurationError:  # Parameter Store cannot be read: its tasks are kept, and asked later
            return Terms(UNKNOWN_SCHEDULE, known=False)
        if connection is None:
            return Terms(UNKNOWN_SCHEDULE)
        rate, workers = connection.max_polls_per_s, self._p.settings.workers
        most = connection.max_concurrency
        return Terms(
            poll_schedule_for(connection),
            None if rate is None else rate / workers,
            None if most is None else max(1, most // workers),
            lists=lister_of(connection) is not None,
        )


def _versions(tasks: Sequence[Task]) -> dict[str, int]:
    return {task.task_id: task.own_version for task in tasks}


def _key(found: Found) -> str | tuple[str, str]:
    return found.task_id if isinstance(found, Task) else found.key


def _sorted(found: Sequence[Found]) -> tuple[list[Task], list[Task], list[DueDelivery]]:
    """What is found, as tasks to poll, tasks for the notifier, and deliveries."""
    tasks = [item for item in found if isinstance(item, Task)]
    polls = [task for task in tasks if task.step is Step.POLL]
    others = [task for task in tasks if task.step is not Step.POLL]
    return polls, others, [item for item in found if isinstance(item, DueDelivery)]
