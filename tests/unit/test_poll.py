"""The poller in virtual time: every clause of a tick, over the real store, with scripted providers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from renderbell.connections import Connections
from renderbell.delivery import Answer
from renderbell.errors import ProviderProtocolError, ProviderTaskNotFound, ProviderUnavailable
from renderbell.jobs import Found
from renderbell.lengths import Lengths
from renderbell.poll import Poller
from renderbell.providers import Connection, HttpRequest, HttpResponse, Observation, ProviderState
from renderbell.store import Lease, Served
from renderbell.task import ErrorCode, Status, Task, advance, set_apart
from tests.deployment import NOTIFIER, POLLER, Deployment, Said, failed, processing, succeeded
from tests.virtual import START, VirtualPool

HOOK = "https://example.com/hook"


def broken(**call: Any) -> Any:
    raise ConnectTimeoutError(endpoint_url="https://dynamodb")


def gaps(polls: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(polls)]


def all_polls(world: Deployment) -> list[float]:
    return sorted(time for polls in world.provider.polls.values() for time in polls)


def lease_of(world: Deployment) -> Lease:
    lease = world.store.lease(0)
    assert lease is not None
    return lease


def seconds(time: datetime) -> float:
    return (time - START).total_seconds()


def dead_holder(world: Deployment, until_s: float) -> None:
    """A poller that took the lease at the start and has died."""
    until = START + timedelta(seconds=until_s)
    world.store.take_lease(Lease(0, "dead", until, relief=False, served=Served(START), workers=1, slots=4), seen=None)


def take_apart(world: Deployment, task_id: str) -> None:
    """Another poller writes that it asks a task apart from the others, and does not come to it."""
    task = world.task(task_id)
    world.store.save(task, set_apart(task, world.clock()))


class TestATask:
    def test_is_polled_at_once_when_it_is_registered(self) -> None:
        world = Deployment()
        task = world.register(processing(), at_s=1)
        world.run(5)
        assert world.polls(task)[0] < 2

    def test_is_polled_at_its_interval_over_many_ticks(self) -> None:
        world = Deployment()
        task = world.register(processing())
        world.tick_every_minute(until_s=600)
        world.run(600)
        assert len(world.polls(task)) >= 59
        assert max(gaps(world.polls(task))) <= 10 + 6
        assert world.task(task).status is Status.PROCESSING

    def test_goes_through_its_life_to_the_verified_webhook(self) -> None:
        world = Deployment()
        task = world.register(processing(), succeeded(from_s=45), webhooks=[HOOK], metadata={"order": "1"})
        world.tick_every_minute(until_s=120)
        world.run(120)
        done = world.task(task)
        assert [line.target for line in done.history] == [
            Status.QUEUED,
            Status.PROCESSING,
            Status.COPYING,
            Status.COMPLETED,
        ]
        assert [one.data["type"] for one in world.messages(task)] == ["task.completed"]
        assert world.messages(task)[0].data["data"]["metadata"] == {"order": "1"}
        assert done.files[0].key in world.archive.objects

    def test_that_fails_at_the_provider_is_told_of(self) -> None:
        world = Deployment()
        task = world.register(failed(), webhooks=[HOOK])
        world.run(10)
        assert world.task(task).status is Status.FAILED
        assert [one.data["type"] for one in world.messages(task)] == ["task.failed"]

    def test_tells_of_processing_only_on_request(self) -> None:
        world = Deployment()
        quiet = world.register(processing(), webhooks=[HOOK])
        loud = world.register(processing(), webhooks=[HOOK], events=["task.processing", "task.completed"])
        world.run(10)
        assert world.messages(quiet) == []
        assert [one.data["type"] for one in world.messages(loud)] == ["task.processing"]
        assert world.messages(loud)[0].data["data"]["status"] == "PROCESSING"

    def test_that_its_provider_does_not_know_is_lost_after_two_minutes(self) -> None:
        world = Deployment()
        task = world.register(Said(0, ProviderTaskNotFound("unknown")), webhooks=[HOOK])
        world.tick_every_minute(until_s=200)
        world.run(200)
        done = world.task(task)
        assert done.error is not None
        assert done.error.code == "provider_task_lost"
        assert 120 <= (done.history[-1].at - START).total_seconds() <= 130
        assert len(world.polls(task)) == 3

    def test_that_is_unknown_for_a_moment_goes_on(self) -> None:
        world = Deployment()
        task = world.register(Said(0, ProviderTaskNotFound("unknown")), processing(from_s=30), webhooks=[HOOK])
        world.tick_every_minute(until_s=200)
        world.run(200)
        assert world.task(task).status is Status.PROCESSING
        assert max(gaps(world.polls(task))[1:]) <= 16

    def test_that_changes_nothing_writes_nothing(self) -> None:
        world = Deployment()
        task = world.register(processing())
        world.tick_every_minute(until_s=300)
        world.run(30)
        before = world.task(task)
        world.run(300)
        assert world.task(task) == before
        assert len(world.polls(task)) > 25

    def test_expires_after_one_last_poll(self) -> None:
        world = Deployment()
        task = world.register(processing(), webhooks=[HOOK], deadline_s=65)
        world.tick_every_minute(until_s=200)
        world.run(200)
        assert world.task(task).status is Status.EXPIRED
        assert world.polls(task)[-1] == pytest.approx(65, abs=6)
        assert [one.data["type"] for one in world.messages(task)] == ["task.expired"]

    def test_expires_although_its_provider_is_dead(self) -> None:
        world = Deployment()
        task = world.register(Said(0, ProviderUnavailable("dead")), deadline_s=65)
        world.tick_every_minute(until_s=300)
        world.run(300)
        done = world.task(task)
        assert done.status is Status.EXPIRED
        assert 125 <= (done.history[-1].at - START).total_seconds() <= 140

    def test_is_asked_a_last_time_at_its_deadline_and_not_at_its_interval(self) -> None:
        world = Deployment()
        world.connect("slow", poll_interval_s=300)
        world.register(processing())  # keeps one tick busy all the while
        task = world.register(processing(), connection="slow", deadline_s=65)
        world.run(80)
        assert world.polls(task) == [pytest.approx(0, abs=0.5), pytest.approx(65, abs=0.5)]
        assert seconds(world.task(task).history[-1].at) <= 67

    @pytest.mark.parametrize("other", [ProviderProtocolError("HTML", raw="<html>"), ProviderUnavailable("500")])
    def test_in_doubt_that_then_brings_another_fault_is_asked_at_its_interval(self, other: Exception) -> None:
        world = Deployment()
        task = world.register(Said(0, ProviderTaskNotFound("unknown")), Said(30, other))
        world.tick_every_minute(until_s=180)
        world.run(180)
        assert 10 <= len(world.polls(task)) <= 14
        assert world.task(task).status is Status.QUEUED

    def test_that_another_has_moved_on_is_asked_no_more(self) -> None:
        world = Deployment()
        task = world.register(processing())
        world.tick_every_minute(until_s=60)
        world.run(20)
        seen = world.task(task)
        done = Observation(ProviderState.SUCCEEDED, videos=("https://cdn.example.com/v.mp4",))
        world.store.save(seen, advance(seen, done, world.world.now()))
        world.run(60)
        assert max(world.polls(task)) <= 20 + 3, "the next look shows it"

    def test_whose_answers_cannot_be_saved_does_not_stand_for_its_connection(self) -> None:
        world = Deployment()

        def save(*_: object, **__: object) -> Task:
            raise RuntimeError("the table cannot be written")

        world.store.save = save  # type: ignore[method-assign]
        for number in range(10):
            world.register(processing(), at_s=0.1 * number)
        world.tick_every_minute(until_s=60)
        world.run(60)
        assert world.store.connection_health("studio") is None

    def test_in_doubt_whose_answers_cannot_be_saved_is_asked_at_its_interval(self) -> None:
        world = Deployment()
        task = world.register(Said(0, ProviderTaskNotFound("unknown")))
        world.run(30)

        def save(*_: object, **__: object) -> Task:
            raise RuntimeError("throttled")

        world.store.save = save  # type: ignore[method-assign]
        world.tick_at(31)
        world.run(150)
        unsaved = [poll for poll in world.polls(task) if poll > 60.5]
        assert len(unsaved) >= 3
        assert min(gaps(unsaved)) > 8

    def test_of_a_connection_that_was_removed_is_kept_and_shows_why(self) -> None:
        world = Deployment()
        task = world.register(processing(), at_s=0)
        world.world.at(START + timedelta(seconds=15), world.connections.clear)
        world.tick_every_minute(until_s=200)
        world.run(200)
        kept = world.task(task)
        assert kept.status is Status.PROCESSING
        assert kept.last_poll_error is not None
        assert kept.last_poll_error.kind == "auth"


class WarmProcess(Deployment):
    """All ticks run in one process, which keeps what it has read of Parameter Store."""

    def __init__(self, reads_after_s: float | None = None) -> None:
        super().__init__(one_process=True)
        self.parameters: dict[str, str] = {}
        self.hosts: list[str] = []  # that were asked
        self.save("studio")
        self._known = Connections(
            lambda: dict(self.parameters),
            lambda: seconds(self.clock()),
            spawn=lambda read: read() if reads_after_s is None else self.world.spawn(read, delay_s=reads_after_s),
        )

    def save(self, name: str, host: str = "studio") -> None:
        account = {"type": "jimmy", "base_url": f"https://{host}.example.com", "poll_interval_s": 300}
        self.parameters[name] = json.dumps(account)

    def configured(self) -> Connections:
        return self._known

    def poller(self, pool: VirtualPool | None = None) -> Poller:
        return replace(super().poller(pool), fetch=self._fetch)

    def _fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        self.hosts.append(request.url.split("/")[2])
        return self.provider.fetch(connection, request, timeout_s)


class TestAWarmProcess:
    @pytest.mark.parametrize("after_s", [7, 30, 59, 61, 250])
    def test_knows_a_connection_that_was_saved_since_at_its_first_poll(self, after_s: float) -> None:
        world = WarmProcess()
        world.register(processing(), at_s=0)
        world.tick_every_minute(until_s=400)
        world.world.at(START + timedelta(seconds=after_s - 1), lambda: world.save("late"))
        world.connect("late", poll_interval_s=300)
        task = world.register(succeeded(), connection="late", at_s=after_s)
        world.run(after_s + 4)
        assert world.polls(task)
        assert world.task(task).last_poll_error is None

    def test_asks_a_connection_that_was_changed_while_it_idled_as_it_is_now(self) -> None:
        world = WarmProcess(reads_after_s=2)
        world.register(succeeded(), at_s=0)
        world.tick_every_minute(until_s=400)
        world.world.at(START + timedelta(seconds=20), lambda: world.save("studio", host="moved"))
        world.register(succeeded(), at_s=185)
        world.run(190)
        assert world.hosts == ["studio.example.com", "moved.example.com"]


class TestMomentsThatFollowFromLengths:
    def world(self, *lengths_s: float) -> Deployment:
        world = Deployment()
        world.connections.clear()
        world.connect("studio", poll_interval_s=10, poll_least_s=5, poll_most_s=80)
        known = Lengths()
        for length_s in lengths_s * 30:
            known = known.added(length_s)
        if lengths_s:
            world.store.keep_task_lengths(0, "studio", known, START)
        return world

    def test_are_few_and_find_the_end_soon_over_many_ticks(self) -> None:
        world = self.world(595, 600, 605)
        task = world.register(processing(), succeeded(600), at_s=1)
        world.tick_every_minute(until_s=700)
        world.run(700)
        polls = world.polls(task)
        assert polls[-1] - 600 <= 6
        assert len([poll for poll in polls if poll < 560]) <= 12, "as against 56 at the usual interval"
        assert max(gaps(polls)) <= 81

    def test_are_the_usual_ones_while_little_is_known(self) -> None:
        world = self.world()
        task = world.register(processing(), succeeded(200), at_s=1)
        world.tick_every_minute(until_s=300)
        world.run(300)
        settled = [poll for poll in world.polls(task) if poll > 10]  # the first tick takes a new task for unknown
        assert {round(gap) for gap in gaps(settled)} == {10}

    def test_learn_from_each_end_and_go_on_with_that_in_the_next_tick(self) -> None:
        world = self.world()
        tasks = [world.register(processing(), succeeded(n * 4 + 100), at_s=1 + n * 4) for n in range(40)]
        world.tick_every_minute(until_s=400)
        world.run(400)
        kept = world.store.task_lengths(0, ["studio"])["studio"]
        assert sum(kept.weights.values()) == 40 * 4
        assert 90 < kept.longest_s < 120
        first, last = world.polls(tasks[0]), world.polls(tasks[-1])
        assert len(last) < len(first)

    @pytest.mark.parametrize(
        "weights",
        [None, {"S": "x"}, {"M": {"x": {"N": "4"}}}, {"M": {"1000000": {"N": "100"}}}, {"M": {"9": {"N": "-100"}}}],
    )
    def test_begin_anew_where_what_was_kept_makes_no_sense_and_spoil_no_other_connections(
        self, weights: dict[str, object] | None
    ) -> None:
        """A weight of the millionth bin ended every tick of the poller."""
        world = self.world(600)
        world.connect("odd", poll_interval_s=10, poll_least_s=5, poll_most_s=80)
        item = {"pk": {"S": "CONNECTION#odd"}, "sk": {"S": "LENGTHS#0"}}
        world.table.put_item(TableName="table", Item=item if weights is None else item | {"weights": weights})
        task = world.register(processing(), succeeded(100), connection="odd", at_s=1)
        other = world.register(processing(), at_s=1)
        world.tick_every_minute(until_s=200)
        world.run(200)
        assert world.task(task).status is Status.COMPLETED
        assert max(gaps(world.polls(other))) >= 70
        assert sum(world.store.task_lengths(0, ["odd"])["odd"].weights.values()) == 4

    def test_learn_nothing_from_tasks_that_are_refused_in_an_answer_of_success(self) -> None:
        """Such an answer is no fault of the connection's, and was taken for a task's end by its provider."""
        world = self.world()
        task = world.register(processing(), Said(30, b'{"code": 20002, "msg": "no such video"}'), at_s=1)
        world.tick_every_minute(until_s=400)
        world.run(400)
        refused = world.task(task)
        assert refused.error is not None
        assert refused.error.code is ErrorCode.PROVIDER_REJECTED
        assert world.store.task_lengths(0, ["studio"]) == {}

    def test_are_the_usual_ones_while_lengths_cannot_be_read_and_nothing_is_lost(self) -> None:
        world = self.world(600)
        kept = world.store.task_lengths(0, ["studio"])
        read = world.store.task_lengths

        def task_lengths(worker: int, connections: Iterable[str]) -> dict[str, Lengths]:
            raise RuntimeError("throttled")

        world.store.task_lengths = task_lengths  # type: ignore[method-assign]
        task = world.register(processing(), succeeded(100), at_s=1)
        world.tick_every_minute(until_s=200)
        world.run(200)
        assert world.task(task).status is Status.COMPLETED
        assert max(gaps(world.polls(task))) <= 10.5
        assert read(0, ["studio"]) == kept

    def test_that_cannot_be_written_hold_up_nobody(self) -> None:
        world = self.world()

        def keep_task_lengths(worker: int, connection: str, lengths: Lengths, now: datetime) -> None:
            raise RuntimeError("throttled")

        world.store.keep_task_lengths = keep_task_lengths  # type: ignore[method-assign]
        tasks = [world.register(processing(), succeeded(30 + 90 * n), at_s=1 + 90 * n) for n in range(2)]
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert {world.task(task).status for task in tasks} == {Status.COMPLETED}


class TestATick:
    def test_with_nothing_due_takes_no_lease_and_writes_nothing(self) -> None:
        world = Deployment()
        world.tick_every_minute(until_s=180)
        world.run(180)
        assert world.table.items() == []

    def test_finds_a_task_whose_wake_up_was_lost(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing(), at_s=10)
        world.tick_every_minute(until_s=120, first_s=5)
        world.run(120)
        assert world.polls(task)[0] == pytest.approx(65, abs=1)

    def test_leaves_when_nothing_is_left_before_the_next_minute(self) -> None:
        world = Deployment()
        world.connect("slow", poll_interval_s=300)
        world.register(processing(), connection="slow", at_s=1)
        world.run(30)
        lease = world.store.lease(world.task("tsk_" + "1".zfill(26)).slot % 1)
        assert lease is not None
        assert lease.until <= START + timedelta(seconds=3)

    def test_polls_a_slow_task_exactly_once_an_interval_over_many_ticks(self) -> None:
        world = Deployment()
        world.connect("slow", poll_interval_s=60)
        task = world.register(processing(), connection="slow", at_s=1)
        world.tick_every_minute(until_s=900)
        world.run(900)
        polls = world.polls(task)
        assert max(gaps(polls)) <= 66
        assert len(polls) <= 17

    def test_hands_over_to_the_next_without_a_gap_or_a_double_poll(self) -> None:
        world = Deployment()
        tasks = [world.register(processing(), at_s=0.1 * number) for number in range(30)]
        world.tick_every_minute(until_s=400)
        world.run(400)
        for task in tasks:
            polls = world.polls(task)
            assert max(gaps(polls)) <= 16
            # A task younger than the index's lag is asked once more by whoever takes over; then the grid rules.
            assert min(gaps([poll for poll in polls if poll > 25])) >= 4
            assert len(polls) <= 43

    def test_takes_over_from_one_that_died(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing())
        dead = Lease(0, "dead", START + timedelta(seconds=44), relief=False, served=Served(START), workers=1, slots=4)
        world.store.take_lease(dead, seen=None)
        world.tick_every_minute(until_s=120)
        world.run(120)
        assert 44 <= world.polls(task)[0] <= 46

    def test_serves_what_an_earlier_one_has_missed_once(self) -> None:
        world = Deployment()
        world.wakes = False
        tasks = [world.register(processing(), at_s=0.3 * number) for number in range(30)]
        world.tick_at(10)
        world.tick_at(400)  # the first one's tick ended at 180
        world.run(430)
        for task in tasks:
            polls = world.polls(task)
            assert not [poll for poll in polls if 181 < poll < 399]
            late = [poll for poll in polls if poll >= 399]
            assert late[0] == pytest.approx(400, abs=1), "what was missed is asked at once"
            assert late[1] <= 411, "and then its next moment"
            assert min(gaps(late[1:])) > 9.5, "and nothing twice"

    def test_finds_a_task_registered_while_it_holds_the_lease(self) -> None:
        world = Deployment()
        world.register(processing(), at_s=1)
        second = world.register(processing(), at_s=20)
        world.tick_every_minute(until_s=60)
        world.run(60)
        assert world.polls(second)[0] <= 20 + 4
        assert [name for name, _ in world.invocations].count(POLLER) == 1

    def test_finds_a_task_registered_just_as_it_leaves(self) -> None:
        world = Deployment()
        world.connect("slow", poll_interval_s=300)
        world.register(processing(), connection="slow", at_s=1)
        # The first task's tick releases about 1.3 s after the start; a registration that still saw the lease held
        # invokes nobody.
        world.wakes = True
        late = world.register(processing(), connection="slow", at_s=1.2)
        world.run(60)
        assert world.polls(late)[0] <= 8

    def test_copies_that_were_never_begun_are_begun_by_the_net(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        world.loses = [NOTIFIER]
        world.tick_every_minute(until_s=200)
        world.run(200)
        assert world.loses == []
        assert world.task(task).status is Status.COMPLETED
        assert len(world.messages(task)) == 1

    def test_three_workers_share_the_slots(self) -> None:
        world = Deployment(workers=3, slots=16)
        world.wakes = False
        tasks = [world.register(processing(), at_s=0.01 * number) for number in range(60)]
        world.tick_every_minute(until_s=300)
        world.run(300)
        for task in tasks:
            assert max(gaps(world.polls(task))) <= 16
        assert {item["pk"]["S"] for item in world.table.items() if item["pk"]["S"].startswith("LEASE#")} == {
            "LEASE#0",
            "LEASE#1",
            "LEASE#2",
        }

    def test_all_tasks_are_polled_at_once_when_the_workers_have_changed(self) -> None:
        world = Deployment(workers=1, slots=16)
        tasks = [world.register(processing(), at_s=0.01 * number) for number in range(20)]
        world.connect("studio", poll_interval_s=300)
        world.tick_every_minute(until_s=70)
        world.run(70)
        world.settings = type(world.settings)(2, 16, 64)
        world.world.spawn(lambda: world._fire({}))
        world.run(130)
        assert all(any(70 <= poll <= 80 for poll in world.polls(task)) for task in tasks)

    def test_that_was_woken_reads_its_task_by_key(self) -> None:
        world = Deployment(index_lag_s=4)
        task = world.register(processing(), at_s=1)
        world.run(3)
        assert world.polls(task) == [pytest.approx(1.05, abs=0.1)]

    def test_finds_what_an_index_shows_late(self) -> None:
        world = Deployment(index_lag_s=10)
        world.register(processing(), at_s=0)
        late = world.register(processing(), at_s=20)
        world.run(60)
        assert world.polls(late)[0] <= 20 + 10 + 3.2

    def test_never_reads_the_whole_set_again(self) -> None:
        world = Deployment()
        world.wakes = False
        for number in range(100):
            world.register(processing(), at_s=0.01 * number)
        world.tick_at(5)
        world.run(170)
        assert sum(shown for at_s, shown in world.table.looks if at_s < 6) >= 100
        assert sum(shown for at_s, shown in world.table.looks if at_s > 20) == 0
        assert len([at_s for at_s, _ in world.table.looks if at_s > 20]) >= 150 / 3.5 * 4

    def test_does_not_poll_what_an_index_still_shows_after_its_end(self) -> None:
        world = Deployment(index_lag_s=10)
        world.register(processing())
        ended = [world.register(processing(), failed(from_s=1), at_s=1 + 0.1 * number) for number in range(10)]
        world.run(40)
        for task in ended:
            assert world.task(task).status is Status.FAILED
            assert len(world.polls(task)) == 1

    def test_looks_again_once_it_has_waited_for_the_lease(self) -> None:
        world = Deployment()
        world.wakes = False
        kept, cancelled = world.register(processing()), world.register(processing())
        dead_holder(world, until_s=44)
        world.tick_at(5)
        world.cancel(cancelled, at_s=20)
        world.run(100)
        assert 44 <= world.polls(kept)[0] <= 46
        assert world.polls(cancelled) == []

    @pytest.mark.parametrize("second_s", [60.5, 61.5, 62.5, 63.5])
    def test_of_many_tasks_leaves_none_unasked_while_it_looks(self, second_s: float) -> None:
        world = Deployment(many_tasks=20)
        world.wakes = False
        tasks = [world.register(processing(), at_s=0.001 * number) for number in range(400)]
        world.table.item_s = 0.01
        world.tick_at(1)
        world.tick_at(second_s)  # the other looks at its lease every 3 s
        world.run(130)
        polls = sorted(poll for task in tasks for poll in world.polls(task) if poll > 20)
        assert max(gaps(polls)) < 2.5, "a whole look takes 4 s"
        assert all(max(gaps(world.polls(task))) < 13 for task in tasks)

    def test_of_many_tasks_forgets_what_has_ended_while_it_waited(self) -> None:
        world = Deployment(many_tasks=1)
        world.wakes = False
        world.connect("slow", poll_interval_s=30)
        ended = [world.register(processing(), connection="slow", at_s=0.01 * number) for number in range(10)]
        kept = [world.register(processing(), at_s=0.01 * number) for number in range(100)]  # none leaves early
        world.tick_at(1)
        world.tick_at(61)
        for task in ended:
            world.cancel(task, at_s=61.05)  # after it has looked, and before the other has left
        world.run(110)
        assert all(max(gaps(world.polls(task))) < 13 for task in kept)
        assert [poll for task in ended for poll in world.polls(task) if poll > 66] == []

    def test_that_cannot_look_asks_nobody_to_leave(self) -> None:
        world = Deployment(many_tasks=1)
        world.wakes = False
        tasks = [world.register(processing(), at_s=0.01 * number) for number in range(100)]
        world.tick_at(1)
        world.tick_at(50)
        world.run(49.9)
        query = world.table.query
        world.table.query = broken  # type: ignore[method-assign]
        with pytest.raises(ConnectTimeoutError):
            world.run(50.1)
        world.world.broken.clear()
        world.table.query = query  # type: ignore[method-assign]
        world.run(110)
        assert [began_s for began_s, _ in world.ticks] == [50], "the other polls on"
        assert all(max(gaps(world.polls(task))) < 13 for task in tasks)

    def test_that_is_woken_reads_no_slot_while_another_polls(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing())
        world.tick_at(1)
        world.run(20.5)
        before = len(world.table.looks)
        world.start(POLLER, lambda: world._fire({"worker": 0, "task_id": task}), delay_s=0)
        world.run(20.8)
        assert len(world.table.looks) == before

    def test_that_takes_over_a_task_waits_for_the_index_to_show_it(self) -> None:
        world = Deployment(index_lag_s=12)
        task = world.register(processing())  # the poller that it wakes knows it by its name
        world.tick_at(1)
        world.run(50)
        assert world.polls(task)[-1] > 38
        assert max(gaps(world.polls(task))) < 13

    def test_finds_all_that_is_registered_around_a_hand_over_however_late_the_index(self) -> None:
        world = Deployment(index_lag_s=6)
        world.connect("slow", poll_interval_s=300)
        world.register(processing())  # keeps the lease held
        times = [50 + 0.25 * number for number in range(100)]
        tasks = [world.register(processing(), connection="slow", at_s=at_s) for at_s in times]
        world.tick_every_minute(until_s=130)
        world.run(130)
        for task, at_s in zip(tasks, times, strict=True):
            assert world.polls(task)[0] <= at_s + 6 + 3.5

    def test_finds_what_was_registered_while_the_one_before_could_not_look(self) -> None:
        world = Deployment()
        world.connect("slow", poll_interval_s=300)
        world.register(processing(), at_s=1)
        late = world.register(processing(), connection="slow", at_s=20)
        due = world.store.due

        def broken(slot: int, until: datetime, after: datetime | None = None) -> list[Found]:
            if 18 < world.now_s < 64.9:
                raise RuntimeError("the index is throttled")
            return list(due(slot, until, after))

        world.store.due = broken  # type: ignore[assignment, method-assign]
        world.tick_every_minute(until_s=400)
        world.run(120)
        assert 64 < world.polls(late)[0] <= 70

    def test_takes_over_what_was_in_flight_when_its_holder_died(self) -> None:
        world = Deployment()
        world.connect("studio", poll_interval_s=120)
        tasks = [world.register(processing(latency_s=9), at_s=0.01 * number) for number in range(60)]
        world.run(89)
        before = lease_of(world).until
        while lease_of(world).until == before:
            world.run(world.now_s + 0.1)
        died_s = world.now_s
        in_flight = [task for task in tasks if died_s - 9 < world.polls(task)[-1] < died_s]
        answered = [task for task in tasks if 30 < world.polls(task)[-1] < died_s - 20]
        assert in_flight
        assert answered
        world.kill_everything()
        world.tick_every_minute(until_s=200, first_s=died_s + 10)
        world.run(died_s + 60)
        for task in in_flight:
            assert any(died_s + 44 <= poll <= died_s + 48 for poll in world.polls(task)), "as nobody kept the answer"
        for task in answered:
            assert min(gaps(world.polls(task))[1:], default=120) > 118, "what was answered is not asked twice"

    def test_hands_over_a_connection_that_lags_by_its_own_time(self) -> None:
        world = Deployment()
        world.connect("slow", poll_interval_s=300, max_concurrency=1)
        world.connect("studio", poll_interval_s=60)
        slow = [world.register(processing(latency_s=5), connection="slow", at_s=0.01 * number) for number in range(40)]
        good = [world.register(processing(), at_s=0.5 + 0.01 * number) for number in range(20)]
        world.tick_every_minute(until_s=280)
        world.run(280)
        for task in slow:
            assert world.polls(task)[0] <= 40 * 6 + 20, "what was missed is asked in its turn"
        for task in good:
            # Its first moment and the grid's; whoever takes over asks none of them again.
            assert min(gaps([poll for poll in world.polls(task) if poll > 8])) > 55

    def test_that_was_woken_goes_away_when_the_lease_is_held(self) -> None:
        world = Deployment()
        task = world.register(processing(), at_s=1)
        world.run(20)
        holder = lease_of(world).holder
        world.invoke(POLLER, {"worker": 0, "task_id": task})
        world.run(30)
        assert (lease_of(world).holder, lease_of(world).relief) == (holder, False)
        assert [round(ended) for began, ended in world.ticks if began > 10] == [20]

    def test_goes_away_when_another_took_the_lease_before_it(self) -> None:
        world = Deployment()
        world.wakes = False
        world.register(processing())
        dead_holder(world, until_s=44)
        world.tick_at(5)
        world.tick_at(5.5)
        world.run(50)
        ((began, ended),) = world.ticks
        assert (began in {5, 5.5}, 44 <= ended <= 47) == (True, True)
        assert lease_of(world).until > world.world.now(), "the other one polls"
        assert lease_of(world).relief is False

    def test_stops_when_its_lease_has_lapsed(self) -> None:
        world = Deployment()
        world.connect("studio", poll_interval_s=2)
        world.register(processing())

        def keep(lease: Lease) -> bool:
            raise RuntimeError("throttled")

        world.store.keep_lease = keep  # type: ignore[method-assign]
        world.run(200)
        assert 40 <= all_polls(world)[-1] <= 45.1
        assert [round(ended) for _, ended in world.ticks] == [45]

    def test_stops_when_another_holds_its_lease(self) -> None:
        world = Deployment()
        world.register(processing())
        world.run(10)
        seen = lease_of(world)
        thief = Lease(0, "thief", START + timedelta(seconds=300), False, Served(), 1, 4)
        assert world.store.take_lease(thief, seen=seen)
        world.run(60)
        assert all_polls(world)[-1] <= 13.5
        assert lease_of(world) == thief

    def test_names_whom_it_asks_in_its_lease_after_two_that_died(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing(latency_s=2))
        died = Lease(0, "dead", START, relief=False, served=Served(START), workers=1, slots=4, deaths=1)
        world.store.take_lease(died, seen=None)
        world.tick_at(5)
        world.run(6)
        assert lease_of(world).deaths == 2
        assert lease_of(world).suspects == {task: 1}
        world.run(9)
        assert world.task(task).status is Status.PROCESSING
        assert lease_of(world).suspects == {}, "it has answered, so nobody died of it"

    def test_names_nobody_after_one_that_died(self) -> None:
        world = Deployment()
        world.wakes = False
        world.register(processing(latency_s=2))
        world.store.take_lease(Lease(0, "dead", START, False, Served(START), 1, 4, deaths=0), seen=None)
        world.tick_at(5)
        world.run(6)
        assert (lease_of(world).deaths, lease_of(world).suspects) == (1, {})

    def test_asks_nobody_while_it_cannot_name_them(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing())
        world.store.take_lease(Lease(0, "dead", START, False, Served(START), 1, 4, deaths=1), seen=None)
        keep, refused = world.store.keep_lease, [True]

        def failing(lease: Lease) -> bool:
            if refused[0]:
                raise RuntimeError("throttled")
            return keep(lease)

        world.store.keep_lease = failing  # type: ignore[method-assign]
        world.tick_at(5)
        world.run(20)
        assert world.polls(task) == []
        refused[0] = False
        world.run(23)
        assert len(world.polls(task)) == 1

    def test_leaves_those_whom_it_could_not_name_to_the_next(self) -> None:
        world = Deployment()
        world.wakes = False
        world.connect("slow", poll_interval_s=300)
        task = world.register(processing(), connection="slow")
        world.store.take_lease(Lease(0, "dead", START, False, Served(START), 1, 4, deaths=1), seen=None)
        keep = world.store.keep_lease

        def failing(lease: Lease) -> bool:
            if not lease.left:
                raise RuntimeError("throttled")
            return keep(lease)

        world.store.keep_lease = failing  # type: ignore[method-assign]
        world.tick_at(40)
        world.tick_at(70)
        world.run(80)
        (asked,) = world.polls(task)
        assert 70 <= asked < 75

    def test_suspects_nobody_whom_it_has_asked_when_it_leaves(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing(latency_s=9))
        world.store.take_lease(Lease(0, "dead", START, False, Served(START), 1, 4, deaths=1), seen=None)
        world.tick_at(20)
        world.tick_at(22)
        world.run(26)
        assert len(world.polls(task)) == 1
        assert lease_of(world).holder != "dead"
        assert lease_of(world).suspects == {}, "it still lives and will save what it is answered"

    def test_asks_no_suspect_whom_another_is_asking(self) -> None:
        world = Deployment(index_lag_s=10)
        world.wakes = False
        task = world.register(processing())
        world.run(20)
        died = Lease(0, "dead", START, False, Served(START), 1, 4, suspects={task: 1})
        world.store.take_lease(died, seen=None)
        world.tick_at(25)
        world.world.at(START + timedelta(seconds=24), lambda: take_apart(world, task))
        world.run(50)
        assert world.polls(task) == []
        world.tick_at(90)
        world.run(100)
        assert len(world.polls(task)) == 1

    def test_has_no_time_for_suspects_at_its_very_end(self) -> None:
        world = Deployment()
        world.wakes = False
        world.connect("often", poll_interval_s=3)
        suspect, _ = world.register(processing()), world.register(processing(), connection="often")
        died = Lease(0, "dead", START, False, Served(START), 1, 4, suspects={suspect: 1})
        world.store.take_lease(died, seen=None)
        world.tick_at(5)
        world.run(200)
        assert world.polls(suspect) == []
        assert not world.task(suspect).apart, "it is not put off in vain"
        world.tick_at(210)
        world.tick_at(220)
        world.run(240)
        assert len(world.polls(suspect)) >= 1

    @pytest.mark.parametrize(("rate", "tasks", "interval_s"), [(0.2, 60, 10), (1, 300, 30), (0.05, 20, 60)])
    def test_goes_on_in_turn_where_a_rate_allows_few_of_many(self, rate: float, tasks: int, interval_s: float) -> None:
        world = Deployment()
        world.connect("slow", max_polls_per_s=rate, poll_interval_s=interval_s)
        made = [world.register(processing(), connection="slow", at_s=0.1 * number) for number in range(tasks)]
        world.tick_every_minute(until_s=1800)
        world.run(1800)
        round_s = tasks / rate
        for task in made:
            late = [poll for poll in world.polls(task) if poll > round_s + 60]
            assert max(gaps([round_s + 60, *late, 1800])) <= round_s + 1 / rate

    def test_keeps_a_slow_connections_next_poll_for_a_suspect_and_waits_for_it_idly(self) -> None:
        world = Deployment()
        world.wakes = False
        world.connect("slow", max_polls_per_s=0.02)
        suspect, other = (world.register(processing(), connection="slow") for _ in range(2))
        died = Lease(0, "dead", START, False, Served(START), 1, 4, suspects={suspect: 1})
        world.store.take_lease(died, seen=None)
        world.tick_every_minute(until_s=300, first_s=5)
        world.run(300)
        assert 60 < world.polls(suspect)[0] < world.polls(other)[0]
        asked = sorted(world.polls(suspect) + world.polls(other))
        assert min(gaps(asked)) > 49

    def test_polls_nobody_after_it_was_relieved(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(processing())
        world.store.take_lease(Lease(0, "dead", START, False, Served(START), 1, 4, deaths=1), seen=None)
        keep = world.store.keep_lease

        def slow(lease: Lease) -> bool:
            world.world.sleep(0 if lease.left else 8)  # the lease names the task when its successor already waits
            return keep(lease)

        world.store.keep_lease = slow  # type: ignore[method-assign]
        world.tick_at(20)
        world.tick_at(21)
        world.run(32)
        (asked,) = world.polls(task)
        assert asked > 28, "by its successor"

    def test_that_leaves_counts_no_death(self) -> None:
        world = Deployment()
        world.register(processing())
        world.tick_every_minute(until_s=180)
        world.run(150)
        assert lease_of(world).deaths == 0

    def test_ends_within_its_time_although_no_other_comes(self) -> None:
        world = Deployment()
        world.wakes = False
        world.connect("studio", poll_interval_s=3)
        script = [processing(latency_s=60), succeeded(from_s=172, latency_s=60)]  # all the time that a poll has
        tasks = [world.register(*script, at_s=0.1 * number) for number in range(40)]
        world.tick_at(5)
        world.run(300)
        ((_, ended),) = world.ticks
        assert 172 < all_polls(world)[-1] <= 5 + 170
        assert seconds(lease_of(world).until) <= 5 + 171, "released at once, whatever is still in flight"
        assert ended <= 5 + 180
        last = [task for task in tasks if world.polls(task)[-1] >= 172]
        assert last
        for task in last:
            copying = world.task(task).history[-2]
            assert copying.target is Status.COPYING
            assert seconds(copying.at) <= ended, "those in flight have saved before it ends"

    def test_ends_within_its_time_however_much_it_is_given(self) -> None:
        world = Deployment()
        world.wakes = False
        world.connect("studio", poll_interval_s=2)
        world.register(processing())
        world.world.spawn(lambda: world.poller().poll_due_tasks(0, time_limit_s=1000), delay_s=5)
        world.run(400)
        assert 160 < all_polls(world)[-1] <= 5 + 170

    def test_ends_before_the_time_that_is_left_to_it(self) -> None:
        world = Deployment()
        world.wakes = False
        world.register(processing())
        world.world.spawn(lambda: world.poller().poll_due_tasks(0, time_limit_s=30), delay_s=5)
        world.run(400)
        assert 20 < all_polls(world)[-1] <= 5 + 30

    def test_releases_although_a_renewal_came_too_late(self) -> None:
        world = Deployment()
        keep_lease, slow = world.store.keep_lease, [28.0]

        def keep(lease: Lease) -> bool:
            if slow and lease.until > world.world.now():
                world.world.sleep(slow.pop())
            return keep_lease(lease)

        world.store.keep_lease = keep  # type: ignore[method-assign]
        world.register(processing())
        late = world.register(processing(), at_s=52)  # the late renewal's lease lasts until 65
        world.run(100)
        assert world.polls(late)[0] <= 53


class TestAFaultOfOurs:
    """One process serves several ticks, as an environment of Lambda does."""

    def world(self, latency_s: float = 4.0) -> tuple[Deployment, list[str]]:
        world = Deployment(one_process=True)
        tasks = [world.register(processing(latency_s=latency_s), at_s=0.3 * number) for number in range(30)]
        return world, tasks

    def breaks(self, world: Deployment, name: str, when: Callable[..., bool]) -> list[float]:
        """Lets a call of the store fail whenever that holds; answers when it has."""
        real, failed_at = getattr(world.store, name), []

        def call(*arguments: object, **named: object) -> object:
            if when(*arguments, **named):
                failed_at.append(world.now_s)
                raise RuntimeError("DynamoDB answers 500")
            return real(*arguments, **named)

        setattr(world.store, name, call)
        return failed_at

    def test_at_a_release_breaks_neither_this_tick_nor_the_next(self) -> None:
        world, tasks = self.world()
        once: list[int] = []

        def releasing(lease: Lease) -> bool:
            if lease.until > world.world.now() or once:
                return False
            once.append(1)
            return True

        failed_at = self.breaks(world, "keep_lease", releasing)
        world.tick_every_minute(until_s=600)
        world.run(600)
        assert len(failed_at) == 1
        for task in tasks:
            assert max(gaps(world.polls(task))) <= 10 + 48, "the lease has to run out"
            assert max(gaps([poll for poll in world.polls(task) if poll > 150])) <= 16

    def test_at_the_release_of_a_tick_that_nobody_relieves_does_not_break_those_that_follow(self) -> None:
        world, tasks = self.world()
        world.wakes = False
        once: list[int] = []

        def releasing(lease: Lease) -> bool:
            if lease.until > world.world.now() or once:
                return False
            once.append(1)
            return True

        failed_at = self.breaks(world, "keep_lease", releasing)
        world.tick_at(10)
        world.tick_every_minute(until_s=900, first_s=245)
        world.run(900)
        assert failed_at == [pytest.approx(180, abs=1)]
        for task in tasks:
            assert max(gaps([poll for poll in world.polls(task) if poll > 244])) <= 16

    def test_at_looks_and_renewals_breaks_no_tick(self) -> None:
        world, tasks = self.world()
        for name in ("lease", "due", "keep_lease"):
            self.breaks(world, name, lambda *_: 70 < world.now_s < 90)
        world.tick_every_minute(until_s=400)
        world.run(400)
        for task in tasks:
            assert max(gaps(world.polls(task))) <= 16

    def test_at_the_last_look_breaks_no_tick(self) -> None:
        world = Deployment(one_process=True)
        world.connect("slow", poll_interval_s=300)
        world.register(processing(), connection="slow", at_s=1)
        failed_at = self.breaks(world, "due", lambda *_: 3 < world.now_s < 6)
        world.run(60)
        assert len(failed_at) == 1
        assert len(world.ticks) == 1

    def test_that_holds_up_saves_beyond_a_tick_s_end_confuses_no_later_one(self) -> None:
        world = Deployment(one_process=True)
        script = [processing(from_s=at_s, progress=at_s // 20, latency_s=3) for at_s in range(0, 900, 20)]
        tasks = [world.register(*script, at_s=0.1 * number) for number in range(20)]
        save, held = world.store.save, []

        def slow(before: Task, *arguments: object, **named: object) -> Task:
            if 60 < world.now_s < 66:
                held.append(before.task_id)
                world.world.sleep(140 + 0.1 * len(held) - world.now_s)
            return save(before, *arguments, **named)  # type: ignore[arg-type]

        world.store.save = slow  # type: ignore[method-assign]
        world.tick_every_minute(until_s=600)
        world.run(600)
        assert held
        for task in tasks:
            assert max(gaps([poll for poll in world.polls(task) if poll > 150])) <= 10 + 6
            assert world.task(task).progress is not None
        assert all(ended - began <= 180 for began, ended in world.ticks)


class TestADeadEndpoint:
    def test_is_told_of_every_twenty_seconds_until_all_its_deliveries_have_been_tried(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(503)]
        tasks = [world.register(failed(), webhooks=[HOOK], at_s=0.01 * number) for number in range(20)]
        world.register(processing())
        world.tick_every_minute(until_s=300)
        world.run(164)
        in_one_tick = [at_s for at_s, _ in world.told if at_s > 68]
        assert len(in_one_tick) >= 2
        assert min(gaps(in_one_tick)) > 19.5
        assert all(world.store.attempts(task) for task in tasks)


class TestAConnection:
    def test_is_asked_no_faster_than_its_rate(self) -> None:
        world = Deployment(concurrency=32)
        world.connect("limited", max_polls_per_s=2, poll_interval_s=30)
        for number in range(40):
            world.register(processing(), connection="limited", at_s=0.01 * number)
        world.tick_every_minute(until_s=120)
        world.run(120)
        times = sorted(time for polls in world.provider.polls.values() for time in polls)
        for start in range(0, 110, 5):
            assert sum(start <= time < start + 10 for time in times) <= 2 * 10 + 3

    def test_is_asked_no_faster_by_two_workers_than_by_one(self) -> None:
        world = Deployment(workers=2)
        world.connect("limited", max_polls_per_s=2, poll_interval_s=30)
        world.wakes = False
        for number in range(80):
            world.register(processing(), connection="limited", at_s=0.01 * number)
        world.tick_at(5)
        world.run(100)
        times = all_polls(world)
        for start in range(5, 90, 5):
            assert sum(start <= time < start + 10 for time in times) <= 2 * 10 + 3
        assert len(times) >= 100

    def test_is_asked_by_no_more_threads_of_two_workers_than_it_allows(self) -> None:
        world = Deployment(workers=2)
        world.connect("narrow", max_concurrency=4)
        world.wakes = False
        for number in range(40):
            world.register(processing(latency_s=3), connection="narrow", at_s=0.01 * number)
        world.tick_at(5)
        world.run(60)
        assert world.provider.most_in_flight["narrow"] == 4

    def test_keeps_its_rate_over_many_short_ticks(self) -> None:
        world = Deployment()
        world.connect("limited", poll_interval_s=600, max_polls_per_s=0.02)
        for number in range(12):
            world.register(processing(), connection="limited", at_s=10 * number)
        world.tick_every_minute(until_s=400)
        world.run(400)
        assert len(all_polls(world)) >= 7
        assert min(gaps(all_polls(world))) >= 49.9

    def test_that_cannot_be_read_is_not_asked_and_then_asked_within_its_limits(self) -> None:
        world = Deployment()
        world.wakes = False
        world.connect("narrow", poll_interval_s=60, max_polls_per_s=0.2, max_concurrency=1)
        tasks = [world.register(processing(latency_s=2), connection="narrow") for _ in range(30)]
        world.run(1)
        world.unreadable = True
        world.tick_at(5)
        world.run(20)
        assert all_polls(world) == []
        world.unreadable = False
        world.run(100)
        assert len(all_polls(world)) >= 14
        assert min(gaps(all_polls(world))) >= 4.9
        assert all(world.task(task).last_poll_error is None for task in tasks), "it was no fault of theirs"

    def test_that_cannot_be_read_for_a_while_is_asked_on_afterwards(self) -> None:
        world = Deployment()
        tasks = [world.register(processing(), at_s=0.1 * number) for number in range(5)]
        world.run(20)
        world.unreadable = True
        world.tick_every_minute(until_s=200, first_s=65)
        world.run(100)
        assert not [poll for poll in all_polls(world) if 25 < poll < 100]
        world.unreadable = False
        world.run(200)
        for task in tasks:
            assert max(gaps([poll for poll in world.polls(task) if poll > 100])) <= 16
            assert world.task(task).last_poll_error is None

    def test_that_states_faults_of_single_tasks_in_good_answers_is_asked_on(self) -> None:
        world = Deployment()
        unknown = json.dumps({"code": -1, "msg": "task does not exist"}).encode()
        for number in range(30):
            world.register(Said(0, unknown), at_s=0.01 * number)
        good = [world.register(processing(), at_s=1) for _ in range(3)]
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert all(max(gaps(world.polls(task))) <= 16 for task in good)
        assert world.store.connection_health("studio") is None

    def test_that_answers_for_bad_tasks_with_500_still_serves_the_good(self) -> None:
        world = Deployment()
        good = world.register(processing(), succeeded(from_s=600), deadline_s=7 * 86_400)
        for number in range(30):
            world.register(Said(0, 500), at_s=60 + number, deadline_s=7 * 86_400)
        world.tick_every_minute(until_s=3600)
        world.run(3600)
        assert world.task(good).status is Status.COMPLETED

    def test_with_one_dead_task_backs_off_over_many_ticks(self) -> None:
        world = Deployment()
        world.connect("studio", poll_interval_s=30)
        task = world.register(Said(0, 500))
        world.tick_every_minute(until_s=1800)
        world.run(1800)
        health = world.store.connection_health("studio")
        assert health is not None
        assert health.steps >= 8
        assert len(world.polls(task)) <= 18

    def test_that_comes_back_on_the_way_has_its_faults_forgotten(self) -> None:
        world = Deployment()
        world.connect("studio", poll_interval_s=30)
        task = world.register(Said(0, 500), processing(from_s=80))
        world.tick_every_minute(until_s=300)
        world.run(75)
        health = world.store.connection_health("studio")
        assert health is not None
        assert (health.steps, health.failures >= 2) == (0, True)
        world.run(300)
        assert world.store.connection_health("studio") is None
        assert world.task(task).status is Status.PROCESSING

    def test_is_asked_by_no_more_threads_than_it_allows(self) -> None:
        world = Deployment()
        world.connect("narrow", max_concurrency=3)
        for number in range(30):
            world.register(processing(latency_s=1.0), connection="narrow", at_s=0.01 * number)
        world.tick_every_minute(until_s=60)
        world.run(60)
        assert world.provider.most_in_flight["narrow"] == 3

    def test_that_is_dead_is_asked_by_one_probe_at_a_time(self) -> None:
        world = Deployment()
        for number in range(40):
            world.register(Said(0, ProviderUnavailable("dead"), latency_s=0.5), at_s=0.01 * number)
        world.tick_every_minute(until_s=300)
        world.run(300)
        times = sorted(time for polls in world.provider.polls.values() for time in polls)
        assert len([time for time in times if time > 60]) <= 8
        health = world.store.connection_health("studio")
        assert health is not None
        assert health.steps >= 6

    def test_that_comes_back_is_asked_as_before(self) -> None:
        world = Deployment()
        script = [Said(0, ProviderUnavailable("dead")), processing(from_s=60)]
        tasks = [world.register(*script, at_s=0.01 * number) for number in range(20)]
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert all(world.task(task).status is Status.PROCESSING for task in tasks)
        assert world.store.connection_health("studio") is None
        for task in tasks:
            assert max(gaps([poll for poll in world.polls(task) if poll > 150])) <= 16

    def test_that_is_slow_or_dead_delays_no_other(self) -> None:
        world = Deployment(concurrency=16)
        world.connect("slow")
        for number in range(100):
            world.register(processing(latency_s=9.0), connection="slow", at_s=0.001 * number)
        healthy = [world.register(processing(), at_s=20 + 0.1 * number) for number in range(20)]
        world.tick_every_minute(until_s=180)
        world.run(180)
        for task in healthy:
            assert world.polls(task)[0] <= 20 + 2 + 6
            assert max(gaps(world.polls(task))) <= 16

    @pytest.mark.parametrize(("concurrency", "slow", "tasks"), [(2, 2, 20), (8, 5, 30), (32, 18, 12)])
    def test_that_is_known_last_is_asked_though_slow_ones_fill_all_threads(
        self, concurrency: int, slow: int, tasks: int
    ) -> None:
        world = Deployment(concurrency=concurrency, slots=1)
        for lane in range(slow):
            world.connect(f"slow{lane}", poll_interval_s=5)
            for number in range(tasks):
                world.register(processing(latency_s=9.0), connection=f"slow{lane}", at_s=0.1 + 0.01 * number)
        world.connect("good", poll_interval_s=10)
        good = world.register(processing(), connection="good", at_s=20)
        world.tick_every_minute(until_s=100)
        world.run(100)
        assert world.polls(good)[0] <= 20 + 6 + 10
        assert max(gaps(world.polls(good))) <= 16 + 10

    def test_whose_rate_was_a_typing_error_is_asked_when_that_is_corrected(self) -> None:
        world = Deployment()
        world.connect("limited", max_polls_per_s=0.0005)
        tasks = [world.register(processing(), connection="limited", at_s=1) for _ in range(3)]
        world.world.at(START + timedelta(seconds=30), lambda: world.connect("limited"))
        world.tick_every_minute(until_s=180)
        world.run(180)
        for task in tasks:
            assert min(poll for poll in world.polls(task) if poll > 30) <= 30 + 60 + 16

    def test_a_single_fault_among_good_answers_is_no_outage(self) -> None:
        world = Deployment()
        world.register(Said(0, ProviderUnavailable("500")), at_s=0)
        healthy = [world.register(processing(), at_s=0.1 + 0.1 * number) for number in range(20)]
        world.tick_every_minute(until_s=180)
        world.run(180)
        assert all(max(gaps(world.polls(task))) <= 16 for task in healthy)

    def test_a_hint_to_wait_is_followed_by_all_of_its_tasks(self) -> None:
        world = Deployment()
        script = [Said(0, ProviderUnavailable("429", retry_after=40)), processing(from_s=30)]
        for number in range(5):
            world.register(*script, at_s=0.01 * number)
        world.tick_every_minute(until_s=100)
        world.run(100)
        times = sorted(time for polls in world.provider.polls.values() for time in polls)
        assert not [time for time in times if 2 < time < 40]
        assert [time for time in times if time >= 40]
