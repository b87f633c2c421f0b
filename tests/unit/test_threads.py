"""Threads that are kept for the next job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from time import monotonic

import pytest

from renderbell.threads import GATHERING_S, WorkerPool

PATIENCE_S = 5.0


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with closing(WorkerPool(3)) as pool:
        yield pool


def returned(pool: WorkerPool, number: int) -> list[object]:
    """What so many jobs have returned, in the order of their ends."""
    found: list[object] = []
    limit = monotonic() + PATIENCE_S
    while len(found) < number:
        assert monotonic() < limit
        found += [second for _, second in pool.wait(PATIENCE_S)]
    return found


def test_jobs_run_side_by_side_as_far_as_there_are_threads(pool: WorkerPool) -> None:
    together, go_on = threading.Barrier(4), threading.Event()

    def meet() -> tuple[object, object]:
        together.wait(PATIENCE_S)
        return None, "met"

    def follow() -> tuple[object, object]:
        go_on.set()
        return None, "followed"

    for job in (meet, meet, meet, follow):
        pool.submit(job)
    assert not go_on.wait(0.05)  # all three wait for each other, and for us
    together.wait(PATIENCE_S)
    assert sorted(map(str, returned(pool, 4))) == ["followed", "met", "met", "met"]


def test_a_thread_is_kept_for_the_next_job(pool: WorkerPool) -> None:
    for _ in range(5):
        pool.submit(lambda: (None, threading.get_ident()))
        assert len(returned(pool, 1)) == 1
    before = threading.active_count()
    pool.submit(lambda: (None, threading.get_ident()))
    returned(pool, 1)
    assert threading.active_count() == before


def test_who_waits_in_vain_gets_nothing_when_the_time_is_up(pool: WorkerPool) -> None:
    began = monotonic()
    assert pool.wait(0.05) == []
    assert pool.wait(0.0) == []
    assert 0.04 <= monotonic() - began < PATIENCE_S


def test_what_ends_at_the_same_time_is_handed_back_together(pool: WorkerPool) -> None:
    go = threading.Event()

    def job() -> tuple[object, object]:
        return None, go.wait(PATIENCE_S)

    for _ in range(3):
        pool.submit(job)
    go.set()
    assert len(pool.wait(PATIENCE_S)) == 3


def test_nothing_else_is_waited_for_where_nothing_else_runs(pool: WorkerPool) -> None:
    took: list[float] = []
    for _ in range(20):
        pool.submit(lambda: (None, "alone"))
        began = monotonic()
        returned(pool, 1)
        took.append(monotonic() - began)
    assert min(took) < GATHERING_S


def test_closing_waits_for_what_runs(pool: WorkerPool) -> None:
    done: list[int] = []

    def job(number: int) -> tuple[object, object]:
        done.append(number)
        return None, None

    for number in range(6):
        pool.submit(partial(job, number))
    pool.close()
    assert sorted(done) == list(range(6))


def test_where_no_more_threads_are_to_be_had_those_there_are_do_the_work(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hold = threading.Event()
    pool.submit(lambda: (None, hold.wait(PATIENCE_S)))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        pool.submit(lambda: (None, "later"))
    hold.set()
    assert returned(pool, 2) == [True, "later"]


def test_where_not_even_a_first_thread_is_to_be_had_the_job_is_refused_and_forgotten(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                pool.submit(lambda: (None, "never"))
    before = threading.active_count()
    for _ in range(3):
        pool.submit(lambda: (None, "done"))
        assert returned(pool, 1) == ["done"]
    assert threading.active_count() == before + 1  # as many threads as jobs at a time


class Panic(BaseException):
    """As a library written in Rust raises it."""


def test_a_job_that_breaks_takes_no_thread_with_it(pool: WorkerPool) -> None:
    def panic() -> tuple[object, object]:
        raise Panic

    for _ in range(5):
        pool.submit(panic)
    pool.submit(lambda: (None, "done"))
    assert sorted(map(str, returned(pool, 6))) == ["None"] * 5 + ["done"]
