"""Virtual time: processes that wait without waiting, run one at a time and always in the same order."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from greenlet import getcurrent, greenlet

START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
MOST_EVENTS = 5_000_000  # of one world; the longest needs a tenth


class DiedError(BaseException):
    """The process is no more; nothing that it goes on to do has any effect."""


class Process:
    """What dies together: an invocation with all of its threads.

    `skew_s` is how far its clock is off, `knows` what it has read and keeps, `resumes_at` until when it stands still.
    """

    def __init__(self, name: str, skew_s: float = 0.0) -> None:
        self.name = name
        self.skew = timedelta(seconds=skew_s)
        self.knows: set[str] = set()
        self.resumes_at: datetime | None = None
        self.began_s: float | None = None  # None: it has not begun
        self.alive = True
        self.threads: dict[greenlet, None] = {}


class Event:
    """Something that is to happen, and may be called off."""

    __slots__ = ("happen",)

    def __init__(self, happen: Callable[[], None]) -> None:
        self.happen: Callable[[], None] | None = happen

    def call_off(self) -> None:
        """Makes it as if it had never been planned."""
        self.happen = None


class World:
    """A clock that jumps to whatever happens next.

    Code under test gets `now`, `sleep` and pools from here, and so blocks only in virtual time.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._events: list[tuple[datetime, int, Event]] = []
        self._until: datetime | None = None  # of the present run
        self._order = count()
        self._happened = 0
        self._hub: greenlet | None = None
        self._owners: dict[greenlet, Process] = {}
        self.broken: list[BaseException] = []

    def now(self) -> datetime:
        """The present virtual time."""
        return self._now

    def at(self, when: datetime, happen: Callable[[], None]) -> Event:
        """Lets something happen at a time."""
        event = Event(happen)
        heapq.heappush(self._events, (max(when, self._now), next(self._order), event))
        return event

    def spawn(self, body: Callable[[], object], *, delay_s: float = 0.0, process: Process | None = None) -> None:
        """Starts a thread, of a process or of the one that runs; what it raises is kept in `broken`."""
        owner = process or self.process

        def guarded() -> None:
            try:
                body()
            except DiedError:
                pass
            except Exception as error:
                self.broken.append(error)
            finally:
                if owner is not None:
                    del self._owners[thread], owner.threads[thread]

        def start() -> None:
            if owner is not None:
                if not owner.alive:
                    return
                self._owners[thread] = owner
                owner.threads[thread] = None
            self._switch_to(thread)

        thread = greenlet(guarded)
        self.at(self._now + timedelta(seconds=delay_s), start)

    @property
    def process(self) -> Process | None:
        """The process that runs now."""
        return self._owners.get(getcurrent())

    def kill(self, process: Process) -> None:
        """Ends a process with all of its threads; whoever calls it from within raises `DiedError` next."""
        if process.alive:
            process.alive = False
            self.at(self._now, lambda: self._reap(process))

    def pause(self, process: Process, seconds: float) -> None:
        """Lets a process stand still with all of its threads, wherever they wait; its clock goes on."""
        process.resumes_at = self._now + timedelta(seconds=seconds)

    def _reap(self, process: Process) -> None:
        for thread in list(process.threads):
            thread.parent = getcurrent()
            thread.throw(DiedError)

    def check_alive(self) -> None:
        """Raises `DiedError` in a process that is no more."""
        process = self._owners.get(getcurrent())
        if process is not None and not process.alive:
            raise DiedError

    def sleep(self, seconds: float) -> None:
        """Suspends the present process."""
        when = self._now + timedelta(seconds=max(0.0, seconds))
        if self._passes_at_once(when):
            return
        me = getcurrent()
        self.at(when, lambda: self._switch_to(me))
        self._suspend()

    def _passes_at_once(self, when: datetime) -> bool:
        """Lets the time pass without leaving the present process, where nothing else happens until then.

        The order of events is the same as if it had been suspended; only its price is saved.
        """
        me = getcurrent()
        if self._hub is None or me is self._hub:
            raise RuntimeError("only a process of the world can wait")
        events = self._events
        while events and events[0][2].happen is None:
            heapq.heappop(events)
        if (events and events[0][0] <= when) or (self._until is not None and when > self._until):
            return False
        owner = self._owners.get(me)
        if owner is not None and not owner.alive:
            raise DiedError
        self._count()
        self._now = when
        return True

    def _count(self) -> None:
        self._happened += 1
        if self._happened > MOST_EVENTS:
            raise AssertionError("this world never comes to rest")

    def run(self, until: datetime) -> None:
        """Runs all processes until a time, or until nothing is left to happen before it."""
        self._hub, self._until = getcurrent(), until
        while self._events and self._events[0][0] <= until:
            self._happens_next()
        self._now = max(self._now, until)

    def _happens_next(self) -> None:
        self._count()
        when, _, event = heapq.heappop(self._events)
        if event.happen is not None:
            self._now = when
            event.happen()

    def run_out(self) -> None:
        """Runs until nothing is left to happen."""
        self._hub, self._until = getcurrent(), None
        while self._events:
            self._happens_next()
        if self._owners:
            raise AssertionError(f"waiting for ever: {sorted({process.name for process in self._owners.values()})}")

    def _switch_to(self, thread: greenlet) -> None:
        owner = self._owners.get(thread)
        if owner is not None and owner.resumes_at is not None and owner.resumes_at > self._now:
            self.at(owner.resumes_at, lambda: self._switch_to(thread))
            return
        if not thread.dead and (owner is None or owner.alive):
            thread.parent = self._hub or getcurrent()
            thread.switch()

    def _suspend(self) -> None:
        if self._hub is None or getcurrent() is self._hub:
            raise RuntimeError("only a process of the world can wait")
        self.check_alive()
        self._hub.switch()

    def channel(self) -> Channel:
        """A queue that processes can wait on."""
        return Channel(self)


class Channel:
    """A queue in virtual time; one process at a time waits on it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: greenlet | None = None
        self._queue: deque[object] = deque()

    def put(self, value: object) -> None:
        """Adds a value, and wakes who waits."""
        self._queue.append(value)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._world.at(self._world.now(), lambda: self._world._switch_to(waiting))

    def wait(self, timeout_s: float) -> list[Any]:
        """All values that are there, at least one unless the time runs out."""
        if not self._queue and timeout_s > 0:
            world = self._world
            if world._passes_at_once(world._now + timedelta(seconds=timeout_s)):
                return []
            me = getcurrent()
            self._waiting = me

            def give_up() -> None:
                if self._waiting is me:
                    self._waiting = None
                    self._world._switch_to(me)

            timeout = self._world.at(self._world.now() + timedelta(seconds=timeout_s), give_up)
            try:
                self._world._suspend()
            finally:
                timeout.call_off()
        values = list(self._queue)
        self._queue.clear()
        return values


MOST_IN_VAIN = 100  # times in a row


class VirtualPool:
    """A pool of threads in virtual time; each job is a process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._done = world.channel()
        self._in_vain = 0

    def submit(self, job: Callable[[], Any]) -> None:
        """Starts a job."""
        self._world.spawn(lambda: self._done.put(job()))

    def wait(self, timeout_s: float) -> list[Any]:
        """What jobs have returned; a caller that asks again and again without leaving time to pass is stuck."""
        found = self._done.wait(timeout_s)
        self._in_vain = self._in_vain + 1 if timeout_s <= 0 and not found else 0
        if self._in_vain > MOST_IN_VAIN:
            raise RuntimeError("a loop that waits for nothing and lets no time pass")
        return found
