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


class World:
    """A clock that jumps to whatever happens next.

    Code under test gets `now`, `sleep` and pools from here, and so blocks only in virtual time.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._events: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = count()
        self._hub: greenlet | None = None
        self.broken: list[BaseException] = []

    def now(self) -> datetime:
        """The present virtual time."""
        return self._now

    def at(self, when: datetime, happen: Callable[[], None]) -> None:
        """Lets something happen at a time."""
        heapq.heappush(self._events, (max(when, self._now), next(self._order), happen))

    def spawn(self, process: Callable[[], object], *, delay_s: float = 0.0) -> None:
        """Starts a process; what it raises is kept in `broken`."""

        def guarded() -> None:
            try:
                process()
            except Exception as error:
                self.broken.append(error)

        self.at(self._now + timedelta(seconds=delay_s), lambda: self._switch_to(greenlet(guarded, parent=self._hub)))

    def sleep(self, seconds: float) -> None:
        """Suspends the present process."""
        me = getcurrent()
        self.at(self._now + timedelta(seconds=max(0.0, seconds)), lambda: self._switch_to(me))
        self._suspend()

    def run(self, until: datetime) -> None:
        """Runs all processes until a time, or until nothing is left to happen before it."""
        self._hub = getcurrent()
        while self._events and self._events[0][0] <= until:
            when, _, happen = heapq.heappop(self._events)
            self._now = when
            happen()
        self._now = max(self._now, until)

    def _switch_to(self, process: greenlet) -> None:
        process.switch()

    def _suspend(self) -> None:
        if self._hub is None or getcurrent() is self._hub:
            raise RuntimeError("only a process of the world can wait")
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
            me = getcurrent()
            self._waiting = me

            def give_up() -> None:
                if self._waiting is me:
                    self._waiting = None
                    self._world._switch_to(me)

            token = object()
            self._token = token
            self._world.at(
                self._world.now() + timedelta(seconds=timeout_s), lambda: give_up() if self._token is token else None
            )
            self._world._suspend()
            self._token = None
        values = list(self._queue)
        self._queue.clear()
        return values

    _token: object | None = None


class VirtualPool:
    """A pool of threads in virtual time; each job is a process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._done = world.channel()

    def submit(self, job: Callable[[], Any]) -> None:
        """Starts a job."""
        self._world.spawn(lambda: self._done.put(job()))

    def wait(self, timeout_s: float) -> list[Any]:
        """What jobs have returned."""
        return self._done.wait(timeout_s)
