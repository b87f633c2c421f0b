"""A connection that fails backs off as a whole, and its good tasks do not pay for its bad ones: in virtual time."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise

import pytest

from renderbell.errors import ProviderUnavailable
from renderbell.jobs import PROBE_S
from renderbell.providers.base import Connection, HttpRequest, HttpResponse
from renderbell.store import Lease, Served
from renderbell.task import Status
from tests.deployment import Deployment, Said, processing, succeeded
from tests.virtual import START

BAD = 30
REFUSED_IN_A_BODY = json.dumps({"code": 20001, "msg": "", "data": None}).encode()


def with_bad_tasks(at_s: float = 0) -> Deployment:
    """A connection with thirty tasks whose every poll is a 500 of the provider."""
    world = Deployment()
    for number in range(BAD):
        world.register(Said(0, 500), at_s=at_s + number, deadline_s=7 * 86_400)
    return world


def longest_gap(polls: list[float], until_s: float) -> float:
    return max(later - earlier for earlier, later in pairwise([*polls, until_s]))


def test_a_good_task_among_thirty_bad_ones_is_asked_in_time_for_a_short_deadline() -> None:
    world = with_bad_tasks()
    good = world.register(processing(), succeeded(from_s=1500), at_s=900, deadline_s=660)
    world.tick_every_minute(until_s=1560)
    world.run(1560)
    assert world.task(good).status is Status.COMPLETED
    assert longest_gap(world.polls(good), 1500) <= 60


def test_a_good_task_that_fails_once_among_thirty_bad_ones_is_asked_again_soon() -> None:
    world = with_bad_tasks()
    good = world.register(processing(), Said(600, 500), processing(from_s=612), at_s=100)
    world.tick_every_minute(until_s=1200)
    world.run(1200)
    assert world.task(good).last_poll_error is None
    assert longest_gap(world.polls(good), 1200) <= 61, "a minute, and the hand-over"


def test_two_good_tasks_among_thirty_bad_ones_are_both_asked() -> None:
    world = with_bad_tasks()
    good = [world.register(processing(), at_s=600 + number) for number in range(2)]
    world.tick_every_minute(until_s=1500)
    world.run(1500)
    assert all(longest_gap(world.polls(task), 1500) <= 60 for task in good)


def test_bad_tasks_alone_are_each_asked_in_turn() -> None:
    world = Deployment()
    tasks = [world.register(Said(0, 500), at_s=0.01 * number, deadline_s=7 * 86_400) for number in range(8)]
    world.tick_every_minute(until_s=7200)
    world.run(7200)
    probes = [len([poll for poll in world.polls(task) if poll > 1200]) for task in tasks]
    assert sum(probes) <= 6000 / 240
    assert min(probes) >= 1


def test_a_key_that_is_refused_in_a_good_answer_backs_off_and_ends_no_task() -> None:
    world = Deployment()
    tasks = [world.register(Said(0, REFUSED_IN_A_BODY), processing(from_s=1800), at_s=0.01 * n) for n in range(20)]
    world.tick_every_minute(until_s=2400)
    world.run(1800)
    assert sum(len(world.polls(task)) for task in tasks) <= 20 + 5 + 15
    assert world.counts["ProviderAuthError"] >= 10
    health = world.store.connection_health("studio")
    assert health is not None
    assert (health.kind, health.steps >= 8) == ("auth", True)
    assert {world.task(task).status for task in tasks} == {Status.QUEUED}
    world.run(2400)
    assert world.store.connection_health("studio") is None
    assert {world.task(task).status for task in tasks} == {Status.PROCESSING}


@pytest.mark.parametrize("workers", [1, 4])
def test_one_probe_asks_at_a_time_among_all_workers_and_over_hand_overs(workers: int) -> None:
    world = Deployment(workers=workers, slots=8)
    silent = Said(0, ProviderUnavailable("time-out"), latency_s=9.9)
    for _ in range(60):
        world.register(silent, deadline_s=86_400)
    fetch, at_once = world.provider.fetch, []

    def watched(connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        if world.now_s > 120:
            at_once.append(world.provider.in_flight[connection.name] + 1)
        return fetch(connection, request, timeout_s)

    world.provider.fetch = watched  # type: ignore[method-assign]
    world.tick_every_minute(until_s=1800)
    world.run(1800)
    assert len(at_once) >= 5
    assert set(at_once) == {1}


def test_a_task_ends_in_time_though_its_connection_backs_off() -> None:
    world = Deployment()
    world.wakes = False
    dead = Said(0, ProviderUnavailable("503", retry_after=3600))
    task = world.register(dead, deadline_s=90)
    world.tick_every_minute(until_s=600, first_s=1)
    world.run(600)
    ended = world.task(task)
    assert ended.status is Status.EXPIRED
    assert 150 <= (ended.history[-1].at - START).total_seconds() < 155, "a minute after its deadline, for a last answer"


def test_a_probe_whose_poller_died_is_followed_by_another() -> None:
    world = with_bad_tasks()
    world.tick_every_minute(until_s=600)
    world.run(300)
    health = world.store.connection_health("studio")
    assert health is not None
    asked = len(all_polls(world))
    world.world.at(health.retry_at - timedelta(milliseconds=1), lambda: claim_and_die(world))
    world.run((health.retry_at - START).total_seconds() + 2 * PROBE_S)
    assert len(all_polls(world)) == asked + 1


@pytest.mark.parametrize("workers", [2, 4])
def test_a_bad_task_of_one_worker_keeps_no_other_from_its_good_ones(workers: int) -> None:
    world = Deployment(workers=workers, slots=workers)
    bad = world.register(Said(0, 503), deadline_s=7 * 86_400)
    good = [world.register(processing(), at_s=1 + number, deadline_s=86_400) for number in range(3 * workers)]
    world.tick_every_minute(until_s=1800)
    world.run(1800)
    others = [task for task in good if world.task(task).slot != world.task(bad).slot]
    assert len(others) >= 2
    assert all(longest_gap(world.polls(task)[1:], 1800) <= 60 for task in others)


def test_a_suspect_is_asked_while_another_task_keeps_its_connection_in_back_off() -> None:
    world = Deployment()
    world.wakes = False
    world.register(Said(0, 503), deadline_s=86_400)
    suspect = world.register(processing(), succeeded(from_s=300), deadline_s=86_400)
    world.run(1)
    died = Lease(0, "dead", START, False, Served(START), 1, 4, suspects={suspect: 1})
    world.store.take_lease(died, seen=None)
    world.tick_every_minute(until_s=600, first_s=5)
    world.run(600)
    assert world.task(suspect).status is Status.COMPLETED


def claim_and_die(world: Deployment) -> None:
    """Another worker claims the probe and does not come to it."""
    health = world.store.connection_health("studio")
    assert health is not None
    until = world.clock() + timedelta(seconds=PROBE_S)
    assert world.store.claim_probe("studio", health._replace(retry_at=until), "another", health.retry_at)


def all_polls(world: Deployment) -> list[float]:
    return [poll for polls in world.provider.polls.values() for poll in polls]
