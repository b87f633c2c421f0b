"""Many tasks asked for with one request: what comes of them is what single polls bring, and no later."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderbell.errors import ConflictError, ProviderProtocolError, ProviderTaskNotFound, ProviderUnavailable
from renderbell.providers import Connection, HttpRequest, HttpResponse
from renderbell.store import Lease, Served
from renderbell.task import Status, Task
from tests.deployment import API_FUNCTION, OWNER, Deployment, Said, ScriptedProvider
from tests.virtual import START

INTERVAL_S = 5.0

Item = dict[str, Any]


def running(from_s: float = 0, progress: int = 10, **more: Any) -> Said:
    return Said(from_s, {"state": 4, "progress": progress, "videos": None, "error": None}, **more)


def done(from_s: float = 0) -> Said:
    return Said(from_s, {"state": 1, "progress": 100, "videos": ["/tasks/{id}/final-1.mp4"], "script": "hello"})


def gave_up(from_s: float = 0) -> Said:
    return Said(from_s, {"state": -1, "progress": 40, "failed_stage": "materials", "error": "no materials"})


def lost(from_s: float = 0) -> Said:
    return Said(from_s, ProviderTaskNotFound("task not found"))


def garbage(from_s: float = 0) -> Said:
    return Said(from_s, b'{"status": 200, "data": {}}')


@dataclass
class Server(ScriptedProvider):
    """A MoneyPrinterTurbo server whose list shows what its scripts say, unless `alters` has it show something else."""

    alters: Callable[[list[Item], float], list[Item] | HttpResponse | Exception] = lambda items, now_s: items
    latency_s: float = 0.2
    lists: list[float] = field(default_factory=list)  # when it was asked for one
    strangers: int = 0  # tasks of others, which have ended long ago and stand before all others

    def fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        url, _, query = request.url.partition("?")
        if connection.type != "moneyprinterturbo":
            return super().fetch(connection, request, timeout_s)
        if not query:
            return self._single(connection, request, url.rsplit("/", 1)[-1], timeout_s)
        page, size = (int(part.split("=")[1]) for part in query.split("&"))
        now_s = self._now_s
        self.lists.append(now_s)
        told = [item for name in self.scripts if (item := self._item(name, now_s)) is not None]
        old = [{"task_id": f"old{n}", "state": 1, "progress": 100} for n in range(self.strangers)]
        altered = self.alters([*old, *told], now_s)
        self._take(connection, min(self.latency_s, timeout_s))
        if isinstance(altered, Exception):
            raise altered
        if isinstance(altered, HttpResponse):
            return altered
        shown = {"tasks": altered[(page - 1) * size : page * size], "total": len(altered)}
        return _json({"status": 200, "data": {**shown, "page": page, "page_size": size}})

    @property
    def _now_s(self) -> float:
        return (self.world.now() - START).total_seconds()

    def _single(self, connection: Connection, request: HttpRequest, name: str, timeout_s: float) -> HttpResponse:
        said = self._said(name)
        if not isinstance(said.answer, dict):
            return super().fetch(connection, request, timeout_s)
        self.polls[name].append(self._now_s)
        self._take(connection, min(said.latency_s, timeout_s))
        videos = [one.replace("{id}", name) for one in _videos(said.answer)]
        return _json({"status": 200, "data": {"task_id": name, **said.answer, "videos": videos or None}})

    def _take(self, connection: Connection, latency_s: float) -> None:
        self.in_flight[connection.name] += 1
        most = max(self.most_in_flight[connection.name], self.in_flight[connection.name])
        self.most_in_flight[connection.name] = most
        self.world.sleep(latency_s)
        self.in_flight[connection.name] -= 1

    def _said(self, name: str) -> Said:
        return [one for one in self.scripts[name] if one.from_s <= self._now_s][-1]

    def _item(self, name: str, now_s: float) -> Item | None:
        answer = self._said(name).answer
        if isinstance(answer, bytes):
            return {"task_id": name, "state": "?"}
        if not isinstance(answer, dict):
            return None
        videos = [f"/srv/MoneyPrinterTurbo/storage{one.replace('{id}', name)}" for one in _videos(answer)]
        return {"task_id": name, **answer, "videos": videos or None}


def _videos(answer: Item) -> Sequence[str]:
    return answer["videos"] or () if "videos" in answer else ()


def _json(body: object) -> HttpResponse:
    return HttpResponse(200, {"Content-Type": "application/json"}, json.dumps(body).encode())


def deployment(server: Callable[..., Server] = Server, **more: Any) -> tuple[Deployment, Server]:
    """A deployment whose connection `own` is a MoneyPrinterTurbo server."""
    world = Deployment(
        **{key: more.pop(key) for key in ("workers", "concurrency", "seed", "index_lag_s") if key in more}
    )
    world.provider = found = server(world.world)
    world.connect("own", type="moneyprinterturbo", poll_interval_s=INTERVAL_S, **more)
    return world, found


def singles(server: Server) -> list[float]:
    return sorted(time for polls in server.polls.values() for time in polls)


def found_s(world: Deployment, task_id: str, status: Status) -> float:
    """When a task came into a state, in seconds."""
    return next((line.at - START).total_seconds() for line in world.task(task_id).history if line.target is status)


class TestFiftyTasks:
    def test_cost_one_request_a_moment_and_one_more_each_to_see_its_end(self) -> None:
        world, server = deployment()
        tasks = [world.register(running(), done(200), connection="own", at_s=1) for _ in range(50)]
        world.tick_every_minute(until_s=400)
        world.run(190)
        assert singles(server) == [], "their first poll was a list too"
        steady = [time for time in server.lists if 10 <= time < 180]
        assert len(steady) in {34, 35}
        assert all(INTERVAL_S - 0.5 <= later - before <= INTERVAL_S + 0.5 for before, later in pairwise(steady))
        world.run(400)
        assert Counter(map(len, server.polls.values())) == {1: 50}
        assert all(world.task(task).status is Status.COMPLETED for task in tasks)
        assert all(200 <= found_s(world, task, Status.COPYING) <= 200 + INTERVAL_S + 1 for task in tasks)
        assert world.task(tasks[0]).files[0].source_url == "https://own.example.com/tasks/p1/final-1.mp4"

    def test_write_nothing_while_nothing_changes(self) -> None:
        world, _ = deployment()
        task, *_ = [world.register(running(), connection="own") for _ in range(10)]
        world.tick_every_minute(until_s=200)
        world.run(30)
        before = world.task(task)
        world.run(200)
        assert world.task(task) == before
        assert world.task(task).status is Status.PROCESSING

    def test_have_their_progress_kept(self) -> None:
        world, server = deployment()
        script = [running(30 * n, progress=10 * n) for n in range(5)]
        tasks = [world.register(*script, connection="own") for _ in range(50)]
        world.tick_every_minute(until_s=170)
        world.run(170)
        assert {world.task(task).progress for task in tasks} == {40}
        assert singles(server) == []

    def test_whose_changes_are_many_leave_threads_for_looks_and_renewals_however_slow_the_table_is(self) -> None:
        """By twenty they took fifteen threads: 5,000 would have taken all, and a renewal would have waited for them."""
        world, server = deployment()
        save, saving, most = world.store.save, 0, 0

        def slow_save(*said: Any, **more: Any) -> Task:
            nonlocal saving, most
            saving += 1
            most = max(most, saving)
            world.world.sleep(0.2)
            saving -= 1
            return save(*said, **more)

        world.store.save = slow_save  # type: ignore[method-assign]
        tasks = [world.register(running(), connection="own", at_s=1) for _ in range(300)]
        world.tick_every_minute(until_s=100)
        world.run(100)
        assert {world.task(task).status for task in tasks} == {Status.PROCESSING}
        assert most <= 8, "of a tick, and of one that has just been relieved"
        assert singles(server) == []

    def test_are_counted_each_and_their_lists_beside(self) -> None:
        world, server = deployment()
        for _ in range(10):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=120)
        world.run(120)
        assert world.counts["Lists"] == len(server.lists) > 15
        assert world.counts["Polls"] == len(singles(server)) + 10 * len(server.lists)

    def test_that_end_one_after_the_other_are_found_as_soon_as_by_single_polls(self) -> None:
        ends = [60 + 2 * n for n in range(50)]
        lateness = {}
        for batch in (True, False):
            world, _ = deployment(batch=batch)
            tasks = [world.register(running(), done(end), connection="own") for end in ends]
            world.tick_every_minute(until_s=300)
            world.run(300)
            late = [found_s(world, task, Status.COPYING) - end for task, end in zip(tasks, ends, strict=True)]
            lateness[batch] = sorted(late)
        assert max(lateness[True]) <= INTERVAL_S + 1
        assert sum(lateness[True]) / 50 <= sum(lateness[False]) / 50 + 0.7

    def test_of_a_connection_that_asks_singly_make_no_list(self) -> None:
        world, server = deployment(batch=False)
        for _ in range(10):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=120)
        world.run(120)
        assert server.lists == []
        assert len(singles(server)) >= 200

    def test_are_served_over_hand_overs_without_a_gap(self) -> None:
        world, server = deployment(index_lag_s=1.0)
        for _ in range(20):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=900)
        world.run(900)
        gaps = [later - before for before, later in pairwise(server.lists)]
        assert max(gaps) <= INTERVAL_S + 6
        assert len(server.lists) >= 160

    def test_of_two_workers_make_a_list_each(self) -> None:
        world, server = deployment(workers=2)
        for _ in range(50):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=180)
        world.run(180)
        steady = Counter(math.floor(time / INTERVAL_S) for time in server.lists if 20 <= time < 120)
        assert set(steady.values()) <= {2, 3, 1}
        assert sum(steady.values()) <= 42


class TestAListThatIsNoHelp:
    def play(self, alters: Any, *, until_s: float = 115.0, **more: Any) -> tuple[Deployment, Server, list[str]]:
        world, server = deployment(**more)
        server.alters = alters
        tasks = [world.register(running(), connection="own") for _ in range(10)]
        world.tick_every_minute(until_s=until_s)
        world.run(until_s)
        return world, server, tasks

    @pytest.mark.parametrize(
        "answer",
        [
            HttpResponse(404, {}, b'{"detail": "Not Found"}'),
            HttpResponse(405, {}, b'{"detail": "Method Not Allowed"}'),
            HttpResponse(500, {}, b"Internal Server Error"),
            HttpResponse(200, {}, b"<html>"),
            HttpResponse(401, {}, b'{"message": "invalid token"}'),
            ProviderUnavailable("no answer"),
            ProviderProtocolError("the answer is larger than 2 MiB"),
            RuntimeError("ours"),
        ],
    )
    def test_is_asked_for_once_a_tick_and_all_are_asked_singly(self, answer: HttpResponse | Exception) -> None:
        world, server, tasks = self.play(lambda items, now_s: answer)
        assert len(server.lists) <= len(world.ticks) + 1
        for task in tasks:
            assert world.task(task).status is Status.PROCESSING
            assert world.task(task).last_poll_error is None
            assert all(later - before <= INTERVAL_S + 2 for before, later in pairwise(world.polls(task)))
        assert world.store.connection_health("own") is None

    def test_since_it_hangs_delays_nobody_by_more_than_its_time_out_once_a_tick(self) -> None:
        world, server, tasks = self.play(lambda items, now_s: ProviderUnavailable("no answer"))
        server.latency_s = 60
        world.tick_every_minute(first_s=125, until_s=300)
        world.run(300)
        for task in tasks:
            gaps = [later - before for before, later in pairwise(world.polls(task))]
            assert max(gaps) <= INTERVAL_S + 5 + 2
            assert sum(gap > INTERVAL_S + 2 for gap in gaps) <= len(world.ticks) + 1

    def test_that_misses_tasks_has_those_asked_singly_each_time(self) -> None:
        world, server, tasks = self.play(lambda items, now_s: items[2:])
        assert len(server.lists) >= 20
        assert len(world.polls(tasks[0])) >= 20
        assert len(world.polls(tasks[5])) <= 2

    def test_that_says_two_things_of_a_task_has_it_asked_singly(self) -> None:
        world, _, tasks = self.play(lambda items, now_s: [*items, {**items[0], "progress": 55}, dict(items[1])])
        assert len(world.polls(tasks[0])) >= 20
        assert len(world.polls(tasks[1])) <= 2

    def test_with_very_many_tasks_of_others_is_asked_for_once_a_tick(self) -> None:
        world, server = deployment()
        server.strangers = 3000
        for _ in range(10):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=115)
        world.run(115)
        assert len(server.lists) <= len(world.ticks) + 1

    def test_is_not_asked_for_by_the_successor_of_a_poller_that_has_died(self) -> None:
        world, server = deployment()
        until = START + timedelta(seconds=20)
        world.store.take_lease(Lease(0, "dead", until, relief=False, served=Served(), workers=1, slots=4), seen=None)
        for _ in range(10):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=180)
        world.run(180)
        (first,) = [ended_s for began_s, ended_s in world.ticks if began_s < 60 and ended_s - began_s > 20]
        assert min(server.lists) >= first
        assert len(server.lists) >= 20

    def test_is_not_asked_for_while_the_connection_backs_off(self) -> None:
        dead = [Said(0, running().answer), Said(30, ProviderUnavailable("dead"))]
        world, server = deployment()
        server.alters = lambda items, now_s: items if now_s < 30 else ProviderUnavailable("dead")
        for _ in range(10):
            world.register(*dead, connection="own")
        world.tick_every_minute(until_s=240)
        world.run(240)
        health = world.store.connection_health("own")
        assert health is not None
        assert health.steps >= 5
        assert sum(time > 40 for time in server.lists) == 0
        assert sum(time > 30 for time in singles(server)) <= 30


class TestLimits:
    def test_of_a_rate_hold(self) -> None:
        world, server = deployment(max_polls_per_s=0.5)
        scripts = [[running(), done(100 + 5 * n)] for n in range(30)]
        for script in scripts:
            world.register(*script, connection="own")
        world.tick_every_minute(until_s=500)
        world.run(500)
        requests = sorted([*server.lists, *singles(server)])
        for number, time in enumerate(requests):
            within = [one for one in requests[number:] if one < time + 60]
            assert len(within) <= 60 * 0.5 + 2
        assert all(task.status is Status.COMPLETED for task in map(world.task, _ids(30)))

    @pytest.mark.parametrize("rate", [0.1, 0.05])
    def test_however_tight_leave_nobody_out_over_hand_overs(self, rate: float) -> None:
        world, server = deployment(max_polls_per_s=rate)
        for _ in range(12):
            world.register(running(), done(100), connection="own")
        for _ in range(8):
            world.register(running(), connection="own")
        world.tick_every_minute(until_s=900)
        world.run(900)
        ended = [found_s(world, task, Status.COPYING) for task in _ids(12)]
        assert max(ended) <= 100 + 20 / rate + 240, "twenty requests, and a list each minute"
        assert bool(server.lists) is (rate >= 0.1)

    def test_of_the_concurrency_hold(self) -> None:
        world, server = deployment(max_concurrency=2)
        for n in range(30):
            world.register(running(), done(50 + 7 * (n % 5)), connection="own")
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert server.most_in_flight["own"] <= 3, "two, and one of a tick that has just been relieved"
        assert all(task.status is Status.COMPLETED for task in map(world.task, _ids(30)))

    def test_a_list_that_hangs_delays_no_other_connection(self) -> None:
        world, server = deployment()
        server.latency_s = 60
        for _ in range(50):
            world.register(running(), connection="own")
        other = world.register(Said(0, {"status": "processing", "progress": 10}))
        world.tick_every_minute(until_s=170)
        world.run(170)
        assert max(later - before for before, later in pairwise(world.polls(other))) <= 10.5 + 1


def _ids(count: int) -> list[str]:
    return [f"tsk_{number:026d}" for number in range(1, count + 1)]


# -- equal outcomes ---------------------------------------------------------------------------------------------------

# Each phase lasts long enough for either way of asking to see it.
PHASE_S = 40.0
phases = st.lists(st.sampled_from([running, running, running, garbage, lost]), min_size=0, max_size=3)
ends = st.sampled_from([done, done, gave_up, lost, garbage, running])


@dataclass(frozen=True, slots=True)
class Life:
    """What is to happen to a task: its provider's words, one each phase, and when its owner cancels it."""

    words: Sequence[Callable[[float], Said]]
    end: Callable[[float], Said]
    cancelled_s: float | None

    def script(self) -> list[Said]:
        told = [running(0, progress=5)]
        for number, word in enumerate([*self.words, self.end], start=1):
            from_s = number * PHASE_S
            told.append(running(from_s, progress=10 * number + 5) if word is running else word(from_s))
        return told


lives = st.lists(
    st.builds(Life, phases, ends, st.one_of(st.none(), st.none(), st.none(), st.sampled_from([70.0, 110.0]))),
    min_size=3,
    max_size=8,
)


def unsound(seed: int) -> Callable[[list[Item], float], list[Item] | HttpResponse | Exception]:
    """A list that now and then fails, misses or repeats tasks, or garbles one of them."""
    chance = random.Random(seed)

    def alter(items: list[Item], now_s: float) -> list[Item] | HttpResponse | Exception:
        items = [dict(item) for item in items]
        match chance.randrange(8):
            case 0:
                faults: list[HttpResponse | Exception] = [HttpResponse(500, {}, b"x"), HttpResponse(404, {}, b"{}")]
                return chance.choice([*faults, ProviderUnavailable("no answer")])
            case 1:
                return [item for item in items if chance.random() < 0.6]
            case 2:
                return [*items, *chance.sample(items, min(3, len(items)))]
            case 3 if items:
                chance.choice(items)["state"] = None
            case 4:
                chance.shuffle(items)
        return items

    return alter


def final(lived: Sequence[Life], seed: int, how: str) -> tuple[list[tuple[object, ...]], Server]:
    """What has become of the tasks in the end."""
    world, server = deployment(seed=seed, batch=how != "singly")
    if how == "refused":
        server.alters = lambda items, now_s: HttpResponse(404, {}, b'{"detail": "Not Found"}')
    elif how == "unsound":
        server.alters = unsound(seed)
    tasks = [world.register(*life.script(), connection="own", deadline_s=400) for life in lived]

    def cancel(task: str) -> None:
        with suppress(ConflictError):  # it has ended
            world.tasks(lambda: "").cancel_task(task, owner=OWNER)

    for task, life in zip(tasks, lived, strict=True):
        if life.cancelled_s is not None:
            world.start(API_FUNCTION, partial(cancel, task), delay_s=life.cancelled_s)
    world.tick_every_minute(until_s=470)
    world.run(480)
    found: list[tuple[object, ...]] = []
    for one in map(world.task, tasks):
        error = (one.error.code, one.error.message) if one.error is not None else None
        kind = one.last_poll_error.kind if one.last_poll_error is not None else None
        found.append((one.status, error, [line.target for line in one.history], one.sources, one.progress, kind))
    return found, server


@settings(max_examples=25, deadline=None)
@given(lives, st.integers(0, 2**32))
def test_outcomes_are_those_of_single_polls(lived: list[Life], seed: int) -> None:
    expected, _ = final(lived, seed, "singly")
    for how in ("listed", "unsound", "refused"):
        found, server = final(lived, seed, how)
        assert found == expected, how
        assert server.lists, how
