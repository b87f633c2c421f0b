"""Deliveries in virtual time: what a receiver, a dead process or a broken item does to them and to their neighbours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count, pairwise
from typing import Any, cast

import pytest

from renderbell.delivery import (
    HEALTHY,
    INTERNAL,
    INTERRUPTED,
    WELL,
    Answer,
    Attempt,
    Delivery,
    DeliveryState,
    EndpointHealth,
    ReceiverHealth,
    ReceiverState,
    judge,
)
from renderbell.endpoints import derive_secret, endpoint_id
from renderbell.schedule import WEBHOOK_RETRIES
from renderbell.seats import Seats
from renderbell.store import UnreadableItemError, task_key
from renderbell.task import Request, Webhook, cancel, delete, new_task
from renderbell.webhooks import deliveries_for, receiver_of
from tests.deployment import API, MASTER, NOTIFIER, OWNER, Deployment, Receivers, failed, processing, succeeded
from tests.fakes import captured_log
from tests.virtual import START, DiedError

HOOK, DEAD = "https://example.com/hook", "https://dead.example.com/hook"
DOWN = Answer(503)
TIMEOUT = Answer(None, "timeout", "dead.example.com did not answer within 15 s", duration_ms=15_000)
REFUSES = Answer(None, "connection", "the connection was refused", duration_ms=2)
DAY = 86_400.0


def plant(world: Deployment, number: int, url: str = HOOK, *, due_s: float = 0.0) -> str:
    """A cancelled task of whose webhook nobody knows but the index, due at a time; answers its id."""
    due = START + timedelta(seconds=due_s)
    task = new_task(
        task_id=f"tsk_{number + 1_000_000:026d}",
        owner=OWNER,
        connection="studio",
        provider="jimmy",
        provider_task_id=f"q{number}",
        now=due - timedelta(seconds=120),
        deadline_s=86_400,
        slot=number % world.settings.slots,
        tells_processing=False,
    )
    request = Request(
        task_id=task.task_id,
        owner=OWNER,
        created_at=task.created_at,
        deadline_s=86_400,
        base_url=API,
        ttl=int((START + timedelta(days=60)).timestamp()),
        webhooks=(Webhook(url, ("task.cancelled",)),),
    )
    world.store.register(task, request)
    made_at = due - timedelta(seconds=60)
    ended = cancel(task, made_at)
    world.store.save(task, ended, deliveries_for(ended, request, "task.cancelled", made_at))
    return task.task_id


def key_of(task_id: str, url: str = HOOK) -> dict[str, str]:
    return {"pk": f"TASK#{task_id}", "sk": f"DELIVERY#task.cancelled#{endpoint_id(url)}"}


def send(world: Deployment, *task_ids: str, at_s: float, url: str = HOOK) -> None:
    """Tells the notifier of the tasks' deliveries at a time, as a poller does, and lets it work."""
    world.run(at_s)
    world.invoke(NOTIFIER, {"items": [key_of(task_id, url) for task_id in task_ids]})
    world.run(at_s + 60)


def delivery_of(world: Deployment, task_id: str) -> Delivery:
    (delivery,) = world.store.deliveries(task_id)
    return delivery


def spoil(world: Deployment, key: Mapping[str, str], **attributes: Any) -> None:
    """Overwrites attributes of an item, in wire form, behind the store's back."""
    (item,) = [one for one in world.table.items() if one["pk"]["S"] == key["pk"] and one["sk"]["S"] == key["sk"]]
    world.table.put_item(TableName="table", Item=item | attributes)


def health_of(world: Deployment, url: str = HOOK) -> EndpointHealth:
    return world.store.endpoint_health(OWNER, endpoint_id(url))


def mark_failing(world: Deployment, url: str = HOOK) -> None:
    world.store.note_endpoint_health(OWNER, endpoint_id(url), HEALTHY, EndpointHealth(START), "test")


def receiver_at(world: Deployment, url: str) -> ReceiverHealth:
    return world.store.receiver_health(OWNER, receiver_of(url))


def health_writes(world: Deployment, *kinds: str) -> Callable[[], int]:
    """Counts the writes of health from now on, of endpoints unless other kinds of keys are named."""
    writes = []
    begin = kinds or ("HEALTH#",)
    world.table.watchers.append(lambda key, old, new: writes.append(key) if key[1].startswith(begin) else None)
    return lambda: len(writes)


def attempt_of(held: Delivery, answer: Answer, after: Delivery) -> Attempt:
    """The record of a claim's attempt at the start of the world."""
    return Attempt(
        task_id=held.task_id,
        event=held.event,
        endpoint_id=held.endpoint_id,
        at=START,
        number=held.tries,
        status=answer.status,
        error=answer.error,
        detail=None,
        body="",
        duration_ms=answer.duration_ms,
        manual=False,
        next_at=after.due_at,
    )


class TestAnEndpointThatFailsForDays:
    def disabled(self, world: Deployment) -> None:
        world.receivers.answers[HOOK] = [DOWN]
        for number, at_s in enumerate((0.0, 0.5 * DAY, 5 * DAY), 1):
            send(world, plant(world, number, due_s=at_s), at_s=at_s)

    def test_is_disabled_once_and_ends_the_delivery_that_failed(self) -> None:
        world = Deployment()
        written = health_writes(world)
        world.receivers.answers[HOOK] = [DOWN]
        tasks = [plant(world, number, due_s=number * DAY / 4) for number in range(24)]
        for number, task in enumerate(tasks):
            send(world, task, at_s=number * DAY / 4)
            assert health_of(world).disabled is (number >= 20)
        assert world.counts["EndpointDisabled"] == 1
        assert written() == 3, "the first failure, the one that confirms it, and the one that disables"
        states = [delivery_of(world, task).state for task in tasks]
        assert states == [DeliveryState.PENDING] * 20 + [DeliveryState.DISABLED] * 4
        listed = [item["list_sk"] for item in world.table.items() if item.get("list_pk") == {"S": listing()}]
        assert len(listed) == 4, "they can be found, to be sent again"

    def test_and_is_disabled_gets_one_attempt_at_each_new_delivery_and_no_retry(self) -> None:
        world = Deployment()
        self.disabled(world)
        task = plant(world, 9, due_s=5.1 * DAY)
        world.tick_every_minute(until_s=5.1 * DAY + 600, first_s=5.1 * DAY)
        world.run(5.1 * DAY + 600)
        assert len(world.messages(task)) == 1
        ended = delivery_of(world, task)
        assert (ended.state, ended.tries, ended.last_status) == (DeliveryState.DISABLED, 1, 503)
        assert [(one.number, one.status, one.next_at) for one in world.store.attempts(task)] == [(1, 503, None)]

    def test_is_named_in_the_log_with_the_task_that_showed_it(self) -> None:
        world = Deployment()
        with captured_log() as lines:
            self.disabled(world)
        (told,) = [line for line in lines if line["message"] == "endpoint disabled"]
        assert (told["owner"], told["endpoint_id"]) == (OWNER, endpoint_id(HOOK))
        assert delivery_of(world, told["task_id"]).state is DeliveryState.DISABLED

    def test_and_is_disabled_is_well_again_after_one_success(self) -> None:
        world = Deployment()
        self.disabled(world)
        world.receivers.answers[HOOK] = [Answer(204)]
        send(world, plant(world, 8, due_s=6 * DAY), at_s=6 * DAY)
        assert health_of(world) == HEALTHY
        world.receivers.answers[HOOK] = [DOWN]
        task = plant(world, 9, due_s=7 * DAY)
        send(world, task, at_s=7 * DAY)
        assert delivery_of(world, task).state is DeliveryState.PENDING, "it is retried"
        assert world.counts["EndpointDisabled"] == 1

    def test_for_two_invocations_at_once_is_disabled_once(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN]
        for number, at_s in enumerate((0.0, 0.5 * DAY), 1):
            send(world, plant(world, number, due_s=at_s), at_s=at_s)
        tasks = [plant(world, number, due_s=5 * DAY) for number in range(5, 15)]
        world.run(5 * DAY)
        for task in tasks:
            world.invoke(NOTIFIER, key_of(task))
        world.run(5 * DAY + 60)
        assert {delivery_of(world, task).state for task in tasks} == {DeliveryState.DISABLED}
        assert world.counts["EndpointDisabled"] == 1

    @pytest.mark.parametrize("disabled_at", [None, START - timedelta(days=1)], ids=["confirmed", "disabled"])
    def test_and_recovers_gives_up_none_of_those_sent_side_by_side(self, disabled_at: datetime | None) -> None:
        """Four of five are heard and say so before the fifth has failed."""
        world = Deployment()
        failing = EndpointHealth(START - timedelta(days=6), START - timedelta(days=5), disabled_at)
        world.store.note_endpoint_health(OWNER, endpoint_id(HOOK), HEALTHY, failing, "test")
        tasks = [plant(world, number) for number in range(5)]
        world.receivers = receivers = LateReceivers(world.world, late=f"evt_{tasks[4]}_task_cancelled")
        receivers.answers[HOOK] = [Answer(204)]
        send(world, *tasks, at_s=0)
        assert health_of(world) == HEALTHY
        fifth = delivery_of(world, tasks[4])
        assert (fifth.state, fifth.tries, fifth.last_status) == (DeliveryState.PENDING, 1, 500)
        assert world.counts["EndpointDisabled"] == 0
        send(world, tasks[4], at_s=70)
        assert delivery_of(world, tasks[4]).state is DeliveryState.DELIVERED

    def test_gives_up_each_that_fails_for_an_alarm(self) -> None:
        world = Deployment()
        with captured_log() as lines:
            self.disabled(world)
            send(world, plant(world, 9, due_s=6 * DAY), at_s=6 * DAY)
        assert world.counts["DeliveryExhausted"] == 2
        assert [line["state"] for line in lines if line["message"] == "webhook given up"] == ["disabled"] * 2

    def test_is_not_disabled_for_what_is_not_its_doing(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(None, "address_refused", refused=True)]
        for number, at_s in enumerate((0.0, 0.5 * DAY, 5 * DAY), 1):
            send(world, plant(world, number, due_s=at_s), at_s=at_s)
        assert health_of(world) == HEALTHY

    def test_but_answers_well_costs_no_write_of_its_health(self) -> None:
        world = Deployment()
        written = health_writes(world, "HEALTH#", "RECEIVER#")
        for number in range(5):
            world.register(succeeded(), webhooks=[HOOK], at_s=number)
        world.run(30)
        assert len(world.receivers.received) == 5
        assert written() == 0


class TestABacklog:
    @pytest.mark.parametrize(("failing", "number"), [(True, 1000), (False, 600)])
    def test_to_an_endpoint_that_answers_drains_within_a_minute(self, failing: bool, number: int) -> None:
        """As after an hour in which the receiver was down, or in which no notifier was started."""
        world = Deployment()
        for one in range(number):
            plant(world, one, due_s=-3600)
        if failing:
            mark_failing(world)
        world.tick_at(5)
        world.run(65)
        assert len({one.message_id for one in world.receivers.received}) == len(world.receivers.received) == number
        assert max(one.at_s for one in world.receivers.received) <= 40
        assert world.receivers.most_at_once == 5

    def test_to_a_slow_endpoint_takes_few_invocations_at_once(self) -> None:
        world = Deployment()
        world.receivers.latency_s = 5
        for number in range(150):
            plant(world, number)
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert len(world.receivers.received) == 150
        assert world.receivers.most_at_once <= 15

    def test_to_a_dead_endpoint_takes_no_more_than_its_share_over_a_hand_over(self) -> None:
        world = Deployment()
        world.receivers.answers[DEAD] = [TIMEOUT]
        world.receivers.latencies_s[DEAD] = 15
        for number in range(100):
            plant(world, number, DEAD)
        mark_failing(world, DEAD)
        world.register(processing())  # so that the poller stays
        for at_s in (5, 33, 65, 66, 125, 128, 131):  # the schedule jitters and doubles
            world.tick_at(at_s)
        world.run(250)
        told = [at_s for at_s, _ in world.told]
        assert len(told) >= 9
        assert min(later - earlier for earlier, later in pairwise(told)) >= 19.9
        assert world.receivers.most_at_once == 5


def first_attempts(
    trouble: Callable[[int], str], answer: Answer, latency_s: float, *, good: str = HOOK
) -> tuple[Deployment, list[float]]:
    """How long the first attempts of 300 tasks took beside 300 for a receiver in trouble, with 20 notifiers, sorted.

    All are done within a minute, which they are counted from, copies included; `trouble` makes the URL for each.
    """
    world = Deployment(notifiers=20)
    told = []
    for number in range(300):
        url = trouble(number)
        world.receivers.answers[url] = [answer]
        world.receivers.latencies_s[url] = latency_s
        world.register(succeeded(), webhooks=[url], at_s=number * 0.2)
        told.append(world.register(succeeded(), webhooks=[good], at_s=number * 0.2 + 0.1))
    world.tick_every_minute(until_s=61)
    world.run(95)
    done_s = {task: (world.task(task).history[1].at - START).total_seconds() for task in told}
    first = {one.data["data"]["task_id"]: one.at_s for one in reversed(world.receivers.received) if one.url == good}
    return world, sorted(first.get(task, math.inf) - done_s[task] for task in told)


class TestAReceiverInTrouble:
    """None may starve the notifier: a good one's first attempts come within 30 s of a task's end."""

    SHARED = "https://dead.example.com/good"
    KINDS: Mapping[str, tuple[Callable[[int], str], Answer, float, str]] = {
        "a dead endpoint": (lambda number: DEAD, TIMEOUT, 15, HOOK),
        "a dead receiver with a URL for each task": (lambda number: f"{DEAD}?task={number}", TIMEOUT, 15, HOOK),
        "a receiver that answers 200 after 14 s": (lambda number: DEAD, Answer(200), 14, HOOK),
        "the same with a URL for each task": (lambda number: f"{DEAD}?task={number}", Answer(200), 14, HOOK),
        "a receiver that says 500 at a URL for each task": (lambda number: f"{DEAD}?{number}", Answer(500), 0.1, HOOK),
        "a dead endpoint of the same host": (lambda number: DEAD, TIMEOUT, 15, SHARED),
        "an endpoint of the same host that answers 200 after 14 s": (lambda number: DEAD, Answer(200), 14, SHARED),
        "an endpoint of the same host that says 500": (lambda number: DEAD, Answer(500), 0.1, SHARED),
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_leaves_a_good_one_s_first_attempts_in_time(self, kind: str, measured: Callable[[str], None]) -> None:
        trouble, answer, latency_s, good = self.KINDS[kind]
        world, waits = first_attempts(trouble, answer, latency_s, good=good)
        measured(f"a good endpoint beside {kind}: first attempts p99 {waits[296]:.1f} s, worst {waits[-1]:.1f} s")
        assert waits[-1] <= 30
        assert world.aged_out == 0

    def test_with_a_url_for_each_task_is_left_to_the_poller_by_fives(self) -> None:
        world, _ = first_attempts(lambda number: f"{DEAD}?task={number}", TIMEOUT, 15)
        assert receiver_at(world, DEAD) == ReceiverHealth(ReceiverState.SLOW), "two of them were silent"
        begun_s = [one.at_s - 15 for one in world.receivers.received if one.url != HOOK]
        turns = Counter(round(at_s) for at_s in begun_s if at_s > 16)
        fives = sorted(at_s for at_s, number in turns.items() if number == 5)
        assert len(fives) >= 2
        assert min(later - earlier for earlier, later in pairwise(fives)) >= 19
        assert [number for number in turns.values() if number != 5] == [1], "the one retry that is waited for"

    @pytest.mark.parametrize(("answer", "latency_s"), [(Answer(500), 0.1), (TIMEOUT, 15)], ids=["500", "silence"])
    def test_is_waited_for_by_one_invocation_though_each_has_a_new_url(self, answer: Answer, latency_s: float) -> None:
        world = Deployment()
        lasted_s = []

        def deliver(task: str) -> None:
            began_s = world.now_s
            world.notifier().deliverer.deliver_fresh(task, lambda: 300)
            lasted_s.append(world.now_s - began_s)

        for number in range(20):
            url = f"{DEAD}?task={number}"
            world.receivers.answers[url] = [answer]
            world.receivers.latencies_s[url] = latency_s
            world.world.spawn(partial(deliver, plant(world, number, url)), delay_s=number / 20)
        world.run(60)
        assert sorted(lasted_s)[:19] == pytest.approx([latency_s] * 19)
        assert max(lasted_s) == pytest.approx(2 * latency_s + 5)


class TestSlowReceiversOfOneOwner:
    URLS = tuple(f"https://slow{number}.example.com/hook" for number in range(8))

    def slow(self, world: Deployment) -> None:
        for url in self.URLS:
            world.receivers.answers[url] = [TIMEOUT]
            world.receivers.latencies_s[url] = 15
            self.known(world, url)

    def known(self, world: Deployment, url: str) -> None:
        health = ReceiverHealth(ReceiverState.SLOW, endpoint_id(url))
        world.store.note_receiver_health(OWNER, receiver_of(url), WELL, health, now=START, token="test")

    def test_hold_three_invocations_at_most_and_all_have_their_turns(self) -> None:
        world = Deployment()
        self.slow(world)
        for number, url in enumerate(self.URLS):
            plant(world, number, url)
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert world.receivers.most_at_once == 3
        assert {one.url for one in world.receivers.received} == set(self.URLS)

    def test_without_a_seat_leave_the_others_of_the_host_alone(self) -> None:
        world = Deployment()
        bad, good = "https://shared.example.com/bad", "https://shared.example.com/good"
        self.known(world, bad)
        tasks = [plant(world, number, url) for number, url in enumerate([bad, bad, good])]
        seats = Seats()
        for number in range(3):
            seats, _ = seats.asked(f"r{number}", f"t{number}", START)
        world.store.change_seats(OWNER, Seats(), seats, START)
        keys = [key_of(task, url) for task, url in zip(tasks, [bad, bad, good], strict=True)]
        world.invoke(NOTIFIER, {"items": keys})
        world.run(10)
        assert [one.url for one in world.receivers.received] == [good]
        assert [delivery_of(world, task).tries for task in tasks] == [0, 0, 1]

    def test_of_whom_nobody_can_tell_are_tried(self) -> None:
        world = Deployment()
        self.slow(world)
        url = self.URLS[0]
        key = key_of(plant(world, 0, url), url)
        world.table.put_item(TableName="table", Item={"pk": {"S": f"OWNER#{OWNER}"}, "sk": {"S": "SEATS"}})
        with captured_log() as log:
            world.invoke(NOTIFIER, {"items": [key]})
            world.run(20)
        assert [one.url for one in world.receivers.received] == [url]
        assert "seats not read" in [line["message"] for line in log]

    def test_are_free_for_others_when_one_has_answered(self) -> None:
        world = Deployment()
        self.slow(world)
        url = self.URLS[0]
        world.receivers.answers[url] = [Answer(204)]
        send(world, plant(world, 0, url), at_s=0, url=url)
        assert world.store.seats(OWNER).taken == {}
        assert world.store.seats(OWNER).version == 2


class TestASlowReceiver:
    def test_is_left_to_the_poller_until_it_answers_soon(self) -> None:
        world = Deployment()
        world.receivers.latency_s = 5
        written = health_writes(world, "RECEIVER#")
        first = [world.register(succeeded(), webhooks=[HOOK], at_s=at_s) for at_s in (0, 7)]
        world.run(20)
        assert [len(world.messages(task)) for task in first] == [1, 1], "the first late answer put nobody off"
        assert receiver_at(world, HOOK) == ReceiverHealth(ReceiverState.SLOW, endpoint_id(HOOK))
        assert health_of(world) == HEALTHY, "it was heard"
        second = world.register(succeeded(), webhooks=[HOOK], at_s=20)
        world.tick_every_minute(until_s=200, first_s=65)
        world.run(65)
        assert world.messages(second) == []
        world.receivers.latency_s = 0.1
        world.run(110)
        ended_s = (world.task(second).history[-1].at - START).total_seconds()
        assert 60 <= world.messages(second)[0].at_s - ended_s <= 80
        assert receiver_at(world, HOOK) == WELL
        third = world.register(succeeded(), webhooks=[HOOK], at_s=110)
        world.run(115)
        assert len(world.messages(third)) == 1
        assert written() == 3

    def test_that_is_so_for_one_answer_in_a_hundred_puts_nobody_off(self, measured: Callable[[str], None]) -> None:
        world = Deployment(notifiers=20)
        world.receivers = ColdReceivers(world.world, latency_s=0.2, every=100)
        tasks = [world.register(failed(), webhooks=[HOOK], at_s=number) for number in range(600)]
        world.tick_every_minute(until_s=660)
        world.run(660)
        late_s = sorted(
            world.messages(task)[0].at_s - (world.task(task).history[-1].at - START).total_seconds() for task in tasks
        )
        measured(f"600 webhooks to a receiver with a cold start of 6 s every 100: worst {late_s[-1]:.1f} s late")
        assert late_s[-6] > 5, "some met it"
        assert late_s[-1] <= 10
        assert receiver_at(world, HOOK) == WELL

    def test_is_known_at_its_endpoint_though_another_of_the_host_answers_in_between(self) -> None:
        world = Deployment()
        cold, good = "https://hooks.example.com/cold", "https://hooks.example.com/good"
        world.receivers.latencies_s[cold] = 6
        for number in range(3):
            world.register(succeeded(), webhooks=[cold], at_s=number * 10)
            world.register(succeeded(), webhooks=[good], at_s=number * 10 + 8)
        world.run(45)
        assert receiver_at(world, cold) == ReceiverHealth(ReceiverState.SLOW, endpoint_id(cold))
        assert [one.url for one in world.receivers.received] == [cold, good, cold, good, good]

    def test_for_one_answer_leaves_a_near_retry_to_who_waits_for_it(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(204), DOWN, Answer(204)]
        world.receivers = ColdReceivers(world.world, answers=world.receivers.answers, latency_s=0.2, every=3, first=0)
        world.register(succeeded(), webhooks=[HOOK])
        second = world.register(succeeded(), webhooks=[HOOK], at_s=10)
        world.run(30)
        assert len(world.messages(second)) == 2

    def test_that_takes_a_little_less_is_not_slow(self) -> None:
        world = Deployment()
        world.receivers.latency_s = 4.9
        written = health_writes(world, "RECEIVER#", "HEALTH#")
        tasks = [world.register(succeeded(), webhooks=[HOOK], at_s=number) for number in range(10)]
        world.run(30)
        assert [len(world.messages(task)) for task in tasks] == [1] * 10
        assert written() == 0

    def test_is_known_from_the_record_of_a_try_whose_process_died(self) -> None:
        world = Deployment()
        task = plant(world, 1)
        slow = Answer(200, duration_ms=9000)
        late = ReceiverHealth(ReceiverState.LATE, endpoint_id(HOOK))
        world.store.note_receiver_health(OWNER, receiver_of(HOOK), WELL, late, now=START, token="test")
        held = world.store.claim_delivery(delivery_of(world, task), "token-0", START + timedelta(seconds=60))
        assert held is not None
        world.store.put_attempt(attempt_of(held, slow, judge(held, slow, START, 0.5)), None)
        send(world, task, at_s=61)
        assert receiver_at(world, HOOK).state is ReceiverState.SLOW


class TestASharedHost:
    A, B = "https://hooks.example.com/a", "https://hooks.example.com/b"

    @pytest.mark.parametrize(
        ("answer", "latency_s", "within_s"), [(DOWN, 0.1, 10), (TIMEOUT, 15, 25)], ids=["says 503", "says nothing"]
    )
    def test_with_a_failing_endpoint_s_backlog_lets_another_endpoint_have_its_turns(
        self, answer: Answer, latency_s: float, within_s: float, measured: Callable[[str], None]
    ) -> None:
        world = Deployment()
        world.receivers.answers[self.A] = [answer]
        world.receivers.latencies_s[self.A] = latency_s
        for number in range(600):
            plant(world, number, self.A, due_s=-3600)
        good = [plant(world, 1000 + number, self.B, due_s=-60) for number in range(30)]
        mark_failing(world, self.A)
        world.tick_at(5)
        world.run(100)
        heard = [world.messages(task)[0].at_s - 5 for task in good]
        what = answer.error or answer.status
        measured(f"30 webhooks beside 600 to another endpoint of the host ({what}): heard after {max(heard):.1f} s")
        assert max(heard) <= within_s
        assert max(Counter(one.at_s // 20 for one in world.receivers.received if one.url == self.A).values()) <= 5

    def test_reads_no_delivery_of_an_endpoint_that_has_just_failed(self) -> None:
        world = Deployment()
        world.receivers.answers[self.A] = [DOWN]
        a = [key_of(plant(world, number, self.A), self.A) for number in range(50)]
        b = [key_of(plant(world, 100 + number, self.B), self.B) for number in range(10)]
        store = _Counting(world.store)
        deliverer = replace(world.notifier().deliverer, store=store)
        keys = [(key["pk"], key["sk"]) for key in (*a, *b)]
        world.world.spawn(lambda: deliverer.deliver_due(keys, lambda: 300))
        world.run(30)
        assert len(store.read) == 15
        assert len([one for one in world.receivers.received if one.url == self.B]) == 10

    def test_sends_no_suspect_to_an_endpoint_that_has_just_failed(self) -> None:
        world = Deployment()
        world.receivers.answers[self.A] = [DOWN]
        tasks = [plant(world, number, self.A) for number in range(2)]
        spoil(world, key_of(tasks[1], self.A), last_error={"S": INTERRUPTED})
        send(world, *tasks, at_s=0, url=self.A)
        assert [delivery_of(world, task).tries for task in tasks] == [1, 0]

    @pytest.mark.parametrize(("answer", "asked"), [(TIMEOUT, 5), (REFUSES, 20)])
    def test_is_asked_no_further_where_it_keeps_everyone_waiting_for_nothing(self, answer: Answer, asked: int) -> None:
        world = Deployment()
        urls = [f"{self.A}?{number}" for number in range(20)]
        tasks = [plant(world, number, url) for number, url in enumerate(urls)]
        for url in urls:
            world.receivers.answers[url] = [answer]
        world.invoke(NOTIFIER, {"items": [key_of(task, url) for task, url in zip(tasks, urls, strict=True)]})
        world.run(60)
        assert len(world.receivers.received) == asked

    def test_with_five_endpoints_that_hang_and_more_is_heard_at_a_good_one(
        self, measured: Callable[[str], None]
    ) -> None:
        """Each of them has a new delivery three times a minute, as the good one has."""
        world = Deployment(notifiers=20)
        dead = [f"https://hooks.example.com/dead/{number}" for number in range(20)]
        for url in dead:
            world.receivers.answers[url] = [TIMEOUT]
            world.receivers.latencies_s[url] = 15
        good = []
        for at_s in range(0, 600, 20):
            for number, url in enumerate(dead):
                world.register(failed(), webhooks=[url], at_s=at_s + number * 20 / 21)
            good.append(world.register(failed(), webhooks=[self.B], at_s=at_s + 19))
        world.tick_every_minute(until_s=720)
        world.run(720)
        heard = [[one.at_s for one in world.messages(task)] or [math.inf] for task in good]
        ended_s = [(world.task(task).history[-1].at - START).total_seconds() for task in good]
        late_s = sorted(times[0] - end_s for times, end_s in zip(heard, ended_s, strict=True))
        measured(f"a good URL beside 20 of its host that hang: p50 {late_s[15]:.1f} s, worst {late_s[-1]:.1f} s late")
        assert late_s[-1] <= 81, "put off for a minute while the host is slow altogether, and then first in turn"

    def many(self, world: Deployment, *, failing: int) -> tuple[list[str], list[tuple[str, str]]]:
        """Deliveries to that many failing endpoints of the host and then to a good one: the URLs, and the keys."""
        urls = [f"{self.A}?{number}" for number in range(failing)]
        for url in urls:
            world.receivers.answers[url] = [TIMEOUT]
            mark_failing(world, url)
        urls.append(self.B)
        keys = [key_of(plant(world, number, url), url) for number, url in enumerate(urls)]
        return urls, [(key["pk"], key["sk"]) for key in keys]

    def deliver(self, world: Deployment, keys: Sequence[tuple[str, str]], store: Any) -> list[str]:
        """Delivers them with that store, and answers which URLs were called."""
        deliverer = replace(world.notifier().deliverer, store=store)
        world.world.spawn(lambda: deliverer.deliver_due(keys, lambda: 300))
        world.run(60)
        return [one.url for one in world.receivers.received]

    def test_is_asked_at_failing_endpoints_last(self) -> None:
        world = Deployment()
        urls, keys = self.many(world, failing=120)
        called = self.deliver(world, keys, world.store)
        assert sorted(called) == sorted([self.B, *urls[:9]]), "four beside it, and five that all hang"
        assert called[0] == self.B

    def test_is_asked_in_order_where_its_endpoints_health_cannot_be_read(self) -> None:
        world = Deployment()
        urls, keys = self.many(world, failing=10)
        with captured_log() as lines:
            called = self.deliver(world, keys, _Faulty(world.store, "failing_endpoints", 0))
        assert sorted(called) == urls[:5]
        assert "endpoints' health not read" in [line["message"] for line in lines]

    def test_with_few_endpoints_costs_no_reading_of_them_all(self) -> None:
        world = Deployment()
        _, keys = self.many(world, failing=4)
        with captured_log() as lines:
            called = self.deliver(world, keys, _Faulty(world.store, "failing_endpoints", 0))
        assert len(called) == 5
        assert "endpoints' health not read" not in [line["message"] for line in lines]

    def test_is_known_by_the_first_delivery_that_can_be_read(self) -> None:
        world = Deployment()
        _, keys = self.many(world, failing=10)
        spoil(world, {"pk": keys[0][0], "sk": keys[0][1]}, state={"S": "nonsense"})
        for name, number in (("TASK", 1), ("REQUEST", 1)):
            world.table.delete_item(TableName="table", Key=wire({"pk": keys[number][0], "sk": name}))
        world.table.delete_item(TableName="table", Key=wire({"pk": keys[1][0], "sk": keys[1][1]}))
        assert self.B in self.deliver(world, keys, world.store)
        assert world.counts["UnreadableDelivery"] <= 1

    def test_that_says_500_at_every_endpoint_is_asked_at_each_once(self) -> None:
        world = Deployment()
        urls = [f"{self.A}?{number}" for number in range(20)]
        tasks = [plant(world, number, url) for number, url in enumerate(urls)]
        for url in urls:
            world.receivers.answers[url] = [DOWN]
        world.invoke(NOTIFIER, {"items": [key_of(task, url) for task, url in zip(tasks, urls, strict=True)]})
        world.run(60)
        assert len(world.receivers.received) == 20

    def test_is_not_judged_by_a_fault_of_ours_beside_its_silence(self) -> None:
        world = Deployment()
        urls = [f"{self.A}?{number}" for number in range(10)]
        tasks = [plant(world, number, url) for number, url in enumerate(urls)]
        spoil(world, task_key(tasks[0]), status={"S": "NONSENSE"})
        for url in urls:
            world.receivers.answers[url] = [TIMEOUT]
        world.invoke(NOTIFIER, {"items": [key_of(task, url) for task, url in zip(tasks, urls, strict=True)]})
        world.run(60)
        assert len(world.receivers.received) == 4


class TestATryWhoseProcessDied:
    @dataclass
    class Case:
        world: Deployment
        task: str
        after: Delivery

    def died_before_the_claim_ended(self, answer: Answer) -> Case:
        """An attempt was made and recorded at 0; its claim runs to 60."""
        world = Deployment()
        task = plant(world, 1)
        held = world.store.claim_delivery(delivery_of(world, task), "token-0", START + timedelta(seconds=60))
        assert held is not None
        after = judge(held, answer, START, 0.5)
        world.store.put_attempt(attempt_of(held, answer, after), None)
        return self.Case(world, task, after)

    def test_after_it_was_heard_is_not_sent_again(self) -> None:
        case = self.died_before_the_claim_ended(Answer(204))
        send(case.world, case.task, at_s=61)
        assert case.world.receivers.received == []
        assert delivery_of(case.world, case.task) == case.after
        assert len(case.world.store.attempts(case.task)) == 1

    def test_after_it_had_failed_counts_once_and_goes_on_at_once_where_that_is_due(self) -> None:
        case = self.died_before_the_claim_ended(DOWN)
        send(case.world, case.task, at_s=61)
        numbers = [(one.number, one.status, one.error) for one in case.world.store.attempts(case.task)]
        assert numbers == [(1, 503, None), (2, 204, None)]
        assert delivery_of(case.world, case.task).state is DeliveryState.DELIVERED

    def test_after_it_had_failed_is_due_when_its_record_says(self) -> None:
        case = self.died_before_the_claim_ended(Answer(503, retry_after_s=3600))
        send(case.world, case.task, at_s=61)
        assert case.world.receivers.received == []
        assert delivery_of(case.world, case.task) == case.after
        assert health_of(case.world).failing, "and the endpoint is known to fail"

    def test_is_left_alone_while_its_claim_may_still_run(self) -> None:
        case = self.died_before_the_claim_ended(Answer(204))
        send(case.world, case.task, at_s=0)
        assert delivery_of(case.world, case.task).token == "token-0"

    def test_when_nothing_was_recorded_counts_as_interrupted(self) -> None:
        world = Deployment()
        task = plant(world, 1)
        world.store.claim_delivery(delivery_of(world, task), "token-0", START + timedelta(seconds=60))
        send(world, task, at_s=61)
        waiting = delivery_of(world, task)
        assert (waiting.last_error, waiting.tries, waiting.token) == (INTERRUPTED, 1, None)
        send(world, task, at_s=130)
        assert [one.error for one in world.store.attempts(task)] == [INTERRUPTED, None]


@dataclass
class DeadlyReceivers(Receivers):
    """Receivers, of which some messages end the process that sends them, with all that it does beside."""

    deadly: set[str] = field(default_factory=set)
    deaths: int = 0

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        if headers["webhook-id"] not in self.deadly:
            return super().post(url, headers, body, timeout_s)
        process = self.world.process
        assert process is not None
        self.deaths += 1
        self.world.kill(process)
        raise DiedError


@dataclass
class ColdReceivers(Receivers):
    """Receivers, of which every so many calls meet a cold start of 6 s; `first` is the first of them."""

    every: int = 100
    first: int = 50
    calls: int = 0

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        self.latencies_s[url] = 6.0 if self.calls % self.every == self.first else self.latency_s
        self.calls += 1
        return super().post(url, headers, body, timeout_s)


@dataclass
class LateReceivers(Receivers):
    """Receivers, of which one fails at one message once, after it has answered the others."""

    late: str = ""
    failed: bool = False

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        answer = super().post(url, headers, body, timeout_s)
        if headers["webhook-id"] != self.late or self.failed:
            return answer
        self.failed = True
        self.world.sleep(0.5)
        return Answer(500)


@dataclass
class InterruptedReceivers(Receivers):
    """Receivers, while whose answer comes something else happens."""

    meanwhile: Callable[[], None] = lambda: None

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        self.meanwhile()
        return super().post(url, headers, body, timeout_s)


class TestPoison:
    def deadly(self, world: Deployment, *task_ids: str) -> DeadlyReceivers:
        deadly = {f"evt_{task_id}_task_cancelled" for task_id in task_ids}
        world.receivers = receivers = DeadlyReceivers(world.world, deadly=deadly)
        return receivers

    def test_that_ends_every_process_takes_its_neighbours_along_once_and_ends_by_its_schedule(self) -> None:
        world = Deployment()
        tasks = [plant(world, number) for number in range(10)]
        receivers = self.deadly(world, tasks[2])
        world.tick_every_minute(until_s=600)
        world.run(600)
        others = [delivery_of(world, task) for task in tasks if task != tasks[2]]
        assert {one.state for one in others} == {DeliveryState.DELIVERED}
        assert max(one.tries for one in others) == 2
        at_s = world.now_s
        for number in count(100):
            poison = delivery_of(world, tasks[2])
            if poison.due_at is None:
                break
            at_s = max(at_s + 61, (poison.due_at - START).total_seconds() + 1)
            fresh = plant(world, number, due_s=at_s)
            send(world, tasks[2], fresh, at_s=at_s)
            assert delivery_of(world, fresh).state is DeliveryState.DELIVERED, "it went first"
            assert delivery_of(world, fresh).tries == 1
        assert (poison.state, poison.last_error) == (DeliveryState.EXHAUSTED, INTERRUPTED)
        assert receivers.deaths == len(world.store.attempts(tasks[2])) == len(WEBHOOK_RETRIES.delays_s) + 1
        assert world.counts["DeliveryExhausted"] == 1

    def test_whose_body_cannot_be_built_fails_at_once_and_ends_by_its_schedule(self) -> None:
        world = Deployment()
        poison, good = plant(world, 1), plant(world, 2)
        spoil(world, task_key(poison), status={"S": "NONSENSE"})
        written = health_writes(world)
        send(world, poison, good, at_s=0)
        assert delivery_of(world, good).state is DeliveryState.DELIVERED
        waiting = delivery_of(world, poison)
        assert (waiting.state, waiting.last_error, waiting.tries) == (DeliveryState.PENDING, INTERNAL, 1)
        assert waiting.due_at == START + timedelta(seconds=5.05), "the claim does not have to run out"
        (attempt,) = world.store.attempts(poison)
        assert (attempt.error, attempt.detail) == (INTERNAL, "internal error: UnreadableItemError")
        while (due := delivery_of(world, poison).due_at) is not None:
            send(world, poison, at_s=max(world.now_s, (due - START).total_seconds()))
        ended = delivery_of(world, poison)
        assert (ended.state, ended.tries, ended.last_error) == (DeliveryState.EXHAUSTED, 10, INTERNAL)
        assert world.counts["DeliveryExhausted"] == 1
        assert written() == 0, "it says nothing of the receiver"
        assert world.receivers.received[1:] == []

    def test_does_not_stop_the_deliveries_after_it(self) -> None:
        world = Deployment()
        tasks = [plant(world, number) for number in range(30)]
        for task in tasks[:6]:
            spoil(world, task_key(task), status={"S": "NONSENSE"})
        send(world, *tasks, at_s=0)
        assert len(world.receivers.received) == 24

    @pytest.mark.parametrize(
        "broken",
        [{"state": {"S": "nonsense"}}, {"due_at": {"S": "soon"}}, {"tries": {"S": "many"}}, {"url": {"N": "1"}}],
    )
    def test_that_cannot_be_read_stops_no_other_and_is_told_of(self, broken: dict[str, Any]) -> None:
        world = Deployment()
        tasks = [plant(world, number) for number in range(4)]
        spoil(world, key_of(tasks[1]), **broken)
        with captured_log() as lines:
            send(world, *tasks, at_s=0)
        assert len(world.receivers.received) == 3
        assert world.counts["UnreadableDelivery"] == 1
        assert [line["pk"] for line in lines if line["message"] == "delivery cannot be read"] == [f"TASK#{tasks[1]}"]

    def test_among_a_task_s_fresh_deliveries_stops_no_other(self) -> None:
        world = Deployment()
        task = plant(world, 1)
        spoilt = dict(world.table.get_item(TableName="table", Key=wire(key_of(task)))["Item"])
        spoilt |= {"sk": {"S": "DELIVERY#task.cancelled#url_0"}, "state": {"S": "nonsense"}}
        world.table.put_item(TableName="table", Item=spoilt)
        world.world.spawn(lambda: world.notifier().deliverer.deliver_fresh(task, lambda: 300))
        world.run(10)
        assert len(world.receivers.received) == 1

    def test_in_the_index_hides_nothing_from_the_poller_and_is_told_of_once_a_tick(self) -> None:
        world = Deployment(slots=1)
        polled = world.register(processing())
        planted = [plant(world, number, due_s=30) for number in range(100, 104)]
        unreadable = {"pk": {"S": "TASK#tsk_x"}, "slot": {"N": "0"}, "due_at": {"S": "2026-11-22T07:00:00.000000Z"}}
        world.table.put_item(TableName="table", Item=unreadable | {"sk": {"S": "TASK"}, "status": {"S": "NONSENSE"}})
        world.table.put_item(TableName="table", Item=unreadable | {"sk": {"S": "DELIVERY#task.completed#url_1"}})
        spoil(world, key_of(planted[0]), endpoint_id={"L": []})
        spoil(world, key_of(planted[1]), due_at={"S": "2026-11-22T08:00:03"})
        world.wakes = False
        world.tick_at(5)
        with captured_log() as lines:
            world.run(60)
        assert len(world.polls(polled)) >= 5
        assert [delivery_of(world, task).state for task in planted[2:]] == [DeliveryState.DELIVERED] * 2
        told = [(line["pk"], line["sk"]) for line in lines if line["message"] == "item cannot be read"]
        assert len(told) == len(set(told)) == world.counts["UnreadableItem"] == 4

    def test_alone_in_the_index_keeps_no_poller_busy(self) -> None:
        world = Deployment(slots=1)
        item = {"pk": {"S": "TASK#tsk_x"}, "sk": {"S": "TASK"}, "slot": {"N": "0"}}
        world.table.put_item(TableName="table", Item=item | {"due_at": {"S": "2026-11-22T07:00:00.000000Z"}})
        world.tick_every_minute(until_s=100)
        world.run(100)
        assert world.ticks == [(5, 5), (65, 65)]
        assert world.counts["UnreadableItem"] == 2
        assert world.store.lease(0) is None


class TestAnAttemptsRecord:
    def kept(self, body: str, detail: str | None = None) -> Attempt:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(500, body=body, detail=detail, duration_ms=17)]
        task = plant(world, 1)
        send(world, task, at_s=0)
        (attempt,) = world.store.attempts(task)
        return attempt

    def test_holds_what_is_asked_for_when_something_went_wrong(self) -> None:
        attempt = self.kept("out of order")
        assert (attempt.number, attempt.status, attempt.error, attempt.body) == (1, 500, None, "out of order")
        assert (attempt.duration_ms, attempt.manual) == (17, False)
        assert attempt.at == START + timedelta(seconds=0.05)
        assert attempt.next_at == START + timedelta(seconds=5.15)

    def test_holds_the_first_kib_of_an_answer(self) -> None:
        assert self.kept("y" * 4096).body == "y" * 1024
        assert self.kept("é" * 2000).body == "é" * 512, "counted in bytes"

    def test_holds_no_secret_that_the_receiver_repeats(self) -> None:
        secret = derive_secret(MASTER, "owner", OWNER, 1)
        link = "https://cdn.example.com/video.mp4?X-Amz-Signature=abcdef"
        attempt = self.kept(f'{{"got": "{link}", "key": "{secret}"}}', detail=f"sent {link} with {secret}")
        for words in (attempt.body, attempt.detail or ""):
            assert "cdn.example.com/video.mp4" in words
            assert "abcdef" not in words
            assert secret not in words

    @pytest.mark.parametrize("shown", [7, 12, 40])
    def test_holds_no_half_of_a_secret_where_the_answer_was_cut(self, shown: int) -> None:
        secret = derive_secret(MASTER, "owner", OWNER, 1)
        assert secret[6:12] not in self.kept("y" * 1010 + secret).body
        cut = self.kept(f"key: {secret[:shown]}").body
        assert secret[:shown] not in cut
        assert cut == "key: "


class TestATableInTrouble:
    def send(self, world: Deployment, fault: str, *task_ids: str, first: int = 0) -> None:
        deliverer = replace(world.notifier().deliverer, store=_Faulty(world.store, fault, first))
        keys = [(key["pk"], key["sk"]) for key in map(key_of, task_ids)]
        world.world.spawn(lambda: deliverer.deliver_due(keys, lambda: 300))
        world.run(10)

    def test_that_takes_no_record_costs_no_delivery(self) -> None:
        world = Deployment()
        task = plant(world, 1)
        self.send(world, "put_attempt", task)
        assert delivery_of(world, task).state is DeliveryState.DELIVERED
        assert len(world.receivers.received) == 1

    def test_that_takes_no_note_of_a_failure_does_not_hide_it_from_those_after_it(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN]
        tasks = [plant(world, number) for number in range(10)]
        self.send(world, "note_endpoint_health", *tasks)
        assert len(world.receivers.received) == 5
        assert [delivery_of(world, task).tries for task in tasks] == [1] * 5 + [0] * 5

    @pytest.mark.parametrize("fault", ["note_receiver_health", "receiver_health"])
    def test_that_keeps_no_word_of_a_receiver_costs_no_attempt(self, fault: str) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [TIMEOUT]
        task = plant(world, 1)
        self.send(world, fault, task, first=0 if fault == "note_receiver_health" else 1)
        after = delivery_of(world, task)
        assert (after.state, after.tries, after.token, after.last_error) == (DeliveryState.PENDING, 1, None, "timeout")
        assert len(world.store.attempts(task)) == 1

    @pytest.mark.parametrize("forgotten", [False, True], ids=["marked", "forgotten"])
    def test_that_was_slow_leaves_no_record_of_an_attempt_at_a_deleted_task(self, forgotten: bool) -> None:
        """The record is written after the clean-up has looked for records."""
        world = Deployment()
        task = plant(world, 1)
        held = world.store.task(task)
        assert held is not None

        def meanwhile() -> None:
            world.store.delete(held, delete(held, START))
            if forgotten:
                for item in [one for one in world.table.items() if one["pk"]["S"] == f"TASK#{task}"]:
                    world.table.delete_item(TableName="table", Key={"pk": item["pk"], "sk": item["sk"]})

        world.receivers = receivers = InterruptedReceivers(world.world, meanwhile=meanwhile)
        send(world, task, at_s=0)
        assert len(receivers.received) == 1
        assert [item["sk"]["S"] for item in world.table.items() if item["pk"]["S"] == f"TASK#{task}"] == (
            [] if forgotten else ["TASK"]
        )

    def test_keeps_the_record_of_an_attempt_whose_claim_was_lost(self) -> None:
        world = Deployment()
        task = plant(world, 1)

        def meanwhile() -> None:
            world.store.claim_delivery(delivery_of(world, task), "another", START + timedelta(seconds=60))

        world.receivers = InterruptedReceivers(world.world, meanwhile=meanwhile)
        send(world, task, at_s=0)
        assert delivery_of(world, task).token == "another"
        assert len(world.store.attempts(task)) == 1

    def test_leaves_no_record_of_an_interruption_of_a_task_that_was_deleted_meanwhile(self) -> None:
        world = Deployment()
        task = plant(world, 1)
        world.store.claim_delivery(delivery_of(world, task), "token-0", START + timedelta(seconds=60))
        held = world.store.task(task)
        assert held is not None
        store = _Deleting(world.store, lambda: world.store.delete(held, delete(held, START)))
        deliverer = replace(world.notifier().deliverer, store=cast(Any, store))
        world.run(61)
        key = key_of(task)
        world.world.spawn(lambda: deliverer.deliver_due([(key["pk"], key["sk"])], lambda: 300))
        world.run(100)
        assert world.store.attempts(task) == ()

    @pytest.mark.parametrize(
        ("disabled_at", "fault"),
        [(None, "note_endpoint_health"), (START - timedelta(days=1), "endpoint_health")],
        ids=["no note", "no second read"],
    )
    def test_gives_up_no_delivery_for_what_it_has_not_kept(self, disabled_at: datetime | None, fault: str) -> None:
        world = Deployment()
        failing = EndpointHealth(START - timedelta(days=6), START - timedelta(days=5), disabled_at)
        world.store.note_endpoint_health(OWNER, endpoint_id(HOOK), HEALTHY, failing, "test")
        world.receivers.answers[HOOK] = [DOWN]
        task = plant(world, 1)
        self.send(world, fault, task, first=0 if fault == "note_endpoint_health" else 1)
        assert delivery_of(world, task).state is DeliveryState.PENDING
        assert delivery_of(world, task).tries == 1


def test_a_delivery_whose_key_names_no_task_cannot_be_read() -> None:
    world = Deployment()
    task = plant(world, 1)
    item = world.table.get_item(TableName="table", Key=wire(key_of(task)))["Item"]
    world.table.put_item(TableName="table", Item=item | {"pk": {"S": "OWNER#default"}})
    with pytest.raises(UnreadableItemError) as caught:
        world.store.delivery("OWNER#default", item["sk"]["S"])
    assert caught.value.key == ("OWNER#default", item["sk"]["S"])


class _Faulty:
    """A store of which one operation fails, after the first few times."""

    def __init__(self, store: Any, fault: str, first: int) -> None:
        self._store = store
        self._fault = fault
        self._good = first

    def __getattr__(self, name: str) -> Any:
        if name != self._fault:
            return getattr(self._store, name)
        self._good -= 1
        return self._fail if self._good < 0 else getattr(self._store, name)

    def _fail(self, *arguments: object) -> None:
        raise RuntimeError("throttled")


class _Counting:
    """A store that notes which deliveries are read."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.read: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delivery(self, pk: str, sk: str) -> Delivery | None:
        self.read.append((pk, sk))
        found: Delivery | None = self._store.delivery(pk, sk)
        return found


class _Deleting:
    """A store in which a task is deleted once the attempts at it have been read."""

    def __init__(self, store: Any, act: Callable[[], object]) -> None:
        self._store = store
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def attempts_of(self, delivery: Delivery) -> tuple[Attempt, ...]:
        found: tuple[Attempt, ...] = self._store.attempts_of(delivery)
        self._act()
        return found


def wire(key: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"S": text} for name, text in key.items()}


def listing(url: str = HOOK) -> str:
    return f"FAILED#{endpoint_id(url)}"
