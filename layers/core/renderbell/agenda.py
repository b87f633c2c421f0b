"""What a poller holds in memory: which task is asked when, within each connection's limits. No I/O.

Every connection has a lane of its own: its tasks by their polling moments, its rate, its share of the threads and its
back-off. A lane that is slow or dead delays no other. Where a provider lists its tasks, one request asks for all that
are due; those of which the list says nothing clear are then asked for singly, at the same moment.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from renderbell.errors import ProviderAuthError, ProviderError, ProviderUnavailable
from renderbell.lengths import Lengths
from renderbell.schedule import CONNECTION_BACKOFF_S, PollSchedule, last_moment, next_moment
from renderbell.store import ConnectionHealth, Served
from renderbell.task import LAST_POLL_GRACE_S, ErrorCode, Status, Step, Task, past_grace, with_progress

INDEX_LAG_S = 15.0  # an index shows a write at most this late
LOOK_LAG_S = 5.0  # what a look shows is at most this old
LAG_S = 5.0  # a connection that is further behind gets a time of its own in the lease
MAX_LAGGING = 50
OWN_THREADS = 4  # what every connection may have in flight, however busy the others are
FAILURES_BEFORE_BACKOFF = 5  # single faults among good answers are no outage
MAX_HINT_S = 3600.0
GRACE_RETRY_S = 10.0
YIELD_S = 3.0  # how long a worker whose tasks have all failed leaves a probe to one that has a sound task
APART_WITHIN_S = 10.0  # how long a poll apart from the others may wait for its connection's rate
LIST_FROM = 3  # tasks that are due; fewer are asked for singly
LISTED_A_POLL = 25  # tasks that a list may hold for each one that it answers for: reading more costs as much as a poll
LEARNED_WITHIN = 2  # widest intervals in which a task has ended
MAX_PAUSE_S = 604_800.0  # between two polls of a connection, whatever its rate: no task has a later deadline


def most_in_flight(concurrency: int) -> int:
    """How many polls may be in flight when every connection uses threads of its own beyond the shared ones."""
    return 2 * concurrency + OWN_THREADS


class Terms(NamedTuple):
    """How a connection wants to be asked, by this worker alone."""

    schedule: PollSchedule
    max_polls_per_s: float | None = None
    max_concurrency: int | None = None
    known: bool = True  # False: the connection cannot be read now, so nothing is asked
    lists: bool = False  # whether one request may ask for many tasks


@dataclass(slots=True)
class _Entry:
    task: Task
    moment: datetime
    flying: bool = False
    apart: bool = False  # it is not asked among the others
    heeded: datetime | None = None  # the last hint that a poll has followed
    missed: datetime | None = None  # its first moment since it was last heard of, where that was left out or in vain


class _Flight(NamedTuple):
    moment: datetime
    started_at: datetime
    hint: datetime | None  # as it was known


class Group(NamedTuple):
    """Tasks of a connection to ask for by its list, of which so many pages may be read."""

    connection: str
    tasks: Sequence[Task]
    pages: int


@dataclass(slots=True)
class _Lane:
    name: str
    terms: Terms
    waiting: list[tuple[datetime, str]] = field(default_factory=list)  # a heap; stale pairs are skipped
    flying: dict[str, _Flight] = field(default_factory=dict)  # what has a request of its own
    listed: dict[str, _Flight] = field(default_factory=dict)  # what a list is asked for, or has said and is being kept
    listing: bool = False  # whether a list is under way
    lists_badly: bool = False  # its list has failed, or costs more than it saves
    singly: set[str] = field(default_factory=set)  # of the waiting, those of which the list has said nothing clear
    failures: int = 0
    health: ConnectionHealth | None = None
    health_known: bool = False
    kept_failures: int = 0  # as they are stored
    kind: str = ""
    stepped_at: datetime | None = None
    next_start: datetime | None = None  # what the rate allows
    served_at: datetime | None = None  # when a poll of it last started or ended
    turn: str = ""  # the task that was asked last
    lengths: Lengths | None = None  # of its tasks, once they have been read
    learned: bool = False  # whether there are such that are not stored
    apart: set[str] = field(default_factory=set)  # its tasks that are not asked among the others
    sound: set[str] = field(default_factory=set)  # of the others, those whose last poll brought no error

    @property
    def requests(self) -> int:
        """How many are under way."""
        return len(self.flying) + self.listing

    def next(self, task: Task, after: datetime) -> datetime:
        """A task's first polling moment later than a time."""
        return next_moment(self.terms.schedule, task.created_at, task.task_id, after, self._lengths_for(task))

    def last(self, task: Task, until: datetime) -> datetime:
        """A task's latest polling moment until a time."""
        return last_moment(self.terms.schedule, task.created_at, task.task_id, until, self._lengths_for(task))

    def _lengths_for(self, task: Task) -> Lengths | None:
        waits = task.tells_processing and task.status is Status.QUEUED  # somebody wants to hear when it begins
        return None if waits else self.lengths

    def learn(self, task: Task, moment: datetime, now: datetime) -> None:
        """Counts how long a task took that has been found ended: since the moment before its first that was not heard.

        Where that is long ago, as after an outage, it may have ended at any time, and says nothing.
        """
        if self.lengths is None or moment <= task.created_at:
            return
        before = self.last(task, moment - timedelta(microseconds=1))
        step_s, widest = self.terms.schedule.grid()
        if (now - before).total_seconds() <= LEARNED_WITHIN * widest * step_s:
            ages_s = [(time - task.created_at).total_seconds() for time in (before, moment, now)]
            self.lengths, self.learned = self.lengths.added(self.terms.schedule.length_s(*ages_s)), True


class Apart(NamedTuple):
    """A task to ask apart from the others, not before a time; `probe` is its connection's back-off, if one runs."""

    task: Task
    not_before: datetime
    probe: ConnectionHealth | None


class Agenda:
    """The tasks of one worker, and when each is asked next."""

    def __init__(self, *, concurrency: int, terms: Callable[[str], Terms], random: Callable[[], float]) -> None:
        self._concurrency = concurrency
        self._terms = terms
        self._random = random
        self._entries: dict[str, _Entry] = {}
        self._ends: list[tuple[datetime, str]] = []  # a heap of when each task is past its deadline's grace
        self._lanes: dict[str, _Lane] = {}
        self._gone: dict[str, int] = {}  # the last version of what was dropped: an index may show it again
        self._flights: dict[str, _Lane] = {}  # polls with a request of their own
        self._listed: dict[str, _Lane] = {}  # those that a list serves
        self._lists = 0  # requests for lists
        self._paced: Mapping[str, datetime] = {}
        self._suspects: Mapping[str, int] = {}
        self._lengths: Mapping[str, Lengths] = {}

    def slow_down(self, concurrency: int) -> None:
        """Has fewer polls in flight from now on."""
        self._concurrency = min(self._concurrency, concurrency)

    @property
    def in_flight(self) -> int:
        """How many polls have started and not ended."""
        return len(self._flights) + len(self._listed)

    @property
    def size(self) -> int:
        """How many tasks it holds."""
        return len(self._entries)

    def know(self, lengths: Mapping[str, Lengths]) -> None:
        """Tells how long connections' tasks have taken, best before any of their tasks is known."""
        self._lengths = {**self._lengths, **lengths}
        for name, found in lengths.items():
            lane = self._lanes.get(name)
            if lane is not None and lane.lengths is None:
                lane.lengths = found

    def unknown_lengths(self, name: str) -> bool:
        """Whether a connection's moments follow from lengths that have not been read yet."""
        lane = self._lanes[name]
        return lane.terms.schedule.adapts and lane.lengths is None

    def adopt(
        self, tasks: Iterable[Task], served: Served, now: datetime, suspects: Mapping[str, int] | None = None
    ) -> None:
        """Takes over tasks from an earlier holder, who has asked all moments that `served` covers.

        One of the `suspects` may have ended its process: they are not asked among the others, until they show a later
        version than theirs.
        """
        self._paced = served.paced
        self._suspects = suspects or {}
        for task in tasks:
            covered = served.until is not None and task.created_at < served.until - timedelta(seconds=INDEX_LAG_S)
            base = served.lagging.get(task.connection, served.until) if covered else None
            self._merge(task, base, now)
        for name, turn in served.turns.items():
            if name in self._lanes:
                self._take_turns(self._lanes[name], turn, served.lagging.get(name, now), now)

    def _take_turns(self, lane: _Lane, turn: str, since: datetime, now: datetime) -> None:
        """Puts a connection's backlog into the order of ids, from the task on after which an earlier holder stopped.

        By their moments alone, each holder of a minute would begin with the same tasks, and never come to the others.
        """
        lane.turn = turn
        backlog = {name for moment, name in lane.waiting if moment <= now and self._stands((moment, name))}
        ordinary = [name for name in backlog if self._entries[name].task.streak is None]
        for place, name in enumerate(sorted(ordinary, key=lambda name: (name <= turn, name))):
            entry = self._entries[name]
            entry.moment = min(now, since + timedelta(microseconds=place))
            heapq.heappush(lane.waiting, (entry.moment, name))

    def notice(self, tasks: Iterable[Task], now: datetime) -> None:
        """Merges what a later look has found, by key and version; what is new is asked at once."""
        for task in tasks:
            self._merge(task, None, now)

    def forget_all_but(self, shown: Collection[str], looked_at: datetime, until: datetime) -> None:
        """Forgets the tasks that are due until a time and that a look at all of those did not show: they have ended.

        Not those which an index may not show yet, nor those that are being asked. What is shown again is asked again.
        """
        old = looked_at - timedelta(seconds=INDEX_LAG_S)
        for entry in list(self._entries.values()):
            task = entry.task
            due = task.due_at is not None and task.due_at <= until
            if due and task.created_at < old and not entry.flying and task.task_id not in shown:
                del self._entries[task.task_id]
                self._leave_lane(task)

    def _merge(self, task: Task, base: datetime | None, now: datetime) -> None:
        if self._gone.get(task.task_id, 0) >= task.version:
            return
        entry = self._entries.get(task.task_id)
        if entry is not None:
            if entry.task.version < task.version:
                self._settle(entry, task, entry.moment)  # asked anew where it is due
            return
        if task.step is not Step.POLL:
            self._gone[task.task_id] = task.version
            return
        lane = self._lane(task.connection, now)
        moment = lane.last(task, now)  # several missed ones are one poll
        first = moment if base is None else lane.next(task, base - timedelta(microseconds=1))
        moment = max(first, moment)
        entry = self._entries[task.task_id] = _Entry(task, moment, missed=first if first < moment else None)
        if task.hint is not None and base is not None and task.hint.at < base - timedelta(seconds=INDEX_LAG_S):
            entry.heeded = task.hint.at
        heapq.heappush(self._ends, (task.expires_at + timedelta(seconds=LAST_POLL_GRACE_S), task.task_id))
        self._settle(entry, task, min(moment, task.expires_at))

    def _settle(self, entry: _Entry, task: Task, moment: datetime, asked_at: datetime | None = None) -> None:
        """Puts a task's newer state in its place, and the task into its lane.

        A doubted task is asked at its own time, unless it has been since. Any other is asked at a hint, too, that no
        poll has followed: none that began after it and knew of it.
        """
        if task.step is not Step.POLL:
            self._drop(task.task_id, task.version)
            return
        entry.task = task = with_progress(task, entry.task)
        if task.hint is not None and task.hint.at != entry.heeded:
            moment = min(moment, task.hint.at)
        look = task.due_at if task.streak is not None else None
        entry.moment = moment if look is None or (asked_at is not None and look <= asked_at) else look
        entry.apart = task.apart or self._is_suspect(task)
        lane = self._lanes[task.connection]
        _put(task.task_id, lane.apart, belongs=entry.apart)
        _put(task.task_id, lane.sound, belongs=not entry.apart and task.last_poll_error is None)
        lane.singly.discard(task.task_id)
        if not entry.flying and not entry.apart:
            heapq.heappush(self._lanes[task.connection].waiting, (entry.moment, task.task_id))

    def _drop(self, task_id: str, version: int) -> None:
        entry = self._entries.pop(task_id, None)
        if entry is not None:
            self._gone[task_id] = max(version, entry.task.version)
            self._leave_lane(entry.task)

    def _leave_lane(self, task: Task) -> None:
        lane = self._lanes[task.connection]
        lane.apart.discard(task.task_id)
        lane.sound.discard(task.task_id)
        lane.singly.discard(task.task_id)

    def _lane(self, name: str, now: datetime) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._terms(name), next_start=self._paced.get(name))
            lane.lengths = self._lengths.get(name)
            self._hold_to_rate(lane, now)
        return lane

    def keep_pace(self, paced: Mapping[str, datetime], now: datetime) -> None:
        """Goes on with the pauses of a holder in between, where they are longer than its own."""
        self._paced = {**self._paced, **paced}
        for lane in (lane for lane in self._lanes.values() if lane.name in paced):
            lane.next_start = max(paced[lane.name], lane.next_start or paced[lane.name])
            self._hold_to_rate(lane, now)

    def renew_terms(self, now: datetime) -> None:
        """Reads the connections' terms again: an operator may have changed one, or it could not be read before."""
        for lane in self._lanes.values():
            lane.terms = self._terms(lane.name)
            self._hold_to_rate(lane, now)

    @staticmethod
    def _hold_to_rate(lane: _Lane, now: datetime) -> None:
        """Keeps no pause of an earlier rate that is longer than today's."""
        if lane.next_start is None or not lane.terms.known:
            return
        rate = lane.terms.max_polls_per_s
        lane.next_start = None if rate is None else min(lane.next_start, now + _pause(rate))

    # -- asking -----------------------------------------------------------------------------------------------------

    def unknown_health(self) -> list[str]:
        """The connections whose back-off has not been read yet; they are asked after `set_health`."""
        return [lane.name for lane in self._lanes.values() if not lane.health_known]

    def set_health(self, name: str, health: ConnectionHealth | None) -> None:
        """Tells a connection's back-off as it is stored."""
        lane = self._lanes[name]
        lane.health_known = True
        lane.failures = lane.kept_failures = health.failures if health is not None else 0
        lane.health = health if health is not None and health.steps else None

    def start(self, now: datetime) -> list[Task]:
        """The tasks to ask now; each counts as in flight until `finish`.

        A thread goes to the lane with the fewest polls in flight, and among these to the one that has waited longest.
        """
        started: list[Task] = []
        lanes, share = self._busy()
        able = [lane for lane in lanes if self._may_start(lane, share, now)]
        queue = [(*self._claim(lane), number) for number, lane in enumerate(able)]
        heapq.heapify(queue)
        while queue:
            number = queue[0][-1]
            lane = able[number]
            if not self._may_start(lane, share, now):  # nor later in this round: flights only grow
                heapq.heappop(queue)
                continue
            started.append(self._launch(lane, now))
            heapq.heapreplace(queue, (*self._claim(lane), number))
        return started

    def start_lists(self, now: datetime) -> list[Group]:
        """The tasks to ask for now by their connections' lists, before the others; each counts as in flight.

        A list is one request by its connection's rate and share, and the next one waits until those have been asked
        of which the last has said nothing clear. What is suspected of having ended a process may stand in any list.
        Where the rate is slow, a holder might come to nothing but lists, and to nobody whom they leave out.
        """
        groups: list[Group] = []
        lanes, share = self._busy()
        able = [lane for lane in lanes if self._may_list(lane) and self._may_start(lane, share, now)]
        for lane in sorted(able, key=self._claim):
            if self._may_start(lane, share, now) and len(tasks := self._take_due(lane, now)) >= LIST_FROM:
                lane.listing, lane.served_at = True, now
                self._lists += 1
                for task in tasks:
                    self._listed[task.task_id] = lane
                self._count_rate(lane, now)
                groups.append(Group(lane.name, tasks, _pages(len(tasks), lane.terms.max_polls_per_s)))
        return groups

    @staticmethod
    def _may_list(lane: _Lane) -> bool:
        able = lane.terms.lists and not lane.lists_badly and not lane.listing and not _is_slow(lane.terms)
        return able and lane.health is None and not lane.singly and not lane.apart

    def _take_due(self, lane: _Lane, now: datetime) -> list[Task]:
        """Takes the tasks of a lane that a list may be asked for now, if they are enough."""
        due: dict[tuple[datetime, str], None] = {}  # a pair may be there twice
        while (top := self._top(lane)) is not None and top <= now:
            due[heapq.heappop(lane.waiting)] = None
        wanted = [pair for pair in due if now < self._entries[pair[1]].task.expires_at]  # a last poll is a task's own
        taken = {name for _, name in wanted} if len(wanted) >= LIST_FROM else set()
        for pair in due:
            if pair[1] not in taken:
                heapq.heappush(lane.waiting, pair)
        for moment, name in wanted if taken else ():
            entry = self._entries[name]
            entry.flying = True
            lane.listed[name] = _Flight(moment, now, entry.task.hint.at if entry.task.hint is not None else None)
        return [self._entries[name].task for _, name in wanted] if taken else []

    def end_list(self, group: Group, answered: Collection[str], *, requests: int, count: int, complete: bool) -> None:
        """Ends the request for a list that held so many tasks; those it has not answered for wait to be asked singly.

        The others stay in flight until `finish`. A list that has failed, or that saves less than it costs, is not asked
        for again by this holder.
        """
        lane = self._lanes[group.connection]
        lane.listing = False
        self._lists -= 1
        for _ in range(requests - 1):
            if lane.next_start is not None:
                self._count_rate(lane, lane.next_start)
        saves = len(answered) > requests and count <= LISTED_A_POLL * len(answered)
        lane.lists_badly = not (complete and saves)
        for task in group.tasks:
            if task.task_id not in answered:
                self.take_back(task.task_id)
                _put(task.task_id, lane.singly, belongs=task.task_id in self._entries)

    def _busy(self) -> tuple[list[_Lane], int]:
        """The lanes that want threads, and each one's share of them.

        One that backs off needs a thread for its probe; the others share what else it would have had.
        """
        lanes = [lane for lane in self._lanes.values() if self._top(lane) or lane.requests]
        resting = sum(lane.health is not None for lane in lanes)
        return lanes, max(OWN_THREADS, (self._concurrency - resting) // max(1, len(lanes) - resting))

    def _claim(self, lane: _Lane) -> tuple[int, datetime]:
        """Orders the lanes for a free thread.

        A lane waits since its moment or since it last had a thread, whichever is later: by the moment alone, long
        backlogs would go before what has just become due elsewhere, for as long as they last.
        """
        return lane.requests, max(self._top(lane) or _LONG_AGO, lane.served_at or _LONG_AGO)

    def _launch(self, lane: _Lane, now: datetime) -> Task:
        task_id = self._take(lane, now)
        entry = self._entries[task_id]
        entry.flying = True
        lane.flying[task_id] = _Flight(entry.moment, now, entry.task.hint.at if entry.task.hint is not None else None)
        lane.singly.discard(task_id)
        if entry.task.streak is None:
            lane.turn = task_id
        lane.served_at = now
        self._flights[task_id] = lane
        self._count_rate(lane, now)
        return entry.task

    def _take(self, lane: _Lane, now: datetime) -> str:
        """Takes the task with the oldest moment; while the lane backs off, the one that says most as a probe."""
        if lane.health is None:
            return heapq.heappop(lane.waiting)[1]
        due = [pair for pair in lane.waiting if pair[0] <= now and self._stands(pair)]
        chosen = self._probe(due, lane.health)
        lane.waiting.remove(chosen)
        heapq.heapify(lane.waiting)
        return chosen[1]

    def _probe(self, due: list[tuple[datetime, str]], health: ConnectionHealth) -> tuple[datetime, str]:
        """Which of the due tasks asks alone: many bad tasks may not stand for a good one, which would end the back-off.

        First those that were seen at work and have not failed since, the oldest moment first; then those of which
        nothing is known, the youngest first; where all have failed, by turns the one that did so last and any other.
        What decides is stored with the tasks and the back-off, so a successor goes on.
        """
        tasks = [(pair, self._entries[pair[1]].task) for pair in due]
        sound = [(pair, task) for pair, task in tasks if task.last_poll_error is None]
        at_work = [pair for pair, task in sound if task.status is Status.PROCESSING]
        if at_work:
            return min(at_work)
        if sound:
            return max(sound, key=lambda one: (one[1].created_at, one[1].task_id))[0]
        by_failure = sorted(tasks, key=lambda one: (_failed_at(one[1]), one[1].task_id), reverse=True)
        turn = 0 if health.steps % 2 else health.steps // 2
        return by_failure[turn % len(by_failure)][0]

    def _stands(self, pair: tuple[datetime, str]) -> bool:
        """Whether a pair in a lane's heap still says when its task is asked."""
        entry = self._entries.get(pair[1])
        return entry is not None and not entry.flying and not entry.apart and entry.moment == pair[0]

    def _may_start(self, lane: _Lane, share: int, now: datetime) -> bool:
        top = self._top(lane)
        if top is None or max(top, self._not_before(lane)) > now or not self._ready(lane):
            return False
        requests = lane.requests
        if requests >= self._limit(lane, share) or self._leaves_its_turn(lane, now):
            return False
        return self._requests() < self._concurrency or (requests < OWN_THREADS and not self._crowded())

    def _requests(self) -> int:
        return len(self._flights) + self._lists

    def _leaves_its_turn(self, lane: _Lane, now: datetime) -> bool:
        """Whether a connection's next poll is for a task that is asked apart, which would never come to it.

        So it is where the rate is slow, and where a back-off asks for a probe that no sound task can be.
        """
        leaves = _is_slow(lane.terms) if lane.health is None else not lane.sound
        return leaves and bool(self._apart_now(lane, now))

    @staticmethod
    def _ready(lane: _Lane) -> bool:
        return lane.health_known and lane.terms.known

    def _crowded(self) -> bool:
        """Whether even the lanes' own threads are used up."""
        return self._requests() >= most_in_flight(self._concurrency)

    def _limit(self, lane: _Lane, share: int) -> int:
        if lane.health is not None:
            return 1  # one probe at a time
        return min(share, lane.terms.max_concurrency or share)

    def _not_before(self, lane: _Lane) -> datetime:
        """The earliest start that the lane's rate and back-off allow."""
        rated = lane.next_start or _LONG_AGO
        if lane.health is None:
            return rated
        yields = timedelta(seconds=0.0 if lane.sound else YIELD_S)
        return max(rated, lane.health.retry_at + yields)

    @staticmethod
    def _count_rate(lane: _Lane, now: datetime) -> None:
        rate = lane.terms.max_polls_per_s
        if rate is not None:
            # Late starts may catch up for at most a second, so that the rate holds over any longer time.
            reference = max(lane.next_start or now, now - timedelta(seconds=1))
            lane.next_start = reference + _pause(rate)

    def _top(self, lane: _Lane) -> datetime | None:
        """The lane's earliest moment that is not in flight."""
        while lane.waiting:
            if self._stands(lane.waiting[0]):
                return lane.waiting[0][0]
            heapq.heappop(lane.waiting)
        return None

    def take_back(self, task_id: str) -> None:
        """Undoes the start of a poll that was not made."""
        _, flight = self._land(task_id)
        entry = self._entries.get(task_id)
        if entry is not None:
            entry.flying = False
            self._settle(entry, entry.task, flight.moment)

    def _land(self, task_id: str) -> tuple[_Lane, _Flight]:
        lane = self._flights.pop(task_id, None)
        if lane is not None:
            return lane, lane.flying.pop(task_id)
        lane = self._listed.pop(task_id)
        return lane, lane.listed.pop(task_id)

    def _is_suspect(self, task: Task) -> bool:
        return task.own_version <= self._suspects.get(task.task_id, 0)

    def suspects(self) -> dict[str, int]:
        """The tasks that are still suspected of having ended a holder's process, with their versions."""
        found = (self._entries[task_id].task for task_id in self._suspects if task_id in self._entries)
        return {task.task_id: task.own_version for task in found if self._is_suspect(task)}

    def take_apart(self, now: datetime) -> list[Apart]:
        """The tasks to ask now apart from the others, the least suspect first.

        A connection's rate holds for them too: what they take of it is taken from the others. While it backs off, one
        of them is its probe, unless a sound task can be.
        """
        taken: list[Apart] = []
        for lane in self._lanes.values():
            due = self._apart_now(lane, now)
            if not due or not self._ready(lane):
                continue
            if lane.health is not None:
                if lane.health.retry_at <= now and not lane.sound and not lane.flying:
                    taken.append(Apart(due[0], now, lane.health))
                continue
            for task in due:
                start = max(now, lane.next_start or now)
                if start > now + timedelta(seconds=APART_WITHIN_S):
                    break
                self._count_rate(lane, start)
                taken.append(Apart(task, start, None))
        return sorted(taken, key=lambda one: (_interruptions(one.task), one.not_before, one.task.task_id))

    def _apart_now(self, lane: _Lane, now: datetime) -> list[Task]:
        """A connection's tasks to ask apart from the others whose time has come, the least suspect first."""
        found = [self._entries[task_id] for task_id in lane.apart]
        due = [entry for entry in found if entry.moment <= now or not entry.task.apart]
        in_order = sorted(due, key=lambda entry: (_interruptions(entry.task), entry.moment, entry.task.task_id))
        return [entry.task for entry in in_order]

    def judge_apart(
        self, task: Task, error: ProviderError | None, started_at: datetime, now: datetime
    ) -> tuple[str, ConnectionHealth | None] | None:
        """Counts what a poll apart from the others says of its connection; answers a new back-off as `finish` does."""
        lane = self._lanes[task.connection]
        return (lane.name, lane.health) if self._judge(lane, started_at, error, now) else None

    def probe_of(self, task: Task) -> ConnectionHealth | None:
        """The back-off that a poll which has just started is the probe of."""
        return self._lanes[task.connection].health

    def finish(
        self,
        task_id: str,
        saved: Task | None,
        error: ProviderError | None,
        now: datetime,
        *,
        judged: bool = True,
        moved: bool = True,
    ) -> tuple[str, ConnectionHealth | None] | None:
        """Ends a poll with the task as it was saved (None: it is gone) and the connection's fault, if it was one.

        `moved` is whether this poll has changed its state, and not its owner or another poll meanwhile. Answers a
        connection's name and new back-off where that has changed and must be stored.
        """
        lane, flight = self._land(task_id)
        lane.served_at = now
        entry = self._entries.get(task_id)
        if entry is not None:  # a look may have found it ended meanwhile
            entry.flying = False
            if flight.hint is not None and flight.hint <= flight.started_at:
                entry.heeded = flight.hint
            if saved is None:
                self._drop(task_id, entry.task.version)
            else:
                newer = saved if saved.version >= entry.task.version else with_progress(entry.task, saved)
                missed = entry.missed or flight.moment
                if moved and _states_its_end(newer) and error is None:
                    lane.learn(entry.task, missed, now)
                entry.missed = missed if error is not None else None
                self._settle(entry, newer, self._next(newer, lane, now), asked_at=now)
        changed = judged and self._judge(lane, flight.started_at, error, now)
        return (lane.name, lane.health) if changed else None

    def _next(self, task: Task, lane: _Lane, now: datetime) -> datetime:
        if now >= task.expires_at:
            return now + timedelta(seconds=GRACE_RETRY_S)
        return min(lane.next(task, now), task.expires_at)

    def _judge(self, lane: _Lane, started_at: datetime, error: ProviderError | None, now: datetime) -> bool:
        """Moves the lane's back-off by one answer; whether it changed."""
        old = lane.stepped_at is not None and started_at < lane.stepped_at
        if not isinstance(error, ProviderUnavailable | ProviderAuthError):
            if old:
                return False
            kept = lane.health is not None or lane.kept_failures > 0
            lane.failures, lane.kept_failures, lane.health = 0, 0, None
            return kept
        if old:
            return False  # it was in flight when the back-off took its last step
        lane.failures += 1
        lane.kind = error.kind
        hint = error.retry_after if isinstance(error, ProviderUnavailable) else None
        if lane.health is None and hint is None and lane.failures < FAILURES_BEFORE_BACKOFF:
            return False
        steps = lane.health.steps + 1 if lane.health else 1
        delay = CONNECTION_BACKOFF_S[min(steps, len(CONNECTION_BACKOFF_S)) - 1] * (0.8 + 0.4 * self._random())
        delay = max(delay, min(hint or 0.0, MAX_HINT_S))
        lane.stepped_at = now
        since = lane.health.since if lane.health else now
        lane.kept_failures = lane.failures
        lane.health = ConnectionHealth(steps, now + timedelta(seconds=delay), error.kind, since, lane.failures)
        return True

    def unkept_failures(self, now: datetime) -> list[tuple[str, ConnectionHealth]]:
        """The connections whose faults in a row are not stored, with what to store for the next holder to go on."""
        found = []
        for lane in self._lanes.values():
            if lane.health is None and lane.failures != lane.kept_failures:
                lane.kept_failures = lane.failures
                found.append((lane.name, ConnectionHealth(0, now, lane.kind, now, lane.failures)))
        return found

    def known(self) -> list[Task]:
        """The tasks as they are known, but for those that are being asked one by one: there may be news of them soon.

        Of those that a list is asked for few have any, and they are many.
        """
        return [entry.task for task_id, entry in self._entries.items() if task_id not in self._flights]

    def unkept_lengths(self) -> list[tuple[str, Lengths]]:
        """What is to be stored of how long connections' tasks have taken, for the next holder to go by."""
        found = []
        for lane in self._lanes.values():
            if lane.learned and lane.lengths is not None:
                lane.learned = False
                found.append((lane.name, lane.lengths))
        return found

    # -- looking ahead ----------------------------------------------------------------------------------------------

    def overdue(self, now: datetime) -> list[Task]:
        """The tasks whose deadline has passed without a last answer; each is told once."""
        found = [entry.task for entry in self._entries.values() if not entry.flying and past_grace(entry.task, now)]
        for task in found:
            self._drop(task.task_id, task.version)
        return found

    def next_start(self, now: datetime) -> datetime | None:
        """When the next poll may start, if only time is in its way."""
        times = []
        lanes, share = self._busy()
        for lane in lanes:
            top = self._top(lane)
            requests = lane.requests
            full = self._requests() >= self._concurrency and (requests >= OWN_THREADS or self._crowded())
            able = self._ready(lane) and requests < self._limit(lane, share) and not self._leaves_its_turn(lane, now)
            if top is not None and able and not full:
                times.append(max(top, self._not_before(lane)))
        return min(times, default=None)

    def next_need(self) -> datetime | None:
        """When a task next needs a poller.

        That is its moment, or the end of its connection's back-off if that is later; but its end, in any case.
        """
        times = [
            max(top, self._not_before(lane)) for lane in self._lanes.values() if (top := self._top(lane)) is not None
        ]
        while self._ends and self._ends[0][1] not in self._entries:
            heapq.heappop(self._ends)
        if self._ends:
            times.append(self._ends[0][0])
        return min(times, default=None)

    def served(self, now: datetime, looked_at: datetime, *, leaving: bool) -> Served:
        """Which moments have been asked. Polls in flight count as asked only by who leaves, as they still save.

        Not so those that a list serves: it may say nothing clear of them, and who leaves asks nobody any more.
        Nothing is covered that the last look cannot have shown: a successor takes every task of less than
        `INDEX_LAG_S` before this time for unknown, and the last look is usually seconds old.
        """
        until = min(now, looked_at + timedelta(seconds=INDEX_LAG_S - LOOK_LAG_S))
        lagging: dict[str, datetime] = {}
        for lane in self._lanes.values():
            moments = [top] if (top := self._top(lane)) is not None else []
            moments += [flight.moment for flight in lane.listed.values()]
            if not leaving:
                moments += [flight.moment for flight in lane.flying.values()]
            first = min(moments, default=now)
            if first < now - timedelta(seconds=LAG_S):
                lagging[lane.name] = first
            else:
                until = min(until, first)
        for name in sorted(lagging, key=lambda name: lagging[name])[MAX_LAGGING:]:
            until = min(until, lagging.pop(name))
        paced = {
            lane.name: lane.next_start
            for lane in self._lanes.values()
            if lane.next_start is not None and lane.next_start > now
        }
        turns = {name: self._lanes[name].turn for name in lagging if self._lanes[name].turn}
        return Served(until, lagging, dict(sorted(paced.items())[:MAX_LAGGING]), turns=turns)


def _is_slow(terms: Terms) -> bool:
    """Whether a connection's rate lets so few polls through that a holder may come to one or two."""
    return terms.max_polls_per_s is not None and 1 / terms.max_polls_per_s > APART_WITHIN_S


def _states_its_end(task: Task) -> bool:
    """Whether a task has ended by its provider's word, and not because there was none."""
    silent = {ErrorCode.PROVIDER_TASK_LOST, ErrorCode.PROVIDER_REJECTED}
    ended = task.step is not Step.POLL and task.status is not Status.EXPIRED
    return ended and (task.error is None or task.error.code not in silent)


def _pages(tasks: int, rate: float | None) -> int:
    """How many pages of a list are read for so many tasks, at once: half as many, and no more than a rate allows."""
    return max(1, tasks // 2 if rate is None else min(tasks // 2, math.floor(rate) + 1))


def _pause(rate: float) -> timedelta:
    """How long a rate keeps two polls apart."""
    return timedelta(seconds=min(1 / rate, MAX_PAUSE_S))


def _put(task_id: str, into: set[str], *, belongs: bool) -> None:
    """Has a task in a set if it belongs there, and only then."""
    if belongs:
        into.add(task_id)
    else:
        into.discard(task_id)


def _interruptions(task: Task) -> int:
    """How often in a row a task has been asked apart from the others without being heard of."""
    return task.streak.count if task.streak is not None and task.apart else 0


def _failed_at(task: Task) -> datetime:
    return task.last_poll_error.at if task.last_poll_error is not None else _LONG_AGO


_LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
