"""Threads for blocking work, as the use cases see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class WorkerPool:
    """Runs jobs in threads that are kept for the next ones, and hands back what they returned."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="poll")
        self._done: SimpleQueue[tuple[object, object]] = SimpleQueue()

    def submit(self, job: Callable[[], tuple[object, object]]) -> None:
        """Runs a job, which must not raise, as soon as a thread is free."""
        self._executor.submit(lambda: self._done.put(job()))

    def wait(self, timeout_s: float) -> list[tuple[object, object]]:
        """What jobs have returned; blocks for the first one, at most `timeout_s` seconds."""
        found: list[tuple[object, object]] = []
        try:
            found.append(self._done.get(timeout=timeout_s) if timeout_s > 0 else self._done.get_nowait())
            while True:
                found.append(self._done.get_nowait())
        except Empty:
            return found

    def close(self) -> None:
        """Waits for the jobs that run, and ends the threads."""
        self._executor.shutdown()


class SideBySide:
    """Runs a few jobs at the same time and waits for all of them."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="deliver")

    def __call__(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """What each job returned, in their order; raises what the first of them raised."""
        return [future.result() for future in [self._executor.submit(job) for job in jobs]]
