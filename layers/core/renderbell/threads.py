"""Threads for blocking work, as the use cases see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep
from typing import TypeVar

from aws_lambda_powertools import Logger

T = TypeVar("T")


GATHERING_S = 0.005  # what comes within this time is handed back together

logger = Logger()

Job = Callable[[], tuple[object, object]]


class WorkerPool:
    """Runs jobs in threads that are kept for the next ones, and hands back what they returned.

    A handful of microseconds a job: a `ThreadPoolExecutor` makes a future with a lock of its own for each, and a poll
    is little more work than that.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._threads: list[Thread] = []
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[object, object]] = SimpleQueue()
        self._under_way = 0

    def submit(self, job: Job) -> None:
        """Runs a job as soon as a thread is free; one that raises has returned `(None, None)`."""
        if self._under_way >= len(self._threads) < self._most:
            self._add_thread()
        self._under_way += 1
        self._jobs.put(job)

    def wait(self, timeout_s: float) -> list[tuple[object, object]]:
        """What jobs have returned; blocks for the first one, at most `timeout_s` seconds."""
        found: list[tuple[object, object]] = []
        try:
            found.append(self._done.get(timeout=timeout_s) if timeout_s > 0 else self._done.get_nowait())
            if self._under_way > 1 and timeout_s > GATHERING_S:
                sleep(GATHERING_S)
            while True:
                found.append(self._done.get_nowait())
        except Empty:
            self._under_way -= len(found)
            return found

    def close(self) -> None:
        """Waits for the jobs that run, and ends the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _add_thread(self) -> None:
        thread = Thread(target=self._work, name=f"poll-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more; those there are do the work, only later
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                done = job()
            except BaseException:  # a panic in a library, say: there must be as many threads after it as before
                logger.exception("job broke")
                done = None, None
            self._done.put(done)


class SideBySide:
    """Runs a few jobs at the same time and waits for all of them."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="deliver")

    def __call__(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """What each job returned, in their order; raises what the first of them raised."""
        return [future.result() for future in [self._executor.submit(job) for job in jobs]]
